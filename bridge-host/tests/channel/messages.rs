//! Messages stay whole, however they are cut and whoever gives up.

use bridge_host::channel::ProtocolError;

use crate::agent::{Agent, hasty, patient, small, timed_out};

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
    peer.says([&b"\n"[..], &[b'y'; 1000], b"\n"].concat()).await;
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
