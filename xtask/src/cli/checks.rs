//! `cargo xtask test` and `cargo xtask bench`: all that they need is built first, then cargo runs them.

use std::env;
use std::ffi::OsString;

use anyhow::{Context, Result};
use xtask::build::{self, Profile};
use xtask::command;
use xtask::image::Image;
use xtask::tools::{self, Scope};

/// Runs the tests of all packages.
pub(super) fn test(arguments: &[String]) -> Result<()> {
    tools::ensure(Scope::All)?;
    let prebuilt = prepare(Profile::Dev)?;
    let mut cargo = build::cargo_program();
    cargo
        .args(["test", "--workspace"])
        .args(arguments)
        .env(build::PREBUILT, prebuilt);
    command::run(&mut cargo)
}

/// Runs the benchmarks.
pub(super) fn bench(arguments: &[String]) -> Result<()> {
    tools::ensure(Scope::Guest)?;
    let prebuilt = prepare(Profile::Release)?;
    let mut cargo = build::cargo_program();
    cargo
        .args(["run", "--release", "--package", "vbridge-benches", "--"])
        .args(arguments);
    cargo.env(build::PREBUILT, prebuilt);
    command::run(&mut cargo)
}

/// Builds what is run on both sides. Returns the list for [`build::PREBUILT`].
fn prepare(host: Profile) -> Result<OsString> {
    eprintln!("xtask: building the programs and the guest's image");
    let mut built = build::host(host, &[build::BRIDGE, build::TEST_AGENT])?;
    built.extend(build::guest(&[
        build::AGENT,
        build::TEST_AGENT,
        build::RAW,
    ])?);
    // Downloads the kernel; the tests add their own binaries to it.
    Image::builder().build()?;
    env::join_paths(built.into_iter().map(|(_, path)| path))
        .context("the target directory's path holds a colon")
}
