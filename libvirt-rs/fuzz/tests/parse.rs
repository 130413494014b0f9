//! The seeds of the parser's target, and the project's own interface files.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use libvirt_fuzz::{parse, seeds};

#[test]
fn every_seed_is_taken_or_refused_as_it_should_be() {
    assert!(seeds::replay("parse/taken", |input| assert!(parse::run(input))).unwrap() > 0);
    assert!(seeds::replay("parse/refused", |input| assert!(!parse::run(input))).unwrap() > 0);
}
