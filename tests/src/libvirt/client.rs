//! Programs of the C library, run to their end.

use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

use super::limits::CLIENT;

/// How a program ended, and what it said.
#[derive(Debug)]
pub struct Said {
    /// Whether its status was 0.
    pub success: bool,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

// === impl Said ===

impl Said {
    /// What it wrote, if it succeeded.
    ///
    /// # Errors
    /// It failed: the error is what it said.
    pub fn ok(self) -> Result<String> {
        ensure!(
            self.success,
            "{}",
            format!("{}{}", self.stderr, self.stdout).trim()
        );
        Ok(self.stdout)
    }

    /// What it complained of, if it failed.
    ///
    /// # Errors
    /// It succeeded.
    pub fn refusal(self) -> Result<String> {
        ensure!(
            !self.success,
            "it succeeded, and should have been refused: {}",
            self.stdout.trim()
        );
        Ok(self.stderr)
    }
}

/// Runs virsh on a URI.
///
/// # Errors
/// It can't be run, or does not end within [`CLIENT`]. That it fails is no error here.
pub async fn virsh(uri: &str, arguments: &[&str]) -> Result<Said> {
    on("virsh", uri, arguments).await
}

/// Runs virt-admin on the URI of a daemon's administration.
///
/// # Errors
/// As [`virsh`].
pub async fn virt_admin(uri: &str, arguments: &[&str]) -> Result<Said> {
    on("virt-admin", uri, arguments).await
}

async fn on(program: &str, uri: &str, arguments: &[&str]) -> Result<Said> {
    let path = xtask::command::find_program(program).with_context(|| {
        format!("{program} is missing: run `cargo xtask test`, which installs it")
    })?;
    let mut command = Command::new(path);
    command
        .args(["--quiet", "--connect", uri])
        .args(arguments)
        // Messages are compared.
        .env("LC_ALL", "C")
        .env_remove("LIBVIRT_AUTH_FILE");
    run(command, "").await
}

/// Runs a command with something on its standard input.
pub(super) async fn run(mut command: Command, input: &str) -> Result<Said> {
    let shown = format!("{:?}", command.as_std());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("can't run {shown}"))?;
    let mut stdin = child.stdin.take().context("it has no input")?;
    // Ours are a line or two, which a pipe holds; a program that ends without reading them may.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let Ok(output) = timeout(CLIENT, child.wait_with_output()).await else {
        bail!("{shown} has not ended within {CLIENT:?}");
    };
    let output = output?;
    Ok(Said {
        success: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
