//! What a link's driver, its sessions and its owner share.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Instant,
};

use crate::{EndReason, GuestEnd, GuestEvent, HostEnd, HostEvent, Port, SessionId};

/// Now, by tokio's clock: it stands still in tests that say so.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Either end, as the driver and the sessions see it.
#[derive(Debug)]
pub(super) enum End {
    Guest(GuestEnd),
    Host(HostEnd),
}

/// Calls the same method of whichever end it is.
macro_rules! either {
    ($end:expr, $it:ident => $call:expr) => {
        match $end {
            End::Guest($it) => $call,
            End::Host($it) => $call,
        }
    };
}

impl End {
    pub(super) fn handle_input(&mut self, now: Instant, input: &[u8]) {
        either!(self, end => end.handle_input(now, input));
    }

    /// Everything that could be read has been. Whether there is an answer to write.
    pub(super) fn handle_drained(&mut self) -> bool {
        match self {
            Self::Guest(end) => end.is_greeted() && end.handle_drained(now()),
            Self::Host(_) => false,
        }
    }

    pub(super) fn handle_detached(&mut self, now: Instant) {
        match self {
            Self::Guest(end) => end.handle_detached(now),
            Self::Host(end) => end.handle_closed(now),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        either!(self, end => end.poll_timeout())
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        either!(self, end => end.handle_timeout(now));
    }

    pub(super) fn transmit(&mut self) -> &[u8] {
        either!(self, end => end.transmit())
    }

    pub(super) fn transmitted(&mut self, len: usize) {
        either!(self, end => end.transmitted(len));
    }

    pub(super) fn read_with(
        &mut self,
        id: SessionId,
        max: usize,
        sink: impl FnOnce(&[u8]),
    ) -> Option<usize> {
        either!(self, end => end.read_with(id, max, sink))
    }

    pub(super) fn write(&mut self, id: SessionId, data: &[u8]) -> Option<usize> {
        either!(self, end => end.write(id, data))
    }

    pub(super) fn has_events(&self) -> bool {
        either!(self, end => end.has_events())
    }

    pub(super) fn is_readable(&self, id: SessionId) -> bool {
        either!(self, end => end.is_readable(id))
    }

    pub(super) fn is_writable(&self, id: SessionId) -> bool {
        either!(self, end => end.is_writable(id))
    }

    pub(super) fn may_wait(&self) -> bool {
        either!(self, end => end.may_wait())
    }

    pub(super) fn close(&mut self, now: Instant, id: SessionId, why: &str) {
        match self {
            Self::Guest(end) => end.close(id, why),
            Self::Host(end) => end.close(now, id, why),
        }
    }
}

/// Takes the events of either end.
pub(super) trait Observer: Send + 'static {
    /// Called after every change, with the lock held: take all events.
    fn observe(&mut self, end: &mut End);
    /// The port is gone; nothing follows.
    fn gone(&mut self, error: std::io::Error);
}

impl End {
    pub(super) fn guest_event(&mut self) -> Option<GuestEvent> {
        match self {
            Self::Guest(end) => end.poll_event(),
            Self::Host(_) => None,
        }
    }

    pub(super) fn host_event(&mut self) -> Option<HostEvent> {
        match self {
            Self::Host(end) => end.poll_event(),
            Self::Guest(_) => None,
        }
    }
}

/// Wakes whoever waits; remembers one waker.
#[derive(Debug, Default)]
pub(super) struct Slot(Option<Waker>);

impl Slot {
    pub(super) fn register(&mut self, cx: &Context<'_>) {
        match &mut self.0 {
            Some(waker) => waker.clone_from(cx.waker()),
            slot => *slot = Some(cx.waker().clone()),
        }
    }

    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.0.take() {
            waker.wake();
        }
    }
}

/// Behind the lock.
pub(super) struct Inner {
    pub(super) end: End,
    /// `None` when the driver has ended.
    pub(super) port: Option<Box<dyn Port>>,
    /// The newest session that was opened, and who waits for its bytes or for room.
    pub(super) current: SessionId,
    pub(super) reader: Slot,
    pub(super) writer: Slot,
    /// The driver's task. The port knows no other waker.
    pub(super) driver: Waker,
    stats: Arc<LinkStats>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("end", &self.end)
            .field("is_gone", &self.is_gone())
            .finish_non_exhaustive()
    }
}

impl Inner {
    /// The driver has ended: there is no port any more.
    pub(super) fn is_gone(&self) -> bool {
        self.port.is_none()
    }

    /// Writes what there is to write. Whether the port took anything; what it did not take, the driver writes.
    pub(super) fn write(&mut self) -> io::Result<bool> {
        let Some(port) = &mut self.port else {
            return Ok(false);
        };
        let mut cx = Context::from_waker(&self.driver);
        let mut progress = false;
        loop {
            let bytes = self.end.transmit();
            if bytes.is_empty() {
                return Ok(progress);
            }
            match port.poll_write(&mut cx, bytes) {
                Poll::Ready(written) => {
                    let written = written?;
                    self.stats.add_sent(written);
                    self.end.transmitted(written);
                    progress = true;
                }
                Poll::Pending => return Ok(progress),
            }
        }
    }

    /// Writes from a session's task: a turn of the driver's would cost more than the write. Whether the port took
    /// anything.
    pub(super) fn write_at_once(&mut self) -> bool {
        let result = self.write();
        // Only the driver can tell the link's owner what follows.
        if result.is_err() || self.end.has_events() {
            self.driver.wake_by_ref();
        }
        result.unwrap_or_default()
    }

    /// Writes as [`write_at_once`](Self::write_at_once) does, or leaves it to the driver if more may come with it.
    pub(super) fn write_soon(&mut self) -> bool {
        if self.end.may_wait() {
            self.driver.wake_by_ref();
            return false;
        }
        self.write_at_once()
    }

    /// Wakes the current session's task where it can go on.
    pub(super) fn wake_session(&mut self) {
        if self.is_gone() || self.end.is_readable(self.current) {
            self.reader.wake();
        }
        if self.is_gone() || self.end.is_writable(self.current) {
            self.writer.wake();
        }
    }
}

/// Bytes that went over a link, control records included, and the sessions that have ended on it.
#[derive(Debug, Default)]
pub struct LinkStats {
    sent: AtomicU64,
    received: AtomicU64,
    ends: [AtomicU64; EndReason::CAUSES.len()],
}

impl LinkStats {
    /// Bytes written to the port.
    pub fn sent_bytes(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes read from the port.
    pub fn received_bytes(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// How many sessions have ended on a host's link, by [cause](EndReason::cause), of which only those that there were.
    pub fn ends(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts = self.ends.iter().map(|count| count.load(Ordering::Relaxed));
        let counts = EndReason::CAUSES.into_iter().zip(counts);
        counts.filter(|(_, count)| *count > 0)
    }

    pub(super) fn add_end(&self, reason: &EndReason) {
        self.ends[reason.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn add_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// A link's state in its lock.
#[derive(Debug)]
pub(super) struct Shared {
    inner: Mutex<Inner>,
    pub(super) stats: Arc<LinkStats>,
}

impl Shared {
    pub(super) fn new(end: End, port: impl Port + 'static) -> Arc<Self> {
        let stats = Arc::<LinkStats>::default();
        Arc::new(Self {
            inner: Mutex::new(Inner {
                end,
                port: Some(Box::new(port)),
                current: SessionId::NONE,
                reader: Slot::default(),
                writer: Slot::default(),
                driver: Waker::noop().clone(),
                stats: Arc::clone(&stats),
            }),
            stats,
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic with the lock held leaves a state machine that is at worst in the wrong session, which the peer
        // notices; the other guests of the process must not suffer from it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
