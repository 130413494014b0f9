//! The input as a story: one step after the other, each a byte that says what happens and a few that say how.
//!
//! ```text
//! ┌─────────┬──────────┬──────────────┐
//! │ deliver │ transmit │ what happens │   1, 1 and 6 bits: whether all that is under way arrives, and
//! └─────────┴──────────┴──────────────┘   whether all that waits leaves, right after it
//! ```
//!
//! Most steps are what an honest daemon and client do, with a call that is open: chance alone would rarely come that
//! far. The others are bytes of any kind.

use super::wire::{
    CONTINUE, ERROR, MESSAGE, OK, REPLY, REPLY_WITH_DESCRIPTORS, STREAM, STREAM_HOLE,
};

/// Something that happens.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step<'a> {
    /// We call.
    Call(Sort),
    /// We don't want the reply any more.
    Abandon(Who),
    /// We send so many bytes in a stream.
    SendData(Who, usize),
    /// We send a hole in a stream.
    SendHole(Who, i64),
    /// We end a stream.
    Finish(Who),
    /// We break a stream off.
    Abort(Who),
    /// So many packets leave.
    Transmit(usize),
    /// So many seconds later.
    Later(u8),
    /// The daemon has agreed to keepalive.
    EnableKeepalive,
    /// We stop reading.
    Pause,
    /// We read again.
    Resume,
    /// The daemon writes a packet.
    Packet(Packet),
    /// The daemon writes bytes.
    Write(&'a [u8]),
    /// So many descriptors come that belong to no packet.
    Stray(u8),
    /// So many of the bytes that the daemon has written arrive.
    Deliver(usize),
}

/// What a call is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// A call and a reply.
    Plain,
    /// A stream follows the reply.
    Stream,
    /// So many descriptors go with the call.
    Descriptors(u8),
}

/// The call that a step is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Who {
    /// One of those that are open, counted round and round.
    Open(u8),
    /// The one with this serial, open or not.
    Serial(u8),
}

/// A packet of the daemon's, with kind and status as they are on the wire, known or not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet {
    pub(super) kind: u8,
    pub(super) status: u8,
    pub(super) to: Who,
    pub(super) program: Program,
    pub(super) payload: Payload,
    /// How many descriptors it announces, if its kind has them.
    pub(super) announced: u8,
    /// How many come with it.
    pub(super) carried: u8,
    /// How much its length word is off.
    pub(super) off: i8,
}

/// What program a packet is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    /// The call's.
    Same,
    /// With the procedure.
    Keepalive(u8),
    Other,
    OtherVersion,
}

/// What a packet carries.
#[derive(Debug, Clone, Copy)]
pub(super) enum Payload {
    /// So many bytes of a pattern.
    Bytes(usize),
    /// The length of a hole.
    Hole(i64),
}

/// The most bytes of one payload.
pub(super) const LENGTH_MAX: usize = 16 << 10;

/// How each story begins: call 1 waits, 2 is abandoned, 3 is an open stream and 4 one that is not open yet, 5 one that
/// is abandoned, 6 was taken back before it was sent, and 7 is not sent yet.
pub(super) const PROLOGUE: &[Step<'static>] = &[
    Step::Call(Sort::Plain),
    Step::Call(Sort::Plain),
    Step::Call(Sort::Stream),
    Step::Call(Sort::Stream),
    Step::Call(Sort::Stream),
    Step::Transmit(5),
    Step::Abandon(Who::Serial(2)),
    Step::Packet(Packet::new(REPLY, OK, Who::Serial(3), Payload::Bytes(0))),
    Step::Deliver(usize::MAX),
    Step::Abandon(Who::Serial(5)),
    Step::Call(Sort::Plain),
    Step::Abandon(Who::Serial(6)),
    Step::Call(Sort::Descriptors(2)),
];

/// Reads steps off the input, to its end.
pub(super) struct Story<'a> {
    rest: &'a [u8],
    /// What follows the last step.
    deliver: bool,
    transmit: bool,
}

// === impl Packet ===

impl Packet {
    /// A packet that is what it claims to be, of the call's own program.
    const fn new(kind: u8, status: u8, to: Who, payload: Payload) -> Self {
        Self {
            kind,
            status,
            to,
            program: Program::Same,
            payload,
            announced: 0,
            carried: 0,
            off: 0,
        }
    }
}

// === impl Story ===

impl<'a> Story<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        Self {
            rest: input,
            deliver: false,
            transmit: false,
        }
    }

    /// The next byte; zeros follow the last.
    fn byte(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((byte, rest)) => {
                self.rest = rest;
                *byte
            }
            None => 0,
        }
    }

    fn who(&mut self) -> Who {
        match self.byte() {
            which @ ..0x80 => Who::Open(which),
            serial => Who::Serial(serial & 0x1f),
        }
    }

    /// A length: small ones byte by byte, and some up to [`LENGTH_MAX`].
    fn length(&mut self) -> usize {
        match self.byte() {
            short @ ..0xf0 => short.into(),
            long => usize::from(long - 0xef) << 10,
        }
    }

    /// The length of a hole; negative ones are none.
    fn hole(&mut self) -> i64 {
        i64::from(self.byte().cast_signed()) << 48
    }

    /// A byte with so many bytes behind it, or those that are left.
    fn bytes(&mut self) -> &'a [u8] {
        let count = usize::from(self.byte());
        let (bytes, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        bytes
    }

    /// A packet of the daemon's.
    fn packet(&mut self, kind: u8, status: u8) -> Step<'a> {
        let to = self.who();
        let payload = Payload::Bytes(self.length());
        Step::Packet(Packet::new(kind, status, to, payload))
    }

    /// One that has no payload.
    fn bare(&mut self, kind: u8, status: u8) -> Step<'a> {
        let to = self.who();
        Step::Packet(Packet::new(kind, status, to, Payload::Bytes(0)))
    }

    /// Descriptors as an honest daemon sends them, sometimes too many.
    fn with_descriptors(&mut self) -> Step<'a> {
        let to = self.who();
        let count = self.byte() % 34;
        Step::Packet(Packet {
            announced: count,
            carried: count,
            ..Packet::new(REPLY_WITH_DESCRIPTORS, OK, to, Payload::Bytes(7))
        })
    }

    /// A packet of which anything can be wrong.
    fn odd(&mut self) -> Step<'a> {
        let what = self.byte();
        let how = self.byte();
        let to = self.who();
        let payload = Payload::Bytes(self.length());
        Step::Packet(Packet {
            program: match how & 7 {
                0..=3 => Program::Same,
                4 | 5 => Program::Other,
                6 => Program::OtherVersion,
                _ => Program::Keepalive(1),
            },
            announced: self.byte() % 40,
            carried: how >> 3,
            off: self.byte().cast_signed(),
            ..Packet::new(what & 0x0f, what >> 4, to, payload)
        })
    }

    fn step(&mut self, what: u8) -> Step<'a> {
        match what % 28 {
            0 => Step::Call(Sort::Plain),
            1 => Step::Call(Sort::Stream),
            2 => Step::Call(Sort::Descriptors(1 + self.byte() % 32)),
            3 => Step::Abandon(self.who()),
            4 => Step::SendData(self.who(), self.length()),
            5 => Step::SendHole(self.who(), self.hole()),
            6 => Step::Finish(self.who()),
            7 => Step::Abort(self.who()),
            8 => Step::Transmit(self.byte().into()),
            9 => Step::Later(self.byte()),
            10 => Step::EnableKeepalive,
            11 => Step::Pause,
            12 => Step::Resume,
            13 => self.packet(REPLY, OK),
            14 => self.packet(REPLY, ERROR),
            15 => self.with_descriptors(),
            16 => self.packet(STREAM, CONTINUE),
            // The daemon has no more data.
            17 => self.bare(STREAM, CONTINUE),
            18 => self.bare(STREAM, OK),
            19 => self.packet(STREAM, ERROR),
            20 => {
                let to = self.who();
                let payload = Payload::Hole(self.hole());
                Step::Packet(Packet::new(STREAM_HOLE, CONTINUE, to, payload))
            }
            // Events have the serial 1.
            21 => {
                let payload = Payload::Bytes(self.length());
                Step::Packet(Packet::new(MESSAGE, OK, Who::Serial(1), payload))
            }
            // Ping, pong, and one that keepalive does not know.
            22 => Step::Packet(Packet {
                program: Program::Keepalive(1 + self.byte() % 3),
                ..Packet::new(MESSAGE, OK, Who::Serial(0), Payload::Bytes(0))
            }),
            23 => self.odd(),
            24 => Step::Write(self.bytes()),
            25 => Step::Stray(self.byte()),
            26 => Step::Deliver(self.byte().into()),
            _ => Step::Deliver(usize::MAX),
        }
    }
}

impl<'a> Iterator for Story<'a> {
    type Item = Step<'a>;

    fn next(&mut self) -> Option<Step<'a>> {
        if std::mem::take(&mut self.deliver) {
            return Some(Step::Deliver(usize::MAX));
        }
        if std::mem::take(&mut self.transmit) {
            return Some(Step::Transmit(usize::MAX));
        }
        if self.rest.is_empty() {
            return None;
        }
        let what = self.byte();
        self.deliver = what & 0x80 != 0;
        self.transmit = what & 0x40 != 0;
        Some(self.step(what & 0x3f))
    }
}
