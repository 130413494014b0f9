//! Every type both ways: its bytes as they must be, and what is refused in their place.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::needless_pass_by_value,
    reason = "values and errors are written where they are expected"
)]

use std::{collections::BTreeMap, fmt::Debug};

use libvirt_xdr::{
    As, Error, ErrorKind, Opaque, append, from_bytes, from_prefix, to_bytes, to_bytes_for_c,
};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, IgnoredAny, SeqAccess, Visitor},
    ser::{SerializeSeq as _, SerializeTuple as _},
};

#[track_caller]
fn both_ways<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T, bytes: &[u8]) {
    assert_eq!(to_bytes(&value).unwrap(), bytes, "{value:?}");
    assert_eq!(from_bytes::<T>(bytes).unwrap(), value);
}

#[track_caller]
fn refused<T: DeserializeOwned + Debug>(bytes: &[u8], offset: usize, kind: ErrorKind) {
    let error = from_bytes::<T>(bytes).unwrap_err();
    assert_eq!((error.offset(), error.kind()), (Some(offset), &kind));
}

#[test]
fn integers_are_words_with_the_highest_byte_first() {
    both_ways(0_i32, &[0; 4]);
    both_ways(-2_i32, b"\xff\xff\xff\xfe");
    both_ways(i32::MIN, b"\x80\0\0\0");
    both_ways(0x0102_0304_u32, b"\x01\x02\x03\x04");
    both_ways(u32::MAX, b"\xff\xff\xff\xff");
    both_ways(-2_i64, b"\xff\xff\xff\xff\xff\xff\xff\xfe");
    both_ways(i64::MIN, b"\x80\0\0\0\0\0\0\0");
    both_ways(u64::MAX, &[0xff; 8]);
    both_ways(1_u64 << 32, b"\0\0\0\x01\0\0\0\0");
}

#[test]
fn char_and_short_take_a_whole_word() {
    both_ways(-23_i8, b"\xff\xff\xff\xe9");
    both_ways(i8::MAX, b"\0\0\0\x7f");
    both_ways(u8::MAX, b"\0\0\0\xff");
    both_ways(i16::MIN, b"\xff\xff\x80\0");
    both_ways(i16::MAX, b"\0\0\x7f\xff");
    both_ways(u16::MAX, b"\0\0\xff\xff");
}

#[test]
fn a_char_is_the_same_byte_with_its_sign_and_without() {
    assert_eq!(from_bytes::<i8>(b"\0\0\0\xe9").unwrap(), -23);
    assert_eq!(from_bytes::<i8>(b"\0\0\0\xff").unwrap(), -1);
    assert_eq!(from_bytes::<i8>(b"\0\0\0\x80").unwrap(), i8::MIN);
    assert_eq!(from_bytes::<i8>(b"\xff\xff\xff\x80").unwrap(), i8::MIN);
}

#[test]
fn a_char_or_short_out_of_range_is_refused() {
    let out_of_range = |value, ty| ErrorKind::OutOfRange { value, ty };
    refused::<i8>(b"\0\0\x01\0", 0, out_of_range(256, "i8"));
    refused::<i8>(b"\xff\xff\xff\x7f", 0, out_of_range(-129, "i8"));
    refused::<u8>(b"\0\0\x01\0", 0, out_of_range(256, "u8"));
    refused::<u8>(b"\xff\xff\xff\xff", 0, out_of_range(u32::MAX.into(), "u8"));
    refused::<i16>(b"\0\0\x80\0", 0, out_of_range(32_768, "i16"));
    refused::<i16>(b"\xff\xff\x7f\xff", 0, out_of_range(-32_769, "i16"));
    refused::<u16>(b"\0\x01\0\0", 0, out_of_range(65_536, "u16"));
}

#[test]
fn a_bool_is_0_or_1() {
    both_ways(false, &[0; 4]);
    both_ways(true, b"\0\0\0\x01");
    refused::<bool>(b"\0\0\0\x02", 0, ErrorKind::InvalidBool(2));
    refused::<(u32, bool)>(b"\0\0\0\0\x01\0\0\0", 4, ErrorKind::InvalidBool(1 << 24));
}

#[test]
fn floats_are_those_of_ieee() {
    both_ways(1.0_f32, b"\x3f\x80\0\0");
    both_ways(-2.5_f64, b"\xc0\x04\0\0\0\0\0\0");
    both_ways(f32::INFINITY, b"\x7f\x80\0\0");
    both_ways(f64::MIN_POSITIVE, b"\0\x10\0\0\0\0\0\0");
    let nan = b"\x7f\xf8\0\0\0\0\xab\xcd";
    assert_eq!(to_bytes(&from_bytes::<f64>(nan).unwrap()).unwrap(), nan);
    assert!(to_bytes(&-0.0_f32).unwrap() == b"\x80\0\0\0");
}

#[test]
fn a_string_is_padded_to_a_whole_word() {
    both_ways(String::new(), &[0; 4]);
    both_ways("a".to_owned(), b"\0\0\0\x01a\0\0\0");
    both_ways("ab".to_owned(), b"\0\0\0\x02ab\0\0");
    both_ways("abc".to_owned(), b"\0\0\0\x03abc\0");
    both_ways("abcd".to_owned(), b"\0\0\0\x04abcd");
    both_ways("äöü".to_owned(), b"\0\0\0\x06\xc3\xa4\xc3\xb6\xc3\xbc\0\0");
    both_ways("\0".to_owned(), b"\0\0\0\x01\0\0\0\0");
}

#[test]
fn a_string_that_is_not_utf_8_is_refused_at_the_byte_that_is_not() {
    refused::<String>(b"\0\0\0\x04ab\xffd", 6, ErrorKind::InvalidUtf8);
    // Cut off within a character.
    refused::<String>(b"\0\0\0\x02a\xc3\0\0", 5, ErrorKind::InvalidUtf8);
    refused::<(u64, String)>(b"12345678\0\0\0\x01\x80\0\0\0", 12, ErrorKind::InvalidUtf8);
}

#[test]
fn padding_other_than_zeros_is_refused_where_it_begins() {
    refused::<String>(b"\0\0\0\x01a\x01\0\0", 5, ErrorKind::NonZeroPadding);
    refused::<String>(b"\0\0\0\x01a\0\0\x01", 5, ErrorKind::NonZeroPadding);
    refused::<String>(b"\0\0\0\x03abcd", 7, ErrorKind::NonZeroPadding);
}

#[test]
fn padding_that_is_missing_is_refused() {
    let truncated = |needed, left| ErrorKind::Truncated { needed, left };
    refused::<String>(b"\0\0\0\x01a\0\0", 4, truncated(4, 3));
    refused::<String>(b"\0\0\0\x01a", 4, truncated(4, 1));
}

#[test]
fn strings_and_bytes_can_be_borrowed_from_the_input() {
    let input = *b"\0\0\0\x03web\0\0\0\0\x05\x01\x02\x03\x04\x05\0\0\0";
    let (name, data): (&str, &[u8]) = from_bytes(&input).unwrap();
    assert_eq!((name, data), ("web", &[1, 2, 3, 4, 5][..]));
    assert_eq!(name.as_ptr(), input[4..].as_ptr());
    assert_eq!(data.as_ptr(), input[12..].as_ptr());

    #[derive(Deserialize)]
    struct Borrowed<'a> {
        name: &'a str,
        #[serde(borrow)]
        tags: Vec<&'a str>,
    }
    let input = *b"\0\0\0\x01a\0\0\0\0\0\0\x01\0\0\0\x02bc\0\0";
    let borrowed: Borrowed<'_> = from_bytes(&input).unwrap();
    assert_eq!(borrowed.name.as_ptr(), input[4..].as_ptr());
    assert_eq!(borrowed.tags[0].as_ptr(), input[16..].as_ptr());
}

#[test]
fn a_list_has_its_length_before_it_and_an_array_has_none() {
    both_ways(Vec::<u32>::new(), &[0; 4]);
    both_ways(vec![1_i32, -1], b"\0\0\0\x02\0\0\0\x01\xff\xff\xff\xff");
    both_ways(
        vec![vec![true], vec![]],
        b"\0\0\0\x02\0\0\0\x01\0\0\0\x01\0\0\0\0",
    );
    both_ways([1_i16, 2], b"\0\0\0\x01\0\0\0\x02");
    // To serde a `Vec<u8>` is a list of numbers, as `char<>` is to libvirt.
    both_ways(vec![b'a', b'b'], b"\0\0\0\x02\0\0\0a\0\0\0b");
}

#[test]
fn an_optional_value_has_a_mark_before_it() {
    both_ways(None::<u32>, &[0; 4]);
    both_ways(Some(7_u32), b"\0\0\0\x01\0\0\0\x07");
    both_ways(Some(None::<u32>), b"\0\0\0\x01\0\0\0\0");
    refused::<Option<u32>>(b"\0\0\0\x02\0\0\0\x07", 0, ErrorKind::InvalidBool(2));
}

#[test]
fn structs_are_their_fields_and_newtypes_what_they_hold() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Point {
        x: i32,
        y: i32,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Pair(u32, bool);
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Id(u64);
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Nothing;

    both_ways(Point { x: 1, y: -1 }, b"\0\0\0\x01\xff\xff\xff\xff");
    both_ways(Pair(5, true), b"\0\0\0\x05\0\0\0\x01");
    both_ways(Id(9), b"\0\0\0\0\0\0\0\x09");
    both_ways((), b"");
    both_ways(Nothing, b"");
    both_ways(((), 1_u32, Nothing), b"\0\0\0\x01");
}

#[test]
fn an_enum_is_the_index_of_its_variant_and_what_that_holds() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Empty,
        Circle(u32),
        Line(i32, i32),
        Named { name: String, sides: u32 },
    }
    both_ways(Shape::Empty, b"\0\0\0\0");
    both_ways(Shape::Circle(7), b"\0\0\0\x01\0\0\0\x07");
    both_ways(Shape::Line(1, 2), b"\0\0\0\x02\0\0\0\x01\0\0\0\x02");
    let named = Shape::Named {
        name: "tri".into(),
        sides: 3,
    };
    both_ways(
        vec![named],
        b"\0\0\0\x01\0\0\0\x03\0\0\0\x03tri\0\0\0\0\x03",
    );

    let error = from_bytes::<(u32, Shape)>(b"\0\0\0\0\0\0\0\x04").unwrap_err();
    assert_eq!(error.offset(), Some(4));
    assert!(matches!(error.kind(), ErrorKind::Message(_)), "{error}");
}

#[test]
fn the_input_must_end_with_the_value_or_is_handed_back() {
    let input = b"\0\0\0\x01\0\0\0\x02x";
    refused::<u32>(input, 4, ErrorKind::TrailingBytes { left: 5 });
    let (first, rest) = from_prefix::<u32>(input).unwrap();
    let (second, rest) = from_prefix::<u32>(rest).unwrap();
    assert_eq!((first, second, rest), (1, 2, &b"x"[..]));
}

#[test]
fn append_keeps_what_was_there_and_adds_nothing_on_error() {
    let mut out = b"head".to_vec();
    append(&1_u32, &mut out).unwrap();
    assert_eq!(out, b"head\0\0\0\x01");
    append(&("some text", 'x'), &mut out).unwrap_err();
    assert_eq!(out, b"head\0\0\0\x01");
    // Unsized values will do.
    append("ab", &mut out).unwrap();
    assert_eq!(out, b"head\0\0\0\x01\0\0\0\x02ab\0\0");
}

#[test]
fn what_xdr_has_not_is_refused_with_a_reason() {
    #[track_caller]
    fn reason<T>(result: Result<T, Error>) -> String {
        let error = result.err().unwrap();
        assert!(matches!(error.kind(), ErrorKind::Unsupported(_)), "{error}");
        error.to_string()
    }
    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        A(u32),
    }
    #[derive(Serialize, Deserialize)]
    struct Flat {
        #[serde(flatten)]
        inner: BTreeMap<String, u32>,
    }
    #[derive(Serialize)]
    struct Skipping {
        #[serde(skip_serializing_if = "Option::is_none")]
        absent: Option<u32>,
    }
    let input = [0; 16];
    let map = BTreeMap::from([(1_u32, 2_u32)]);
    for (reason, word) in [
        (reason(to_bytes(&'x')), "characters"),
        (reason(from_bytes::<char>(&input)), "characters"),
        (reason(to_bytes(&1_i128)), "128 bits"),
        (reason(to_bytes(&1_u128)), "128 bits"),
        (reason(from_bytes::<i128>(&input)), "128 bits"),
        (reason(from_bytes::<u128>(&input)), "128 bits"),
        (reason(to_bytes(&map)), "maps"),
        (reason(from_bytes::<BTreeMap<u32, u32>>(&input)), "maps"),
        (reason(to_bytes(&Flat { inner: [].into() })), "flatten"),
        (reason(from_bytes::<Flat>(&input)), "flatten"),
        (reason(from_bytes::<Untagged>(&input)), "untagged"),
        (reason(from_bytes::<IgnoredAny>(&input)), "ignored"),
        (
            reason(to_bytes(&Skipping { absent: None })),
            "skip_serializing_if",
        ),
    ] {
        assert!(reason.contains(word), "{reason}");
    }
    // An untagged enum knows what it holds when it is written.
    assert_eq!(to_bytes(&Untagged::A(1)).unwrap(), [0, 0, 0, 1]);
}

#[test]
fn an_error_names_the_field_and_the_byte() {
    #[derive(Debug, Serialize, Deserialize)]
    struct Domain {
        id: u32,
        active: bool,
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct Reply {
        domains: Vec<(Domain, u32)>,
    }
    let mut bytes = to_bytes(&(2_u32, [1_u32; 6])).unwrap();
    bytes[20] = 9;
    assert_eq!(
        from_bytes::<Reply>(&bytes).unwrap_err().to_string(),
        "at byte 20: domains[1][0].active: 150994945 is neither false (0) nor true (1)"
    );
}

/// Announces another number of elements than it gives, or none.
struct Sequence {
    announced: Option<usize>,
    given: usize,
}

impl Serialize for Sequence {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(self.announced)?;
        for _ in 0..self.given {
            list.serialize_element(&7_u32)?;
        }
        list.end()
    }
}

#[test]
fn a_list_of_unknown_length_gets_its_length_in_the_end() {
    let list = Sequence {
        announced: None,
        given: 3,
    };
    assert_eq!(to_bytes(&list).unwrap(), to_bytes(&[7_u32; 3][..]).unwrap());
}

#[test]
fn another_number_of_elements_than_announced_is_refused() {
    struct Tuple;
    impl Serialize for Tuple {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut tuple = serializer.serialize_tuple(3)?;
            tuple.serialize_element(&1_u32)?;
            tuple.end()
        }
    }
    /// Takes the first element of a list and leaves the others.
    #[derive(Debug)]
    struct First;
    impl<'de> Deserialize<'de> for First {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_seq(FirstVisitor)
        }
    }
    struct FirstVisitor;
    impl<'de> Visitor<'de> for FirstVisitor {
        type Value = First;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<First, A::Error> {
            access.next_element::<u32>()?;
            Ok(First)
        }
    }

    let mismatch = |announced, actual| ErrorKind::LengthMismatch { announced, actual };
    for (announced, given) in [(2, 3), (3, 2), (0, 1)] {
        let list = Sequence {
            announced: Some(announced),
            given,
        };
        assert_eq!(
            to_bytes(&list).unwrap_err().kind(),
            &mismatch(announced, given)
        );
    }
    assert_eq!(to_bytes(&Tuple).unwrap_err().kind(), &mismatch(3, 1));
    refused::<First>(b"\0\0\0\x02\0\0\0\x01\0\0\0\x01", 8, mismatch(2, 1));
}

#[test]
fn a_string_with_a_nul_is_refused_for_a_receiver_that_would_cut_it_there() {
    #[derive(Serialize)]
    struct Named {
        names: Vec<&'static str>,
        #[serde(with = "As::<Opaque<8>>")]
        key: Vec<u8>,
    }
    let named = |names: &[&'static str]| Named {
        names: names.to_vec(),
        key: b"\0\0".to_vec(),
    };
    let good = named(&["", "web"]);
    assert_eq!(to_bytes_for_c(&good).unwrap(), to_bytes(&good).unwrap());
    let cut = named(&["web", "web\0two"]);
    let error = to_bytes_for_c(&cut).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::NulInString { at: 3 });
    assert!(
        error
            .to_string()
            .starts_with("names[1]: byte 3 of the string is NUL"),
        "{error}"
    );
    // XDR itself has nothing against it.
    assert_eq!(to_bytes("a\0").unwrap(), b"\0\0\0\x02a\0\0\0");
}
