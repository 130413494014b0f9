//! Packs a tree: a walk that holds one directory open for each level, and one file.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs::File,
    io::Read as _,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{Dir, FileType, OFlags, Statx, Timespec},
    io::Errno,
};
use tar::EntryType;
use tonic::Status;
use vbridge_api::guest::v1::{FilesPullTreeResponse, TreeSummary, files_pull_tree_response::Piece};

use super::{
    header::{END, Entry},
    padding, skip,
};
use crate::{
    files::{
        change,
        digest::piece,
        failure::failed,
        info::{attributes, device, file_type, is_mounted},
        path::{GuestPath, Root, open_again, open_regular, os},
        walk::Guard,
        work::{Step, Work},
    },
    limits::{FILE_PIECE, MAX_TREE_DEPTH, MAX_TREE_LINKS, PULL_STEP},
    source::{Reader, accounts::Accounts},
};

/// A tree that is being packed.
#[derive(Debug)]
pub(crate) struct Packer {
    /// Bytes of the archive that the caller has not got yet.
    out: Vec<u8>,
    /// The directories that are open, the innermost last.
    levels: Vec<Level>,
    /// The file that is being copied.
    file: Option<Copying>,
    links: Links,
    accounts: Accounts,
    summary: TreeSummary,
    /// The file system to stay on.
    device: Option<(u32, u32)>,
    /// What is closed below the top, and how many bytes of a path in the archive are the top's own.
    guard: (Guard, usize),
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Walking,
    /// The end of the archive is written.
    Written,
    /// The caller has the summary.
    Told,
}

#[derive(Debug)]
struct Level {
    dir: Dir,
    /// Its path in the archive, with a slash; empty for the guest's root.
    path: Vec<u8>,
}

/// A file whose header is written. As many bytes follow as that says, whatever becomes of the file meanwhile.
#[derive(Debug)]
struct Copying {
    file: File,
    path: Vec<u8>,
    left: u64,
    padding: usize,
    /// It became shorter, or can't be read any more: zeros take the place of the rest.
    is_broken: bool,
}

/// Files with several names, by device and inode, and the first name of each.
#[derive(Debug, Default)]
struct Links {
    paths: HashMap<(u32, u32, u64), Vec<u8>>,
    bytes: usize,
}

impl Packer {
    pub(crate) fn new(
        root: &Root,
        path: &GuestPath,
        one_file_system: bool,
    ) -> Result<Self, Status> {
        let (found, guard) = root.find_guarded(path, false)?;
        let own = match path.as_str() {
            "/" => 0,
            _ => path.name().len() + 1,
        };
        let statx = attributes(&found, os(b"")).map_err(|errno| failed("pack", path, errno))?;
        let mut packer = Self {
            out: Vec::with_capacity(FILE_PIECE),
            levels: Vec::new(),
            file: None,
            links: Links::default(),
            accounts: Accounts::read(&mut Reader::new()),
            summary: TreeSummary::default(),
            device: one_file_system.then(|| device(&statx)),
            guard: (guard, own),
            state: State::Walking,
        };
        if path.as_str() == "/" {
            let dir = open_again(&found).and_then(Dir::new);
            let dir = dir.map_err(|errno| failed("pack", path, errno))?;
            let path = Vec::new();
            packer.levels.push(Level { dir, path });
        } else {
            packer.add(&found, path.name().as_bytes().to_vec(), &statx)?;
            if packer.summary.skipped_count > 0 && packer.levels.is_empty() {
                // What was asked for is not a part that can be left out.
                let why = packer.summary.skipped.pop().unwrap_or_default();
                return Err(crate::error::failure(
                    crate::error::Reason::PermissionDenied,
                    why,
                ));
            }
        }
        Ok(packer)
    }

    /// Adds what `found` stands on.
    fn add(&mut self, found: &OwnedFd, mut path: Vec<u8>, statx: &Statx) -> Result<(), Status> {
        let file_type = file_type(statx);
        let kind = match file_type {
            FileType::RegularFile => EntryType::Regular,
            FileType::Directory => EntryType::Directory,
            FileType::Symlink => EntryType::Symlink,
            FileType::Fifo => EntryType::Fifo,
            FileType::CharacterDevice => EntryType::Char,
            FileType::BlockDevice => EntryType::Block,
            FileType::Socket | FileType::Unknown => {
                skip(
                    &mut self.summary,
                    &path,
                    "a socket, which an archive has no entry for",
                );
                return Ok(());
            }
        };
        let mut entry = self.entry(kind, path.clone(), statx);
        if kind != EntryType::Directory
            && let Some(first) = self.links.first(statx, &path)
        {
            entry.kind = EntryType::Link;
            entry.link = first;
            entry.write(&mut self.out);
            self.summary.others += 1;
            return Ok(());
        }
        match kind {
            EntryType::Regular => match open_regular(found, &path, OFlags::RDONLY) {
                Ok(file) => {
                    entry.size = statx.stx_size;
                    entry.write(&mut self.out);
                    self.summary.files += 1;
                    self.summary.bytes = self.summary.bytes.saturating_add(entry.size);
                    self.file = Some(Copying {
                        file,
                        path,
                        left: entry.size,
                        padding: padding(entry.size),
                        is_broken: false,
                    });
                }
                Err(status) => self.unreadable(statx, &path, status.message()),
            },
            EntryType::Directory => {
                path.push(b'/');
                entry.path.clone_from(&path);
                entry.write(&mut self.out);
                self.summary.directories += 1;
                self.descend(found, path, statx);
            }
            _ => {
                if kind == EntryType::Symlink {
                    let target = rustix::fs::readlinkat(found, "", Vec::new());
                    entry.link = target
                        .map_err(|errno| failed("read the link", &path, errno))?
                        .into_bytes();
                }
                entry.write(&mut self.out);
                self.summary.others += 1;
            }
        }
        Ok(())
    }

    fn unreadable(&mut self, statx: &Statx, path: &[u8], why: &str) {
        self.links.forget(statx);
        skip(&mut self.summary, path, why);
    }

    fn descend(&mut self, found: &OwnedFd, path: Vec<u8>, statx: &Statx) {
        let why = match self.device {
            Some(stay) if is_mounted(statx, stay) && !self.levels.is_empty() => {
                "another file system".to_owned()
            }
            _ if self.levels.len() >= MAX_TREE_DEPTH => {
                format!("deeper than {MAX_TREE_DEPTH} directories")
            }
            _ => match open_again(found).and_then(Dir::new) {
                Ok(dir) => {
                    self.levels.push(Level { dir, path });
                    return;
                }
                Err(errno) => errno.to_string(),
            },
        };
        skip(&mut self.summary, &path, &why);
    }

    fn entry(&self, kind: EntryType, path: Vec<u8>, statx: &Statx) -> Entry {
        Entry {
            kind,
            path,
            link: Vec::new(),
            size: 0,
            mode: u32::from(statx.stx_mode) & 0o7777,
            uid: statx.stx_uid,
            gid: statx.stx_gid,
            user: self.accounts.user(statx.stx_uid).to_owned(),
            group: self.accounts.group(statx.stx_gid).to_owned(),
            modified: Timespec {
                tv_sec: statx.stx_mtime.tv_sec,
                tv_nsec: statx.stx_mtime.tv_nsec.into(),
            },
            device: match kind {
                EntryType::Char | EntryType::Block => (statx.stx_rdev_major, statx.stx_rdev_minor),
                _ => (0, 0),
            },
        }
    }

    /// Adds the next entry of the innermost directory, or leaves that.
    fn walk(&mut self) -> Result<(), Status> {
        let Some(level) = self.levels.last_mut() else {
            return Ok(());
        };
        let name: OsString = match level.dir.read() {
            None => {
                self.levels.pop();
                return Ok(());
            }
            Some(Ok(entry)) => os(entry.file_name().to_bytes()).to_owned(),
            Some(Err(errno)) => {
                let path = self.levels.pop().map(|level| level.path);
                skip(
                    &mut self.summary,
                    &path.unwrap_or_default(),
                    &errno.to_string(),
                );
                return Ok(());
            }
        };
        if name == "." || name == ".." {
            return Ok(());
        }
        let mut path = level.path.clone();
        path.extend_from_slice(name.as_encoded_bytes());
        let (guard, own) = &self.guard;
        if guard.hides(path.get(*own..).unwrap_or_default()) {
            skip(&mut self.summary, &path, "closed by the guest's policy");
            return Ok(());
        }
        let found = level.dir.fd().and_then(|dir| look(dir, &name));
        match found {
            Ok((found, statx)) => self.add(&found, path, &statx)?,
            // It is gone by now.
            Err(Errno::NOENT) => {}
            Err(errno) => skip(&mut self.summary, &path, &errno.to_string()),
        }
        Ok(())
    }

    /// Copies a part of the file.
    fn copy(&mut self) {
        let Some(copying) = &mut self.file else {
            return;
        };
        let room = FILE_PIECE.saturating_sub(self.out.len()).max(1);
        let want = piece(copying.left, room);
        let start = self.out.len();
        self.out.resize(start + want, 0);
        let mut read = want;
        if !copying.is_broken && want > 0 {
            let buffer = self.out.get_mut(start..).unwrap_or_default();
            let why = match copying.file.read(buffer) {
                Ok(0) => Some("became shorter while it was packed, and ends with zeros".to_owned()),
                Ok(count) => {
                    read = count;
                    None
                }
                Err(error) => Some(format!("{error}; it ends with zeros")),
            };
            if let Some(why) = why {
                copying.is_broken = true;
                skip(&mut self.summary, &copying.path, &why);
            }
        }
        self.out.truncate(start + read);
        copying.left = copying.left.saturating_sub(read as u64);
        if copying.left == 0 {
            let padding = copying.padding;
            self.out.resize(self.out.len() + padding, 0);
            self.file = None;
        }
    }
}

fn look(dir: BorrowedFd<'_>, name: &OsString) -> Result<(OwnedFd, Statx), Errno> {
    let found = change::entry(dir, name)?;
    let statx = attributes(found.as_fd(), os(b""))?;
    Ok((found, statx))
}

impl Work for Packer {
    type Piece = FilesPullTreeResponse;

    fn step(&mut self) -> Result<Step<FilesPullTreeResponse>, Status> {
        for _ in 0..PULL_STEP {
            if self.out.len() >= FILE_PIECE || self.state != State::Walking {
                break;
            }
            if self.file.is_some() {
                self.copy();
            } else if self.levels.is_empty() {
                self.out.extend_from_slice(&END);
                self.state = State::Written;
            } else {
                self.walk()?;
            }
        }
        let piece = if !self.out.is_empty() {
            Piece::Data(std::mem::replace(
                &mut self.out,
                Vec::with_capacity(FILE_PIECE),
            ))
        } else if self.state == State::Written {
            self.state = State::Told;
            Piece::Summary(std::mem::take(&mut self.summary))
        } else if self.state == State::Told {
            return Ok(Step::End);
        } else {
            return Ok(Step::Again);
        };
        Ok(Step::Piece(FilesPullTreeResponse { piece: Some(piece) }))
    }
}

impl Links {
    /// The first name of a file that has come before; otherwise this is the first.
    fn first(&mut self, statx: &Statx, path: &[u8]) -> Option<Vec<u8>> {
        if statx.stx_nlink < 2 {
            return None;
        }
        if let Some(first) = self.paths.get(&key(statx)) {
            return Some(first.clone());
        }
        if self.bytes + path.len() <= MAX_TREE_LINKS {
            self.bytes += path.len();
            self.paths.insert(key(statx), path.to_vec());
        }
        None
    }

    /// It is not in the archive after all.
    fn forget(&mut self, statx: &Statx) {
        if let Some(path) = self.paths.remove(&key(statx)) {
            self.bytes -= path.len();
        }
    }
}

fn key(statx: &Statx) -> (u32, u32, u64) {
    (statx.stx_dev_major, statx.stx_dev_minor, statx.stx_ino)
}
