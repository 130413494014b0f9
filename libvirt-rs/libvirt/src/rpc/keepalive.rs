//! Whether the daemon still lives: pings on an idle connection.
//!
//! ```text
//!             enable                      nothing came for an interval
//!   Off ───────────────▶ Listening ─────────────────────────────────▶ Asking(1) ──▶ … Asking(count) ──▶ dead
//!                          ▲   │                                         │   one interval each
//!                          └───┴────────── any packet ───────────────────┘
//!              pause │▲ resume                 (a reader that is full reads no packets, so none can be missed)
//!                    ▼│
//!                   Paused
//! ```
//!
//! What the daemon asks may wait behind megabytes of a stream, in its own queue or in a socket's, for a reader that is slow
//! or a line that is. So while nothing is read, and while a stream flows, there is **a PONG every interval, unasked**, at the
//! latest every [`PONG_INTERVAL`], or the daemon would give us up. That time runs on through pauses, however many there are
//! in it.
//!
//! The daemon starts its own pings only after the client has asked for them (feature 10), and ends a connection
//! that leaves them unanswered. Any packet resets the timers of both sides. It answers ours in any case.
//!
//! # Streams
//!
//! A daemon counts a stream's packets among a client's requests until it has passed them on, and reads nothing beyond its
//! limit of those: neither answers nor questions. So **a guest that reads nothing makes both ends look dead**, and so does a
//! line over which a ping has megabytes before it. A connection for one stream alone therefore does not ask for the daemon's
//! pings, and its own ones prove little while the daemon may have something of the stream's to pass on:
//!
//! ```text
//!   Asking(count) ── nothing of the stream left since the last question that was answered ──▶ dead
//!                 ── something did: whether the daemon reads at all is not known ──▶ Unheard ── any packet ──▶ Listening
//!                                                                                       │
//!                                                         another connection finds it silent, too ──▶ dead
//! ```

use std::time::{Duration, Instant};

use super::limits::{KEEPALIVE_RANGE, PONG_INTERVAL};

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
    /// When the daemon must hear from us unasked.
    pong_at: Option<Instant>,
    /// On a connection for one stream.
    reading: Option<Reading>,
}

/// Whether the daemon of a stream's own connection can be expected to read.
#[derive(Debug, Default)]
struct Reading {
    /// Our questions that have left.
    asked: u64,
    /// The daemon's answers to them, which come in their order.
    answered: u64,
    /// The answer that will prove that the daemon has read all that was sent in the stream.
    proof: u64,
    /// Another connection has found the daemon silent, and nothing has come here since.
    suspected: bool,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Off,
    /// Something has come then.
    Listening {
        since: Instant,
    },
    Asking {
        asked: u32,
        next_at: Instant,
    },
    /// No answer, which may be the stream's fault.
    Unheard,
    Paused,
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
            pong_at: None,
            reading: None,
        }
    }

    /// The daemon has agreed to it.
    pub(crate) fn enable(&mut self, now: Instant) {
        if matches!(self.state, State::Off) {
            self.state = State::Listening { since: now };
        }
    }

    /// The daemon answers pings, and was not asked for its own: the connection is for one stream.
    pub(crate) fn enable_for_stream(&mut self, now: Instant) {
        self.reading.get_or_insert_default();
        self.enable(now);
    }

    /// The daemon has agreed to it, here or elsewhere.
    pub(crate) fn is_enabled(&self) -> bool {
        !matches!(self.state, State::Off)
    }

    /// Another connection has found the daemon silent.
    pub(crate) fn suspect(&mut self, now: Instant) {
        let Some(reading) = &mut self.reading else {
            return;
        };
        reading.suspected = true;
        if matches!(self.state, State::Unheard) {
            self.state = State::Asking {
                asked: self.config.count,
                next_at: now,
            };
        }
    }

    /// A question of ours leaves.
    pub(crate) fn asks(&mut self) {
        if let Some(reading) = &mut self.reading {
            reading.asked += 1;
        }
    }

    /// The daemon has answered one.
    pub(crate) fn answered(&mut self) {
        if let Some(reading) = &mut self.reading {
            // What a daemon says unasked proves nothing.
            reading.answered = reading.asked.min(reading.answered + 1);
        }
    }

    /// Something of a stream leaves.
    pub(crate) fn streams(&mut self) {
        if let Some(reading) = &mut self.reading {
            reading.proof = reading.asked + 1;
        }
    }

    /// Whether the daemon reads, if it lives.
    fn must_read(&self) -> bool {
        let doubt = |reading: &Reading| reading.answered < reading.proof && !reading.suspected;
        !self.reading.as_ref().is_some_and(doubt)
    }

    fn is_watching(&self) -> bool {
        match self.state {
            State::Listening { .. } | State::Asking { .. } | State::Unheard => true,
            State::Off | State::Paused => false,
        }
    }

    /// Something has come.
    pub(crate) fn received(&mut self, now: Instant) {
        if self.is_watching() {
            self.state = State::Listening { since: now };
            if let Some(reading) = &mut self.reading {
                reading.suspected = false;
            }
        }
    }

    /// What has been received last holds something of a stream.
    pub(crate) fn flows(&mut self) {
        // A pause has seen to it already.
        if let State::Listening { since } = self.state {
            self.speak_later(since);
        }
    }

    /// Nothing is read from now on, because a stream's reader is behind.
    pub(crate) fn pause(&mut self, now: Instant) {
        if self.is_watching() {
            self.state = State::Paused;
            self.speak_later(now);
        }
    }

    /// Packets are read again.
    pub(crate) fn resume(&mut self, now: Instant) {
        if matches!(self.state, State::Paused) {
            self.state = State::Listening { since: now };
        }
    }

    pub(crate) fn timeout(&self) -> Option<Instant> {
        let ask_at = match self.state {
            State::Off | State::Unheard | State::Paused => None,
            State::Listening { since } => Some(since + self.config.interval),
            State::Asking { next_at, .. } => Some(next_at),
        };
        ask_at.into_iter().chain(self.pong_at).min()
    }

    /// What is due at `now`; one thing at a time.
    pub(crate) fn due(&mut self, now: Instant) -> Due {
        if self.pong_at.is_some_and(|at| at <= now) {
            self.pong_at = None;
            if matches!(self.state, State::Paused) {
                self.speak_later(now);
            }
            return Due::Pong;
        }
        if self.timeout().is_none_or(|at| now < at) {
            return Due::Nothing;
        }
        let next_at = now + self.config.interval;
        match self.state {
            State::Off | State::Unheard | State::Paused => Due::Nothing,
            State::Asking { asked, .. } if asked >= self.config.count => self.dead(),
            State::Asking { asked, .. } => {
                self.state = State::Asking {
                    asked: asked + 1,
                    next_at,
                };
                Due::Ping
            }
            State::Listening { .. } if self.config.count == 0 => self.dead(),
            State::Listening { .. } => {
                self.state = State::Asking { asked: 1, next_at };
                Due::Ping
            }
        }
    }

    fn dead(&mut self) -> Due {
        if !self.must_read() {
            self.state = State::Unheard;
            return Due::Nothing;
        }
        self.state = State::Off;
        self.pong_at = None;
        Due::Dead(self.config.interval * (self.config.count + 1))
    }

    /// Once an interval is over, counted from the first time that this was wanted.
    fn speak_later(&mut self, now: Instant) {
        // The daemon has an interval of its own, which we are not told.
        let at = now + self.config.interval.min(PONG_INTERVAL);
        self.pong_at.get_or_insert(at);
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
        assert_eq!(keepalive.due(start + 101 * SECOND), Due::Pong);
        assert_eq!(keepalive.due(start + 101 * SECOND), Due::Ping);
        assert_eq!(keepalive.due(start + 101 * SECOND), Due::Nothing);
    }

    #[test]
    fn a_reader_that_is_slow_but_steady_keeps_the_daemon_patient() {
        let start = Instant::now();
        let mut keepalive = keepalive(start);
        // It takes something four times in each interval, so no pause lasts as long as one.
        let said = (1..=400_u32).filter(|quarter| {
            let now = start + *quarter * SECOND / 4;
            keepalive.resume(now);
            keepalive.received(now);
            keepalive.pause(now);
            keepalive.due(now) == Due::Pong
        });
        assert!(said.count() >= 79, "at least every fifth quarter");
    }

    #[test]
    fn a_stream_that_flows_without_a_pause_keeps_the_daemon_patient() {
        let start = Instant::now();
        let mut keepalive = keepalive(start);
        // Over a slow line: what the daemon asks is behind all that.
        let said = (1..=400_u32).filter(|quarter| {
            let now = start + *quarter * SECOND / 4;
            keepalive.received(now);
            keepalive.flows();
            keepalive.due(now) == Due::Pong
        });
        assert!(said.count() >= 66, "at least every sixth quarter");
        // Then it ends, and there is no reason to speak any more.
        let end = start + 101 * SECOND;
        keepalive.received(end);
        while keepalive.due(end + SECOND) != Due::Ping {}
        assert_eq!(keepalive.due(end + SECOND), Due::Nothing);
    }

    #[test]
    fn a_single_piece_of_a_stream_is_followed_by_one_answer_that_nobody_has_asked_for() {
        let start = Instant::now();
        let mut keepalive = keepalive(start);
        let now = start + SECOND / 2;
        keepalive.received(now);
        keepalive.flows();
        keepalive.flows();
        assert_eq!(keepalive.due(now + SECOND), Due::Pong);
        assert_eq!(keepalive.due(now + SECOND), Due::Ping);
        assert_eq!(keepalive.due(now + SECOND), Due::Nothing);
    }

    #[test]
    fn the_daemon_is_kept_patient_by_its_own_interval_where_ours_is_longer() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(KeepaliveConfig {
            interval: 60 * SECOND,
            count: 2,
        });
        keepalive.enable(start);
        keepalive.pause(start);
        for round in 1..10 {
            let now = start + round * PONG_INTERVAL;
            assert_eq!(keepalive.timeout(), Some(now));
            assert_eq!(keepalive.due(now), Due::Pong);
        }
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

    /// One of a stream's own connection, whose daemon has answered nothing since something of the stream had left.
    fn unheard(start: Instant) -> Keepalive {
        let mut keepalive = Keepalive::new(KeepaliveConfig {
            interval: SECOND,
            count: 2,
        });
        keepalive.enable_for_stream(start);
        keepalive.streams();
        for second in 1..=2 {
            assert_eq!(keepalive.due(start + second * SECOND), Due::Ping);
            keepalive.asks();
        }
        assert_eq!(keepalive.due(start + 3 * SECOND), Due::Nothing);
        keepalive
    }

    #[test]
    fn a_stream_that_the_daemon_cannot_pass_on_is_no_proof_of_its_death() {
        let start = Instant::now();
        let mut keepalive = unheard(start);
        assert_eq!(keepalive.timeout(), None, "nothing more is asked");
        // Its other end reads on, and so does the daemon.
        let later = start + 1000 * SECOND;
        keepalive.answered();
        keepalive.received(later);
        assert_eq!(keepalive.due(later + SECOND), Due::Ping);
    }

    #[test]
    fn a_daemon_that_must_have_read_all_of_a_stream_and_is_silent_is_dead() {
        let start = Instant::now();
        let mut keepalive = unheard(start);
        let later = start + 10 * SECOND;
        keepalive.answered();
        keepalive.received(later);
        // The answer was to a question behind the last of the stream.
        assert_eq!(keepalive.due(later + SECOND), Due::Ping);
        keepalive.asks();
        assert_eq!(keepalive.due(later + 2 * SECOND), Due::Ping);
        keepalive.asks();
        assert_eq!(keepalive.due(later + 3 * SECOND), Due::Dead(3 * SECOND));
    }

    #[test]
    fn an_answer_to_an_earlier_question_says_nothing_of_what_was_sent_since() {
        let start = Instant::now();
        let mut keepalive = unheard(start);
        keepalive.streams();
        for _ in 0..5 {
            keepalive.answered();
        }
        keepalive.received(start + 4 * SECOND);
        for second in 5..=6 {
            assert_eq!(keepalive.due(start + second * SECOND), Due::Ping);
            keepalive.asks();
        }
        assert_eq!(keepalive.due(start + 7 * SECOND), Due::Nothing);
        assert_eq!(keepalive.timeout(), None);
    }

    #[test]
    fn silence_on_two_connections_is_a_daemons_death() {
        let start = Instant::now();
        let mut late = unheard(start);
        late.suspect(start + 9 * SECOND);
        assert_eq!(late.due(start + 9 * SECOND), Due::Dead(3 * SECOND));

        let mut early = Keepalive::new(late.config);
        early.enable_for_stream(start);
        early.streams();
        early.suspect(start);
        for second in 1..=2 {
            assert_eq!(early.due(start + second * SECOND), Due::Ping);
        }
        assert_eq!(early.due(start + 3 * SECOND), Due::Dead(3 * SECOND));
    }

    #[test]
    fn a_suspicion_is_over_with_the_next_packet() {
        let start = Instant::now();
        let mut keepalive = unheard(start);
        keepalive.suspect(start + 4 * SECOND);
        keepalive.received(start + 4 * SECOND);
        for second in 5..=6 {
            assert_eq!(keepalive.due(start + second * SECOND), Due::Ping);
        }
        assert_eq!(keepalive.due(start + 7 * SECOND), Due::Nothing);
    }

    #[test]
    fn nothing_is_asked_before_the_daemon_has_agreed() {
        let keepalive = Keepalive::new(KeepaliveConfig::default());
        assert_eq!(keepalive.timeout(), None);
    }
}
