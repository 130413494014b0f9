//! Channels of other agents, against a socket on which the test plays QEMU and the agent behind it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::{path::PathBuf, time::Duration};

use bridge_host::channel::{
    ChannelSettings, GuestAgent, Protocol, ProtocolError, ProtocolHandler, VirtioChannel,
    VirtioSerialBuilder, VirtioSerialProtocol, async_trait,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    time::timeout,
};

/// For what has to fail by taking too long.
const SHORT: Duration = Duration::from_millis(50);

/// The other end.
struct Agent {
    directory: TempDir,
    listener: UnixListener,
}

/// The other end of one connection.
struct Peer(BufReader<UnixStream>);

impl Agent {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("agent")).unwrap();
        Self {
            directory,
            listener,
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("agent")
    }

    async fn accept(&self) -> Peer {
        Peer(BufReader::new(self.listener.accept().await.unwrap().0))
    }

    /// A channel that is connected, and its other end.
    async fn channel(&self, settings: ChannelSettings) -> (VirtioChannel, Peer) {
        let channel = VirtioChannel::with_settings("test", self.path(), settings);
        channel.connect().await.unwrap();
        (channel, self.accept().await)
    }

    async fn protocol(&self, builder: VirtioSerialBuilder) -> (VirtioSerialProtocol, Peer) {
        let mut protocol = builder.with_socket_path(self.path()).build();
        protocol.open().await.unwrap();
        (protocol, self.accept().await)
    }

    fn qga(&self, settings: ChannelSettings) -> GuestAgent {
        GuestAgent::new(VirtioChannel::with_settings("qga", self.path(), settings))
    }
}

impl Peer {
    async fn says(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).await.unwrap();
        line
    }

    /// The number of a `guest-sync-delimited`, which must come next.
    async fn sync(&mut self) -> Value {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line).await.unwrap();
        assert_eq!(line.first(), Some(&0xff), "{line:?}");
        let request: Value = serde_json::from_slice(&line[1..]).unwrap();
        assert_eq!(request["execute"], "guest-sync-delimited");
        request["arguments"]["id"].clone()
    }

    async fn synced(&mut self) {
        let id = self.sync().await;
        self.answers(b"\xff", json!({ "return": id })).await;
    }

    async fn answers(&mut self, before: &[u8], answer: Value) {
        self.says([before, answer.to_string().as_bytes(), b"\n"].concat())
            .await;
    }

    async fn command(&mut self) -> Value {
        serde_json::from_str(&self.line().await).unwrap()
    }
}

fn patient() -> ChannelSettings {
    ChannelSettings::default()
}

fn hasty() -> ChannelSettings {
    let mut settings = ChannelSettings::default();
    settings.receive_timeout = SHORT;
    settings.send_timeout = SHORT;
    settings
}

fn small(bytes: usize) -> ChannelSettings {
    let mut settings = ChannelSettings::default();
    settings.max_message = bytes;
    settings
}

#[track_caller]
fn timed_out<T: std::fmt::Debug>(result: Result<T, ProtocolError>) {
    let error = result.unwrap_err();
    assert!(matches!(error, ProtocolError::Timeout { .. }), "{error}");
}

// === receiving ===

#[tokio::test]
async fn a_line_comes_as_a_whole_however_it_is_cut() {
    let agent = Agent::new();
    let (channel, mut peer) = agent.channel(hasty()).await;
    peer.says("hel").await;
    timed_out(channel.receive_line().await);
    peer.says("lo \u{e9}".as_bytes().split_last().unwrap().1)
        .await;
    timed_out(channel.receive_line().await);
    peer.says(b"\xa9\r\nnext\n").await;
    assert_eq!(channel.receive_line().await.unwrap(), "hello \u{e9}");
    assert_eq!(channel.receive_line().await.unwrap(), "next");
}

#[tokio::test]
async fn a_receive_that_is_dropped_loses_no_byte() {
    let agent = Agent::new();
    let (channel, mut peer) = agent.channel(patient()).await;
    let mut expected = Vec::new();
    for byte in 0..200 {
        peer.says([byte]).await;
        expected.push(byte);
        // It takes what is there, and is dropped while it waits for the rest.
        tokio::select! {
            biased;
            _ = channel.receive_exact(300) => unreachable!(),
            () = tokio::task::yield_now() => {}
        }
    }
    peer.says([200; 100]).await;
    expected.extend([200; 100]);
    assert_eq!(channel.receive_exact(300).await.unwrap(), expected);
}

#[tokio::test]
async fn of_a_split_character_nothing_is_taken_until_it_is_whole() {
    let agent = Agent::new();
    let (channel, mut peer) = agent.channel(hasty()).await;
    peer.says(b"a\xe2\x82").await;
    assert_eq!(channel.receive_string().await.unwrap(), "a");
    timed_out(channel.receive_string().await);
    peer.says(b"\xac!").await;
    assert_eq!(channel.receive_string().await.unwrap(), "\u{20ac}!");
    peer.says(b"b\xffc").await;
    assert_eq!(channel.receive_string().await.unwrap(), "b");
    let error = channel.receive_string().await.unwrap_err();
    assert!(matches!(error, ProtocolError::NotText { .. }), "{error}");
    assert_eq!(channel.receive_string().await.unwrap(), "c");
    peer.says(b"\xff\nd\n").await;
    let error = channel.receive_line().await.unwrap_err();
    assert!(matches!(error, ProtocolError::NotText { .. }), "{error}");
    assert_eq!(channel.receive_line().await.unwrap(), "d");
}

#[tokio::test]
async fn whatever_is_there_is_received_as_bytes() {
    let agent = Agent::new();
    let (channel, mut peer) = agent.channel(small(4)).await;
    peer.says(b"abcdef").await;
    assert_eq!(channel.receive().await.unwrap(), b"abcd");
    assert_eq!(channel.receive().await.unwrap(), b"ef");
    peer.says(b"a|b\n").await;
    assert_eq!(channel.receive_until(b'|').await.unwrap(), b"a");
    assert_eq!(channel.receive_exact(2).await.unwrap(), b"b\n");
    let error = channel.receive_exact(5).await.unwrap_err();
    assert!(error.to_string().contains("more than 4 bytes"), "{error}");
}

#[tokio::test]
async fn an_over_long_line_is_an_error_and_the_next_one_is_received() {
    let agent = Agent::new();
    let (channel, mut peer) = agent.channel(small(1000)).await;
    peer.says([b'x'; 1001]).await;
    let error = channel.receive_line().await.unwrap_err();
    assert!(
        matches!(error, ProtocolError::TooLarge { limit: 1000, .. }),
        "{error}"
    );
    peer.says([b'x'; 5000]).await;
    peer.says([&[b'\n'], &[b'y'; 1000][..], b"\n"].concat())
        .await;
    assert_eq!(channel.receive_line().await.unwrap(), "y".repeat(1000));
    // All of it may have come already.
    peer.says([&[b'x'; 1001][..], b"\nz\n"].concat()).await;
    assert!(channel.receive_line().await.is_err());
    assert_eq!(channel.receive_line().await.unwrap(), "z");
}

#[tokio::test]
async fn a_message_of_the_largest_size_goes_both_ways() {
    let agent = Agent::new();
    let (channel, mut peer) = agent.channel(patient()).await;
    let largest = channel.settings().max_message;
    let text = "m".repeat(largest - 1) + "\n";
    let echo = async {
        let line = peer.line().await;
        peer.says(line).await;
    };
    let (sent, received, ()) =
        tokio::join!(channel.send_string(&text), channel.receive_line(), echo);
    sent.unwrap();
    assert_eq!(received.unwrap().len(), largest - 1);
    let error = channel.send(&vec![0; largest + 1]).await.unwrap_err();
    assert!(matches!(error, ProtocolError::TooLarge { .. }), "{error}");
    assert!(channel.is_connected());
}

// === sending ===

#[tokio::test]
async fn a_message_that_has_begun_to_leave_is_sent_to_its_end_before_the_next() {
    let agent = Agent::new();
    let (channel, mut peer) = agent.channel(hasty()).await;
    // More than a socket takes while nobody reads.
    let large = "l".repeat(channel.settings().max_message - 1) + "\n";
    let error = channel.send_string(&large).await.unwrap_err();
    assert!(matches!(error, ProtocolError::HalfSent { .. }), "{error}");
    // Nothing of this one has left, so nothing of it ever does.
    timed_out(channel.send_string("given up\n").await);
    let next = async {
        // The rest of the first one has to leave before.
        while let Err(error) = channel.send_string("next\n").await {
            assert!(matches!(error, ProtocolError::Timeout { .. }), "{error}");
        }
    };
    let (first, ()) = tokio::join!(peer.line(), next);
    assert_eq!(first.len(), large.len());
    assert_eq!(peer.line().await, "next\n");
}

// === connections ===

#[tokio::test]
async fn the_other_ends_close_in_the_middle_is_told_and_half_a_line_never_reaches_the_next_connection()
 {
    let agent = Agent::new();
    let (channel, mut peer) = agent.channel(patient()).await;
    assert!(channel.is_connected());
    peer.says("whole\nhal").await;
    drop(peer);
    assert_eq!(channel.receive_line().await.unwrap(), "whole");
    let error = channel.receive_line().await.unwrap_err();
    assert!(
        matches!(error, ProtocolError::Closed { dropped: 3, .. }),
        "{error}"
    );
    assert!(!channel.is_connected());
    let error = channel.receive_line().await.unwrap_err();
    assert!(
        matches!(error, ProtocolError::NotConnected { .. }),
        "{error}"
    );
    channel.connect().await.unwrap();
    let mut peer = agent.accept().await;
    peer.says("f\n").await;
    assert_eq!(channel.receive_line().await.unwrap(), "f");
}

#[tokio::test]
async fn a_close_is_noticed_without_receiving() {
    let agent = Agent::new();
    let (channel, peer) = agent.channel(patient()).await;
    drop(peer);
    assert!(!channel.is_connected());
    channel.connect().await.unwrap();
    let mut peer = agent.accept().await;
    channel.send_string("again\n").await.unwrap();
    assert_eq!(peer.line().await, "again\n");
}

#[tokio::test]
async fn a_disconnect_ends_whoever_waits() {
    let agent = Agent::new();
    let (channel, mut peer) = agent.channel(patient()).await;
    let end = async {
        // The other is waiting by then.
        tokio::task::yield_now().await;
        channel.disconnect();
    };
    let (received, ()) = tokio::join!(channel.receive_line(), end);
    let error = received.unwrap_err();
    assert!(
        matches!(error, ProtocolError::NotConnected { .. }),
        "{error}"
    );
    assert_eq!(peer.line().await, "", "it is closed for the other end, too");
    let error = channel.send(b"a").await.unwrap_err();
    assert!(error.to_string().contains("connect it first"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn connecting_is_tried_again_after_waits_that_double_up_to_the_longest() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("late");
    let mut settings = ChannelSettings::default();
    settings.retry_attempts = Some(9);
    let channel = VirtioChannel::with_settings("test", &path, settings);
    let began = tokio::time::Instant::now();
    let error = channel.connect_with_retry().await.unwrap_err();
    assert!(error.to_string().contains("no such socket"), "{error}");
    // 1, 2, 4, 8, 16, 32, 60 and 60 s.
    assert_eq!(began.elapsed().as_secs(), 183);

    let channel = VirtioChannel::new("test", &path);
    let appears = async {
        tokio::time::sleep(Duration::from_secs(100)).await;
        UnixListener::bind(&path).unwrap()
    };
    let (connected, _listener) = tokio::join!(channel.connect_with_retry(), appears);
    connected.unwrap();
    assert!(channel.is_connected());
}

#[tokio::test]
async fn a_socket_on_which_nobody_listens_says_so() {
    let agent = Agent::new();
    let path = agent.path();
    drop(agent.listener);
    let channel = VirtioChannel::new("a\nb", path);
    let error = channel.connect().await.unwrap_err().to_string();
    assert!(
        error.contains("\"a\\nb\" at ") && error.contains("nobody listens"),
        "{error}"
    );
}

// === protocols ===

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
    let builder = VirtioSerialBuilder::new("test").with_handler(std::sync::Arc::new(Counted));
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

// === the QEMU guest agent ===

#[tokio::test]
async fn stale_bytes_are_dropped_up_to_the_answer_to_the_sync() {
    let agent = Agent::new();
    let qga = agent.qga(patient());
    let play = async {
        let mut peer = agent.accept().await;
        peer.says("turn\": \"half\"}\n{\"return\": 1}\n").await;
        // An earlier client's sync, and a line that is too long.
        peer.answers(b"\xff", json!({ "return": 77 })).await;
        peer.says([&b"\xff"[..], &vec![b'x'; 2 << 20], b"\n"].concat())
            .await;
        peer.synced().await;
        assert_eq!(peer.command().await, json!({"execute": "guest-ping"}));
        peer.answers(b"", json!({"return": {}})).await;
        let command = peer.command().await;
        assert_eq!(command["arguments"], json!({"path": "/nothing"}));
        let error = json!({"class": "GenericError", "desc": "no such file"});
        peer.answers(b"", json!({ "error": error })).await;
    };
    let ask = async {
        qga.connect().await.unwrap();
        qga.ping().await.unwrap();
        let error = qga
            .execute("guest-file-open", json!({"path": "/nothing"}))
            .await;
        let error = error.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the agent answers with an error (GenericError): no such file"
        );
    };
    tokio::join!(play, ask);
}

#[tokio::test]
async fn a_late_answer_of_the_guest_agent_is_never_taken_for_the_next_commands() {
    let agent = Agent::new();
    let qga = agent.qga(patient());
    let (connected, mut peer) = tokio::join!(qga.connect(), async {
        let mut peer = agent.accept().await;
        peer.synced().await;
        peer
    });
    connected.unwrap();
    let slow = timeout(SHORT, qga.execute("guest-slow", Value::Null)).await;
    assert!(slow.is_err(), "{slow:?}");
    let play = async {
        assert_eq!(peer.command().await["execute"], "guest-slow");
        let id = peer.sync().await;
        peer.answers(b"", json!({"return": "slow"})).await;
        peer.answers(b"\xff", json!({ "return": id })).await;
        assert_eq!(peer.command().await["execute"], "guest-fast");
        peer.answers(b"", json!({"return": "fast"})).await;
        // It is in order: no other sync.
        assert_eq!(peer.command().await["execute"], "guest-again");
        peer.answers(b"", json!({"return": "again"})).await;
        peer
    };
    let ask = async {
        for command in ["fast", "again"] {
            let answer = qga.execute(&format!("guest-{command}"), Value::Null).await;
            assert_eq!(answer.unwrap(), command);
        }
    };
    let (mut peer, ()) = tokio::join!(play, ask);
    // One that is dropped, and one that does not answer, are followed by a sync as well.
    tokio::select! {
        biased;
        _ = qga.execute("guest-dropped", Value::Null) => unreachable!(),
        line = peer.command() => assert_eq!(line["execute"], "guest-dropped"),
    }
    let play = async {
        peer.answers(b"", json!({"return": "dropped"})).await;
        peer.synced().await;
        assert_eq!(peer.command().await["arguments"], json!({"mode": "reboot"}));
        peer.answers(
            b"",
            json!({"error": {"class": "GenericError", "desc": "no"}}),
        )
        .await;
        peer.synced().await;
        peer.command().await;
        peer.answers(b"", json!({"return": "last"})).await;
    };
    let ask = async {
        let arguments = json!({"mode": "reboot"});
        qga.execute_unanswered("guest-shutdown", arguments)
            .await
            .unwrap();
        let answer = qga.execute("guest-last", Value::Null).await.unwrap();
        assert_eq!(answer, "last");
    };
    tokio::join!(play, ask);
}

#[tokio::test]
async fn the_guest_agents_commands_are_listed_by_whether_they_may_be_used() {
    let agent = Agent::new();
    let qga = agent.qga(patient());
    let play = async {
        let mut peer = agent.accept().await;
        peer.synced().await;
        peer.command().await;
        let commands = json!([
            {"name": "guest-ping", "enabled": true, "success-response": true},
            {"name": "guest-exec", "enabled": false, "success-response": true},
            {"name": "guest-shutdown", "enabled": true, "success-response": false},
            {"name": "guest-info", "enabled": true},
        ]);
        let info = json!({"version": "7.2.0", "supported_commands": commands});
        peer.answers(b"", json!({ "return": info })).await;
    };
    let ask = async {
        qga.connect().await.unwrap();
        let info = qga.info().await.unwrap();
        assert_eq!(info.version, "7.2.0");
        let enabled: Vec<_> = info.enabled().collect();
        assert_eq!(enabled, ["guest-ping", "guest-shutdown", "guest-info"]);
        assert!(!info.commands[2].success_response && info.commands[3].success_response);
    };
    tokio::join!(play, ask);
}

#[tokio::test]
async fn a_guest_agent_that_answers_nonsense_is_synced_anew() {
    let agent = Agent::new();
    let qga = agent.qga(patient());
    let play = async {
        let mut peer = agent.accept().await;
        peer.synced().await;
        peer.command().await;
        peer.says("{\"result\": 1}\n").await;
        peer.synced().await;
        peer.command().await;
        peer.answers(b"", json!({"return": 2})).await;
    };
    let ask = async {
        qga.connect().await.unwrap();
        let error = qga.execute("guest-one", Value::Null).await.unwrap_err();
        assert!(matches!(error, ProtocolError::ParseError(_)), "{error}");
        assert_eq!(qga.execute("guest-two", Value::Null).await.unwrap(), 2);
    };
    tokio::join!(play, ask);
}

#[tokio::test]
async fn a_guest_agent_that_does_not_answer_is_told_as_such() {
    let agent = Agent::new();
    let qga = agent.qga(hasty());
    let (connected, peer) = tokio::join!(qga.connect(), agent.accept());
    let error = connected.unwrap_err().to_string();
    assert!(error.contains("its agent may not run"), "{error}");
    drop(peer);
    let error = qga.ping().await.unwrap_err();
    assert!(!matches!(error, ProtocolError::Timeout { .. }), "{error}");
}
