//! A client of the QEMU guest agent, to compare with (QEMU: docs/interop/qemu-ga.rst, qga/qapi-schema.json).
//!
//! A line of JSON each way, and one conversation at a time. Whatever an earlier client has left in the channel ends at the
//! answer to `guest-sync-delimited`, which begins with a byte that no JSON has.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    time::{sleep, timeout},
};

/// For an answer. The agent answers within milliseconds, on a machine that is not overloaded.
const LIMIT: Duration = Duration::from_secs(20);

/// Between two looks whether a command has ended: the agent does not tell.
const POLL: Duration = Duration::from_millis(5);

/// What is before an answer to `guest-sync-delimited`, and makes the agent forget half a line.
const DELIMITER: u8 = 0xff;

/// A conversation with the QEMU guest agent.
#[derive(Debug)]
pub struct Qga {
    stream: BufReader<UnixStream>,
    last_id: u32,
}

/// What a command did that the agent has run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// Its exit status, if no signal ended it.
    pub status: Option<i64>,
    /// Its standard output.
    pub stdout: Vec<u8>,
}

impl Qga {
    /// Connects to the agent's channel, and waits until it answers.
    ///
    /// # Errors
    /// Nobody listens there, or the agent does not answer.
    pub async fn connect(channel: &Path) -> Result<Self> {
        let stream = UnixStream::connect(channel)
            .await
            .with_context(|| format!("can't connect to {}", channel.display()))?;
        let mut this = Self {
            stream: BufReader::new(stream),
            last_id: 0,
        };
        this.sync().await?;
        Ok(this)
    }

    /// Begins anew: what was said before is over.
    ///
    /// # Errors
    /// The agent does not answer.
    pub async fn sync(&mut self) -> Result<()> {
        self.last_id += 1;
        let id = self.last_id;
        let request =
            json!({"execute": "guest-sync-delimited", "arguments": {"id": id}}).to_string();
        let line = [&[DELIMITER], request.as_bytes(), b"\n"].concat();
        let synchronised = async {
            self.stream.get_mut().write_all(&line).await?;
            loop {
                let mut rest = Vec::new();
                self.stream.read_until(DELIMITER, &mut rest).await?;
                if rest.last() != Some(&DELIMITER) {
                    bail!("the channel was closed");
                }
                // The answer to an earlier one may come first.
                if self.answer().await?["return"] == id {
                    return Ok(());
                }
            }
        };
        let synchronised = timeout(LIMIT, synchronised).await;
        synchronised.with_context(|| format!("no guest-sync-delimited within {LIMIT:?}"))?
    }

    /// Calls a command and returns what is in `return`.
    ///
    /// # Errors
    /// The agent answers with an error, or not at all.
    pub async fn call(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let mut request = json!({"execute": command});
        if !arguments.is_null() {
            request["arguments"] = arguments;
        }
        let exchange = async {
            let line = format!("{request}\n");
            self.stream.get_mut().write_all(line.as_bytes()).await?;
            self.answer().await
        };
        let mut answer = timeout(LIMIT, exchange)
            .await
            .with_context(|| format!("{command}: no answer within {LIMIT:?}"))?
            .context(command.to_owned())?;
        if let Some(error) = answer.get("error") {
            bail!("{command}: {error}");
        }
        Ok(answer["return"].take())
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// It can't be run, or does not end in time.
    pub async fn exec(&mut self, path: &str, arguments: &[&str]) -> Result<Executed> {
        let request = json!({"path": path, "arg": arguments, "capture-output": true});
        let started = self.call("guest-exec", request).await?;
        let ended = async {
            loop {
                let process = json!({"pid": started["pid"]});
                let status = self.call("guest-exec-status", process).await?;
                if status["exited"] == true {
                    return anyhow::Ok(status);
                }
                sleep(POLL).await;
            }
        };
        let status = timeout(LIMIT, ended)
            .await
            .with_context(|| format!("{path} has not ended within {LIMIT:?}"))??;
        let stdout = status["out-data"].as_str().unwrap_or_default();
        Ok(Executed {
            status: status["exitcode"].as_i64(),
            stdout: BASE64_STANDARD.decode(stdout)?,
        })
    }

    async fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            bail!("the channel was closed");
        }
        serde_json::from_str(&line).with_context(|| format!("no JSON: {line:?}"))
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt as _, net::UnixListener};

    use super::*;

    #[tokio::test]
    async fn what_an_earlier_client_left_is_not_taken_for_an_answer() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("qga");
        let listener = UnixListener::bind(&path).unwrap();
        let agent = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let count = stream.read(&mut request).await.unwrap();
            assert_eq!(request[0], DELIMITER);
            assert!(request[..count].ends_with(b"\n"));
            let left = b"{\"return\": 1}\n\xff{\"return\": 77}\n\xff{\"return\": 1}\n";
            stream.write_all(left).await.unwrap();
            let _ = stream.read(&mut request).await.unwrap();
            stream
                .write_all(b"{\"error\": {\"class\": \"CommandNotFound\"}}\n")
                .await
                .unwrap();
            stream
        };
        let client = async {
            let mut qga = Qga::connect(&path).await.unwrap();
            let error = qga.call("guest-nothing", Value::Null).await.unwrap_err();
            assert!(error.to_string().contains("CommandNotFound"), "{error}");
        };
        tokio::join!(agent, client);
    }
}
