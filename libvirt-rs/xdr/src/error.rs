//! What may be wrong with a value or its encoding, and where.

use std::fmt;

use crate::limits::{MAX_DEPTH, MAX_PATH};

/// Why a value could not be encoded, or bytes not be decoded.
///
/// It says what is wrong, in which field, and on decoding at which byte of the input:
/// `at byte 28: domains[3].name: 5000000 bytes, the protocol allows 4194304`.
// In a box, so that results are small where nothing is wrong.
#[derive(Clone, PartialEq, Eq)]
pub struct Error(Box<Inner>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    kind: ErrorKind,
    offset: Option<usize>,
    /// From the inside to the outside, as the error travels.
    path: Vec<Step>,
    /// The path has more outer steps than are kept.
    is_path_cut: bool,
}

/// One step from a value to a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Field(&'static str),
    Element(usize),
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The input ends within the value.
    #[error(
        "{needed} bytes are needed and {left} are left: the input is cut off, or of another type"
    )]
    Truncated {
        /// Bytes that come next at the least.
        needed: usize,
        /// Bytes that the input still has.
        left: usize,
    },

    /// The input goes on behind the value.
    #[error("{left} bytes follow the value: the input is of another type")]
    TrailingBytes {
        /// Bytes behind the value.
        left: usize,
    },

    /// A string or opaque data is longer than its bound.
    #[error("{len} bytes, the protocol allows {max}")]
    TooManyBytes {
        /// Its length in bytes, without padding.
        len: usize,
        /// The bound.
        max: usize,
    },

    /// A list is longer than its bound.
    #[error("{len} elements, the protocol allows {max}")]
    TooManyElements {
        /// Its length in elements.
        len: usize,
        /// The bound.
        max: usize,
    },

    /// A `bool`, or the mark before an optional value, is neither 0 nor 1.
    #[error("{0} is neither false (0) nor true (1)")]
    InvalidBool(u32),

    /// The four bytes of a `char` or `short` hold a number that is none.
    #[error("{value} is out of the range of {ty}")]
    OutOfRange {
        /// The number on the wire.
        value: i64,
        /// The Rust type that it is decoded into.
        ty: &'static str,
    },

    /// A string is not UTF-8, from the error's offset on.
    #[error("the string is not UTF-8 from here on: decode it as opaque data if it need not be")]
    InvalidUtf8,

    /// A string has a NUL in it, and its receiver keeps strings as C does.
    #[error("byte {at} of the string is NUL, and the receiver would take it for the string's end")]
    NulInString {
        /// The byte of the string, from 0.
        at: usize,
    },

    /// Opaque data or a string is padded with something else than zeros.
    #[error("the padding is not zero: the input is of another type")]
    NonZeroPadding,

    /// Optional values, lists and enums lie within each other more than [`MAX_DEPTH`] deep.
    #[error("nested more than {MAX_DEPTH} deep")]
    TooDeep,

    /// The elements of a list take no bytes, so that its length could not be checked against its data.
    #[error("the elements of the list take no bytes: encode their number instead")]
    EmptyElements,

    /// A type's own `Serialize` gave another number of elements than it announced, or its `Deserialize` left some of a
    /// list.
    #[error(
        "{announced} elements were announced, and {actual} handled: the type's own code is wrong"
    )]
    LengthMismatch {
        /// The number announced.
        announced: usize,
        /// The number given or taken before it ended.
        actual: usize,
    },

    /// XDR has nothing to encode this with. The text says what, and what to use instead.
    #[error("{0}")]
    Unsupported(&'static str),

    /// What a type's own `Serialize` or `Deserialize` found.
    #[error("{0}")]
    Message(String),
}

/// What XDR has nothing for, in either direction.
pub(crate) const WIDE: &str = "XDR has no integers of 128 bits: use two hypers, or opaque data";
pub(crate) const CHARACTER: &str = "XDR has no characters of Unicode: use a string, or u32";
pub(crate) const MAP: &str = "XDR has no maps: use a list of structs, and no `flatten`";

impl Error {
    #[cold]
    pub(crate) fn new(kind: ErrorKind) -> Self {
        Self(Box::new(Inner {
            kind,
            offset: None,
            path: Vec::new(),
            is_path_cut: false,
        }))
    }

    pub(crate) fn unsupported(what: &'static str) -> Self {
        Self::new(ErrorKind::Unsupported(what))
    }

    #[cold]
    pub(crate) fn at(offset: usize, kind: ErrorKind) -> Self {
        Self::new(kind).or_at(offset)
    }

    /// The same error, at `offset` if it does not know better.
    #[cold]
    pub(crate) fn or_at(mut self, offset: usize) -> Self {
        self.0.offset.get_or_insert(offset);
        self
    }

    /// The same error, in a part of the value that `step` leads to.
    #[cold]
    #[inline(never)]
    pub(crate) fn within(mut self, step: Step) -> Self {
        if self.0.path.len() < MAX_PATH {
            self.0.path.push(step);
        } else {
            self.0.is_path_cut = true;
        }
        self
    }

    /// What is wrong.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// Where it is wrong: the byte of the input, from 0. `None` if encoding failed.
    ///
    /// For an error that a type's own `Deserialize` found it is the end of what had been read by then.
    #[must_use]
    pub fn offset(&self) -> Option<usize> {
        self.0.offset
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            kind,
            offset,
            path,
            is_path_cut,
        } = &*self.0;
        if let Some(offset) = offset {
            write!(f, "at byte {offset}: ")?;
        }
        if *is_path_cut {
            f.write_str("…")?;
        }
        for (index, step) in path.iter().rev().enumerate() {
            match step {
                Step::Field(name) if index == 0 && !is_path_cut => f.write_str(name)?,
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Element(index) => write!(f, "[{index}]")?,
            }
        }
        if !path.is_empty() {
            f.write_str(": ")?;
        }
        kind.fmt(f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({:?}, \"{self}\")", self.0.kind)
    }
}

impl std::error::Error for Error {}

impl serde::ser::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(ErrorKind::Message(message.to_string()))
    }
}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(ErrorKind::Message(message.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_where_what_and_why() {
        let error = Error::at(28, ErrorKind::InvalidBool(7))
            .within(Step::Field("active"))
            .within(Step::Element(3))
            .within(Step::Field("domains"))
            .or_at(40);
        assert_eq!(
            error.to_string(),
            "at byte 28: domains[3].active: 7 is neither false (0) nor true (1)"
        );
        assert_eq!(error.offset(), Some(28));
    }

    #[test]
    fn a_long_path_is_cut_at_its_beginning() {
        let mut error = Error::new(ErrorKind::TooDeep).within(Step::Field("last"));
        for _ in 0..1000 {
            error = error.within(Step::Field("next"));
        }
        let text = error.to_string();
        assert!(text.starts_with("….next.next."), "{text}");
        assert!(
            text.ends_with(".next.last: nested more than 128 deep"),
            "{text}"
        );
        assert!(text.len() < 200, "{text}");
    }

    #[test]
    fn a_result_is_no_larger_than_its_value_and_a_pointer() {
        assert_eq!(size_of::<Result<(), Error>>(), size_of::<usize>());
    }
}
