//! Runs other programs, with errors that name the command and quote what it said.

use std::env;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Runs a command on the caller's terminal.
///
/// # Errors
/// It can't be started, or ends with a status other than 0.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command
        .status()
        .with_context(|| format!("cannot run `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed: {status}");
    }
    Ok(())
}

/// Runs a command and returns what it wrote to its standard output.
///
/// # Errors
/// It can't be started, or ends with a status other than 0; the error quotes its standard error.
pub fn capture(command: &mut Command) -> Result<Vec<u8>> {
    let shown = show(command);
    let output = command
        .output()
        .with_context(|| format!("cannot run `{shown}`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{shown}` failed: {}: {}", output.status, said.trim());
    }
    Ok(output.stdout)
}

/// As [`capture`], as text.
///
/// # Errors
/// As [`capture`].
pub fn capture_text(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&capture(command)?).into_owned())
}

/// The path of a program: looked up in `PATH`, then where Debian has administrators' programs.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| {
            file.metadata()
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
}

fn show(command: &Command) -> String {
    let mut words = vec![command.get_program()];
    words.extend(command.get_args());
    words
        .into_iter()
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}
