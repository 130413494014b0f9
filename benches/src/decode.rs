//! The decoder on a real reply's type: a thousand domains as `connect_list_all_domains` brings them, beside a decoder that
//! goes byte by byte and one by hand. No daemon takes part.

// The peers are those of `cargo bench -p libvirt-xdr`, which has a type of its own.
#[path = "../../libvirt-rs/xdr/benches/decode/peers.rs"]
mod peers;

use std::{hint::black_box, time::Instant};

use ::libvirt::raw::remote::{ConnectListAllDomainsRet, NonnullDomain};
use anyhow::{Context as _, Result, ensure};
use libvirt_xdr::{from_bytes, to_bytes};

use self::peers::ByteByByte;
use crate::report::{Report, median};

/// Domains of the reply.
const DOMAINS: u16 = 1_000;
/// How often it is decoded for one sample, the median of which counts: what disturbs one of them is not in it.
const TIMES: usize = 500;

/// Bytes a second.
#[derive(Default)]
pub(crate) struct Samples {
    generated: Vec<f64>,
    byte_by_byte: Vec<f64>,
    by_hand: Vec<f64>,
}

fn domain(name: String, uuid: [u8; 16], id: i32) -> NonnullDomain {
    NonnullDomain { name, uuid, id }
}

/// From what the peers decode.
fn reply((domains, ret): (Vec<NonnullDomain>, u32)) -> ConnectListAllDomainsRet {
    ConnectListAllDomainsRet { domains, ret }
}

impl Samples {
    /// Takes one of each, in turn.
    pub(crate) fn take(&mut self) -> Result<()> {
        let expected = reply((peers::domains(DOMAINS, domain), DOMAINS.into()));
        let input = to_bytes(&expected)?;
        let mut times = [const { Vec::new() }; 3];
        for _ in 0..TIMES {
            let [generated, byte_by_byte, by_hand] = &mut times;
            let input = black_box(&input[..]);
            generated.push(time(|| Ok(from_bytes(input)?), &expected)?);
            let decode = || ByteByByte::new(input).reply(domain).map(reply);
            byte_by_byte.push(time(|| decode().map_err(anyhow::Error::msg), &expected)?);
            let decode = || peers::by_hand(input, domain).map(reply);
            by_hand.push(time(|| decode().context("it is none"), &expected)?);
        }
        let [generated, byte_by_byte, by_hand] =
            times.map(|times| input.len() as f64 / median(&times));
        self.generated.push(generated);
        self.byte_by_byte.push(byte_by_byte);
        self.by_hand.push(by_hand);
        Ok(())
    }

    pub(crate) fn report(self, report: &mut Report) {
        let bytes = report.rate("decode 1,000 domains, byte by byte", self.byte_by_byte);
        let hand = report.rate("... by hand", self.by_hand);
        let generated = report.rate("... by the generated types", self.generated);
        report.compare("decode / byte by byte", generated / bytes);
        report.compare("decode / by hand", generated / hand);
    }
}

/// The seconds that a decoder takes, without what becomes of its value.
fn time(
    decode: impl FnOnce() -> Result<ConnectListAllDomainsRet>,
    expected: &ConnectListAllDomainsRet,
) -> Result<f64> {
    let started = Instant::now();
    let decoded = black_box(decode()?);
    let seconds = started.elapsed().as_secs_f64();
    ensure!(decoded == *expected, "it was decoded wrong");
    Ok(seconds)
}
