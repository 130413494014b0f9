//! Entries out of the bytes of a tar archive, which come in pieces of any size.
//!
//! ```text
//!    Header ──pax, GNU long name──▶ Extension ──▶ Header
//!      │  ▲
//!      │  └──────────────────────── Content ◀── begin, then data …, then end
//!      ├──an entry──▶ Content
//!      └──zeros──▶ End: what follows is ignored
//! ```
//!
//! The crate `tar` reads headers; it reads archives as well, but takes a long name of any length into memory, and has to
//! wait for bytes.

use rustix::fs::Timespec;
use tar::{EntryType, Header};
use tonic::Status;

use super::{BLOCK, extension::Long, header::Entry, padding};
use crate::{error, files::failure::shown, limits::MAX_TAR_EXTENSION};

/// What is done with entries.
pub(crate) trait Sink {
    /// An entry begins.
    fn begin(&mut self, entry: Entry) -> Result<(), Status>;

    /// Content of the entry.
    fn data(&mut self, bytes: &[u8]) -> Result<(), Status>;

    /// The entry has ended.
    fn end(&mut self) -> Result<(), Status>;
}

/// The parser.
#[derive(Debug)]
pub(crate) struct Parser {
    state: State,
    /// What is there of a header.
    block: Vec<u8>,
    long: Long,
}

#[derive(Debug)]
enum State {
    Header,
    Extension {
        kind: EntryType,
        bytes: Vec<u8>,
        left: usize,
        padding: usize,
    },
    /// Content of an entry, or of what is passed over.
    Content {
        is_entry: bool,
        left: u64,
        padding: usize,
    },
    End,
}

impl Parser {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Header,
            block: Vec::with_capacity(BLOCK),
            long: Long::default(),
        }
    }

    /// Whether the archive's end has come.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::End)
    }

    /// Takes bytes of the archive.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], sink: &mut impl Sink) -> Result<(), Status> {
        // An entry without content ends without further bytes.
        while !bytes.is_empty() {
            bytes = match &mut self.state {
                State::End => return Ok(()),
                State::Header => {
                    let rest = take(&mut self.block, BLOCK, bytes);
                    if self.block.len() == BLOCK {
                        let block = std::mem::take(&mut self.block);
                        self.state = self.header(&block, sink)?;
                    }
                    rest
                }
                State::Extension {
                    kind,
                    bytes: extension,
                    left,
                    padding,
                } => {
                    let rest = take(extension, *left, bytes);
                    if extension.len() < *left {
                        return Ok(());
                    }
                    let (kind, extension) = (*kind, std::mem::take(extension));
                    let padding = *padding;
                    self.long.add(kind, &extension)?;
                    self.state = State::Content {
                        is_entry: false,
                        left: 0,
                        padding,
                    };
                    self.content(rest, sink)?
                }
                State::Content { .. } => self.content(bytes, sink)?,
            };
        }
        Ok(())
    }

    /// Takes content and what fills its last block.
    fn content<'a>(&mut self, bytes: &'a [u8], sink: &mut impl Sink) -> Result<&'a [u8], Status> {
        let State::Content {
            is_entry,
            left,
            padding,
        } = &mut self.state
        else {
            return Ok(bytes);
        };
        let count = usize::try_from(*left)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let (data, rest) = bytes.split_at(count);
        if *is_entry && !data.is_empty() {
            sink.data(data)?;
        }
        *left = left.saturating_sub(count as u64);
        if *left > 0 {
            return Ok(rest);
        }
        if std::mem::take(is_entry) {
            sink.end()?;
        }
        let count = (*padding).min(rest.len());
        *padding -= count;
        if *padding == 0 {
            self.state = State::Header;
        }
        Ok(rest.get(count..).unwrap_or_default())
    }

    /// Takes a whole header.
    fn header(&mut self, block: &[u8], sink: &mut impl Sink) -> Result<State, Status> {
        if block.iter().all(|&byte| byte == 0) {
            return Ok(State::End);
        }
        let header = Header::from_byte_slice(block);
        if header.cksum().ok() != Some(checksum(block)) {
            return Err(wrong(
                "is no tar archive, or damaged: a header's checksum is wrong",
            ));
        }
        let size = header.entry_size().map_err(|_| damaged("size"))?;
        let kind = header.entry_type();
        match kind {
            EntryType::XHeader | EntryType::GNULongName | EntryType::GNULongLink => {
                match usize::try_from(size) {
                    Ok(left) if left <= MAX_TAR_EXTENSION => Ok(State::Extension {
                        kind,
                        bytes: Vec::new(),
                        left,
                        padding: padding(size),
                    }),
                    _ => Err(wrong(&format!(
                        "has an extended header of {size} bytes, and {MAX_TAR_EXTENSION} is the most"
                    ))),
                }
            }
            EntryType::GNUSparse => Err(sparse()),
            // Defaults for all that follows, which hold nothing that is needed.
            EntryType::XGlobalHeader => Ok(passed_over(size)),
            _ => self.entry(header, kind, size, sink),
        }
    }

    fn entry(
        &mut self,
        header: &Header,
        kind: EntryType,
        size: u64,
        sink: &mut impl Sink,
    ) -> Result<State, Status> {
        let long = std::mem::take(&mut self.long);
        let has_content =
            matches!(kind, EntryType::Regular | EntryType::Continuous) || !is_known(kind);
        let size = match has_content {
            true => long.size.unwrap_or(size),
            // Some write the size of what a link leads to.
            false => 0,
        };
        let text =
            |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let seconds = header.mtime().map_err(|_| damaged("time"))?;
        let modified = Timespec {
            tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX),
            tv_nsec: 0,
        };
        let id = |id: std::io::Result<u64>, what| match id.map(u32::try_from) {
            Ok(Ok(id)) => Ok(id),
            _ => Err(damaged(what)),
        };
        let link = header.link_name_bytes().unwrap_or_default();
        let entry = Entry {
            kind,
            path: long
                .path
                .unwrap_or_else(|| header.path_bytes().into_owned()),
            link: long.link.unwrap_or_else(|| link.into_owned()),
            size,
            mode: header.mode().map_err(|_| damaged("mode"))? & 0o7777,
            uid: match long.uid {
                Some(uid) => uid,
                None => id(header.uid(), "owner")?,
            },
            gid: match long.gid {
                Some(gid) => gid,
                None => id(header.gid(), "group")?,
            },
            user: long.user.unwrap_or_else(|| text(header.username_bytes())),
            group: long.group.unwrap_or_else(|| text(header.groupname_bytes())),
            modified: long.modified.unwrap_or(modified),
            device: (0, 0),
        };
        sink.begin(entry)?;
        if size == 0 {
            sink.end()?;
            return Ok(State::Header);
        }
        Ok(State::Content {
            is_entry: true,
            left: size,
            padding: padding(size),
        })
    }
}

/// Whether it is one of POSIX's types, of which only files have content.
fn is_known(kind: EntryType) -> bool {
    matches!(
        kind,
        EntryType::Regular
            | EntryType::Link
            | EntryType::Symlink
            | EntryType::Char
            | EntryType::Block
            | EntryType::Directory
            | EntryType::Fifo
            | EntryType::Continuous
    )
}

fn passed_over(size: u64) -> State {
    if size == 0 {
        return State::Header;
    }
    State::Content {
        is_entry: false,
        left: size,
        padding: padding(size),
    }
}

/// Moves bytes until there are `length`; what is left of them.
fn take<'a>(into: &mut Vec<u8>, length: usize, bytes: &'a [u8]) -> &'a [u8] {
    let count = length.saturating_sub(into.len()).min(bytes.len());
    let (taken, rest) = bytes.split_at(count);
    into.extend_from_slice(taken);
    rest
}

/// The sum of a header's bytes, its own field (148 to 155) as spaces.
fn checksum(block: &[u8]) -> u32 {
    let bytes = block.iter().enumerate();
    bytes
        .map(|(at, &byte)| {
            if (148..156).contains(&at) {
                u32::from(b' ')
            } else {
                byte.into()
            }
        })
        .sum()
}

fn wrong(description: &str) -> Status {
    error::invalid_field("data", description)
}

pub(super) fn damaged(what: &str) -> Status {
    wrong(&format!(
        "is a damaged tar archive: an entry's {what} is none"
    ))
}

pub(super) fn sparse() -> Status {
    wrong("is a tar archive with sparse files, which is not understood: pack it without --sparse")
}

/// An entry that would lead out of its directory.
pub(crate) fn leads_out(path: &[u8]) -> Status {
    let path = shown(path);
    wrong(&format!(
        "has the entry {path}, which leads out of the directory"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Remembers what it was told.
    #[derive(Default)]
    struct Told(Vec<(Entry, Vec<u8>, bool)>);

    impl Sink for Told {
        fn begin(&mut self, entry: Entry) -> Result<(), Status> {
            self.0.push((entry, Vec::new(), false));
            Ok(())
        }

        fn data(&mut self, bytes: &[u8]) -> Result<(), Status> {
            self.0.last_mut().unwrap().1.extend_from_slice(bytes);
            Ok(())
        }

        fn end(&mut self) -> Result<(), Status> {
            self.0.last_mut().unwrap().2 = true;
            Ok(())
        }
    }

    fn entry(path: &str, size: u64) -> Entry {
        Entry {
            kind: EntryType::Regular,
            path: path.as_bytes().to_vec(),
            link: Vec::new(),
            size,
            mode: 0o4755,
            uid: 7,
            gid: 8,
            user: "ada".to_owned(),
            group: String::new(),
            modified: Timespec {
                tv_sec: 1_700_000_000,
                tv_nsec: 5,
            },
            device: (0, 0),
        }
    }

    fn archive(entries: &[Entry]) -> Vec<u8> {
        let mut archive = Vec::new();
        for entry in entries {
            entry.write(&mut archive);
            let size = usize::try_from(entry.size).unwrap();
            archive.resize(archive.len() + size, b'x');
            archive.resize(archive.len() + padding(entry.size), 0);
        }
        archive.extend_from_slice(&super::super::header::END);
        archive
    }

    #[test]
    fn what_is_written_is_read_in_pieces_of_any_size() {
        let mut odd = entry(&"ä\n/".repeat(200), 0);
        odd.uid = u32::MAX - 1;
        odd.modified = Timespec {
            tv_sec: -2,
            tv_nsec: 999_999_999,
        };
        odd.group = "g".repeat(40);
        let mut link = entry("l", 0);
        link.kind = EntryType::Symlink;
        link.link = vec![b'/'; 3000];
        let entries = [entry("a", 0), odd, entry("b", 513), link, entry("c", 512)];
        let archive = archive(&entries);
        for size in [1, 7, 511, 512, 513, archive.len()] {
            let mut told = Told::default();
            let mut parser = Parser::new();
            for piece in archive.chunks(size) {
                parser.feed(piece, &mut told).unwrap();
            }
            assert!(parser.is_over());
            assert_eq!(told.0.len(), entries.len());
            for (entry, (read, content, ended)) in entries.iter().zip(&told.0) {
                assert_eq!(read, entry);
                assert!(*ended);
                let size = usize::try_from(entry.size).unwrap();
                assert_eq!(*content, vec![b'x'; size]);
            }
        }
    }

    #[test]
    fn what_is_no_archive_is_refused_and_long_names_are_bounded() {
        let refused = |bytes: &[u8]| {
            let status = Parser::new().feed(bytes, &mut Told::default());
            status.unwrap_err().message().to_owned()
        };
        assert!(refused(&[b'x'; 512]).contains("checksum"));
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(1 << 40);
        header.set_cksum();
        assert!(refused(header.as_bytes()).contains("extended header of 1099511627776 bytes"));
        header.set_entry_type(EntryType::GNUSparse);
        header.set_cksum();
        assert!(refused(header.as_bytes()).contains("--sparse"));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(
            path in "[a-z/.]{0,40}",
            noise in proptest::collection::vec(proptest::num::u8::ANY, 0..1200),
            at in 0_usize..2000,
        ) {
            let mut archive = archive(&[entry(&path, 100)]);
            for (to, from) in archive.iter_mut().skip(at).zip(&noise) {
                *to = *from;
            }
            let _ = Parser::new().feed(&archive, &mut Told::default());
            let _ = Parser::new().feed(&noise, &mut Told::default());
        }
    }
}
