//! Moves bytes between a port and the state machine.

use std::{
    cell::RefCell,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use tokio::time::Sleep;

use super::shared::{Inner, Observer, Shared, now};
use crate::{Port, PortRead};

/// Bytes read at once. All links of a thread share the buffer, so that an idle link holds none.
const READ_BUFFER: usize = 64 * 1024;

/// Bytes that are read before other tasks get their turn. The session's task is to read, and to acknowledge, while more
/// comes: with a whole window in one turn, the peer would wait for each acknowledgement.
const TURN: usize = 32 * 1024;

/// Turns of the other tasks that a small block is held back for, while the peer still has bytes to take: the session's task
/// and the one behind it that makes the bytes may have more.
const PATIENCE: u8 = 4;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BUFFER].into_boxed_slice());
}

/// The task of a link. It reads and keeps the time; it writes what sessions' tasks could not.
pub(super) struct Driver<O: Observer> {
    observer: O,
    shared: Arc<Shared>,
    sleep: Option<(Instant, Pin<Box<Sleep>>)>,
    /// Turns that the block has been held back for.
    waited: u8,
}

impl<O: Observer + Unpin> Driver<O> {
    pub(super) fn new(observer: O, shared: Arc<Shared>) -> Self {
        Self {
            observer,
            shared,
            sleep: None,
            waited: 0,
        }
    }

    /// Whether to hold the block back for this turn.
    fn holds_back(&mut self, inner: &Inner) -> bool {
        if self.waited < PATIENCE && inner.end.may_wait() {
            self.waited += 1;
            return true;
        }
        self.waited = 0;
        false
    }

    /// Reads once, and says how much. `None` if there is nothing to read.
    fn read(&mut self, cx: &mut Context<'_>, inner: &mut Inner) -> io::Result<Option<usize>> {
        let Inner { end, port, .. } = inner;
        let Some(port) = port else {
            return Ok(None);
        };
        BUFFER.with_borrow_mut(|buffer| match port.poll_read(cx, buffer) {
            Poll::Ready(Ok(PortRead::Data(len))) => {
                self.shared.stats.add_received(len);
                end.handle_input(now(), &buffer[..len]);
                // A buffer that is not full was filled with all there is.
                if len < buffer.len() {
                    end.handle_drained();
                }
                Ok(Some(len))
            }
            Poll::Ready(Ok(PortRead::Detached)) => {
                end.handle_drained();
                end.handle_detached(now());
                Ok(Some(0))
            }
            Poll::Ready(Err(error)) => Err(error),
            // Being drained may call for an answer.
            Poll::Pending => Ok(end.handle_drained().then_some(0)),
        })
    }

    fn poll_io(&mut self, cx: &mut Context<'_>, inner: &mut Inner) -> io::Result<()> {
        let mut taken = 0;
        let holds_back = self.holds_back(inner);
        while taken < TURN {
            let wrote = !holds_back && inner.write()?;
            let read = self.read(cx, inner)?;
            if read.is_some() || wrote {
                // Writing may open a session.
                self.observer.observe(&mut inner.end);
            }
            match read {
                Some(len) => taken += len.max(1),
                None if holds_back => break,
                None => return Ok(()),
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn poll_time(&mut self, cx: &mut Context<'_>, inner: &mut Inner) -> io::Result<()> {
        while let Some(deadline) = inner.end.poll_timeout() {
            let sleep = match &mut self.sleep {
                Some((at, sleep)) => {
                    // A deadline that moved further away is looked at again when the old one has passed: the
                    // keepalive moves with every byte, and a timer is not set anew for each.
                    if deadline < *at {
                        *at = deadline;
                        sleep.as_mut().reset(deadline.into());
                    }
                    sleep
                }
                slot => {
                    &mut slot
                        .insert((
                            deadline,
                            Box::pin(tokio::time::sleep_until(deadline.into())),
                        ))
                        .1
                }
            };
            if sleep.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            self.sleep = None;
            let now = now();
            if now >= deadline {
                inner.end.handle_timeout(now);
                self.observer.observe(&mut inner.end);
                inner.write()?;
            }
        }
        self.sleep = None;
        Ok(())
    }
}

impl<O: Observer + Unpin> Future for Driver<O> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let shared = Arc::clone(&this.shared);
        let mut inner = shared.lock();
        inner.driver.clone_from(cx.waker());
        // Sessions and handles change the state as well.
        this.observer.observe(&mut inner.end);
        let result = this
            .poll_io(cx, &mut inner)
            .and_then(|()| this.poll_time(cx, &mut inner));
        if let Err(error) = result {
            inner.end.handle_detached(now());
            this.observer.observe(&mut inner.end);
            this.observer.gone(error);
            inner.port = None;
            inner.wake_session();
            return Poll::Ready(());
        }
        inner.wake_session();
        Poll::Pending
    }
}

impl<O: Observer> Drop for Driver<O> {
    /// The port is closed with its driver, however many sessions and handles still exist.
    fn drop(&mut self) {
        let mut inner = self.shared.lock();
        inner.port = None;
        inner.wake_session();
    }
}

/// Runs a socket or any other stream with an end as the host's side of a channel.
pub(super) struct Channel<S>(pub(super) S);

impl<S> Port for Channel<S>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send,
{
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<PortRead>> {
        let mut buf = tokio::io::ReadBuf::new(buf);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut buf))?;
        Poll::Ready(match buf.filled().len() {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            len => Ok(PortRead::Data(len)),
        })
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut self.0).poll_write(cx, buf))? {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            len => Poll::Ready(Ok(len)),
        }
    }
}
