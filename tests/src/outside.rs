//! Programs that are not ours: found, run to their end, and what they did.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};
use xtask::tools;

use crate::place::Place;

/// For everything that one client program does. The largest part are 64 MiB messages through an emulated guest.
const CLIENT_LIMIT: Duration = Duration::from_secs(180);

/// What a program did.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit status.
    pub status: Option<i32>,
    /// What it wrote.
    pub stdout: String,
    /// What it wrote as errors.
    pub stderr: String,
}

// === impl Outcome ===

impl Outcome {
    /// What it wrote, if it succeeded.
    ///
    /// # Errors
    /// It did not.
    pub fn success(self) -> Result<String> {
        ensure!(
            self.status == Some(0),
            "it ended with {:?}\n{}{}",
            self.status,
            self.stdout,
            self.stderr
        );
        Ok(self.stdout)
    }

    /// The JSON values that it wrote, if it succeeded.
    ///
    /// # Errors
    /// It did not, or it wrote something else.
    pub fn json(self) -> Result<Vec<Value>> {
        stream_of_json(&self.success()?)
    }
}

/// The JSON values of a text, one behind the other.
///
/// # Errors
/// It is something else.
pub fn stream_of_json(text: &str) -> Result<Vec<Value>> {
    let values = serde_json::Deserializer::from_str(text).into_iter();
    values
        .collect::<Result<_, _>>()
        .with_context(|| format!("not JSON:\n{text}"))
}

/// Runs grpcurl.
///
/// # Errors
/// It is not there, or does not end.
pub async fn grpcurl(place: &Place, flags: &[&str], what: &[&str], input: &str) -> Result<Outcome> {
    let mut command = Command::new(tool(tools::grpcurl())?);
    command.args(["-plaintext", "-authority", place.authority()]);
    command.args(["-connect-timeout", "10"]);
    if !flags.contains(&"-max-time") {
        command.args(["-max-time", "60"]);
    }
    command
        .args(flags)
        .arg(place.address().to_string())
        .args(what);
    run(command, input).await
}

/// A tool that `cargo xtask test` installs.
///
/// # Errors
/// It is not there.
pub fn tool(path: PathBuf) -> Result<PathBuf> {
    if !path.exists() {
        bail!(
            "{} is missing: run `cargo xtask test`, which installs it",
            path.display()
        );
    }
    Ok(path)
}

/// Runs a program to its end.
///
/// # Errors
/// It is not there, or does not end.
pub async fn run(command: Command, input: &str) -> Result<Outcome> {
    run_within(CLIENT_LIMIT, command, input).await
}

/// Runs a program to its end, which may take so long.
///
/// # Errors
/// As [`run`].
pub async fn run_within(limit: Duration, mut command: Command, input: &str) -> Result<Outcome> {
    let shown = format!("{:?}", command.as_std());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command
        .spawn()
        .with_context(|| format!("can't run {shown}"))?;
    let mut stdin = child.stdin.take().context("it has no input")?;
    let input = input.to_owned();
    // A program that ends without reading its input may.
    let feed = tokio::spawn(async move { _ = stdin.write_all(input.as_bytes()).await });
    let output = timeout(limit, child.wait_with_output())
        .await
        .with_context(|| format!("{shown}: no end within {limit:?}"))??;
    feed.abort();
    Ok(Outcome {
        status: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Has grpcio-tools make Python of .proto files, which are named from one of the folders on.
///
/// # Errors
/// It is not there, or does not understand them.
pub async fn generate_python(
    folders: &[impl AsRef<Path>],
    protos: &[&str],
    into: &Path,
) -> Result<()> {
    let mut protoc = Command::new(tool(tools::python())?);
    protoc.args(["-m", "grpc_tools.protoc"]);
    for folder in folders {
        protoc.arg(format!("-I{}", folder.as_ref().display()));
    }
    for flag in ["--python_out", "--grpc_python_out"] {
        protoc.arg(format!("{flag}={}", into.display()));
    }
    protoc.args(protos);
    let outcome = run(protoc, "").await?;
    outcome.success().context("grpcio-tools").map(drop)
}
