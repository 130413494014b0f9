//! Content, and digests of it. The agent reads from where a handle stands, in pieces that its channel takes.
//!
//! How long a file is, its end tells; one of /proc or /sys has none that can be told, and counts as empty until it is read. What kind of
//! file it is shows only when it can't be read.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, stream};
use tonic::Status;
use vbridge_api::guest::v1::{
    FileInfo, FilesChecksumRequest, FilesChecksumResponse, FilesReadRequest, FilesReadResponse,
    files_read_response::Piece,
};

use super::{
    check_path,
    digest::Hasher,
    handle::{Handle, Mode, Whence},
    info,
};
use crate::{
    limits::AGENT_PIECE,
    qemu::{
        agent::Agent,
        refusal::{cannot_field, invalid},
    },
};

/// Bytes in one message, as `files.proto` promises.
const MAX_PIECE: usize = 64 * 1024;

/// A file that is being read.
#[derive(Debug)]
struct Reading {
    handle: Option<Handle>,
    /// What was read and not yet sent.
    ready: Bytes,
    /// Bytes that are wanted at most beyond those.
    left: u64,
    hasher: Option<Hasher>,
}

// === impl Reading ===

impl Reading {
    /// Opens a file and goes to the first byte that is wanted. Its size, as far as it can be told.
    async fn open(
        agent: &Arc<Agent>,
        path: &str,
        offset: u64,
        length: Option<u64>,
        hasher: Option<Hasher>,
    ) -> Result<(Self, u64), Status> {
        check_path("path", path)?;
        if i64::try_from(offset).is_err() {
            return Err(invalid("offset", "must be less than 2^63"));
        }
        let handle = Handle::open(agent, path, Mode::Read).await??;
        let size = handle.seek(0, Whence::End).await;
        if size.is_ok() || offset > 0 {
            handle.seek(offset, Whence::Start).await?;
        }
        let mut reading = Self {
            handle: Some(handle),
            ready: Bytes::new(),
            left: length.unwrap_or(u64::MAX),
            hasher,
        };
        // A directory, too, can be opened: what can't be read is an error of the call and no first message.
        reading.fill().await?;
        Ok((reading, size.unwrap_or(0)))
    }

    /// Reads more if there is nothing left to send. Whether there is something.
    async fn fill(&mut self) -> Result<bool, Status> {
        if !self.ready.is_empty() {
            return Ok(true);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let most = most.min(AGENT_PIECE);
        let Some(handle) = self.handle.as_ref().filter(|_| most > 0) else {
            return Ok(false);
        };
        let bytes = handle.read(most).await?;
        let read = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.left = self.left.saturating_sub(read);
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&bytes);
        }
        self.ready = bytes.into();
        Ok(read > 0)
    }

    /// Bytes for the next message; none at the end, where the file is closed.
    async fn next(&mut self) -> Result<Vec<u8>, Status> {
        if self.fill().await? {
            let piece = self.ready.len().min(MAX_PIECE);
            return Ok(self.ready.split_to(piece).to_vec());
        }
        if let Some(handle) = self.handle.take() {
            // All was read, and what is not closed is tried again.
            let _ = handle.close().await;
        }
        Ok(Vec::new())
    }
}

pub(in crate::qemu) async fn read(
    agent: Arc<Agent>,
    request: FilesReadRequest,
) -> Result<impl Stream<Item = Result<FilesReadResponse, Status>> + Send + use<>, Status> {
    if request.sparse {
        return Err(cannot_field("sparse", "does not tell where holes are"));
    }
    if request.follow {
        let why = "can't go on with what is added to a file";
        return Err(cannot_field("follow", why));
    }
    let hasher = request.digest.map(|digest| Hasher::new("digest", digest));
    let (path, offset, length) = (request.path, request.offset, request.length);
    let opened = Reading::open(&agent, &path, offset, length, hasher.transpose()?);
    let (reading, size) = opened.await?;
    let first = Some(info(&path, size));
    Ok(stream::try_unfold((first, reading), message))
}

type State = (Option<FileInfo>, Reading);

/// The next message: the file, its bytes, its digest.
async fn message(state: State) -> Result<Option<(FilesReadResponse, State)>, Status> {
    let (first, mut reading) = state;
    let piece = match first {
        Some(file) => Some(Piece::File(file)),
        None => match reading.next().await? {
            data if !data.is_empty() => Some(Piece::Data(data)),
            _ => {
                let hasher = reading.hasher.take();
                hasher.map(|hasher| Piece::Digest(hasher.finish()))
            }
        },
    };
    Ok(piece.map(|piece| {
        let message = FilesReadResponse { piece: Some(piece) };
        (message, (None, reading))
    }))
}

pub(in crate::qemu) async fn checksum(
    agent: Arc<Agent>,
    request: FilesChecksumRequest,
) -> Result<FilesChecksumResponse, Status> {
    let hasher = Hasher::new("algorithm", request.algorithm)?;
    let (path, offset, length) = (&request.path, request.offset, request.length);
    let opened = Reading::open(&agent, path, offset, length, Some(hasher));
    let (mut reading, _) = opened.await?;
    let mut size = 0_u64;
    loop {
        let piece = reading.next().await?.len();
        if piece == 0 {
            break;
        }
        size = size.saturating_add(u64::try_from(piece).unwrap_or(u64::MAX));
    }
    Ok(FilesChecksumResponse {
        digest: reading.hasher.take().map(Hasher::finish),
        size,
    })
}

#[cfg(test)]
mod tests;
