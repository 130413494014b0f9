//! Keepalive once more: when something is due, and what.

use std::time::{Duration, Instant};

use libvirt::rpc::KeepaliveConfig;
use libvirt::rpc::limits::PONG_INTERVAL;

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
    /// The daemon has agreed.
    on: bool,
    /// When the daemon is asked, unless nothing is read, for then it can't be silent.
    ask_at: Option<Instant>,
    /// When we speak unasked.
    speak_at: Option<Instant>,
    /// The pings that were not answered.
    asked: u32,
    /// When something has come last.
    heard: Option<Instant>,
}

// === impl Watch ===

impl Watch {
    pub(super) fn new(config: KeepaliveConfig) -> Self {
        Self {
            config,
            on: false,
            ask_at: None,
            speak_at: None,
            asked: 0,
            heard: None,
        }
    }

    pub(super) fn due_at(&self) -> Option<Instant> {
        match (self.ask_at, self.speak_at) {
            (Some(ask), Some(speak)) => Some(ask.min(speak)),
            (ask, speak) => ask.or(speak),
        }
    }

    pub(super) fn enable(&mut self, now: Instant) {
        if !self.on {
            self.on = true;
            self.listen(now);
        }
    }

    pub(super) fn received(&mut self, now: Instant) {
        if self.listens() {
            self.listen(now);
            self.heard = Some(now);
        }
    }

    pub(super) fn flows(&mut self) {
        if self.listens()
            && let Some(heard) = self.heard
        {
            self.speak(heard);
        }
    }

    pub(super) fn pause(&mut self, now: Instant) {
        if self.listens() {
            self.ask_at = None;
            self.speak(now);
        }
    }

    pub(super) fn resume(&mut self, now: Instant) {
        if self.on && !self.listens() {
            self.listen(now);
        }
    }

    pub(super) fn due(&mut self, now: Instant) -> Due {
        if self.speak_at.is_some_and(|at| now >= at) {
            self.speak_at = None;
            if !self.listens() {
                self.speak(now);
            }
            return Due::Pong;
        }
        if self.ask_at.is_none_or(|at| now < at) {
            return Due::Nothing;
        }
        if self.asked == self.config.count {
            self.on = false;
            self.ask_at = None;
            self.speak_at = None;
            return Due::Dead(self.config.interval * (self.config.count + 1));
        }
        self.asked += 1;
        self.ask_at = Some(now + self.config.interval);
        Due::Ping
    }

    fn listens(&self) -> bool {
        self.ask_at.is_some()
    }

    fn listen(&mut self, now: Instant) {
        self.ask_at = Some(now + self.config.interval);
        self.asked = 0;
    }

    fn speak(&mut self, now: Instant) {
        if self.speak_at.is_none() {
            self.speak_at = Some(now + self.config.interval.min(PONG_INTERVAL));
        }
    }
}
