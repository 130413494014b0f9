//! Layer two of the wire: control records between session bytes.
//!
//! ```text
//! marker(16) kind(1) version(1) length(2) session(16) payload(length) crc32c(4) end(1)
//!            └───────────── covered by the checksum ────────────────┘
//! ```
//!
//! Numbers are big-endian. All that follows the marker is stuffed (see [`framing`](crate::framing)). `end` is a zero:
//! it can't begin a marker, so a receiver never has to hold a record's last byte back.

use std::fmt;

use bytes::{BufMut as _, BytesMut};
use prost::Message;

use crate::{
    framing::{Scanner, Stuffer, Token},
    limits::{MAX_PAYLOAD, MAX_TEXT},
};

/// The version of the record format and of the protocol.
pub const VERSION: u8 = 1;

const HEADER: usize = 20;
const CHECKSUM: usize = 4;
const END: u8 = 0;

/// The identity of a session: 16 random bytes, chosen by the host for every greeting anew.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct SessionId(pub [u8; 16]);

impl SessionId {
    /// Stands where a record belongs to no session.
    pub const NONE: Self = Self([0; 16]);
}

impl fmt::Display for SessionId {
    /// The first eight bytes in hexadecimal: enough to find one in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8]
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

/// What a control record says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Control {
    Ready(Ready),
    Hello(Hello),
    Welcome(Welcome),
    Confirm(Confirm),
    Reject(Reject),
    Bye(Bye),
    Sync(Sync),
    /// A kind of a later version; it is skipped.
    Unknown,
}

impl Control {
    fn kind(&self) -> u8 {
        match self {
            Self::Ready(_) => 1,
            Self::Hello(_) => 2,
            Self::Welcome(_) => 3,
            Self::Confirm(_) => 4,
            Self::Reject(_) => 5,
            Self::Bye(_) => 6,
            Self::Sync(_) => 7,
            Self::Unknown => u8::MAX,
        }
    }

    fn decode(kind: u8, payload: &[u8]) -> Result<Self, prost::DecodeError> {
        Ok(match kind {
            1 => Self::Ready(Ready::decode(payload)?),
            2 => Self::Hello(Hello::decode(payload)?),
            3 => Self::Welcome(Welcome::decode(payload)?),
            4 => Self::Confirm(Confirm::decode(payload)?),
            5 => Self::Reject(Reject::decode(payload)?),
            6 => Self::Bye(Bye::decode(payload)?),
            7 => Self::Sync(Sync::decode(payload)?),
            _ => Self::Unknown,
        })
    }

    fn encode(&self, out: &mut BytesMut) {
        // A `BytesMut` grows as needed, so that the only error of `encode`, a full buffer, can't happen.
        let _ = match self {
            Self::Ready(message) => message.encode(out),
            Self::Hello(message) => message.encode(out),
            Self::Welcome(message) => message.encode(out),
            Self::Confirm(message) => message.encode(out),
            Self::Reject(message) => message.encode(out),
            Self::Bye(message) => message.encode(out),
            Self::Sync(message) => message.encode(out),
            Self::Unknown => Ok(()),
        };
    }
}

/// Guest: the port was just opened, or its session has ended here; no session exists.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Ready {
    #[prost(string, tag = "1")]
    pub(crate) software: String,
}

/// Host: begin the session that the record names.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Hello {
    #[prost(uint32, tag = "1")]
    pub(crate) min_version: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) max_version: u32,
    #[prost(string, tag = "3")]
    pub(crate) software: String,
    /// Unacknowledged session bytes that the host takes.
    #[prost(uint32, tag = "4")]
    pub(crate) window: u32,
    /// Empty if the host has no key.
    #[prost(bytes = "vec", tag = "5")]
    pub(crate) nonce: Vec<u8>,
}

/// Guest: the session has begun; the first byte behind this record is its own.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Welcome {
    #[prost(uint32, tag = "1")]
    pub(crate) version: u32,
    #[prost(string, tag = "2")]
    pub(crate) software: String,
    /// Unacknowledged session bytes that the guest takes.
    #[prost(uint32, tag = "3")]
    pub(crate) window: u32,
    /// Empty without authentication, as the proof.
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) nonce: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    pub(crate) proof: Vec<u8>,
}

/// Host: its proof. Session bytes follow.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Confirm {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) proof: Vec<u8>,
}

/// Guest: no session.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Reject {
    #[prost(enumeration = "RejectCode", tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) reason: String,
}

/// Why a guest refuses a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum RejectCode {
    /// A reason that this version does not know.
    Unspecified = 0,
    /// No common protocol version.
    Version = 1,
    /// The keys differ, or only one end has one.
    Authentication = 2,
    /// The guest does not want a session now.
    Policy = 3,
    /// The greeting made no sense.
    Malformed = 4,
}

/// Either: the session ends in order.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Bye {
    #[prost(string, tag = "1")]
    pub(crate) reason: String,
}

/// Either, in a session: where both directions stand. It opens every block of session bytes.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Sync {
    /// Session bytes that its sender sent before this record.
    #[prost(uint64, tag = "1")]
    pub(crate) sent: u64,
    /// Session bytes that its sender has taken from the other direction.
    #[prost(uint64, tag = "2")]
    pub(crate) consumed: u64,
    /// Asks for a `Sync` with this number as `pong`; 0: no question.
    #[prost(uint64, tag = "3")]
    pub(crate) ping: u64,
    /// Answers a `ping`; 0: no answer.
    #[prost(uint64, tag = "4")]
    pub(crate) pong: u64,
}

/// A control record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    pub(crate) session: SessionId,
    pub(crate) control: Control,
}

impl Record {
    pub(crate) fn new(session: SessionId, control: Control) -> Self {
        Self { session, control }
    }

    /// Appends the record, marker and all.
    pub(crate) fn write(&self, stuffer: &mut Stuffer, out: &mut BytesMut) {
        let mut body = BytesMut::with_capacity(HEADER + 64);
        body.put_u8(self.control.kind());
        body.put_u8(VERSION);
        body.put_u16(0);
        body.put_slice(&self.session.0);
        self.control.encode(&mut body);
        // Every text in a record is cut to MAX_TEXT and the rest has a fixed size: a payload fits.
        let length = u16::try_from(body.len() - HEADER).unwrap_or(u16::MAX);
        debug_assert!(usize::from(length) <= MAX_PAYLOAD);
        body[2..4].copy_from_slice(&length.to_be_bytes());
        body.put_u32(crc32c::crc32c(&body));
        body.put_u8(END);
        stuffer.mark(out);
        stuffer.push(&body, out);
    }

    fn parse(body: &[u8]) -> Result<Self, BadRecord> {
        let (covered, trailer) = body.split_at(body.len() - CHECKSUM - 1);
        let [a, b, c, d, END] = *trailer else {
            return Err(BadRecord::Checksum);
        };
        if crc32c::crc32c(covered) != u32::from_be_bytes([a, b, c, d]) {
            return Err(BadRecord::Checksum);
        }
        if covered[1] != VERSION {
            return Err(BadRecord::Version(covered[1]));
        }
        let mut session = SessionId::NONE;
        session.0.copy_from_slice(&covered[4..HEADER]);
        let control =
            Control::decode(covered[0], &covered[HEADER..]).map_err(|_| BadRecord::Payload)?;
        Ok(Self { session, control })
    }
}

/// Why a control record can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// The checksum or the end byte is wrong.
    #[error("a control record's checksum is wrong")]
    Checksum,
    /// It announces more than [`MAX_PAYLOAD`].
    #[error("a control record announces {0} bytes, and {MAX_PAYLOAD} are allowed")]
    Length(u16),
    /// The record format is of another version.
    #[error("a control record has version {0}, and this end speaks {VERSION}")]
    Version(u8),
    /// The payload is not the message that its kind promises.
    #[error("a control record's payload can't be decoded")]
    Payload,
    /// Another marker came before its end.
    #[error("a control record was cut off by another")]
    Truncated,
    /// The marker's stem was followed by what no sender puts there.
    #[error("bytes are missing or foreign within a marker")]
    Broken,
}

/// What [`Receiver`] finds.
#[derive(Debug, PartialEq)]
pub(crate) enum Item<'a> {
    /// Session bytes; never empty.
    Data(&'a [u8]),
    Record(Record),
    Bad(BadRecord),
}

/// Takes the wire apart into session bytes and control records.
#[derive(Debug, Default)]
pub(crate) struct Receiver {
    scanner: Scanner,
    /// The record that is being received, without its marker.
    body: Option<Vec<u8>>,
    /// What stands before a marker, or what may become one, and may itself be a marker that was cut off. The record
    /// tells: in the session that the bytes belong to, they are data; where another begins, they are dropped with
    /// whatever else that one left behind.
    stump: &'static [u8],
}

impl Receiver {
    /// Takes all of `input` and hands over what it finds, in order.
    pub(crate) fn feed(&mut self, mut input: &[u8], mut found: impl FnMut(Item<'_>)) {
        while let Some(token) = self.scanner.next(&mut input) {
            match token {
                Token::Bytes(bytes) => {
                    if self.body.is_none() {
                        self.stump(&mut found);
                    }
                    self.bytes(bytes, &mut found);
                }
                Token::Stump(bytes) if self.body.is_none() => {
                    self.stump(&mut found);
                    self.stump = bytes;
                }
                Token::Stump(bytes) => self.bytes(bytes, &mut found),
                Token::Marker => {
                    if self.body.replace(Vec::with_capacity(HEADER * 4)).is_some() {
                        found(Item::Bad(BadRecord::Truncated));
                    }
                }
                Token::Broken => {
                    self.body = None;
                    self.stump = &[];
                    found(Item::Bad(BadRecord::Broken));
                }
            }
        }
    }

    /// The stump turns out to be data.
    fn stump(&mut self, found: &mut impl FnMut(Item<'_>)) {
        let stump = std::mem::take(&mut self.stump);
        if !stump.is_empty() {
            found(Item::Data(stump));
        }
    }

    fn bytes(&mut self, mut bytes: &[u8], found: &mut impl FnMut(Item<'_>)) {
        if let Some(body) = self.body.as_mut() {
            take(body, &mut bytes, HEADER);
            if body.len() < HEADER {
                return;
            }
            let length = u16::from_be_bytes([body[2], body[3]]);
            if usize::from(length) > MAX_PAYLOAD {
                self.body = None;
                found(Item::Bad(BadRecord::Length(length)));
            } else {
                let need = HEADER + usize::from(length) + CHECKSUM + 1;
                take(body, &mut bytes, need);
                if body.len() < need {
                    return;
                }
                let parsed = Record::parse(body);
                self.body = None;
                match &parsed {
                    Ok(record) if matches!(record.control, Control::Sync(_) | Control::Bye(_)) => {
                        self.stump(found)
                    }
                    _ => self.stump = &[],
                }
                found(parsed.map_or_else(Item::Bad, Item::Record));
            }
        }
        if !bytes.is_empty() {
            found(Item::Data(bytes));
        }
    }
}

/// Moves bytes until `body` holds `need` of them or there are none left.
fn take(body: &mut Vec<u8>, bytes: &mut &[u8], need: usize) {
    let (head, rest) = bytes.split_at(need.saturating_sub(body.len()).min(bytes.len()));
    body.extend_from_slice(head);
    *bytes = rest;
}

/// Cuts a text for a record at a character's boundary.
pub(crate) fn text(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
