//! Plays a story on a connection, and notes what happens.

use std::collections::VecDeque;
use std::collections::hash_map::DefaultHasher;
use std::fs::File;
use std::hash::Hasher as _;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use libvirt::raw::{qemu, remote};
use libvirt::rpc::fuzzing::{Core, Seen};
use libvirt::rpc::{KeepaliveConfig, Procedure};

use super::model::{KEEPALIVE, Model};
use super::story::{Packet, Program, Sort, Step};

/// A connection, the model beside it, and the bytes that are under way.
#[derive(Debug)]
pub(super) struct Player {
    core: Core,
    model: Model,
    now: Instant,
    /// What the daemon has written and has not arrived.
    wire: VecDeque<u8>,
    /// How many bytes arrive at a time.
    piece: usize,
    /// How many descriptors the story may still use.
    descriptors: usize,
    outcome: Outcome,
}

/// What has happened.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Outcome {
    notes: Vec<Note>,
    /// What ended the connection.
    error: Option<String>,
    /// Packets that the connection has dropped.
    ignored: u64,
    /// The bytes that have arrived.
    pub(super) received: usize,
    /// The bytes that have left.
    pub(super) sent: usize,
}

/// The descriptors of one story: more than a connection lets wait, and few enough for a process and for speed.
const DESCRIPTORS: usize = 128;

/// Something that has happened, with a hash for what it was about.
#[derive(Debug, PartialEq)]
enum Note {
    Sent(u64),
    Replied(u32, bool, usize, u64),
    Told(u64),
    Data(u32, usize, u64),
    Hole(u32, u64),
    Closed(u32),
    Failed(u32, u64),
}

// === impl Player ===

impl Player {
    /// With bytes that arrive in pieces of at most so many.
    pub(super) fn new(now: Instant, piece: usize) -> Self {
        Self {
            core: Core::new(KeepaliveConfig::default()),
            model: Model::default(),
            now,
            wire: VecDeque::new(),
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
            self.step(step);
            assert_eq!(self.core.unfinished(), self.model.unfinished());
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
            Step::Abandon(serial) => {
                let unsent = self.core.abandon(serial);
                self.model.abandoned(serial, unsent);
            }
            Step::SendData(serial, length) => {
                let done = self.core.send_data(serial, &[0x5a; 0xff][..length.into()]);
                self.model.sent_in_stream(serial, done);
            }
            Step::SendHole(serial, length) => {
                let done = self.core.send_hole(serial, length);
                self.model.sent_in_stream(serial, done);
            }
            Step::Finish(serial) => {
                let done = self.core.finish_stream(serial);
                self.model.finished(serial, done);
            }
            Step::Abort(serial) => {
                self.core.abort_stream(serial);
                self.model.aborted(serial);
            }
            Step::Transmit(count) => self.transmit(count),
            Step::Write(bytes) => self.wire.extend(bytes),
            Step::Packet(packet) => self.write(&packet),
            Step::Descriptors(count) => {
                for descriptor in self.descriptors(count) {
                    if let Err(error) = self.core.handle_descriptor(descriptor) {
                        return self.fail(&error);
                    }
                }
            }
            Step::Deliver(count) => self.deliver(count),
            Step::Later(seconds) => {
                self.now += Duration::from_secs(seconds.into());
                if let Err(error) = self.core.handle_timeout(self.now) {
                    self.fail(&error);
                }
            }
            Step::EnableKeepalive => self.core.enable_keepalive(self.now),
            Step::Pause => self.core.pause(self.now),
            Step::Resume => self.core.resume(self.now),
        }
    }

    fn call(&mut self, sort: Sort) {
        let (procedure, descriptors): (&Procedure, u8) = match sort {
            Sort::Plain => (&remote::CONNECT_GET_URI, 0),
            Sort::Stream => (&remote::DOMAIN_OPEN_CHANNEL, 0),
            Sort::Descriptors(count) => (&qemu::DOMAIN_MONITOR_COMMAND_WITH_FILES, count),
        };
        let descriptors = self.descriptors(descriptors);
        let count = descriptors.len();
        let serial = self.core.call(procedure, b"argument", descriptors);
        self.model.called(serial, sort == Sort::Stream, count);
    }

    /// So many descriptors, or those that the story may still use.
    fn descriptors(&mut self, count: u8) -> Vec<OwnedFd> {
        let count = usize::from(count).min(self.descriptors);
        self.descriptors -= count;
        (0..count).map(|_| descriptor()).collect()
    }

    fn transmit(&mut self, count: usize) {
        for _ in 0..count {
            let Some((packet, descriptors)) = self.core.poll_transmit() else {
                return;
            };
            self.model.transmitted(&packet, descriptors.len());
            self.outcome.sent += packet.len();
            self.outcome.notes.push(Note::Sent(hash(&packet)));
        }
    }

    /// Writes a packet as a daemon would, but for what the story wants.
    fn write(&mut self, packet: &Packet<'_>) {
        let plain = &remote::CONNECT_GET_URI;
        let (program, version) = match packet.program {
            Program::Remote => (plain.program, plain.version),
            Program::Keepalive => (KEEPALIVE, 1),
            Program::Other => (qemu::DOMAIN_MONITOR_COMMAND_WITH_FILES.program, 1),
            Program::OtherVersion => (plain.program, plain.version + 1),
        };
        let with_descriptors = matches!(packet.kind, 4 | 5);
        let words = [
            program,
            version,
            // Ping, pong, and one that keepalive does not know.
            u32::from(packet.descriptors % 3),
            packet.kind.into(),
            packet.serial.into(),
            packet.status.into(),
        ];
        let count = with_descriptors.then_some(u32::from(packet.descriptors));
        let words: Vec<u32> = words.into_iter().chain(count).collect();
        // At most eight words and 255 bytes.
        let length = u32::try_from(4 + 4 * words.len() + packet.payload.len()).unwrap_or(u32::MAX);
        let head = [length].into_iter().chain(words);
        self.wire.extend(head.flat_map(u32::to_be_bytes));
        self.wire.extend(packet.payload);
        if with_descriptors {
            self.wire
                .extend(std::iter::repeat_n(0, packet.descriptors.into()));
        }
    }

    fn deliver(&mut self, count: usize) {
        let mut left = count.min(self.wire.len());
        while left > 0 && self.outcome.error.is_none() {
            let now = left.min(self.piece);
            let bytes: Vec<u8> = self.wire.drain(..now).collect();
            left -= now;
            self.outcome.received += now;
            self.core.receive(&bytes);
            self.handle();
        }
    }

    fn handle(&mut self) {
        loop {
            match self.core.handle_input(self.now) {
                Ok(Some(seen)) => {
                    self.model.seen(&seen);
                    self.outcome.notes.push(Note::new(&seen));
                }
                Ok(None) => return,
                Err(error) => return self.fail(&error),
            }
            assert_eq!(self.core.unfinished(), self.model.unfinished());
        }
    }

    /// The connection is over, as it is for the driver: nothing is asked of it any more.
    fn fail(&mut self, error: &dyn std::error::Error) {
        // How much of what came was looked at depends on the cuts.
        self.outcome.received += self.wire.len();
        self.wire.clear();
        self.outcome.error = Some(error.to_string());
    }
}

// === impl Outcome ===

impl Outcome {
    /// Whether nothing has ended the connection.
    pub(super) fn survived(&self) -> bool {
        self.error.is_none()
    }
}

// === impl Note ===

impl Note {
    fn new(seen: &Seen) -> Self {
        match seen {
            Seen::Reply { serial, reply } => {
                let payload = match reply {
                    Ok((payload, _)) | Err(payload) => hash(payload),
                };
                let descriptors = reply
                    .as_ref()
                    .map_or(0, |(_, descriptors)| descriptors.len());
                Self::Replied(*serial, reply.is_ok(), descriptors, payload)
            }
            Seen::Message(message) => Self::Told(hash(&(
                message.program,
                message.procedure,
                &message.payload,
            ))),
            Seen::Data { serial, bytes } => Self::Data(*serial, bytes.len(), hash(bytes)),
            Seen::Hole { serial, length } => Self::Hole(*serial, *length),
            Seen::StreamClosed { serial } => Self::Closed(*serial),
            Seen::StreamFailed { serial, error } => Self::Failed(*serial, hash(error)),
        }
    }
}

fn hash(of: &impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
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
