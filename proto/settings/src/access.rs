//! Whether a path is a file that can be read, and why not.

use std::{
    fs::{self, Metadata},
    io,
    path::Path,
};

/// What the system knows of a regular file. Ask before opening it: to open a pipe is to wait for its other end.
pub(crate) fn regular_file(path: &Path) -> Result<Metadata, String> {
    let metadata = fs::metadata(path).map_err(|error| reason(&error))?;
    if metadata.is_file() {
        return Ok(metadata);
    }
    let kind = if metadata.is_dir() {
        "a directory"
    } else {
        "a device, pipe or socket"
    };
    Err(format!("it is {kind}, not a file"))
}

/// Why a file can't be read, in words.
pub(crate) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "permission denied; let this program's user read it".to_owned()
        }
        _ => error.to_string(),
    }
}
