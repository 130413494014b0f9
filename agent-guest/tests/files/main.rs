//! Files through the whole agent: socket, link, HTTP/2, service, kernel.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "../common/mod.rs"]
mod common;

mod change;
mod race;
mod read;
mod tree;
mod watch;
mod write;

use std::path::PathBuf;

use common::{Host, Running, until, within};
use tonic::{Status, transport::Channel};
use tonic_types::StatusExt as _;
use vbridge_api::guest::v1::{
    FileInfo, FilesReadRequest, FilesStatRequest, FilesWriteRequest, FilesWriteResponse,
    FilesWriteStart, files_client::FilesClient, files_read_response::Piece,
    files_write_request::Message,
};

/// An agent, and a directory for its work.
struct Guest {
    _agent: Running,
    _host: Host,
    files: FilesClient<Channel>,
    channel: Channel,
    dir: tempfile::TempDir,
}

impl Guest {
    async fn start() -> Self {
        let agent = Running::start();
        let mut host = agent.host().await;
        // Many streams that are not read must leave room in the connection's window for the others.
        let configure = |endpoint: tonic::transport::Endpoint| {
            endpoint
                .initial_stream_window_size(65_535)
                .initial_connection_window_size(16 << 20)
        };
        let channel = host.channel_with(configure).await;
        Self {
            _agent: agent,
            _host: host,
            files: FilesClient::new(channel.clone()),
            channel,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn path(&self, name: &str) -> String {
        self.at(name).to_str().unwrap().to_owned()
    }

    /// The names in the directory.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Waits until there are just these names in a directory.
    async fn until_only(&self, directory: &str, names: &[&str]) {
        let there = || -> std::collections::BTreeSet<_> {
            let entries = std::fs::read_dir(self.at(directory)).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string());
            names.map(Result::unwrap).collect()
        };
        let wanted: std::collections::BTreeSet<_> =
            names.iter().map(|name| (*name).to_owned()).collect();
        until(|| there() == wanted).await;
    }

    async fn stat(&self, name: &str) -> Result<FileInfo, Status> {
        let request = FilesStatRequest {
            path: self.path(name),
            ..FilesStatRequest::default()
        };
        let answer = within(self.files.clone().stat(request)).await?;
        Ok(answer.into_inner().file.unwrap())
    }

    fn upload(&self, name: &str) -> FilesWriteStart {
        FilesWriteStart {
            path: self.path(name),
            ..FilesWriteStart::default()
        }
    }

    async fn write(
        &self,
        start: FilesWriteStart,
        rest: impl IntoIterator<Item = Message>,
    ) -> Result<FilesWriteResponse, Status> {
        let messages: Vec<_> = [Message::Start(start)]
            .into_iter()
            .chain(rest)
            .map(message)
            .collect();
        let mut files = self.files.clone();
        let call = within(files.write(tokio_stream::iter(messages)));
        Ok(call.await?.into_inner())
    }

    /// What comes of a read, but for the file's own attributes.
    async fn pieces(&self, request: FilesReadRequest) -> Result<Vec<Piece>, Status> {
        let mut stream = within(self.files.clone().read(request)).await?.into_inner();
        let mut pieces = Vec::new();
        while let Some(message) = within(stream.message()).await? {
            pieces.push(message.piece.unwrap());
        }
        assert!(matches!(pieces.remove(0), Piece::File(_)));
        Ok(pieces)
    }

    async fn read(&self, path: &str) -> Result<Vec<u8>, Status> {
        let request = FilesReadRequest {
            path: path.to_owned(),
            ..FilesReadRequest::default()
        };
        let pieces = self.pieces(request).await?;
        Ok(pieces.iter().flat_map(content).collect())
    }
}

fn message(message: Message) -> FilesWriteRequest {
    FilesWriteRequest {
        message: Some(message),
    }
}

/// The bytes of a piece.
fn content(piece: &Piece) -> Vec<u8> {
    match piece {
        Piece::Data(data) => data.clone(),
        Piece::Hole(count) => vec![0; usize::try_from(*count).unwrap()],
        _ => Vec::new(),
    }
}

/// Bytes that are no pattern that a mistake would repeat.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let bytes = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    });
    bytes.take(count).collect()
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).to_vec()
}

/// The stable reason of a failure.
fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    details.error_info().expect("a reason").reason.clone()
}
