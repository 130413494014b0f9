//! The encoder: values to bytes.

use std::mem;

use serde::{
    Serialize,
    ser::{
        Impossible, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
        SerializeTupleStruct, SerializeTupleVariant, Serializer,
    },
};

use crate::{
    bound::Bound,
    de::padding,
    error::{CHARACTER, Error, ErrorKind, MAP, Step, WIDE},
    limits::MAX_DEPTH,
};

/// Writes values behind what its buffer holds.
pub(crate) struct Encoder<'o> {
    out: &'o mut Vec<u8>,
    /// Further levels that may lie within this one.
    depth_left: usize,
    /// Of what is written next, if that has a length.
    bound: Bound,
    strings: Strings,
}

/// What may stand in a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strings {
    /// Anything.
    Any,
    /// What C can hold: no NUL, for that ends a string there.
    OfC,
}

impl<'o> Encoder<'o> {
    pub(crate) fn new(out: &'o mut Vec<u8>, strings: Strings) -> Self {
        Self {
            out,
            depth_left: MAX_DEPTH,
            bound: Bound::NONE,
            strings,
        }
    }

    #[inline]
    fn word(&mut self, word: u32) {
        self.out.extend_from_slice(&word.to_be_bytes());
    }

    /// Opaque data, variable or fixed as the bound in force says.
    #[inline]
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match mem::replace(&mut self.bound, Bound::NONE) {
            Bound::AtMost(max) => {
                let length = within(max, bytes.len()).ok_or_else(|| {
                    Error::new(ErrorKind::TooManyBytes {
                        len: bytes.len(),
                        max: max as usize,
                    })
                })?;
                self.word(length);
            }
            // The codec takes an array of that length.
            Bound::Exactly(_) => {}
        }
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(&[0; 3][..padding(bytes.len())]);
        Ok(())
    }

    #[inline]
    fn enter(&mut self) -> Result<(), Error> {
        match self.depth_left.checked_sub(1) {
            Some(left) => {
                self.depth_left = left;
                Ok(())
            }
            None => Err(Error::new(ErrorKind::TooDeep)),
        }
    }

    #[inline]
    fn leave(&mut self) {
        self.depth_left += 1;
    }
}

/// `len` as a length word, if it is no more than `max`.
#[inline]
fn within(max: u32, len: usize) -> Option<u32> {
    u32::try_from(len).ok().filter(|&len| len <= max)
}

/// Numbers, each as the XDR type that holds it.
macro_rules! numbers {
    ($($method:ident: $ty:ident as $wire:ident;)*) => {$(
        #[inline]
        fn $method(self, value: $ty) -> Result<(), Error> {
            self.out.extend_from_slice(&$wire::from(value).to_be_bytes());
            Ok(())
        }
    )*};
}

impl<'a, 'o> Serializer for &'a mut Encoder<'o> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Elements<'a, 'o>;
    type SerializeTuple = Parts<'a, 'o>;
    type SerializeTupleStruct = Parts<'a, 'o>;
    type SerializeTupleVariant = Parts<'a, 'o>;
    type SerializeMap = Impossible<(), Error>;
    type SerializeStruct = Parts<'a, 'o>;
    type SerializeStructVariant = Parts<'a, 'o>;

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }

    numbers! {
        serialize_bool: bool as u32;
        serialize_i8: i8 as i32;
        serialize_i16: i16 as i32;
        serialize_i32: i32 as i32;
        serialize_i64: i64 as i64;
        serialize_u8: u8 as u32;
        serialize_u16: u16 as u32;
        serialize_u32: u32 as u32;
        serialize_u64: u64 as u64;
        serialize_f32: f32 as f32;
        serialize_f64: f64 as f64;
    }

    fn serialize_i128(self, _: i128) -> Result<(), Error> {
        Err(Error::unsupported(WIDE))
    }

    fn serialize_u128(self, _: u128) -> Result<(), Error> {
        Err(Error::unsupported(WIDE))
    }

    fn serialize_char(self, _: char) -> Result<(), Error> {
        Err(Error::unsupported(CHARACTER))
    }

    #[inline]
    fn serialize_str(self, text: &str) -> Result<(), Error> {
        if self.strings == Strings::OfC
            && let Some(at) = text.find('\0')
        {
            return Err(Error::new(ErrorKind::NulInString { at }));
        }
        self.bytes(text.as_bytes())
    }

    #[inline]
    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), Error> {
        self.bytes(bytes)
    }

    #[inline]
    fn serialize_none(self) -> Result<(), Error> {
        self.word(0);
        Ok(())
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        self.word(1);
        self.enter()?;
        value.serialize(&mut *self)?;
        self.leave();
        Ok(())
    }

    #[inline]
    fn serialize_unit(self) -> Result<(), Error> {
        Ok(())
    }

    #[inline]
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        Ok(())
    }

    #[inline]
    fn serialize_unit_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
    ) -> Result<(), Error> {
        self.word(index);
        Ok(())
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        if let Some(bound) = Bound::spelt_by(name) {
            self.bound = bound;
        }
        value.serialize(self)
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.word(index);
        self.enter()?;
        value.serialize(&mut *self)?;
        self.leave();
        Ok(())
    }

    #[inline]
    fn serialize_seq(self, announced: Option<usize>) -> Result<Elements<'a, 'o>, Error> {
        let max = match mem::replace(&mut self.bound, Bound::NONE) {
            Bound::AtMost(max) | Bound::Exactly(max) => max,
        };
        // A list that is too long is refused before its elements are looked at.
        if let Some(count) = announced {
            checked_count(max, count)?;
        }
        self.enter()?;
        let start = self.out.len();
        self.word(0);
        Ok(Elements {
            encoder: self,
            start,
            announced,
            count: 0,
            max,
        })
    }

    #[inline]
    fn serialize_tuple(self, len: usize) -> Result<Parts<'a, 'o>, Error> {
        Ok(Parts::new(self, len))
    }

    #[inline]
    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<Parts<'a, 'o>, Error> {
        Ok(Parts::new(self, len))
    }

    #[inline]
    fn serialize_struct(self, _: &'static str, len: usize) -> Result<Parts<'a, 'o>, Error> {
        Ok(Parts::new(self, len))
    }

    #[inline]
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        len: usize,
    ) -> Result<Parts<'a, 'o>, Error> {
        Parts::of_variant(self, index, len)
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        len: usize,
    ) -> Result<Parts<'a, 'o>, Error> {
        Parts::of_variant(self, index, len)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Impossible<(), Error>, Error> {
        Err(Error::unsupported(MAP))
    }
}

#[inline]
fn checked_count(max: u32, count: usize) -> Result<u32, Error> {
    within(max, count).ok_or_else(|| {
        Error::new(ErrorKind::TooManyElements {
            len: count,
            max: max as usize,
        })
    })
}

/// A list whose elements are being written.
pub(crate) struct Elements<'a, 'o> {
    encoder: &'a mut Encoder<'o>,
    /// Where the length word stands.
    start: usize,
    announced: Option<usize>,
    count: usize,
    max: u32,
}

impl SerializeSeq for Elements<'_, '_> {
    type Ok = ();
    type Error = Error;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        match value.serialize(&mut *self.encoder) {
            Ok(()) => {
                self.count += 1;
                Ok(())
            }
            Err(error) => Err(error.within(Step::Element(self.count))),
        }
    }

    #[inline]
    fn end(self) -> Result<(), Error> {
        let Self {
            encoder,
            start,
            announced,
            count,
            max,
        } = self;
        if let Some(announced) = announced
            && announced != count
        {
            return Err(Error::new(ErrorKind::LengthMismatch {
                announced,
                actual: count,
            }));
        }
        let word = checked_count(max, count)?.to_be_bytes();
        // What the decoder relies on: the length word and each element take a unit at the least.
        if (encoder.out.len() - start) / word.len() <= count {
            return Err(Error::new(ErrorKind::EmptyElements));
        }
        encoder.out[start..start + word.len()].copy_from_slice(&word);
        encoder.leave();
        Ok(())
    }
}

/// A tuple or struct, of its own or of a variant, whose parts are being written.
pub(crate) struct Parts<'a, 'o> {
    encoder: &'a mut Encoder<'o>,
    announced: usize,
    count: usize,
    is_variant: bool,
}

impl<'a, 'o> Parts<'a, 'o> {
    #[inline]
    fn new(encoder: &'a mut Encoder<'o>, announced: usize) -> Self {
        Self {
            encoder,
            announced,
            count: 0,
            is_variant: false,
        }
    }

    #[inline]
    fn of_variant(
        encoder: &'a mut Encoder<'o>,
        index: u32,
        announced: usize,
    ) -> Result<Self, Error> {
        encoder.word(index);
        encoder.enter()?;
        Ok(Self {
            is_variant: true,
            ..Self::new(encoder, announced)
        })
    }

    #[inline]
    fn part<T: Serialize + ?Sized>(&mut self, step: Step, value: &T) -> Result<(), Error> {
        self.count += 1;
        match value.serialize(&mut *self.encoder) {
            Ok(()) => Ok(()),
            Err(error) => Err(error.within(step)),
        }
    }

    #[inline]
    fn finish(self) -> Result<(), Error> {
        if self.count != self.announced {
            return Err(Error::new(ErrorKind::LengthMismatch {
                announced: self.announced,
                actual: self.count,
            }));
        }
        if self.is_variant {
            self.encoder.leave();
        }
        Ok(())
    }
}

macro_rules! tuples {
    ($($kind:ident: $method:ident;)*) => {$(
        impl $kind for Parts<'_, '_> {
            type Ok = ();
            type Error = Error;

            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
                self.part(Step::Element(self.count), value)
            }

            #[inline]
            fn end(self) -> Result<(), Error> {
                self.finish()
            }
        }
    )*};
}

tuples! {
    SerializeTuple: serialize_element;
    SerializeTupleStruct: serialize_field;
    SerializeTupleVariant: serialize_field;
}

macro_rules! structs {
    ($($kind:ident;)*) => {$(
        impl $kind for Parts<'_, '_> {
            type Ok = ();
            type Error = Error;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), Error> {
                self.part(Step::Field(key), value)
            }

            /// The receiver would take the next field for the skipped one.
            fn skip_field(&mut self, key: &'static str) -> Result<(), Error> {
                let error = "XDR has no absent fields: no `skip_serializing_if`";
                Err(Error::unsupported(error).within(Step::Field(key)))
            }

            #[inline]
            fn end(self) -> Result<(), Error> {
                self.finish()
            }
        }
    )*};
}

structs! {
    SerializeStruct;
    SerializeStructVariant;
}
