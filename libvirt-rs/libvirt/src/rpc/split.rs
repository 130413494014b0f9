//! A stream in two halves, each for a task of its own.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::state::Chunk;
use super::stream::Ends;
use crate::error::Error;

/// What a stream brings; the other half is [`OwnedWriteHalf`].
///
/// It holds the connection up when it is not read, as [`RawStream`](super::RawStream) does. Dropping it ends nothing for
/// the writer: what the daemon sends from then on is thrown away, and holds up nobody. The stream is aborted when both
/// halves are gone before it was finished.
#[derive(Debug)]
pub struct OwnedReadHalf {
    ends: Arc<Ends>,
}

/// What goes into a stream; the other half is [`OwnedReadHalf`].
///
/// A stream of libvirt's has no half-close, so there is no way to tell the daemon that only this direction is over:
///
/// - [`finish`](Self::finish), or `shutdown` of [`AsyncWrite`], ends both. The reader gets what had come by then, and
///   then the end; so finish when everything is here that is waited for.
/// - [`abort`](Self::abort) ends both at once, and the reader gets an error.
/// - Dropping it says nothing to the daemon: the reader reads on. The stream is aborted when both halves are gone.
#[derive(Debug)]
pub struct OwnedWriteHalf {
    ends: Arc<Ends>,
}

// === impl OwnedReadHalf ===

impl OwnedReadHalf {
    pub(super) fn new(ends: Arc<Ends>) -> Self {
        Self { ends }
    }

    /// The next piece that the daemon sends, or `None` at its end or when the writer has finished.
    ///
    /// # Errors
    /// The daemon reported an error, the writer has aborted the stream, or the connection ended.
    pub async fn chunk(&mut self) -> Result<Option<Chunk>, Error> {
        self.ends.chunk().await
    }
}

impl AsyncRead for OwnedReadHalf {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.ends.poll_read(cx, buffer)
    }
}

impl Drop for OwnedReadHalf {
    fn drop(&mut self) {
        self.ends.stop_reading();
    }
}

// === impl OwnedWriteHalf ===

impl OwnedWriteHalf {
    pub(super) fn new(ends: Arc<Ends>) -> Self {
        Self { ends }
    }

    /// Sends data, when there is room for it.
    ///
    /// # Errors
    /// The stream is over, or the connection ended.
    pub async fn send(&mut self, data: &[u8]) -> Result<(), Error> {
        self.ends.send(data).await
    }

    /// Sends a hole of so many bytes, at most 2⁶³−1. The call must have asked for holes with its sparse flag.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_hole(&mut self, length: u64) -> Result<(), Error> {
        self.ends.send_hole(length).await
    }

    /// Ends the stream, both directions of it, and waits for the daemon's confirmation, whether the other half is read or
    /// not.
    ///
    /// # Errors
    /// The daemon reports that what it was sent could not be kept, or the connection ended.
    pub async fn finish(self) -> Result<(), Error> {
        self.ends.finish().await
    }

    /// Ends the stream at once, both directions of it; what was written and has not left is not sent.
    pub fn abort(self) {
        self.ends.abort();
    }
}

impl AsyncWrite for OwnedWriteHalf {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.ends.poll_send(cx, data).map_err(io::Error::from)
    }

    /// Waits until everything has been handed to the transport.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ends.poll_flush(cx).map_err(io::Error::from)
    }

    /// Ends both directions, as [`finish`](Self::finish) does.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ends.poll_finish(cx).map_err(io::Error::from)
    }
}
