//! One session as a stream of bytes.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::shared::{Shared, now};
use crate::SessionId;

/// One session: what is written here is read there, and nothing else.
///
/// Reading ends (0 bytes) when the session has ended, for whatever reason; writing then fails with
/// [`BrokenPipe`](io::ErrorKind::BrokenPipe). Dropping it ends the session in order. Only one task may read and one
/// may write at a time.
#[derive(Debug)]
pub struct Session {
    shared: Arc<Shared>,
    id: SessionId,
    peer: String,
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>, id: SessionId, peer: String) -> Self {
        Self { shared, id, peer }
    }

    /// Its identity.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Ends it in order, and says why in one sentence: the other end may show it to a person.
    pub fn close(self, why: &str) {
        self.shared.lock().end.close(now(), self.id, why);
        // Dropped, it wakes the driver; there is nothing more to close.
    }

    /// What the other end says of itself: name/version. The other end may have chosen any text.
    pub fn peer_software(&self) -> &str {
        &self.peer
    }
}

impl AsyncRead for Session {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut inner = self.shared.lock();
        let max = buf.remaining();
        match inner
            .end
            .read_with(self.id, max, |bytes| buf.put_slice(bytes))
        {
            Some(0) => {
                inner.reader.register(cx);
                Poll::Pending
            }
            Some(_) => {
                // An acknowledgement may have to go out.
                inner.write_soon();
                Poll::Ready(Ok(()))
            }
            None => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Session {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.shared.lock();
        let mut total = 0;
        for buf in bufs {
            let mut rest = &buf[..];
            while !rest.is_empty() {
                match inner.end.write(self.id, rest) {
                    None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                    // No room or no credit: whatever is there must go out before there is more.
                    Some(0) if !inner.write_soon() => {
                        if total == 0 {
                            inner.writer.register(cx);
                            return Poll::Pending;
                        }
                        return Poll::Ready(Ok(total));
                    }
                    Some(len) => {
                        total += len;
                        rest = &rest[len..];
                    }
                }
            }
        }
        Poll::Ready(Ok(total))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Sends what was written on its way, when the task has had its turn: HTTP/2 flushes every frame, and a write to a
    /// port costs as much as copying 10 KiB. A block that is full does not wait for that.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.shared.lock();
        if !inner.end.transmit().is_empty() {
            inner.driver.wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.shared.lock();
        inner.end.close(now(), self.id, "");
        inner.driver.wake_by_ref();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut inner = self.shared.lock();
        inner.end.close(now(), self.id, "");
        inner.driver.wake_by_ref();
    }
}
