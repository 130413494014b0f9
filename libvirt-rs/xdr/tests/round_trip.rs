//! Any value comes back as it was, and any bytes are either a value's only encoding or refused.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use libvirt_xdr::{
    As, Boxed, FixedList, FixedOpaque, List, Maybe, Opaque, Plain, Text, append, from_bytes,
    from_prefix, to_bytes,
};
use proptest::{collection::vec, option, prelude::*, test_runner::RngSeed};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Parameter {
    Int(i32),
    Hyper(i64),
    Double(f64),
    Text(#[serde(with = "As::<Text<40>>")] String),
    Range { low: u64, high: u64 },
    Pair(u16, bool),
    Nothing,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Node {
    #[serde(with = "As::<Text<64>>")]
    name: String,
    #[serde(with = "As::<FixedOpaque<7>>")]
    id: [u8; 7],
    #[serde(with = "As::<Opaque<16>>")]
    data: Vec<u8>,
    #[serde(with = "As::<FixedList<Plain<u8>, 3>>")]
    version: [u8; 3],
    #[serde(with = "As::<List<Plain<Parameter>, 4>>")]
    parameters: Vec<Parameter>,
    #[serde(with = "As::<Maybe<Text<16>>>")]
    title: Option<String>,
    #[serde(with = "As::<List<List<FixedOpaque<2>, 3>, 3>>")]
    pairs: Vec<Vec<[u8; 2]>>,
    #[serde(with = "As::<Maybe<Boxed<Plain<Node>>>>")]
    next: Option<Box<Node>>,
    children: Vec<Node>,
    short: i16,
    ratio: f32,
}

fn parameter() -> impl Strategy<Value = Parameter> {
    prop_oneof![
        any::<i32>().prop_map(Parameter::Int),
        any::<i64>().prop_map(Parameter::Hyper),
        any::<f64>().prop_map(Parameter::Double),
        text(40).prop_map(Parameter::Text),
        any::<(u64, u64)>().prop_map(|(low, high)| Parameter::Range { low, high }),
        any::<(u16, bool)>().prop_map(|(number, flag)| Parameter::Pair(number, flag)),
        Just(Parameter::Nothing),
    ]
}

/// Of at most `max` bytes, with characters of one to four.
fn text(max: usize) -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..=max / 4).prop_map(String::from_iter)
}

fn node() -> impl Strategy<Value = Node> {
    let leaf = (
        (
            text(64),
            any::<[u8; 7]>(),
            vec(any::<u8>(), 0..=16),
            any::<[u8; 3]>(),
        ),
        vec(parameter(), 0..=4),
        option::of(text(16)),
        vec(vec(any::<[u8; 2]>(), 0..=3), 0..=3),
        any::<(i16, f32)>(),
    )
        .prop_map(
            |((name, id, data, version), parameters, title, pairs, (short, ratio))| Node {
                name,
                id,
                data,
                version,
                parameters,
                title,
                pairs,
                next: None,
                children: Vec::new(),
                short,
                ratio,
            },
        )
        .boxed();
    leaf.clone().prop_recursive(4, 12, 3, move |inner| {
        (leaf.clone(), option::of(inner.clone()), vec(inner, 0..3)).prop_map(
            |(node, next, children)| Node {
                next: next.map(Box::new),
                children,
                ..node
            },
        )
    })
}

proptest! {
    // The same values in every run.
    #![proptest_config(ProptestConfig {
        rng_seed: RngSeed::Fixed(4506),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_value_comes_back_as_it_was(node in node()) {
        let bytes = to_bytes(&node).unwrap();
        prop_assert!(bytes.len().is_multiple_of(4));
        prop_assert_eq!(from_bytes::<Node>(&bytes).unwrap(), node);
    }

    #[test]
    fn values_behind_each_other_come_back_one_by_one(nodes in vec(node(), 0..4)) {
        let mut bytes = Vec::new();
        for node in &nodes {
            append(node, &mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        for node in nodes {
            let (value, behind) = from_prefix::<Node>(rest).unwrap();
            prop_assert_eq!(value, node);
            rest = behind;
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn a_value_cut_off_anywhere_is_refused(node in node()) {
        let bytes = to_bytes(&node).unwrap();
        for len in 0..bytes.len() {
            let error = from_bytes::<Node>(&bytes[..len]).unwrap_err();
            prop_assert!(error.offset().unwrap() <= len, "{}", error);
        }
    }

    #[test]
    fn a_changed_word_gives_another_value_or_an_error(
        node in node(),
        at: prop::sample::Index,
        word in prop_oneof![any::<u32>(), 0_u32..8],
    ) {
        let mut bytes = to_bytes(&node).unwrap();
        let at = at.index(bytes.len() / 4) * 4;
        bytes[at..at + 4].copy_from_slice(&word.to_be_bytes());
        match from_bytes::<Node>(&bytes) {
            // One value has one encoding, so that nothing is hidden between the lines.
            Ok(value) => prop_assert_eq!(to_bytes(&value).unwrap(), bytes),
            Err(error) => prop_assert!(error.offset().unwrap() <= bytes.len(), "{}", error),
        }
    }

    #[test]
    fn any_bytes_are_a_value_or_an_error(words in vec(prop_oneof![0_u32..4, any::<u32>()], 0..64)) {
        let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_be_bytes).collect();
        if let Ok((value, rest)) = from_prefix::<Node>(&bytes) {
            prop_assert_eq!(to_bytes(&value).unwrap(), &bytes[..bytes.len() - rest.len()]);
        }
        if let Ok(value) = from_bytes::<Vec<Option<String>>>(&bytes) {
            prop_assert_eq!(to_bytes(&value).unwrap(), bytes);
        }
    }
}
