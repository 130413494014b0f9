//! The guest's end of the link: a state machine without I/O and clock.
//!
//! ```text
//!              opened                    WELCOME is out              CONFIRM proves the key
//!                │ READY                 (no key here)
//!                ▼              HELLO                 ──────────────────────────────┐
//!           ┌─ Waiting ──────────────────▶ Welcoming ─┤                             ▼
//!           │    ▲                            ▲  ▲    └▶ Confirming ───────────▶  Open
//!           │    │                            │  │           │   WELCOME is out     │
//!   HELLO   │    │ (READY) host detached,     │  └── HELLO ──┴──────────── HELLO ───┤
//!   refused │    │ bad proof, bad bytes, BYE  │                                     │
//!   REJECT  └────┴────────────────────────────┼─────────────────────────────────────┘
//! ```
//!
//! - A greeting is answered when all that can be read has been: only the newest one counts.
//! - *Welcoming* lasts until the port has taken the WELCOME. The kernel may say "host detached" after it has handed
//!   over the new host's HELLO, since both travel on different ways; whoever waits for WELCOME to be taken is not
//!   misled, because the port takes nothing while detached.
//! - Whenever the guest is back in *Waiting* by a decision that the host can't have seen, it sends READY: if the host
//!   believes itself in a session, it learns that it is not.
//! - A port that takes nothing of a WELCOME for [`STUCK_AFTER`] is reported as stuck, once for each greeting and wait.
//!   Without a host it takes nothing either, so whoever owns the port has to look.
//! - A greeting with an id that was used before is a recording, and no greeting.
//! - Bytes of a session that does not exist are dropped. A record of one provokes READY, at most every
//!   [`READY_SPACING`].

use std::{collections::VecDeque, time::Instant};

use bytes::{Buf as _, BytesMut};

use crate::{
    auth::{Key, NONCE, Role, Transcript},
    end::EndReason,
    limits::{
        AUTH_DELAY_FIRST, AUTH_DELAY_MAX, DEFAULT_WINDOW, MAX_WINDOW, MIN_WINDOW, READY_SPACING,
        REMEMBERED_SESSIONS, STUCK_AFTER,
    },
    random::Random,
    record::{
        Bye, Control, Hello, Item, Ready, Receiver, Record, Reject, RejectCode, SessionId, VERSION,
        Welcome, text,
    },
    stream::{Outbox, Stream},
};

/// How a guest's end behaves.
#[derive(Debug, Clone)]
pub struct GuestConfig {
    /// What it says of itself: name/version.
    pub software: String,
    /// With a key, only hosts that prove the same key get a session.
    pub key: Option<Key>,
    /// Session bytes that the host may have on their way or unread here.
    pub window: u32,
}

impl Default for GuestConfig {
    fn default() -> Self {
        Self {
            software: concat!("vbridge-link/", env!("CARGO_PKG_VERSION")).to_owned(),
            key: None,
            window: DEFAULT_WINDOW,
        }
    }
}

/// What happened at the guest's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestEvent {
    /// A session is open.
    Opened {
        /// Its identity.
        id: SessionId,
        /// What the host says of itself.
        software: String,
    },
    /// An open session has ended.
    Ended {
        /// Its identity.
        id: SessionId,
        /// Why.
        reason: EndReason,
    },
    /// A greeting was refused.
    Refused {
        /// The kind of the reason.
        code: RejectCode,
        /// The reason as the host gets it.
        reason: String,
    },
    /// The port takes nothing of the answer to a greeting: no host is attached any more, or the port is stuck.
    Stuck,
}

/// A session that the host asked for and the guest agreed to.
#[derive(Debug)]
struct Candidate {
    software: String,
    stream: Stream,
    /// With a key: what the host has to prove.
    transcript: Option<Transcript>,
}

#[derive(Debug)]
enum State {
    Waiting,
    Welcoming(Candidate),
    Confirming(Candidate),
    Open(Stream),
}

/// The guest's end of the link.
///
/// Feed it with `handle_*`, drain it with `poll_*`, `transmit` and `read`; nothing happens by itself.
#[derive(Debug)]
pub struct GuestEnd {
    config: GuestConfig,
    random: Random,
    state: State,
    receiver: Receiver,
    out: Outbox,
    events: VecDeque<GuestEvent>,
    /// The newest greeting that is not yet answered.
    greeting: Option<(SessionId, Hello)>,
    /// The newest ids that hosts have greeted with.
    seen: VecDeque<SessionId>,
    /// What an ended session left to read.
    rest: Option<(SessionId, BytesMut)>,
    /// Failed authentications in a row.
    failures: u32,
    /// Greetings are not answered before this.
    locked_until: Option<Instant>,
    last_ready: Option<Instant>,
    /// Since when the port has taken nothing of a WELCOME.
    owed: Option<Instant>,
}

impl GuestEnd {
    /// The port was just opened.
    pub fn new(config: GuestConfig, random: Random, now: Instant) -> Self {
        let mut end = Self {
            config: GuestConfig {
                window: config.window.clamp(MIN_WINDOW, MAX_WINDOW),
                ..config
            },
            random,
            state: State::Waiting,
            receiver: Receiver::default(),
            out: Outbox::default(),
            events: VecDeque::new(),
            greeting: None,
            seen: VecDeque::new(),
            rest: None,
            failures: 0,
            locked_until: None,
            last_ready: None,
            owed: None,
        };
        end.ready(now);
        end
    }

    /// Takes bytes that were read from the port.
    ///
    /// Call [`handle_drained`](Self::handle_drained) once there are no more.
    pub fn handle_input(&mut self, now: Instant, input: &[u8]) {
        let mut receiver = std::mem::take(&mut self.receiver);
        receiver.feed(input, |item| match item {
            Item::Data(data) => self.handle_data(now, data),
            Item::Record(record) => self.handle_record(now, record),
            Item::Bad(bad) => self.fail(now, EndReason::BadRecord(bad)),
        });
        self.receiver = receiver;
    }

    /// Whether a greeting waits for its answer.
    pub fn is_greeted(&self) -> bool {
        self.greeting.is_some()
    }

    /// Everything that could be read has been: answers the newest greeting, and says whether there was one.
    pub fn handle_drained(&mut self, now: Instant) -> bool {
        if self.locked_until.is_some_and(|until| now < until) {
            return false;
        }
        let Some((id, hello)) = self.greeting.take() else {
            return false;
        };
        self.answer(now, id, hello);
        true
    }

    /// The port says that no host is attached.
    pub fn handle_detached(&mut self, now: Instant) {
        match self.state {
            // The WELCOME is still here: the notice is older than the greeting.
            State::Waiting | State::Welcoming(_) => {}
            State::Confirming(_) | State::Open(_) => {
                self.end(EndReason::Detached);
                self.ready(now);
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let unlocked = self.greeting.as_ref().and(self.locked_until);
        let stuck = self.owed.map(|since| since + STUCK_AFTER);
        unlocked.into_iter().chain(stuck).min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.locked_until.is_some_and(|until| now >= until) {
            self.handle_drained(now);
        }
        if self.owed.is_some_and(|since| now >= since + STUCK_AFTER) {
            self.owed = None;
            if matches!(self.state, State::Welcoming(_)) {
                self.events.push_back(GuestEvent::Stuck);
            }
        }
    }

    /// What happened, oldest first.
    pub fn poll_event(&mut self) -> Option<GuestEvent> {
        self.events.pop_front()
    }

    /// Whether [`poll_event`](Self::poll_event) has something to tell.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Bytes for the port; tell [`transmitted`](Self::transmitted) how many it took.
    pub fn transmit(&mut self) -> &[u8] {
        if let State::Open(stream) = &mut self.state {
            stream.finish_block(&mut self.out);
        }
        self.out.bytes()
    }

    /// The port took the first `len` bytes of [`transmit`](Self::transmit).
    pub fn transmitted(&mut self, len: usize) {
        if len > 0 {
            self.owed = None;
        }
        self.out.transmitted(len);
        if !self.out.is_empty() {
            return;
        }
        self.state = match std::mem::replace(&mut self.state, State::Waiting) {
            State::Welcoming(candidate) if candidate.transcript.is_some() => {
                State::Confirming(candidate)
            }
            State::Welcoming(candidate) => self.open(candidate),
            state => state,
        };
    }

    /// Reads bytes of session `id`: `Some(0)` if there are none now, `None` at its end.
    pub fn read(&mut self, id: SessionId, buf: &mut [u8]) -> Option<usize> {
        self.read_with(id, buf.len(), |bytes| {
            buf[..bytes.len()].copy_from_slice(bytes)
        })
    }

    /// Like [`read`](Self::read), but hands at most `max` bytes to `sink`: a buffer need not be initialised first.
    pub fn read_with(
        &mut self,
        id: SessionId,
        max: usize,
        sink: impl FnOnce(&[u8]),
    ) -> Option<usize> {
        match &mut self.state {
            State::Open(stream) if stream.id() == id => Some(stream.read(max, sink, &mut self.out)),
            _ => read_rest(&mut self.rest, id, max, sink),
        }
    }

    /// Writes the beginning of `data` into session `id` and says how much of it: 0 if it must wait, `None` if the
    /// session has ended.
    pub fn write(&mut self, id: SessionId, data: &[u8]) -> Option<usize> {
        match &mut self.state {
            State::Open(stream) if stream.id() == id => Some(stream.write(data, &mut self.out)),
            _ => None,
        }
    }

    /// Whether [`read`](Self::read) of session `id` would bring bytes or its end.
    pub fn is_readable(&self, id: SessionId) -> bool {
        match &self.state {
            State::Open(stream) if stream.id() == id => stream.has_input(),
            _ => true,
        }
    }

    /// Whether [`write`](Self::write) into session `id` would take bytes or tell its end.
    pub fn is_writable(&self, id: SessionId) -> bool {
        match &self.state {
            State::Open(stream) if stream.id() == id => stream.writable(&self.out) > 0,
            _ => true,
        }
    }

    /// Whether what is to be transmitted may wait for more of the session's bytes. Not for long: somebody may wait for it.
    pub fn may_wait(&self) -> bool {
        match &self.state {
            State::Open(stream) => stream.may_wait(&self.out),
            _ => false,
        }
    }

    /// Ends session `id` in order, if it is still open. What was written before is still transmitted.
    pub fn close(&mut self, id: SessionId, reason: &str) {
        if matches!(&self.state, State::Open(stream) if stream.id() == id) {
            self.state = State::Waiting;
            let reason = text(reason);
            self.out.record(id, Control::Bye(Bye { reason }));
            let reason = EndReason::Closed;
            self.events.push_back(GuestEvent::Ended { id, reason });
        }
        if self.rest.as_ref().is_some_and(|(rest, _)| *rest == id) {
            self.rest = None;
        }
    }

    /// Gives memory back that a burst has left behind.
    pub fn shrink(&mut self) {
        self.out.shrink();
        if let State::Open(stream) = &mut self.state {
            stream.shrink();
        }
    }

    fn handle_data(&mut self, now: Instant, data: &[u8]) {
        if let State::Open(stream) = &mut self.state
            && let Err(error) = stream.receive(data)
        {
            self.fail(now, EndReason::Stream(error));
        }
    }

    fn handle_record(&mut self, now: Instant, record: Record) {
        let Record { session, control } = record;
        match control {
            // No host greets twice with one id: these bytes are a recording.
            Control::Hello(_) if self.seen.contains(&session) => {
                self.fail(now, EndReason::ForeignSession);
            }
            Control::Hello(hello) => {
                if self.seen.len() == REMEMBERED_SESSIONS {
                    self.seen.pop_front();
                }
                self.seen.push_back(session);
                self.end(EndReason::Superseded);
                self.out.clear();
                self.greeting = Some((session, hello));
            }
            Control::Confirm(confirm) => match std::mem::replace(&mut self.state, State::Waiting) {
                State::Confirming(candidate) if candidate.stream.id() == session => {
                    self.confirm(now, candidate, &confirm.proof);
                }
                state => self.state = state,
            },
            Control::Bye(bye) => {
                if self.session() == Some(session) {
                    let reason = Some(text(&bye.reason)).filter(|reason| !reason.is_empty());
                    self.end(EndReason::Bye(reason));
                }
            }
            Control::Sync(sync) => match &mut self.state {
                State::Open(stream) if stream.id() == session => {
                    if let Err(error) = stream.receive_sync(sync, &mut self.out) {
                        self.fail(now, EndReason::Stream(error));
                    }
                }
                State::Open(_) => self.fail(now, EndReason::ForeignSession),
                // The host is in a session of the past. With a greeting under way it will learn that anyway.
                State::Waiting if self.greeting.is_none() => {
                    if self
                        .last_ready
                        .is_none_or(|last| now >= last + READY_SPACING)
                    {
                        self.ready(now);
                    }
                }
                State::Waiting | State::Welcoming(_) | State::Confirming(_) => {}
            },
            Control::Ready(_) | Control::Welcome(_) | Control::Reject(_) => {
                self.fail(now, EndReason::WrongDirection);
            }
            Control::Unknown => {}
        }
    }

    fn answer(&mut self, now: Instant, id: SessionId, hello: Hello) {
        let ours = u32::from(VERSION);
        if hello.min_version > ours || hello.max_version < ours {
            let (min, max) = (hello.min_version, hello.max_version);
            return self.reject(
                id,
                RejectCode::Version,
                &format!("the host speaks link versions {min} to {max} and this agent version {ours}: update the older one"),
            );
        }
        if hello.window < MIN_WINDOW {
            return self.reject(
                id,
                RejectCode::Malformed,
                &format!(
                    "the host's window is {} bytes, and at least {MIN_WINDOW} are needed",
                    hello.window
                ),
            );
        }
        let transcript = match (&self.config.key, hello.nonce.len()) {
            (None, _) => None,
            (Some(_), NONCE) => Some(Transcript {
                version: ours,
                session: id,
                host_nonce: hello.nonce,
                guest_nonce: self.random.bytes::<NONCE>().to_vec(),
                host_window: hello.window,
                guest_window: self.config.window,
            }),
            (Some(_), _) => {
                return self.reject_proof(
                    now,
                    id,
                    "this agent wants a pre-shared key, and the host has none",
                );
            }
        };
        let (nonce, proof) = match (&transcript, &self.config.key) {
            (Some(transcript), Some(key)) => (
                transcript.guest_nonce.clone(),
                transcript.prove(key, Role::Guest),
            ),
            _ => Default::default(),
        };
        let welcome = Welcome {
            version: ours,
            software: text(&self.config.software),
            window: self.config.window,
            nonce,
            proof,
        };
        self.out.clear();
        self.out.record(id, Control::Welcome(welcome));
        self.rest = None;
        // A host that greets again has not been answered for all that time.
        self.owed.get_or_insert(now);
        self.state = State::Welcoming(Candidate {
            software: text(&hello.software),
            stream: Stream::new(id, self.config.window, hello.window.min(MAX_WINDOW)),
            transcript,
        });
    }

    fn confirm(&mut self, now: Instant, candidate: Candidate, proof: &[u8]) {
        let proven = match (&candidate.transcript, &self.config.key) {
            (Some(transcript), Some(key)) => transcript.verify(key, Role::Host, proof),
            _ => false,
        };
        if proven {
            self.failures = 0;
            self.locked_until = None;
            self.state = self.open(candidate);
        } else {
            let reason =
                "the host's proof does not fit this agent's pre-shared key: the keys differ";
            self.reject_proof(now, candidate.stream.id(), reason);
        }
    }

    fn open(&mut self, candidate: Candidate) -> State {
        let id = candidate.stream.id();
        let software = candidate.software;
        self.events.push_back(GuestEvent::Opened { id, software });
        State::Open(candidate.stream)
    }

    fn reject_proof(&mut self, now: Instant, id: SessionId, reason: &str) {
        let delay = AUTH_DELAY_FIRST.saturating_mul(1 << self.failures.min(16));
        self.locked_until = Some(now + delay.min(AUTH_DELAY_MAX));
        self.failures = self.failures.saturating_add(1);
        self.reject(id, RejectCode::Authentication, reason);
    }

    fn reject(&mut self, id: SessionId, code: RejectCode, reason: &str) {
        self.out.clear();
        let reason = text(reason);
        let reject = Reject {
            code: code.into(),
            reason: reason.clone(),
        };
        self.out.record(id, Control::Reject(reject));
        self.state = State::Waiting;
        // One is enough to tell: a flood of greetings must not grow the queue.
        self.events
            .retain(|event| !matches!(event, GuestEvent::Refused { .. }));
        self.events.push_back(GuestEvent::Refused { code, reason });
    }

    /// The session that the guest is in, open or on the way.
    fn session(&self) -> Option<SessionId> {
        match &self.state {
            State::Waiting => None,
            State::Welcoming(candidate) | State::Confirming(candidate) => {
                Some(candidate.stream.id())
            }
            State::Open(stream) => Some(stream.id()),
        }
    }

    /// The peer's bytes make no sense: there is no session any more, and the host must know.
    fn fail(&mut self, now: Instant, reason: EndReason) {
        // In the other states garbage is expected: it is what an old session left behind.
        if matches!(self.state, State::Open(_)) {
            self.end(reason);
            self.ready(now);
        }
    }

    fn end(&mut self, reason: EndReason) {
        match std::mem::replace(&mut self.state, State::Waiting) {
            State::Open(stream) => {
                let id = stream.id();
                self.out.clear();
                self.rest = matches!(reason, EndReason::Bye(_)).then(|| (id, stream.into_input()));
                self.events.push_back(GuestEvent::Ended { id, reason });
            }
            State::Waiting => {}
            State::Welcoming(_) | State::Confirming(_) => self.out.clear(),
        }
    }

    fn ready(&mut self, now: Instant) {
        self.last_ready = Some(now);
        let software = text(&self.config.software);
        self.out.clear();
        self.out
            .record(SessionId::NONE, Control::Ready(Ready { software }));
    }
}

/// Hands over what an ended session left.
pub(crate) fn read_rest(
    rest: &mut Option<(SessionId, BytesMut)>,
    id: SessionId,
    max: usize,
    sink: impl FnOnce(&[u8]),
) -> Option<usize> {
    let (_, bytes) = rest
        .as_mut()
        .filter(|(rest, bytes)| *rest == id && !bytes.is_empty())?;
    let len = max.min(bytes.len());
    sink(&bytes[..len]);
    bytes.advance(len);
    if bytes.is_empty() {
        *rest = None;
    }
    Some(len)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{HostConfig, HostEnd, limits::HELLO_RETRY_FIRST};

    /// A guest that a host greets, on a port that takes nothing.
    struct Greeted {
        now: Instant,
        host: HostEnd,
        guest: GuestEnd,
    }

    impl Greeted {
        fn new() -> Self {
            let now = Instant::now();
            Self {
                now,
                host: HostEnd::new(HostConfig::default(), Random::system(), now),
                guest: GuestEnd::new(GuestConfig::default(), Random::system(), now),
            }
        }

        /// Time passes; the host greets again when its time has come.
        fn pass(&mut self, time: Duration) {
            self.now += time;
            if self.host.poll_timeout().is_some_and(|at| self.now >= at) {
                self.host.handle_timeout(self.now);
                let hello = self.host.transmit().to_vec();
                self.host.transmitted(hello.len());
                self.guest.handle_input(self.now, &hello);
                self.guest.handle_drained(self.now);
            }
            if self.guest.poll_timeout().is_some_and(|at| self.now >= at) {
                self.guest.handle_timeout(self.now);
            }
        }

        fn is_told_stuck(&mut self) -> bool {
            std::iter::from_fn(|| self.guest.poll_event()).any(|event| event == GuestEvent::Stuck)
        }
    }

    #[test]
    fn a_port_that_takes_nothing_of_an_answer_is_stuck_however_often_the_host_greets() {
        let mut greeted = Greeted::new();
        greeted.pass(Duration::ZERO);
        greeted.pass(HELLO_RETRY_FIRST);
        assert!(!greeted.is_told_stuck());
        greeted.pass(STUCK_AFTER - HELLO_RETRY_FIRST);
        assert!(greeted.is_told_stuck());
        // And again, as long as there is a host that greets.
        for _ in 0..20 {
            greeted.pass(STUCK_AFTER / 4);
        }
        assert!(greeted.is_told_stuck());
    }

    #[test]
    fn a_port_that_takes_a_byte_is_not_stuck() {
        let mut greeted = Greeted::new();
        greeted.pass(Duration::ZERO);
        assert!(greeted.guest.transmit().len() > 1);
        greeted.guest.transmitted(1);
        greeted.pass(HELLO_RETRY_FIRST - Duration::from_millis(1));
        for _ in 0..3 {
            greeted.guest.handle_timeout(greeted.now);
            greeted.now += STUCK_AFTER;
        }
        assert!(!greeted.is_told_stuck());
    }
}
