//! Builds our own programs with cargo: static ones for the guest, ordinary ones and examples for the host.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::{command, workspace};

/// Set by `cargo xtask test` and `bench` to the programs, and folders of programs, that are built already: a list as in
/// `PATH`. The tests' own processes take these as they are, and do not wait for cargo's lock.
pub const PREBUILT: &str = "VBRIDGE_PREBUILT";

/// The guest is Debian amd64. glibc links statically as well.
const GUEST_TARGET: &str = "x86_64-unknown-linux-gnu";

/// As the agent is shipped.
const GUEST_PROFILE: &str = "guest";

/// For what only tests have in guests: to be built sooner.
const GUEST_TEST_PROFILE: &str = "guest-test";

const GUEST_RUSTFLAGS: &str = "-C target-feature=+crt-static";

/// A program of the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binary {
    /// Cargo's package.
    pub package: &'static str,
    /// The binary's name.
    pub name: &'static str,
}

/// The guest agent.
pub const AGENT: Binary = Binary {
    package: "agent-guest",
    name: "vbridge-agent",
};

/// The bridge, daemon and command line.
pub const BRIDGE: Binary = Binary {
    package: "bridge-host",
    name: "vbridge",
};

/// The agent with the tests' own services.
pub const TEST_AGENT: Binary = Binary {
    package: "vbridge-tests",
    name: "vbridge-test-agent",
};

/// The example that embeds the agent.
pub const EMBEDDED: Binary = Binary {
    package: "vbridge-example-embedded",
    name: "vbridge-example-embedded",
};

/// The raw port's peer.
pub const RAW: Binary = Binary {
    package: "vbridge-tests",
    name: "vbridge-raw",
};

/// How a program of the host is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// For tests and the demo.
    Dev,
    /// For benchmarks.
    Release,
}

/// Builds static binaries for the guest, as they are shipped. Returns each with its path.
///
/// Blocks; in async code use `spawn_blocking`.
///
/// # Errors
/// cargo fails, or an expected file is not there.
pub fn guest(binaries: &[Binary]) -> Result<Vec<(Binary, PathBuf)>> {
    guest_in(GUEST_PROFILE, binaries)
}

/// Finds static binaries for tests in a guest as benchmarks have built them, or builds them faster. Returns each with its
/// path.
///
/// Blocks; in async code use `spawn_blocking`.
///
/// # Errors
/// cargo fails, or an expected file is not there.
pub fn guest_for_tests(binaries: &[Binary]) -> Result<Vec<(Binary, PathBuf)>> {
    let shipped = guest_directory(GUEST_PROFILE);
    let is_there = |binary: &Binary| is_prebuilt(&shipped.join(binary.name));
    match binaries.iter().all(is_there) {
        true => there(&shipped, binaries),
        false => guest_in(GUEST_TEST_PROFILE, binaries),
    }
}

fn guest_in(profile: &str, binaries: &[Binary]) -> Result<Vec<(Binary, PathBuf)>> {
    build(&guest_directory(profile), binaries, &|cargo| {
        cargo.env("RUSTFLAGS", GUEST_RUSTFLAGS);
        // It would win over RUSTFLAGS.
        cargo.env_remove("CARGO_ENCODED_RUSTFLAGS");
        cargo.args(["--profile", profile, "--target", GUEST_TARGET]);
    })
}

fn guest_directory(profile: &str) -> PathBuf {
    workspace::target_dir().join(GUEST_TARGET).join(profile)
}

/// Builds binaries for the host. Returns each with its path.
///
/// Blocks; in async code use `spawn_blocking`.
///
/// # Errors
/// cargo fails, or an expected file is not there.
pub fn host(profile: Profile, binaries: &[Binary]) -> Result<Vec<(Binary, PathBuf)>> {
    let (name, directory) = match profile {
        Profile::Dev => ("dev", "debug"),
        Profile::Release => ("release", "release"),
    };
    let directory = workspace::target_dir().join(directory);
    build(&directory, binaries, &|cargo| {
        cargo.args(["--profile", name]);
    })
}

/// Builds all tests, and with them, from the same libraries, the binaries of the packages that have integration tests.
/// Returns each of `binaries` with its path.
///
/// Blocks; in async code use `spawn_blocking`.
///
/// # Errors
/// cargo fails, or an expected file is not there.
pub fn tests(binaries: &[Binary]) -> Result<Vec<(Binary, PathBuf)>> {
    let mut cargo = cargo_program();
    cargo.args(["test", "--quiet", "--workspace", "--no-run"]);
    command::run(&mut cargo)?;
    there(&workspace::target_dir().join("debug"), binaries)
}

/// The folder of a package's examples, which are built unless [`PREBUILT`] names that folder.
///
/// Blocks; in async code use `spawn_blocking`.
///
/// # Errors
/// cargo fails.
pub fn examples(package: &str) -> Result<PathBuf> {
    let folder = examples_folder();
    if !is_prebuilt(&folder) {
        let mut cargo = cargo_program();
        cargo.args(["build", "--quiet", "--package", package, "--examples"]);
        command::run(&mut cargo)?;
    }
    Ok(folder)
}

/// Where cargo puts all packages' examples, of whose names none is given twice.
pub fn examples_folder() -> PathBuf {
    workspace::target_dir().join("debug/examples")
}

/// `cargo`, in the workspace. The one that runs us, if any: it has the right toolchain.
pub fn cargo_program() -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command.current_dir(workspace::root());
    command
}

fn is_prebuilt(path: &Path) -> bool {
    let prebuilt = env::var_os(PREBUILT).unwrap_or_default();
    env::split_paths(&prebuilt).any(|prebuilt| prebuilt == path)
}

fn build(
    directory: &Path,
    binaries: &[Binary],
    configure: &dyn Fn(&mut Command),
) -> Result<Vec<(Binary, PathBuf)>> {
    let is_there = |binary: &Binary| is_prebuilt(&directory.join(binary.name));
    if binaries.iter().all(is_there) {
        return there(directory, binaries);
    }
    // One package at a time: built together, they would get each other's features of what they depend
    // on, and the agent that is tested would not be the one that is shipped.
    let packages: BTreeSet<&str> = binaries.iter().map(|binary| binary.package).collect();
    for package in packages {
        let mut cargo = cargo_program();
        cargo.args(["build", "--quiet", "--package", package]);
        for binary in binaries.iter().filter(|binary| binary.package == package) {
            cargo.args(["--bin", binary.name]);
        }
        configure(&mut cargo);
        command::run(&mut cargo)?;
    }
    there(directory, binaries)
}

/// Each binary with its path, if it is there.
fn there(directory: &Path, binaries: &[Binary]) -> Result<Vec<(Binary, PathBuf)>> {
    let mut built = Vec::with_capacity(binaries.len());
    for binary in binaries {
        let path = directory.join(binary.name);
        if !path.exists() {
            bail!(
                "cargo built {} of {}, but {} is not there",
                binary.name,
                binary.package,
                path.display()
            );
        }
        built.push((*binary, path));
    }
    Ok(built)
}
