//! Processes that are found again, and what is kept of their output.

use tonic::Code;
use tonic_types::StatusExt as _;
use vbridge_api::guest::v1::{
    Command, ExecAttach, ExecStart, exit_status::How, process_input::Input,
};

use crate::support::{Scene, Told, argv, is_refused, shell, start};

fn from(id: &str, stdout_offset: Option<u64>) -> ExecAttach {
    ExecAttach {
        id: id.to_owned(),
        stdout_offset,
        ..ExecAttach::default()
    }
}

#[tokio::test]
async fn everyone_who_is_with_a_process_gets_all_of_its_output() {
    let scene = Scene::new().await;
    let line = "echo one; echo other >&2; read line; echo $line";
    let mut first = scene.start(start(shell(line))).await.unwrap();
    let told = first.until("one\n").await;
    let mut second = scene.attach(from(&first.id, None)).await.unwrap();
    let mut third = scene.attach(from(&first.id, Some(2))).await.unwrap();
    assert_eq!(third.process.attached, 3);
    assert_eq!(third.process.argv, ["/bin/sh", "-c", line]);
    // One who only watches does not end the input.
    third.half_close();
    assert_eq!(scene.list().await[0].stdin_bytes, 0);
    second.send(Input::Stdin(b"two\n".to_vec()));
    let (rest, second, third) = tokio::join!(first.finish(), second.finish(), third.finish());
    let (rest, second, third) = (rest.unwrap(), second.unwrap(), third.unwrap());
    assert_eq!([told.stdout, rest.stdout].concat(), b"one\ntwo\n");
    assert_eq!(second.stdout, b"one\ntwo\n");
    assert_eq!(third.stdout, b"e\ntwo\n");
    assert_eq!(
        (second.stderr, third.stderr),
        (b"other\n".to_vec(), b"other\n".to_vec())
    );
    for how in [rest.exit, second.exit, third.exit] {
        assert_eq!(how.unwrap().how, Some(How::Code(0)));
    }
}

#[tokio::test]
async fn who_comes_back_again_and_again_gets_every_byte_once() {
    let scene = Scene::new().await;
    // All of it is kept: what was on its way to a caller who is lost counts as taken, and may be gone otherwise.
    let request = ExecStart {
        output_buffer_bytes: Some(4 << 20),
        ..start(Command {
            keep_running: true,
            ..shell("seq 1 300000")
        })
    };
    let started = scene.start(request).await.unwrap();
    let id = started.id.clone();
    drop(started);
    let mut all: Vec<u8> = Vec::new();
    let exit = loop {
        let offset = u64::try_from(all.len()).unwrap();
        let mut call = scene.attach(from(&id, Some(offset))).await.unwrap();
        let mut told = Told::default();
        // A few messages, and then the caller is lost with whatever was on its way.
        for _ in 0..5 {
            match call.next().await.unwrap() {
                Some(output) => told.add(output),
                None => break,
            }
        }
        all.extend(&told.stdout);
        if let Some(exit) = told.exit {
            break exit;
        }
    };
    assert_eq!(exit.how, Some(How::Code(0)));
    let expected: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
    assert!(all == expected.as_bytes());
}

#[tokio::test]
async fn a_command_is_held_up_while_nobody_takes_its_output() {
    let scene = Scene::new().await;
    let request = ExecStart {
        output_buffer_bytes: Some(4096),
        ..start(Command {
            keep_running: true,
            ..shell("seq 1 300000")
        })
    };
    let started = scene.start(request).await.unwrap();
    let id = started.id.clone();
    drop(started);
    let held = scene.until(&id, |it| it.attached == 0).await;
    assert!(held.status.is_none());
    let mut call = scene.attach(from(&id, None)).await.unwrap();
    let told = call.finish().await.unwrap();
    assert!(told.stdout.ends_with(b"\n299999\n300000\n"));
    assert_eq!(told.dropped, 0);
}

#[tokio::test]
async fn bytes_that_are_gone_are_told_with_the_first_that_is_there() {
    let scene = Scene::new().await;
    let request = ExecStart {
        output_buffer_bytes: Some(4096),
        ..start(shell("seq 1 10000"))
    };
    let mut process = scene.start(request).await.unwrap();
    let told = process.finish().await.unwrap();
    assert_eq!(told.stdout.len(), 48_894);
    let listed = scene.list().await.remove(0);
    assert_eq!(listed.stdout_bytes, 48_894);
    assert!(listed.stdout_kept_from > 0);
    let refused = scene.attach(from(&process.id, Some(0))).await;
    let status = is_refused(refused, Code::OutOfRange, "OUTPUT_LOST");
    let details = status.get_error_details();
    let first = &details.error_info().unwrap().metadata["stdout_kept_from"];
    let first: u64 = first.parse().unwrap();
    assert_eq!(first, listed.stdout_kept_from);
    let mut rest = scene.attach(from(&process.id, Some(first))).await.unwrap();
    let rest = rest.finish().await.unwrap();
    assert_eq!(rest.stdout, told.stdout[usize::try_from(first).unwrap()..]);
    assert_eq!(rest.exit, told.exit);
    let refused = scene.attach(from(&process.id, Some(48_895))).await;
    is_refused(refused, Code::InvalidArgument, "INVALID_FIELD");
    let refused = scene.attach(from("0123456789abcdef", None)).await;
    is_refused(refused, Code::NotFound, "PROCESS_NOT_FOUND");
}

#[tokio::test]
async fn a_command_that_may_drop_its_oldest_output_is_never_held_up() {
    let scene = Scene::new().await;
    let request = ExecStart {
        output_buffer_bytes: Some(8192),
        drop_oldest: true,
        ..start(Command {
            keep_running: true,
            ..shell("seq 1 2000000")
        })
    };
    let mut process = scene.start(request).await.unwrap();
    // Nobody reads, and it ends.
    let ended = scene.until(&process.id, |it| it.status.is_some()).await;
    assert_eq!(ended.status.unwrap().how, Some(How::Code(0)));
    assert_eq!(ended.stdout_bytes, 14_888_896);
    let told = process.finish().await.unwrap();
    assert!(told.dropped > 0);
    let seen = told.dropped + u64::try_from(told.stdout.len()).unwrap();
    assert_eq!(seen, 14_888_896);
    assert!(told.stdout.ends_with(b"\n1999999\n2000000\n"));
}

#[tokio::test]
async fn those_that_run_are_listed_before_those_that_have_ended() {
    let scene = Scene::new().await;
    let mut ids = Vec::new();
    for label in ["ended 1", "ended 2"] {
        let command = Command {
            label: label.to_owned(),
            ..argv(["true"])
        };
        let mut process = scene.start(start(command)).await.unwrap();
        process.finish().await.unwrap();
        ids.push(process.id);
    }
    let mut running = Vec::new();
    for label in ["running 1", "running 2"] {
        let command = Command {
            label: label.to_owned(),
            ..argv(["cat"])
        };
        running.push(scene.start(start(command)).await.unwrap());
    }
    let listed = scene.list().await;
    let labels: Vec<_> = listed.iter().map(|it| it.label.as_str()).collect();
    assert_eq!(labels, ["running 1", "running 2", "ended 1", "ended 2"]);
    assert_eq!(listed[2].id, ids[0]);
    assert_eq!((listed[0].pid, listed[0].attached), (running[0].pid, 1));
    assert!(listed[0].start_time.is_some() && !listed[0].user.is_empty());
}

#[tokio::test]
async fn the_last_64_that_have_ended_are_kept() {
    let scene = Scene::new().await;
    let mut ids = Vec::new();
    for _ in 0..66 {
        let mut process = scene.start(start(argv(["true"]))).await.unwrap();
        process.finish().await.unwrap();
        ids.push(process.id);
    }
    let listed = scene.list().await;
    let listed: Vec<_> = listed.iter().map(|it| it.id.as_str()).collect();
    assert_eq!(listed, ids[2..]);
}
