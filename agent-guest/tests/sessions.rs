//! Hosts come, go, fail and lie; the agent stops and starts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod common;

use std::time::Duration;

use agent_guest::Key;
use common::{Host, Running, connect, within};
use tokio::io::AsyncWriteExt as _;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use vbridge_api::guest::v1::{
    MetricsWatchRequest, PingRequest, metrics_client::MetricsClient, system_client::SystemClient,
};
use vbridge_link::HostConfig;

async fn ping(agent: &Running) {
    let mut host = agent.host().await;
    let mut system = SystemClient::new(host.channel().await);
    within(system.ping(PingRequest::default())).await.unwrap();
}

#[tokio::test]
async fn hosts_that_vanish_in_the_middle_of_streams_leave_nothing_behind() {
    let agent = Running::start();
    for _ in 0..20 {
        let mut host = agent.host().await;
        let channel = host.channel().await;
        for _ in 0..10 {
            let mut watch =
                within(MetricsClient::new(channel.clone()).watch(MetricsWatchRequest::default()))
                    .await
                    .unwrap()
                    .into_inner();
            within(watch.message()).await.unwrap();
            // Forgotten: the stream ends with its session, not by the client's courtesy.
            std::mem::forget(watch);
        }
        drop(host);
    }
    agent.until_quiet().await;
    ping(&agent).await;
}

#[tokio::test]
async fn garbage_before_a_session_does_no_harm() {
    let agent = Running::start();
    for garbage in [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        &[0; 5000],
        &[0xff; 3],
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut stream = connect(&agent.socket()).await;
        stream.write_all(garbage).await.unwrap();
        drop(stream);
        ping(&agent).await;
    }
}

#[tokio::test]
async fn stopping_ends_streams_with_a_reason_and_the_socket_goes() {
    let mut agent = Running::start();
    let socket = agent.socket();
    let mut host = agent.host().await;
    let channel = host.channel().await;
    let mut watch =
        within(MetricsClient::new(channel.clone()).watch(MetricsWatchRequest::default()))
            .await
            .unwrap()
            .into_inner();
    let mut health = within(HealthClient::new(channel).watch(HealthCheckRequest::default()))
        .await
        .unwrap()
        .into_inner();
    within(watch.message()).await.unwrap();
    agent.ask_to_stop();
    let status = loop {
        match within(watch.message()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ends without a status"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Unavailable);
    assert!(
        status.message().contains("stopping"),
        "{}",
        status.message()
    );
    while within(health.message())
        .await
        .is_ok_and(|message| message.is_some())
    {}
    agent.stop().await.unwrap();
    assert!(!socket.exists());
}

#[tokio::test]
async fn an_agent_without_a_host_stops_at_once() {
    let agent = Running::start();
    drop(connect(&agent.socket()).await);
    let start = std::time::Instant::now();
    agent.stop().await.unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "nobody is there to be waited for"
    );
}

#[tokio::test]
async fn a_second_agent_does_not_take_the_socket() {
    let agent = Running::start();
    ping(&agent).await;
    let second = agent_guest::Agent::builder()
        .listen(agent.socket())
        .build()
        .unwrap();
    let error = within(second.run(std::future::pending()))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("another program listens there"),
        "{error}"
    );
    ping(&agent).await;
}

#[tokio::test]
async fn a_new_host_gets_a_new_session_while_the_old_one_is_served() {
    let agent = Running::start();
    let mut first = agent.host().await;
    let mut system = SystemClient::new(first.channel().await);
    within(system.ping(PingRequest::default())).await.unwrap();
    let socket = agent.socket();
    // As with QEMU, the second waits in the backlog until the first has gone.
    let second = tokio::spawn(async move { Host::connect(&socket).await });
    within(system.ping(PingRequest::default())).await.unwrap();
    assert!(!second.is_finished());
    drop(first);
    let mut second = within(second).await.unwrap();
    let mut system = SystemClient::new(second.channel().await);
    within(system.ping(PingRequest::default())).await.unwrap();
}

#[tokio::test]
async fn only_a_host_with_the_key_is_served() {
    let key = |byte: u8| Key::from_bytes(vec![byte; 32]).unwrap();
    let agent = Running::start_with(|builder| builder.key(key(1)));
    let right = HostConfig {
        key: Some(key(1)),
        ..HostConfig::default()
    };
    let mut host = Host::connect_with(&agent.socket(), right.clone()).await;
    let mut system = SystemClient::new(host.channel().await);
    within(system.ping(PingRequest::default())).await.unwrap();
    drop(host);
    for wrong in [None, Some(key(2))] {
        let stream = connect(&agent.socket()).await;
        let config = HostConfig {
            key: wrong,
            ..HostConfig::default()
        };
        let mut link = vbridge_link::HostLink::new(stream, config);
        let refused = tokio::time::timeout(Duration::from_millis(500), link.session()).await;
        assert!(!matches!(refused, Ok(Ok(_))));
    }
    within(Host::connect_with(&agent.socket(), right)).await;
}
