//! The task that moves bytes between the wire and the state machine.

use std::collections::VecDeque;
use std::future::Future;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::time::{Instant, Sleep};

use super::error::ConnectionError;
use super::limits::{CLOSING, READ, WRITE};
use super::state::Shared;
use super::wire::Wire;

/// How often a connection that is not read is asked whether the other side is still there.
const LOOK: Duration = Duration::from_millis(200);
/// The rounds of one poll. Then other tasks of the runtime have their turn.
const ROUNDS: usize = 16;

/// Runs a connection until it ends; then everybody who waits on it has been told.
pub(crate) struct Driver {
    wire: Wire,
    shared: Arc<Shared>,
    /// Where a read goes first: bytes that have not come take no memory in `input`.
    scratch: Box<[u8]>,
    input: BytesMut,
    writing: VecDeque<Piece>,
    flushed: bool,
    paused: bool,
    timer: Option<Pin<Box<Sleep>>>,
    /// Why nothing can be written any more. What the daemon said before is still read.
    broken: Option<Ended>,
    /// When the last answers must have come.
    close_at: Option<Instant>,
}

/// Something on its way to the wire.
enum Piece {
    Bytes {
        bytes: Bytes,
        /// The stream whose share it is, once it has left.
        stream: Option<(u32, usize)>,
    },
    Descriptor(OwnedFd),
}

type Ended = ConnectionError;

// === impl Driver ===

impl Driver {
    pub(crate) fn new(wire: Wire, shared: Arc<Shared>) -> Self {
        Self {
            wire,
            shared,
            scratch: vec![0; READ].into(),
            input: BytesMut::new(),
            writing: VecDeque::new(),
            flushed: true,
            paused: false,
            timer: None,
            broken: None,
            close_at: None,
        }
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Result<bool, Ended> {
        // In this order: what a packet makes us say, a pong for one, is said in the same round.
        let read = self.read(cx)?;
        let written = self.broken.is_none() && self.try_write(cx)?;
        self.keep_time(cx)?;
        Ok(written || read)
    }

    /// A daemon that answers and goes may have closed before we write again, and its answers are still to be read.
    fn try_write(&mut self, cx: &mut Context<'_>) -> Result<bool, Ended> {
        match self.write(cx) {
            Err(why @ (Ended::ClosedByDaemon | Ended::Io(_))) => {
                self.broken = Some(why);
                self.close_at.get_or_insert(Instant::now() + CLOSING);
                Ok(true)
            }
            result => result,
        }
    }

    /// Writes what there is; true if something has left.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, Ended> {
        let mut progress = false;
        loop {
            if self.writing.is_empty() && !self.gather()? {
                break;
            }
            while let Some(piece) = self.writing.front_mut() {
                let sent = match piece {
                    Piece::Bytes { bytes, .. } => match self.wire.poll_write(cx, bytes) {
                        Poll::Ready(written) => {
                            bytes.advance(written?);
                            bytes.is_empty()
                        }
                        Poll::Pending => return Ok(progress),
                    },
                    Piece::Descriptor(descriptor) => {
                        match self.wire.poll_write_descriptor(cx, descriptor.as_fd()) {
                            Poll::Ready(sent) => sent.map(|()| true)?,
                            Poll::Pending => return Ok(progress),
                        }
                    }
                };
                progress = true;
                self.flushed = false;
                if sent
                    && let Some(Piece::Bytes {
                        stream: Some((serial, share)),
                        ..
                    }) = self.writing.pop_front()
                {
                    self.shared.lock().sent(serial, share);
                }
            }
        }
        if !self.flushed
            && let Poll::Ready(flushed) = self.wire.poll_flush(cx)
        {
            flushed?;
            self.flushed = true;
            progress = true;
        }
        Ok(progress)
    }

    /// Takes packets for the next writes; small ones are joined.
    fn gather(&mut self) -> Result<bool, Ended> {
        let mut state = self.shared.lock();
        let mut joined = BytesMut::new();
        let mut size = 0;
        while size < WRITE {
            let Some(packet) = state.connection.poll_transmit() else {
                break;
            };
            size += packet.bytes.len();
            if packet.stream.is_none() && packet.descriptors.is_empty() {
                joined.extend_from_slice(&packet.bytes);
                continue;
            }
            self.writing.extend(whole(joined.split()));
            self.writing.push_back(Piece::Bytes {
                bytes: packet.bytes,
                stream: packet.stream,
            });
            self.writing
                .extend(packet.descriptors.into_iter().map(Piece::Descriptor));
        }
        self.writing.extend(whole(joined));
        let sent = self.writing.is_empty() && self.flushed;
        if sent && state.closing && state.connection.unfinished() == 0 {
            return Err(ConnectionError::ClosedHere);
        }
        Ok(!self.writing.is_empty())
    }

    /// Reads once and hands on what is complete; true if something came.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, Ended> {
        let now = Instant::now().into_std();
        {
            let mut state = self.shared.lock();
            if state.closing && self.close_at.is_none() {
                self.close_at = Some(Instant::now() + CLOSING);
            }
            // What has been read already comes first: it may hold more packets than the reader could take.
            while !state.is_full() {
                match state.connection.handle_input(&mut self.input)? {
                    Some(event) => state.deliver(event)?,
                    None => break,
                }
            }
            if state.is_full() {
                if !self.paused {
                    self.paused = true;
                    state.connection.pause(now);
                }
                return Ok(false);
            }
            if self.paused {
                self.paused = false;
                state.connection.resume(now);
            }
        }
        let mut descriptors = Vec::new();
        let read = match self.wire.poll_read(cx, &mut self.scratch, &mut descriptors) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(0)) => return Err(ConnectionError::ClosedByDaemon),
            Poll::Ready(read) => read?,
        };
        let mut state = self.shared.lock();
        state.connection.handle_received(now);
        for descriptor in descriptors {
            state.connection.handle_descriptor(descriptor)?;
        }
        if self.input.capacity() - self.input.len() < read {
            // A big packet's room is made in steps of what one read can bring, not of what its length claims.
            let missing = state.connection.missing(&self.input);
            self.input.reserve(missing.clamp(read, READ));
        }
        self.input.extend_from_slice(&self.scratch[..read]);
        Ok(true)
    }

    /// Sets the timer, and does what is due.
    fn keep_time(&mut self, cx: &mut Context<'_>) -> Result<(), Ended> {
        loop {
            let now = Instant::now();
            let due = self.shared.lock().connection.timeout();
            let look = self.paused.then(|| now + LOOK);
            let others = look.into_iter().chain(self.close_at);
            let Some(at) = due.map(Instant::from_std).into_iter().chain(others).min() else {
                self.timer = None;
                return Ok(());
            };
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            // One that ends too early finds nothing due and starts anew: cheaper than to move it with each packet.
            if timer.deadline() > at {
                timer.as_mut().reset(at);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            self.timer = None;
            if self.close_at.is_some_and(|at| Instant::now() >= at) {
                return Err(self.broken.take().unwrap_or(ConnectionError::ClosedHere));
            }
            if self.paused && self.wire.hung_up() {
                return Err(ConnectionError::ClosedByDaemon);
            }
            let mut state = self.shared.lock();
            state.connection.handle_timeout(Instant::now().into_std())?;
            // What it queued is written in the next round.
            state.wake_driver();
        }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        {
            let mut state = self.shared.lock();
            if state
                .driver
                .as_ref()
                .is_none_or(|waker| !waker.will_wake(cx.waker()))
            {
                state.driver = Some(cx.waker().clone());
            }
        }
        for _ in 0..ROUNDS {
            match self.step(cx) {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(why) => {
                    self.shared.end(why);
                    return Poll::Ready(());
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Driver {
    /// Also when the runtime goes down with the connection open.
    fn drop(&mut self) {
        self.shared.end(ConnectionError::ClosedHere);
    }
}

/// A piece for the joined packets, if there are any.
fn whole(joined: BytesMut) -> Option<Piece> {
    (!joined.is_empty()).then(|| Piece::Bytes {
        bytes: joined.freeze(),
        stream: None,
    })
}
