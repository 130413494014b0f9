//! Bytes as they go through serde, which knows them from numbers only if it is told.

use std::fmt;

use serde::{
    Serialize, Serializer,
    de::{DeserializeSeed, Deserializer, SeqAccess, Unexpected, Visitor},
};

use crate::codec::{ElementVec, Plain};

/// serde takes a slice of bytes for a sequence of numbers.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl Serialize for Bytes<'_> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// Reads bytes, however a format writes them.
pub(crate) struct ByteVec;

impl<'de> DeserializeSeed<'de> for ByteVec {
    type Value = Vec<u8>;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_byte_buf(self)
    }
}

impl<'de> Visitor<'de> for ByteVec {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    #[inline]
    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
        Ok(bytes)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<Vec<u8>, A::Error> {
        ElementVec::<Plain<u8>>::new().visit_seq(access)
    }
}

/// Reads exactly `N` bytes, however a format writes them.
pub(crate) struct ByteArray<const N: usize>;

impl<'de, const N: usize> DeserializeSeed<'de> for ByteArray<N> {
    type Value = [u8; N];

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<[u8; N], D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for ByteArray<N> {
    type Value = [u8; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{N} bytes, or their hexadecimal digits")
    }

    #[inline]
    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<[u8; N], E> {
        bytes
            .try_into()
            .map_err(|_| E::invalid_length(bytes.len(), &self))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<[u8; N], E> {
        unhex(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<[u8; N], A::Error> {
        self.visit_bytes(&ByteVec.visit_seq(access)?)
    }
}

/// Shows bytes as hexadecimal digits.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The bytes that `text` shows as [`Hex`] does; capitals will do.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |letter: u8| char::from(letter).to_digit(16);
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    if pairs.len() != N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, &[high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = u8::try_from(digit(high)? << 4 | digit(low)?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_digits_of_another_number_of_bytes_are_refused() {
        assert_eq!(unhex("00fFa5"), Some([0x00, 0xff, 0xa5]));
        assert_eq!(unhex::<3>("00ff"), None);
        assert_eq!(unhex::<1>("0"), None);
        assert_eq!(unhex::<1>("0g"), None);
        assert_eq!(unhex::<1>("+1"), None);
        assert_eq!(unhex(""), Some([]));
    }
}
