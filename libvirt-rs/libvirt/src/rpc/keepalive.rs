//! Whether the daemon still lives: pings on an idle connection.
//!
//! ```text
//!             enable                      nothing came for an interval
//!   Off ───────────────▶ Listening ─────────────────────────────────▶ Asking(1) ──▶ … Asking(count) ──▶ dead
//!                          ▲   │                                         │   one interval each
//!                          └───┴────────── any packet ───────────────────┘
//!              pause │▲ resume                 (a reader that is full reads no packets, so none can be missed)
//!                    ▼│
//!                   Paused: a PONG every interval, so that the daemon, whose pings we do not read, keeps us
//! ```
//!
//! The daemon starts its own pings only after the client has asked for them (feature 10), and ends a connection
//! that leaves them unanswered. Any packet resets the timers of both sides.

use std::time::{Duration, Instant};

use super::limits::KEEPALIVE_RANGE;

/// The program that pings and pongs belong to.
pub(crate) const PROGRAM: u32 = 0x6b65_6570;
/// Its version.
pub(crate) const VERSION: u32 = 1;
/// Are you there?
pub(crate) const PING: i32 = 1;
/// I am.
pub(crate) const PONG: i32 = 2;

/// How an idle connection is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepaliveConfig {
    /// The time without any packet after which the daemon is asked.
    pub interval: Duration,
    /// The questions that may stay without an answer.
    pub count: u32,
}

#[derive(Debug)]
pub(crate) struct Keepalive {
    config: KeepaliveConfig,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Off,
    Listening { ask_at: Instant },
    Asking { asked: u32, next_at: Instant },
    Paused { next_at: Instant },
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    Ping,
    Pong,
    /// The daemon has been silent for so long.
    Dead(Duration),
}

// === impl KeepaliveConfig ===

impl Default for KeepaliveConfig {
    fn default() -> Self {
        Self {
            interval: super::limits::KEEPALIVE_INTERVAL,
            count: super::limits::KEEPALIVE_COUNT,
        }
    }
}

// === impl Keepalive ===

impl Keepalive {
    pub(crate) fn new(config: KeepaliveConfig) -> Self {
        let (shortest, longest) = KEEPALIVE_RANGE;
        Self {
            config: KeepaliveConfig {
                interval: config.interval.clamp(shortest, longest),
                // So that a day each is still a time that can be reckoned with.
                count: config.count.min(u32::from(u16::MAX)),
            },
            state: State::Off,
        }
    }

    /// The daemon has agreed to it.
    pub(crate) fn enable(&mut self, now: Instant) {
        if matches!(self.state, State::Off) {
            self.state = self.listening(now);
        }
    }

    /// Something has come.
    pub(crate) fn received(&mut self, now: Instant) {
        if matches!(self.state, State::Listening { .. } | State::Asking { .. }) {
            self.state = self.listening(now);
        }
    }

    /// Nothing is read from now on, because a stream's reader is behind.
    pub(crate) fn pause(&mut self, now: Instant) {
        if matches!(self.state, State::Listening { .. } | State::Asking { .. }) {
            self.state = State::Paused {
                next_at: now + self.config.interval,
            };
        }
    }

    /// Packets are read again.
    pub(crate) fn resume(&mut self, now: Instant) {
        if matches!(self.state, State::Paused { .. }) {
            self.state = self.listening(now);
        }
    }

    pub(crate) fn timeout(&self) -> Option<Instant> {
        match self.state {
            State::Off => None,
            State::Listening { ask_at: at }
            | State::Asking { next_at: at, .. }
            | State::Paused { next_at: at } => Some(at),
        }
    }

    /// What is due at `now`.
    pub(crate) fn due(&mut self, now: Instant) -> Due {
        if self.timeout().is_none_or(|at| now < at) {
            return Due::Nothing;
        }
        let next_at = now + self.config.interval;
        match self.state {
            State::Off => Due::Nothing,
            State::Paused { .. } => {
                self.state = State::Paused { next_at };
                Due::Pong
            }
            State::Asking { asked, .. } if asked >= self.config.count => {
                self.state = State::Off;
                Due::Dead(self.config.interval * (self.config.count + 1))
            }
            State::Asking { asked, .. } => {
                self.state = State::Asking {
                    asked: asked + 1,
                    next_at,
                };
                Due::Ping
            }
            State::Listening { .. } if self.config.count == 0 => {
                self.state = State::Off;
                Due::Dead(self.config.interval)
            }
            State::Listening { .. } => {
                self.state = State::Asking { asked: 1, next_at };
                Due::Ping
            }
        }
    }

    fn listening(&self, now: Instant) -> State {
        State::Listening {
            ask_at: now + self.config.interval,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn keepalive(now: Instant) -> Keepalive {
        let mut keepalive = Keepalive::new(KeepaliveConfig {
            interval: SECOND,
            count: 2,
        });
        keepalive.enable(now);
        keepalive
    }

    #[test]
    fn a_silent_daemon_is_given_up_an_interval_after_its_last_question() {
        let start = Instant::now();
        let mut keepalive = keepalive(start);
        assert_eq!(keepalive.due(start + SECOND / 2), Due::Nothing);
        assert_eq!(keepalive.due(start + SECOND), Due::Ping);
        assert_eq!(keepalive.due(start + 2 * SECOND), Due::Ping);
        assert_eq!(keepalive.due(start + 3 * SECOND), Due::Dead(3 * SECOND));
        assert_eq!(keepalive.timeout(), None);
    }

    #[test]
    fn any_packet_starts_the_wait_anew() {
        let start = Instant::now();
        let mut keepalive = keepalive(start);
        assert_eq!(keepalive.due(start + SECOND), Due::Ping);
        keepalive.received(start + SECOND + SECOND / 2);
        assert_eq!(keepalive.due(start + 2 * SECOND), Due::Nothing);
        assert_eq!(
            keepalive.timeout(),
            Some(start + 2 * SECOND + SECOND / 2),
            "an interval after the packet"
        );
    }

    #[test]
    fn a_paused_connection_never_dies_and_keeps_the_daemon_patient() {
        let start = Instant::now();
        let mut keepalive = keepalive(start);
        keepalive.pause(start);
        for second in 1..100 {
            assert_eq!(keepalive.due(start + second * SECOND), Due::Pong);
        }
        keepalive.resume(start + 100 * SECOND);
        assert_eq!(keepalive.due(start + 101 * SECOND), Due::Ping);
    }

    #[test]
    fn any_interval_can_be_reckoned_with() {
        let start = Instant::now();
        for interval in [Duration::ZERO, Duration::MAX] {
            let count = u32::MAX;
            let mut keepalive = Keepalive::new(KeepaliveConfig { interval, count });
            keepalive.enable(start);
            let at = keepalive.timeout().unwrap();
            assert!(at > start, "{interval:?}");
            assert_eq!(keepalive.due(at), Due::Ping, "{interval:?}");
        }
    }

    #[test]
    fn nothing_is_asked_before_the_daemon_has_agreed() {
        let keepalive = Keepalive::new(KeepaliveConfig::default());
        assert_eq!(keepalive.timeout(), None);
    }
}
