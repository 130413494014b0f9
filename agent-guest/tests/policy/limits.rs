//! How many calls there may be, and what becomes of those that nobody ends.

use std::{path::Path, time::Duration};

use agent_guest::Limit;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;
use vbridge_api::guest::v1::{
    ExecListRequest, ExecStart, ExecStartRequest, ExecStartResponse, MetricsWatchRequest,
    MetricsWatchResponse, PingRequest, exec_start_request, exec_start_response,
    metrics_client::MetricsClient, system_client::SystemClient,
};

use super::*;

const METRICS: &str = "vbridge.guest.v1.Metrics/*";

/// Streams that are opened and abandoned.
const STREAMS: usize = 10_000;

/// Of these so many at once.
const AT_ONCE: usize = 50;

impl Scene {
    async fn watch(&self) -> Result<Streaming<MetricsWatchResponse>, Status> {
        let mut metrics = MetricsClient::new(self.channel.clone());
        let watch = metrics.watch(MetricsWatchRequest::default());
        within(watch).await.map(tonic::Response::into_inner)
    }

    /// Waits until a call that is made again and again is let in.
    async fn until_let_in<T>(&self, call: impl AsyncFn() -> Result<T, Status>) -> T {
        within(async {
            loop {
                match call().await {
                    Ok(answer) => return answer,
                    Err(status) => assert_eq!(status.code(), Code::ResourceExhausted, "{status}"),
                }
            }
        })
        .await
    }

    /// A process that sleeps, and what its caller holds.
    async fn sleeper(&self, keep_running: bool) -> Result<Sleeper, Status> {
        let command = Command {
            keep_running,
            ..argv(&["sleep", "1000"])
        };
        let start = ExecStart {
            command: Some(command),
            ..ExecStart::default()
        };
        let (inputs, queue) = mpsc::unbounded_channel();
        let message = Some(exec_start_request::Message::Start(start));
        inputs.send(ExecStartRequest { message }).unwrap();
        let mut exec = ExecClient::new(self.channel.clone());
        let started = within(exec.start(UnboundedReceiverStream::new(queue))).await?;
        let mut outputs = started.into_inner();
        let first = within(outputs.message()).await?.unwrap().message;
        let Some(exec_start_response::Message::Started(started)) = first else {
            panic!("it did not start: {first:?}");
        };
        let pid = started.pid;
        Ok(Sleeper {
            pid,
            call: (inputs, outputs),
        })
    }
}

struct Sleeper {
    pid: u32,
    call: (
        mpsc::UnboundedSender<ExecStartRequest>,
        Streaming<ExecStartResponse>,
    ),
}

impl Sleeper {
    fn is_there(&self) -> bool {
        Path::new(&format!("/proc/{}", self.pid)).exists()
    }
}

/// Whether a call was refused by this limit, for this reason, with a time to wait.
#[track_caller]
fn limited<T>(result: Result<T, Status>, reason: &str, rule: &str) {
    let Err(status) = result else {
        panic!("it was let in");
    };
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    let (told, metadata) = info(&status);
    assert_eq!((told.as_str(), metadata["rule"].as_str()), (reason, rule));
    let details = status.get_error_details();
    let retry = details.retry_info().unwrap().retry_delay.unwrap();
    assert!(retry > Duration::ZERO);
}

#[tokio::test]
async fn a_stream_counts_until_its_end() {
    let scene =
        Scene::new(Rules::default().limit(Limit::new("few", [METRICS]).concurrent(2))).await;
    let first = scene.watch().await.unwrap();
    let _second = scene.watch().await.unwrap();
    limited(scene.watch().await, "TOO_MANY", "few");
    let mut system = SystemClient::new(scene.channel.clone());
    within(system.ping(PingRequest::default())).await.unwrap();
    drop(first);
    let _third = scene.until_let_in(async || scene.watch().await).await;
    limited(scene.watch().await, "TOO_MANY", "few");
}

#[tokio::test]
async fn calls_too_fast_are_refused_until_there_is_a_token() {
    let hour = Duration::from_secs(3600);
    let limit = Limit::new("slow", ["*/Ping"]).rate(1, hour, 3);
    let scene = Scene::new(Rules::default().limit(limit)).await;
    let mut system = SystemClient::new(scene.channel.clone());
    for _ in 0..3 {
        within(system.ping(PingRequest::default())).await.unwrap();
    }
    let refused = within(system.ping(PingRequest::default())).await;
    limited(refused, "RATE_LIMITED", "slow");
    // Other rules without it let calls in at once.
    scene.policy.replace(Rules::default());
    within(system.ping(PingRequest::default())).await.unwrap();
}

#[tokio::test]
async fn calls_that_were_let_in_go_on_and_count_when_the_rules_change() {
    let few = |most| Rules::default().limit(Limit::new("few", [METRICS]).concurrent(most));
    let scene = Scene::new(few(2)).await;
    let mut stream = scene.watch().await.unwrap();
    scene.policy.replace(few(1));
    limited(scene.watch().await, "TOO_MANY", "few");
    for _ in 0..2 {
        within(stream.message()).await.unwrap().unwrap();
    }
    drop(stream);
    scene.until_let_in(async || scene.watch().await).await;
}

#[tokio::test]
async fn a_fork_bomb_gets_as_many_processes_as_the_limit_has_and_leaves_none() {
    let limit = Limit::new("processes", ["vbridge.guest.v1.Exec/Start"]).concurrent(8);
    let mut scene = Scene::new(Rules::default().limit(limit)).await;
    let starts = (0..100).map(|turn| scene.sleeper(turn % 2 == 0));
    let started = futures_util::future::join_all(starts).await;
    let (mut running, mut refusals) = (Vec::new(), 0);
    for result in started {
        match result {
            Ok(sleeper) => running.push(sleeper),
            Err(status) => {
                limited(Err::<(), _>(status), "TOO_MANY", "processes");
                refusals += 1;
            }
        }
    }
    assert_eq!((running.len(), refusals), (8, 92));
    assert!(running.iter().all(Sleeper::is_there));
    let mut exec = ExecClient::new(scene.channel.clone());
    let listed = within(exec.list(ExecListRequest {})).await.unwrap();
    assert_eq!(listed.into_inner().processes.len(), 8);
    // Those that go on without their callers and the agent have to be ended by somebody who knows them.
    for sleeper in &running {
        let pid = rustix::process::Pid::from_raw(i32::try_from(sleeper.pid).unwrap()).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    within(async {
        while running.iter().any(Sleeper::is_there) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    scene.agent.ask_to_stop();
}

#[tokio::test]
async fn a_process_that_outlives_its_call_counts_until_it_has_ended() {
    let limit = Limit::new("processes", ["vbridge.guest.v1.Exec/Start"]).concurrent(1);
    let scene = Scene::new(Rules::default().limit(limit)).await;
    let Sleeper { pid, call } = scene.sleeper(true).await.unwrap();
    drop(call);
    for _ in 0..20 {
        limited(scene.sleeper(true).await, "TOO_MANY", "processes");
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    // And one whose call ends it with itself, until that is done.
    let next = scene
        .until_let_in(async || scene.sleeper(false).await)
        .await;
    let path = format!("/proc/{}", next.pid);
    drop(next);
    within(async {
        while Path::new(&path).exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(
        scene
            .until_let_in(async || scene.sleeper(false).await)
            .await,
    );
}

#[tokio::test]
async fn thousands_of_abandoned_streams_leave_no_place_taken() {
    let limit = Limit::new("many", [METRICS]).concurrent(u32::try_from(AT_ONCE).unwrap());
    let scene = Scene::new(Rules::default().limit(limit)).await;
    let mut opened = 0;
    while opened < STREAMS {
        let batch = (0..AT_ONCE).map(|_| scene.watch());
        // All are dropped here, with what has come of them unread.
        for result in futures_util::future::join_all(batch).await {
            match result {
                Ok(_) => opened += 1,
                // Those before have gone, and the agent has not heard of it yet.
                Err(status) => limited(Err::<(), _>(status), "TOO_MANY", "many"),
            }
        }
    }
    let mut held = Vec::new();
    for _ in 0..AT_ONCE {
        held.push(scene.until_let_in(async || scene.watch().await).await);
    }
    limited(scene.watch().await, "TOO_MANY", "many");
    drop((held, scene.channel, scene.host));
    scene.agent.until_quiet().await;
}
