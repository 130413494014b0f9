//! Input made to hurt: lengths that lie, depth without end, and how much memory they get.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Debug;

use libvirt_xdr::{
    As, Boxed, ErrorKind, FixedList, FixedOpaque, List, Maybe, Opaque, Plain, Text, from_bytes,
    limits::MAX_DEPTH, to_bytes,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

type Free<C> = List<C, { usize::MAX }>;

/// Every kind of length, with and without codecs; bounds that stop nothing, so that the input's length must.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Lengths {
    string: String,
    list: Vec<u64>,
    #[serde(with = "As::<Text<{ usize::MAX }>>")]
    text: String,
    #[serde(with = "As::<Opaque<{ usize::MAX }>>")]
    opaque: Vec<u8>,
    #[serde(with = "As::<Free<Plain<[u64; 16]>>>")]
    wide: Vec<[u64; 16]>,
    #[serde(with = "As::<Free<Text<255>>>")]
    texts: Vec<String>,
    #[serde(with = "As::<Free<Free<FixedOpaque<16>>>>")]
    nested: Vec<Vec<[u8; 16]>>,
    #[serde(with = "As::<Maybe<Opaque<{ usize::MAX }>>>")]
    optional: Option<Vec<u8>>,
}

fn lengths() -> Lengths {
    Lengths {
        string: "string".into(),
        list: vec![1, 2],
        text: "text".into(),
        opaque: vec![3; 5],
        wide: vec![[4; 16]],
        texts: vec!["a".into(), "bc".into()],
        nested: vec![vec![[5; 16]; 2], vec![]],
        optional: Some(vec![6; 3]),
    }
}

/// Where a length stands in them, or the mark of an optional value.
const LENGTHS: [usize; 13] = [0, 12, 32, 40, 52, 184, 188, 196, 204, 208, 244, 248, 252];

#[test]
fn a_huge_length_in_any_place_is_refused_and_gets_no_memory() {
    let bytes = to_bytes(&lengths()).unwrap();
    assert_eq!(from_bytes::<Lengths>(&bytes).unwrap(), lengths());
    for huge in [
        u32::MAX,
        u32::MAX - 3,
        0x8000_0000,
        0x7fff_ffff,
        0x4000_0000,
        0x0100_0000,
    ] {
        for at in LENGTHS {
            let mut bytes = bytes.clone();
            bytes[at..at + 4].copy_from_slice(&huge.to_be_bytes());
            let error = from_bytes::<Lengths>(&bytes).unwrap_err();
            // At the length, or at the missing data behind it.
            let offset = error.offset().unwrap();
            assert!(offset == at || offset == at + 4, "{at}: {error}");
        }
    }
    assert_little_memory();
}

#[test]
fn a_list_as_long_as_its_input_allows_gets_memory_as_its_elements_arrive() {
    // Four bytes an element is what the length is checked against; in memory each takes a kilobyte.
    #[derive(Debug, PartialEq)]
    struct Wide([u64; 128]);
    impl<'de> Deserialize<'de> for Wide {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            match u32::deserialize(deserializer)? {
                7 => Err(serde::de::Error::custom("seven")),
                number => Ok(Self([number.into(); 128])),
            }
        }
    }
    impl Serialize for Wide {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_u32(1)
        }
    }
    #[derive(Debug, Deserialize)]
    struct Reply(#[serde(with = "As::<Free<Plain<Wide>>>")] Vec<Wide>);

    let count = 8 * 1024 * 1024_u32;
    let mut input = vec![0; 4 + 4 * count as usize];
    input[..4].copy_from_slice(&count.to_be_bytes());
    input[4 * 101 + 3] = 7;
    let error = from_bytes::<Reply>(&input).unwrap_err();
    assert_eq!(error.to_string(), "at byte 408: [100]: seven");
    let Reply(few) = from_bytes(b"\0\0\0\x01\0\0\0\x05").unwrap();
    assert_eq!(few, [Wide([5; 128])]);
    assert_little_memory();
}

/// A reservation of what a lying length asks for would be gigabytes of address space, used or not.
#[track_caller]
fn assert_little_memory() {
    if cfg!(target_os = "linux") {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmPeak:"));
        let kib: u64 = peak
            .unwrap()
            .trim()
            .strip_suffix(" kB")
            .unwrap()
            .parse()
            .unwrap();
        // The tests themselves take some; an arena of the allocator for each thread is most of it.
        assert!(kib < 2 * 1024 * 1024, "{kib} KiB");
    }
}

#[track_caller]
fn refuses<T: DeserializeOwned + Debug>(bytes: &[u8], offset: usize, kind: &ErrorKind) {
    let error = from_bytes::<T>(bytes).unwrap_err();
    assert_eq!((error.offset(), error.kind()), (Some(offset), kind));
}

#[test]
fn a_length_beyond_the_input_is_refused_before_an_element_is_read() {
    let truncated = |needed, left| ErrorKind::Truncated { needed, left };
    refuses::<Vec<u32>>(b"\0\0\0\x03\0\0\0\x01\0\0\0\x02", 4, &truncated(12, 8));
    refuses::<Vec<bool>>(b"\0\0\0\x03\0\0\0\x07", 4, &truncated(12, 4));
    refuses::<String>(b"\0\0\0\x05abcd", 4, &truncated(8, 4));
    refuses::<String>(b"\xff\xff\xff\xff", 4, &truncated(1 << 32, 0));
    refuses::<u32>(b"\0\0\0", 0, &truncated(4, 3));
    refuses::<u64>(b"\0\0\0\0", 0, &truncated(8, 4));
    refuses::<u8>(b"", 0, &truncated(4, 0));
}

#[test]
fn a_length_over_its_bound_is_refused_even_if_the_input_ends_first() {
    #[derive(Debug, Deserialize)]
    struct Short(#[serde(with = "As::<Text<255>>")] String);
    let kind = ErrorKind::TooManyBytes {
        len: u32::MAX as usize,
        max: 255,
    };
    refuses::<Short>(b"\xff\xff\xff\xff", 0, &kind);
    // And before what it holds is looked at.
    let kind = ErrorKind::TooManyBytes { len: 256, max: 255 };
    refuses::<Short>(&[&[0, 0, 1, 0][..], &[0xff; 256]].concat(), 0, &kind);
    assert!(matches!(from_bytes::<Short>(&[0; 4]), Ok(Short(text)) if text.is_empty()));
}

#[test]
fn elements_without_bytes_neither_spin_nor_travel() {
    let kind = ErrorKind::Truncated {
        needed: u32::MAX as usize * 4,
        left: 0,
    };
    refuses::<Vec<()>>(&[0xff; 4], 4, &kind);
    refuses::<Vec<[u32; 0]>>(&[0xff; 4], 4, &kind);

    #[derive(Debug, Serialize, Deserialize)]
    struct Empties(#[serde(with = "As::<Free<FixedList<FixedOpaque<0>, 9>>>")] Vec<[[u8; 0]; 9]>);
    refuses::<Empties>(&[0xff; 4], 4, &kind);

    for result in [to_bytes(&vec![(); 3]), to_bytes(&Empties(vec![[[]; 9]]))] {
        assert_eq!(result.unwrap_err().kind(), &ErrorKind::EmptyElements);
    }
    // Neither do they borrow the bytes of what comes behind them.
    refuses::<(Vec<()>, u32)>(&[0, 0, 0, 1, 0, 0, 0, 9], 4, &ErrorKind::EmptyElements);
    refuses::<(Empties, u32)>(&[0, 0, 0, 1, 0, 0, 0, 9], 4, &ErrorKind::EmptyElements);
    // None of them is no harm.
    assert_eq!(to_bytes(&Vec::<()>::new()).unwrap(), [0; 4]);
    assert_eq!(from_bytes::<Vec<()>>(&[0; 4]).unwrap(), []);
}

/// Recursive through a codec.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Entry {
    #[serde(with = "As::<Maybe<Boxed<Plain<Entry>>>>")]
    next: Option<Box<Entry>>,
}

/// Recursive through lists.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Tree(Vec<Tree>);

/// Recursive through an enum, without a codec.
#[derive(Debug, Default, Serialize, Deserialize)]
enum Chain {
    #[default]
    End,
    Link(Box<Chain>),
    Pair(Box<Chain>, u32),
    Named {
        next: Box<Chain>,
    },
}

/// As deep as is allowed is taken, and one deeper refused, in both directions. `word` leads one level down.
#[track_caller]
fn depth<T: Serialize + DeserializeOwned + Debug + Default>(
    word: u32,
    allowed: usize,
    deepen: impl Fn(T) -> T,
) {
    let mut value = T::default();
    for _ in 0..allowed {
        value = deepen(value);
    }
    let bytes = to_bytes(&value).unwrap();
    from_bytes::<T>(&bytes).unwrap();

    let deeper = [&word.to_be_bytes(), &bytes[..]].concat();
    for error in [
        from_bytes::<T>(&deeper).unwrap_err(),
        to_bytes(&deepen(value)).unwrap_err(),
    ] {
        assert_eq!(error.kind(), &ErrorKind::TooDeep);
    }
    // However deep it goes: the decoder stops where the limit is.
    let endless = word.to_be_bytes().repeat(1_000_000);
    let error = from_bytes::<T>(&endless).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::TooDeep);
}

#[test]
fn depth_is_limited_whatever_a_type_contains_itself_through() {
    depth(1, MAX_DEPTH, |entry| Entry {
        next: Some(Box::new(entry)),
    });
    // An empty list is a level, too.
    depth(1, MAX_DEPTH - 1, |tree| Tree(vec![tree]));
    depth(1, MAX_DEPTH, |chain| Chain::Link(Box::new(chain)));
    depth(3, MAX_DEPTH, |next| {
        let next = Box::new(next);
        Chain::Named { next }
    });
    depth(2, MAX_DEPTH, |chain| Chain::Pair(Box::new(chain), 0));
}

#[test]
fn levels_side_by_side_are_not_depth() {
    let many = vec![Some(vec![Some(1_u32)]); 10 * MAX_DEPTH];
    let bytes = to_bytes(&many).unwrap();
    assert_eq!(
        from_bytes::<Vec<Option<Vec<Option<u32>>>>>(&bytes).unwrap(),
        many
    );
    let chains: Vec<_> = (0..10 * MAX_DEPTH)
        .map(|_| {
            (
                Chain::Pair(Box::new(Chain::End), 1),
                Chain::Named {
                    next: Box::default(),
                },
            )
        })
        .collect();
    let bytes = to_bytes(&chains).unwrap();
    assert_eq!(
        from_bytes::<Vec<(Chain, Chain)>>(&bytes).unwrap().len(),
        chains.len()
    );
}
