//! The QEMU guest agent, to compare with: Debian's, on a port of its own beside ours, and a client of it
//! (QEMU: docs/interop/qemu-ga.rst, qga/qapi-schema.json).
//!
//! A line of JSON each way, and one conversation at a time. Whatever an earlier client has left in the channel ends at the
//! answer to `guest-sync-delimited`, which begins with a byte that no JSON has.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    time::{sleep, timeout},
};
use xtask::{
    image::ImageBuilder,
    qemu::{QGA_PORT, VmBuilder},
    tools::{self, GuestAgent},
};

use crate::fixture::Guest;

/// For an answer. The agent answers within milliseconds, on a machine that is not overloaded.
const LIMIT: Duration = Duration::from_secs(20);

/// Between two looks whether a command has ended: the agent does not tell.
const POLL: Duration = Duration::from_millis(5);

/// What is before an answer to `guest-sync-delimited`, and makes the agent forget half a line.
const DELIMITER: u8 = 0xff;

/// Its path in a guest without a disk.
const PROGRAM: &str = "/bin/qemu-ga";

/// Bytes that are read of the channel at a time.
const BUFFER: usize = 256 * 1024;

/// The program in the image of a guest without a disk, and a port for it.
#[derive(Debug)]
pub struct Peer {
    directory: TempDir,
}

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

impl Peer {
    /// Makes a place for the port's socket.
    ///
    /// # Errors
    /// There is no room for a directory.
    pub fn new() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("vbga").tempdir()?;
        Ok(Self { directory })
    }

    /// Puts the program, and the libraries that it needs, into an image. Blocks where it has to be downloaded.
    ///
    /// # Errors
    /// It can't be.
    pub fn add_to(image: ImageBuilder) -> Result<ImageBuilder> {
        let GuestAgent { program, libraries } = tools::guest_agent()?;
        let image = image.binary(PROGRAM, program);
        let add = |image: ImageBuilder, library: PathBuf| {
            image.binary(library.display().to_string(), library)
        };
        Ok(libraries.into_iter().fold(image, add))
    }

    /// The guest with the port.
    #[must_use]
    pub fn port(&self, vm: VmBuilder) -> VmBuilder {
        let socket = self.socket();
        let chardev = format!("socket,id=qga,path={},server=on,wait=off", socket.display());
        let port = format!("virtserialport,chardev=qga,name={QGA_PORT},id=qga0,bus=qga-bus.0");
        let words = ["-chardev", &chardev, "-device"];
        let words =
            words
                .into_iter()
                .chain(["virtio-serial-pci,id=qga-bus,max_ports=2", "-device", &port]);
        words.fold(vm, VmBuilder::qemu_arg)
    }

    /// Starts it in the guest.
    ///
    /// # Errors
    /// The guest has no such port or program.
    pub async fn start(&self, guest: &Guest) -> Result<()> {
        let find = format!("grep -lx {QGA_PORT} /sys/class/virtio-ports/*/name | cut -d/ -f5");
        let line = format!(
            "port=/dev/$({find}); test -c $port && \
             (setsid {PROGRAM} -m virtio-serial -p $port -t /run -l /tmp/qga.log </dev/null >/tmp/qga.out 2>&1 &)"
        );
        guest.exec(&line).await?;
        Ok(())
    }

    /// Connects, as soon as it answers.
    ///
    /// # Errors
    /// It does not.
    pub async fn connect(&self) -> Result<Qga> {
        Qga::connect(&self.socket()).await
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("qga")
    }
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
            stream: BufReader::with_capacity(BUFFER, stream),
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

    /// Sends a line and returns the one that answers it, both as they are: for measurements.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn call_raw(&mut self, line: &[u8]) -> Result<Vec<u8>> {
        self.stream.write_all(line).await?;
        self.line().await
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
        let line = self.line().await?;
        serde_json::from_slice(&line)
            .with_context(|| format!("no JSON: {:?}", String::from_utf8_lossy(&line)))
    }

    async fn line(&mut self) -> Result<Vec<u8>> {
        let mut line = Vec::new();
        if self.stream.read_until(b'\n', &mut line).await? == 0 {
            bail!("the channel was closed");
        }
        Ok(line)
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
