//! What the command line does as a client: what it tries again, how long it waits, what its file says, how its calls are signed.
//!
//! | module | what is tested |
//! |---|---|
//! | `server` | nothing: a bridge that is played |
//! | `again` | which calls are made again |
//! | `settings` | the file, limits of time, the key for calls |
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod again;
mod server;
mod settings;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Longer than anything here may take.
const LIMIT: Duration = Duration::from_secs(20);

/// How a command has ended.
#[derive(Debug)]
struct Ended {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ended {
    fn lines(&self) -> Vec<&str> {
        self.stderr.lines().collect()
    }
}

/// The program, with nothing of the environment and with a home of its own, where there is nothing.
fn vbridge(words: &[&str], home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vbridge"));
    command.args(words).stdin(Stdio::null());
    command.env_clear().env("HOME", home);
    command
}

/// Runs to the end, which comes by itself.
fn run(mut command: Command) -> Ended {
    let child: Child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = Pid::from_child(&child);
    let (end, ended) = mpsc::channel();
    thread::spawn(move || end.send(child.wait_with_output()));
    let output = match ended.recv_timeout(LIMIT) {
        Ok(output) => output.unwrap(),
        Err(_) => {
            let _ = kill_process(pid, Signal::KILL);
            panic!("{command:?} does not end");
        }
    };
    Ended {
        status: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A folder with a file of settings in it.
fn settings_file(name: &str, text: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    (dir, path)
}

/// A status of the bridge's own.
fn of_bridge(code: Code, reason: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, bridge_host::DOMAIN, []);
    Status::with_error_details(code, format!("it is {reason}"), details)
}
