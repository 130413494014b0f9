//! Removes files, links and whole directories, without following a link and within one file system.
//!
//! Each directory on the way down is held open, so that nobody can move one away and have the agent empty another. That is
//! what bounds the depth.

use std::{
    ffi::OsString,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, Dir, Mode, OFlags},
    io::Errno,
};
use tonic::Status;

use super::{
    failure::{failed, told, unresolved},
    info::{attributes, device, file_type, is_mounted},
    path::{GuestPath, Root, os},
    walk::Guard,
    work::{Step, Work},
};
use crate::{
    error::Reason,
    limits::{MAX_TREE_DEPTH, REMOVE_ROUNDS, REMOVE_STEP},
};

/// Something that is being removed.
#[derive(Debug)]
pub(crate) struct Removal {
    path: GuestPath,
    /// The directory that the path's last name is in.
    parent: OwnedFd,
    name: OsString,
    /// The device that the removal stays on.
    device: (u32, u32),
    /// The directories that are open, the innermost last.
    levels: Vec<Level>,
    removed: u64,
    /// What is closed below `parent`.
    guard: Guard,
}

/// A directory that is being emptied.
#[derive(Debug)]
struct Level {
    name: OsString,
    dir: Dir,
    /// How often it was read through, in case that somebody goes on putting files into it.
    rounds: u32,
}

impl Removal {
    pub(crate) fn new(root: &Root, path: GuestPath, recursive: bool) -> Result<Self, Status> {
        let (parent, name, guard) = root.parent_guarded(&path)?;
        let name = name.to_owned();
        let statx = attributes(&parent, &name).map_err(|errno| unresolved(&path, errno))?;
        let above = attributes(&parent, os(b"")).map_err(|errno| unresolved(&path, errno))?;
        let mut removal = Self {
            path,
            parent,
            name,
            device: device(&above),
            levels: Vec::new(),
            removed: 0,
            guard,
        };
        if file_type(&statx).is_dir() {
            if is_mounted(&statx, removal.device) {
                return Err(removal.mounted(&removal.name.clone()));
            }
            if recursive {
                removal.descend(removal.name.clone())?;
            }
        }
        Ok(removal)
    }

    fn mounted(&self, name: &OsString) -> Status {
        let what = "has another file system mounted on it, which is left alone: unmount it first";
        told(Reason::KernelRefused, self.shown(name), what)
    }

    /// The path of an entry of the innermost directory.
    fn shown(&self, name: &OsString) -> Vec<u8> {
        let mut shown = self.path.as_str().as_bytes().to_vec();
        let names = self.levels.iter().map(|level| &level.name).chain([name]);
        // The first is the path's own last name.
        for name in names.skip(1) {
            shown.push(b'/');
            shown.extend_from_slice(name.as_encoded_bytes());
        }
        shown
    }

    /// Refuses an entry of the innermost directory that the policy has closed.
    fn check(&self, name: &OsString) -> Result<(), Status> {
        let names = self.levels.iter().map(|level| &level.name).chain([name]);
        let names: Vec<_> = names.map(|name| name.as_encoded_bytes()).collect();
        match self.guard.hides(&names.join(&b'/')) {
            true => self.guard.refused(self.shown(name)).map_or(Ok(()), Err),
            false => Ok(()),
        }
    }

    /// Does something in the innermost directory.
    fn inner<R>(&self, act: impl FnOnce(BorrowedFd<'_>) -> Result<R, Errno>) -> Result<R, Errno> {
        match self.levels.last() {
            None => act(self.parent.as_fd()),
            Some(level) => act(level.dir.fd()?),
        }
    }

    fn descend(&mut self, name: OsString) -> Result<(), Status> {
        if self.levels.len() >= MAX_TREE_DEPTH {
            let what =
                format!("lies deeper than {MAX_TREE_DEPTH} directories: remove it on its own");
            return Err(told(Reason::TooMany, self.shown(&name), &what));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = self.inner(|dir| rustix::fs::openat(dir, &name, flags, Mode::empty()));
        let dir = opened.and_then(Dir::new);
        let dir = dir.map_err(|errno| failed("open", self.shown(&name), errno))?;
        let rounds = 1;
        self.levels.push(Level { name, dir, rounds });
        Ok(())
    }

    /// Removes the directory that was emptied, or goes through it once more.
    fn ascend(&mut self) -> Result<(), Status> {
        let Some(mut level) = self.levels.pop() else {
            return Ok(());
        };
        match self.inner(|dir| rustix::fs::unlinkat(dir, &level.name, AtFlags::REMOVEDIR)) {
            Ok(()) => self.removed += 1,
            // Somebody else has removed it.
            Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) if level.rounds < REMOVE_ROUNDS => {
                level.rounds += 1;
                level.dir.rewind();
                self.levels.push(level);
            }
            Err(errno) => return Err(failed("remove", self.shown(&level.name), errno)),
        }
        Ok(())
    }

    /// Removes the next entry of the innermost directory.
    fn next(&mut self) -> Result<(), Status> {
        let entry = match self.levels.last_mut() {
            None => return Ok(()),
            Some(level) => level.dir.read(),
        };
        let name = match entry {
            None => return self.ascend(),
            Some(Ok(entry)) => os(entry.file_name().to_bytes()).to_owned(),
            Some(Err(errno)) => return Err(failed("read", self.shown(&OsString::new()), errno)),
        };
        if name == "." || name == ".." {
            return Ok(());
        }
        self.check(&name)?;
        let statx = match self.inner(|dir| attributes(dir, &name)) {
            Err(Errno::NOENT) => return Ok(()),
            looked => looked.map_err(|errno| failed("look at", self.shown(&name), errno))?,
        };
        if is_mounted(&statx, self.device) {
            return Err(self.mounted(&name));
        }
        if file_type(&statx).is_dir() {
            return self.descend(name);
        }
        match self.inner(|dir| rustix::fs::unlinkat(dir, &name, AtFlags::empty())) {
            Ok(()) => self.removed += 1,
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed("remove", self.shown(&name), errno)),
        }
        Ok(())
    }

    /// Removes a single thing.
    fn single(&self) -> Result<(), Errno> {
        match rustix::fs::unlinkat(&self.parent, &self.name, AtFlags::empty()) {
            // POSIX has one of them for directories, and Linux the other.
            Err(Errno::ISDIR | Errno::PERM) => {
                let dir = rustix::fs::unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR);
                dir.map_err(|errno| match errno {
                    Errno::NOTDIR => Errno::PERM,
                    errno => errno,
                })
            }
            result => result,
        }
    }
}

impl Work for Removal {
    type Piece = u64;

    fn step(&mut self) -> Result<Step<u64>, Status> {
        if self.levels.is_empty() {
            self.single()
                .map_err(|errno| failed("remove", &self.path, errno))?;
            return Ok(Step::Piece(1));
        }
        for _ in 0..REMOVE_STEP {
            self.next()?;
            if self.levels.is_empty() {
                return Ok(Step::Piece(self.removed));
            }
        }
        Ok(Step::Again)
    }
}
