//! The wire as it was observed, apart from the library's own tables: what both sides of a story are held against.

/// Keepalive's program.
pub(super) const KEEPALIVE: u32 = 0x6b65_6570;
pub(super) const PING: i32 = 1;
pub(super) const PONG: i32 = 2;

pub(super) const CALL: u8 = 0;
pub(super) const REPLY: u8 = 1;
pub(super) const MESSAGE: u8 = 2;
pub(super) const STREAM: u8 = 3;
pub(super) const CALL_WITH_DESCRIPTORS: u8 = 4;
pub(super) const REPLY_WITH_DESCRIPTORS: u8 = 5;
pub(super) const STREAM_HOLE: u8 = 6;

pub(super) const OK: u8 = 0;
pub(super) const ERROR: u8 = 1;
pub(super) const CONTINUE: u8 = 2;

/// What a length word can say.
pub(super) const LENGTHS: std::ops::RangeInclusive<usize> = 28..=33_554_436;
/// Descriptors of one packet.
pub(super) const DESCRIPTORS: usize = 32;
/// Descriptors that may be there before their packet: those of two.
pub(super) const DESCRIPTORS_AHEAD: usize = 64;

/// A packet's head behind the length word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) program: u32,
    pub(super) version: u32,
    pub(super) procedure: i32,
    pub(super) kind: u32,
    pub(super) serial: u32,
    pub(super) status: u32,
}

// === impl Head ===

impl Head {
    /// The packet, with the number of descriptors if its kind has one.
    pub(super) fn packet(&self, descriptors: usize, payload: &[u8]) -> Vec<u8> {
        let mut words = vec![
            0,
            self.program,
            self.version,
            self.procedure.cast_unsigned(),
            self.kind,
            self.serial,
            self.status,
        ];
        if self.has_descriptors() {
            words.push(word(descriptors));
        }
        words[0] = word(4 * words.len() + payload.len());
        let mut packet = Vec::with_capacity(4 * words.len() + payload.len());
        packet.extend(words.into_iter().flat_map(u32::to_be_bytes));
        packet.extend_from_slice(payload);
        packet
    }

    pub(super) fn has_descriptors(&self) -> bool {
        [CALL_WITH_DESCRIPTORS, REPLY_WITH_DESCRIPTORS]
            .map(u32::from)
            .contains(&self.kind)
    }

    /// The head of the packet that `bytes` begin with.
    pub(super) fn read(bytes: &[u8]) -> Self {
        let at = |index: usize| word_at(bytes, index);
        Self {
            program: at(1),
            version: at(2),
            procedure: at(3).cast_signed(),
            kind: at(4),
            serial: at(5),
            status: at(6),
        }
    }
}

/// One of the words that a packet begins with.
pub(super) fn word_at(bytes: &[u8], index: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[4 * index..][..4]);
    u32::from_be_bytes(word)
}

/// A length or number as a word; all of a story's are small.
fn word(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The payload of a hole: its length, and flags of which there are none.
pub(super) fn hole(length: i64) -> Vec<u8> {
    let mut payload = length.to_be_bytes().to_vec();
    payload.extend([0; 4]);
    payload
}
