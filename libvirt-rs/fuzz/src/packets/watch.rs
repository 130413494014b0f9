//! Keepalive once more: when something is due, and what.

use std::time::{Duration, Instant};

use libvirt::rpc::KeepaliveConfig;

/// What keepalive makes us do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Ping,
    Pong,
    Dead(Duration),
}

/// How an idle connection is watched.
#[derive(Debug)]
pub(super) struct Watch {
    config: KeepaliveConfig,
    /// When something is due, once the daemon has agreed.
    due_at: Option<Instant>,
    /// The pings that were not answered.
    asked: u32,
    /// Nothing is read, so the daemon can't be silent.
    paused: bool,
}

// === impl Watch ===

impl Watch {
    pub(super) fn new(config: KeepaliveConfig) -> Self {
        Self {
            config,
            due_at: None,
            asked: 0,
            paused: false,
        }
    }

    pub(super) fn due_at(&self) -> Option<Instant> {
        self.due_at
    }

    pub(super) fn enable(&mut self, now: Instant) {
        if self.due_at.is_none() {
            self.start(now);
        }
    }

    pub(super) fn received(&mut self, now: Instant) {
        if self.due_at.is_some() && !self.paused {
            self.start(now);
        }
    }

    pub(super) fn pause(&mut self, now: Instant) {
        if self.due_at.is_some() && !self.paused {
            self.start(now);
            self.paused = true;
        }
    }

    pub(super) fn resume(&mut self, now: Instant) {
        if self.paused {
            self.paused = false;
            self.start(now);
        }
    }

    pub(super) fn due(&mut self, now: Instant) -> Due {
        if self.due_at.is_none_or(|at| now < at) {
            return Due::Nothing;
        }
        self.due_at = Some(now + self.config.interval);
        if self.paused {
            return Due::Pong;
        }
        if self.asked == self.config.count {
            self.due_at = None;
            return Due::Dead(self.config.interval * (self.config.count + 1));
        }
        self.asked += 1;
        Due::Ping
    }

    fn start(&mut self, now: Instant) {
        self.due_at = Some(now + self.config.interval);
        self.asked = 0;
    }
}
