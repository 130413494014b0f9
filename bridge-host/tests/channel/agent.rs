//! The other end of a channel: QEMU's socket, and an agent that says what it is told to.

use std::{path::PathBuf, time::Duration};

use bridge_host::channel::{
    ChannelSettings, GuestAgent, ProtocolError, VirtioChannel, VirtioSerialBuilder,
    VirtioSerialProtocol,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
};

/// For what has to fail by taking too long.
pub(crate) const SHORT: Duration = Duration::from_millis(50);

/// The other end.
pub(crate) struct Agent {
    directory: TempDir,
    pub(crate) listener: UnixListener,
}

/// The other end of one connection.
pub(crate) struct Peer(pub(crate) BufReader<UnixStream>);

impl Agent {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("agent")).unwrap();
        Self {
            directory,
            listener,
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("agent")
    }

    pub(crate) async fn accept(&self) -> Peer {
        Peer(BufReader::new(self.listener.accept().await.unwrap().0))
    }

    /// A channel that is connected, and its other end.
    pub(crate) async fn channel(&self, settings: ChannelSettings) -> (VirtioChannel, Peer) {
        let channel = VirtioChannel::with_settings("test", self.path(), settings);
        channel.connect().await.unwrap();
        (channel, self.accept().await)
    }

    pub(crate) async fn protocol(
        &self,
        builder: VirtioSerialBuilder,
    ) -> (VirtioSerialProtocol, Peer) {
        let mut protocol = builder.with_socket_path(self.path()).build();
        protocol.open().await.unwrap();
        (protocol, self.accept().await)
    }

    pub(crate) fn qga(&self, settings: ChannelSettings) -> GuestAgent {
        GuestAgent::new(VirtioChannel::with_settings("qga", self.path(), settings))
    }
}

impl Peer {
    pub(crate) async fn says(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    pub(crate) async fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).await.unwrap();
        line
    }

    /// The number of a `guest-sync-delimited`, which must come next.
    pub(crate) async fn sync(&mut self) -> Value {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line).await.unwrap();
        assert_eq!(line.first(), Some(&0xff), "{line:?}");
        let request: Value = serde_json::from_slice(&line[1..]).unwrap();
        assert_eq!(request["execute"], "guest-sync-delimited");
        request["arguments"]["id"].clone()
    }

    pub(crate) async fn synced(&mut self) {
        let id = self.sync().await;
        self.answers(b"\xff", json!({ "return": id })).await;
    }

    pub(crate) async fn answers(&mut self, before: &[u8], answer: Value) {
        self.says([before, answer.to_string().as_bytes(), b"\n"].concat())
            .await;
    }

    pub(crate) async fn command(&mut self) -> Value {
        serde_json::from_str(&self.line().await).unwrap()
    }
}

pub(crate) fn patient() -> ChannelSettings {
    ChannelSettings::default()
}

pub(crate) fn hasty() -> ChannelSettings {
    let mut settings = ChannelSettings::default();
    settings.receive_timeout = SHORT;
    settings.send_timeout = SHORT;
    settings
}

pub(crate) fn small(bytes: usize) -> ChannelSettings {
    let mut settings = ChannelSettings::default();
    settings.max_message = bytes;
    settings
}

#[track_caller]
pub(crate) fn timed_out<T: std::fmt::Debug>(result: Result<T, ProtocolError>) {
    let error = result.unwrap_err();
    assert!(matches!(error, ProtocolError::Timeout { .. }), "{error}");
}
