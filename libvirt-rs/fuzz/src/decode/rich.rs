//! Types of the target's own, with every codec in every other, and what serde makes of types without one.

use libvirt_xdr::{
    As, Boxed, FixedList, FixedOpaque, List, Maybe, Opaque, Plain, Text, from_prefix,
    limits::MAX_RESERVED, to_bytes,
};
use serde::{Deserialize, Serialize};

use super::{refused, value};
use crate::limits::{BASE, DECODED};

/// Contains itself in three ways.
#[derive(Debug, Serialize, Deserialize)]
struct Node {
    #[serde(with = "As::<Text<64>>")]
    name: String,
    #[serde(with = "As::<FixedOpaque<7>>")]
    id: [u8; 7],
    #[serde(with = "As::<Maybe<Opaque<16>>>")]
    data: Option<Vec<u8>>,
    #[serde(with = "As::<FixedList<Maybe<Plain<u8>>, 3>>")]
    version: [Option<u8>; 3],
    #[serde(with = "As::<List<Plain<Value>, 4>>")]
    values: Vec<Value>,
    #[serde(with = "As::<List<List<FixedOpaque<2>, 3>, 3>>")]
    pairs: Vec<Vec<[u8; 2]>>,
    #[serde(with = "As::<Maybe<Boxed<Plain<Node>>>>")]
    next: Option<Box<Node>>,
    #[serde(with = "As::<List<Plain<Node>, 1_000>>")]
    children: Vec<Node>,
    #[serde(with = "As::<FixedList<Text<3>, 2>>")]
    codes: [String; 2],
    plain: Unbounded,
}

#[derive(Debug, Serialize, Deserialize)]
enum Value {
    Int(i32),
    Hyper(i64),
    Double(f64),
    Float(f32),
    Text(#[serde(with = "As::<Text<40>>")] String),
    Range { low: u64, high: u64 },
    Pair(u16, bool),
    Inner(#[serde(with = "As::<List<Plain<Value>, 8>>")] Vec<Value>),
    Nothing,
}

/// Without codecs: the bounds are those of the length word.
#[derive(Debug, Serialize, Deserialize)]
struct Unbounded {
    short: i16,
    texts: Vec<Option<String>>,
    /// Four bytes each.
    bytes: Vec<u8>,
    units: Vec<()>,
    array: [u32; 2],
}

/// Text and bytes that stay in the input.
#[derive(Debug, Serialize, Deserialize)]
struct Borrowed<'a> {
    name: &'a str,
    #[serde(borrow)]
    tags: Vec<&'a str>,
    number: u32,
}

/// The rich type.
pub(super) fn check(payload: &[u8]) -> bool {
    value::<Node>(payload)
}

/// What the rich type may use: at each level two lists may be open, and serde gives its own up to a megabyte. A level
/// takes bytes of the input, [`LEVEL`] at least.
pub(super) fn memory(payload: usize) -> usize {
    /// A node whose lists are empty.
    const LEVEL: usize = 60;
    let levels = (payload / LEVEL + 1).min(libvirt_xdr::limits::MAX_DEPTH);
    BASE + (DECODED + 4 * size_of::<Node>()) * payload + levels * MAX_RESERVED + (1 << 20)
}

/// Text that is borrowed from the payload.
pub(super) fn borrowed(payload: &[u8]) -> bool {
    match from_prefix::<Borrowed<'_>>(payload) {
        Ok((value, rest)) => {
            let read = &payload[..payload.len() - rest.len()];
            let texts = value.tags.iter().chain([&value.name]);
            for text in texts.filter(|text| !text.is_empty()) {
                assert!(read.as_ptr_range().contains(&text.as_ptr()));
            }
            assert_eq!(to_bytes(&value).as_deref(), Ok(read));
            true
        }
        Err(error) => refused(&error, payload),
    }
}
