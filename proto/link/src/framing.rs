//! Layer one of the wire: octets with markers between them.
//!
//! [`MARKER`] announces a control record and can't occur anywhere else: wherever its first 15 bytes occur, the sender
//! puts [`STUFFING`] behind them and the receiver takes it out again. All 16 bytes are distinct, which makes
//! everything here simple: neither the marker nor a prefix of it can overlap itself, so a matcher needs one number as
//! its state, and a search can look at every 15th byte only.
//!
//! What follows a marker is stuffed like everything else. So a marker is found in *any* stream of bytes, also directly
//! behind a record, a marker or a stuffing that was cut off.

/// Announces a control record.
pub const MARKER: [u8; 16] = [
    0xf1, 0x9b, 0xd4, 0x86, 0xee, 0xa7, 0xc3, 0x92, 0xfd, 0xb8, 0x8d, 0xe2, 0xcb, 0x97, 0xf6, 0xad,
];

/// What the sender puts behind the marker's first 15 bytes where they occur in data. Not a byte of the marker.
pub const STUFFING: u8 = 0x00;

/// The part of the marker that must not stand in data without stuffing behind it.
const STEM: usize = MARKER.len() - 1;

/// Where each byte stands in the stem; `NOWHERE` for all others.
const PLACE: [u8; 256] = {
    let mut place = [NOWHERE; 256];
    let mut index = 0;
    while index < STEM {
        #[allow(clippy::cast_possible_truncation)] // index < 15
        {
            place[MARKER[index] as usize] = index as u8;
        }
        index += 1;
    }
    place
};
const NOWHERE: u8 = u8::MAX;

/// So many bytes are looked at together: in most data, none of them occurs in the stem.
const GROUP: usize = 4 * STEM;

/// Where the first whole stem begins in `data`.
///
/// A stem that covers none of the bytes looked at would have to fit between two of them, and they are 15 apart.
fn find_stem(data: &[u8]) -> Option<usize> {
    for (index, group) in data.chunks_exact(GROUP).enumerate() {
        let place = |nth: usize| PLACE[usize::from(group[nth * STEM - 1])];
        // All bits are set in NOWHERE, and in no place.
        if place(1) & place(2) & place(3) & place(4) != NOWHERE
            && let Some(start) = find_stem_at(data, index * GROUP..(index + 1) * GROUP)
        {
            return Some(start);
        }
    }
    let rest = data.len() - data.len() % GROUP;
    find_stem_at(data, rest..data.len())
}

/// Where a whole stem begins in `data` that covers one of the bytes looked at in `range`.
fn find_stem_at(data: &[u8], range: std::ops::Range<usize>) -> Option<usize> {
    let mut at = range.start + STEM - 1;
    while at < range.end {
        let byte = data[at];
        let place = PLACE[usize::from(byte)];
        if place != NOWHERE {
            // The place is at most 14 and `at` at least 14.
            let start = at - usize::from(place);
            if data[start..].starts_with(&MARKER[..STEM]) {
                return Some(start);
            }
        }
        at += STEM;
    }
    None
}

/// How many bytes at the end of `data`, which holds no whole stem, begin one.
fn trailing_stem(data: &[u8]) -> usize {
    let tail = &data[data.len().saturating_sub(STEM)..];
    match tail.iter().rposition(|&byte| byte == MARKER[0]) {
        Some(start) if MARKER.starts_with(&tail[start..]) => tail.len() - start,
        _ => 0,
    }
}

/// Puts stuffing into outgoing bytes.
#[derive(Debug, Default, Clone)]
pub(crate) struct Stuffer {
    /// How much of the stem the bytes so far end in.
    matched: usize,
}

impl Stuffer {
    /// Appends a marker. It may follow anything.
    pub(crate) fn mark(&mut self, out: &mut impl Extend<u8>) {
        out.extend(MARKER);
        self.matched = 0;
    }

    /// Appends `data`, stuffed.
    pub(crate) fn push(&mut self, mut data: &[u8], out: &mut bytes::BytesMut) {
        // First what may complete a stem that earlier bytes began.
        while self.matched > 0 {
            let Some((&byte, rest)) = data.split_first() else {
                return;
            };
            out.extend_from_slice(&[byte]);
            data = rest;
            self.matched = advance(self.matched, byte);
            if self.matched == STEM {
                out.extend_from_slice(&[STUFFING]);
                self.matched = 0;
            }
        }
        while let Some(start) = find_stem(data) {
            let (head, rest) = data.split_at(start + STEM);
            out.extend_from_slice(head);
            out.extend_from_slice(&[STUFFING]);
            data = rest;
        }
        out.extend_from_slice(data);
        self.matched = trailing_stem(data);
    }

    /// Whether the receiver holds bytes back because they may begin a marker.
    pub(crate) fn is_mid_stem(&self) -> bool {
        self.matched > 0
    }
}

/// The matcher's next state. Distinct bytes make the first one the only place to start anew.
fn advance(matched: usize, byte: u8) -> usize {
    if byte == MARKER[matched] {
        matched + 1
    } else {
        usize::from(byte == MARKER[0])
    }
}

/// What [`Scanner`] finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// Bytes between markers, unstuffed; never empty.
    Bytes(&'a [u8]),
    /// The beginning of a marker, with the first byte of another one behind it: most likely data, but possibly a
    /// marker that was cut off when its sender crashed.
    Stump(&'static [u8]),
    /// A marker.
    Marker,
    /// The stem was followed by neither the marker's last byte nor stuffing: no sender does that, so bytes were lost
    /// or came from somebody else.
    Broken,
}

/// Finds markers in incoming bytes and takes stuffing out.
#[derive(Debug, Default, Clone)]
pub(crate) struct Scanner {
    /// How many bytes are held back because they may begin a marker.
    matched: usize,
}

impl Scanner {
    /// Takes the next token off the front of `input`; `None` when all of it has been taken.
    pub(crate) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Option<Token<'a>> {
        while self.matched > 0 {
            let (&byte, rest) = input.split_first()?;
            if self.matched == STEM {
                self.matched = 0;
                match byte {
                    STUFFING => {
                        *input = rest;
                        return Some(Token::Bytes(&MARKER[..STEM]));
                    }
                    byte if byte == MARKER[STEM] => {
                        *input = rest;
                        return Some(Token::Marker);
                    }
                    // The byte stays in the input: it may begin a marker.
                    _ => return Some(Token::Broken),
                }
            }
            if byte == MARKER[self.matched] {
                *input = rest;
                self.matched += 1;
            } else {
                // What was held back is data; the byte stays in the input.
                let held = &MARKER[..std::mem::take(&mut self.matched)];
                return Some(if byte == MARKER[0] {
                    Token::Stump(held)
                } else {
                    Token::Bytes(held)
                });
            }
        }
        if input.is_empty() {
            return None;
        }
        let data = *input;
        let (end, held) = match find_stem(data) {
            Some(start) => (start, STEM),
            None => {
                let held = trailing_stem(data);
                (data.len() - held, held)
            }
        };
        self.matched = held;
        *input = &data[end + held..];
        if end > 0 {
            Some(Token::Bytes(&data[..end]))
        } else {
            self.next(input)
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::*;

    /// Bytes in which stems, markers and their parts are frequent.
    fn nasty() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(MARKER.to_vec()),
            (0..=STEM).prop_map(|len| MARKER[..len].to_vec()),
            (0..STEM).prop_map(|from| MARKER[from..].to_vec()),
            Just(vec![STUFFING]),
            Just(vec![MARKER[0]]),
            prop::collection::vec(any::<u8>(), 0..40),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    /// Splits at the given places (taken modulo what is left).
    fn split<'a>(mut data: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
        let mut parts = Vec::new();
        for cut in cuts {
            let (head, rest) = data.split_at(cut % (data.len() + 1));
            parts.push(head);
            data = rest;
        }
        parts.push(data);
        parts
    }

    fn scan(parts: &[&[u8]]) -> (Vec<u8>, usize, usize) {
        let (mut scanner, mut bytes, mut markers, mut broken) =
            (Scanner::default(), Vec::new(), 0, 0);
        for part in parts {
            let mut input = *part;
            while let Some(token) = scanner.next(&mut input) {
                match token {
                    Token::Bytes(found) => {
                        assert!(!found.is_empty());
                        bytes.extend_from_slice(found);
                    }
                    Token::Stump(found) => bytes.extend_from_slice(found),
                    Token::Marker => markers += 1,
                    Token::Broken => broken += 1,
                }
            }
        }
        (bytes, markers, broken)
    }

    #[test]
    fn the_markers_bytes_are_distinct_and_none_is_the_stuffing() {
        for (index, byte) in MARKER.iter().enumerate() {
            assert!(!MARKER[..index].contains(byte));
            assert_ne!(*byte, STUFFING);
        }
    }

    proptest! {
        #[test]
        fn data_comes_out_as_it_went_in_however_both_sides_split_it(
            data in nasty(),
            writes in prop::collection::vec(any::<usize>(), 0..8),
            reads in prop::collection::vec(any::<usize>(), 0..8),
        ) {
            let (mut stuffer, mut wire) = (Stuffer::default(), BytesMut::new());
            for part in split(&data, &writes) {
                stuffer.push(part, &mut wire);
            }
            let held = stuffer.matched;
            prop_assert!(!wire.windows(MARKER.len()).any(|window| window == MARKER));
            let (bytes, markers, broken) = scan(&split(&wire, &reads));
            prop_assert_eq!((markers, broken), (0, 0));
            prop_assert_eq!(&bytes[..], &data[..data.len() - held]);
            // What the receiver holds back comes with the next marker.
            stuffer.mark(&mut wire);
            let (bytes, markers, broken) = scan(&split(&wire, &reads));
            prop_assert_eq!((bytes, markers, broken), (data, 1, 0));
        }

        #[test]
        fn a_marker_is_found_behind_any_bytes(
            garbage in nasty(),
            reads in prop::collection::vec(any::<usize>(), 0..8),
        ) {
            let (_, before, _) = scan(&[&garbage]);
            let wire = [&garbage[..], &MARKER].concat();
            let (_, after, _) = scan(&split(&wire, &reads));
            prop_assert_eq!(after, before + 1);
        }

        #[test]
        fn splitting_never_changes_what_is_found(
            wire in nasty(),
            reads in prop::collection::vec(any::<usize>(), 0..20),
        ) {
            prop_assert_eq!(scan(&split(&wire, &reads)), scan(&[&wire]));
        }
    }

    #[test]
    fn a_marker_is_found_a_byte_at_a_time() {
        let wire = [&b"before"[..], &MARKER, b"after"].concat();
        let parts: Vec<&[u8]> = wire.chunks(1).collect();
        assert_eq!(scan(&parts), (b"beforeafter".to_vec(), 1, 0));
    }
}
