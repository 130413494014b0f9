//! QEMU's process, and the guard that kills it when we are killed.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, anyhow};

use super::PROGRAM;
use crate::command;

/// The guard's script: waits for the end of its standard input, kills QEMU, and removes the directory.
/// QEMU may be creating a socket there until it has died, for which a second must do: where nobody
/// collects orphans it stays a zombie.
const GUARD: &str = r#"
read -r _
kill -9 "$1"
for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$1" && sleep 0.1; done
rm -rf "$2"
"#;

/// QEMU and its guard. Dropping it kills both and waits for them.
#[derive(Debug)]
pub(super) struct Process {
    qemu: Child,
    /// A shell that waits for the end of its standard input, a pipe that only we hold, and then kills
    /// QEMU and cleans up: so no QEMU outlives even a killed test runner.
    guard: Child,
}

impl Process {
    /// Starts QEMU, its own messages going to a file. The directory is removed if we are killed.
    pub(super) fn start(arguments: &[String], log: &Path, directory: &Path) -> Result<Self> {
        let program = command::find_program(PROGRAM)
            .ok_or_else(|| anyhow!("{PROGRAM} is not installed: run `cargo xtask tools`"))?;
        let log = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        let mut qemu = Command::new(&program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            // Ctrl-C on the terminal is for us; we end QEMU in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let guard = Command::new("sh")
            .arg("-c")
            .arg(GUARD)
            .args(["guard", &qemu.id().to_string()])
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start sh, which guards QEMU");
        match guard {
            Ok(guard) => Ok(Self { qemu, guard }),
            Err(error) => {
                let _ = qemu.kill();
                let _ = qemu.wait();
                Err(error)
            }
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.qemu.id()
    }

    /// QEMU's standard output: the guest's console.
    pub(super) fn take_console(&mut self) -> Result<ChildStdout> {
        self.qemu
            .stdout
            .take()
            .context("the console was taken before")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Until it is waited for, QEMU's id is not given to another process, which the guard might kill.
        let _ = self.qemu.kill();
        let _ = self.guard.kill();
        let _ = self.guard.wait();
        let _ = self.qemu.wait();
    }
}
