//! How processes end that do not end by themselves, and which go on.

use std::time::{Duration, Instant};

use tonic::Code;
use vbridge_api::guest::v1::{
    Command, ExecAttach, ExecRunRequest, ExecSignalRequest, exit_status::How, process_input::Input,
};

use crate::{
    common::within,
    support::{Scene, is_alive, is_refused, millis, numbers, seconds, shell, start, until_dead},
};

/// A shell and two that it starts, all of which take SIGTERM.
const FAMILY: &str = "sleep 1000 & echo $$ $!; sleep 1000";

/// One that takes no SIGTERM, and neither do those that it starts.
const STUBBORN: &str = "trap '' TERM; sleep 1000 & echo $$ $!; sleep 1000";

/// Both ends keep a call's deadline, and either may be the first to say so: tonic's client calls it a cancellation.
fn is_too_late(status: &tonic::Status) {
    let codes = [Code::DeadlineExceeded, Code::Cancelled];
    assert!(codes.contains(&status.code()), "{status}");
}

#[tokio::test]
async fn a_timeout_kills_the_whole_group() {
    let scene = Scene::new().await;
    for (line, grace, how) in [
        (FAMILY, seconds(60), How::Signal(15)),
        (STUBBORN, millis(50), How::Signal(9)),
    ] {
        let request = ExecRunRequest {
            command: Some(Command {
                timeout: seconds(2),
                kill_grace: grace,
                ..shell(line)
            }),
            ..ExecRunRequest::default()
        };
        let answer = scene.run(request).await.unwrap();
        let status = answer.status.unwrap();
        assert_eq!((status.how, status.timed_out), (Some(how), true), "{line}");
        let pids = numbers(&answer.stdout);
        assert_eq!(pids.len(), 2, "{line}");
        for pid in pids {
            until_dead(pid).await;
        }
    }
}

#[tokio::test]
async fn who_outlives_a_leader_that_was_ended_gets_the_rest_of_its_time() {
    let scene = Scene::new().await;
    // The shell dies at once; its child wants to tidy up.
    let child = "trap 'sleep 0.3; echo tidy; exit' TERM; echo ready; sleep 1000 & wait";
    let line = format!("sh -c '{}' & wait", child.replace('\'', "'\\''"));
    let command = Command {
        kill_grace: seconds(20),
        ..shell(&line)
    };
    let mut process = scene.start(start(command)).await.unwrap();
    process.until("ready").await;
    let attach = ExecAttach {
        id: process.id.clone(),
        ..ExecAttach::default()
    };
    let mut other = scene.attach(attach).await.unwrap();
    drop(process);
    let told = other.finish().await.unwrap();
    assert_eq!(told.how(), Some(How::Signal(15)));
    assert_eq!(told.stdout, b"ready\ntidy\n");
}

#[tokio::test]
async fn a_process_ends_with_its_call() {
    let scene = Scene::new().await;
    let mut process = scene.start(start(shell(FAMILY))).await.unwrap();
    let pids = numbers(&process.until("\n").await.stdout);
    let id = process.id.clone();
    drop(process);
    for pid in pids {
        until_dead(pid).await;
    }
    let ended = scene.until(&id, |it| it.status.is_some()).await;
    let status = ended.status.unwrap();
    assert_eq!(
        (status.how, status.timed_out),
        (Some(How::Signal(15)), false)
    );
}

#[tokio::test]
async fn a_process_ends_with_the_deadline_of_its_run_and_with_the_link() {
    let mut scene = Scene::new().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    let command = shell(&format!("exec > {}; {FAMILY}", file.display()));
    let mut request = tonic::Request::new(ExecRunRequest {
        command: Some(command),
        ..ExecRunRequest::default()
    });
    request.set_timeout(Duration::from_secs(2));
    let status = within(scene.exec.run(request)).await.unwrap_err();
    is_too_late(&status);
    let pids = numbers(&std::fs::read(&file).unwrap());
    assert_eq!(pids.len(), 2);
    for pid in pids {
        until_dead(pid).await;
    }
    let mut process = scene.start(start(shell(FAMILY))).await.unwrap();
    let pids = numbers(&process.until("\n").await.stdout);
    drop(scene.host);
    for pid in pids {
        until_dead(pid).await;
    }
}

#[tokio::test]
async fn a_process_that_keeps_running_is_found_again_after_the_link_was_lost() {
    let mut scene = Scene::new().await;
    let command = Command {
        keep_running: true,
        label: "found again".to_owned(),
        ..shell("echo before; read line; echo after $line")
    };
    let mut process = scene.start(start(command)).await.unwrap();
    let told = process.until("before\n").await;
    let id = process.id.clone();
    drop(scene.host);
    scene.host = scene.agent.host().await;
    scene.exec = vbridge_api::guest::v1::exec_client::ExecClient::new(scene.host.channel().await);
    let listed = scene.until(&id, |it| it.attached == 0).await;
    assert_eq!(
        (listed.label.as_str(), listed.status),
        ("found again", None)
    );
    assert!(is_alive(process.pid));
    let mut again = scene
        .attach(ExecAttach {
            id,
            stdout_offset: Some(u64::try_from(told.stdout.len()).unwrap()),
            ..ExecAttach::default()
        })
        .await
        .unwrap();
    again.send(Input::Stdin(b"more\n".to_vec()));
    let told = again.finish().await.unwrap();
    assert_eq!(told.stdout, b"after more\n");
    assert_eq!(told.how(), Some(How::Code(0)));
}

#[tokio::test]
async fn a_run_that_keeps_running_is_found_again() {
    let scene = Scene::new().await;
    let mut request = tonic::Request::new(ExecRunRequest {
        command: Some(Command {
            keep_running: true,
            ..shell("cat; sleep 1000")
        }),
        stdin: vec![b'x'; 200_000],
        max_output_bytes: Some(1000),
        ..ExecRunRequest::default()
    });
    request.set_timeout(Duration::from_secs(1));
    let status = within(scene.exec.clone().run(request)).await.unwrap_err();
    is_too_late(&status);
    let id = scene.list().await[0].id.clone();
    let listed = scene.until(&id, |it| it.stdout_bytes == 200_000).await;
    assert_eq!((listed.stdin_bytes, listed.attached), (200_000, 0));
    let attach = ExecAttach {
        id: id.clone(),
        keep_running: Some(false),
        ..ExecAttach::default()
    };
    let mut again = scene.attach(attach).await.unwrap();
    let request = ExecSignalRequest {
        id,
        signal: 15,
        process_only: false,
    };
    within(scene.exec.clone().signal(request)).await.unwrap();
    let told = again.finish().await.unwrap();
    assert_eq!((told.stdout.len(), told.dropped), (1000, 199_000));
    assert_eq!(told.how(), Some(How::Signal(15)));
}

#[tokio::test]
async fn one_who_is_with_a_process_may_take_it_along() {
    let scene = Scene::new().await;
    let command = Command {
        keep_running: true,
        ..shell(FAMILY)
    };
    let mut process = scene.start(start(command)).await.unwrap();
    let pids = numbers(&process.until("\n").await.stdout);
    let attach = |keep_running| ExecAttach {
        id: process.id.clone(),
        keep_running,
        ..ExecAttach::default()
    };
    drop(scene.attach(attach(None)).await.unwrap());
    scene.until(&process.id, |it| it.attached == 1).await;
    assert!(is_alive(pids[0]));
    drop(scene.attach(attach(Some(false))).await.unwrap());
    let told = process.finish().await.unwrap();
    assert_eq!(told.how(), Some(How::Signal(15)));
}

#[tokio::test]
async fn what_a_command_leaves_behind_does_not_keep_its_end() {
    let scene = Scene::new().await;
    let before = Instant::now();
    let answer = scene.shell("sleep 1000 & echo $!").await;
    assert!(before.elapsed() < Duration::from_secs(15));
    assert_eq!(answer.status.unwrap().how, Some(How::Code(0)));
    let pids = numbers(&answer.stdout);
    assert!(is_alive(pids[0]), "it was started to go on");
    scene.shell(&format!("kill {}", pids[0])).await;
    until_dead(pids[0]).await;
    // One that writes for ever does not either.
    let answer = scene.shell("yes & echo $! >&2").await;
    assert!(answer.stdout.starts_with(b"y\ny\n"));
    until_dead(numbers(&answer.stderr)[0]).await;
}

#[tokio::test]
async fn an_agent_that_stops_ends_what_does_not_go_on_without_it() {
    let scene = Scene::new().await;
    let mut ends = scene.start(start(shell(FAMILY))).await.unwrap();
    let ending = numbers(&ends.until("\n").await.stdout);
    let command = Command {
        keep_running: true,
        ..shell(FAMILY)
    };
    let mut stays = scene.start(start(command)).await.unwrap();
    let staying = numbers(&stays.until("\n").await.stdout);
    let (told, left, stopped) = tokio::join!(ends.finish(), stays.finish(), scene.agent.stop());
    stopped.unwrap();
    assert_eq!(told.unwrap().how(), Some(How::Signal(15)));
    is_refused(left, Code::Unavailable, "AGENT_STOPPING");
    for pid in ending {
        until_dead(pid).await;
    }
    for pid in staying {
        assert!(is_alive(pid));
        let killed = std::process::Command::new("kill")
            .arg(pid.to_string())
            .status();
        assert!(killed.unwrap().success());
    }
}
