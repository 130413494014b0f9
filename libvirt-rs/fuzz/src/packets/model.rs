//! What has to happen on a connection: the protocol once more, as plainly as it can be written, byte by byte.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Instant;

use libvirt::rpc::fuzzing::Seen;
use libvirt::rpc::{ConnectionError, KeepaliveConfig, Procedure, ProtocolError};

use super::watch::{Due, Watch};
use super::wire::{
    CALL, CALL_WITH_DESCRIPTORS, CONTINUE, DESCRIPTORS, DESCRIPTORS_AHEAD, ERROR, Head, KEEPALIVE,
    LENGTHS, MESSAGE, OK, PING, PONG, REPLY, REPLY_WITH_DESCRIPTORS, STREAM, STREAM_HOLE, hole,
    word_at,
};

/// A connection as it has to be.
#[derive(Debug)]
pub(super) struct Model {
    calls: BTreeMap<u32, Call>,
    last_serial: u32,
    /// What has to leave next.
    queue: VecDeque<Outgoing>,
    /// What has arrived and was not looked at.
    input: Vec<u8>,
    /// The descriptors that have come and belong to no packet yet.
    descriptors: VecDeque<RawFd>,
    watch: Watch,
    ignored: u64,
}

#[derive(Debug, Clone, Copy)]
struct Call {
    head: Head,
    stream: bool,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Abandoned,
    Streaming,
    Finishing,
    Aborting,
}

/// A packet of ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outgoing {
    pub(super) packet: Vec<u8>,
    pub(super) descriptors: Vec<RawFd>,
}

/// What a packet of the daemon's has to bring.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    Reply(u32, Vec<u8>, Vec<RawFd>),
    ErrorReply(u32, Vec<u8>),
    Message(u32, i32, Vec<u8>),
    Data(u32, Vec<u8>),
    Hole(u32, u64),
    Closed(u32),
    Failed(u32, Vec<u8>),
}

// === impl Model ===

impl Model {
    pub(super) fn new(keepalive: KeepaliveConfig) -> Self {
        Self {
            calls: BTreeMap::new(),
            last_serial: 0,
            queue: VecDeque::new(),
            input: Vec::new(),
            descriptors: VecDeque::new(),
            watch: Watch::new(keepalive),
            ignored: 0,
        }
    }

    pub(super) fn unfinished(&self) -> usize {
        self.calls.len()
    }

    /// The serials of the calls and streams that are not at their end.
    pub(super) fn open(&self) -> impl ExactSizeIterator<Item = u32> {
        self.calls.keys().copied()
    }

    pub(super) fn head(&self, serial: u32) -> Option<Head> {
        self.calls.get(&serial).map(|call| call.head)
    }

    pub(super) fn ignored(&self) -> u64 {
        self.ignored
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        self.watch.due_at()
    }

    // --- what we do

    /// The serial that a call gets.
    pub(super) fn call(&mut self, of: &Procedure, payload: &[u8], descriptors: Vec<RawFd>) -> u32 {
        self.last_serial += 1;
        let kind = match descriptors.len() {
            0 => CALL,
            _ => CALL_WITH_DESCRIPTORS,
        };
        let head = Head {
            program: of.program,
            version: of.version,
            procedure: of.number,
            kind: kind.into(),
            serial: self.last_serial,
            status: OK.into(),
        };
        let call = Call {
            head,
            stream: of.stream.is_some(),
            state: State::Waiting,
        };
        self.calls.insert(self.last_serial, call);
        self.queue.push_back(Outgoing {
            packet: head.packet(descriptors.len(), payload),
            descriptors,
        });
        self.last_serial
    }

    /// Whether the call is taken back, unsent.
    pub(super) fn abandon(&mut self, serial: u32) -> bool {
        match self.state(serial) {
            Some(State::Waiting) => {
                let queued = self.queue.len();
                self.queue.retain(|outgoing| !outgoing.calls(serial));
                let unsent = self.queue.len() < queued;
                if unsent {
                    self.calls.remove(&serial);
                } else {
                    self.set(serial, State::Abandoned);
                }
                return unsent;
            }
            Some(State::Streaming) => self.abort(serial),
            None | Some(State::Abandoned | State::Finishing | State::Aborting) => {}
        }
        false
    }

    /// Whether the stream takes data.
    pub(super) fn send_data(&mut self, serial: u32, data: &[u8]) -> bool {
        self.send(serial, STREAM, CONTINUE, data)
    }

    pub(super) fn send_hole(&mut self, serial: u32, length: i64) -> bool {
        self.send(serial, STREAM_HOLE, CONTINUE, &hole(length))
    }

    pub(super) fn finish(&mut self, serial: u32) -> bool {
        let open = self.send(serial, STREAM, OK, &[]);
        if open {
            self.set(serial, State::Finishing);
        }
        open
    }

    /// What was not sent never is, and the daemon is told so unless the end was said already.
    pub(super) fn abort(&mut self, serial: u32) {
        match self.state(serial) {
            Some(State::Streaming) => {
                self.queue.retain(|outgoing| !outgoing.streams(serial));
                self.send(serial, STREAM, ERROR, &[]);
                self.set(serial, State::Aborting);
            }
            Some(State::Finishing) => self.set(serial, State::Aborting),
            None | Some(State::Waiting | State::Abandoned | State::Aborting) => {}
        }
    }

    pub(super) fn transmit(&mut self) -> Option<Outgoing> {
        self.queue.pop_front()
    }

    pub(super) fn enable_keepalive(&mut self, now: Instant) {
        self.watch.enable(now);
    }

    pub(super) fn pause(&mut self, now: Instant) {
        self.watch.pause(now);
    }

    pub(super) fn resume(&mut self, now: Instant) {
        self.watch.resume(now);
    }

    pub(super) fn later(&mut self, now: Instant) -> Result<(), ConnectionError> {
        match self.watch.due(now) {
            Due::Nothing => {}
            Due::Ping => self.send_keepalive(PING),
            Due::Pong => self.send_keepalive(PONG),
            Due::Dead(silence) => return Err(ConnectionError::Silent(silence)),
        }
        Ok(())
    }

    // --- what comes

    pub(super) fn descriptor(&mut self, descriptor: RawFd) -> Result<(), ProtocolError> {
        if self.descriptors.len() == DESCRIPTORS_AHEAD {
            return Err(ProtocolError::DescriptorsUnannounced);
        }
        self.descriptors.push_back(descriptor);
        Ok(())
    }

    pub(super) fn arrive(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// What has to happen next, if enough has arrived.
    pub(super) fn next(&mut self, now: Instant) -> Result<Option<Event>, ProtocolError> {
        self.watch.received(now);
        while let Some((head, payload, descriptors)) = self.packet()? {
            let event = self.take(&head, payload, descriptors)?;
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    /// The next packet with all that belongs to it.
    #[expect(clippy::type_complexity, reason = "its only caller takes it apart")]
    fn packet(&mut self) -> Result<Option<(Head, Vec<u8>, Vec<RawFd>)>, ProtocolError> {
        if self.input.len() < 4 {
            return Ok(None);
        }
        let length = usize::try_from(word_at(&self.input, 0)).unwrap_or(usize::MAX);
        if !LENGTHS.contains(&length) {
            return Err(ProtocolError::Length(length));
        }
        if self.input.len() < length {
            return Ok(None);
        }
        let head = Head::read(&self.input);
        if head.kind > STREAM_HOLE.into() {
            return Err(ProtocolError::Kind(head.kind));
        }
        if head.status > CONTINUE.into() {
            return Err(ProtocolError::Status(head.status));
        }
        let (start, count) = match head.has_descriptors() {
            true if length < 32 => return Err(ProtocolError::Length(length)),
            true => (32, word_at(&self.input, 7)),
            false => (28, 0),
        };
        let descriptors = usize::try_from(count).unwrap_or(usize::MAX);
        if descriptors > DESCRIPTORS {
            return Err(ProtocolError::Descriptors(count));
        }
        // Each has a byte of its own behind the packet.
        if self.input.len() < length + descriptors {
            return Ok(None);
        }
        if self.descriptors.len() < descriptors {
            return Err(ProtocolError::DescriptorsMissing);
        }
        let payload = self.input[start..length].to_vec();
        self.input.drain(..length + descriptors);
        let descriptors = self.descriptors.drain(..descriptors).collect();
        Ok(Some((head, payload, descriptors)))
    }

    fn take(
        &mut self,
        head: &Head,
        payload: Vec<u8>,
        descriptors: Vec<RawFd>,
    ) -> Result<Option<Event>, ProtocolError> {
        let known =
            self.calls.get(&head.serial).copied().filter(|call| {
                (call.head.program, call.head.version) == (head.program, head.version)
            });
        // The packet has been looked at: both are small.
        let (kind, status) = (head.kind.to_be_bytes()[3], head.status.to_be_bytes()[3]);
        if matches!(kind, STREAM | STREAM_HOLE) {
            self.watch.flows();
        }
        match (kind, known) {
            (CALL | CALL_WITH_DESCRIPTORS, _) => Err(ProtocolError::Call),
            (MESSAGE, _) => Ok(self.message(head, payload)),
            (REPLY | REPLY_WITH_DESCRIPTORS, Some(call)) => {
                Ok(self.reply(call, status, payload, descriptors))
            }
            (STREAM, Some(call)) => Ok(self.stream(call, status, payload)),
            (_, Some(call)) => self.hole(call, &payload),
            (_, None) => Ok(self.ignore()),
        }
    }

    fn message(&mut self, head: &Head, payload: Vec<u8>) -> Option<Event> {
        if head.program != KEEPALIVE {
            return Some(Event::Message(head.program, head.procedure, payload));
        }
        if head.procedure == PING {
            self.send_keepalive(PONG);
        }
        None
    }

    fn reply(
        &mut self,
        call: Call,
        status: u8,
        payload: Vec<u8>,
        descriptors: Vec<RawFd>,
    ) -> Option<Event> {
        let serial = call.head.serial;
        match call.state {
            State::Waiting | State::Abandoned => {}
            // A hole is refused by a reply.
            _ if status == ERROR => return self.failed(call, payload),
            State::Streaming | State::Finishing | State::Aborting => return self.ignore(),
        }
        if status == ERROR {
            self.calls.remove(&serial);
            return Some(Event::ErrorReply(serial, payload));
        }
        if call.stream {
            self.set(serial, State::Streaming);
        } else {
            self.calls.remove(&serial);
        }
        if call.state == State::Abandoned {
            self.abort(serial);
        }
        Some(Event::Reply(serial, payload, descriptors))
    }

    fn stream(&mut self, call: Call, status: u8, payload: Vec<u8>) -> Option<Event> {
        let serial = call.head.serial;
        match (status, call.state) {
            (CONTINUE, _) if call.receives() => Some(Event::Data(serial, payload)),
            (CONTINUE, _) if call.drops() => None,
            (ERROR, _) => self.failed(call, payload),
            (OK, State::Streaming | State::Finishing | State::Aborting) => {
                self.calls.remove(&serial);
                Some(Event::Closed(serial))
            }
            _ => self.ignore(),
        }
    }

    /// The daemon has ended a stream with an error. Before the reply to its call, that goes on as one without a stream.
    fn failed(&mut self, call: Call, error: Vec<u8>) -> Option<Event> {
        let serial = call.head.serial;
        match call.state {
            State::Streaming | State::Finishing => {
                self.calls.remove(&serial);
            }
            State::Aborting => {
                self.calls.remove(&serial);
                return Some(Event::Closed(serial));
            }
            State::Waiting | State::Abandoned if call.stream => {
                if let Some(call) = self.calls.get_mut(&serial) {
                    call.stream = false;
                }
            }
            State::Waiting | State::Abandoned => return self.ignore(),
        }
        Some(Event::Failed(serial, error))
    }

    fn hole(&mut self, call: Call, payload: &[u8]) -> Result<Option<Event>, ProtocolError> {
        if call.drops() {
            return Ok(None);
        }
        if !call.receives() {
            return Ok(self.ignore());
        }
        match payload {
            [0..0x80, .., _, _, _, _] if payload.len() == 12 => {
                let length = u64::from(word_at(payload, 0)) << 32 | u64::from(word_at(payload, 1));
                Ok(Some(Event::Hole(call.head.serial, length)))
            }
            _ => Err(ProtocolError::Hole),
        }
    }

    fn ignore(&mut self) -> Option<Event> {
        self.ignored += 1;
        None
    }

    /// Queues a packet in an open stream.
    fn send(&mut self, serial: u32, kind: u8, status: u8, payload: &[u8]) -> bool {
        let call = self.calls.get(&serial);
        let Some(call) = call.filter(|call| call.state == State::Streaming) else {
            return false;
        };
        let head = Head {
            kind: kind.into(),
            status: status.into(),
            ..call.head
        };
        self.queue.push_back(Outgoing {
            packet: head.packet(0, payload),
            descriptors: Vec::new(),
        });
        true
    }

    /// Comes first, and once.
    fn send_keepalive(&mut self, procedure: i32) {
        let head = Head {
            program: KEEPALIVE,
            version: 1,
            procedure,
            kind: MESSAGE.into(),
            serial: 0,
            status: OK.into(),
        };
        let outgoing = Outgoing {
            packet: head.packet(0, &[]),
            descriptors: Vec::new(),
        };
        if !self.queue.contains(&outgoing) {
            self.queue.push_front(outgoing);
        }
    }

    fn state(&self, serial: u32) -> Option<State> {
        self.calls.get(&serial).map(|call| call.state)
    }

    fn set(&mut self, serial: u32, state: State) {
        if let Some(call) = self.calls.get_mut(&serial) {
            call.state = state;
        }
    }
}

// === impl Call ===

impl Call {
    /// Whether the daemon's data is for somebody: it may come before the reply.
    fn receives(self) -> bool {
        match self.state {
            State::Streaming | State::Finishing => true,
            State::Waiting => self.stream,
            State::Abandoned | State::Aborting => false,
        }
    }

    /// Whether the daemon's data was sent before it knew that nobody wants it.
    fn drops(self) -> bool {
        match self.state {
            State::Aborting => true,
            State::Abandoned => self.stream,
            State::Waiting | State::Streaming | State::Finishing => false,
        }
    }
}

// === impl Outgoing ===

impl Outgoing {
    pub(super) fn new(packet: &[u8], descriptors: &[OwnedFd]) -> Self {
        Self {
            packet: packet.to_vec(),
            descriptors: raw(descriptors),
        }
    }

    /// Whether it is this call.
    fn calls(&self, serial: u32) -> bool {
        let head = Head::read(&self.packet);
        head.serial == serial
            && [CALL, CALL_WITH_DESCRIPTORS]
                .map(u32::from)
                .contains(&head.kind)
    }

    /// Whether it belongs to this stream.
    fn streams(&self, serial: u32) -> bool {
        let head = Head::read(&self.packet);
        head.serial == serial && [STREAM, STREAM_HOLE].map(u32::from).contains(&head.kind)
    }
}

// === impl Event ===

impl From<&Seen> for Event {
    fn from(seen: &Seen) -> Self {
        match seen {
            Seen::Reply { serial, reply } => match reply {
                Ok((payload, descriptors)) => {
                    Self::Reply(*serial, payload.to_vec(), raw(descriptors))
                }
                Err(payload) => Self::ErrorReply(*serial, payload.to_vec()),
            },
            Seen::Message(message) => {
                Self::Message(message.program, message.procedure, message.payload.to_vec())
            }
            Seen::Data { serial, bytes } => Self::Data(*serial, bytes.to_vec()),
            Seen::Hole { serial, length } => Self::Hole(*serial, *length),
            Seen::StreamClosed { serial } => Self::Closed(*serial),
            Seen::StreamFailed { serial, error } => Self::Failed(*serial, error.to_vec()),
        }
    }
}

/// Which descriptors they are.
pub(super) fn raw(descriptors: &[OwnedFd]) -> Vec<RawFd> {
    descriptors.iter().map(AsRawFd::as_raw_fd).collect()
}
