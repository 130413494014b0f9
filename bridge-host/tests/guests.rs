//! What callers learn of guests that are there, are not there, or are somebody else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod support;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bridge_host::{GuestSpec, limits::PROBE_TIMEOUT};
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::{
    LIMIT, background, bridge, bridge_with, fake_channel, fake_guest_process, good_guest, guest,
    health, serve_guest,
};
use tokio::{net::UnixStream, time::Instant};
use tonic::{Code, Request};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt as _;
use vbridge_api::host::v1::{
    GuestState, ListGuestsRequest, WatchGuestsRequest, bridge_client::BridgeClient,
};
use vbridge_link::{GuestConfig, Key};

/// The greetings are taken, and nothing answers.
async fn swallow(mut stream: UnixStream) {
    // The channel's end is the bridge's.
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
}

fn reason(status: &tonic::Status) -> String {
    status
        .get_details_error_info()
        .map(|info| info.reason)
        .unwrap_or_default()
}

#[tokio::test]
async fn a_guest_without_a_socket_is_unavailable_within_a_second_and_the_reason_says_so() {
    let bridge = bridge(&["web"]).await;
    let begin = Instant::now();
    let status = bridge.health("web").await.unwrap_err();
    assert!(
        begin.elapsed() < Duration::from_millis(1500),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(reason(&status), "GUEST_UNREACHABLE");
    assert!(
        status.message().contains("there is no socket"),
        "{}",
        status.message()
    );
    assert!(status.get_details_retry_info().is_some());
}

#[tokio::test]
async fn a_channel_where_nobody_answers_says_so() {
    let bridge = bridge(&["web"]).await;
    let _silent = fake_channel(&bridge.socket("web"), swallow);
    let deadline = Instant::now() + LIMIT;
    loop {
        let status = bridge.health("web").await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        if reason(&status) == "GUEST_NOT_ANSWERING" {
            assert!(
                status.message().contains("nobody answers"),
                "{}",
                status.message()
            );
            return;
        }
        assert!(Instant::now() < deadline, "{status}");
    }
}

/// QEMU can leave a port stuck when a client is killed: what the guest sends goes nowhere until the next client leaves.
#[tokio::test]
async fn a_channel_on_which_nothing_comes_is_connected_anew() {
    let bridge = bridge(&["web"]).await;
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let _stuck_at_first = fake_channel(&bridge.socket("web"), move |stream| {
        let is_first = count.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if is_first {
                swallow(stream).await;
            } else {
                serve_guest(stream, GuestConfig::default()).await;
            }
        }
    });
    bridge.until_up("web").await;
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_channel_that_another_client_holds_is_named_as_such() {
    let bridge = bridge(&["web"]).await;
    let path = bridge.socket("web");
    let _guest = good_guest(&path);
    bridge.until_up("web").await;
    // A second bridge on the same channel stands in line behind the first.
    let second = bridge_with(&["web"], |_, _| GuestSpec::new("web", &path)).await;
    let deadline = Instant::now() + LIMIT;
    loop {
        let status = second.health("web").await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        if reason(&status) == "CHANNEL_BUSY" {
            break;
        }
        assert!(Instant::now() < deadline, "{status}");
    }
    bridge.health("web").await.unwrap();
}

#[tokio::test]
async fn a_call_may_wait_for_its_guest() {
    let bridge = bridge(&["web"]).await;
    let path = bridge.socket("web");
    let channel = bridge.channel("web");
    let call = tokio::spawn(async move {
        let mut request = Request::new(tonic_health::pb::HealthCheckRequest::default());
        request
            .metadata_mut()
            .insert("x-vbridge-wait", "15s".parse().unwrap());
        tonic_health::pb::health_client::HealthClient::new(channel)
            .check(request)
            .await
    });
    // A call without patience has failed before the guest comes.
    bridge.health("web").await.unwrap_err();
    let _guest = good_guest(&path);
    call.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_wait_that_makes_no_sense_is_refused() {
    let bridge = bridge(&["web"]).await;
    for wait in ["soon", "-1s", "301s", ""] {
        let mut request = Request::new(tonic_health::pb::HealthCheckRequest::default());
        request
            .metadata_mut()
            .insert("x-vbridge-wait", wait.parse().unwrap());
        let status = tonic_health::pb::health_client::HealthClient::new(bridge.channel("web"))
            .check(request)
            .await
            .unwrap_err();
        assert_eq!(
            (status.code(), reason(&status)),
            (Code::InvalidArgument, "INVALID_WAIT".into()),
            "{wait}"
        );
    }
}

#[tokio::test]
async fn a_wrong_key_is_refused_with_a_reason_and_the_right_one_works() {
    let right = || Key::from_bytes(*b"the key that both ends know.....").unwrap();
    let wrong = Key::from_bytes(*b"another key, known to one end...").unwrap();
    let bridge = bridge_with(&["right", "wrong", "none"], |mut spec, _| {
        spec.key = match spec.name.as_str() {
            "right" => Some(right()),
            "wrong" => Some(wrong.clone()),
            _ => None,
        };
        spec
    })
    .await;
    let config = || GuestConfig {
        key: Some(right()),
        ..GuestConfig::default()
    };
    let _guests = ["right", "wrong", "none"].map(|name| guest(&bridge.socket(name), config()));
    bridge.until_up("right").await;
    for (name, words) in [
        ("wrong", "the keys differ"),
        ("none", "wants a pre-shared key"),
    ] {
        let deadline = Instant::now() + LIMIT;
        loop {
            let status = bridge.health(name).await.unwrap_err();
            assert_eq!(status.code(), Code::Unavailable);
            if reason(&status) == "GUEST_REJECTED" {
                assert!(status.message().contains(words), "{}", status.message());
                break;
            }
            assert!(Instant::now() < deadline, "{status}");
        }
    }
}

#[tokio::test]
async fn a_restarted_guest_is_back_at_once_and_calls_under_way_learn_it() {
    let bridge = bridge(&["web"]).await;
    let path = bridge.socket("web");
    let first = good_guest(&path);
    bridge.until_up("web").await;
    let channel = bridge.channel("web");
    let mut watch = tonic_health::pb::health_client::HealthClient::new(channel)
        .watch(tonic_health::pb::HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    watch.message().await.unwrap().unwrap();
    drop(first);
    let status = loop {
        match watch.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended well"),
            Err(status) => break status,
        }
    };
    assert_eq!(
        (status.code(), reason(&status)),
        (Code::Unavailable, "SESSION_ENDED".into()),
        "{status}"
    );
    std::fs::remove_file(&path).unwrap();
    let _second = good_guest(&path);
    let begin = Instant::now();
    bridge.until_up("web").await;
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test]
async fn the_bridge_lists_its_guests_and_streams_their_changes() {
    let bridge = bridge(&["db", "web"]).await;
    let mut client = BridgeClient::new(bridge.channel("bridge"));
    let mut changes = client
        .watch_guests(WatchGuestsRequest::default())
        .await
        .unwrap()
        .into_inner();
    for name in ["db", "web"] {
        let first = changes.message().await.unwrap().unwrap();
        assert!(first.snapshot);
        assert_eq!(first.guest.unwrap().name, name);
    }
    let _guest = good_guest(&bridge.socket("web"));
    loop {
        let change = changes.message().await.unwrap().unwrap();
        let guest = change.guest.unwrap();
        assert!(!change.snapshot);
        if guest.name == "web" && guest.state() == GuestState::Ready {
            assert_eq!(guest.sessions, 1);
            assert_eq!(guest.reason, "");
            break;
        }
    }
    let guests = client
        .list_guests(ListGuestsRequest {})
        .await
        .unwrap()
        .into_inner()
        .guests;
    let states: Vec<_> = guests
        .iter()
        .map(|guest| (guest.name.as_str(), guest.state()))
        .collect();
    assert_eq!(
        states,
        [("db", GuestState::Unreachable), ("web", GuestState::Ready)]
    );
    assert!(!guests[0].reason.is_empty());
}

/// A monitor of QEMU that says what it is told to.
struct Monitor {
    events: tokio::sync::mpsc::Sender<&'static str>,
    _task: support::Background,
}

impl Monitor {
    fn start(path: &std::path::Path) -> Self {
        use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
        let (events, mut told) = tokio::sync::mpsc::channel::<&'static str>(4);
        let listener = tokio::net::UnixListener::bind(path).unwrap();
        let task = background(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            stream.write_all(b"{\"QMP\": {}}\r\n").await.unwrap();
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            stream.write_all(b"{\"return\": {}}\r\n").await.unwrap();
            stream.read_line(&mut line).await.unwrap();
            stream
                .write_all(b"{\"return\": {\"running\": true}}\r\n")
                .await
                .unwrap();
            while let Some(event) = told.recv().await {
                stream.write_all(event.as_bytes()).await.unwrap();
            }
        });
        Self {
            events,
            _task: task,
        }
    }

    async fn stops(&self) {
        self.events.send("{\"event\": \"STOP\"}\r\n").await.unwrap();
    }

    async fn resumes(&self) {
        self.events
            .send("{\"event\": \"RESUME\"}\r\n")
            .await
            .unwrap();
    }
}

async fn bridge_with_monitor() -> (support::Running, Monitor) {
    let bridge = bridge_with(&["web"], |mut spec, dir| {
        spec.monitor = Some(dir.join("monitor"));
        spec
    })
    .await;
    let monitor = Monitor::start(&bridge.dir.path().join("monitor"));
    (bridge, monitor)
}

#[tokio::test]
async fn a_paused_virtual_machine_fails_calls_at_once_and_says_so() {
    let (bridge, monitor) = bridge_with_monitor().await;
    let _guest = good_guest(&bridge.socket("web"));
    bridge.until_up("web").await;
    monitor.stops().await;
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        match bridge.health("web").await {
            Ok(_) => assert!(Instant::now() < deadline),
            Err(status) => break status,
        }
    };
    assert_eq!(
        (status.code(), reason(&status)),
        (Code::Unavailable, "GUEST_PAUSED".into())
    );
    monitor.resumes().await;
    bridge.until_up("web").await;
}

#[tokio::test]
async fn a_call_that_waits_in_the_bridge_when_the_guest_pauses_is_told_and_does_not_hang() {
    const UPLOADS: u32 = 12;
    let (bridge, monitor) = bridge_with_monitor().await;
    let guest = good_guest(&bridge.socket("web"));
    bridge.until_up("web").await;
    let _frozen = guest.freeze();
    // More than the channel and what is on its way to it hold: what comes behind it waits.
    let uploads: Vec<_> = (0..UPLOADS)
        .map(|_| background(upload(bridge.channel("web"), 256 * 1024)))
        .collect();
    bridge.until_calls(UPLOADS).await;
    let channel = bridge.channel("web");
    let call = tokio::spawn(health(channel));
    bridge.until_calls(UPLOADS + 1).await;
    monitor.stops().await;
    let status = call.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    drop(uploads);
}

/// A call with a request of so many bytes.
async fn upload(channel: tonic::transport::Channel, bytes: usize) {
    let service = "x".repeat(bytes);
    // Its end is the test's.
    let _ = HealthClient::new(channel)
        .check(HealthCheckRequest { service })
        .await;
}

#[tokio::test]
async fn a_guest_that_hangs_fails_calls_within_a_second_and_is_listed_as_silent_until_it_goes_on() {
    let bridge = bridge(&["web"]).await;
    let guest = good_guest(&bridge.socket("web"));
    bridge.until_up("web").await;
    let frozen = guest.freeze();
    let begin = Instant::now();
    let status = bridge.health("web").await.unwrap_err();
    assert!(
        begin.elapsed() < Duration::from_millis(1500),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(
        (status.code(), reason(&status)),
        (Code::Unavailable, "GUEST_SILENT".into()),
        "{status}"
    );
    let mut client = BridgeClient::new(bridge.channel("bridge"));
    let mut changes = client
        .watch_guests(WatchGuestsRequest::default())
        .await
        .unwrap()
        .into_inner();
    let state = changes.message().await.unwrap().unwrap().guest.unwrap();
    assert_eq!(state.state(), GuestState::Silent, "{state:?}");
    drop(frozen);
    loop {
        let state = changes.message().await.unwrap().unwrap().guest.unwrap();
        if state.state() == GuestState::Ready {
            // The session has outlived it.
            assert_eq!(state.sessions, 1);
            break;
        }
    }
    bridge.health("web").await.unwrap();
}

#[tokio::test]
async fn a_guest_that_has_got_a_call_may_take_its_time_and_be_quiet() {
    let bridge = bridge(&["web"]).await;
    let (got, mut has_got) = tokio::sync::mpsc::unbounded_channel();
    let go_on = std::sync::Arc::new(tokio::sync::Notify::new());
    let answer = std::sync::Arc::clone(&go_on);
    let service = tower::service_fn(move |_: http::Request<hyper::body::Incoming>| {
        let (got, answer) = (got.clone(), std::sync::Arc::clone(&answer));
        async move {
            got.send(()).unwrap();
            answer.notified().await;
            Ok::<_, Infallible>(tonic::Status::aborted("as told").into_http::<tonic::body::Body>())
        }
    });
    let guest = fake_guest_process(&bridge.socket("web"), move |session| {
        let service = hyper_util::service::TowerToHyperService::new(service.clone());
        async move {
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(session), service)
                .await;
        }
    });
    let channel = bridge.channel("web");
    let mut call = tokio::spawn(async move {
        loop {
            let status = health(channel.clone()).await.unwrap_err();
            if status.code() != Code::Unavailable {
                return status;
            }
        }
    });
    has_got.recv().await.unwrap();
    let frozen = guest.freeze();
    // Longer than a guest may be quiet that did not get the call: time itself is what must not end it.
    let ended = tokio::time::timeout(3 * PROBE_TIMEOUT, &mut call).await;
    assert!(ended.is_err(), "{ended:?}");
    drop(frozen);
    go_on.notify_one();
    let status = call.await.unwrap();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Aborted, "as told")
    );
}

#[tokio::test]
async fn a_guest_may_have_an_address_of_its_own() {
    let bridge = bridge_with(&["db", "web"], |mut spec, dir| {
        if spec.name == "web" {
            spec.listen = Some(bridge_host::ListenAddress::Unix(dir.join("own.sock")));
        }
        spec
    })
    .await;
    let _guest = good_guest(&bridge.socket("web"));
    bridge.until_up("web").await;
    let path = bridge.dir.path().join("own.sock");
    let channel = tonic::transport::Endpoint::from_static("http://[::1]")
        .connect_with_connector(tower::service_fn(move |_| {
            let path = path.clone();
            async move {
                UnixStream::connect(path)
                    .await
                    .map(hyper_util::rt::TokioIo::new)
            }
        }))
        .await
        .unwrap();
    health(channel).await.unwrap();
}

#[tokio::test]
async fn a_browser_learns_what_this_port_is() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let bridge = bridge(&["web"]).await;
    let mut stream = tokio::net::TcpStream::connect(bridge.address.to_string())
        .await
        .unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 426"), "{answer}");
    assert!(answer.contains("grpcurl"), "{answer}");
}
