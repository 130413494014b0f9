//! A client of QEMU's monitor protocol (QEMU: docs/interop/qmp-spec.rst).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time;

use super::socket::connect;
use crate::limits::QMP_DEADLINE;

#[derive(Debug)]
pub(super) struct Qmp {
    path: PathBuf,
    stream: BufReader<UnixStream>,
    last_id: u64,
}

impl Qmp {
    /// Connects, and leaves the mode in which QEMU only negotiates.
    pub(super) async fn connect(path: &Path) -> Result<Self> {
        let stream = connect(path).await?;
        let mut qmp = Self {
            path: path.to_owned(),
            stream: BufReader::new(stream),
            last_id: 0,
        };
        qmp.execute(&json!({"execute": "qmp_capabilities"})).await?;
        Ok(qmp)
    }

    /// Sends a command and returns its result.
    pub(super) async fn execute(&mut self, command: &Value) -> Result<Value> {
        // An answer to a command that timed out carries another id.
        self.last_id += 1;
        let id = json!(self.last_id);
        let mut command = command.clone();
        match command.as_object_mut() {
            Some(object) => object.insert("id".to_owned(), id.clone()),
            None => bail!("a QMP command is an object, not {command}"),
        };
        let answer = time::timeout(QMP_DEADLINE, self.exchange(&command, &id))
            .await
            .map_err(|_| anyhow!("no answer within {QMP_DEADLINE:?}"))
            .and_then(|answer| answer)
            .with_context(|| format!("QMP on {}, command {command}", self.path.display()))?;
        if let Some(error) = answer.get("error") {
            bail!("QEMU refused {command}: {error}");
        }
        Ok(answer.get("return").cloned().unwrap_or_default())
    }

    async fn exchange(&mut self, command: &Value, id: &Value) -> Result<Value> {
        self.stream
            .get_mut()
            .write_all(format!("{command}\n").as_bytes())
            .await?;
        let mut line = String::new();
        loop {
            line.clear();
            if self.stream.read_line(&mut line).await? == 0 {
                bail!("QEMU closed the connection");
            }
            // The greeting, events and older answers have no id or another one.
            let message: Value = serde_json::from_str(&line)?;
            if message.get("id") == Some(id) {
                return Ok(message);
            }
        }
    }
}
