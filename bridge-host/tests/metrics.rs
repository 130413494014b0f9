//! What Prometheus gets at `/metrics`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use support::{Running, bridge, good_guest, guest_with};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};
use vbridge_api::guest::v1::{
    CpuMetrics, CpuTimes, DiskMetrics, MemoryMetrics, MetricsGetRequest, MetricsGetResponse,
    MetricsSample, MetricsWatchRequest, MetricsWatchResponse,
    metrics_server::{Metrics, MetricsServer},
};

/// A guest's metrics, and how often they were asked for.
#[derive(Clone, Default)]
struct Measures(Arc<AtomicUsize>);

#[tonic::async_trait]
impl Metrics for Measures {
    async fn get(
        &self,
        _: Request<MetricsGetRequest>,
    ) -> Result<Response<MetricsGetResponse>, Status> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let cpu = |index: usize| CpuTimes {
            name: format!("cpu{index}"),
            user: 1.5,
            ..CpuTimes::default()
        };
        let mut disks = vec![DiskMetrics {
            name: "vd\"a\n".to_owned(),
            read_bytes: 4096,
            ..DiskMetrics::default()
        }];
        disks.extend((0..200).map(|index| DiskMetrics {
            name: format!("disk{index}"),
            ..DiskMetrics::default()
        }));
        let sample = MetricsSample {
            cpu: Some(CpuMetrics {
                cpus: (0..1000).map(cpu).collect(),
                load_one: 0.25,
                ..CpuMetrics::default()
            }),
            memory: Some(MemoryMetrics {
                total_bytes: 1 << 30,
                ..MemoryMetrics::default()
            }),
            disks,
            ..MetricsSample::default()
        };
        Ok(Response::new(MetricsGetResponse {
            sample: Some(sample),
        }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<MetricsWatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        _: Request<MetricsWatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

/// Asks as Prometheus does: over HTTP/1.1.
async fn scrape(bridge: &Running) -> String {
    let address = bridge.address.to_string();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("application/openmetrics-text"), "{head}");
    body.to_owned()
}

fn has(text: &str, line: &str) {
    assert!(text.lines().any(|it| it == line), "no {line:?} in:\n{text}");
}

#[tokio::test]
async fn guests_and_their_own_metrics_are_there_in_text_that_prometheus_reads() {
    let bridge = bridge(&["away", "web"]).await;
    let _guest = guest_with(
        &bridge.socket("web"),
        MetricsServer::new(Measures::default()),
    );
    bridge.until_up("web").await;
    let text = scrape(&bridge).await;
    for line in [
        "vbridge_guest_up{guest=\"away\"} 0.0",
        "vbridge_guest_up{guest=\"web\"} 1.0",
        "vbridge_guest_scrape_success{guest=\"web\"} 1.0",
        "vbridge_guest_state{guest=\"away\",state=\"unreachable\"} 1.0",
        "vbridge_guest_sessions_total{guest=\"web\"} 1.0",
        "# TYPE node_cpu_seconds counter",
        "node_cpu_seconds_total{guest=\"web\",cpu=\"0\",mode=\"user\"} 1.5",
        "node_load1{guest=\"web\"} 0.25",
        "node_memory_MemTotal_bytes{guest=\"web\"} 1073741824.0",
        "node_disk_read_bytes_total{guest=\"web\",device=\"vd\\\"a\\n\"} 4096.0",
        "# EOF",
    ] {
        has(&text, line);
    }
    // What the guest claims to have is bounded.
    assert!(text.contains("cpu=\"63\"") && !text.contains("cpu=\"64\""));
    assert!(text.contains("\"disk62\"") && !text.contains("\"disk63\""));
}

#[tokio::test]
async fn sessions_that_ended_are_counted_by_cause_also_when_their_channel_is_another() {
    let bridge = bridge(&["web"]).await;
    for ended in 0..3 {
        let guest = good_guest(&bridge.socket("web"));
        bridge.until_up("web").await;
        let text = scrape(&bridge).await;
        let line = format!(
            "vbridge_guest_session_ends_total{{guest=\"web\",cause=\"channel_closed\"}} {ended}.0"
        );
        match ended {
            0 => assert!(!text.contains("session_ends"), "{text}"),
            _ => has(&text, &line),
        }
        // As QEMU's, it is there anew for the next.
        std::fs::remove_file(bridge.socket("web")).unwrap();
        drop(guest);
    }
}

#[tokio::test]
async fn however_many_scrape_a_guest_is_asked_once() {
    let bridge = bridge(&["web"]).await;
    let measures = Measures::default();
    let server = MetricsServer::new(measures.clone());
    let _guest = guest_with(&bridge.socket("web"), server);
    bridge.until_up("web").await;
    let scrapes = (0..8).map(|_| scrape(&bridge));
    for text in futures_util::future::join_all(scrapes).await {
        has(&text, "node_load1{guest=\"web\"} 0.25");
    }
    // A slow machine may take longer for all than a sample is shared.
    let asked = measures.0.load(Ordering::Relaxed);
    assert!((1..=2).contains(&asked), "{asked} times");
}

#[tokio::test]
async fn calls_are_counted_by_how_they_end_and_unknown_methods_have_one_label() {
    let bridge = bridge(&["web"]).await;
    let _guest = good_guest(&bridge.socket("web"));
    bridge.until_up("web").await;
    let mut client = tonic::client::Grpc::new(bridge.channel("web"));
    for method in ["/a.B/C", "/a.B/D"] {
        client.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static(method);
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        let status = client
            .unary(Request::new(()), path, codec)
            .await
            .unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unimplemented);
    }
    // A guest without metrics costs nobody else theirs.
    let text = scrape(&bridge).await;
    has(&text, "vbridge_guest_scrape_success{guest=\"web\"} 0.0");
    has(
        &text,
        "vbridge_calls_total{guest=\"web\",code=\"UNIMPLEMENTED\"} 2.0",
    );
    has(
        &text,
        "vbridge_call_duration_seconds_count{method=\"other\",code=\"UNIMPLEMENTED\"} 2",
    );
    assert!(!text.contains("a.B"), "{text}");
    let health = text
        .lines()
        .find(|line| line.starts_with("vbridge_calls_total{guest=\"web\",code=\"OK\"}"));
    assert!(health.is_some(), "{text}");
}
