//! What went over a guest's channels, one after the other, and why its sessions ended.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use vbridge_link::LinkStats;

/// Sums over all channels so far.
#[derive(Debug, Default)]
pub(super) struct Totals(Mutex<Sums>);

#[derive(Debug, Default)]
struct Sums {
    /// Bytes of channels that were closed.
    sent: u64,
    received: u64,
    /// Sessions on them by the cause of their end, of which the link knows a handful.
    ends: BTreeMap<&'static str, u64>,
    /// The channel that is connected.
    now: Option<Arc<LinkStats>>,
}

impl Totals {
    /// A channel was connected.
    pub(super) fn begin(&self, stats: Arc<LinkStats>) {
        self.sums().now = Some(stats);
    }

    /// The channel was closed; if a session was still open, what ended it.
    pub(super) fn end(&self, cause: Option<&'static str>) {
        let mut sums = self.sums();
        let Some(stats) = sums.now.take() else {
            return;
        };
        sums.sent += stats.sent_bytes();
        sums.received += stats.received_bytes();
        for (cause, count) in stats.ends() {
            *sums.ends.entry(cause).or_default() += count;
        }
        if let Some(cause) = cause {
            *sums.ends.entry(cause).or_default() += 1;
        }
    }

    /// Sent and received.
    pub(super) fn bytes(&self) -> (u64, u64) {
        let sums = self.sums();
        match &sums.now {
            None => (sums.sent, sums.received),
            Some(now) => (
                sums.sent + now.sent_bytes(),
                sums.received + now.received_bytes(),
            ),
        }
    }

    /// How many sessions have ended, by cause, of which only those that there were.
    pub(super) fn ends(&self) -> Vec<(&'static str, u64)> {
        let sums = self.sums();
        let mut ends = sums.ends.clone();
        for (cause, count) in sums.now.iter().flat_map(|now| now.ends()) {
            *ends.entry(cause).or_default() += count;
        }
        ends.into_iter().collect()
    }

    fn sums(&self) -> MutexGuard<'_, Sums> {
        // Counts are whole whoever panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
