//! The stream that follows a call: data both ways, holes, and an end that is confirmed.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::client::Handle;
use super::connection::weight;
use super::limits::{PIECE, STREAM_CHUNK, STREAM_SENDING};
use super::split::{OwnedReadHalf, OwnedWriteHalf};
use super::state::{Chunk, State, StreamState, wake};
use crate::error::Error;

/// A stream of libvirt's: a volume's content, a console, a channel.
///
/// It reads and writes through [`AsyncRead`] and [`AsyncWrite`]; [`chunk`](Self::chunk) and
/// [`send_hole`](Self::send_hole) see holes, which reading turns into zeros. [`into_split`](Self::into_split) gives each
/// direction to a task of its own.
///
/// - **Back-pressure.** A writer waits while 1 MiB of its data has not left. A reader that does not read stops the
///   *connection* when 1 MiB waits for it, since the protocol has no other way to slow the daemon down: other calls
///   on the same connection wait too. What the other end of the stream does not read stops the connection as well, at
///   the daemon, which then answers no pings: with keepalive, both ends take each other for dead in the end. A stream that
///   may be left unread, here or there, belongs on a connection of its own.
/// - **End.** [`finish`](Self::finish), or `shutdown` of [`AsyncWrite`], ends both directions and waits until the daemon
///   has confirmed: only then has an upload succeeded. What had come by then can still be read. Dropping an unfinished
///   stream aborts it.
pub struct RawStream {
    ends: Ends,
}

/// A stream's both ends, for one holder or two. Dropped, the stream is aborted unless it is over.
pub(super) struct Ends {
    handle: Arc<Handle>,
    serial: u32,
}

// === impl RawStream ===

impl RawStream {
    pub(crate) fn new(handle: Arc<Handle>, serial: u32) -> Self {
        Self {
            ends: Ends { handle, serial },
        }
    }

    /// The next piece that the daemon sends, or `None` at its end.
    ///
    /// # Errors
    /// The daemon reported an error, or the connection ended.
    pub async fn chunk(&mut self) -> Result<Option<Chunk>, Error> {
        self.ends.chunk().await
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

    /// Ends the stream and waits for the daemon's confirmation. What the daemon still sends is thrown away.
    ///
    /// # Errors
    /// The daemon reports that what it was sent could not be kept, or the connection ended.
    pub async fn finish(self) -> Result<(), Error> {
        self.ends.finish().await
    }

    /// Ends the stream at once; what was written and has not left is not sent.
    pub fn abort(self) {}

    /// Gives the two directions to two holders, each of which may be in a task of its own.
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        let ends = Arc::new(self.ends);
        (
            OwnedReadHalf::new(Arc::clone(&ends)),
            OwnedWriteHalf::new(ends),
        )
    }
}

impl AsyncRead for RawStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.ends.poll_read(cx, buffer)
    }
}

impl AsyncWrite for RawStream {
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

    /// Ends both directions, as libvirt's streams have no half-close, and waits for the confirmation.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ends.poll_finish(cx).map_err(io::Error::from)
    }
}

impl fmt::Debug for RawStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawStream")
            .field("serial", &self.ends.serial)
            .finish_non_exhaustive()
    }
}

// === impl Ends ===

// One holder reads and one writes, so each direction has one waker.
impl Ends {
    pub(super) async fn chunk(&self) -> Result<Option<Chunk>, Error> {
        std::future::poll_fn(|cx| self.poll_chunk(cx, usize::MAX)).await
    }

    pub(super) async fn send(&self, mut data: &[u8]) -> Result<(), Error> {
        while !data.is_empty() {
            let sent = std::future::poll_fn(|cx| self.poll_send(cx, data)).await?;
            data = &data[sent..];
        }
        Ok(())
    }

    pub(super) async fn send_hole(&self, length: u64) -> Result<(), Error> {
        // The daemon takes a hole of no length for a mistake.
        if length == 0 {
            return Ok(());
        }
        let length = i64::try_from(length).map_err(|_| Error::HoleTooLong { length })?;
        std::future::poll_fn(|cx| {
            self.poll_room(cx, |state, serial| {
                state.connection.send_hole(serial, length).then_some(PIECE)
            })
        })
        .await
    }

    pub(super) async fn finish(&self) -> Result<(), Error> {
        std::future::poll_fn(|cx| self.poll_finish(cx)).await
    }

    /// Ends the stream at once, also for whoever still waits on it.
    pub(super) fn abort(&self) {
        let mut guard = self.handle.shared.lock();
        let state = &mut *guard;
        if let Some(stream) = state.streams.get_mut(&self.serial) {
            stream.discard();
            stream.end(Err(Error::StreamOver));
        }
        state.connection.abort_stream(self.serial);
        state.wake_driver();
    }

    /// Nobody reads any more: what has come and what still comes is thrown away, and holds nobody up.
    pub(super) fn stop_reading(&self) {
        let mut state = self.handle.shared.lock();
        if let Some(stream) = state.streams.get_mut(&self.serial) {
            stream.discard();
        }
        // It may have stopped reading for our sake.
        state.wake_driver();
    }

    pub(super) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        match ready!(self.poll_chunk(cx, buffer.remaining()))? {
            Some(Chunk::Data(bytes)) => buffer.put_slice(&bytes),
            Some(Chunk::Hole(length)) => {
                // `poll_chunk` gives no more than there is room for.
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                buffer.initialize_unfilled_to(length).fill(0);
                buffer.advance(length);
            }
            None => {}
        }
        Poll::Ready(Ok(()))
    }

    fn poll_chunk(&self, cx: &mut Context<'_>, most: usize) -> Poll<Result<Option<Chunk>, Error>> {
        let mut guard = self.handle.shared.lock();
        let state = &mut *guard;
        let Some(stream) = state.streams.get_mut(&self.serial) else {
            return Poll::Ready(Ok(None));
        };
        if let Some(chunk) = stream.take(most) {
            // The driver may have stopped reading for our sake.
            if let Some(driver) = &state.driver {
                driver.wake_by_ref();
            }
            return Poll::Ready(Ok(Some(chunk)));
        }
        match &stream.over {
            Some(Err(error)) => Poll::Ready(Err(error.clone())),
            Some(Ok(())) => Poll::Ready(Ok(None)),
            None if stream.eof => Poll::Ready(Ok(None)),
            None => {
                stream.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    pub(super) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<Result<usize, Error>> {
        let length = data.len().min(STREAM_CHUNK);
        // An empty packet would mean the end.
        if length == 0 {
            return Poll::Ready(Ok(0));
        }
        let sent = ready!(self.poll_room(cx, |state, serial| {
            let open = state.connection.send_data(serial, &data[..length]);
            open.then_some(weight(length))
        }));
        Poll::Ready(sent.map(|()| length))
    }

    /// Queues something when there is room; `send` gives what it weighs.
    fn poll_room(
        &self,
        cx: &mut Context<'_>,
        send: impl FnOnce(&mut State, u32) -> Option<usize>,
    ) -> Poll<Result<(), Error>> {
        let mut state = self.handle.shared.lock();
        let Some(stream) = state.streams.get_mut(&self.serial) else {
            return Poll::Ready(Err(Error::StreamOver));
        };
        if let Some(over) = &stream.over {
            return Poll::Ready(Err(over.clone().err().unwrap_or(Error::StreamOver)));
        }
        if stream.sending >= STREAM_SENDING {
            stream.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let Some(weight) = send(&mut state, self.serial) else {
            return Poll::Ready(Err(Error::StreamOver));
        };
        if let Some(stream) = state.streams.get_mut(&self.serial) {
            stream.sending += weight;
        }
        state.wake_driver();
        Poll::Ready(Ok(()))
    }

    /// Waits until everything has been handed to the transport.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut state = self.handle.shared.lock();
        let Some(stream) = state.streams.get_mut(&self.serial) else {
            return Poll::Ready(Ok(()));
        };
        match &stream.over {
            Some(over) => Poll::Ready(over.clone()),
            None if stream.sending > 0 => {
                stream.writer = Some(cx.waker().clone());
                Poll::Pending
            }
            None => Poll::Ready(Ok(())),
        }
    }

    /// Ends both directions, and waits for the confirmation.
    pub(super) fn poll_finish(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut guard = self.handle.shared.lock();
        let state = &mut *guard;
        let Some(stream) = state.streams.get_mut(&self.serial) else {
            return Poll::Ready(Ok(()));
        };
        if let Some(over) = &stream.over {
            return Poll::Ready(over.clone());
        }
        stream.writer = Some(cx.waker().clone());
        // Only the first time: then it is not open any more.
        if state.connection.finish_stream(self.serial) {
            stream.stop();
        }
        state.wake_driver();
        Poll::Pending
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        let mut state = self.handle.shared.lock();
        // A stream whose call was not answered is given up with the call.
        if state.streams.remove(&self.serial).is_some() {
            state.connection.abort_stream(self.serial);
        }
        state.wake_driver();
    }
}

impl fmt::Debug for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ends")
            .field("serial", &self.serial)
            .finish_non_exhaustive()
    }
}

// === impl StreamState ===

impl StreamState {
    /// What comes from now on is not kept; what has come can be read.
    fn stop(&mut self) {
        self.eof = true;
        wake(&mut self.reader);
    }

    /// Nor can what has come be read.
    fn discard(&mut self) {
        self.received.clear();
        self.held = 0;
        self.stop();
    }

    /// The next piece, of at most so many bytes.
    fn take(&mut self, most: usize) -> Option<Chunk> {
        let first = self.received.front_mut()?;
        let before = first.weight();
        let rest = match first {
            Chunk::Data(bytes) if bytes.len() > most => Some(Chunk::Data(bytes.split_to(most))),
            Chunk::Hole(length) if usize::try_from(*length).is_ok_and(|length| length <= most) => {
                None
            }
            Chunk::Hole(length) => {
                // A piece that fits into memory: `most` came from a buffer.
                let part = u64::try_from(most).unwrap_or(u64::MAX).min(*length);
                *length -= part;
                (*length > 0).then_some(Chunk::Hole(part))
            }
            Chunk::Data(_) => None,
        };
        match rest {
            Some(part) => {
                let after = self.received.front().map_or(0, Chunk::weight);
                self.held -= before - after;
                Some(part)
            }
            None => {
                self.held -= before;
                self.received.pop_front()
            }
        }
    }
}
