//! The examples of RFC 4506.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use libvirt_xdr::{As, Boxed, Maybe, Opaque, Plain, Ref, Seed, Text, from_bytes, to_bytes};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, SeqAccess, Visitor},
};

/// Section 7: `union filetype switch (filekind kind)`, with the discriminants 0, 1 and 2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum FileType {
    Text,
    Data(#[serde(with = "As::<Text<255>>")] String),
    Exec(#[serde(with = "As::<Text<255>>")] String),
}

/// Section 7: `struct file`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct File {
    #[serde(with = "As::<Text<255>>")]
    filename: String,
    r#type: FileType,
    #[serde(with = "As::<Text<32>>")]
    owner: String,
    #[serde(with = "As::<Opaque<65535>>")]
    data: Vec<u8>,
}

fn sillyprog() -> (File, [u8; 48]) {
    let file = File {
        filename: "sillyprog".into(),
        r#type: FileType::Exec("lisp".into()),
        owner: "john".into(),
        data: b"(quit)".into(),
    };
    let bytes = *b"\x00\x00\x00\x09sillyprog\x00\x00\x00\
        \x00\x00\x00\x02\x00\x00\x00\x04lisp\
        \x00\x00\x00\x04john\
        \x00\x00\x00\x06(quit)\x00\x00";
    (file, bytes)
}

#[test]
fn the_file_of_section_7_is_encoded_as_shown() {
    let (file, bytes) = sillyprog();
    assert_eq!(to_bytes(&file).unwrap(), bytes);
    assert_eq!(from_bytes::<File>(&bytes).unwrap(), file);
}

#[test]
fn the_other_arms_of_its_union_take_what_they_hold() {
    for (arm, bytes) in [
        (FileType::Text, &b"\0\0\0\0"[..]),
        (FileType::Data("cc".into()), b"\0\0\0\x01\0\0\0\x02cc\0\0"),
    ] {
        assert_eq!(to_bytes(&arm).unwrap(), bytes);
        assert_eq!(from_bytes::<FileType>(bytes).unwrap(), arm);
    }
}

#[test]
fn an_arm_that_the_union_has_not_is_refused_where_it_stands() {
    let (_, mut bytes) = sillyprog();
    bytes[19] = 3;
    let error = from_bytes::<File>(&bytes).unwrap_err();
    assert_eq!(error.offset(), Some(16));
    assert!(
        error.to_string().starts_with("at byte 16: type: "),
        "{error}"
    );
}

#[test]
fn the_file_is_refused_wherever_it_is_cut_off() {
    let (_, bytes) = sillyprog();
    for len in 0..bytes.len() {
        let error = from_bytes::<File>(&bytes[..len]).unwrap_err();
        assert!(error.offset().unwrap() <= len, "{len}: {error}");
    }
}

/// Section 4.3: `enum { RED = 2, YELLOW = 3, BLUE = 5 } colors`. The numbers have a gap, so they go through `i32`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(i32)]
enum Color {
    Red = 2,
    Yellow = 3,
    Blue = 5,
}

impl Serialize for Color {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i32(*self as i32)
    }
}

impl<'de> Deserialize<'de> for Color {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = i32::deserialize(deserializer)?;
        [Self::Red, Self::Yellow, Self::Blue]
            .into_iter()
            .find(|&color| color as i32 == number)
            .ok_or_else(|| D::Error::custom(format_args!("no color has the number {number}")))
    }
}

#[test]
fn the_colors_of_section_4_3_have_their_own_numbers() {
    for (color, number) in [(Color::Red, 2), (Color::Yellow, 3), (Color::Blue, 5)] {
        let bytes = [0, 0, 0, number];
        assert_eq!(to_bytes(&color).unwrap(), bytes);
        assert_eq!(from_bytes::<Color>(&bytes).unwrap(), color);
    }
    let error = from_bytes::<Color>(&[0, 0, 0, 4]).unwrap_err();
    assert_eq!(error.to_string(), "at byte 4: no color has the number 4");
}

/// Section 4.15: a union whose discriminants are the numbers of an enum, with a void arm.
#[derive(Debug, PartialEq)]
enum Paint {
    Red,
    Blue(String),
}

impl Serialize for Paint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Red => (Color::Red,).serialize(serializer),
            Self::Blue(name) => (Color::Blue, Ref::<Text<8>>(name)).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Paint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Arms;
        impl<'de> Visitor<'de> for Arms {
            type Value = Paint;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a paint")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Paint, A::Error> {
                match access.next_element()?.unwrap() {
                    Color::Red => Ok(Paint::Red),
                    Color::Yellow => Err(A::Error::custom("there is no yellow paint")),
                    Color::Blue => {
                        let name = access.next_element_seed(Seed::<Text<8>>::new())?;
                        Ok(Paint::Blue(name.unwrap()))
                    }
                }
            }
        }
        deserializer.deserialize_tuple(2, Arms)
    }
}

#[test]
fn a_union_as_in_section_4_15_may_have_any_discriminants_and_void_arms() {
    let paints = vec![Paint::Red, Paint::Blue("sky".into()), Paint::Red];
    let bytes = b"\0\0\0\x03\0\0\0\x02\0\0\0\x05\0\0\0\x03sky\0\0\0\0\x02";
    assert_eq!(to_bytes(&paints).unwrap(), bytes);
    assert_eq!(from_bytes::<Vec<Paint>>(bytes).unwrap(), paints);
    let error = from_bytes::<Paint>(&[0, 0, 0, 3]).unwrap_err();
    assert_eq!(error.to_string(), "at byte 4: there is no yellow paint");
}

/// Section 4.19: `struct *stringlist { string item<>; stringlist next; }`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct StringEntry {
    #[serde(with = "As::<Text<{ usize::MAX }>>")]
    item: String,
    #[serde(with = "As::<StringList>")]
    next: Option<Box<StringEntry>>,
}

type StringList = Maybe<Boxed<Plain<StringEntry>>>;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Strings(#[serde(with = "As::<StringList>")] Option<Box<StringEntry>>);

#[test]
fn the_linked_list_of_section_4_19_is_a_chain_of_optional_values() {
    let entry = |item: &str, next| {
        Some(Box::new(StringEntry {
            item: item.into(),
            next,
        }))
    };
    let list = Strings(entry("one", entry("four", None)));
    let bytes = b"\0\0\0\x01\0\0\0\x03one\0\0\0\0\x01\0\0\0\x04four\0\0\0\0";
    assert_eq!(to_bytes(&list).unwrap(), bytes);
    assert_eq!(from_bytes::<Strings>(bytes).unwrap(), list);

    // As the section says, it looks like an array with a mark before each element and one at the end.
    assert_eq!(to_bytes(&Strings(None)).unwrap(), [0; 4]);
}

#[test]
fn a_hyper_is_two_words_the_high_one_first() {
    assert_eq!(
        to_bytes(&0x0102_0304_0506_0708_i64).unwrap(),
        [1, 2, 3, 4, 5, 6, 7, 8]
    );
}
