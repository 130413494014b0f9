//! Clients that mean harm: the agent neither grows nor spins nor stops serving others.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod common;

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::Ordering,
    time::Duration,
};

use bytes::Bytes;
use common::{Gated, Host, within};
use h2::client::{ResponseFuture, SendRequest};
use http::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use vbridge_api::guest::v1::{PingRequest, system_client::SystemClient};
use vbridge_link::HostConfig;

const PING: &str = "/vbridge.guest.v1.System/Ping";
const WATCH: &str = "/vbridge.guest.v1.Metrics/Watch";

/// The agent as a process of its own, so that its memory and its CPU time can be read.
struct Process {
    child: Child,
    dir: tempfile::TempDir,
}

impl Process {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_vbridge-agent"))
            .arg("--listen")
            .arg(format!("unix:{}", dir.path().join("agent.sock").display()))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let process = Self { child, dir };
        process.still_serves().await;
        process
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("agent.sock")
    }

    async fn host(&self) -> Host {
        Host::connect(&self.socket()).await
    }

    /// Memory that it holds resident, in MiB.
    fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    /// CPU time that it has used, in ticks of 10 ms.
    fn ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        fields
            .split(' ')
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u64>().unwrap())
            .sum()
    }

    /// A new session answers.
    async fn still_serves(&self) {
        let mut host = self.host().await;
        let mut system = SystemClient::new(host.channel().await);
        within(system.ping(PingRequest::default())).await.unwrap();
    }

    /// Waits until it has nothing left to do; one that spins never has. Nobody tells that: what it takes of the processor
    /// in a while is measured again and again, until PATIENCE is over.
    async fn until_idle(&self) {
        const WHILE: Duration = Duration::from_millis(500);
        const TICKS: u64 = 5;
        within(async {
            loop {
                let before = self.ticks();
                tokio::time::sleep(WHILE).await;
                if self.ticks() - before <= TICKS {
                    return;
                }
            }
        })
        .await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An HTTP/2 client on a session, whose windows let everything in.
async fn http2(host: &mut Host) -> SendRequest<Bytes> {
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size((1 << 31) - 1)
        .initial_connection_window_size((1 << 31) - 1)
        .initial_max_send_streams(2000);
    let (client, connection) = within(builder.handshake(host.take_session()))
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

/// A gRPC message around `payload` as its first field.
fn message(payload: usize) -> Bytes {
    let mut body = vec![0x0a];
    let mut rest = payload;
    while rest >= 0x80 {
        body.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
        rest >>= 7;
    }
    body.push(u8::try_from(rest).unwrap());
    body.resize(body.len() + payload, 0x5a);
    let mut message = vec![0];
    message.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
    message.extend_from_slice(&body);
    message.into()
}

#[tokio::test]
async fn a_rapid_reset_is_survived() {
    let agent = Process::start().await;
    for _ in 0..3 {
        let mut host = agent.host().await;
        let client = http2(&mut host).await;
        for _ in 0..20_000 {
            let Ok(mut client) = within(client.clone().ready()).await else {
                break;
            };
            let Ok((_, mut stream)) = client.send_request(request(PING), false) else {
                break;
            };
            stream.send_reset(h2::Reason::CANCEL);
        }
    }
    agent.still_serves().await;
    agent.until_idle().await;
    assert!(agent.resident() < 64, "{} MiB", agent.resident());
}

#[tokio::test]
async fn a_host_that_stops_reading_with_its_windows_open_is_bounded() {
    let agent = Process::start().await;
    let (stream, closed) = Gated::new(common::connect(&agent.socket()).await);
    let mut host = Host::over(stream, HostConfig::default()).await;
    let client = http2(&mut host).await;
    let ping = message(64 * 1024);
    let mut held: Vec<(ResponseFuture, h2::SendStream<Bytes>)> = Vec::new();
    for number in 0..1500 {
        let mut client = within(client.clone().ready()).await.unwrap();
        let (mut response, mut stream) = client.send_request(request(PING), false).unwrap();
        stream.send_data(ping.clone(), true).unwrap();
        if number == 0 {
            // The agent's windows are known by now.
            within(&mut response).await.unwrap();
            closed.store(true, Ordering::Relaxed);
        }
        held.push((response, stream));
    }
    agent.until_idle().await;
    // What was not sent stays unread or unasked for: not even the 94 MiB of answers are there.
    assert!(agent.resident() < 64, "{} MiB", agent.resident());
    drop((held, client, host));
    agent.still_serves().await;
}

#[tokio::test]
async fn bodies_that_nobody_reads_and_messages_that_never_end_are_bounded() {
    let agent = Process::start().await;
    let mut host = agent.host().await;
    let client = http2(&mut host).await;
    let mut held = Vec::new();
    for number in 0..1000 {
        let mut client = within(client.clone().ready()).await.unwrap();
        let path = if number % 2 == 0 { WATCH } else { PING };
        let (response, mut stream) = client.send_request(request(path), false).unwrap();
        if number % 2 == 0 {
            // A request that is complete, and then much more that no stream of this kind ever reads.
            stream.send_data(message(0), false).unwrap();
            stream
                .send_data(Bytes::from(vec![0; 1 << 17]), false)
                .unwrap();
        } else {
            // The head of a message of 4 GiB.
            stream
                .send_data(Bytes::from_static(b"\0\xff\xff\xff\xff"), false)
                .unwrap();
            stream
                .send_data(Bytes::from(vec![0; 100_000]), false)
                .unwrap();
        }
        held.push((response, stream));
    }
    agent.until_idle().await;
    assert!(agent.resident() < 64, "{} MiB", agent.resident());
    drop((held, client, host));
    agent.still_serves().await;
}

#[tokio::test]
async fn metadata_without_end_is_refused_and_the_session_lives() {
    let agent = Process::start().await;
    let mut host = agent.host().await;
    let client = http2(&mut host).await;
    let mut huge = request(PING);
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
    assert_ne!(outcome.ok(), Some(StatusCode::OK));
    let mut ready = within(client.clone().ready()).await.unwrap();
    let (response, _) = ready
        .send_request(request("/vbridge.guest.v1.System/GetInfo"), true)
        .unwrap();
    assert_eq!(within(response).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_continuation_without_end_ends_the_session() {
    let agent = Process::start().await;
    let mut host = agent.host().await;
    let mut session = host.take_session();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // SETTINGS, and HEADERS on stream 1 without END_HEADERS.
    bytes.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&[0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82]);
    session.write_all(&bytes).await.unwrap();
    // CONTINUATION frames, each with a literal header of 1,000 bytes.
    let mut header = vec![0x00, 0x01, b'x', 0x7f, 0xe9, 0x06];
    header.resize(header.len() + 1000, b'v');
    let mut frame = vec![0];
    frame.extend_from_slice(&u16::try_from(header.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(&[9, 0, 0, 0, 0, 1]);
    frame.extend_from_slice(&header);
    let flood =
        async { while session.write_all(&frame).await.is_ok() && session.flush().await.is_ok() {} };
    within(flood).await;
    drop((session, host));
    agent.still_serves().await;
    assert!(agent.resident() < 64, "{} MiB", agent.resident());
}

#[tokio::test]
async fn floods_of_control_frames_do_not_pile_up() {
    let agent = Process::start().await;
    let mut host = agent.host().await;
    let mut session = host.take_session();
    session
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    session
        .write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])
        .await
        .unwrap();
    // PING and empty SETTINGS in turn: each wants an answer, and no answer is read.
    let mut block = Vec::new();
    for _ in 0..1000 {
        block.extend_from_slice(&[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        block.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    }
    for _ in 0..1000 {
        let written =
            tokio::time::timeout(Duration::from_millis(500), session.write_all(&block)).await;
        if !matches!(written, Ok(Ok(()))) {
            break;
        }
    }
    agent.until_idle().await;
    assert!(agent.resident() < 64, "{} MiB", agent.resident());
    drop((session, host));
    agent.still_serves().await;
}

#[tokio::test]
async fn bytes_that_are_no_http_end_the_session() {
    let agent = Process::start().await;
    let mut host = agent.host().await;
    let mut session = host.take_session();
    session
        .write_all(b"GET / HTTP/1.1\r\nHost: guest\r\n\r\n")
        .await
        .unwrap();
    session.flush().await.unwrap();
    within(session.read_to_end(&mut Vec::new())).await.unwrap();
    drop((session, host));
    agent.still_serves().await;
}

#[tokio::test]
async fn a_host_that_greets_without_end_does_not_keep_others_out() {
    let agent = Process::start().await;
    for _ in 0..200 {
        let stream = common::connect(&agent.socket()).await;
        // Gone before or after the answer, as it happens.
        drop(vbridge_link::HostLink::new(stream, HostConfig::default()));
    }
    agent.still_serves().await;
    agent.until_idle().await;
}
