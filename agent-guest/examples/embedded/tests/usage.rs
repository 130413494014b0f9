//! The program, as it is called wrongly.

use std::process::Command;

#[test]
fn a_place_that_is_none_is_told_with_the_usage() {
    let program = env!("CARGO_BIN_EXE_vbridge-example-embedded");
    let output = Command::new(program).arg("nowhere").output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("usage: embedded"), "{said}");
}
