//! A packet's header, and the packets themselves.
//!
//! ```text
//! ┌────────┬─────────┬─────────┬───────────┬──────┬────────┬────────┬─────────────────┬─────────┐
//! │ length │ program │ version │ procedure │ kind │ serial │ status │ descriptors (4) │ payload │
//! └────────┴─────────┴─────────┴───────────┴──────┴────────┴────────┴─────────────────┴─────────┘
//!  └──────────────── seven words, big-endian ──────────────────────┘ only in kinds 4 and 5
//! ```
//!
//! `length` counts itself. Each descriptor follows its packet with one carrier byte that no length counts.

use bytes::{BufMut, Bytes, BytesMut};

use super::error::ProtocolError;
use super::limits::{DESCRIPTORS_MAX, LENGTH, PACKET_MAX, PACKET_MIN};

/// What a packet is (`virNetMessageType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Call,
    Reply,
    /// Unasked: events, and keepalive.
    Message,
    Stream,
    CallWithDescriptors,
    ReplyWithDescriptors,
    StreamHole,
}

/// How a packet is meant (`virNetMessageStatus`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// A call, a good reply, or the end of a stream.
    Ok,
    /// The payload is an error; in a stream from the client: it is aborted.
    Error,
    /// A stream's data.
    Continue,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) program: u32,
    pub(crate) version: u32,
    pub(crate) procedure: i32,
    pub(crate) kind: Kind,
    pub(crate) serial: u32,
    pub(crate) status: Status,
}

/// A packet as it arrived. Its descriptors come after it.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) header: Header,
    pub(crate) descriptors: usize,
    pub(crate) payload: Bytes,
}

// === impl Kind ===

impl Kind {
    fn from_wire(value: u32) -> Result<Self, ProtocolError> {
        Ok(match value {
            0 => Self::Call,
            1 => Self::Reply,
            2 => Self::Message,
            3 => Self::Stream,
            4 => Self::CallWithDescriptors,
            5 => Self::ReplyWithDescriptors,
            6 => Self::StreamHole,
            _ => return Err(ProtocolError::Kind(value)),
        })
    }

    fn carries_descriptors(self) -> bool {
        matches!(self, Self::CallWithDescriptors | Self::ReplyWithDescriptors)
    }
}

// === impl Status ===

impl Status {
    fn from_wire(value: u32) -> Result<Self, ProtocolError> {
        Ok(match value {
            0 => Self::Ok,
            1 => Self::Error,
            2 => Self::Continue,
            _ => return Err(ProtocolError::Status(value)),
        })
    }
}

// === impl Header ===

impl Header {
    /// The whole packet; `descriptors` is written only where the kind has it.
    pub(crate) fn packet(&self, descriptors: usize, payload: &[u8]) -> Bytes {
        let words = if self.kind.carries_descriptors() {
            4
        } else {
            0
        };
        let length = PACKET_MIN + words + payload.len();
        let mut packet = BytesMut::with_capacity(length);
        // A payload is at most PAYLOAD_MAX, which every caller has checked, so neither number is cut.
        packet.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        packet.put_u32(self.program);
        packet.put_u32(self.version);
        packet.put_i32(self.procedure);
        packet.put_u32(self.kind as u32);
        packet.put_u32(self.serial);
        packet.put_u32(self.status as u32);
        if words > 0 {
            packet.put_u32(u32::try_from(descriptors).unwrap_or(u32::MAX));
        }
        packet.put_slice(payload);
        packet.freeze()
    }
}

// === impl Packet ===

impl Packet {
    /// Takes the next packet off `input`, or nothing while it is not all there.
    ///
    /// The length is judged as soon as its word is there, so that nothing is gathered for a wrong one.
    pub(crate) fn take(input: &mut BytesMut) -> Result<Option<Self>, ProtocolError> {
        let Some(length) = Self::length(input)? else {
            return Ok(None);
        };
        if input.len() < length {
            return Ok(None);
        }
        let mut packet = input.split_to(length).freeze();
        let word = |at: usize| {
            let mut word = [0; 4];
            // The length is at least PACKET_MIN, and `at` is below it.
            word.copy_from_slice(&packet[at..at + 4]);
            word
        };
        let header = Header {
            program: u32::from_be_bytes(word(4)),
            version: u32::from_be_bytes(word(8)),
            procedure: i32::from_be_bytes(word(12)),
            kind: Kind::from_wire(u32::from_be_bytes(word(16)))?,
            serial: u32::from_be_bytes(word(20)),
            status: Status::from_wire(u32::from_be_bytes(word(24)))?,
        };
        let mut start = PACKET_MIN;
        let mut descriptors = 0;
        if header.kind.carries_descriptors() {
            if length < PACKET_MIN + 4 {
                return Err(ProtocolError::Length(length));
            }
            let count = u32::from_be_bytes(word(PACKET_MIN));
            descriptors = usize::try_from(count).unwrap_or(usize::MAX);
            if descriptors > DESCRIPTORS_MAX {
                return Err(ProtocolError::Descriptors(count));
            }
            start += 4;
        }
        Ok(Some(Self {
            header,
            descriptors,
            payload: packet.split_off(start),
        }))
    }

    /// How many bytes are missing until [`take`](Self::take) gives a packet; at least one.
    pub(crate) fn missing(input: &BytesMut) -> usize {
        match Self::length(input) {
            Ok(Some(length)) => length.saturating_sub(input.len()).max(1),
            Ok(None) | Err(_) => PACKET_MIN,
        }
    }

    fn length(input: &BytesMut) -> Result<Option<usize>, ProtocolError> {
        let Some(word) = input.first_chunk::<LENGTH>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*word)).unwrap_or(usize::MAX);
        if !(PACKET_MIN..=PACKET_MAX).contains(&length) {
            return Err(ProtocolError::Length(length));
        }
        Ok(Some(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(serial: u32) -> Header {
        Header {
            program: 0x2000_8086,
            version: 1,
            procedure: 4,
            kind: Kind::Reply,
            serial,
            status: Status::Ok,
        }
    }

    #[test]
    fn an_empty_packet_has_28_bytes_and_says_so() {
        let packet = reply(7).packet(0, b"");
        assert_eq!(packet.len(), 28);
        assert_eq!(packet[..4], [0, 0, 0, 28]);
    }

    #[test]
    fn a_packet_is_read_as_it_was_written_whatever_the_cuts() {
        let bytes = reply(9).packet(0, b"payload!");
        for cut in 0..bytes.len() {
            let mut input = BytesMut::from(&bytes[..cut]);
            assert!(Packet::take(&mut input).unwrap().is_none(), "{cut}");
            input.extend_from_slice(&bytes[cut..]);
            let packet = Packet::take(&mut input).unwrap().unwrap();
            assert_eq!(packet.header, reply(9));
            assert_eq!(&packet.payload[..], b"payload!");
            assert!(input.is_empty());
        }
    }

    #[test]
    fn lengths_that_no_packet_can_have_are_refused_at_once() {
        for length in [0, 1, 27, 33_554_437, u32::MAX] {
            let mut input = BytesMut::from(&length.to_be_bytes()[..]);
            assert!(
                matches!(Packet::take(&mut input), Err(ProtocolError::Length(_))),
                "{length}"
            );
        }
        for length in [28, 33_554_436_u32] {
            let mut input = BytesMut::from(&length.to_be_bytes()[..]);
            assert!(Packet::take(&mut input).unwrap().is_none(), "{length}");
        }
    }

    #[test]
    fn unknown_kinds_and_statuses_are_refused() {
        for (at, expected) in [(19, "kind"), (27, "status")] {
            let mut input = BytesMut::from(&reply(1).packet(0, b"")[..]);
            input[at] = 9;
            let error = Packet::take(&mut input).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn the_number_of_descriptors_stands_before_the_payload_and_is_bounded() {
        let header = Header {
            kind: Kind::ReplyWithDescriptors,
            ..reply(3)
        };
        let mut input = BytesMut::from(&header.packet(2, b"abcd")[..]);
        assert_eq!(input.len(), 36);
        let packet = Packet::take(&mut input).unwrap().unwrap();
        assert_eq!((packet.descriptors, &packet.payload[..]), (2, &b"abcd"[..]));

        let mut input = BytesMut::from(&header.packet(33, b"")[..]);
        assert!(matches!(
            Packet::take(&mut input),
            Err(ProtocolError::Descriptors(33))
        ));
        let mut input = BytesMut::from(&header.packet(0, b"")[..28]);
        input[3] = 28;
        assert!(matches!(
            Packet::take(&mut input),
            Err(ProtocolError::Length(28))
        ));
    }
}
