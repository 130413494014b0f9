//! Commands that a call stays with.

use tonic::Code;
use vbridge_api::guest::v1::{
    ExecSignalRequest, ExecStart, exit_status::How, process_input::Input,
};

use crate::{
    common::within,
    support::{Scene, Told, argv, is_alive, is_refused, shell, start},
};

#[tokio::test]
async fn input_comes_back_through_cat_and_half_closing_ends_it() {
    let scene = Scene::new().await;
    let mut cat = scene.start(start(argv(["cat"]))).await.unwrap();
    assert!(is_alive(cat.pid));
    for word in ["one ", "two ", "three "] {
        cat.send(Input::Stdin(word.into()));
        cat.until(word).await;
    }
    cat.half_close();
    let told = cat.finish().await.unwrap();
    assert_eq!((told.how(), told.stdin_bytes), (Some(How::Code(0)), 14));
}

#[tokio::test]
async fn the_end_of_input_can_be_sent_while_the_call_stays_open() {
    let scene = Scene::new().await;
    let mut cat = scene.start(start(argv(["cat"]))).await.unwrap();
    cat.send(Input::Stdin(b"all".to_vec()));
    cat.send(Input::StdinClosed(true));
    cat.send(Input::Stdin(b"too late".to_vec()));
    let told = cat.finish().await.unwrap();
    assert_eq!((told.stdout, told.stdin_bytes), (b"all".to_vec(), 3));
}

#[tokio::test]
async fn input_that_brings_no_output_is_acknowledged() {
    let scene = Scene::new().await;
    let command = shell("cat > /dev/null; sleep 1000");
    let mut process = scene.start(start(command)).await.unwrap();
    process.send(Input::Stdin(vec![7; 200 * 1024]));
    let mut told = Told::default();
    while told.stdin_bytes < 128 * 1024 {
        told.add(process.next().await.unwrap().unwrap());
    }
    assert!(told.stdout.is_empty());
}

#[tokio::test]
async fn a_command_may_start_with_its_input_at_its_end() {
    let scene = Scene::new().await;
    let request = ExecStart {
        no_stdin: true,
        ..start(argv(["cat"]))
    };
    let told = scene.start(request).await.unwrap().finish().await.unwrap();
    assert_eq!(told.how(), Some(How::Code(0)));
}

#[tokio::test]
async fn the_outputs_come_apart_or_as_one() {
    let scene = Scene::new().await;
    let line = "echo one; echo two >&2; echo three";
    let mut apart = scene.start(start(shell(line))).await.unwrap();
    let told = apart.finish().await.unwrap();
    assert_eq!(told.stdout, b"one\nthree\n");
    assert_eq!(told.stderr, b"two\n");
    let request = ExecStart {
        merge_stderr: true,
        ..start(shell(line))
    };
    let told = scene.start(request).await.unwrap().finish().await.unwrap();
    assert_eq!(told.stdout, b"one\ntwo\nthree\n");
}

#[tokio::test]
async fn much_more_output_than_is_kept_arrives_whole() {
    let scene = Scene::new().await;
    let request = ExecStart {
        output_buffer_bytes: Some(4096),
        ..start(shell("seq 1 200000"))
    };
    let told = scene.start(request).await.unwrap().finish().await.unwrap();
    let expected: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    assert!(told.stdout == expected.as_bytes());
    assert_eq!((told.dropped, told.how()), (0, Some(How::Code(0))));
}

#[tokio::test]
async fn signals_reach_the_group_or_the_process_alone() {
    let scene = Scene::new().await;
    // The shell waits for its child, and only the child is hit by the first signal.
    let line = "trap 'echo caught' USR1; echo ready; while :; do sleep 1000 & wait $!; done";
    let mut process = scene.start(start(shell(line))).await.unwrap();
    process.until("ready").await;
    let signal = |signal, process_only| {
        let request = ExecSignalRequest {
            id: process.id.clone(),
            signal,
            process_only,
        };
        let mut exec = scene.exec.clone();
        async move { within(exec.signal(request)).await }
    };
    signal(10, true).await.unwrap();
    for number in [0, 65, -1] {
        let refused = signal(number, false).await;
        is_refused(refused, Code::InvalidArgument, "INVALID_FIELD");
    }
    let id = process.id.clone();
    process.until("caught").await;
    process.send(Input::Signal(9));
    let told = process.finish().await.unwrap();
    assert_eq!(told.how(), Some(How::Signal(9)));
    for id in [id, "no-such-id".to_owned()] {
        let request = ExecSignalRequest {
            id,
            signal: 15,
            process_only: false,
        };
        let refused = within(scene.exec.clone().signal(request)).await;
        is_refused(refused, Code::NotFound, "PROCESS_NOT_FOUND");
    }
}

#[tokio::test]
async fn input_that_can_not_be_used_ends_the_call_and_the_process() {
    use vbridge_api::guest::v1::TerminalSize;

    let scene = Scene::new().await;
    let size = |columns, rows| Input::Resize(TerminalSize { columns, rows });
    for (input, code, reason) in [
        (size(80, 24), Code::FailedPrecondition, "KERNEL_REFUSED"),
        (size(0, 24), Code::InvalidArgument, "INVALID_FIELD"),
        (Input::Signal(99), Code::InvalidArgument, "INVALID_FIELD"),
    ] {
        let mut process = scene.start(start(argv(["cat"]))).await.unwrap();
        process.send(input);
        is_refused(process.finish().await, code, reason);
        let ended = scene.until(&process.id, |it| it.status.is_some()).await;
        assert_eq!(ended.status.unwrap().how, Some(How::Signal(15)));
    }
}

#[tokio::test]
async fn the_first_message_must_start() {
    use vbridge_api::guest::v1::ExecStartRequest;

    let scene = Scene::new().await;
    let messages = tokio_stream::iter([ExecStartRequest::default()]);
    let status = within(scene.exec.clone().start(messages)).await;
    is_refused(status, Code::InvalidArgument, "INVALID_FIELD");
    let messages = tokio_stream::iter(Vec::<ExecStartRequest>::new());
    let status = within(scene.exec.clone().start(messages)).await;
    is_refused(status, Code::InvalidArgument, "INVALID_FIELD");
}

#[tokio::test]
async fn a_stalled_reader_stalls_no_other_call() {
    let scene = Scene::new().await;
    let mut stalled = scene.start(start(argv(["yes"]))).await.unwrap();
    // It is held up: it has written what fits on the way to a reader who does not read, and no more.
    let before = std::cell::Cell::new(0);
    scene
        .until(&stalled.id, |it| {
            it.stdout_bytes >= 1024 * 1024 && before.replace(it.stdout_bytes) == it.stdout_bytes
        })
        .await;
    let told = scene.shell("seq 1 100000 | tail -n 1").await;
    assert_eq!(told.stdout, b"100000\n");
    let mut other = scene.start(start(shell("seq 1 100000"))).await.unwrap();
    let told = other.finish().await.unwrap();
    assert_eq!(told.stdout.len(), 588_895);
    assert!(stalled.next().await.unwrap().is_some());
}
