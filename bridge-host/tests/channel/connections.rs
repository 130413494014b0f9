//! Connections begin, are tried again, and end, and nothing of an old one reaches a new one.

use std::time::Duration;

use bridge_host::channel::{ChannelSettings, ProtocolError, VirtioChannel};
use tokio::net::UnixListener;

use crate::agent::{Agent, patient};

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
