//! Clients that speak something else, slowly, or nothing at all: each is dealt with, and others are served as before.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::{net::SocketAddr, time::Duration};

use bridge_host::{
    ListenAddress,
    access::TlsFiles,
    limits::{FIRST_WORDS, MAX_CONNECTIONS},
};
use futures_util::future::join_all;
use support::{LIMIT, Running, bridge, bridge_of, good_guest};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use vbridge_api::host::v1::{WatchGuestsRequest, bridge_client::BridgeClient};

fn port(bridge: &Running) -> SocketAddr {
    let ListenAddress::Tcp(address) = bridge.address else {
        panic!("not TCP")
    };
    address
}

/// What comes back until the connection is closed, by whatever means.
async fn answer(mut stream: TcpStream, words: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    // It may be closed while it is written to.
    let _ = stream.write_all(words).await;
    let _ = timeout(LIMIT, stream.read_to_end(&mut answer))
        .await
        .expect("the connection is closed");
    answer
}

/// The beginning of TLS as a client speaks it, with a length that promises more.
const CLIENT_HELLO: &[u8] = &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3, 7, 7, 7, 7, 7, 7, 7, 7];

/// What a client that speaks HTTP/2 says first, with settings that set nothing.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn garbage() -> Vec<u8> {
    let mut word = 7_u32;
    let bytes = std::iter::repeat_with(|| {
        word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        word.to_be_bytes()[0]
    });
    bytes.take(100_000).collect()
}

async fn with_tls() -> (Running, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["bridge.example".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let files = TlsFiles {
        certificate: dir.path().join("bridge.pem"),
        key: dir.path().join("bridge.key"),
        client_ca: None,
        require_client: false,
    };
    std::fs::write(&files.certificate, certificate.pem()).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    let guest =
        |dir: &std::path::Path| bridge_host::GuestSpec::new("web", support::socket(dir, "web"));
    let bridge = bridge_of(|builder, dir| builder.guest(guest(dir)).tls(files)).await;
    (bridge, dir)
}

#[tokio::test]
async fn what_is_no_grpc_is_answered_or_closed_and_others_are_served() {
    let bridge = bridge(&["web"]).await;
    let _guest = good_guest(&bridge.socket("web"));
    bridge.until_up("web").await;
    let connect = || TcpStream::connect(port(&bridge));
    let old = answer(connect().await.unwrap(), b"GET / HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with(b"HTTP/1.0 426 "), "{}", old.escape_ascii());
    let post = b"POST /test HTTP/1.1\r\nHost: web\r\nContent-Length: 9999\r\n\r\nshort";
    let post = answer(connect().await.unwrap(), post).await;
    assert!(
        post.starts_with(b"HTTP/1.1 426 "),
        "{}",
        post.escape_ascii()
    );
    let many = format!("GET / HTTP/1.1\r\n{}", "A: b\r\n".repeat(100_000));
    for words in [
        &garbage()[..],
        CLIENT_HELLO,
        many.as_bytes(),
        b"\0",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
    ] {
        let told = answer(connect().await.unwrap(), words).await;
        assert!(!told.starts_with(b"HTTP/1.1 2"), "{}", told.escape_ascii());
        bridge.health("web").await.unwrap();
    }
}

#[tokio::test]
async fn what_is_no_tls_is_closed_where_tls_is_spoken() {
    let (bridge, _files) = with_tls().await;
    let words = [
        &garbage()[..],
        b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n",
        PREFACE,
        b"GET / HTTP/1.0\r\n\r\n",
    ];
    for words in words {
        let told = answer(TcpStream::connect(port(&bridge)).await.unwrap(), words).await;
        // At most an alert.
        assert!(
            told.len() < 100 && !told.starts_with(b"HTTP"),
            "{}",
            told.escape_ascii()
        );
    }
}

#[tokio::test]
async fn whoever_does_not_come_to_the_point_is_closed() {
    let plain = bridge(&["web"]).await;
    let (encrypted, _files) = with_tls().await;
    let slow = async |address: SocketAddr, words: &'static [u8]| {
        let begun = tokio::time::Instant::now();
        answer(TcpStream::connect(address).await.unwrap(), words).await;
        (words, begun.elapsed())
    };
    let words: [&[u8]; 4] = [b"", b"PRI * HTT", b"GET / HTTP/1.1\r\nHost: web\r\n", b"G"];
    let plain = words.map(|words| slow(port(&plain), words));
    let encrypted = [&b""[..], CLIENT_HELLO].map(|words| slow(port(&encrypted), words));
    for (words, time) in join_all(plain.into_iter().chain(encrypted)).await {
        let is_right = time > FIRST_WORDS / 2 && time < FIRST_WORDS + Duration::from_secs(8);
        assert!(is_right, "{time:?} for {}", words.escape_ascii());
    }
}

#[tokio::test]
async fn ten_thousand_idle_connections_keep_nobody_from_being_served() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files).unwrap();
    const IDLE: usize = 10_000;
    let bridge = bridge(&["web"]).await;
    let _guest = good_guest(&bridge.socket("web"));
    bridge.until_up("web").await;
    // One that was there before and has called keeps its connection, and its stream.
    let used = bridge.channel("web");
    support::health(used.clone()).await.unwrap();
    let mut client = BridgeClient::new(bridge.channel("bridge"));
    let mut watch = client
        .watch_guests(WatchGuestsRequest::default())
        .await
        .unwrap()
        .into_inner();
    let mut idle = Vec::with_capacity(IDLE);
    for index in 0..IDLE {
        let mut stream = TcpStream::connect(port(&bridge)).await.unwrap();
        if index % 2 == 0 {
            // Half of them say which protocol they speak, and then nothing more.
            stream.write_all(PREFACE).await.unwrap();
        }
        idle.push(stream);
        if index % 1000 == 999 {
            // A new client, in the middle of it.
            bridge.health("web").await.unwrap();
        }
    }
    support::health(used).await.unwrap();
    watch.message().await.unwrap().unwrap();
    // So many are sent away for the others.
    let deadline = tokio::time::Instant::now() + LIMIT;
    while idle.len() > MAX_CONNECTIONS {
        assert!(tokio::time::Instant::now() < deadline, "{}", idle.len());
        idle.retain(|stream| !is_closed(stream));
        tokio::task::yield_now().await;
    }
    drop(idle);
    bridge.health("web").await.unwrap();
}

/// Reads what is there.
fn is_closed(stream: &TcpStream) -> bool {
    loop {
        match stream.try_read(&mut [0; 256]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}
