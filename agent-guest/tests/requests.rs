//! Bounds of requests that the agent's configuration sets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod common;

use std::time::{Duration, Instant};

use common::{Running, until, within};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use vbridge_api::guest::v1::{
    Command, ExecRunRequest, MetricsWatchRequest, PingRequest, exec_client::ExecClient,
    metrics_client::MetricsClient, system_client::SystemClient,
};

fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    details.error_info().expect("a reason").reason.clone()
}

#[tokio::test]
async fn no_request_is_larger_than_the_configuration_allows() {
    const MOST: usize = 32 * 1024;
    let agent = Running::start_with(|builder| builder.max_request_size(MOST));
    let mut host = agent.host().await;
    let mut system = SystemClient::new(host.channel().await);
    let mut ping = async |size: usize| {
        let payload = vec![0; size];
        within(system.ping(PingRequest { payload })).await
    };
    assert!(ping(MOST - 16).await.is_ok());
    for size in [MOST, 64 * 1024] {
        let status = ping(size).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert_eq!(reason(&status), "REQUEST_TOO_LARGE");
        assert!(status.message().contains("32768"), "{status}");
    }
}

#[tokio::test]
async fn no_call_of_one_answer_takes_longer_than_the_configuration_allows() {
    const LONGEST: Duration = Duration::from_millis(500);
    let agent = Running::start_with(|builder| builder.request_timeout(LONGEST));
    let mut host = agent.host().await;
    let channel = host.channel().await;
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let line = format!(
        "echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000",
        pid.display()
    );
    let argv = ["sh", "-c", &line].map(str::to_owned).to_vec();
    let request = ExecRunRequest {
        command: Some(Command {
            argv,
            ..Command::default()
        }),
        ..ExecRunRequest::default()
    };
    // Calls with a stream go on, whenever they began.
    let mut metrics = MetricsClient::new(channel.clone());
    let watch = metrics.watch(MetricsWatchRequest {
        interval: Some(Duration::from_millis(100).try_into().unwrap()),
        ..MetricsWatchRequest::default()
    });
    let mut watch = within(watch).await.unwrap().into_inner();
    let start = Instant::now();
    let mut exec = ExecClient::new(channel);
    let status = within(exec.run(request)).await.unwrap_err();
    assert!(start.elapsed() >= LONGEST);
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert_eq!(reason(&status), "DEADLINE_EXCEEDED");
    assert!(status.message().contains("request_timeout"), "{status}");
    let pid = std::fs::read_to_string(pid).unwrap();
    let process = std::path::PathBuf::from(format!("/proc/{}", pid.trim()));
    until(|| !process.exists()).await;
    while start.elapsed() < 2 * LONGEST {
        within(watch.message()).await.unwrap().unwrap();
    }
}
