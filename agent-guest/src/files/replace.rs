//! A file that takes another's place when it is complete.
//!
//! ```text
//!    new, resume ──▶ a hidden file beside the old one ──finish──▶ in its place, on the disk
//!                        │           ▲
//!                     dropped        │ resume, within 24 h
//!                        ▼           │
//!                     removed, or kept if the upload has an id
//! ```
//!
//! Nobody but the agent's own user can read or write the hidden file before it is finished, wherever it lies: one that is
//! there already is taken only if it is the agent's, has no other name, and is not in use.

use std::{
    ffi::{OsStr, OsString},
    fmt::Write as _,
    fs::File,
    os::fd::{AsFd, OwnedFd},
    time::SystemTime,
};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags, Stat, Timespec,
        UTIME_NOW,
    },
    io::Errno,
};
use sha2::{Digest as _, Sha256};
use tonic::Status;

use super::{
    change::{Attributes, Owner},
    failure::{failed, told},
    path::{GuestPath, open_again, os},
};
use crate::{
    error::{self, Reason},
    limits::{FOLLOW_INTERVAL, UPLOAD_AGE, UPLOAD_SWEEP},
};

/// How hidden files begin. What follows is random, or made of the file's name and the upload's id.
const PREFIX: &str = ".vbridge-upload-";

/// Bytes that follow, each as two digits.
const NAME_BYTES: usize = 16;

/// The hidden file.
#[derive(Debug)]
pub(crate) struct Replacement {
    /// The directory of both files.
    dir: OwnedFd,
    /// The name that it will have.
    name: OsString,
    temporary: OsString,
    file: File,
    fate: Fate,
}

/// What becomes of the hidden file when it is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Remove,
    Keep,
    /// It is hidden no more.
    Done,
}

impl Replacement {
    /// Begins with an empty file.
    pub(crate) fn new(dir: OwnedFd, name: &OsStr) -> Result<Self, Errno> {
        let temporary = random_name()?;
        let flags = HIDDEN | OFlags::CREATE | OFlags::EXCL;
        let file = rustix::fs::openat(&dir, &temporary, flags, PRIVATE)?;
        // However old it gets, [`sweep`] leaves it. Where there are no locks, that removes nothing at all.
        let _ = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
        Ok(Self {
            dir,
            name: name.to_owned(),
            temporary,
            file: file.into(),
            fate: Fate::Remove,
        })
    }

    /// Goes on with the upload `id`, of which `offset` bytes are there, or begins it.
    pub(crate) fn resume(
        dir: OwnedFd,
        path: &GuestPath,
        id: &str,
        offset: u64,
    ) -> Result<Self, Status> {
        let fail = |errno| failed("write the upload of", path, errno);
        let name = OsStr::new(path.name());
        let temporary = upload_name(name, id);
        let file = rustix::fs::openat(&dir, &temporary, HIDDEN | OFlags::CREATE, PRIVATE);
        let file = File::from(file.map_err(fail)?);
        let stat = own(&file, path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|errno| {
            match errno {
                Errno::WOULDBLOCK => in_use(path),
                errno => fail(errno),
            }
        })?;
        // Who had it before may have finished it, and then it is not hidden any more.
        let there = rustix::fs::statat(&dir, &temporary, AtFlags::SYMLINK_NOFOLLOW);
        if !there.is_ok_and(|there| (there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino)) {
            return Err(in_use(path));
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if offset > size {
            let description = format!("is {offset}, and {size} bytes of the upload are there");
            return Err(error::invalid_field("offset", description));
        }
        rustix::fs::ftruncate(&file, offset).map_err(fail)?;
        Ok(Self {
            dir,
            name: name.to_owned(),
            temporary,
            file,
            fate: Fate::Keep,
        })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Has it removed when it is dropped, even if its upload has an id.
    pub(crate) fn give_up(&mut self) {
        self.fate = Fate::Remove;
    }

    /// Puts it in its place, with its attributes. The directory's own entry is left to [`sync`]. If that fails, an upload
    /// with an id can be gone on with.
    pub(crate) fn finish(
        &mut self,
        attributes: &Attributes,
        no_overwrite: bool,
    ) -> Result<(), Errno> {
        let placed = attributes
            .set(&self.file)
            .and_then(|()| rustix::fs::fsync(&self.file))
            .and_then(|()| put(&self.dir, &self.temporary, &self.name, no_overwrite));
        if placed.is_ok() {
            self.fate = Fate::Done;
        } else if self.fate == Fate::Keep && self.take_back().is_err() {
            // Nobody could go on with it.
            self.fate = Fate::Remove;
        }
        placed
    }

    /// Makes it the agent's own again, as it was before it got its attributes.
    fn take_back(&self) -> Result<(), Errno> {
        // It has its name already, and the attributes are that file's.
        if rustix::fs::fstat(&self.file)?.st_nlink != 1 {
            return Err(Errno::MLINK);
        }
        let attributes = Attributes {
            owner: Owner {
                uid: Some(rustix::process::geteuid().as_raw()),
                gid: Some(rustix::process::getegid().as_raw()),
            },
            permissions: Some(PRIVATE.as_raw_mode()),
            modified: Some(Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_NOW,
            }),
            accessed: None,
        };
        attributes.set(&self.file)
    }

    /// The directory of both files.
    pub(crate) fn dir(&self) -> &OwnedFd {
        &self.dir
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if self.fate == Fate::Remove {
            // It will be found by its age otherwise.
            let _ = rustix::fs::unlinkat(&self.dir, &self.temporary, AtFlags::empty());
        }
    }
}

/// How hidden files are opened.
const HIDDEN: OFlags = OFlags::RDWR
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

/// What others may do with them.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// How much there is of the upload `id`.
pub(crate) fn upload_size(dir: &OwnedFd, path: &GuestPath, id: &str) -> Result<u64, Status> {
    sweep(dir);
    let temporary = upload_name(OsStr::new(path.name()), id);
    let file = rustix::fs::openat(dir, &temporary, HIDDEN, Mode::empty());
    let file = file.map_err(|errno| match errno {
        Errno::NOENT => told(Reason::FileNotFound, path, "has no upload with that id"),
        errno => failed("look at the upload of", path, errno),
    })?;
    let stat = own(&file, path)?;
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}

/// Gives a hidden file or link its name.
pub(crate) fn put(
    dir: impl AsFd,
    temporary: &OsStr,
    name: &OsStr,
    no_overwrite: bool,
) -> Result<(), Errno> {
    if !no_overwrite {
        return rustix::fs::renameat(&dir, temporary, &dir, name);
    }
    match rustix::fs::renameat_with(&dir, temporary, &dir, name, RenameFlags::NOREPLACE) {
        // Not every file system has it. A link does not replace anything either.
        Err(Errno::INVAL | Errno::NOSYS) => {
            rustix::fs::linkat(&dir, temporary, &dir, name, AtFlags::empty())?;
            rustix::fs::unlinkat(&dir, temporary, AtFlags::empty())
        }
        result => result,
    }
}

/// Has a directory's entries written to the disk.
pub(crate) fn sync(dir: impl AsFd) -> Result<(), Errno> {
    match open_again(dir).and_then(rustix::fs::fsync) {
        // It may be written and not read, or its file system has nothing to write.
        Err(Errno::ACCESS | Errno::INVAL) => Ok(()),
        result => result,
    }
}

/// A name for a hidden file that nobody can guess.
pub(crate) fn random_name() -> Result<OsString, Errno> {
    let mut bytes = [0; NAME_BYTES];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(hidden(&bytes))
}

/// The hidden file of an upload: the same whenever it is resumed, and another for another file or id.
fn upload_name(name: &OsStr, id: &str) -> OsString {
    let mut hasher = Sha256::new();
    hasher.update(name.as_encoded_bytes());
    hasher.update([0]);
    hasher.update(id);
    let digest = hasher.finalize();
    hidden(digest.get(..NAME_BYTES).unwrap_or(&digest))
}

fn hidden(bytes: &[u8]) -> OsString {
    let mut name = PREFIX.to_owned();
    for byte in bytes {
        // A string takes everything.
        let _ = write!(name, "{byte:02x}");
    }
    name.into()
}

/// Whether the agent gives such a name.
fn is_hidden(name: &[u8]) -> bool {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let digits = name.strip_prefix(PREFIX.as_bytes());
    digits.is_some_and(|digits| digits.len() == 2 * NAME_BYTES && digits.iter().all(is_digit))
}

/// Whether a hidden file is the agent's own, as opposed to one that somebody has put there.
fn own(file: impl AsFd, path: &GuestPath) -> Result<Stat, Status> {
    let fail = |errno| failed("look at the upload of", path, errno);
    let stat = rustix::fs::fstat(file).map_err(fail)?;
    match is_own(&stat) {
        true => Ok(stat),
        false => {
            let what = "has a hidden file of this upload beside it that is not the agent's: choose another id";
            Err(told(Reason::PermissionDenied, path, what))
        }
    }
}

fn is_own(stat: &Stat) -> bool {
    is_made_here(stat)
        && Mode::from_raw_mode(stat.st_mode).intersection(Mode::RWXG | Mode::RWXO) == Mode::empty()
}

/// The same, whatever others can do with it: its attributes may have been set when the agent was ended.
fn is_made_here(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && stat.st_uid == rustix::process::geteuid().as_raw()
        && stat.st_nlink == 1
}

fn in_use(path: &GuestPath) -> Status {
    let path = super::failure::shown(path);
    let message =
        format!("the upload of {path} goes on in another call: wait until that has ended");
    error::failure_for(Reason::Aborted, message, FOLLOW_INTERVAL)
}

/// Removes uploads that nobody has gone on with for [`UPLOAD_AGE`]. What fails is left for the next time.
pub(crate) fn sweep(dir: &OwnedFd) {
    let Ok(entries) = open_again(dir).and_then(Dir::new) else {
        return;
    };
    for entry in entries.take(UPLOAD_SWEEP).flatten() {
        let name = entry.file_name().to_bytes();
        if is_hidden(name) {
            let _ = remove_if_old(dir, os(name));
        }
    }
}

fn remove_if_old(dir: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs());
    let age = now.saturating_sub(u64::try_from(stat.st_mtime).unwrap_or(u64::MAX));
    if age < UPLOAD_AGE.as_secs() || !is_made_here(&stat) {
        return Ok(());
    }
    // Whoever uses it has locked it.
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    rustix::fs::unlinkat(dir, name, AtFlags::empty())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

    use rustix::fs::Timestamps;
    use tonic::Code;

    use super::*;

    fn open(dir: &Path) -> OwnedFd {
        fs::File::open(dir).unwrap().into()
    }

    fn hidden_files(dir: &Path) -> usize {
        fs::read_dir(dir)
            .unwrap()
            .filter(|entry| {
                let name = entry.as_ref().unwrap().file_name();
                name.to_string_lossy().starts_with(PREFIX)
            })
            .count()
    }

    #[test]
    fn what_is_dropped_is_removed_unless_it_has_an_id() {
        let dir = tempfile::tempdir().unwrap();
        let path = GuestPath::parse("path", "/x/file").unwrap();
        let anonymous = Replacement::new(open(dir.path()), OsStr::new("file")).unwrap();
        assert_eq!(hidden_files(dir.path()), 1);
        let mode = anonymous.file().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        drop(anonymous);
        assert_eq!(hidden_files(dir.path()), 0);
        drop(Replacement::resume(open(dir.path()), &path, "id", 0).unwrap());
        assert_eq!(hidden_files(dir.path()), 1);
        assert_eq!(upload_size(&open(dir.path()), &path, "id").unwrap(), 0);
        let missing = upload_size(&open(dir.path()), &path, "other").unwrap_err();
        assert_eq!(missing.code(), Code::NotFound);
    }

    #[test]
    fn one_call_at_a_time_goes_on_with_an_upload_and_only_as_far_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = GuestPath::parse("path", "/x/file").unwrap();
        let first = Replacement::resume(open(dir.path()), &path, "id", 0).unwrap();
        let second = Replacement::resume(open(dir.path()), &path, "id", 0).unwrap_err();
        assert_eq!(second.code(), Code::Aborted);
        drop(first);
        let far = Replacement::resume(open(dir.path()), &path, "id", 1).unwrap_err();
        assert_eq!(far.code(), Code::InvalidArgument);
    }

    #[test]
    fn a_file_that_somebody_has_put_there_is_not_taken_for_an_upload() {
        let dir = tempfile::tempdir().unwrap();
        let path = GuestPath::parse("path", "/x/file").unwrap();
        let planted = dir.path().join(upload_name(OsStr::new("file"), "id"));
        fs::write(&planted, "x").unwrap();
        fs::set_permissions(&planted, fs::Permissions::from_mode(0o644)).unwrap();
        let refused = Replacement::resume(open(dir.path()), &path, "id", 0).unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        fs::remove_file(&planted).unwrap();
        std::os::unix::fs::symlink("elsewhere", &planted).unwrap();
        assert!(Replacement::resume(open(dir.path()), &path, "id", 0).is_err());
        assert!(!dir.path().join("elsewhere").exists());
    }

    #[test]
    fn an_upload_that_can_not_be_put_in_its_place_can_be_gone_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let path = GuestPath::parse("path", "/x/file").unwrap();
        fs::write(dir.path().join("file"), "old").unwrap();
        let mut upload = Replacement::resume(open(dir.path()), &path, "id", 0).unwrap();
        let attributes = Attributes {
            permissions: Some(0o644),
            modified: Some(Timespec::default()),
            ..Attributes::default()
        };
        assert_eq!(upload.finish(&attributes, true), Err(Errno::EXIST));
        drop(upload);
        assert_eq!(upload_size(&open(dir.path()), &path, "id").unwrap(), 0);
        let mut upload = Replacement::resume(open(dir.path()), &path, "id", 0).unwrap();
        assert_eq!(upload.finish(&attributes, false), Ok(()));
        assert_eq!(hidden_files(dir.path()), 0);
        assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"");
    }

    #[test]
    fn what_is_old_and_not_in_use_is_removed_whatever_its_permissions_are() {
        let dir = tempfile::tempdir().unwrap();
        let old = |file: &fs::File| {
            let attributes = Attributes {
                permissions: Some(0o644),
                modified: Some(Timespec::default()),
                ..Attributes::default()
            };
            attributes.set(file).unwrap();
        };
        let used = Replacement::new(open(dir.path()), OsStr::new("file")).unwrap();
        old(used.file());
        old(&fs::File::create(dir.path().join(random_name().unwrap())).unwrap());
        old(&fs::File::create(dir.path().join(format!("{PREFIX}notes"))).unwrap());
        sweep(&open(dir.path()));
        assert_eq!(hidden_files(dir.path()), 2);
        drop(used);
        assert!(dir.path().join(format!("{PREFIX}notes")).exists());
    }

    #[test]
    fn an_upload_that_nobody_goes_on_with_is_removed_after_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let path = GuestPath::parse("path", "/x/file").unwrap();
        let old = Replacement::resume(open(dir.path()), &path, "old", 0).unwrap();
        let age = |hours: i64| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let time = Timespec {
                tv_sec: i64::try_from(now.unwrap().as_secs()).unwrap() - hours * 3600,
                tv_nsec: 0,
            };
            let times = Timestamps {
                last_access: time,
                last_modification: time,
            };
            rustix::fs::futimens(old.file(), &times).unwrap();
        };
        age(25);
        sweep(&open(dir.path()));
        assert_eq!(hidden_files(dir.path()), 1, "it is in use");
        age(23);
        drop(old);
        sweep(&open(dir.path()));
        assert_eq!(hidden_files(dir.path()), 1, "it is not old enough");
        let again = Replacement::resume(open(dir.path()), &path, "old", 0).unwrap();
        let times = Timestamps {
            last_access: Timespec::default(),
            last_modification: Timespec::default(),
        };
        rustix::fs::futimens(again.file(), &times).unwrap();
        drop(again);
        sweep(&open(dir.path()));
        assert_eq!(hidden_files(dir.path()), 0);
    }
}
