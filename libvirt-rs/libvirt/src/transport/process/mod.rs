//! A child process as a stream: what is written goes to its input, what is read is its output.
//!
//! A program that ends before the daemon has said anything has failed, and knows why: then reading and writing end
//! with what it complained of, and not with the end of the stream.

#[cfg(test)]
mod tests;

use std::{
    fmt,
    io::{self, IoSlice},
    os::{fd::OwnedFd, unix::net},
    pin::Pin,
    process::Stdio,
    task::{Context, Poll, ready},
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::UnixStream,
    process::{Child, ChildStderr},
    time::{Instant, timeout_at},
};

use super::{
    Ended, Error,
    limits::{LAST_WORDS, MAX_COMPLAINT},
};

/// A program and what it is told.
#[derive(Debug)]
pub(super) struct Command {
    /// What it is called in errors: the program, and where it goes.
    pub(super) title: String,
    pub(super) program: String,
    pub(super) arguments: Vec<String>,
}

impl Command {
    /// Starts it.
    ///
    /// Its input and output are one socket: closing it for writing is told to the program as the end of its input.
    pub(super) fn start(self) -> Result<ProcessStream, Error> {
        let started = || -> io::Result<(UnixStream, Child)> {
            let (ours, theirs) = net::UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            let output = theirs.try_clone()?;
            let child = tokio::process::Command::new(&self.program)
                .args(&self.arguments)
                .stdin(Stdio::from(OwnedFd::from(theirs)))
                .stdout(Stdio::from(OwnedFd::from(output)))
                .stderr(Stdio::piped())
                .kill_on_drop(true)
                .spawn()?;
            Ok((UnixStream::from_std(ours)?, child))
        };
        let (socket, mut child) = started().map_err(|error| Error::Start {
            program: self.program.clone(),
            why: error.to_string(),
        })?;
        let complaint = Complaint {
            from: child.stderr.take(),
            text: Vec::new(),
        };
        Ok(ProcessStream {
            socket,
            stage: Stage {
                title: self.title,
                opened: false,
                running: Some((child, complaint)),
                ending: None,
            },
        })
    }
}

/// A child process as a stream. Dropping it kills the process and reaps it.
///
/// If the program ends before anything has been read, reading and writing fail with an [`Ended`] inside the error.
#[derive(Debug)]
pub struct ProcessStream {
    socket: UnixStream,
    stage: Stage,
}

/// How far a program has come.
struct Stage {
    title: String,
    /// Whether something has come.
    opened: bool,
    /// The program, until it is waited for.
    running: Option<(Child, Complaint)>,
    /// Then, its last words.
    ending: Option<Ending>,
}

type LastWords = Shared<BoxFuture<'static, Ended>>;

/// A program's last words, which reader and writer wait for, and they may be two tasks.
struct Ending {
    /// One for each of them to wait with.
    waiting: [LastWords; 2],
    /// Nobody waits with this one: it has the words for all time, where those who have waited give theirs but once.
    kept: LastWords,
}

#[derive(Clone, Copy)]
enum Side {
    Read,
    Write,
}

// === impl ProcessStream ===

#[cfg(test)]
impl ProcessStream {
    /// The process, as long as it is known to run.
    fn id(&self) -> Option<u32> {
        self.stage
            .running
            .as_ref()
            .and_then(|(child, _)| child.id())
    }
}

impl AsyncRead for ProcessStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { socket, stage } = self.get_mut();
        // Taken all along: a program whose complaints nobody takes stops.
        if let Some((_, complaint)) = &mut stage.running {
            complaint.poll_more(cx);
        }
        let before = buf.filled().len();
        let result = ready!(Pin::new(socket).poll_read(cx, buf));
        stage.opened |= buf.filled().len() > before;
        let over = match &result {
            Ok(()) => buf.remaining() > 0 && buf.filled().len() == before,
            Err(error) => is_end(error),
        };
        if over && !stage.opened {
            return stage.poll_end(Side::Read, cx).map(Err);
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for ProcessStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { socket, stage } = self.get_mut();
        let written = ready!(Pin::new(socket).poll_write(cx, buf));
        stage.poll_written(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { socket, stage } = self.get_mut();
        let written = ready!(Pin::new(socket).poll_write_vectored(cx, bufs));
        stage.poll_written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

// === impl Stage ===

impl Stage {
    fn poll_written(
        &mut self,
        cx: &mut Context<'_>,
        written: io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Err(error) if is_end(&error) && !self.opened => self.poll_end(Side::Write, cx).map(Err),
            written => Poll::Ready(written),
        }
    }

    /// Waits for the program's last words, to fail with them.
    fn poll_end(&mut self, side: Side, cx: &mut Context<'_>) -> Poll<io::Error> {
        if let Some((child, complaint)) = self.running.take() {
            let kept = last_words(self.title.clone(), child, complaint)
                .boxed()
                .shared();
            self.ending = Some(Ending {
                waiting: [kept.clone(), kept.clone()],
                kept,
            });
        }
        let Some(Ending { waiting, kept }) = &mut self.ending else {
            // A program runs or ends, so this is for the compiler alone.
            return Poll::Ready(io::ErrorKind::ConnectionAborted.into());
        };
        let ended = match kept.peek() {
            Some(ended) => ended.clone(),
            None => ready!(waiting[side as usize].poll_unpin(cx)),
        };
        Poll::Ready(io::Error::new(io::ErrorKind::ConnectionAborted, ended))
    }
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage")
            .field("title", &self.title)
            .field("opened", &self.opened)
            .field("running", &self.running.is_some())
            .finish_non_exhaustive()
    }
}

/// Whether a failure means that the program has gone. What it leaves unread makes the end of its socket a reset.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

/// Waits until a program has ended whose output has, and for what it says on the way.
async fn last_words(program: String, mut child: Child, mut complaint: Complaint) -> Ended {
    let end = Instant::now() + LAST_WORDS;
    // Somebody in the background may hold it open for longer: what has come until then is told all the same.
    let _ = timeout_at(end, complaint.rest()).await;
    let status = timeout_at(end, child.wait()).await;
    Ended {
        program,
        status: status
            .ok()
            .and_then(Result::ok)
            .map(|status| status.to_string()),
        complaint: complaint.into_text(),
    }
}

/// What a program writes to its standard error: the last of it.
struct Complaint {
    from: Option<ChildStderr>,
    text: Vec<u8>,
}

impl Complaint {
    /// Takes what there is.
    fn poll_more(&mut self, cx: &mut Context<'_>) {
        let mut chunk = [0; 1024];
        while let Some(from) = &mut self.from {
            let mut buf = ReadBuf::new(&mut chunk);
            match Pin::new(from).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    keep(&mut self.text, buf.filled())
                }
                Poll::Ready(_) => self.from = None,
                Poll::Pending => return,
            }
        }
    }

    async fn rest(&mut self) {
        let mut chunk = [0; 1024];
        while let Some(from) = &mut self.from {
            match from.read(&mut chunk).await {
                Ok(length @ 1..) => keep(&mut self.text, &chunk[..length]),
                _ => self.from = None,
            }
        }
    }

    fn into_text(self) -> String {
        // It goes into logs and onto terminals, which it must not control.
        let text = String::from_utf8_lossy(&self.text);
        text.replace(|c: char| c.is_control() && c != '\n', " ")
            .trim()
            .to_owned()
    }
}

fn keep(text: &mut Vec<u8>, more: &[u8]) {
    text.extend_from_slice(more);
    text.drain(..text.len().saturating_sub(MAX_COMPLAINT));
}
