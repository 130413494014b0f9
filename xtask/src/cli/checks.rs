//! `cargo xtask test` and `cargo xtask bench`: all that they need is built first, then cargo runs them.

use anyhow::Result;
use xtask::build::{self, Profile};
use xtask::command;
use xtask::image::Image;
use xtask::tools::{self, Scope};

/// Runs the tests of all packages.
pub(super) fn test(arguments: &[String]) -> Result<()> {
    tools::ensure(Scope::All)?;
    prepare(Profile::Dev)?;
    let mut cargo = build::cargo_program();
    cargo
        .args(["test", "--workspace"])
        .args(arguments)
        .env(build::PREBUILT, "1");
    command::run(&mut cargo)
}

/// Runs the benchmarks.
pub(super) fn bench(arguments: &[String]) -> Result<()> {
    tools::ensure(Scope::Guest)?;
    prepare(Profile::Release)?;
    let mut cargo = build::cargo_program();
    cargo
        .args(["run", "--release", "--package", "vbridge-benches", "--"])
        .args(arguments);
    cargo.env(build::PREBUILT, "1");
    command::run(&mut cargo)
}

fn prepare(host: Profile) -> Result<()> {
    eprintln!("xtask: building the programs and the guest's image");
    build::host(host, &[build::BRIDGE])?;
    build::guest(&build::GUEST_TEST_BINARIES)?;
    Image::standard()?;
    Ok(())
}
