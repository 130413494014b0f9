//! Uploads: in the place of what is there, for the agent can give a file no other name.
//!
//! ```text
//!   start ─▶ opened ─▶ data … data ─▶ (digest) ─▶ flushed, closed ─▶ the answer
//!              │ broken off, or refused: closed, and what was written stays
//! ```
//!
//! With REPLACE the file is emptied when it is opened. `no_overwrite` looks before, not in the same step; a digest that is wrong
//! is told, and the file stays as it was written.

use std::sync::Arc;

use tokio::time::timeout;
use tonic::{Status, Streaming};
use vbridge_api::guest::v1::{
    Digest, FilesWriteRequest, FilesWriteResponse, FilesWriteStart, WriteMode,
    files_write_request::Message,
};

use super::{
    check_path,
    digest::{self, Hasher},
    handle::{Handle, Mode, Whence},
    info,
};
use crate::{
    limits::{AGENT_PIECE, FIRST_MESSAGE},
    qemu::{
        agent::Agent,
        failure::Meaning,
        refusal::{Reason, cannot_field, invalid, shown},
    },
};

pub(in crate::qemu) async fn write(
    agent: Arc<Agent>,
    mut messages: Streaming<FilesWriteRequest>,
) -> Result<FilesWriteResponse, Status> {
    let first = timeout(FIRST_MESSAGE, messages.message()).await;
    let first = first.map_err(|_| {
        let seconds = FIRST_MESSAGE.as_secs();
        invalid("start", format!("must come within {seconds} s"))
    })?;
    let start = match first?.and_then(|first| first.message) {
        Some(Message::Start(start)) => start,
        _ => return Err(invalid("start", "must be the first message")),
    };
    let mode = check(&start)?;
    let mut upload = Upload::open(&agent, &start, mode).await?;
    let mut told = start.digest.clone();
    let mut is_over = false;
    while let Some(message) = messages.message().await? {
        if is_over {
            return Err(invalid("digest", "must be the last message"));
        }
        match message.message {
            Some(Message::Data(data)) => upload.take(&data).await?,
            Some(Message::Digest(digest)) => {
                if start.no_digests || told.is_some() {
                    let why = "must come once, and not with no_digests";
                    return Err(invalid("digest", why));
                }
                digest::check("digest", &digest)?;
                (told, is_over) = (Some(digest), true);
            }
            Some(Message::Hole(_)) => {
                let why = "can't leave holes in files: send zeros as data";
                return Err(cannot_field("hole", why));
            }
            Some(Message::Start(_)) => {
                return Err(invalid("start", "must come once, as the first message"));
            }
            None => return Err(invalid("message", "must be set")),
        }
    }
    upload.finish(&start, told.as_ref()).await
}

/// Checks what is asked for, and refuses what this agent can't do.
fn check(start: &FilesWriteStart) -> Result<WriteMode, Status> {
    check_path("start.path", &start.path)?;
    let mode = match WriteMode::try_from(start.mode) {
        Ok(WriteMode::Unspecified) => WriteMode::Replace,
        Ok(mode) => mode,
        Err(_) => return Err(invalid("start.mode", "is no way to write that there is")),
    };
    let wishes = [
        (
            "start.permissions",
            start.permissions.is_some(),
            "can't set permissions",
        ),
        ("start.owner", !start.owner.is_empty(), "can't set owners"),
        ("start.group", !start.group.is_empty(), "can't set groups"),
        (
            "start.make_parents",
            start.make_parents,
            "can't make directories",
        ),
        (
            "start.upload_id",
            !start.upload_id.is_empty(),
            "can't resume an upload",
        ),
        (
            "start.modified",
            start.modified.is_some(),
            "can't set the time of a file",
        ),
    ];
    if let Some((field, _, why)) = wishes.iter().find(|(_, is_wished, _)| *is_wished) {
        return Err(cannot_field(field, why));
    }
    if mode != WriteMode::Replace {
        let only = "goes only with REPLACE";
        if start.no_overwrite {
            return Err(invalid("start.no_overwrite", only));
        }
        if start.size.is_some() {
            return Err(invalid("start.size", only));
        }
    }
    if start.offset > 0 && mode != WriteMode::InPlace {
        return Err(invalid("start.offset", "goes only with IN_PLACE"));
    }
    if i64::try_from(start.offset).is_err() {
        return Err(invalid("start.offset", "must be less than 2^63"));
    }
    if let Some(digest) = &start.digest {
        if start.no_digests {
            return Err(invalid("start.digest", "goes not with no_digests"));
        }
        digest::check("start.digest", digest)?;
    }
    Ok(mode)
}

/// A file that is being written.
struct Upload {
    handle: Handle,
    /// What has come and is not written yet.
    buffer: Vec<u8>,
    /// Bytes that have come.
    size: u64,
    digests: Option<(Hasher, Hasher)>,
}

// === impl Upload ===

impl Upload {
    async fn open(
        agent: &Arc<Agent>,
        start: &FilesWriteStart,
        mode: WriteMode,
    ) -> Result<Self, Status> {
        let handle = match mode {
            WriteMode::Append => Handle::open(agent, &start.path, Mode::Append).await??,
            WriteMode::InPlace => in_place(agent, start).await?,
            WriteMode::Unspecified | WriteMode::Replace => {
                if start.no_overwrite {
                    missing(agent, &start.path).await?;
                }
                Handle::open(agent, &start.path, Mode::Write).await??
            }
        };
        let digests = match start.no_digests {
            true => None,
            false => Some((Hasher::new("", 1)?, Hasher::new("", 2)?)),
        };
        Ok(Self {
            handle,
            buffer: Vec::new(),
            size: 0,
            digests,
        })
    }

    /// Takes what has come, and writes what makes a piece.
    async fn take(&mut self, mut data: &[u8]) -> Result<(), Status> {
        if let Some((sha256, md5)) = &mut self.digests {
            sha256.update(data);
            md5.update(data);
        }
        let len = u64::try_from(data.len()).unwrap_or(u64::MAX);
        self.size = self.size.saturating_add(len);
        while !data.is_empty() {
            let room = AGENT_PIECE.saturating_sub(self.buffer.len());
            let (now, later) = data.split_at(room.min(data.len()));
            self.buffer.extend_from_slice(now);
            data = later;
            if self.buffer.len() >= AGENT_PIECE {
                self.empty().await?;
            }
        }
        Ok(())
    }

    async fn empty(&mut self) -> Result<(), Status> {
        self.handle.write(&self.buffer).await?;
        self.buffer.clear();
        Ok(())
    }

    /// Writes the rest, and says what was written.
    async fn finish(
        mut self,
        start: &FilesWriteStart,
        told: Option<&Digest>,
    ) -> Result<FilesWriteResponse, Status> {
        self.empty().await?;
        self.handle.flush().await?;
        let size = self.handle.seek(0, Whence::End).await?;
        self.handle.close().await?;
        if let Some(wanted) = start.size.filter(|wanted| *wanted != self.size) {
            let came = self.size;
            let description =
                format!("is {wanted}, and {came} bytes came; they are in the file all the same");
            return Err(invalid("start.size", description));
        }
        let digests = self
            .digests
            .map(|(sha256, md5)| (sha256.finish(), md5.finish()));
        if let (Some(told), Some((sha256, md5))) = (told, &digests)
            && told.value != sha256.value
            && told.value != md5.value
        {
            let path = shown(&start.path);
            let message = format!(
                "what was written to {path} has another digest than it should; qemu-guest-agent can't take it back: write it again"
            );
            return Err(Reason::DigestMismatch.status(message));
        }
        let (sha256, md5) = digests.unwrap_or_default();
        Ok(FilesWriteResponse {
            file: Some(info(&start.path, size)),
            sha256: sha256.value,
            md5: md5.value,
        })
    }
}

/// Opens a file to change a part of it; it is made if it is missing.
async fn in_place(agent: &Arc<Agent>, start: &FilesWriteStart) -> Result<Handle, Status> {
    let handle = match Handle::open(agent, &start.path, Mode::Change).await? {
        Ok(handle) => handle,
        Err(failure) if failure.meaning() == Some(Meaning::NotFound) => {
            Handle::open(agent, &start.path, Mode::Write).await??
        }
        Err(failure) => return Err(failure.status()),
    };
    handle.seek(start.offset, Whence::Start).await?;
    Ok(handle)
}

/// An error if there is a file.
async fn missing(agent: &Arc<Agent>, path: &str) -> Result<(), Status> {
    match Handle::open(agent, path, Mode::Read).await? {
        Ok(handle) => {
            handle.close().await?;
            let message = format!("there is something at {} already", shown(path));
            Err(Reason::FileExists.status(message))
        }
        Err(failure) if failure.meaning() == Some(Meaning::NotFound) => Ok(()),
        Err(failure) => Err(failure.status()),
    }
}

#[cfg(test)]
mod tests;
