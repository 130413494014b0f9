//! The seeds of the decoder's target.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use libvirt_fuzz::{decode, seeds};

#[test]
fn every_seed_is_taken_or_refused_as_it_should_be() {
    assert!(seeds::replay("decode/taken", |input| assert!(decode::run(input))).unwrap() > 20);
    assert!(seeds::replay("decode/refused", |input| assert!(!decode::run(input))).unwrap() > 0);
}
