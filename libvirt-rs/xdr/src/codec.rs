//! Codecs: types that say how a value stands on the wire where its Rust type does not say enough.

use std::{fmt, marker::PhantomData};

use serde::{
    Serialize,
    de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor},
    ser::{SerializeSeq as _, SerializeTuple as _, Serializer},
};

use crate::{
    bound::{AtMost, Exactly},
    bytes::{ByteArray, ByteVec, Bytes, Hex},
    limits::MAX_RESERVED,
};

/// How a value of type [`Value`](Self::Value) stands on the wire.
///
/// A codec is a type that nobody makes a value of: [`Text<255>`](Text) is `string<255>`, `List<Text<255>, 16>` is an
/// array of up to 16 of these. Use it on a field with [`As`], and in hand-written or generated code with [`Ref`] and
/// [`Seed`].
///
/// The bounds are those of XDR, and this crate checks them in both directions. In any other format of serde the same
/// value is what it looks like: a string, bytes, a sequence.
pub trait Codec {
    /// The type of the values.
    type Value;

    /// Writes `value`.
    ///
    /// # Errors
    /// The value is over a bound, or the serializer fails.
    fn serialize<S: Serializer>(value: &Self::Value, serializer: S) -> Result<S::Ok, S::Error>;

    /// Reads a value.
    ///
    /// # Errors
    /// The input is no such value, or over a bound, or the deserializer fails.
    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self::Value, D::Error>;
}

/// A type with its own [`Serialize`] and [`Deserialize`](serde::Deserialize).
#[derive(Debug)]
pub struct Plain<T>(PhantomData<fn() -> T>);

/// `string<MAX>`: UTF-8 of at most `MAX` bytes.
///
/// RFC 4506 speaks of ASCII and libvirt of UTF-8. Something else is refused on decoding.
#[derive(Debug)]
pub struct Text<const MAX: usize>;

/// `opaque<MAX>`: at most `MAX` bytes.
#[derive(Debug)]
pub struct Opaque<const MAX: usize>;

/// `opaque[N]`: exactly `N` bytes, such as a UUID.
///
/// In formats for people, such as JSON, it is a string of hexadecimal digits.
#[derive(Debug)]
pub struct FixedOpaque<const N: usize>;

/// `T<MAX>`: at most `MAX` elements.
///
/// Elements take bytes: a list of `()` is refused with [`EmptyElements`](crate::ErrorKind::EmptyElements).
#[derive(Debug)]
pub struct List<C, const MAX: usize>(PhantomData<fn() -> C>);

/// `T[N]`: exactly `N` elements.
#[derive(Debug)]
pub struct FixedList<C, const N: usize>(PhantomData<fn() -> C>);

/// `T *`: a value or none.
#[derive(Debug)]
pub struct Maybe<C>(PhantomData<fn() -> C>);

/// A value on the heap, for types that contain themselves. On the wire it is the value.
///
/// The decoder goes [`MAX_DEPTH`](crate::limits::MAX_DEPTH) levels deep.
#[derive(Debug)]
pub struct Boxed<C>(PhantomData<fn() -> C>);

impl<T: Serialize + DeserializeOwned> Codec for Plain<T> {
    type Value = T;

    #[inline]
    fn serialize<S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        value.serialize(serializer)
    }

    #[inline]
    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        T::deserialize(deserializer)
    }
}

impl<const MAX: usize> Codec for Text<MAX> {
    type Value = String;

    #[inline]
    fn serialize<S: Serializer>(value: &String, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(AtMost::<MAX>::NAME, value)
    }

    #[inline]
    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_newtype_struct(AtMost::<MAX>::NAME, Bounded(PhantomData))
    }
}

impl<const MAX: usize> Codec for Opaque<MAX> {
    type Value = Vec<u8>;

    #[inline]
    fn serialize<S: Serializer>(value: &Vec<u8>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(AtMost::<MAX>::NAME, &Bytes(value))
    }

    #[inline]
    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_newtype_struct(AtMost::<MAX>::NAME, Bounded(ByteVec))
    }
}

impl<const N: usize> Codec for FixedOpaque<N> {
    type Value = [u8; N];

    #[inline]
    fn serialize<S: Serializer>(value: &[u8; N], serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(&Hex(value))
        } else {
            serializer.serialize_newtype_struct(Exactly::<N>::NAME, &Bytes(value))
        }
    }

    #[inline]
    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; N], D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(ByteArray)
        } else {
            deserializer.deserialize_newtype_struct(Exactly::<N>::NAME, Bounded(ByteArray))
        }
    }
}

impl<C: Codec, const MAX: usize> Codec for List<C, MAX> {
    type Value = Vec<C::Value>;

    #[inline]
    fn serialize<S: Serializer>(value: &Vec<C::Value>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(AtMost::<MAX>::NAME, &Elements::<C>(value))
    }

    #[inline]
    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<C::Value>, D::Error> {
        let elements = Bounded(ElementVec::<C>::new());
        deserializer.deserialize_newtype_struct(AtMost::<MAX>::NAME, elements)
    }
}

impl<C: Codec, const N: usize> Codec for FixedList<C, N> {
    type Value = [C::Value; N];

    #[inline]
    fn serialize<S: Serializer>(value: &[C::Value; N], serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(N)?;
        for element in value {
            tuple.serialize_element(&Ref::<C>(element))?;
        }
        tuple.end()
    }

    #[inline]
    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[C::Value; N], D::Error> {
        deserializer
            .deserialize_tuple(N, ElementVec::<C>::new())?
            .try_into()
            .map_err(|elements: Vec<_>| {
                D::Error::invalid_length(elements.len(), &&*format!("{N} elements"))
            })
    }
}

impl<C: Codec> Codec for Maybe<C> {
    type Value = Option<C::Value>;

    #[inline]
    fn serialize<S: Serializer>(
        value: &Option<C::Value>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.serialize_some(&Ref::<C>(value)),
            None => serializer.serialize_none(),
        }
    }

    #[inline]
    fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<C::Value>, D::Error> {
        deserializer.deserialize_option(MaybeVisitor::<C>(PhantomData))
    }
}

impl<C: Codec> Codec for Boxed<C> {
    type Value = Box<C::Value>;

    #[inline]
    fn serialize<S: Serializer>(value: &Box<C::Value>, serializer: S) -> Result<S::Ok, S::Error> {
        C::serialize(value, serializer)
    }

    #[inline]
    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<C::Value>, D::Error> {
        C::deserialize(deserializer).map(Box::new)
    }
}

/// Applies a codec to a field: `#[serde(with = "As::<Text<255>>")]`.
///
/// ```
/// use libvirt_xdr::{As, FixedOpaque, Text};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Network {
///     #[serde(with = "As::<Text<4_194_304>>")]
///     name: String,
///     #[serde(with = "As::<FixedOpaque<16>>")]
///     uuid: [u8; 16],
/// }
/// ```
#[derive(Debug)]
pub struct As<C>(PhantomData<fn() -> C>);

impl<C: Codec> As<C> {
    /// Writes `value` as `C` does.
    ///
    /// # Errors
    /// As [`Codec::serialize`].
    #[inline]
    pub fn serialize<S: Serializer>(value: &C::Value, serializer: S) -> Result<S::Ok, S::Error> {
        C::serialize(value, serializer)
    }

    /// Reads a value as `C` does.
    ///
    /// # Errors
    /// As [`Codec::deserialize`].
    #[inline]
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<C::Value, D::Error> {
        C::deserialize(deserializer)
    }
}

/// A value to be written as `C` does.
#[derive(Debug)]
pub struct Ref<'a, C: Codec>(pub &'a C::Value);

impl<C: Codec> Serialize for Ref<'_, C> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        C::serialize(self.0, serializer)
    }
}

/// Reads a value as `C` does, where serde asks for a seed: `access.next_element_seed(Seed::<C>::new())`.
pub struct Seed<C>(PhantomData<fn() -> C>);

impl<C: Codec> Seed<C> {
    /// The seed. It holds nothing.
    #[inline]
    #[must_use]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

// Not derived: a codec is neither `Clone` nor `Default`, and need not be.
impl<C> Clone for Seed<C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for Seed<C> {}

impl<C> Default for Seed<C> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<C> fmt::Debug for Seed<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed")
    }
}

impl<'de, C: Codec> DeserializeSeed<'de> for Seed<C> {
    type Value = C::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<C::Value, D::Error> {
        C::deserialize(deserializer)
    }
}

/// Reads with a seed what lies in the newtype that carries its bound.
struct Bounded<T>(T);

impl<'de, T: DeserializeSeed<'de>> Visitor<'de> for Bounded<T> {
    type Value = T::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value with a bound")
    }

    #[inline]
    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<T::Value, D::Error> {
        self.0.deserialize(deserializer)
    }
}

/// Elements to be written as `C` does.
struct Elements<'a, C: Codec>(&'a [C::Value]);

impl<C: Codec> Serialize for Elements<'_, C> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for element in self.0 {
            list.serialize_element(&Ref::<C>(element))?;
        }
        list.end()
    }
}

/// Reads elements as `C` does.
pub(crate) struct ElementVec<C>(PhantomData<fn() -> C>);

impl<C> ElementVec<C> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<'de, C: Codec> DeserializeSeed<'de> for ElementVec<C> {
    type Value = Vec<C::Value>;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<C::Value>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, C: Codec> Visitor<'de> for ElementVec<C> {
    type Value = Vec<C::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Vec<C::Value>, A::Error> {
        let announced = access.size_hint().unwrap_or(0);
        let mut elements = Vec::with_capacity(reserved::<C::Value>(announced));
        while let Some(element) = access.next_element_seed(Seed::<C>::new())? {
            elements.push(element);
        }
        Ok(elements)
    }
}

/// How many of the elements that a list announces get memory before they have arrived.
fn reserved<T>(announced: usize) -> usize {
    announced.min(MAX_RESERVED / size_of::<T>().max(1))
}

/// Reads an optional value as `C` does.
struct MaybeVisitor<C>(PhantomData<fn() -> C>);

impl<'de, C: Codec> Visitor<'de> for MaybeVisitor<C> {
    type Value = Option<C::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or none")
    }

    #[inline]
    fn visit_none<E>(self) -> Result<Option<C::Value>, E> {
        Ok(None)
    }

    #[inline]
    fn visit_unit<E>(self) -> Result<Option<C::Value>, E> {
        Ok(None)
    }

    #[inline]
    fn visit_some<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Option<C::Value>, D::Error> {
        C::deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_for_announced_elements_is_bounded_in_bytes() {
        assert_eq!(reserved::<u32>(10), 10);
        assert_eq!(reserved::<u32>(usize::MAX), MAX_RESERVED / 4);
        assert_eq!(reserved::<[u8; 4096]>(usize::MAX), MAX_RESERVED / 4096);
        assert_eq!(reserved::<[u8; 2 * MAX_RESERVED]>(usize::MAX), 0);
    }
}
