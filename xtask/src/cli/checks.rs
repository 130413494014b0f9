//! `cargo xtask test` and `cargo xtask bench`: all that they need is built first, then cargo runs them.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::thread;

use anyhow::{Context, Result, anyhow};
use xtask::build::{self, Profile};
use xtask::command;
use xtask::image::Image;
use xtask::tools::{self, Scope};

/// Runs the tests of all packages.
pub(super) fn test(arguments: &[String]) -> Result<()> {
    tools::ensure(Scope::All)?;
    let host = [
        build::BRIDGE,
        build::TEST_AGENT,
        build::AGENT,
        build::EMBEDDED,
    ];
    // So that no test waits for the minutes that its disk takes. Most of them it waits itself, for the archive and the disk.
    let system = thread::spawn(|| Image::builder().on_disk().build());
    let mut prebuilt = Vec::new();
    let are_all = arguments.iter().all(|word| word == "--no-fail-fast");
    let mut built = if are_all {
        eprintln!("xtask: building the tests");
        // cargo builds every package's examples as well, unless it is to run some tests only.
        prebuilt.push(build::examples_folder());
        build::tests(&host)?
    } else {
        build::host(Profile::Dev, &host)?
    };
    eprintln!("xtask: building the guests' programs and images");
    built.extend(build::guest(&[build::AGENT])?);
    built.extend(build::guest_for_tests(&[build::TEST_AGENT, build::RAW])?);
    // Downloads the kernel; the tests add their own binaries to it.
    Image::builder().build()?;
    system
        .join()
        .map_err(|_| anyhow!("building the guest's system has panicked"))??;
    prebuilt.extend(built.into_iter().map(|(_, path)| path));
    let mut cargo = build::cargo_program();
    cargo
        .args(["test", "--workspace"])
        .args(arguments)
        .env(build::PREBUILT, list(prebuilt)?);
    command::run(&mut cargo)
}

/// Runs the benchmarks.
pub(super) fn bench(arguments: &[String]) -> Result<()> {
    tools::ensure(Scope::All)?;
    let host = [build::BRIDGE, build::TEST_AGENT];
    let mut built = build::host(Profile::Release, &host)?;
    let variables = ["VBRIDGE_BIN", "VBRIDGE_TEST_AGENT_BIN"];
    let paths = built.iter().map(|(_, path)| path.clone());
    let named: Vec<_> = variables.into_iter().zip(paths).collect();
    eprintln!("xtask: building the guest's programs and image");
    // All as they are shipped: they are measured.
    built.extend(build::guest(&[
        build::AGENT,
        build::TEST_AGENT,
        build::RAW,
    ])?);
    Image::builder().build()?;
    let mut cargo = build::cargo_program();
    cargo
        .args(["run", "--release", "--package", "vbridge-benches", "--"])
        .args(arguments);
    // The tests' framework would take the debug builds.
    cargo.envs(named);
    cargo.env(
        build::PREBUILT,
        list(built.into_iter().map(|(_, path)| path))?,
    );
    command::run(&mut cargo)
}

/// The list for [`build::PREBUILT`].
fn list(paths: impl IntoIterator<Item = PathBuf>) -> Result<OsString> {
    env::join_paths(paths).context("the target directory's path holds a colon")
}
