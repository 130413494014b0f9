//! Commands in a terminal.

use tonic::Code;
use vbridge_api::guest::v1::{
    Command, ExecStart, Terminal, TerminalSize, exit_status::How, process_input::Input,
};

use crate::support::{Scene, is_refused, shell, start, until_dead};

fn in_terminal(command: Command, terminal: Terminal) -> ExecStart {
    ExecStart {
        terminal: Some(terminal),
        ..start(command)
    }
}

fn size(columns: u32, rows: u32) -> TerminalSize {
    TerminalSize { columns, rows }
}

#[tokio::test]
async fn a_terminal_has_a_size_and_a_type() {
    let scene = Scene::new().await;
    let line = "stty size; echo $TERM; test -t 0 && test -t 1 && test -t 2 && echo terminal >&2";
    for (terminal, expected) in [
        (
            Terminal::default(),
            "24 80\r\nxterm-256color\r\nterminal\r\n",
        ),
        (
            Terminal {
                size: Some(size(132, 43)),
                r#type: "vt100".to_owned(),
            },
            "43 132\r\nvt100\r\nterminal\r\n",
        ),
    ] {
        let request = in_terminal(shell(line), terminal);
        let mut process = scene.start(request).await.unwrap();
        let told = process.finish().await.unwrap();
        assert_eq!(told.how(), Some(How::Code(0)));
        assert_eq!(String::from_utf8_lossy(&told.stdout), expected);
        assert!(told.stderr.is_empty());
    }
}

#[tokio::test]
async fn a_terminal_that_is_resized_tells_its_process() {
    let scene = Scene::new().await;
    let line = "trap 'stty size; exit 5' WINCH; echo ready; while :; do sleep 0.05; done";
    let request = in_terminal(shell(line), Terminal::default());
    let mut process = scene.start(request).await.unwrap();
    process.until("ready").await;
    process.send(Input::Resize(size(100, 50)));
    process.until("50 100").await;
    let told = process.finish().await.unwrap();
    assert_eq!(told.how(), Some(How::Code(5)));
}

#[tokio::test]
async fn ctrl_c_interrupts_and_ctrl_d_ends_the_input() {
    let scene = Scene::new().await;
    let line = "trap 'got=1; echo interrupted' INT; echo ready; \
        while [ -z \"$got\" ]; do sleep 0.05; done; cat; echo end";
    let request = in_terminal(shell(line), Terminal::default());
    let mut process = scene.start(request).await.unwrap();
    process.until("ready").await;
    process.send(Input::Stdin(vec![3]));
    process.until("interrupted").await;
    process.send(Input::Stdin(b"typed\n".to_vec()));
    // Once by the terminal's echo, once by cat.
    process.until("typed\r\ntyped\r\n").await;
    process.half_close();
    process.until("end").await;
    let told = process.finish().await.unwrap();
    assert_eq!(told.how(), Some(How::Code(0)));
}

#[tokio::test]
async fn a_shell_in_a_terminal_ends_with_its_call() {
    let scene = Scene::new().await;
    let command = Command {
        argv: vec!["/bin/sh".to_owned(), "-i".to_owned()],
        ..Command::default()
    };
    let request = in_terminal(command, Terminal::default());
    let mut process = scene.start(request).await.unwrap();
    process.send(Input::Stdin(b"echo ready=$((1+1))\n".to_vec()));
    process.until("ready=2").await;
    let pid = process.pid;
    drop(process);
    until_dead(pid).await;
}

#[tokio::test]
async fn a_terminal_is_the_users() {
    let scene = Scene::new().await;
    let own = scene.shell("id -u").await.stdout;
    if own != b"0\n" {
        let command = Command {
            user: "root".to_owned(),
            ..shell("true")
        };
        let refused = scene.start(in_terminal(command, Terminal::default())).await;
        is_refused(refused, Code::PermissionDenied, "PERMISSION_DENIED");
        return;
    }
    let command = Command {
        user: "daemon".to_owned(),
        ..shell("id -un; echo opened > $(tty)")
    };
    let mut process = scene
        .start(in_terminal(command, Terminal::default()))
        .await
        .unwrap();
    let told = process.finish().await.unwrap();
    assert_eq!(
        String::from_utf8(told.stdout).unwrap(),
        "daemon\r\nopened\r\n"
    );
}
