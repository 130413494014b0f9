//! The host's end of the link: a state machine without I/O and clock.
//!
//! ```text
//!   channel connected                        WELCOME(S), and the guest's proof if there is a key
//!         │ HELLO(S), S fresh                            │ (CONFIRM)
//!         ▼                                              ▼
//!     Greeting(S) ──────────────────────────────────▶  Open(S) ◀──▶ Open(S), silent
//!      ▲  │    ▲                                         │     no answer │ any byte
//!      │  │    └── READY │ BYE │ bad bytes │ silent too long ────────────┘
//!      │  └─ READY: HELLO(S') at once
//!      │     no answer: HELLO(S') with back-off
//!      └──── REJECT, wrong proof: HELLO(S') with a longer back-off
//! ```
//!
//! Everything before WELCOME(S) is dropped: it belongs to sessions of the past. Each HELLO carries an id of its own,
//! because the bytes that one greeting provokes must not count for another. A guest that is known to be paused is
//! never silent.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::BytesMut;

use crate::{
    auth::{Key, NONCE, Role, Transcript},
    end::EndReason,
    guest::read_rest,
    limits::{
        DEFAULT_WINDOW, HELLO_RETRY_FIRST, HELLO_RETRY_MAX, HELLO_SPACING, KEEPALIVE_INTERVAL,
        KEEPALIVE_TIMEOUT, MAX_NUDGES, MAX_WINDOW, MIN_WINDOW, QUESTION_SPACING,
        REFUSED_RETRY_FIRST, SILENCE_LIMIT,
    },
    random::Random,
    record::{
        Bye, Confirm, Control, Hello, Item, Receiver, Record, Reject, RejectCode, SessionId, Sync,
        VERSION, Welcome, text,
    },
    stream::{Outbox, Stream},
};

/// How a host's end behaves.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// What it says of itself: name/version.
    pub software: String,
    /// With a key, only guests that prove the same key get a session.
    pub key: Option<Key>,
    /// Session bytes that the guest may have on their way or unread here.
    pub window: u32,
    /// Silence from the guest after which it is asked for a sign of life.
    pub keepalive_interval: Duration,
    /// Time that it has to answer before it counts as silent.
    pub keepalive_timeout: Duration,
    /// A guest that has been silent for so long, without being known to be paused, has lost its session.
    pub silence_limit: Duration,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            software: concat!("vbridge-link/", env!("CARGO_PKG_VERSION")).to_owned(),
            key: None,
            window: DEFAULT_WINDOW,
            keepalive_interval: KEEPALIVE_INTERVAL,
            keepalive_timeout: KEEPALIVE_TIMEOUT,
            silence_limit: SILENCE_LIMIT,
        }
    }
}

/// What happened at the host's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostEvent {
    /// A session is open.
    Opened {
        /// Its identity.
        id: SessionId,
        /// What the guest's agent says of itself.
        software: String,
    },
    /// An open session has ended. The next greeting is under way.
    Ended {
        /// Its identity.
        id: SessionId,
        /// Why.
        reason: EndReason,
    },
    /// The guest refused a session, or this end refused the guest.
    Refused {
        /// The kind of the reason.
        code: RejectCode,
        /// The reason in words; the guest may have chosen them.
        reason: String,
    },
    /// The guest of the open session does not answer (`true`), or does so again (`false`).
    Silent(bool),
}

/// A greeting that waits for its answer.
#[derive(Debug)]
struct Greeting {
    id: SessionId,
    nonce: Vec<u8>,
    sent: Option<Instant>,
    /// When the next HELLO is due.
    next: Instant,
    /// How long the one after that waits.
    retry: Duration,
    nudges: u32,
}

#[derive(Debug)]
struct Open {
    stream: Stream,
    /// When the guest was heard last.
    heard: Instant,
    /// When it was asked for the sign of life that it has not given yet.
    asked: Option<Instant>,
    /// When it was asked the first time since it was heard last.
    first_asked: Option<Instant>,
    silent: bool,
}

#[derive(Debug)]
enum State {
    Greeting(Greeting),
    Open(Open),
}

/// The host's end of the link, from the moment that the channel is connected.
///
/// Feed it with `handle_*`, drain it with `poll_*`, `transmit` and `read`; nothing happens by itself.
#[derive(Debug)]
pub struct HostEnd {
    config: HostConfig,
    random: Random,
    state: State,
    receiver: Receiver,
    out: Outbox,
    events: VecDeque<HostEvent>,
    rest: Option<(SessionId, BytesMut)>,
    /// Refusals in a row.
    refusals: u32,
    paused: bool,
    /// Numbers the questions.
    pings: u64,
    /// The newest question that was answered.
    answered: u64,
    /// When the newest question was asked.
    pinged: Option<Instant>,
    round_trip: Option<Duration>,
    /// Bytes that arrived outside any session.
    stray: u64,
}

impl HostEnd {
    /// The channel was just connected: greets at the next [`handle_timeout`](Self::handle_timeout).
    pub fn new(config: HostConfig, random: Random, now: Instant) -> Self {
        let config = HostConfig {
            window: config.window.clamp(MIN_WINDOW, MAX_WINDOW),
            ..config
        };
        Self {
            config,
            random,
            state: State::Greeting(Greeting::due(now)),
            receiver: Receiver::default(),
            out: Outbox::default(),
            events: VecDeque::new(),
            rest: None,
            refusals: 0,
            paused: false,
            pings: 0,
            answered: 0,
            pinged: None,
            round_trip: None,
            stray: 0,
        }
    }

    /// Takes bytes that were read from the channel.
    pub fn handle_input(&mut self, now: Instant, input: &[u8]) {
        if let State::Open(open) = &mut self.state {
            open.heard = now;
            open.asked = None;
            open.first_asked = None;
            if std::mem::take(&mut open.silent) {
                self.events.push_back(HostEvent::Silent(false));
            }
        }
        let mut receiver = std::mem::take(&mut self.receiver);
        receiver.feed(input, |item| match item {
            Item::Data(data) => self.handle_data(now, data),
            Item::Record(record) => self.handle_record(now, record),
            Item::Bad(bad) => self.end(now, EndReason::BadRecord(bad)),
        });
        self.receiver = receiver;
    }

    /// The channel was closed: nothing of this end is of use any more.
    pub fn handle_closed(&mut self, now: Instant) {
        self.end(now, EndReason::ChannelClosed);
    }

    /// Whether the virtual machine is known to be paused. A paused guest is not silent, however long.
    pub fn handle_paused(&mut self, now: Instant, paused: bool) {
        self.paused = paused;
        if let State::Open(open) = &mut self.state {
            open.heard = now;
            open.asked = None;
            open.first_asked = None;
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Greeting(greeting) => Some(greeting.next),
            State::Open(_) if self.paused => None,
            State::Open(open) => Some(match open.asked {
                None => open.heard + self.config.keepalive_interval,
                Some(asked) => asked + self.config.keepalive_timeout,
            }),
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &mut self.state {
            State::Greeting(greeting) if now >= greeting.next => {
                if self.out.is_empty() {
                    self.hello(now);
                } else {
                    // The channel has not even taken the last one. That one is as good as a new one.
                    greeting.back_off(now);
                }
            }
            State::Open(open) if !self.paused => {
                if let Some(asked) = open.asked {
                    if now < asked + self.config.keepalive_timeout {
                        return;
                    }
                    if open
                        .first_asked
                        .is_some_and(|first| now >= first + self.config.silence_limit)
                    {
                        return self.end(now, EndReason::Silent);
                    }
                    if !std::mem::replace(&mut open.silent, true) {
                        self.events.push_back(HostEvent::Silent(true));
                    }
                    open.asked = None;
                    self.ask(now);
                } else if now >= open.heard + self.config.keepalive_interval {
                    self.shrink();
                    self.ask(now);
                }
            }
            State::Greeting(_) | State::Open(_) => {}
        }
    }

    /// Somebody waits for a session: greets soon, if the back-off has grown long.
    pub fn nudge(&mut self, now: Instant) {
        if let State::Greeting(greeting) = &mut self.state {
            let earliest = greeting
                .sent
                .map_or(now, |sent| now.max(sent + HELLO_RETRY_FIRST));
            if self.refusals == 0 && greeting.nudges < MAX_NUDGES && earliest < greeting.next {
                greeting.nudges += 1;
                greeting.next = earliest;
            }
        }
    }

    /// Something is about to be written whose arrival matters: asks for a sign of life along with it, and returns the
    /// question's number. `None` if one was asked in the last [`QUESTION_SPACING`], without a session, and while the guest
    /// is known to be paused.
    pub fn ask_along(&mut self, now: Instant) -> Option<u64> {
        let is_due = self
            .pinged
            .is_none_or(|pinged| now >= pinged + QUESTION_SPACING);
        match &mut self.state {
            State::Open(open) if is_due && !self.paused => {
                self.pings += 1;
                self.pinged = Some(now);
                open.stream.ask_along(self.pings);
                Some(self.pings)
            }
            _ => None,
        }
    }

    /// Somebody doubts that the guest is there: asks it now, and returns the question's number. `None` without a
    /// session, and while the guest is known to be paused.
    pub fn probe(&mut self, now: Instant) -> Option<u64> {
        match &self.state {
            State::Open(_) if !self.paused => Some(self.ask(now)),
            _ => None,
        }
    }

    /// Whether the guest has answered that question, or a later one: then it was alive when the question reached it.
    pub fn is_answered(&self, question: u64) -> bool {
        self.answered >= question
    }

    /// Whoever asked has waited long enough: the guest counts as silent, unless it was heard since `since`.
    pub fn give_up(&mut self, since: Instant) {
        if let State::Open(open) = &mut self.state
            && open.heard < since
            && !self.paused
            && !std::mem::replace(&mut open.silent, true)
        {
            self.events.push_back(HostEvent::Silent(true));
        }
    }

    /// What happened, oldest first.
    pub fn poll_event(&mut self) -> Option<HostEvent> {
        self.events.pop_front()
    }

    /// Whether [`poll_event`](Self::poll_event) has something to tell.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Bytes for the channel; tell [`transmitted`](Self::transmitted) how many it took.
    pub fn transmit(&mut self) -> &[u8] {
        if let State::Open(open) = &mut self.state {
            open.stream.finish_block(&mut self.out);
        }
        self.out.bytes()
    }

    /// The channel took the first `len` bytes of [`transmit`](Self::transmit).
    pub fn transmitted(&mut self, len: usize) {
        self.out.transmitted(len);
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
            State::Open(open) if open.stream.id() == id => {
                Some(open.stream.read(max, sink, &mut self.out))
            }
            _ => read_rest(&mut self.rest, id, max, sink),
        }
    }

    /// Writes the beginning of `data` into session `id` and says how much of it: 0 if it must wait, `None` if the
    /// session has ended.
    pub fn write(&mut self, id: SessionId, data: &[u8]) -> Option<usize> {
        match &mut self.state {
            State::Open(open) if open.stream.id() == id => {
                Some(open.stream.write(data, &mut self.out))
            }
            _ => None,
        }
    }

    /// Whether [`read`](Self::read) of session `id` would bring bytes or its end.
    pub fn is_readable(&self, id: SessionId) -> bool {
        match &self.state {
            State::Open(open) if open.stream.id() == id => open.stream.has_input(),
            _ => true,
        }
    }

    /// Whether [`write`](Self::write) into session `id` would take bytes or tell its end.
    pub fn is_writable(&self, id: SessionId) -> bool {
        match &self.state {
            State::Open(open) if open.stream.id() == id => open.stream.writable(&self.out) > 0,
            _ => true,
        }
    }

    /// Whether what is to be transmitted may wait for more of the session's bytes. Not for long: somebody may wait for it.
    pub fn may_wait(&self) -> bool {
        match &self.state {
            State::Open(open) => open.stream.may_wait(&self.out),
            _ => false,
        }
    }

    /// Ends session `id` in order, if it is still open, and greets anew after a while. What was written before is
    /// still transmitted.
    pub fn close(&mut self, now: Instant, id: SessionId, reason: &str) {
        if matches!(&self.state, State::Open(open) if open.stream.id() == id) {
            let reason = text(reason);
            self.out.record(id, Control::Bye(Bye { reason }));
            self.state = State::Greeting(Greeting::after(now, HELLO_RETRY_FIRST));
            let reason = EndReason::Closed;
            self.events.push_back(HostEvent::Ended { id, reason });
        }
        if self.rest.as_ref().is_some_and(|(rest, _)| *rest == id) {
            self.rest = None;
        }
    }

    /// The time between a question and its answer, when it was measured last.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// When the guest of the open session was heard last.
    pub fn heard(&self) -> Option<Instant> {
        match &self.state {
            State::Greeting(_) => None,
            State::Open(open) => Some(open.heard),
        }
    }

    /// Bytes that arrived outside any session. Many of them without a session: something else than an agent is there.
    pub fn stray_bytes(&self) -> u64 {
        self.stray
    }

    fn shrink(&mut self) {
        self.out.shrink();
        if let State::Open(open) = &mut self.state {
            open.stream.shrink();
        }
    }

    fn hello(&mut self, now: Instant) {
        let id = SessionId(self.random.bytes());
        let nonce = match self.config.key {
            Some(_) => self.random.bytes::<NONCE>().to_vec(),
            None => Vec::new(),
        };
        let State::Greeting(greeting) = &mut self.state else {
            return;
        };
        greeting.id = id;
        greeting.nonce.clone_from(&nonce);
        greeting.sent = Some(now);
        greeting.back_off(now);
        let hello = Hello {
            min_version: u32::from(VERSION),
            max_version: u32::from(VERSION),
            software: text(&self.config.software),
            window: self.config.window,
            nonce,
        };
        self.out.record(id, Control::Hello(hello));
    }

    /// Asks the next question. A guest that owes an answer already gets no more time by it.
    fn ask(&mut self, now: Instant) -> u64 {
        if let State::Open(open) = &mut self.state {
            self.pings += 1;
            self.pinged = Some(now);
            open.asked.get_or_insert(now);
            open.first_asked.get_or_insert(now);
            open.stream.ask(self.pings, &mut self.out);
        }
        self.pings
    }

    fn handle_data(&mut self, now: Instant, data: &[u8]) {
        match &mut self.state {
            State::Greeting(_) => self.stray = self.stray.saturating_add(data.len() as u64),
            State::Open(open) => {
                if let Err(error) = open.stream.receive(data) {
                    self.end(now, EndReason::Stream(error));
                }
            }
        }
    }

    fn handle_record(&mut self, now: Instant, record: Record) {
        let Record { session, control } = record;
        match (control, &mut self.state) {
            (Control::Ready(_), State::Greeting(greeting)) => {
                self.refusals = 0;
                greeting.next = greeting
                    .sent
                    .map_or(now, |sent| now.max(sent + HELLO_SPACING));
                greeting.retry = HELLO_RETRY_FIRST;
                greeting.nudges = 0;
            }
            (Control::Ready(_), State::Open(_)) => self.end(now, EndReason::AgentRestarted),
            (Control::Welcome(welcome), State::Greeting(greeting)) if greeting.is(session) => {
                self.welcome(now, session, &welcome);
            }
            (Control::Reject(reject), State::Greeting(greeting)) if greeting.is(session) => {
                let Reject { code, reason } = reject;
                let code = RejectCode::try_from(code).unwrap_or(RejectCode::Unspecified);
                self.refused(now, code, text(&reason));
            }
            (Control::Bye(bye), State::Open(open)) if open.stream.id() == session => {
                let reason = Some(text(&bye.reason)).filter(|reason| !reason.is_empty());
                self.end(now, EndReason::Bye(reason));
            }
            (Control::Sync(sync), State::Open(open)) if open.stream.id() == session => {
                self.sync(now, sync)
            }
            (Control::Sync(_), State::Open(_)) => self.end(now, EndReason::ForeignSession),
            (Control::Hello(_) | Control::Confirm(_), State::Open(_)) => {
                self.end(now, EndReason::WrongDirection)
            }
            // What is left belongs to sessions or greetings of the past, or to a later version.
            _ => {}
        }
    }

    fn welcome(&mut self, now: Instant, id: SessionId, welcome: &Welcome) {
        let State::Greeting(greeting) = &self.state else {
            return;
        };
        if welcome.version != u32::from(VERSION) || welcome.window < MIN_WINDOW {
            let reason = format!(
                "the agent wants link version {} with a window of {} bytes, which this host can't do",
                welcome.version, welcome.window
            );
            return self.refused(now, RejectCode::Malformed, reason);
        }
        if let Some(key) = &self.config.key {
            let transcript = Transcript {
                version: welcome.version,
                session: id,
                host_nonce: greeting.nonce.clone(),
                guest_nonce: welcome.nonce.clone(),
                host_window: self.config.window,
                guest_window: welcome.window,
            };
            if welcome.nonce.len() != NONCE || !transcript.verify(key, Role::Guest, &welcome.proof)
            {
                let reason = if welcome.proof.is_empty() {
                    "this host wants a pre-shared key, and the agent has none"
                } else {
                    "the agent's proof does not fit this host's pre-shared key: the keys differ"
                };
                let bye = text("the host could not verify the agent's key");
                self.out.record(id, Control::Bye(Bye { reason: bye }));
                return self.refused(now, RejectCode::Authentication, reason.to_owned());
            }
            let proof = transcript.prove(key, Role::Host);
            self.out.record(id, Control::Confirm(Confirm { proof }));
        }
        if let Some(sent) = greeting.sent {
            self.round_trip = Some(now.saturating_duration_since(sent));
        }
        self.refusals = 0;
        self.stray = 0;
        self.rest = None;
        self.state = State::Open(Open {
            stream: Stream::new(id, self.config.window, welcome.window.min(MAX_WINDOW)),
            heard: now,
            asked: None,
            first_asked: None,
            silent: false,
        });
        let software = text(&welcome.software);
        self.events.push_back(HostEvent::Opened { id, software });
    }

    fn sync(&mut self, now: Instant, sync: Sync) {
        // A number that was never asked answers nothing.
        if sync.pong > self.answered && sync.pong <= self.pings {
            self.answered = sync.pong;
            if sync.pong == self.pings
                && let Some(pinged) = self.pinged
            {
                self.round_trip = Some(now.saturating_duration_since(pinged));
            }
        }
        if let State::Open(open) = &mut self.state
            && let Err(error) = open.stream.receive_sync(sync, &mut self.out)
        {
            self.end(now, EndReason::Stream(error));
        }
    }

    fn refused(&mut self, now: Instant, code: RejectCode, reason: String) {
        let wait = REFUSED_RETRY_FIRST.saturating_mul(1 << self.refusals.min(16));
        self.refusals = self.refusals.saturating_add(1);
        self.state = State::Greeting(Greeting::after(now, wait.min(HELLO_RETRY_MAX)));
        self.events
            .retain(|event| !matches!(event, HostEvent::Refused { .. }));
        self.events.push_back(HostEvent::Refused { code, reason });
    }

    fn end(&mut self, now: Instant, reason: EndReason) {
        if matches!(self.state, State::Greeting(_)) {
            return;
        }
        // A guest that says BYE is about to go, or has just refused to go on; all others are greeted at once.
        let next = match reason {
            EndReason::Bye(_) => Greeting::after(now, HELLO_RETRY_FIRST),
            _ => Greeting::due(now),
        };
        if let State::Open(open) = std::mem::replace(&mut self.state, State::Greeting(next)) {
            let id = open.stream.id();
            self.out.clear();
            self.rest = matches!(reason, EndReason::Bye(_)).then(|| (id, open.stream.into_input()));
            self.events.push_back(HostEvent::Ended { id, reason });
        }
    }
}

impl Greeting {
    fn due(now: Instant) -> Self {
        Self::after(now, Duration::ZERO)
    }

    fn after(now: Instant, wait: Duration) -> Self {
        Self {
            id: SessionId::NONE,
            nonce: Vec::new(),
            sent: None,
            next: now + wait,
            retry: HELLO_RETRY_FIRST,
            nudges: 0,
        }
    }

    fn is(&self, session: SessionId) -> bool {
        self.sent.is_some() && self.id == session
    }

    fn back_off(&mut self, now: Instant) {
        self.next = now + self.retry;
        self.retry = (self.retry * 2).min(HELLO_RETRY_MAX);
    }
}
