//! The seeds of the state machine's target.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use libvirt_fuzz::{packets, seeds};

#[test]
fn every_seed_is_taken_or_refused_as_it_should_be() {
    assert!(seeds::replay("packets/taken", |input| assert!(packets::run(input))).unwrap() > 10);
    assert!(seeds::replay("packets/refused", |input| assert!(!packets::run(input))).unwrap() > 0);
}
