//! The C library, asked call by call: what another client's answers are compared with.
//!
//! It is a Python program (`tests/clients/libvirt/reference.py`), which describes questions and answers.

use std::{collections::BTreeMap, fmt, process::Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};
use xtask::tools;

use super::{
    limits::{CLIENT, REFERENCE_ANSWER},
    program,
};

/// A connection of the C library.
#[derive(Debug)]
pub struct Reference {
    uri: String,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    child: Child,
}

/// A call's parameters.
#[derive(Debug, Clone, Deserialize)]
pub struct Parameters {
    /// Those that have to be given.
    pub required: Vec<String>,
    /// The others, with their default values.
    pub defaults: Map<String, Value>,
}

/// What libvirt has answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// A value, in the shape that the program describes.
    Value(Value),
    /// An error.
    Error(Refusal),
}

/// An error of libvirt's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Refusal {
    /// What has gone wrong (`VIR_ERR_…`).
    pub code: i32,
    /// Which part of libvirt says so (`VIR_FROM_…`).
    pub domain: i32,
    /// The sentence.
    pub message: String,
}

/// Runs a program that measures the C library or looks into it (`calls.py`, `channel.py`, `constants.py`), and returns its
/// line of JSON.
///
/// # Errors
/// It fails, or does not end within [`CLIENT`].
pub async fn measured(name: &str, arguments: &[&str]) -> Result<Value> {
    let mut command = Command::new(tools::system_python());
    command
        .arg(program(name))
        .args(arguments)
        .kill_on_drop(true);
    let output = timeout(CLIENT, command.output())
        .await
        .with_context(|| format!("{name} {arguments:?} has not ended within {CLIENT:?}"))??;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{name} {arguments:?}: {said}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

// === impl Reference ===

impl Reference {
    /// Connects the C library to a URI.
    ///
    /// # Errors
    /// It can't be connected.
    pub async fn connect(uri: &str) -> Result<Self> {
        let mut child = Command::new(tools::system_python())
            .arg(program("reference.py"))
            .arg(uri)
            .env("LC_ALL", "C")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("can't start the system's Python")?;
        let stdin = child.stdin.take().context("it has no input")?;
        let stdout = child.stdout.take().context("it has no output")?;
        let mut this = Self {
            uri: uri.to_owned(),
            stdin,
            stdout: BufReader::new(stdout),
            child,
        };
        // It answers when it is connected.
        this.table().await?;
        Ok(this)
    }

    /// Every call with its parameters.
    ///
    /// # Errors
    /// The program does not answer.
    pub async fn table(&mut self) -> Result<BTreeMap<String, Parameters>> {
        match self.ask("table", &Map::new()).await? {
            Answer::Value(table) => Ok(serde_json::from_value(table)?),
            Answer::Error(error) => bail!("there is no table: {error}"),
        }
    }

    /// The version of the Python binding, which decides what [`Reference::table`] has.
    ///
    /// # Errors
    /// The program does not answer.
    pub async fn binding(&mut self) -> Result<String> {
        let version = self.value("binding", &Map::new()).await?;
        let version = version.as_str().context("the version is no text")?;
        Ok(version.to_owned())
    }

    /// Makes a call, named as its procedure in lower case. That libvirt answers with an error is none here.
    ///
    /// # Errors
    /// There is no such call, its parameters are wrong, or no answer comes within [`CLIENT`].
    pub async fn ask(&mut self, call: &str, arguments: &Map<String, Value>) -> Result<Answer> {
        let question = json!({"call": call, "args": arguments});
        let answer = match timeout(CLIENT, self.exchange(&question)).await {
            Ok(answer) => answer,
            Err(_) => bail!("no answer within {CLIENT:?}"),
        };
        answer.with_context(|| format!("the C library on {}, asked {question}", self.uri))
    }

    /// As [`Reference::ask`], for calls that have to be answered with a value.
    ///
    /// # Errors
    /// As [`Reference::ask`], and libvirt's own.
    pub async fn value(&mut self, call: &str, arguments: &Map<String, Value>) -> Result<Value> {
        match self.ask(call, arguments).await? {
            Answer::Value(value) => Ok(value),
            Answer::Error(error) => bail!("{call} {arguments:?}: {error}"),
        }
    }

    async fn exchange(&mut self, question: &Value) -> Result<Answer> {
        let sent = self
            .stdin
            .write_all(format!("{question}\n").as_bytes())
            .await;
        let mut line = String::new();
        let mut stdout = (&mut self.stdout).take(REFERENCE_ANSWER);
        if sent.is_err() || stdout.read_line(&mut line).await? == 0 {
            bail!("it has ended: {}", self.complaints().await);
        }
        let mut answer: Value = serde_json::from_str(&line)?;
        if let Some(value) = answer.get_mut("ok") {
            return Ok(Answer::Value(value.take()));
        }
        match answer.get_mut("error") {
            Some(error) => Ok(Answer::Error(serde_json::from_value(error.take())?)),
            None => bail!("{answer}"),
        }
    }

    async fn complaints(&mut self) -> String {
        let mut said = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            let _ = stderr.read_to_string(&mut said).await;
        }
        said.trim().to_owned()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            code,
            domain,
            message,
        } = self;
        write!(f, "error {code} of domain {domain}: {message}")
    }
}
