//! Unpacks a tree below a directory, which nothing leaves.
//!
//! Each entry's directory is opened below the target by `openat2`, which refuses to leave it; whether by `..`, by an
//! absolute link or by a link that an earlier entry has made. In that directory only names are used, and what has a name
//! is replaced and never opened or followed.

use std::{
    ffi::OsStr,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt as _,
    },
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags},
    io::Errno,
};
use tar::EntryType;
use tonic::Status;
use vbridge_api::guest::v1::{FilesPushTreeResponse, FilesPushTreeStart, TreeSummary};

use super::{
    header::Entry,
    parse::{Parser, Sink, leads_out},
    skip,
};
use crate::{
    error::{self, Reason},
    files::{
        change::{Attributes, Owner, entry},
        failure::{errno, failed, told},
        path::{GuestPath, PATH, Root, make_directory, os},
        replace::{Replacement, put, random_name},
    },
    limits::MAX_TREE_DEPTH,
    source::{Reader, accounts::Accounts},
};

/// A tree that is being unpacked.
#[derive(Debug)]
pub(crate) struct Unpacker {
    parser: Parser,
    files: Unpacked,
}

/// What is done with the entries.
#[derive(Debug)]
struct Unpacked {
    root: Root,
    no_owner: bool,
    no_overwrite: bool,
    accounts: Accounts,
    /// The directories that the last entry lies in, as far as the archive has them. They get their attributes when they
    /// are left: the time would be another by then, and there might be no permission to write.
    open: Vec<Directory>,
    /// The file whose content comes.
    file: Option<Arriving>,
    summary: TreeSummary,
}

#[derive(Debug)]
struct Directory {
    path: Vec<u8>,
    dir: OwnedFd,
    attributes: Attributes,
}

#[derive(Debug)]
struct Arriving {
    path: Vec<u8>,
    file: Replacement,
    attributes: Attributes,
    position: u64,
}

impl Unpacker {
    pub(crate) fn new(root: &Root, start: &FilesPushTreeStart) -> Result<Self, Status> {
        let path = GuestPath::parse("start.path", &start.path)?;
        Ok(Self {
            parser: Parser::new(),
            files: Unpacked {
                root: root.at(&path)?,
                no_owner: start.no_owner,
                no_overwrite: start.no_overwrite,
                accounts: Accounts::read(&mut Reader::new()),
                open: Vec::new(),
                file: None,
                summary: TreeSummary::default(),
            },
        })
    }

    /// Unpacks what these bytes of the archive hold.
    pub(crate) fn data(&mut self, bytes: &[u8]) -> Result<(), Status> {
        self.parser.feed(bytes, &mut self.files)
    }

    /// The archive should be complete.
    pub(crate) fn finish(&mut self) -> Result<FilesPushTreeResponse, Status> {
        if !self.parser.is_over() {
            let description = "is a tar archive without an end: what has come is unpacked, and something is missing";
            return Err(error::invalid_field("data", description));
        }
        self.files.leave(b"")?;
        let synced = self.files.root.sync();
        synced.map_err(|errno| failed("write to the disk what is in", "the directory", errno))?;
        Ok(FilesPushTreeResponse {
            summary: Some(std::mem::take(&mut self.files.summary)),
        })
    }
}

impl Sink for Unpacked {
    fn begin(&mut self, entry: Entry) -> Result<(), Status> {
        let path = clean(&entry.path)?;
        self.leave(&path)?;
        if path.is_empty() {
            // The target itself stays as it is.
            return Ok(());
        }
        let attributes = self.attributes(&entry);
        let (parent, name) = split(&path);
        let is_directory = entry.kind == EntryType::Directory
            || (entry.kind == EntryType::Regular && entry.path.ends_with(b"/"));
        match entry.kind {
            EntryType::Char | EntryType::Block => {
                skip(&mut self.summary, &path, "a device, which is not made");
                return Ok(());
            }
            _ if is_directory => return self.directory(path, attributes),
            EntryType::Regular | EntryType::Continuous => {
                let dir = self.parent(parent, name)?;
                let file = Replacement::new(dir, name);
                let file = file.map_err(|errno| failed("unpack", &path, errno))?;
                self.file = Some(Arriving {
                    path,
                    file,
                    attributes,
                    position: 0,
                });
                return Ok(());
            }
            EntryType::Symlink | EntryType::Link | EntryType::Fifo => {}
            kind => {
                let why = format!(
                    "of the type {:?}, which is not known",
                    char::from(kind.as_byte())
                );
                skip(&mut self.summary, &path, &why);
                return Ok(());
            }
        }
        let dir = self.parent(parent, name)?;
        let fail = |errno| failed("unpack", &path, errno);
        let temporary = random_name().map_err(fail)?;
        match entry.kind {
            EntryType::Symlink => {
                let made = rustix::fs::symlinkat(os(&entry.link), &dir, &temporary)
                    .and_then(|()| attributes.set_link(&dir, &temporary));
                self.put(&dir, &temporary, name, made).map_err(fail)?;
            }
            EntryType::Link => {
                let first = clean(&entry.link)?;
                let (first_parent, first_name) = split(&first);
                let first_dir = self.parent(first_parent, first_name)?;
                let flags = AtFlags::empty();
                let made = rustix::fs::linkat(first_dir, first_name, &dir, &temporary, flags);
                self.put(&dir, &temporary, name, made).map_err(fail)?;
                // The kernel leaves both names where they are already the same file.
                let _ = rustix::fs::unlinkat(&dir, &temporary, AtFlags::empty());
            }
            _ => {
                let mode = Mode::RUSR | Mode::WUSR;
                let made = rustix::fs::mknodat(&dir, &temporary, FileType::Fifo, mode, 0)
                    .and_then(|()| self::entry(&dir, &temporary))
                    .and_then(|made| attributes.set(made));
                self.put(&dir, &temporary, name, made).map_err(fail)?;
            }
        }
        self.summary.others += 1;
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), Status> {
        let Some(arriving) = &mut self.file else {
            return Ok(());
        };
        let written = arriving.file.file().write_all_at(bytes, arriving.position);
        written.map_err(|error| failed("unpack", &arriving.path, errno(&error)))?;
        arriving.position = arriving.position.saturating_add(bytes.len() as u64);
        Ok(())
    }

    fn end(&mut self) -> Result<(), Status> {
        let Some(mut arriving) = self.file.take() else {
            return Ok(());
        };
        arriving
            .file
            .finish(&arriving.attributes, self.no_overwrite)
            .map_err(|errno| failed("unpack", &arriving.path, errno))?;
        self.summary.files += 1;
        self.summary.bytes = self.summary.bytes.saturating_add(arriving.position);
        Ok(())
    }
}

impl Unpacked {
    fn attributes(&self, entry: &Entry) -> Attributes {
        // Names go before numbers, as in tar(1): the guest that it was packed in may number users in another way.
        let owner = Owner {
            uid: Some(self.accounts.uid(&entry.user).unwrap_or(entry.uid)),
            gid: Some(self.accounts.gid(&entry.group).unwrap_or(entry.gid)),
        };
        Attributes {
            owner: if self.no_owner {
                Owner::default()
            } else {
                owner
            },
            // Who may not say whose a file is may not let it run as the agent's user either.
            permissions: Some(entry.mode & if self.no_owner { 0o1777 } else { 0o7777 }),
            modified: Some(entry.modified),
            accessed: None,
        }
    }

    /// Gives directories their attributes that `path` is not in.
    fn leave(&mut self, path: &[u8]) -> Result<(), Status> {
        let is_left = |directory: &mut Directory| {
            let rest = path.strip_prefix(directory.path.as_slice());
            rest.is_none_or(|rest| rest.first() != Some(&b'/'))
        };
        while let Some(left) = self.open.pop_if(is_left) {
            left.attributes
                .set(&left.dir)
                .map_err(|errno| failed("set the attributes of", &left.path, errno))?;
        }
        Ok(())
    }

    fn directory(&mut self, path: Vec<u8>, attributes: Attributes) -> Result<(), Status> {
        let (parent, name) = split(&path);
        let above = self.parent(parent, name)?;
        let dir = match self.root.open(os(&path), PATH | OFlags::DIRECTORY, true) {
            Err(Errno::NOENT) => make_directory(&above, name, 0o700),
            found => found,
        };
        let dir = dir.map_err(|errno| self.refused(&path, errno))?;
        if self.open.len() >= MAX_TREE_DEPTH {
            let what =
                format!("lies deeper than {MAX_TREE_DEPTH} directories: unpack it on its own");
            return Err(told(Reason::TooMany, &path, &what));
        }
        self.summary.directories += 1;
        self.open.push(Directory {
            path,
            dir,
            attributes,
        });
        Ok(())
    }

    /// Opens the directory of the entry `name`, and makes it if the archive does not have it.
    fn parent(&self, path: &[u8], name: &OsStr) -> Result<OwnedFd, Status> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = PATH | OFlags::DIRECTORY;
        let open = || self.root.open_guarded(os(path), flags, true);
        let opened = match open() {
            Err(Errno::NOENT) => self.root.make_directories(os(path)).and_then(|()| open()),
            opened => opened,
        };
        let (dir, guard) = opened.map_err(|errno| self.refused(path, errno))?;
        match guard.hides(name.as_encoded_bytes()) {
            true => {
                let path = [path, name.as_encoded_bytes()].join(&b'/');
                Err(self.refused(&path, Errno::XDEV))
            }
            false => Ok(dir),
        }
    }

    /// A path that can't be opened below the target.
    fn refused(&self, path: &[u8], errno: Errno) -> Status {
        match errno {
            Errno::XDEV if !self.root.is_fenced() => leads_out(path),
            errno => self.root.unresolved(path, errno),
        }
    }

    /// Gives something its name that was made under a hidden one.
    fn put(
        &self,
        dir: impl AsFd,
        temporary: &OsStr,
        name: &OsStr,
        made: Result<(), Errno>,
    ) -> Result<(), Errno> {
        made.and_then(|()| put(&dir, temporary, name, self.no_overwrite))
            .inspect_err(|_| {
                let _ = rustix::fs::unlinkat(&dir, temporary, AtFlags::empty());
            })
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        // What was unpacked until a call broke off stays, with the attributes that it should have.
        self.file = None;
        let _ = self.leave(b"");
    }
}

/// The path of an entry, without what means nothing. It begins and ends without a slash.
fn clean(path: &[u8]) -> Result<Vec<u8>, Status> {
    if path.starts_with(b"/") || path.contains(&0) {
        return Err(leads_out(path));
    }
    let mut clean = Vec::with_capacity(path.len());
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(leads_out(path)),
            part => {
                if !clean.is_empty() {
                    clean.push(b'/');
                }
                clean.extend_from_slice(part);
            }
        }
    }
    Ok(clean)
}

fn split(path: &[u8]) -> (&[u8], &OsStr) {
    match path.iter().rposition(|&byte| byte == b'/') {
        None => (b"", os(path)),
        Some(at) => {
            let name = path.get(at + 1..).unwrap_or_default();
            (path.get(..at).unwrap_or_default(), os(name))
        }
    }
}
