//! One session's bytes in both directions: how many went where, and how many more may.
//!
//! Credit bounds what is in flight below HTTP/2. Each end announces a window in the greeting; the other keeps at most
//! so many bytes unacknowledged. A [`Sync`] record carries both counts. It opens every block of bytes that is handed
//! to the port, so that acknowledgements mostly ride along, and so that bytes of another session, or bytes that went
//! missing, are noticed at the next block's beginning: a guest that was set back to a snapshot goes on in the session
//! of its past, and no signal says so.

use bytes::{Buf as _, BytesMut};

use crate::{
    framing::Stuffer,
    limits::{ACK_DIVISOR, IDLE_BUFFER, MAX_BLOCK, MAX_CONTROL_BACKLOG},
    record::{Control, Record, SessionId, Sync},
};

/// Bytes on their way to the port.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    stuffer: Stuffer,
    bytes: BytesMut,
    /// Somebody waits for a record in it: an acknowledgement, an answer.
    is_urgent: bool,
}

impl Outbox {
    pub(crate) fn record(&mut self, session: SessionId, control: Control) {
        self.is_urgent = true;
        Record::new(session, control).write(&mut self.stuffer, &mut self.bytes);
    }

    /// Drops what was not yet transmitted. What follows begins with a marker, so that a record or a marker may be cut
    /// anywhere.
    pub(crate) fn clear(&mut self) {
        *self = Self {
            bytes: std::mem::take(&mut self.bytes),
            ..Self::default()
        };
        self.bytes.clear();
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn transmitted(&mut self, len: usize) {
        self.bytes.advance(len);
    }

    fn is_backlogged(&self) -> bool {
        self.bytes.len() > 2 * MAX_BLOCK + MAX_CONTROL_BACKLOG
    }

    /// Gives memory back that a burst has left behind.
    pub(crate) fn shrink(&mut self) {
        shrink(&mut self.bytes);
    }
}

fn shrink(bytes: &mut BytesMut) {
    if bytes.is_empty() && bytes.capacity() > IDLE_BUFFER {
        *bytes = BytesMut::new();
    }
}

/// What breaks a session from within.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The peer counts other bytes than those that arrived.
    #[error(
        "the peer had sent {expected} bytes, and {received} have arrived: bytes were lost, added or replayed"
    )]
    Count {
        /// As the peer counts.
        expected: u64,
        /// As this end counts.
        received: u64,
    },
    /// The peer sent more than the window that it was given.
    #[error("the peer sent more than its window of {0} bytes")]
    Window(u32),
    /// The peer acknowledges bytes that were never sent, or takes an acknowledgement back.
    #[error("the peer acknowledges byte {0}, which it can't have taken")]
    Acknowledged(u64),
    /// The peer asks faster than it reads the answers.
    #[error("the peer floods the link with control records and does not read the answers")]
    Flood,
}

/// An open session's two directions.
#[derive(Debug)]
pub(crate) struct Stream {
    id: SessionId,
    // Outgoing.
    sent: u64,
    acknowledged: u64,
    peer_window: u64,
    // Incoming.
    inbox: BytesMut,
    received: u64,
    consumed: u64,
    /// What the peer knows of `consumed`.
    announced: u64,
    window: u32,
    /// A question of the peer's that the next record answers.
    pong: u64,
    /// A question that the next record asks.
    ping: u64,
}

impl Stream {
    pub(crate) fn new(id: SessionId, window: u32, peer_window: u32) -> Self {
        Self {
            id,
            sent: 0,
            acknowledged: 0,
            peer_window: u64::from(peer_window),
            inbox: BytesMut::new(),
            received: 0,
            consumed: 0,
            announced: 0,
            window,
            pong: 0,
            ping: 0,
        }
    }

    pub(crate) fn id(&self) -> SessionId {
        self.id
    }

    /// How many more bytes the peer takes.
    fn credit(&self) -> usize {
        let in_flight = self.sent - self.acknowledged;
        usize::try_from(self.peer_window.saturating_sub(in_flight)).unwrap_or(usize::MAX)
    }

    /// How many bytes [`write`](Self::write) would take.
    pub(crate) fn writable(&self, out: &Outbox) -> usize {
        self.credit().min(MAX_BLOCK.saturating_sub(out.bytes.len()))
    }

    /// Takes the beginning of `data` and says how much of it; 0 when credit or room is used up.
    pub(crate) fn write(&mut self, data: &[u8], out: &mut Outbox) -> usize {
        let len = data.len().min(self.writable(out));
        if len > 0 {
            if out.is_empty() {
                self.sync(out);
                out.is_urgent = false;
            }
            out.stuffer.push(&data[..len], &mut out.bytes);
            self.sent += len as u64;
        }
        len
    }

    /// Whether what is in `out` may wait for more: it is the end of many bytes of which the peer has enough to take, and a
    /// block that is half empty costs the port as much as a full one.
    pub(crate) fn may_wait(&self, out: &Outbox) -> bool {
        !out.is_empty()
            && !out.is_urgent
            && out.bytes.len() < MAX_BLOCK / 2
            && self.sent - self.acknowledged > MAX_BLOCK as u64
    }

    /// Makes sure that the receiver holds nothing back of what it is about to get.
    pub(crate) fn finish_block(&mut self, out: &mut Outbox) {
        if out.stuffer.is_mid_stem() {
            self.sync(out);
        }
    }

    fn sync(&mut self, out: &mut Outbox) {
        self.announced = self.consumed;
        let sync = Sync {
            sent: self.sent,
            consumed: self.consumed,
            ping: std::mem::take(&mut self.ping),
            pong: std::mem::take(&mut self.pong),
        };
        out.record(self.id, Control::Sync(sync));
    }

    /// Asks the peer for a sign of life, with the next block.
    pub(crate) fn ask_along(&mut self, number: u64) {
        self.ping = number;
    }

    /// Asks the peer for a sign of life now.
    pub(crate) fn ask(&mut self, number: u64, out: &mut Outbox) {
        self.ping = number;
        self.sync(out);
    }

    /// Session bytes arrived.
    pub(crate) fn receive(&mut self, data: &[u8]) -> Result<(), StreamError> {
        if self.inbox.len() + data.len() > self.window as usize {
            return Err(StreamError::Window(self.window));
        }
        self.received += data.len() as u64;
        self.inbox.extend_from_slice(data);
        Ok(())
    }

    /// A `Sync` of this session arrived.
    pub(crate) fn receive_sync(&mut self, sync: Sync, out: &mut Outbox) -> Result<(), StreamError> {
        if sync.sent != self.received {
            return Err(StreamError::Count {
                expected: sync.sent,
                received: self.received,
            });
        }
        if sync.consumed < self.acknowledged || sync.consumed > self.sent {
            return Err(StreamError::Acknowledged(sync.consumed));
        }
        self.acknowledged = sync.consumed;
        if sync.ping != 0 {
            self.pong = sync.ping;
            self.sync(out);
        }
        if out.is_backlogged() {
            return Err(StreamError::Flood);
        }
        Ok(())
    }

    /// Hands over at most `max` received bytes.
    pub(crate) fn read(&mut self, max: usize, sink: impl FnOnce(&[u8]), out: &mut Outbox) -> usize {
        let len = max.min(self.inbox.len());
        sink(&self.inbox[..len]);
        self.inbox.advance(len);
        self.consumed += len as u64;
        if self.consumed - self.announced >= u64::from(self.window / ACK_DIVISOR) {
            self.sync(out);
        }
        len
    }

    pub(crate) fn has_input(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// What is left to read when the session has ended in order.
    pub(crate) fn into_input(self) -> BytesMut {
        self.inbox
    }

    pub(crate) fn shrink(&mut self) {
        shrink(&mut self.inbox);
    }
}
