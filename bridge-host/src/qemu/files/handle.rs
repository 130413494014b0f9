//! An open file of the agent's.
//!
//! ```text
//!   open ─▶ Open ── close ─▶ Closed
//!            │ dropped: the caller has gone, or something has failed
//!            └────────────▶ closed by a task of its own
//! ```
//!
//! The agent keeps a handle until it is closed or ends itself, so even one whose opening nobody waits for any more is closed.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

use crate::{
    error::Reason,
    qemu::{agent::Agent, failure::Failure},
};

/// How a file is opened, as fopen(3) has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Read,
    /// From its beginning, which makes it empty, or makes it.
    Write,
    /// At its end; it is made if it is missing.
    Append,
    /// Anywhere in what is there.
    Change,
}

/// From where a place in a file is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whence {
    Start,
    End,
}

/// An open file.
#[derive(Debug)]
pub(super) struct Handle {
    agent: Arc<Agent>,
    number: i64,
    /// Given back when it is closed.
    place: Option<OwnedSemaphorePermit>,
    is_open: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Read {
    count: u64,
    buf_b64: String,
}

#[derive(Debug, Deserialize)]
struct Written {
    count: usize,
}

#[derive(Debug, Deserialize)]
struct Position {
    position: u64,
}

// === impl Mode ===

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Read => "r",
            Self::Write => "w",
            Self::Append => "a",
            Self::Change => "r+",
        }
    }
}

// === impl Handle ===

impl Handle {
    /// Opens a file. What the agent says of it is left to the caller.
    pub(super) async fn open(
        agent: &Arc<Agent>,
        path: &str,
        mode: Mode,
    ) -> Result<Result<Self, Failure>, Status> {
        let place = agent.file_place()?;
        let agent = Arc::clone(agent);
        let arguments = json!({ "path": path, "mode": mode.name() });
        let opened = tokio::spawn(async move {
            let number = agent.ask("guest-file-open", arguments).await?;
            Ok(Self {
                agent,
                number,
                place: Some(place),
                is_open: true,
            })
        });
        opened.await.map_err(|_| {
            // Only if the runtime ends.
            Reason::SessionEnded.status("", "the bridge is stopping")
        })
    }

    /// The next bytes, at most so many; none at the end.
    pub(super) async fn read(&self, most: usize) -> Result<Vec<u8>, Failure> {
        let command = "guest-file-read";
        let arguments = json!({ "handle": self.number, "count": most });
        let read: Read = self.agent.ask(command, arguments).await?;
        let bytes = STANDARD.decode(read.buf_b64);
        let bytes = bytes.map_err(|error| Failure::garbled(command, &error))?;
        match u64::try_from(bytes.len()) == Ok(read.count) && bytes.len() <= most {
            true => Ok(bytes),
            false => {
                let (count, len) = (read.count, bytes.len());
                let why = format!("it says {count} bytes and has {len}, of {most} at most");
                Err(Failure::garbled(command, &why))
            }
        }
    }

    /// Writes all of these bytes.
    pub(super) async fn write(&self, mut bytes: &[u8]) -> Result<(), Failure> {
        let command = "guest-file-write";
        while !bytes.is_empty() {
            let encoded = STANDARD.encode(bytes);
            let arguments = json!({ "handle": self.number, "buf-b64": encoded });
            let written: Written = self.agent.ask(command, arguments).await?;
            bytes = match (written.count, bytes.get(written.count..)) {
                (1.., Some(rest)) => rest,
                _ => {
                    let (count, len) = (written.count, bytes.len());
                    let why = format!("it says that {count} of {len} bytes were written");
                    return Err(Failure::garbled(command, &why));
                }
            };
        }
        Ok(())
    }

    /// Goes to a place, and says where that is from the beginning.
    pub(super) async fn seek(&self, offset: u64, whence: Whence) -> Result<u64, Failure> {
        // As numbers, which agents of all ages understand.
        let whence = match whence {
            Whence::Start => 0,
            Whence::End => 2,
        };
        let arguments = json!({ "handle": self.number, "offset": offset, "whence": whence });
        let place: Position = self.agent.ask("guest-file-seek", arguments).await?;
        Ok(place.position)
    }

    /// Has what was written given to the guest's kernel.
    pub(super) async fn flush(&self) -> Result<(), Failure> {
        let arguments = json!({ "handle": self.number });
        self.agent.tell("guest-file-flush", arguments).await
    }

    /// Closes it.
    pub(super) async fn close(mut self) -> Result<(), Failure> {
        let agent = Arc::clone(&self.agent);
        let arguments = json!({ "handle": self.number });
        let closed = agent.tell("guest-file-close", arguments).await;
        // One that was not closed is tried again.
        self.is_open = matches!(closed, Err(Failure::Away { .. }));
        closed
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.is_open {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let (agent, number) = (Arc::clone(&self.agent), self.number);
        let place = self.place.take();
        runtime.spawn(async move {
            let _place = place;
            let arguments = json!({ "handle": number });
            if let Err(failure) = agent.tell("guest-file-close", arguments).await {
                tracing::debug!("a guest's file stays open until its agent ends: {failure}");
            }
        });
    }
}
