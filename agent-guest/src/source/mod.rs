//! What the kernel and the installation tell, most of it in files.
//!
//! Most modules hold the parser of one family of files. Parsers take text and give the contract's messages; they skip
//! what they don't understand, because kernels add lines and columns, and guests may run any kernel.

pub(crate) mod accounts;
pub(crate) mod authorized_keys;
pub(crate) mod block;
pub(crate) mod clock;
pub(crate) mod clock_set;
pub(crate) mod cpu;
pub(crate) mod disk;
pub(crate) mod filesystem;
pub(crate) mod hardware;
pub(crate) mod links;
pub(crate) mod listening;
pub(crate) mod memory;
pub(crate) mod mounts;
pub(crate) mod netlink;
pub(crate) mod network;
pub(crate) mod oom;
pub(crate) mod os;
pub(crate) mod passwd;
pub(crate) mod power;
pub(crate) mod pressure;
pub(crate) mod process;
pub(crate) mod program;
pub(crate) mod timezone;
pub(crate) mod users;

use std::{
    borrow::Cow,
    io::{self, Read as _},
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::limits::MAX_SOURCE_FILE;

/// A file that can't be read.
#[derive(Debug, thiserror::Error)]
#[error("can't read {path} in the guest: {error}{}", hint(.path))]
pub(crate) struct SourceError {
    /// Which file.
    path: PathBuf,
    /// What the kernel said.
    error: io::Error,
}

impl SourceError {
    /// Whether the file is not there, as opposed to not readable.
    pub(crate) fn is_missing(&self) -> bool {
        self.error.kind() == io::ErrorKind::NotFound
    }
}

fn hint(path: &Path) -> &'static str {
    if path.starts_with("/proc") {
        " (is /proc mounted?)"
    } else {
        ""
    }
}

/// Reads files below a root directory into a buffer that it keeps.
#[derive(Debug)]
pub(crate) struct Reader {
    /// `/`, but for tests.
    root: PathBuf,
    buffer: Vec<u8>,
}

impl Reader {
    pub(crate) fn new() -> Self {
        Self::below("/")
    }

    pub(crate) fn below(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            buffer: Vec::new(),
        }
    }

    /// The text of the file `path`, which is relative to the root. Bytes that are no UTF-8 are replaced.
    pub(crate) fn read(&mut self, path: &str) -> Result<Cow<'_, str>, SourceError> {
        self.bytes(path).map(String::from_utf8_lossy)
    }

    /// The bytes of the file `path`.
    pub(crate) fn bytes(&mut self, path: &str) -> Result<&[u8], SourceError> {
        let path = self.root.join(path);
        self.buffer.clear();
        let limit = u64::try_from(MAX_SOURCE_FILE).unwrap_or(u64::MAX);
        std::fs::File::open(&path)
            .and_then(|file| file.take(limit).read_to_end(&mut self.buffer))
            .map_err(|error| SourceError { path, error })?;
        Ok(&self.buffer)
    }

    /// The text of a file of one line, without white space around it; empty if it can't be read.
    pub(crate) fn line(&mut self, path: &str) -> String {
        self.read(path)
            .map(|text| text.trim().to_owned())
            .unwrap_or_default()
    }
}

/// A number, or 0 if it is none.
fn number<T: FromStr + Default>(text: &str) -> T {
    text.parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_file_is_named_with_the_likely_cause() {
        let error = Reader::new().read("proc/no/such/file").unwrap_err();
        assert!(error.is_missing());
        let text = error.to_string();
        assert!(
            text.starts_with("can't read /proc/no/such/file in the guest: No such file"),
            "{text}"
        );
        assert!(text.ends_with("(is /proc mounted?)"), "{text}");
    }

    #[test]
    fn bytes_that_are_no_text_do_not_stop_a_reader() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("odd"), b"a\xff \n").unwrap();
        let mut reader = Reader::below(dir.path());
        assert_eq!(reader.line("odd"), "a\u{fffd}");
        assert_eq!(reader.line("missing"), "");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(
            text in proptest::prop_oneof![
                ".{0,200}",
                // What looks like the kernel's, with anything as numbers.
                "(cpu[0-9]?|ctxt|MemTotal:|some|full|eth0:|8 0 sda|1 2 0:3) ([-0-9a-z=./\\\\: ]{0,60}\n?){0,4}",
            ]
        ) {
            cpu::Stat::parse(&text, 100);
            cpu::parse_loadavg(&text);
            memory::status(&memory::parse(&text));
            disk::parse(&text);
            network::parse(&text);
            pressure::parse(&text);
            mounts::parse(&text);
            mounts::parse(&format!("1 2 0:3 / /{text} rw - ext4 {text} rw"));
            os::parse_os_release(&text);
            os::count_cpus(&text);
            passwd::users(&text).count();
            passwd::groups(&text).count();
            process::parse(&text);
            listening::parse(&text, listening::LISTENING_TCP).count();
            oom::victim(&text);
            users::parse(text.as_bytes());
        }
    }
}
