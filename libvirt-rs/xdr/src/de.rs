//! The decoder: bytes to values.

use std::{mem, slice};

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer as _, SeqAccess, VariantAccess,
    Visitor, value::U32Deserializer,
};

use crate::{
    bound::Bound,
    error::{CHARACTER, Error, ErrorKind, MAP, Step, WIDE},
    limits::MAX_DEPTH,
};

/// Everything on the wire takes a multiple of so many bytes (RFC 4506, section 3).
const UNIT: usize = 4;

/// Reads values from the beginning of what is left of its input.
pub(crate) struct Decoder<'de> {
    rest: &'de [u8],
    /// Of the whole input: where the decoder stands is told from what is left.
    len: usize,
    /// Further levels that may lie within this one.
    depth_left: usize,
    /// Of what is read next, if that has a length.
    bound: Bound,
}

impl<'de> Decoder<'de> {
    pub(crate) fn new(input: &'de [u8]) -> Self {
        Self {
            rest: input,
            len: input.len(),
            depth_left: MAX_DEPTH,
            bound: Bound::NONE,
        }
    }

    pub(crate) fn rest(&self) -> &'de [u8] {
        self.rest
    }

    /// Bytes read so far.
    pub(crate) fn offset(&self) -> usize {
        self.len - self.rest.len()
    }

    #[inline]
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        match self.rest.split_first_chunk() {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(*taken)
            }
            None => Err(self.truncated(N)),
        }
    }

    #[inline]
    fn word(&mut self) -> Result<u32, Error> {
        self.take().map(u32::from_be_bytes)
    }

    #[inline]
    fn bool(&mut self) -> Result<bool, Error> {
        match self.word()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.bad_word(ErrorKind::InvalidBool(other))),
        }
    }

    /// The number of bytes or elements that follow, if the bound in force allows it.
    #[inline]
    fn length(&mut self, over: fn(usize, usize) -> ErrorKind) -> Result<usize, Error> {
        match mem::replace(&mut self.bound, Bound::NONE) {
            Bound::AtMost(max) => match self.word()? {
                length if length <= max => Ok(length as usize),
                length => Err(self.bad_word(over(length as usize, max as usize))),
            },
            Bound::Exactly(length) => Ok(length as usize),
        }
    }

    /// Variable or fixed opaque data, its padding read and dropped.
    #[inline]
    fn bytes(&mut self) -> Result<&'de [u8], Error> {
        let len = self.length(|len, max| ErrorKind::TooManyBytes { len, max })?;
        let padded = len.checked_add(padding(len));
        let Some((padded, rest)) = padded.and_then(|padded| self.rest.split_at_checked(padded))
        else {
            return Err(self.truncated(padded.unwrap_or(len)));
        };
        let (bytes, padding) = padded.split_at(len);
        if padding.iter().any(|&byte| byte != 0) {
            return Err(Error::at(self.offset() + len, ErrorKind::NonZeroPadding));
        }
        self.rest = rest;
        Ok(bytes)
    }

    #[inline]
    fn str(&mut self) -> Result<&'de str, Error> {
        let bytes = self.bytes()?;
        str::from_utf8(bytes).map_err(|error| {
            let start = self.offset() - padding(bytes.len()) - bytes.len();
            Error::at(start + error.valid_up_to(), ErrorKind::InvalidUtf8)
        })
    }

    /// Elements with their number before them.
    #[inline]
    fn list<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Error> {
        let count = self.length(|len, max| ErrorKind::TooManyElements { len, max })?;
        // There is no element without bytes, see `ErrorKind::EmptyElements`. So the number can be judged at once, and a
        // small input never makes a long list.
        let least = count.saturating_mul(UNIT);
        if least > self.rest.len() {
            return Err(self.truncated(least));
        }
        self.nested(|decoder| {
            let before = decoder.rest.len();
            let mut elements = Elements::new(decoder, count);
            let value = visitor.visit_seq(&mut elements)?;
            let read = elements.read;
            if read != count {
                // What comes next would be read from the wrong place.
                return Err(Error::new(ErrorKind::LengthMismatch {
                    announced: count,
                    actual: read,
                }));
            }
            if before - decoder.rest.len() < least {
                return Err(Error::new(ErrorKind::EmptyElements));
            }
            Ok(value)
        })
    }

    /// Up to `count` elements: a union of its own making reads its discriminant, and no more for a void arm.
    #[inline]
    fn tuple<V: Visitor<'de>>(&mut self, count: usize, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(Elements::new(self, count))
    }

    #[inline]
    fn fields<V: Visitor<'de>>(
        &mut self,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_seq(Fields {
            decoder: self,
            names: names.iter(),
        })
    }

    /// Reads something that types can contain themselves through.
    #[inline]
    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        let Some(left) = self.depth_left.checked_sub(1) else {
            return Err(Error::at(self.offset(), ErrorKind::TooDeep));
        };
        self.depth_left = left;
        let value = read(self)?;
        self.depth_left += 1;
        Ok(value)
    }

    #[cold]
    fn truncated(&self, needed: usize) -> Error {
        let left = self.rest.len();
        Error::at(self.offset(), ErrorKind::Truncated { needed, left })
    }

    /// The word read last is wrong.
    #[cold]
    fn bad_word(&self, kind: ErrorKind) -> Error {
        Error::at(self.offset() - UNIT, kind)
    }
}

/// Bytes behind opaque data of length `len` up to the next unit.
pub(crate) const fn padding(len: usize) -> usize {
    len.wrapping_neg() % UNIT
}

/// `char`, `short` and their unsigned kin, which take four bytes.
macro_rules! narrow {
    ($($method:ident: $ty:ident, $visit:ident, $signed:expr;)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let value = i64::from($signed(self.word()?));
            match $ty::try_from(value) {
                Ok(value) => visitor.$visit(value),
                Err(_) => Err(self.bad_word(ErrorKind::OutOfRange { value, ty: stringify!($ty) })),
            }
        }
    )*};
}

macro_rules! wide {
    ($($method:ident: $ty:ident, $visit:ident;)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit($ty::from_be_bytes(self.take()?))
        }
    )*};
}

macro_rules! refused {
    ($($method:ident: $reason:expr;)*) => {$(
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            Err(Error::unsupported($reason))
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Decoder<'de> {
    type Error = Error;

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }

    #[inline]
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(self.bool()?)
    }

    /// C leaves the sign of `char` to the machine, and so does its XDR: 0xe9 comes as -23 from x86 and as 233 from Arm.
    /// Both are the same byte.
    #[inline]
    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let word = self.word()?;
        match word.cast_signed() {
            -128..=255 => {
                let [.., low] = word.to_be_bytes();
                visitor.visit_i8(low.cast_signed())
            }
            value => Err(self.bad_word(ErrorKind::OutOfRange {
                value: value.into(),
                ty: "i8",
            })),
        }
    }

    narrow! {
        deserialize_u8: u8, visit_u8, u32::from;
        deserialize_i16: i16, visit_i16, u32::cast_signed;
        deserialize_u16: u16, visit_u16, u32::from;
    }

    wide! {
        deserialize_i32: i32, visit_i32;
        deserialize_u32: u32, visit_u32;
        deserialize_i64: i64, visit_i64;
        deserialize_u64: u64, visit_u64;
        deserialize_f32: f32, visit_f32;
        deserialize_f64: f64, visit_f64;
    }

    #[inline]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_str(self.str()?)
    }

    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    #[inline]
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_bytes(self.bytes()?)
    }

    #[inline]
    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_bytes(visitor)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.bool()? {
            self.nested(|decoder| visitor.visit_some(decoder))
        } else {
            visitor.visit_none()
        }
    }

    #[inline]
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        if let Some(bound) = Bound::spelt_by(name) {
            self.bound = bound;
        }
        visitor.visit_newtype_struct(self)
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.list(visitor)
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        self.tuple(len, visitor)
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.tuple(len, visitor)
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.fields(fields, visitor)
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(self)
    }

    refused! {
        deserialize_i128: WIDE;
        deserialize_u128: WIDE;
        deserialize_char: CHARACTER;
        deserialize_map: MAP;
        deserialize_any: "XDR does not tell types: no `untagged`, `tag` or value of any type can be decoded";
        deserialize_identifier: "XDR does not name fields: decode the struct field by field";
        deserialize_ignored_any: "XDR does not tell types: what is to be ignored must be decoded, too";
    }
}

/// The elements of a list or tuple.
struct Elements<'a, 'de> {
    decoder: &'a mut Decoder<'de>,
    count: usize,
    read: usize,
}

impl<'a, 'de> Elements<'a, 'de> {
    #[inline]
    fn new(decoder: &'a mut Decoder<'de>, count: usize) -> Self {
        Self {
            decoder,
            count,
            read: 0,
        }
    }
}

impl<'de> SeqAccess<'de> for Elements<'_, 'de> {
    type Error = Error;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        if self.read == self.count {
            return Ok(None);
        }
        match seed.deserialize(&mut *self.decoder) {
            Ok(value) => {
                self.read += 1;
                Ok(Some(value))
            }
            Err(error) => Err(error.within(Step::Element(self.read))),
        }
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.count - self.read)
    }
}

/// The fields of a struct.
struct Fields<'a, 'de> {
    decoder: &'a mut Decoder<'de>,
    names: slice::Iter<'static, &'static str>,
}

impl<'de> SeqAccess<'de> for Fields<'_, 'de> {
    type Error = Error;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let Some(name) = self.names.next() else {
            return Ok(None);
        };
        match seed.deserialize(&mut *self.decoder) {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(error.within(Step::Field(name))),
        }
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.names.len())
    }
}

impl<'de> EnumAccess<'de> for &mut Decoder<'de> {
    type Error = Error;
    type Variant = Self;

    #[inline]
    fn variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<(T::Value, Self::Variant), Error> {
        let index: U32Deserializer<Error> = self.word()?.into_deserializer();
        match seed.deserialize(index) {
            Ok(variant) => Ok((variant, self)),
            Err(error) => Err(error.or_at(self.offset() - UNIT)),
        }
    }
}

impl<'de> VariantAccess<'de> for &mut Decoder<'de> {
    type Error = Error;

    #[inline]
    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    #[inline]
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        self.nested(|decoder| seed.deserialize(decoder))
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        self.nested(|decoder| decoder.tuple(len, visitor))
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.nested(|decoder| decoder.fields(fields, visitor))
    }
}
