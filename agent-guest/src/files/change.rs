//! Small changes: a new directory, another name, other attributes.

use std::{
    ffi::OsStr,
    os::fd::{AsFd, OwnedFd},
};

use prost_types::Timestamp;
use rustix::{
    fs::{
        AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_OMIT,
        Uid,
    },
    io::Errno,
};
use tonic::Status;
use vbridge_api::guest::v1::{FileInfo, FilesMkdirRequest, FilesSetAttributesRequest};

use super::{
    failure::{failed, told, wrong_type},
    info::Teller,
    path::{GuestPath, PATH, Root, by_descriptor, make_directory, open_regular, stat},
};
use crate::{
    error::{self, Reason},
    source::{Reader, accounts::Accounts, clock},
};

/// Makes a directory.
pub(crate) fn make(
    root: &Root,
    path: &GuestPath,
    request: &FilesMkdirRequest,
) -> Result<FileInfo, Status> {
    let permissions = permissions("", request.permissions)?.unwrap_or(0o755);
    let fail = |errno| failed("make the directory", path, errno);
    if request.parents {
        // The root itself, or a link to a directory, is there already.
        match root.find(path, true) {
            Ok(found) => {
                let (file_type, _) = stat(&found, path)?;
                return match file_type.is_dir() {
                    true => tell(&found, path),
                    false => Err(wrong_type(path, file_type, "directories")),
                };
            }
            Err(_) => root.make_parents(path)?,
        }
    }
    let (dir, name) = root.parent(path)?;
    if !request.parents && rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
        return Err(fail(Errno::EXIST));
    }
    let made = make_directory(&dir, name, permissions).map_err(fail)?;
    tell(&made, path)
}

/// Gives something another name, perhaps in another root.
pub(crate) fn rename(
    (old_root, from): (&Root, &GuestPath),
    (new_root, to): (&Root, &GuestPath),
    no_overwrite: bool,
) -> Result<(), Status> {
    let (old_dir, old_name, old_guard) = old_root.parent_guarded(from)?;
    let (new_dir, new_name, new_guard) = new_root.parent_guarded(to)?;
    let is_directory = || {
        rustix::fs::statat(&old_dir, old_name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir())
    };
    // What is closed must not be moved to where it is open, nor the other way round: in another root other names are closed.
    if !old_guard.shares_fence(&new_guard) && is_directory() {
        let refused = old_guard.refused_move(from);
        let refused = refused.or_else(|| new_guard.refused_move(from));
        return Err(refused.unwrap_or_else(|| old_root.unresolved(from, Errno::XDEV)));
    }
    for (root, path, guard, name) in [
        (old_root, from, old_guard, old_name),
        (new_root, to, new_guard, new_name),
    ] {
        if guard.closes_below(name) && is_directory() {
            return Err(root.unresolved(path, Errno::XDEV));
        }
    }
    let flags = match no_overwrite {
        true => RenameFlags::NOREPLACE,
        false => RenameFlags::empty(),
    };
    rustix::fs::renameat_with(&old_dir, old_name, &new_dir, new_name, flags).map_err(|errno| {
        match errno {
            Errno::EXIST => failed("replace", to, errno),
            Errno::NOTEMPTY => told(
                Reason::KernelRefused,
                to,
                "is a directory that is not empty",
            ),
            errno => failed("rename", from, errno),
        }
    })
}

/// Changes attributes.
pub(crate) fn set(
    root: &Root,
    path: &GuestPath,
    request: &FilesSetAttributesRequest,
) -> Result<FileInfo, Status> {
    let attributes = Attributes {
        owner: Owner::parse("", &request.owner, &request.group)?,
        permissions: permissions("", request.permissions)?,
        modified: time("modified", request.modified.as_ref())?,
        accessed: time("accessed", request.accessed.as_ref())?,
    };
    let found = root.find(path, true)?;
    if let Some(size) = request.size {
        let size = length("size", size)?;
        let file = open_regular(&found, path, OFlags::WRONLY)?;
        rustix::fs::ftruncate(&file, size)
            .map_err(|errno| failed("set the length of", path, errno))?;
    }
    attributes
        .set(&found)
        .map_err(|errno| failed("set the attributes of", path, errno))?;
    tell(&found, path)
}

fn tell(found: impl AsFd, path: &GuestPath) -> Result<FileInfo, Status> {
    Teller::new()
        .open(found, path.name())
        .map_err(|errno| failed("look at", path, errno))
}

/// Attributes to be set; what is absent stays.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Attributes {
    pub(crate) owner: Owner,
    pub(crate) permissions: Option<u32>,
    pub(crate) modified: Option<Timespec>,
    pub(crate) accessed: Option<Timespec>,
}

/// Who something belongs to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

impl Attributes {
    /// Sets them on what is open, in whatever way it is open; not on a symbolic link.
    pub(crate) fn set(&self, fd: impl AsFd) -> Result<(), Errno> {
        self.set_owner(&fd, OsStr::new(""), AtFlags::EMPTY_PATH)?;
        // After the owner: a change of that takes away set-uid bits.
        if let Some(permissions) = self.permissions {
            let name = by_descriptor(fd.as_fd());
            let mode = Mode::from_raw_mode(permissions);
            rustix::fs::chmodat(CWD, name, mode, AtFlags::empty())?;
        }
        match self.times() {
            None => Ok(()),
            Some(times) => {
                let name = by_descriptor(fd.as_fd());
                rustix::fs::utimensat(CWD, name, &times, AtFlags::empty())
            }
        }
    }

    /// Sets owner and times of a symbolic link, which has no other attributes.
    pub(crate) fn set_link(&self, dir: impl AsFd, name: &OsStr) -> Result<(), Errno> {
        self.set_owner(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match self.times() {
            None => Ok(()),
            Some(times) => rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW),
        }
    }

    fn set_owner(&self, dir: impl AsFd, name: &OsStr, flags: AtFlags) -> Result<(), Errno> {
        let Owner { uid, gid } = self.owner;
        if uid.is_none() && gid.is_none() {
            return Ok(());
        }
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        rustix::fs::chownat(dir, name, uid, gid, flags)
    }

    fn times(&self) -> Option<Timestamps> {
        if self.modified.is_none() && self.accessed.is_none() {
            return None;
        }
        let omitted = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        };
        Some(Timestamps {
            last_access: self.accessed.unwrap_or(omitted),
            last_modification: self.modified.unwrap_or(omitted),
        })
    }
}

impl Owner {
    /// From the fields `owner` and `group` of a request, in the message `within`: names or numbers, or empty.
    pub(crate) fn parse(within: &str, owner: &str, group: &str) -> Result<Self, Status> {
        if owner.is_empty() && group.is_empty() {
            return Ok(Self::default());
        }
        let accounts = Accounts::read(&mut Reader::new());
        let id = |field, text: &str, id: Option<u32>| match (text, id) {
            ("", _) => Ok(None),
            (_, Some(id)) => Ok(Some(id)),
            (text, None) => {
                let description = format!("the guest has no {text:?} in its files of accounts");
                Err(error::invalid_field(
                    format!("{within}{field}"),
                    description,
                ))
            }
        };
        Ok(Self {
            uid: id("owner", owner, accounts.uid(owner))?,
            gid: id("group", group, accounts.gid(group))?,
        })
    }
}

/// Permission bits of a request, in the message `within`.
pub(crate) fn permissions(within: &str, permissions: Option<u32>) -> Result<Option<u32>, Status> {
    match permissions {
        Some(bits) if bits > 0o7777 => {
            let description = format!("is {bits:#o}, and 0o7777 is the most");
            Err(error::invalid_field(
                format!("{within}permissions"),
                description,
            ))
        }
        permissions => Ok(permissions),
    }
}

/// A time of a request.
pub(crate) fn time(field: &str, time: Option<&Timestamp>) -> Result<Option<Timespec>, Status> {
    match time {
        None => Ok(None),
        Some(time) if clock::is_valid(time) => Ok(Some(Timespec {
            tv_sec: time.seconds,
            tv_nsec: time.nanos.into(),
        })),
        Some(_) => {
            let description = "must lie between 1970 and 9999, with 0 to 999,999,999 nanoseconds";
            Err(error::invalid_field(field, description))
        }
    }
}

/// A length or place of a file, as the kernel counts them.
pub(crate) fn length(field: &str, length: u64) -> Result<u64, Status> {
    match i64::try_from(length) {
        Ok(_) => Ok(length),
        Err(_) => Err(error::invalid_field(field, "no file can be so long")),
    }
}

/// What is in a directory under a name, stood on; a link itself.
pub(crate) fn entry(dir: impl AsFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(dir, name, PATH | OFlags::NOFOLLOW, Mode::empty())
}
