//! Decodes and encodes a reply of a thousand domains, beside a decoder that goes byte by byte and one that is as fast as
//! safe code by hand gets.
//!
//! `cargo bench -p libvirt-xdr`. The figures to look at are the ratios: both decoders run in turn on the same machine.
#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a bench fails by panicking, and prints round figures"
)]

mod peers;

use std::{
    fmt,
    hint::black_box,
    time::{Duration, Instant},
};

use libvirt_xdr::{FixedOpaque, List, Plain, Ref, Seed, Text, append, from_bytes, to_bytes};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, SeqAccess, Visitor},
    ser::SerializeStruct as _,
};

use peers::{ByteByByte, by_hand};

type Name = Text<4_194_304>;
type Uuid = FixedOpaque<16>;
type Domains = List<Plain<Domain>, 16_384>;

/// `struct { string name<4194304>; opaque uuid[16]; int id; }`
#[derive(Debug, PartialEq)]
struct Domain {
    name: String,
    uuid: [u8; 16],
    id: i32,
}

/// `struct { domain domains<16384>; unsigned int ret; }`
#[derive(Debug, PartialEq)]
struct Reply {
    domains: Vec<Domain>,
    ret: u32,
}

// What a generator writes for them.

impl Serialize for Domain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Domain", 3)?;
        fields.serialize_field("name", &Ref::<Name>(&self.name))?;
        fields.serialize_field("uuid", &Ref::<Uuid>(&self.uuid))?;
        fields.serialize_field("id", &self.id)?;
        fields.end()
    }
}

impl<'de> Deserialize<'de> for Domain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Domain;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a domain")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut fields: A) -> Result<Domain, A::Error> {
                let missing = |index| A::Error::invalid_length(index, &"3 fields");
                Ok(Domain {
                    name: fields
                        .next_element_seed(Seed::<Name>::new())?
                        .ok_or_else(|| missing(0))?,
                    uuid: fields
                        .next_element_seed(Seed::<Uuid>::new())?
                        .ok_or_else(|| missing(1))?,
                    id: fields.next_element()?.ok_or_else(|| missing(2))?,
                })
            }
        }
        deserializer.deserialize_struct("Domain", &["name", "uuid", "id"], Fields)
    }
}

impl Serialize for Reply {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Reply", 2)?;
        fields.serialize_field("domains", &Ref::<Domains>(&self.domains))?;
        fields.serialize_field("ret", &self.ret)?;
        fields.end()
    }
}

impl<'de> Deserialize<'de> for Reply {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Reply;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a reply")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut fields: A) -> Result<Reply, A::Error> {
                let missing = |index| A::Error::invalid_length(index, &"2 fields");
                Ok(Reply {
                    domains: fields
                        .next_element_seed(Seed::<Domains>::new())?
                        .ok_or_else(|| missing(0))?,
                    ret: fields.next_element()?.ok_or_else(|| missing(1))?,
                })
            }
        }
        deserializer.deserialize_struct("Reply", &["domains", "ret"], Fields)
    }
}

fn main() {
    // `cargo test --benches` only sees that it runs.
    let rounds = if std::env::args().any(|argument| argument == "--bench") {
        2_000
    } else {
        1
    };
    let reply = reply(1_000);
    let input = to_bytes(&reply).unwrap();

    let mut samples = [const { Vec::new() }; 4];
    let mut out = Vec::with_capacity(input.len());
    for _ in 0..rounds {
        let [decode, byte_by_byte, hand, encode] = &mut samples;
        decode.push(time(|| from_bytes::<Reply>(black_box(&input)).unwrap()));
        byte_by_byte.push(time(|| {
            let mut decoder = ByteByByte::new(black_box(&input));
            decoder.reply(domain).map(decoded).unwrap()
        }));
        hand.push(time(|| {
            by_hand(black_box(&input), domain).map(decoded).unwrap()
        }));
        encode.push(time(|| {
            out.clear();
            append(black_box(&reply), &mut out).unwrap();
        }));
    }
    assert_eq!(out, input);
    assert_eq!(from_bytes::<Reply>(&input).unwrap(), reply);
    assert_eq!(by_hand(&input, domain).map(decoded).unwrap(), reply);

    let [decode, byte_by_byte, hand, encode] = samples.map(median);
    println!("1000 domains, {} bytes, medians of {rounds}", input.len());
    for (what, time) in [
        ("decode", decode),
        ("decode, byte by byte", byte_by_byte),
        ("decode, by hand", hand),
        ("encode", encode),
    ] {
        let rate = input.len() as f64 / time.as_secs_f64() / 1e6;
        let ratio = byte_by_byte.as_secs_f64() / time.as_secs_f64();
        println!("{what:22} {time:>10.1?} {rate:>7.0} MB/s {ratio:>6.2} × byte by byte");
    }
}

/// A reply with so many domains.
fn reply(count: u16) -> Reply {
    decoded((peers::domains(count, domain), count.into()))
}

fn domain(name: String, uuid: [u8; 16], id: i32) -> Domain {
    Domain { name, uuid, id }
}

/// From what the peers decode.
fn decoded((domains, ret): (Vec<Domain>, u32)) -> Reply {
    Reply { domains, ret }
}

/// How long `run` takes. Its value is dropped afterwards.
fn time<T>(run: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    let value = black_box(run());
    let time = start.elapsed();
    drop(value);
    time
}

fn median(mut samples: Vec<Duration>) -> Duration {
    samples.sort_unstable();
    samples[samples.len() / 2]
}
