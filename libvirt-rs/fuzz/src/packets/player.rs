//! Plays a story on a connection and on the model, and compares them at each step.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use libvirt::raw::{qemu, remote};
use libvirt::rpc::fuzzing::Core;
use libvirt::rpc::{KeepaliveConfig, Procedure};

use super::model::{Event, Model, Outgoing, raw};
use super::story::{LENGTH_MAX, Packet, Payload, Program, Sort, Step, Who};
use super::wire::{Head, KEEPALIVE, hole};

/// A connection, the model beside it, and what is under way.
#[derive(Debug)]
pub(super) struct Player {
    core: Core,
    model: Model,
    now: Instant,
    wire: Wire,
    /// How many bytes arrive at a time.
    piece: usize,
    /// How many descriptors the story may still use.
    descriptors: usize,
    outcome: Outcome,
}

/// What has happened.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Outcome {
    /// What ended the connection.
    error: Option<String>,
    /// What the daemon has brought that was for somebody.
    events: u64,
    /// Packets that the connection has dropped.
    ignored: u64,
    /// Bytes that were written on both sides.
    pub(super) moved: usize,
    pub(super) steps: usize,
}

/// What the daemon has written and has not arrived.
#[derive(Debug, Default)]
struct Wire {
    bytes: Vec<u8>,
    /// How many of them have arrived.
    arrived: usize,
    /// Descriptors, and how many bytes come before the byte that each comes with.
    descriptors: VecDeque<(usize, OwnedFd)>,
}

/// Of one story: below what a process may have, and for speed.
const DESCRIPTORS: usize = 128;

/// What data consists of; no byte of it is like one nearby.
static PATTERN: [u8; LENGTH_MAX + PERIOD] = {
    let mut pattern = [0; LENGTH_MAX + PERIOD];
    let mut at = 0;
    while at + 1 < pattern.len() {
        at += 1;
        pattern[at] = (pattern[at - 1] + 1) % 251;
    }
    pattern
};
const PERIOD: usize = 251;

/// In how many pieces a delivery arrives at most: more would only be slow.
const PIECES: usize = 256;

// === impl Player ===

impl Player {
    /// With bytes that arrive in pieces of so many.
    pub(super) fn new(now: Instant, piece: usize) -> Self {
        let keepalive = KeepaliveConfig::default();
        Self {
            core: Core::new(keepalive),
            model: Model::new(keepalive),
            now,
            wire: Wire::default(),
            piece,
            descriptors: DESCRIPTORS,
            outcome: Outcome::default(),
        }
    }

    /// Plays some steps, or those before the connection ends.
    pub(super) fn play<'a>(&mut self, steps: impl IntoIterator<Item = Step<'a>>) {
        for step in steps {
            if self.outcome.error.is_some() {
                return;
            }
            self.outcome.steps += 1;
            self.step(step);
        }
    }

    /// Everything arrives and leaves that still can.
    pub(super) fn end(mut self) -> Outcome {
        self.play([Step::Deliver(usize::MAX), Step::Transmit(usize::MAX)]);
        self.outcome.ignored = self.core.ignored();
        self.outcome
    }

    fn step(&mut self, step: Step<'_>) {
        match step {
            Step::Call(sort) => self.call(sort),
            Step::Abandon(who) => {
                let serial = self.serial(who);
                let unsent = self.core.abandon(serial);
                assert_eq!(unsent, self.model.abandon(serial), "{serial} is taken back");
            }
            Step::SendData(who, length) => {
                let serial = self.serial(who);
                let data = self.pattern(length);
                let done = self.core.send_data(serial, data);
                assert_eq!(done, self.model.send_data(serial, data), "data of {serial}");
            }
            Step::SendHole(who, length) => {
                let serial = self.serial(who);
                let done = self.core.send_hole(serial, length);
                assert_eq!(
                    done,
                    self.model.send_hole(serial, length),
                    "hole of {serial}"
                );
            }
            Step::Finish(who) => {
                let serial = self.serial(who);
                let done = self.core.finish_stream(serial);
                assert_eq!(done, self.model.finish(serial), "end of {serial}");
            }
            Step::Abort(who) => {
                let serial = self.serial(who);
                self.core.abort_stream(serial);
                self.model.abort(serial);
            }
            Step::Transmit(count) => self.transmit(count),
            Step::Later(seconds) => self.later(seconds),
            Step::EnableKeepalive => {
                self.core.enable_keepalive(self.now);
                self.model.enable_keepalive(self.now);
            }
            Step::Pause => {
                self.core.pause(self.now);
                self.model.pause(self.now);
            }
            Step::Resume => {
                self.core.resume(self.now);
                self.model.resume(self.now);
            }
            Step::Packet(packet) => self.write(&packet),
            Step::Write(bytes) => {
                self.outcome.moved += bytes.len();
                self.wire.write(bytes, Vec::new());
            }
            Step::Stray(count) => {
                for descriptor in self.descriptors(count) {
                    self.descriptor(descriptor);
                }
            }
            Step::Deliver(count) => self.deliver(count),
        }
        self.compare();
    }

    /// What both say of themselves at any time.
    fn compare(&self) {
        assert_eq!(self.core.unfinished(), self.model.unfinished());
        assert_eq!(self.core.ignored(), self.model.ignored());
        if self.outcome.error.is_none() {
            assert_eq!(self.core.timeout(), self.model.timeout());
        }
    }

    fn serial(&self, who: Who) -> u32 {
        let mut open = self.model.open();
        match who {
            Who::Open(which) if open.len() > 0 => open
                .nth(usize::from(which) % open.len())
                .unwrap_or_default(),
            Who::Open(serial) | Who::Serial(serial) => serial.into(),
        }
    }

    fn call(&mut self, sort: Sort) {
        let (procedure, descriptors): (&Procedure, u8) = match sort {
            Sort::Plain => (&remote::CONNECT_GET_URI, 0),
            Sort::Stream => (&remote::DOMAIN_OPEN_CHANNEL, 0),
            Sort::Descriptors(count) => (&qemu::DOMAIN_MONITOR_COMMAND_WITH_FILES, count),
        };
        let descriptors = self.descriptors(descriptors);
        let argument = self.pattern(8);
        let expected = self.model.call(procedure, argument, raw(&descriptors));
        let serial = self.core.call(procedure, argument, descriptors);
        assert_eq!(serial, expected, "a call's serial");
    }

    /// So many descriptors, or those that the story may still use.
    fn descriptors(&mut self, count: u8) -> Vec<OwnedFd> {
        let count = usize::from(count).min(self.descriptors);
        self.descriptors -= count;
        (0..count).map(|_| descriptor()).collect()
    }

    /// So many bytes, which are not those of another place.
    fn pattern(&mut self, length: usize) -> &'static [u8] {
        self.outcome.moved += length;
        &PATTERN[self.outcome.moved % PERIOD..][..length]
    }

    fn transmit(&mut self, count: usize) {
        for _ in 0..count {
            let sent = self.core.poll_transmit();
            let sent = sent.map(|(packet, descriptors)| Outgoing::new(&packet, &descriptors));
            let expected = self.model.transmit();
            assert_eq!(sent, expected, "what leaves");
            if sent.is_none() {
                return;
            }
        }
    }

    fn later(&mut self, seconds: u8) {
        self.now += Duration::from_secs(seconds.into());
        // All that is due by then, one thing after the other.
        while self.outcome.error.is_none() && self.core.timeout().is_some_and(|at| at <= self.now) {
            let error = self.core.handle_timeout(self.now).err();
            let error = error.map(|error| error.to_string());
            let expected = self.model.later(self.now).err();
            assert_eq!(error, expected.map(|error| error.to_string()));
            self.end_with(error);
            self.compare();
        }
    }

    /// Writes a packet as a daemon would, but for what the story wants.
    fn write(&mut self, packet: &Packet) {
        let serial = self.serial(packet.to);
        let plain = &remote::CONNECT_GET_URI;
        let other = &qemu::DOMAIN_MONITOR_COMMAND_WITH_FILES;
        let call = self.model.head(serial);
        let call = call.map_or((plain.program, plain.version, plain.number), |head| {
            (head.program, head.version, head.procedure)
        });
        let (program, version, procedure) = match packet.program {
            Program::Same => call,
            Program::Keepalive(procedure) => (KEEPALIVE, 1, procedure.into()),
            Program::Other if call.0 == other.program => (plain.program, plain.version, 1),
            Program::Other => (other.program, other.version, 1),
            Program::OtherVersion => (call.0, call.1 + 1, call.2),
        };
        let head = Head {
            program,
            version,
            procedure,
            kind: packet.kind.into(),
            serial,
            status: packet.status.into(),
        };
        let payload = match packet.payload {
            Payload::Bytes(length) => self.pattern(length),
            Payload::Hole(length) => &hole(length),
        };
        let mut bytes = head.packet(packet.announced.into(), payload);
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let length = length.wrapping_add_signed(packet.off.into());
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        self.outcome.moved += bytes.len();
        let descriptors = self.descriptors(packet.carried);
        self.wire.write(&bytes, descriptors);
    }

    fn deliver(&mut self, count: usize) {
        let mut left = count.min(self.wire.left());
        let piece = self.piece.max(left / PIECES);
        while left > 0 && self.outcome.error.is_none() {
            let (bytes, descriptor) = self.wire.read(left.min(piece));
            left -= bytes.len();
            self.model.arrive(bytes);
            self.core.receive(bytes);
            if let Some(descriptor) = descriptor {
                self.descriptor(descriptor);
            }
            self.handle();
        }
    }

    fn descriptor(&mut self, descriptor: OwnedFd) {
        let expected = self.model.descriptor(descriptor.as_raw_fd());
        let taken = self.core.handle_descriptor(descriptor);
        assert_eq!(taken, expected, "a descriptor comes");
        self.end_with(taken.err().map(|error| error.to_string()));
    }

    fn handle(&mut self) {
        while self.outcome.error.is_none() {
            let seen = self.core.handle_input(self.now);
            let event = match &seen {
                Ok(seen) => Ok(seen.as_ref().map(Event::from)),
                Err(error) => Err(error.clone()),
            };
            assert_eq!(event, self.model.next(self.now), "what a packet brings");
            self.compare();
            match seen {
                Ok(Some(_)) => self.outcome.events += 1,
                Ok(None) => return,
                Err(error) => self.end_with(Some(error.to_string())),
            }
        }
    }

    /// The connection is over, as it is for the driver: nothing is asked of it any more.
    fn end_with(&mut self, error: Option<String>) {
        self.outcome.error = self.outcome.error.take().or(error);
    }
}

// === impl Wire ===

impl Wire {
    /// Bytes, and the descriptors behind them, each with a byte of its own.
    fn write(&mut self, bytes: &[u8], descriptors: Vec<OwnedFd>) {
        self.bytes.extend_from_slice(bytes);
        for descriptor in descriptors {
            self.descriptors.push_back((self.bytes.len(), descriptor));
            self.bytes.push(0);
        }
    }

    /// How many bytes have not arrived.
    fn left(&self) -> usize {
        self.bytes.len() - self.arrived
    }

    /// What one read gives: so many bytes, or one with its descriptor.
    fn read(&mut self, count: usize) -> (&[u8], Option<OwnedFd>) {
        let start = self.arrived;
        let before = self.descriptors.front().map(|(at, _)| at - start);
        let (count, descriptor) = match before {
            Some(0) => (1, self.descriptors.pop_front()),
            Some(before) => (count.min(before), None),
            None => (count, None),
        };
        self.arrived += count;
        let bytes = &self.bytes[start..self.arrived];
        (bytes, descriptor.map(|(_, descriptor)| descriptor))
    }
}

// === impl Outcome ===

impl Outcome {
    /// Whether nothing has ended the connection.
    pub(super) fn survived(&self) -> bool {
        self.error.is_none()
    }
}

/// One more descriptor of the file that loses everything.
fn descriptor() -> OwnedFd {
    static NOTHING: OnceLock<File> = OnceLock::new();
    #[expect(clippy::expect_used, reason = "without it there is no target")]
    let nothing = NOTHING.get_or_init(|| File::open("/dev/null").expect("/dev/null can be opened"));
    #[expect(clippy::expect_used, reason = "a story has few descriptors at a time")]
    let descriptor = nothing.try_clone().expect("a descriptor is free");
    descriptor.into()
}
