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
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
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

/// A raw HTTP/2 client on a session.
async fn http2(host: &mut Host) -> h2::client::SendRequest<bytes::Bytes> {
    let (client, connection) = within(h2::client::handshake(host.take_session()))
        .await
        .unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    client
}

fn request(path: &str) -> http::Request<()> {
    http::Request::post(format!("http://guest.test{path}"))
        .header("content-type", "application/grpc")
        .body(())
        .unwrap()
}

#[tokio::test]
async fn a_rapid_reset_ends_that_session_or_is_survived_and_leaves_nothing_behind() {
    let agent = Running::start();
    let mut host = agent.host().await;
    let client = http2(&mut host).await;
    for _ in 0..20_000 {
        let Ok(mut client) = within(client.clone().ready()).await else {
            break;
        };
        let Ok((_response, mut stream)) =
            client.send_request(request("/vbridge.guest.v1.System/Ping"), false)
        else {
            break;
        };
        stream.send_reset(h2::Reason::CANCEL);
    }
    drop((client, host));
    agent.until_quiet().await;
    ping(&agent).await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_bounded_and_disturbs_nobody_after_it() {
    let agent = Running::start();
    let mut host = agent.host().await;
    let client = http2(&mut host).await;
    let message = vec![0; 64 * 1024];
    let mut ping_message = vec![0];
    // A Ping with a payload of 60,000 bytes: field 1, length-delimited.
    let mut body = vec![0x0a, 0xe0, 0xd4, 0x03];
    body.extend_from_slice(&message[..60_000]);
    ping_message.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
    ping_message.extend_from_slice(&body);
    let ping_message = bytes::Bytes::from(ping_message);
    let mut held = Vec::new();
    for _ in 0..200 {
        let mut client = within(client.clone().ready()).await.unwrap();
        let (response, mut stream) = client
            .send_request(request("/vbridge.guest.v1.System/Ping"), false)
            .unwrap();
        stream.send_data(ping_message.clone(), true).unwrap();
        held.push((response, stream));
    }
    // The first answers come as far as the windows allow; nobody takes them.
    let first = within(&mut held[0].0).await.unwrap();
    assert_eq!(first.status(), http::StatusCode::OK);
    drop((held, client, host));
    ping(&agent).await;
}

#[tokio::test]
async fn metadata_without_end_is_refused_and_the_session_lives() {
    let agent = Running::start();
    let mut host = agent.host().await;
    let client = http2(&mut host).await;
    let mut huge = request("/vbridge.guest.v1.System/Ping");
    for number in 0..100 {
        let name = http::HeaderName::from_bytes(format!("x-{number}").as_bytes()).unwrap();
        huge.headers_mut()
            .insert(name, "v".repeat(1000).parse().unwrap());
    }
    let mut ready = within(client.clone().ready()).await.unwrap();
    let outcome = match ready.send_request(huge, true) {
        Ok((response, _)) => within(response).await.map(|response| response.status()),
        Err(error) => Err(error),
    };
    assert_ne!(outcome.ok(), Some(http::StatusCode::OK));
    let mut ready = within(client.clone().ready()).await.unwrap();
    let (response, _) = ready
        .send_request(request("/vbridge.guest.v1.System/GetInfo"), true)
        .unwrap();
    assert_eq!(
        within(response).await.unwrap().status(),
        http::StatusCode::OK
    );
}

#[tokio::test]
async fn bytes_that_are_no_http_end_the_session_and_not_the_agent() {
    let agent = Running::start();
    let mut host = agent.host().await;
    let mut session = host.take_session();
    session
        .write_all(b"GET / HTTP/1.1\r\nHost: guest\r\n\r\n")
        .await
        .unwrap();
    session.flush().await.unwrap();
    let mut answer = Vec::new();
    within(session.read_to_end(&mut answer)).await.unwrap();
    drop((session, host));
    ping(&agent).await;
}
