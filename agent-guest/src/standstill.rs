//! Whether file systems are frozen, for all who must not touch them meanwhile.
//!
//! `Storage` decides; the router refuses calls that would block ([`crate::gate`]), and whoever writes anything asks first.

use std::time::Instant;

use tokio::sync::watch;

/// What is frozen now. Clones see the same.
///
/// An embedding program has one from [`AgentBuilder::standstill`](crate::AgentBuilder::standstill): while
/// [`is_frozen`](Self::is_frozen), what it writes to a disk blocks until file systems are thawed, and a thread of the
/// runtime that blocks keeps every call waiting.
#[derive(Debug, Clone, Default)]
pub struct Standstill(watch::Sender<Option<Frozen>>);

/// A standstill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frozen {
    /// The mount points; those that are being frozen are among them.
    pub(crate) mount_points: Vec<String>,
    /// When they are thawed by themselves.
    pub(crate) until: Instant,
}

impl Standstill {
    /// Whether any file system is frozen, or about to be.
    pub fn is_frozen(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// What is frozen, if anything is.
    pub(crate) fn now(&self) -> Option<Frozen> {
        self.0.borrow().clone()
    }

    /// Begins, changes or ends.
    pub(crate) fn set(&self, frozen: Option<Frozen>) {
        self.0.send_replace(frozen);
    }

    /// Sees all that [`set`](Self::set) says from now on.
    #[cfg(any(test, feature = "cli"))]
    pub(crate) fn changes(&self) -> watch::Receiver<Option<Frozen>> {
        self.0.subscribe()
    }
}
