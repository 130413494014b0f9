//! The QEMU guest agent, to compare with: Debian's, on a port of its own beside ours, and a client for it.
//!
//! A client synchronises first, since the channel may hold what somebody else has left: it sends a byte that is no JSON,
//! which throws away half a command, and takes no answer before the one with its own number.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    time::timeout,
};
use xtask::{
    image::ImageBuilder,
    qemu::VmBuilder,
    tools::{self, GuestAgent},
};

use crate::{fixture::Guest, process::PATIENCE};

/// The port's name, which it looks for.
pub const PORT: &str = "org.qemu.guest_agent.0";

/// Its path in the guest.
const PROGRAM: &str = "/bin/qemu-ga";

/// What no JSON has, and what stands before an answer to guest-sync-delimited.
const DELIMITER: u8 = 0xff;

/// The program in an image, and a port for it.
#[derive(Debug)]
pub struct Peer {
    directory: TempDir,
}

/// A client of it.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
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
        let port = format!("virtserialport,chardev=qga,name={PORT},id=qga0,bus=qga-bus.0");
        let words = ["-chardev", &chardev, "-device"];
        let words =
            words
                .into_iter()
                .chain(["virtio-serial-pci,id=qga-bus,max_ports=2", "-device", &port]);
        words.fold(vm, |vm, word| vm.qemu_arg(word))
    }

    /// Starts it in the guest.
    ///
    /// # Errors
    /// The guest has no such port or program.
    pub async fn start(&self, guest: &Guest) -> Result<()> {
        let find = format!("grep -lx {PORT} /sys/class/virtio-ports/*/name | cut -d/ -f5");
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
    pub async fn connect(&self) -> Result<Client> {
        Client::connect(&self.socket()).await
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("qga")
    }
}

impl Client {
    /// Connects to the port's socket, and synchronises.
    ///
    /// # Errors
    /// Nobody answers.
    pub async fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .await
            .with_context(|| format!("can't connect {}", socket.display()))?;
        let mut client = Self {
            stream: BufReader::with_capacity(256 * 1024, stream),
        };
        timeout(PATIENCE, client.synchronise())
            .await
            .context("the QEMU guest agent does not answer")??;
        Ok(client)
    }

    async fn synchronise(&mut self) -> Result<()> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        self.stream.write_all(&[DELIMITER]).await?;
        let sync = json!({"execute": "guest-sync-delimited", "arguments": {"id": number}});
        self.send(&sync).await?;
        loop {
            let mut skipped = Vec::new();
            self.stream.read_until(DELIMITER, &mut skipped).await?;
            let answer = self.answer().await?;
            if answer["return"] == number {
                return Ok(());
            }
        }
    }

    /// Runs a command, and returns what is in `return`.
    ///
    /// # Errors
    /// The agent answers with an error, or not at all.
    pub async fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let request = json!({"execute": command, "arguments": arguments});
        self.send(&request).await?;
        let mut answer = self.answer().await?;
        match answer.get_mut("return") {
            Some(value) => Ok(value.take()),
            None => bail!("{command}: {answer}"),
        }
    }

    /// Sends a line and returns the one that answers it, both as they are: for measurements.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn execute_raw(&mut self, text: &[u8]) -> Result<Vec<u8>> {
        self.stream.write_all(text).await?;
        self.line().await
    }

    async fn send(&mut self, request: &Value) -> Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        Ok(self.stream.write_all(&line).await?)
    }

    async fn answer(&mut self) -> Result<Value> {
        Ok(serde_json::from_slice(&self.line().await?)?)
    }

    async fn line(&mut self) -> Result<Vec<u8>> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).await?;
        if line.is_empty() {
            bail!("the QEMU guest agent's channel has ended");
        }
        Ok(line)
    }
}
