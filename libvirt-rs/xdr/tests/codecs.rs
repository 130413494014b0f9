//! Each codec at its bound and one over, in both directions, and in JSON.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fmt::Debug, marker::PhantomData};

use libvirt_xdr::{
    As, Boxed, Codec, Error, ErrorKind, FixedList, FixedOpaque, List, Maybe, Opaque, Plain, Ref,
    Seed, Text, from_bytes, to_bytes,
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeSeed as _, Visitor},
};

fn encode<C: Codec>(value: &C::Value) -> Result<Vec<u8>, Error> {
    to_bytes(&Ref::<C>(value))
}

/// A value that is read through its seed.
struct Seeded<C: Codec>(C::Value);

impl<'de, C: Codec> Deserialize<'de> for Seeded<C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Seed::<C>::new().deserialize(deserializer).map(Self)
    }
}

fn decode<C: Codec>(bytes: &[u8]) -> Result<C::Value, Error> {
    from_bytes::<Seeded<C>>(bytes).map(|seeded| seeded.0)
}

#[track_caller]
fn both_ways<C: Codec<Value: PartialEq + Debug>>(value: &C::Value, bytes: &[u8]) {
    assert_eq!(encode::<C>(value).unwrap(), bytes);
    assert_eq!(decode::<C>(bytes).unwrap(), *value);
}

/// The codec `Bounded` refuses a value that `Free` takes, in both directions and for the same reason.
#[track_caller]
fn over<Free: Codec, Bounded: Codec<Value = Free::Value>>(value: &Free::Value, kind: &ErrorKind)
where
    Free::Value: Debug,
{
    let bytes = encode::<Free>(value).unwrap();
    let error = encode::<Bounded>(value).unwrap_err();
    assert_eq!((error.offset(), error.kind()), (None, kind));
    let error = decode::<Bounded>(&bytes).unwrap_err();
    assert_eq!((error.offset(), error.kind()), (Some(0), kind));
}

#[test]
fn a_text_is_bounded_in_bytes() {
    both_ways::<Text<3>>(&"abc".into(), b"\0\0\0\x03abc\0");
    both_ways::<Text<0>>(&String::new(), &[0; 4]);
    let kind = |len, max| ErrorKind::TooManyBytes { len, max };
    over::<Text<4>, Text<3>>(&"abcd".into(), &kind(4, 3));
    over::<Text<9>, Text<3>>(&"äö".into(), &kind(4, 3));
    over::<Text<1>, Text<0>>(&"a".into(), &kind(1, 0));
    over::<Text<{ usize::MAX }>, Text<4_194_304>>(
        &"x".repeat(5_000_000),
        &kind(5_000_000, 4_194_304),
    );
}

#[test]
fn opaque_data_is_bounded_in_bytes_and_padded() {
    both_ways::<Opaque<5>>(
        &vec![1, 2, 3, 0xff, 5],
        b"\0\0\0\x05\x01\x02\x03\xff\x05\0\0\0",
    );
    both_ways::<Opaque<0>>(&vec![], &[0; 4]);
    let kind = ErrorKind::TooManyBytes { len: 6, max: 5 };
    over::<Opaque<6>, Opaque<5>>(&vec![0; 6], &kind);
}

#[test]
fn fixed_opaque_data_has_no_length() {
    both_ways::<FixedOpaque<4>>(b"abcd", b"abcd");
    both_ways::<FixedOpaque<5>>(b"abcde", b"abcde\0\0\0");
    both_ways::<FixedOpaque<0>>(&[], b"");
    both_ways::<FixedOpaque<2048>>(&[7; 2048], &[7; 2048]);
    let error = decode::<FixedOpaque<5>>(b"abcde\0\0\x01").unwrap_err();
    assert_eq!(
        (error.offset(), error.kind()),
        (Some(5), &ErrorKind::NonZeroPadding)
    );
    let error = decode::<FixedOpaque<16>>(b"abcd").unwrap_err();
    let kind = ErrorKind::Truncated {
        needed: 16,
        left: 4,
    };
    assert_eq!((error.offset(), error.kind()), (Some(0), &kind));
}

#[test]
fn a_list_is_bounded_in_elements() {
    both_ways::<List<Plain<u16>, 2>>(&vec![1, 2], b"\0\0\0\x02\0\0\0\x01\0\0\0\x02");
    both_ways::<List<Text<2>, 1>>(&vec!["ab".into()], b"\0\0\0\x01\0\0\0\x02ab\0\0");
    both_ways::<List<FixedOpaque<2>, 9>>(&vec![*b"ab", *b"cd"], b"\0\0\0\x02ab\0\0cd\0\0");
    both_ways::<List<Plain<i8>, 4097>>(&vec![-1], b"\0\0\0\x01\xff\xff\xff\xff");
    let kind = ErrorKind::TooManyElements { len: 3, max: 2 };
    over::<List<Plain<u32>, 3>, List<Plain<u32>, 2>>(&vec![1, 2, 3], &kind);
    over::<List<Text<9>, 3>, List<Text<9>, 2>>(&vec![String::new(); 3], &kind);
}

#[test]
fn a_bound_within_a_bound_counts_for_itself() {
    type Inner<const MAX: usize> = List<List<Text<MAX>, 2>, 1>;
    let value = vec![vec!["abc".to_owned(), "d".to_owned()]];
    both_ways::<Inner<3>>(
        &value,
        b"\0\0\0\x01\0\0\0\x02\0\0\0\x03abc\0\0\0\0\x01d\0\0\0",
    );
    let bytes = encode::<Inner<3>>(&value).unwrap();
    let (encoding, decoding) = (encode::<Inner<2>>(&value), decode::<Inner<2>>(&bytes));
    assert_eq!(
        encoding.unwrap_err().to_string(),
        "[0][0]: 3 bytes, the protocol allows 2"
    );
    assert_eq!(
        decoding.unwrap_err().to_string(),
        "at byte 8: [0][0]: 3 bytes, the protocol allows 2"
    );
    // What follows a value with a bound has none of it.
    let value = ("abc", vec![1_u32; 100], "d".repeat(100));
    type Free = (Vec<u32>, String);
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Both(#[serde(with = "As::<Text<3>>")] String, Free);
    let both = Both(value.0.into(), (value.1, value.2));
    assert_eq!(from_bytes::<Both>(&to_bytes(&both).unwrap()).unwrap(), both);
}

#[test]
fn a_fixed_list_may_be_longer_than_serde_s_arrays() {
    both_ways::<FixedList<Plain<u8>, 2>>(&[1, 2], b"\0\0\0\x01\0\0\0\x02");
    both_ways::<FixedList<Text<3>, 1>>(&["ab".to_owned()], b"\0\0\0\x02ab\0\0");
    both_ways::<FixedList<Plain<u32>, 0>>(&[], b"");
    both_ways::<FixedList<Plain<()>, 3>>(&[(); 3], b"");
    // `char model[32]`, and one as long as no page is.
    both_ways::<FixedList<Plain<i8>, 33>>(&[-1; 33], &[0xff; 33 * 4]);
    both_ways::<FixedList<Plain<i8>, 2048>>(&[0; 2048], &[0; 2048 * 4]);
    let error = decode::<FixedList<Plain<u32>, 3>>(&[0; 8]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "at byte 8: [2]: 4 bytes are needed and 0 are left: the input is cut off, or of another type"
    );
}

#[test]
fn an_optional_value_may_have_any_codec() {
    both_ways::<Maybe<Text<3>>>(&None, &[0; 4]);
    both_ways::<Maybe<Text<3>>>(&Some("a".into()), b"\0\0\0\x01\0\0\0\x01a\0\0\0");
    both_ways::<Maybe<Maybe<Plain<u32>>>>(&Some(None), b"\0\0\0\x01\0\0\0\0");
    both_ways::<Maybe<FixedOpaque<1>>>(&Some(*b"x"), b"\0\0\0\x01x\0\0\0");
    assert!(encode::<Maybe<Text<3>>>(&Some("abcd".into())).is_err());
    assert!(decode::<Maybe<Text<3>>>(b"\0\0\0\x01\0\0\0\x04abcd").is_err());
}

#[test]
fn a_box_is_what_it_holds() {
    both_ways::<Boxed<Text<3>>>(&Box::new("abc".into()), b"\0\0\0\x03abc\0");
    assert!(encode::<Boxed<Text<2>>>(&Box::new("abc".into())).is_err());
}

#[test]
fn an_error_names_the_field_with_the_bound() {
    #[derive(Debug, Serialize, Deserialize)]
    struct Args {
        flags: u32,
        #[serde(with = "As::<List<Text<4>, 2>>")]
        keys: Vec<String>,
    }
    let args = |keys: &[&str]| Args {
        flags: 0,
        keys: keys.iter().map(|&key| key.into()).collect(),
    };
    let error = |keys| to_bytes(&args(keys)).unwrap_err().to_string();
    assert_eq!(
        error(&["a", "b", "c"]),
        "keys: 3 elements, the protocol allows 2"
    );
    assert_eq!(
        error(&["a", "abcde"]),
        "keys[1]: 5 bytes, the protocol allows 4"
    );
    let error = from_bytes::<Args>(b"\0\0\0\0\0\0\0\x01\0\0\0\x05").unwrap_err();
    assert_eq!(
        error.to_string(),
        "at byte 8: keys[0]: 5 bytes, the protocol allows 4"
    );
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct All {
    #[serde(with = "As::<Plain<i32>>")]
    plain: i32,
    #[serde(with = "As::<Text<255>>")]
    text: String,
    #[serde(with = "As::<Opaque<255>>")]
    opaque: Vec<u8>,
    #[serde(with = "As::<FixedOpaque<3>>")]
    fixed_opaque: [u8; 3],
    #[serde(with = "As::<List<Text<255>, 3>>")]
    list: Vec<String>,
    #[serde(with = "As::<FixedList<Text<255>, 2>>")]
    fixed_list: [String; 2],
    #[serde(with = "As::<Maybe<Text<255>>>")]
    some: Option<String>,
    #[serde(with = "As::<Maybe<List<Plain<u32>, 2>>>")]
    none: Option<Vec<u32>>,
    #[serde(with = "As::<Boxed<Plain<u64>>>")]
    boxed: Box<u64>,
}

fn all() -> All {
    All {
        plain: -1,
        text: "text".into(),
        opaque: vec![1, 0xff],
        fixed_opaque: [0, 0xab, 0xff],
        list: vec!["a".into(), "b".into()],
        fixed_list: ["c".into(), "d".into()],
        some: Some("e".into()),
        none: None,
        boxed: Box::new(7),
    }
}

#[test]
fn in_json_values_look_like_what_they_are() {
    let json = serde_json::json!({
        "plain": -1,
        "text": "text",
        "opaque": [1, 255],
        "fixed_opaque": "00abff",
        "list": ["a", "b"],
        "fixed_list": ["c", "d"],
        "some": "e",
        "none": null,
        "boxed": 7,
    });
    assert_eq!(serde_json::to_value(all()).unwrap(), json);
    assert_eq!(
        serde_json::from_str::<All>(&json.to_string()).unwrap(),
        all()
    );
    assert_eq!(serde_json::from_value::<All>(json).unwrap(), all());
    // And through XDR, of course.
    assert_eq!(
        from_bytes::<All>(&to_bytes(&all()).unwrap()).unwrap(),
        all()
    );
}

#[test]
fn in_json_a_fixed_length_is_still_one() {
    let opaque = |json: &str| {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        As::<FixedOpaque<2>>::deserialize(&mut deserializer)
    };
    assert_eq!(opaque("\"00fF\"").unwrap(), [0, 0xff]);
    for json in ["\"00\"", "\"00ff00\"", "\"00f\"", "\"00fg\"", "7"] {
        let error = opaque(json).unwrap_err().to_string();
        assert!(
            error.contains("2 bytes, or their hexadecimal digits"),
            "{error}"
        );
    }
    let list = |json: &str| {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        As::<FixedList<Plain<u32>, 2>>::deserialize(&mut deserializer)
    };
    assert_eq!(list("[1, 2]").unwrap(), [1, 2]);
    assert!(list("[1]").unwrap_err().to_string().contains("2 elements"));
    assert!(list("[1, 2, 3]").is_err());
}

#[test]
fn a_newtype_of_the_user_carries_no_bound() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename = "xdr<=")]
    struct Lookalike(String);
    let value = Lookalike("long enough".into());
    assert_eq!(
        from_bytes::<Lookalike>(&to_bytes(&value).unwrap()).unwrap(),
        value
    );
}

#[test]
fn a_seed_needs_nothing_of_its_codec() {
    /// Neither `Clone` nor `Debug`.
    struct Own(PhantomData<()>);
    impl Codec for Own {
        type Value = u32;
        fn serialize<S: serde::Serializer>(value: &u32, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_u32(value + 1)
        }
        fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
            struct MinusOne;
            impl Visitor<'_> for MinusOne {
                type Value = u32;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("a number")
                }
                fn visit_u32<E>(self, value: u32) -> Result<u32, E> {
                    Ok(value.wrapping_sub(1))
                }
            }
            deserializer.deserialize_u32(MinusOne)
        }
    }
    let seed = Seed::<Own>::default();
    let copy = seed;
    assert_eq!(format!("{seed:?}{copy:?}"), "SeedSeed");
    both_ways::<List<Own, 2>>(&vec![1, 2], b"\0\0\0\x02\0\0\0\x02\0\0\0\x03");
}
