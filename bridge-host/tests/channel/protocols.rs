//! Requests get their own answers, in JSON, as bytes, and in a protocol of one's own.

use std::sync::Arc;

use bridge_host::channel::{
    ChannelSettings, Protocol as _, ProtocolError, ProtocolHandler, VirtioSerialBuilder,
    VirtioSerialProtocol, async_trait,
};
use tokio::io::AsyncReadExt as _;

use crate::agent::{Agent, Peer, hasty, patient, small, timed_out};

#[tokio::test]
async fn json_is_asked_and_answered_and_its_errors_are_the_agents() {
    let agent = Agent::new();
    let builder = VirtioSerialBuilder::new("test").with_json_handler();
    let (mut protocol, mut peer) = agent.protocol(builder).await;
    assert_eq!(protocol.name(), "json");
    let play = async {
        assert_eq!(peer.line().await, "{\"data\":\"ping\"}\n");
        peer.says("{\"result\": \"po").await;
        peer.says("ng\"}\n").await;
        assert_eq!(peer.line().await, "{\"data\":\"exec\"}\n");
        peer.says("{\"error\": \"not allowed\"}\nnonsense\n{\"data\": 7}\n")
            .await;
    };
    let ask = async {
        assert_eq!(protocol.request(b"ping").await.unwrap(), b"pong");
        let error = protocol.request(b"exec").await.unwrap_err();
        assert!(error.to_string().contains("not allowed"), "{error}");
        let error = protocol.receive().await.unwrap_err();
        assert!(matches!(error, ProtocolError::ParseError(_)), "{error}");
        assert_eq!(protocol.receive().await.unwrap(), b"7");
    };
    tokio::join!(play, ask);
    protocol.disconnect().await.unwrap();
    assert!(!protocol.is_connected());
}

#[tokio::test]
async fn fields_of_ones_own_are_sent_and_read() {
    let agent = Agent::new();
    let builder = VirtioSerialBuilder::new("test").with_custom_json_handler("command", "response");
    let (mut protocol, mut peer) = agent.protocol(builder).await;
    let play = async {
        assert_eq!(peer.line().await, "{\"command\":\"status\"}\n");
        peer.says("{\"response\": {\"up\": true}}\n").await;
    };
    let (answer, ()) = tokio::join!(protocol.request(b"status"), play);
    assert_eq!(answer.unwrap(), b"{\"up\":true}");
}

#[tokio::test]
async fn an_answer_that_comes_too_late_is_not_the_next_requests() {
    let agent = Agent::new();
    let builder = VirtioSerialBuilder::new("test").with_json_handler();
    let (mut protocol, mut peer) = agent.protocol(builder.with_settings(hasty())).await;
    timed_out(protocol.request(b"1").await);
    timed_out(protocol.request(b"2").await);
    peer.says("{\"data\": \"1\"}\nbad\n{\"data\": \"3\"}\n")
        .await;
    assert_eq!(protocol.request(b"3").await.unwrap(), b"3");
    // Who wants the late answer takes it before.
    timed_out(protocol.request(b"4").await);
    peer.says("{\"data\": \"4\"}\n{\"data\": \"5\"}\n").await;
    assert_eq!(protocol.receive().await.unwrap(), b"4");
    assert_eq!(protocol.request(b"5").await.unwrap(), b"5");
    // A new connection owes nothing.
    timed_out(protocol.request(b"6").await);
    let (reconnected, mut peer) = tokio::join!(protocol.reconnect(), agent.accept());
    reconnected.unwrap();
    peer.says("{\"data\": \"7\"}\n").await;
    assert_eq!(protocol.request(b"7").await.unwrap(), b"7");
}

#[tokio::test]
async fn bytes_are_sent_and_received_as_they_are() {
    let agent = Agent::new();
    let (mut protocol, mut peer) = agent.protocol(VirtioSerialBuilder::new("test")).await;
    protocol.send(b"\0\xff\n").await.unwrap();
    let mut got = [0; 3];
    peer.0.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"\0\xff\n");
    peer.says(b"\n\0\xfe").await;
    assert_eq!(protocol.receive().await.unwrap(), b"\n\0\xfe");
}

/// One byte that tells the length, and the message.
struct Counted;

#[async_trait]
impl ProtocolHandler for Counted {
    fn name(&self) -> &str {
        "counted"
    }

    async fn encode_request(&self, data: &[u8]) -> Result<Vec<u8>, ProtocolError> {
        let length = u8::try_from(data.len());
        let length = length.map_err(|_| ProtocolError::InvalidRequest("too long".to_owned()))?;
        Ok([&[length], data].concat())
    }

    async fn decode_response(&self, data: &[u8]) -> Result<Vec<u8>, ProtocolError> {
        // It takes its time, so that it can be dropped in the midst of it.
        tokio::task::yield_now().await;
        Ok(data[1..].to_vec())
    }

    fn delimiter(&self) -> Option<u8> {
        None
    }

    fn frame(&self, received: &[u8]) -> Result<Option<usize>, ProtocolError> {
        match received {
            [0, ..] => Err(ProtocolError::ParseError("an empty message".to_owned())),
            [length, ..] => Ok(Some(usize::from(*length) + 1)),
            [] => Ok(None),
        }
    }
}

async fn counted(agent: &Agent, settings: ChannelSettings) -> (VirtioSerialProtocol, Peer) {
    let builder = VirtioSerialBuilder::new("test").with_handler(Arc::new(Counted));
    agent.protocol(builder.with_settings(settings)).await
}

#[tokio::test]
async fn a_handler_of_ones_own_finds_the_end_of_what_comes_in_pieces() {
    let agent = Agent::new();
    let (mut protocol, mut peer) = counted(&agent, hasty()).await;
    protocol.send(b"hi").await.unwrap();
    let mut got = [0; 3];
    peer.0.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"\x02hi");
    peer.says(b"\x05he").await;
    timed_out(protocol.receive().await);
    peer.says(b"llo\x01!").await;
    // Dropped while it is decoded: the message stays.
    tokio::select! {
        biased;
        _ = protocol.receive() => unreachable!(),
        () = std::future::ready(()) => {}
    }
    assert_eq!(protocol.receive().await.unwrap(), b"hello");
    assert_eq!(protocol.receive().await.unwrap(), b"!");
}

#[tokio::test]
async fn framing_that_is_lost_closes_the_connection() {
    let agent = Agent::new();
    for (settings, bytes, words) in [
        (patient(), &b"\0"[..], "an empty message"),
        (small(10), &b"\x0aabc"[..], "more than 10 bytes"),
    ] {
        let (mut protocol, mut peer) = counted(&agent, settings).await;
        peer.says(bytes).await;
        let error = protocol.receive().await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert!(!protocol.is_connected());
    }
}
