//! Uploads: what arrives in pieces becomes a file, or a part of one.
//!
//! ```text
//!    open ──▶ prepare ──▶ data, hole, expect … ──▶ finish ──▶ in place
//!               │            │                       │
//!         what is there      └── the call breaks off ┴── a wrong digest, too short ──▶ the old file stays as it was
//!         of a resumed
//!         upload counts
//!         for the digests
//! ```

use std::{fs::File, os::unix::fs::FileExt as _};

use rustix::{
    fs::{AtFlags, FallocateFlags, FileType, Mode, OFlags},
    io::Errno,
};
use tonic::Status;
use vbridge_api::guest::v1::{Digest, DigestAlgorithm, FilesWriteResponse, WriteMode};

use super::{
    change::{Attributes, length},
    digest::{self, Both, piece},
    failure::{errno, failed, shown, wrong_type},
    info::Teller,
    path::{GuestPath, Root, open_regular},
    replace::{Replacement, sweep, sync},
    start::Start,
};
use crate::{
    error::{self, Reason},
    limits::{FILE_PIECE, FILE_STEP, MAX_FILE_DATA},
};

/// Permissions of a new file.
const NEW: u32 = 0o644;

/// An upload that is under way.
#[derive(Debug)]
pub(crate) struct Upload {
    path: GuestPath,
    target: Target,
    attributes: Attributes,
    no_overwrite: bool,
    size: Option<u64>,
    expected: Vec<Digest>,
    /// None if nobody wants them.
    digests: Option<Both>,
    /// How far what is there of a resumed upload has been read again, and how much there is.
    again: (u64, u64),
    /// Where the next byte belongs.
    position: u64,
}

/// Where bytes go.
#[derive(Debug)]
enum Target {
    Replace(Replacement),
    Append(File),
    InPlace(File),
}

impl Upload {
    pub(crate) fn open(root: &Root, start: Start) -> Result<Self, Status> {
        let mut attributes = start.attributes()?;
        let path = start.path;
        if start.make_parents {
            root.make_parents(&path)?;
        }
        let target = match start.mode {
            WriteMode::Unspecified | WriteMode::Replace => {
                let (dir, name) = root.parent(&path)?;
                match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(old) => {
                        let file_type = FileType::from_raw_mode(old.st_mode);
                        if start.no_overwrite {
                            return Err(failed("replace", &path, Errno::EXIST));
                        }
                        if file_type != FileType::RegularFile {
                            return Err(wrong_type(&path, file_type, "regular files"));
                        }
                        let Attributes {
                            owner, permissions, ..
                        } = &mut attributes;
                        permissions.get_or_insert(old.st_mode & 0o7777);
                        owner.uid.get_or_insert(old.st_uid);
                        owner.gid.get_or_insert(old.st_gid);
                    }
                    Err(Errno::NOENT) => {
                        attributes.permissions.get_or_insert(NEW);
                    }
                    Err(errno) => return Err(failed("write", &path, errno)),
                }
                if let Some(size) = start.size {
                    room(&dir, &path, size.saturating_sub(start.offset))?;
                }
                sweep(&dir);
                Target::Replace(match start.upload_id.as_str() {
                    "" => Replacement::new(dir, name)
                        .map_err(|errno| failed("write", &path, errno))?,
                    id => Replacement::resume(dir, &path, id, start.offset)?,
                })
            }
            WriteMode::Append => {
                Target::Append(existing(root, &path, OFlags::APPEND, &mut attributes)?)
            }
            WriteMode::InPlace => {
                Target::InPlace(existing(root, &path, OFlags::empty(), &mut attributes)?)
            }
        };
        // Only for the digests is anything read again.
        let counts = matches!(target, Target::Replace(_)) && !start.no_digests;
        Ok(Self {
            path,
            target,
            attributes,
            no_overwrite: start.no_overwrite,
            size: start.size,
            expected: start.digest.into_iter().collect(),
            digests: (!start.no_digests).then(Both::default),
            again: (0, if counts { start.offset } else { 0 }),
            position: start.offset,
        })
    }

    /// Reads a part of what is there of a resumed upload, whose digest counts. Whether that was all.
    pub(crate) fn prepare(&mut self) -> Result<bool, Status> {
        let (mut at, end) = self.again;
        let file = self.target.file();
        let mut buffer = vec![0; if at < end { FILE_PIECE } else { 0 }];
        for _ in 0..FILE_STEP / FILE_PIECE {
            let want = piece(end.saturating_sub(at), buffer.len());
            if want == 0 {
                break;
            }
            let bytes = buffer.get_mut(..want).unwrap_or_default();
            file.read_exact_at(bytes, at)
                .map_err(|error| failed("read the upload of", &self.path, errno(&error)))?;
            if let Some(digests) = &mut self.digests {
                digests.update(bytes);
            }
            at = at.saturating_add(want as u64);
        }
        self.again = (at, end);
        Ok(at >= end)
    }

    /// Writes bytes.
    pub(crate) fn data(&mut self, bytes: &[u8]) -> Result<(), Status> {
        if bytes.len() > MAX_FILE_DATA {
            let description = format!("has {} bytes, and {MAX_FILE_DATA} is the most", bytes.len());
            return Err(error::invalid_field("data", description));
        }
        let end = self.end("data", bytes.len() as u64)?;
        let written = match &mut self.target {
            Target::Append(file) => std::io::Write::write_all(file, bytes),
            Target::Replace(file) => file.file().write_all_at(bytes, self.position),
            Target::InPlace(file) => file.write_all_at(bytes, self.position),
        };
        written.map_err(|error| failed("write", &self.path, errno(&error)))?;
        if let Some(digests) = &mut self.digests {
            digests.update(bytes);
        }
        self.position = end;
        Ok(())
    }

    /// Whether so many zeros more can follow.
    pub(crate) fn check_hole(&self, count: u64) -> Result<(), Status> {
        self.end("hole", count).map(drop)
    }

    /// Writes a hole, which should be short enough for a step.
    pub(crate) fn hole(&mut self, count: u64) -> Result<(), Status> {
        let end = self.end("hole", count)?;
        let made = match &self.target {
            Target::Replace(file) => rustix::fs::ftruncate(file.file(), end),
            Target::Append(file) => rustix::fs::fstat(file).and_then(|stat| {
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                rustix::fs::ftruncate(file, size.saturating_add(count))
            }),
            Target::InPlace(file) => punch(file, self.position, end),
        };
        made.map_err(|errno| failed("make a hole in", &self.path, errno))?;
        if let Some(digests) = &mut self.digests {
            digests.zeros(count);
        }
        self.position = end;
        Ok(())
    }

    /// Takes the digest that all must have.
    pub(crate) fn expect(&mut self, digest: Digest) -> Result<(), Status> {
        digest::check("digest", &digest)?;
        if self.digests.is_none() {
            return Err(error::invalid_field("digest", "goes not with no_digests"));
        }
        self.expected.push(digest);
        Ok(())
    }

    /// All is there: checks it and puts it in place.
    pub(crate) fn finish(&mut self) -> Result<FilesWriteResponse, Status> {
        let fail = |errno| failed("write", &self.path, errno);
        if let Some(size) = self.size.filter(|size| self.position < *size) {
            let description = format!("is {size}, and only {} bytes have come", self.position);
            return Err(error::invalid_field("start.size", description));
        }
        let digests = self.digests.as_ref().map(Both::finish);
        let (sha256, md5) = digests.unwrap_or_default();
        for expected in &self.expected {
            let (name, is) = match expected.algorithm() {
                DigestAlgorithm::Md5 => ("MD5", &md5),
                _ => ("SHA-256", &sha256),
            };
            if expected.value != *is {
                if let Target::Replace(file) = &mut self.target {
                    file.give_up();
                }
                return Err(mismatch(&self.path, name, is, &expected.value));
            }
        }
        match &mut self.target {
            Target::Replace(file) => {
                file.finish(&self.attributes, self.no_overwrite)
                    .map_err(fail)?;
                sync(file.dir()).map_err(fail)?;
            }
            Target::Append(file) | Target::InPlace(file) => {
                self.attributes.set(&*file).map_err(fail)?;
                rustix::fs::fsync(&*file).map_err(fail)?;
            }
        }
        let file = Teller::new().open(self.target.file(), self.path.name());
        Ok(FilesWriteResponse {
            file: Some(file.map_err(fail)?),
            sha256,
            md5,
        })
    }

    /// Where the file ends with `count` bytes more.
    fn end(&self, field: &str, count: u64) -> Result<u64, Status> {
        let end = length(field, self.position.saturating_add(count))?;
        match self.size.filter(|size| end > *size) {
            None => Ok(end),
            Some(size) => {
                let description = format!("is {size}, and {end} bytes have come");
                Err(error::invalid_field("start.size", description))
            }
        }
    }
}

impl Target {
    fn file(&self) -> &File {
        match self {
            Self::Replace(file) => file.file(),
            Self::Append(file) | Self::InPlace(file) => file,
        }
    }
}

/// Opens a file to be written to as it is, or makes it.
fn existing(
    root: &Root,
    path: &GuestPath,
    flags: OFlags,
    attributes: &mut Attributes,
) -> Result<File, Status> {
    if let Some(found) = root.look(path)? {
        return open_regular(&found, path, OFlags::WRONLY | flags);
    }
    let (dir, name) = root.parent(path)?;
    let flags = flags | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let made = rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR);
    attributes.permissions.get_or_insert(NEW);
    made.map(File::from)
        .map_err(|errno| failed("write", path, errno))
}

/// Looks for room on the file system of a directory.
fn room(dir: impl std::os::fd::AsFd, path: &GuestPath, wanted: u64) -> Result<(), Status> {
    let stat = rustix::fs::fstatvfs(dir).map_err(|errno| failed("write", path, errno))?;
    // What is kept for root is there for an agent that is.
    let blocks = match rustix::process::geteuid().is_root() {
        true => stat.f_bfree,
        false => stat.f_bavail,
    };
    let free = blocks.saturating_mul(stat.f_frsize);
    // Without blocks it is a file system that does not count.
    if stat.f_blocks == 0 || wanted <= free {
        return Ok(());
    }
    let path = shown(path);
    let message = format!("{path} needs {wanted} bytes, and {free} are free on its file system");
    Err(error::failure(Reason::NoSpace, message))
}

/// Makes a hole in what is there, and behind it.
fn punch(file: &File, from: u64, to: u64) -> Result<(), Errno> {
    let stat = rustix::fs::fstat(file)?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let inner = to.min(size).saturating_sub(from);
    if inner > 0 {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(file, flags, from, inner) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => zero(file, from, inner)?,
            result => result?,
        }
    }
    match to > size {
        true => rustix::fs::ftruncate(file, to),
        false => Ok(()),
    }
}

/// Zeros for a file system that has no holes.
fn zero(file: &File, from: u64, count: u64) -> Result<(), Errno> {
    let zeros = vec![0; FILE_PIECE];
    let (mut at, mut left) = (from, count);
    while left > 0 {
        let bytes = piece(left, zeros.len());
        file.write_all_at(zeros.get(..bytes).unwrap_or_default(), at)
            .map_err(|error| errno(&error))?;
        at = at.saturating_add(bytes as u64);
        left = left.saturating_sub(bytes as u64);
    }
    Ok(())
}

fn mismatch(path: &GuestPath, name: &str, is: &[u8], expected: &[u8]) -> Status {
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    let (path, is, expected) = (shown(path), hex(is), hex(expected));
    error::failure(
        Reason::DigestMismatch,
        format!("what has come for {path} has the {name} {is} and not {expected}: send it again"),
    )
}
