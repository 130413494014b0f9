//! The entries of a directory, in the order of their names.
//!
//! To sort them all names must be there; what is told of each is asked for only when its message is made.

use std::os::fd::OwnedFd;

use rustix::fs::Dir;
use tonic::Status;
use vbridge_api::guest::v1::FilesListResponse;

use super::{
    failure::{failed, told},
    info::Teller,
    path::{GuestPath, Root, os},
    walk::Guard,
    work::{Step, Work},
};
use crate::{
    error::Reason,
    limits::{LIST_MESSAGE, MAX_LIST_NAMES},
};

/// A directory that is being listed.
#[derive(Debug)]
pub(crate) struct Listing {
    dir: OwnedFd,
    path: GuestPath,
    names: Names,
    next: usize,
    teller: Teller,
    guard: Guard,
}

/// Many names in one piece of memory.
#[derive(Debug, Default)]
struct Names {
    bytes: Vec<u8>,
    /// Where each begins and how long it is.
    places: Vec<(u32, u16)>,
}

impl Listing {
    pub(crate) fn new(root: &Root, path: GuestPath, follow: bool) -> Result<Self, Status> {
        let (dir, guard) = root.directory(&path, follow)?;
        let names = Names::read(&dir, &path)?;
        Ok(Self {
            dir,
            path,
            names,
            next: 0,
            teller: Teller::new(),
            guard,
        })
    }
}

impl Work for Listing {
    type Piece = FilesListResponse;

    fn step(&mut self) -> Result<Step<FilesListResponse>, Status> {
        let mut files = Vec::new();
        while let (Some(name), true) = (self.names.get(self.next), files.len() < LIST_MESSAGE) {
            match self.teller.entry(&self.dir, os(name)) {
                _ if self.guard.hides(name) => {}
                Ok(file) => files.push(file),
                // It is gone by now.
                Err(rustix::io::Errno::NOENT) => {}
                Err(errno) => return Err(failed("list", &self.path, errno)),
            }
            self.next += 1;
        }
        Ok(match files.is_empty() {
            true => Step::End,
            false => Step::Piece(FilesListResponse { files }),
        })
    }
}

impl Names {
    fn read(dir: &OwnedFd, path: &GuestPath) -> Result<Self, Status> {
        let fail = |errno| failed("list", path, errno);
        let mut names = Self::default();
        for entry in Dir::read_from(dir).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") && !names.push(name) {
                let what =
                    format!("has more entries than can be listed: {MAX_LIST_NAMES} bytes of names");
                return Err(told(Reason::TooMany, path, &what));
            }
        }
        names.sort();
        Ok(names)
    }

    /// Whether there was room for it.
    fn push(&mut self, name: &[u8]) -> bool {
        let taken = self.bytes.len() + self.places.len() * size_of::<(u32, u16)>();
        let (Ok(start), Ok(length)) = (u32::try_from(self.bytes.len()), u16::try_from(name.len()))
        else {
            return false;
        };
        if taken + name.len() > MAX_LIST_NAMES {
            return false;
        }
        self.bytes.extend_from_slice(name);
        self.places.push((start, length));
        true
    }

    fn sort(&mut self) {
        let Self { bytes, places } = self;
        places.sort_unstable_by(|a, b| at(bytes, *a).cmp(at(bytes, *b)));
    }

    fn get(&self, index: usize) -> Option<&[u8]> {
        self.places.get(index).map(|place| at(&self.bytes, *place))
    }
}

fn at(bytes: &[u8], (start, length): (u32, u16)) -> &[u8] {
    let start = usize::try_from(start).unwrap_or(usize::MAX);
    let end = start.saturating_add(length.into());
    bytes.get(start..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_by_their_bytes_and_bounded() {
        let mut names = Names::default();
        for name in ["b", "a\u{e4}", "", "a"] {
            assert!(names.push(name.as_bytes()));
        }
        names.sort();
        let sorted: Vec<_> = (0..5).filter_map(|index| names.get(index)).collect();
        assert_eq!(sorted, [&b""[..], b"a", "a\u{e4}".as_bytes(), b"b"]);
        let name = [b'x'; 255];
        let mut count = 0;
        while names.push(&name) {
            count += 1;
        }
        assert!((15_000..17_000).contains(&count), "{count}");
        assert!(names.bytes.len() <= MAX_LIST_NAMES);
    }
}
