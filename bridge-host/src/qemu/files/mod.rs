//! `Files`: content, read and written through handles of the agent. It knows nothing else of files.
//!
//! | module | what it decides |
//! |---|---|
//! | this one | what a path may be, and what is known of a file |
//! | `handle` | an open file, which is closed whatever happens |
//! | `digest` | digests of what passes |
//! | `read` | content and digests of it |
//! | `write` | uploads |

mod digest;
#[cfg(test)]
mod disk;
mod handle;
mod read;
mod write;

use tonic::Status;
use vbridge_api::guest::v1::FileInfo;

pub(super) use read::{checksum, read};
pub(super) use write::write;

use super::{agent::text, refusal::invalid};

/// Bytes of a path, as `files.proto` promises.
const MAX_PATH: usize = 4096;

/// Checks a path: absolute, as Linux or Windows has it.
fn check_path(field: &str, path: &str) -> Result<(), Status> {
    if path.len() > MAX_PATH {
        let description = format!("has {} bytes, and {MAX_PATH} is the most", path.len());
        return Err(invalid(field, description));
    }
    let is_drive = path.as_bytes().first().is_some_and(u8::is_ascii_alphabetic)
        && matches!(path.as_bytes().get(1..3), Some([b':', b'/' | b'\\']));
    if !path.starts_with('/') && !is_drive {
        return Err(invalid(field, "must be an absolute path"));
    }
    if path.contains('\0') {
        return Err(invalid(field, "must not have a NUL"));
    }
    match path.split(separators(is_drive)).any(|part| part == "..") {
        true => Err(invalid(field, "must not have \"..\"")),
        false => Ok(()),
    }
}

fn separators(is_drive: bool) -> &'static [char] {
    match is_drive {
        true => &['/', '\\'],
        false => &['/'],
    }
}

/// What is known of a file: its name, and how many bytes it has.
fn info(path: &str, size: u64) -> FileInfo {
    let name = path.trim_end_matches('/');
    let is_drive = !path.starts_with('/');
    let name = name.rsplit(separators(is_drive)).next().unwrap_or(name);
    FileInfo {
        name: match name {
            "" => "/".to_owned(),
            name => text(name.to_owned()),
        },
        size,
        ..FileInfo::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_absolute_and_lead_nowhere_else() {
        for path in ["/x", "/", "/a..b", "C:\\x", "c:/x", "/a\\..\\b"] {
            assert!(check_path("path", path).is_ok(), "{path}");
        }
        let long = format!("/{}", "x".repeat(MAX_PATH));
        for path in [
            "",
            "x",
            "./x",
            "/..",
            "/a/../b",
            "C:",
            "C:x",
            "C:\\..\\x",
            "C:/..",
            "1:/x",
            "/a\0",
            &long,
        ] {
            assert!(check_path("path", path).is_err(), "{path}");
        }
    }

    #[test]
    fn a_file_is_named_by_the_end_of_its_path() {
        for (path, name) in [
            ("/a/b", "b"),
            ("/", "/"),
            ("/a\\b", "a\\b"),
            ("C:\\a\\b", "b"),
        ] {
            assert_eq!(info(path, 1).name, name);
        }
    }
}
