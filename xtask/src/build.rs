//! Builds our own programs with cargo: static ones for the guest, ordinary ones for the host.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::{command, workspace};

/// Set by `cargo xtask test` and `bench`, which build everything first: the tests' own processes then
/// only look whether the file is there, and do not wait for cargo's lock.
pub const PREBUILT: &str = "VBRIDGE_PREBUILT";

/// The guest is Debian amd64. glibc links statically as well.
const GUEST_TARGET: &str = "x86_64-unknown-linux-gnu";

const GUEST_PROFILE: &str = "guest";

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

/// How a program of the host is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// For tests and the demo.
    Dev,
    /// For benchmarks.
    Release,
}

/// Builds static binaries for the guest. Returns each with its path.
///
/// Blocks; in async code use `spawn_blocking`.
///
/// # Errors
/// cargo fails, or an expected file is not there.
pub fn guest(binaries: &[Binary]) -> Result<Vec<(Binary, PathBuf)>> {
    let directory = workspace::target_dir()
        .join(GUEST_TARGET)
        .join(GUEST_PROFILE);
    let mut cargo = cargo();
    cargo.env("RUSTFLAGS", GUEST_RUSTFLAGS);
    // It would win over RUSTFLAGS.
    cargo.env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo.args(["--profile", GUEST_PROFILE, "--target", GUEST_TARGET]);
    build(cargo, &directory, binaries)
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
    let mut cargo = cargo();
    cargo.args(["--profile", name]);
    build(cargo, &workspace::target_dir().join(directory), binaries)
}

/// `cargo`, in the workspace. The one that runs us, if any: it has the right toolchain.
pub fn cargo_program() -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command.current_dir(workspace::root());
    command
}

fn cargo() -> Command {
    let mut command = cargo_program();
    command.args(["build", "--quiet"]);
    command
}

fn build(
    mut cargo: Command,
    directory: &Path,
    binaries: &[Binary],
) -> Result<Vec<(Binary, PathBuf)>> {
    let built: Vec<(Binary, PathBuf)> = binaries
        .iter()
        .map(|binary| (*binary, directory.join(binary.name)))
        .collect();
    let prebuilt = env::var_os(PREBUILT).is_some() && built.iter().all(|(_, path)| path.exists());
    if !prebuilt && !binaries.is_empty() {
        for binary in binaries {
            cargo.args(["--package", binary.package, "--bin", binary.name]);
        }
        command::run(&mut cargo)?;
    }
    for (binary, path) in &built {
        if !path.exists() {
            bail!(
                "cargo built {} of {} but {} is not there",
                binary.name,
                binary.package,
                path.display()
            );
        }
    }
    Ok(built)
}
