//! The input as a story: one step after the other, each a byte that says what happens and a few that say how.

/// Something that happens.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step<'a> {
    /// We call.
    Call(Sort),
    /// We don't want the reply any more.
    Abandon(u32),
    /// We send so many bytes in a stream.
    SendData(u32, u8),
    /// We send a hole in a stream.
    SendHole(u32, i64),
    /// We end a stream.
    Finish(u32),
    /// We break a stream off.
    Abort(u32),
    /// So many packets leave.
    Transmit(usize),
    /// The daemon writes bytes.
    Write(&'a [u8]),
    /// The daemon writes a packet whose lengths are right.
    Packet(Packet<'a>),
    /// The daemon sends so many descriptors.
    Descriptors(u8),
    /// So many of the bytes that the daemon has written arrive.
    Deliver(usize),
    /// So many seconds later.
    Later(u8),
    /// The daemon has agreed to keepalive.
    EnableKeepalive,
    /// We stop reading.
    Pause,
    /// We read again.
    Resume,
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

/// A packet, with kind and status as they are on the wire, known or not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet<'a> {
    pub(super) kind: u8,
    pub(super) status: u8,
    pub(super) serial: u8,
    pub(super) program: Program,
    /// How many descriptors it announces; their carrier bytes follow it.
    pub(super) descriptors: u8,
    pub(super) payload: &'a [u8],
}

/// What program a packet is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    Remote,
    Keepalive,
    Other,
    OtherVersion,
}

const REPLY: u8 = 1;
const OK: u8 = 0;

/// How each story begins: call 1 waits, 2 is abandoned, 3 is an open stream and 4 one that is not open yet, 5 one that
/// is abandoned, 6 was taken back before it was sent, and 7 is not sent yet.
pub(super) const PROLOGUE: &[Step<'static>] = &[
    Step::Call(Sort::Plain),
    Step::Call(Sort::Plain),
    Step::Call(Sort::Stream),
    Step::Call(Sort::Stream),
    Step::Call(Sort::Stream),
    Step::Transmit(5),
    Step::Abandon(2),
    Step::Packet(Packet {
        kind: REPLY,
        status: OK,
        serial: 3,
        program: Program::Remote,
        descriptors: 0,
        payload: &[],
    }),
    Step::Deliver(usize::MAX),
    Step::Abandon(5),
    Step::Call(Sort::Plain),
    Step::Abandon(6),
    Step::Call(Sort::Descriptors(2)),
];

/// Reads steps off the input, to its end.
pub(super) struct Story<'a> {
    rest: &'a [u8],
}

// === impl Story ===

impl<'a> Story<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    fn serial(&mut self) -> Option<u32> {
        self.byte().map(u32::from)
    }

    /// So many bytes, or those that are left.
    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (bytes, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        bytes
    }

    fn packet(&mut self) -> Option<Packet<'a>> {
        let what = self.byte()?;
        let serial = self.byte()?;
        let how = self.byte()?;
        let length = self.byte()?;
        Some(Packet {
            kind: what & 0x0f,
            status: what >> 4,
            serial,
            program: match how & 3 {
                0 => Program::Remote,
                1 => Program::Keepalive,
                2 => Program::Other,
                _ => Program::OtherVersion,
            },
            descriptors: how >> 2,
            payload: self.bytes(length.into()),
        })
    }
}

impl<'a> Iterator for Story<'a> {
    type Item = Step<'a>;

    fn next(&mut self) -> Option<Step<'a>> {
        Some(match self.byte()? & 0x0f {
            0 => {
                let length = usize::from(self.byte()?);
                Step::Write(self.bytes(length))
            }
            1 => {
                let length = usize::from(self.byte()?) << 8 | usize::from(self.byte()?);
                Step::Write(self.bytes(length))
            }
            2 => Step::Packet(self.packet()?),
            3 => Step::Deliver(usize::MAX),
            4 => Step::Deliver(self.byte()?.into()),
            5 => Step::Call(match self.byte()? {
                0 => Sort::Plain,
                1 => Sort::Stream,
                count => Sort::Descriptors(count),
            }),
            6 => Step::Abandon(self.serial()?),
            7 => Step::SendData(self.serial()?, self.byte()?),
            8 => Step::SendHole(self.serial()?, i64::from(self.byte()?) << 55),
            9 => Step::Finish(self.serial()?),
            10 => Step::Abort(self.serial()?),
            11 => Step::Descriptors(self.byte()?),
            12 => Step::Transmit(self.byte()?.into()),
            13 => Step::Later(self.byte()?),
            14 => Step::Transmit(usize::MAX),
            _ => match self.byte()? % 3 {
                0 => Step::EnableKeepalive,
                1 => Step::Pause,
                _ => Step::Resume,
            },
        })
    }
}
