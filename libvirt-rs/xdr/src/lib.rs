//! XDR ([RFC 4506]) over serde, for libvirt's wire protocol.
//!
//! [`to_bytes`] and [`from_bytes`] do for XDR what `serde_json` does for JSON. Where a Rust type does not say enough
//! (a `String` has no bound, a `[u8; 16]` may be sixteen numbers or an opaque UUID), a *codec* does: a type such as
//! [`Text<255>`](Text), named on the field.
//!
//! ```
//! use libvirt_xdr::{As, FixedOpaque, List, Maybe, Text, from_bytes, to_bytes};
//! use serde::{Deserialize, Serialize};
//!
//! // typedef string text<255>;
//! // typedef string tag<32>;
//! // struct machine { text name; opaque uuid[16]; int id; tag tags<16>; text *title; };
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! struct Machine {
//!     #[serde(with = "As::<Text<255>>")]
//!     name: String,
//!     #[serde(with = "As::<FixedOpaque<16>>")]
//!     uuid: [u8; 16],
//!     id: i32,
//!     #[serde(with = "As::<List<Text<32>, 16>>")]
//!     tags: Vec<String>,
//!     #[serde(with = "As::<Maybe<Text<255>>>")]
//!     title: Option<String>,
//! }
//!
//! let mut machine = Machine {
//!     name: "web".into(),
//!     uuid: [0xab; 16],
//!     id: -1,
//!     tags: vec!["test".into()],
//!     title: None,
//! };
//! let bytes = to_bytes(&machine)?;
//! assert_eq!(bytes[..8], *b"\0\0\0\x03web\0");
//! assert_eq!(from_bytes::<Machine>(&bytes)?, machine);
//!
//! let error = from_bytes::<Machine>(&bytes[..20]).unwrap_err();
//! assert_eq!(error.offset(), Some(8));
//!
//! machine.tags[0] = "x".repeat(33);
//! let error = to_bytes(&machine).unwrap_err();
//! assert_eq!(error.to_string(), "tags[0]: 33 bytes, the protocol allows 32");
//! # Ok::<(), libvirt_xdr::Error>(())
//! ```
//!
//! # Types
//!
//! | XDR | Rust | codec | on the wire |
//! |---|---|---|---|
//! | `int`, `unsigned int` | `i32`, `u32` | | 4 bytes, the highest first, as everywhere |
//! | `hyper`, `unsigned hyper` | `i64`, `u64` | | 8 bytes |
//! | `char`, `short` of C, signed or not | `i8`, `u8`, `i16`, `u16` | | 4 bytes; out of range is refused |
//! | `bool` | `bool` | | 4 bytes: 0 or 1, others are refused |
//! | `float`, `double` | `f32`, `f64` | | 4 or 8 bytes |
//! | `string<MAX>` | `String`, `&str` | [`Text<MAX>`](Text) | length, bytes, padding |
//! | `opaque<MAX>` | `Vec<u8>` | [`Opaque<MAX>`](Opaque) | length, bytes, padding |
//! | `opaque[N]` | `[u8; N]` | [`FixedOpaque<N>`](FixedOpaque) | bytes, padding |
//! | `T<MAX>` | `Vec<T>` | [`List<C, MAX>`](List) | length, elements |
//! | `T[N]` | `[T; N]` | [`FixedList<C, N>`](FixedList) | elements |
//! | `T *` | `Option<T>` | [`Maybe<C>`](Maybe) | 0, or 1 and the value |
//! | `struct` | struct, tuple | | its fields |
//! | `union` | enum | | the variant's index, 4 bytes, and its fields |
//! | `enum` | enum without fields | | the variant's index, 4 bytes |
//! | `void` | `()` | | nothing |
//!
//! [`Plain<T>`](Plain) makes a codec of a type, [`Boxed<C>`](Boxed) puts a value on the heap, for types that contain
//! themselves. Without a codec, `String` and `Vec` have the bound of the length word, 2³² - 1, and `[T; N]` ends at 32
//! elements, as in all of serde. `&'de str` and `&'de [u8]` are decoded from strings and opaque data without a copy.
//!
//! # What to know
//!
//! - serde takes `Vec<u8>`, `[u8; N]` and, on encoding, `&[u8]` for sequences of numbers: four bytes each, as libvirt's
//!   `char<>` and `char[N]` are. Opaque data needs its codec.
//! - An enum's index counts its variants from 0 and not the values that the source gives them. A type whose numbers
//!   have gaps, or are negative, implements `Serialize` and `Deserialize` through `i32`. A union with
//!   such discriminants does it as a tuple of discriminant and arm; it may leave the rest of the tuple unread where the
//!   arm is void.
//! - An `i8` is encoded with its sign and decoded from -128 to 255: C leaves the sign of `char` to the machine, and so
//!   a libvirt daemon on Arm sends 233 for the byte that one on x86 sends as -23.
//! - Padding other than zeros is refused. The RFC asks for zeros and senders write them, though C's decoders skip them
//!   unseen. Something else means that sender and receiver disagree about the type, which is better noticed here than
//!   three fields later; and so one value has one encoding, but for the sign of `char`.
//! - A string may hold a NUL, as far as XDR is concerned; C's programs would take what stands before it for the whole.
//!   [`to_bytes_for_c`] refuses it.
//! - `char`, maps, integers of 128 bits and serde's attributes that need a format with names (`flatten`, `tag`,
//!   `untagged`, `skip_serializing_if`) are refused with a reason.
//! - A list's elements take bytes. A list of `()` is refused unless it is empty: nothing could be checked against its
//!   length, and four bytes could announce four billion of them.
//!
//! # Input that nobody vouches for
//!
//! A length is checked against its bound and against what is left of the input before anything is allocated. A list
//! gets memory for as many elements as the input may hold, in the beginning at most
//! [`MAX_RESERVED`](limits::MAX_RESERVED); a `Vec` without a codec is serde's, which begins with up to 1 MiB. Values
//! within values are followed to [`MAX_DEPTH`](limits::MAX_DEPTH). There is no input that makes this crate panic.
//!
//! # Generated code
//!
//! ```text
//! serialize_struct ─► serialize_field("name", &Ref::<Text<255>>(&self.name))
//! deserialize_struct("Machine", &["name", …], visitor) ─► visit_seq: next_element_seed(Seed::<Text<255>>::new())
//! ```
//!
//! The decoder calls `visit_seq` for a struct, with its fields in turn; the names only show up in errors.
//!
//! | module | what it does |
//! |---|---|
//! | `codec` | the codecs, and how they come to a field |
//! | `bound`, `bytes` | carry a codec's bound through serde, and bytes that are no numbers |
//! | `ser`, `de` | encoder and decoder |
//! | `error` | what is wrong, in which field, at which byte |
//! | [`limits`] | what is refused |
//!
//! [RFC 4506]: https://www.rfc-editor.org/rfc/rfc4506

mod bound;
mod bytes;
mod codec;
mod de;
mod error;
pub mod limits;
mod ser;

use serde::{Deserialize, Serialize};

pub use codec::{
    As, Boxed, Codec, FixedList, FixedOpaque, List, Maybe, Opaque, Plain, Ref, Seed, Text,
};
pub use error::{Error, ErrorKind};
use ser::Strings;

/// The encoding of `value`.
///
/// # Errors
/// The value is over a bound, or XDR has no such type.
pub fn to_bytes<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    append(value, &mut out)?;
    Ok(out)
}

/// As [`to_bytes`], for a receiver that keeps strings as C does.
///
/// XDR counts a string's bytes and lets it hold any; a receiver in C gets no more of it than what stands before the first
/// NUL. The two would not mean the same, so a string with a NUL is refused. Opaque data may hold any byte.
///
/// # Errors
/// As [`to_bytes`], or a string has a NUL in it.
pub fn to_bytes_for_c<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    value.serialize(&mut ser::Encoder::new(&mut out, Strings::OfC))?;
    Ok(out)
}

/// Puts the encoding of `value` behind what `out` holds.
///
/// # Errors
/// The value is over a bound, or XDR has no such type. Then `out` holds what it held before.
pub fn append<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), Error> {
    let before = out.len();
    value
        .serialize(&mut ser::Encoder::new(out, Strings::Any))
        .inspect_err(|_| out.truncate(before))
}

/// The value that `input` is the encoding of.
///
/// # Errors
/// The input is no such value, or goes on behind it.
pub fn from_bytes<'de, T: Deserialize<'de>>(input: &'de [u8]) -> Result<T, Error> {
    match from_prefix(input)? {
        (value, []) => Ok(value),
        (_, rest) => Err(Error::at(
            input.len() - rest.len(),
            ErrorKind::TrailingBytes { left: rest.len() },
        )),
    }
}

/// The value that `input` begins with, and what follows it.
///
/// # Errors
/// The input does not begin with such a value.
pub fn from_prefix<'de, T: Deserialize<'de>>(input: &'de [u8]) -> Result<(T, &'de [u8]), Error> {
    let mut decoder = de::Decoder::new(input);
    match T::deserialize(&mut decoder) {
        Ok(value) => Ok((value, decoder.rest())),
        Err(error) => Err(error.or_at(decoder.offset())),
    }
}

/// The code in the README is compiled, and run where it can be.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
