//! The way to a path in a root that the policy has put a fence around.
//!
//! ```text
//!    a name ──▶ closed? ── yes ──▶ refused
//!      │ no
//!      ▼
//!    opened in the directory before it, where the kernel follows nothing ──▶ a link? ── no ──▶ the next name
//!                                                                              │ yes
//!      its target's names come next ◀── magic, absolute, too many? ── no ──────┘
//! ```
//!
//! The kernel alone could keep a path in its root (`RESOLVE_BENEATH`), but does not tell which way it went, and so not whether
//! that led through something closed. Here each name is opened on its own, by `openat2` and in a directory that is held open,
//! and `..` of a link goes back to the directory that was left: whatever is moved or exchanged meanwhile, what is found
//! was reached through names that were asked about.

use std::{
    ffi::OsStr,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};
use tonic::Status;

use super::{
    failure::shown,
    path::{PATH, os},
};
use crate::{
    limits::MAX_LINKS,
    policy::{self, Fence},
};

/// What is closed below something that is open; nothing where there is no fence.
#[derive(Debug, Clone, Default)]
pub(crate) struct Guard(Option<Inside>);

#[derive(Debug, Clone)]
struct Inside {
    fence: Arc<Fence>,
    /// The names that lead from the root to what is open, none of them a link.
    place: Vec<Vec<u8>>,
}

/// A walk under way.
struct Walk<'a> {
    inside: &'a Inside,
    start: &'a OwnedFd,
    /// What was come through from the start, each held open.
    way: Vec<(Vec<u8>, OwnedFd)>,
    /// The names that are left, the next last.
    left: Vec<Vec<u8>>,
    links: usize,
}

// === impl Guard ===

impl Guard {
    /// Of the root itself.
    pub(super) fn new(fence: Arc<Fence>) -> Self {
        let place = Vec::new();
        Self(Some(Inside { fence, place }))
    }

    pub(super) fn is_open(&self) -> bool {
        self.0.is_none()
    }

    /// Goes from `start`, which the guard is of, to what is to be opened; none where there is no fence.
    pub(super) fn walk(
        &self,
        start: &OwnedFd,
        path: &OsStr,
        flags: OFlags,
        follow: bool,
    ) -> Option<Result<(OwnedFd, Self), Errno>> {
        let inside = self.0.as_ref()?;
        let mut walk = Walk {
            inside,
            start,
            way: Vec::new(),
            left: Vec::new(),
            links: 0,
        };
        walk.push(path.as_encoded_bytes());
        Some(walk.run(follow).and_then(|(found, guard)| {
            match flags.contains(OFlags::DIRECTORY) && !file_type(&found)?.is_dir() {
                true => Err(Errno::NOTDIR),
                false => Ok((found, guard)),
            }
        }))
    }

    /// Whether what lies at `below` is closed. What is on the way there must have been asked about.
    pub(super) fn hides(&self, below: &[u8]) -> bool {
        let is_closed = |inside: &Inside| inside.fence.closes(&inside.at(below));
        self.0.as_ref().is_some_and(is_closed)
    }

    /// Whether something below the directory `name` would be closed, or not be any more, in another place.
    pub(super) fn closes_below(&self, name: &OsStr) -> bool {
        let closes = |it: &Inside| it.fence.closes_below(&it.at(name.as_encoded_bytes()));
        self.0.as_ref().is_some_and(closes)
    }

    /// Whether what is closed by its name alone is closed in the same way there.
    pub(super) fn shares_fence(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(own), Some(other)) => own.fence == other.fence,
            _ => false,
        }
    }

    /// Refuses to move the directory `path` to another root; none if there is no fence to do so.
    pub(super) fn refused_move(&self, path: impl AsRef<[u8]>) -> Option<Status> {
        let inside = self.0.as_ref()?;
        let what = format!(
            "renaming {}: a directory can't go from one of the policy's roots to another",
            shown(path)
        );
        Some(policy::refused(&inside.fence.rule, &what))
    }

    /// Refuses `path`, if there is a fence to do so.
    pub(super) fn refused(&self, path: impl AsRef<[u8]>) -> Option<Status> {
        let inside = self.0.as_ref()?;
        let what = format!("the path {}", shown(path));
        Some(policy::refused(&inside.fence.rule, &what))
    }
}

impl Inside {
    fn at(&self, below: &[u8]) -> Vec<Vec<u8>> {
        let mut place = self.place.clone();
        place.extend(names(below).map(<[u8]>::to_vec));
        place
    }
}

// === impl Walk ===

impl Walk<'_> {
    fn push(&mut self, path: &[u8]) {
        let names: Vec<_> = names(path).map(<[u8]>::to_vec).collect();
        self.left.extend(names.into_iter().rev());
    }

    fn run(mut self, follow: bool) -> Result<(OwnedFd, Guard), Errno> {
        while let Some(name) = self.left.pop() {
            if name == b".." {
                // Above the start is out of it.
                self.way.pop().ok_or(Errno::XDEV)?;
                continue;
            }
            if self.inside.fence.closes(&self.place(&name)) {
                return Err(Errno::XDEV);
            }
            let found = self.step(&name)?;
            if (follow || !self.left.is_empty()) && file_type(&found)?.is_symlink() {
                self.link(&name, &found)?;
            } else {
                self.way.push((name, found));
            }
        }
        let mut place = self.inside.place.clone();
        place.extend(self.way.iter().map(|(name, _)| name.clone()));
        let found = match self.way.pop() {
            Some((_, found)) => found,
            None => rustix::fs::openat(self.start, ".", PATH, Mode::empty())?,
        };
        let fence = Arc::clone(&self.inside.fence);
        Ok((found, Guard(Some(Inside { fence, place }))))
    }

    fn place(&self, name: &[u8]) -> Vec<Vec<u8>> {
        let way = self.way.iter().map(|(name, _)| name.clone());
        let names = self.inside.place.iter().cloned().chain(way);
        names.chain([name.to_vec()]).collect()
    }

    fn dir(&self) -> &OwnedFd {
        self.way.last().map_or(self.start, |(_, dir)| dir)
    }

    /// Opens one name, and nothing that it may lead to.
    fn step(&self, name: &[u8]) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let flags = PATH | OFlags::NOFOLLOW;
        rustix::fs::openat2(self.dir(), os(name), flags, Mode::empty(), resolve)
    }

    /// Has the names of a link's target come next.
    fn link(&mut self, name: &[u8], link: &OwnedFd) -> Result<(), Errno> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Errno::LOOP);
        }
        // The text of a magic link of /proc is not where it leads to. Only the kernel can tell one.
        let probe = ResolveFlags::NO_MAGICLINKS;
        let probed = rustix::fs::openat2(self.dir(), os(name), PATH, Mode::empty(), probe);
        if probed.is_err_and(|errno| errno == Errno::LOOP) {
            return Err(Errno::LOOP);
        }
        let target = rustix::fs::readlinkat(link, "", Vec::new())?.into_bytes();
        if target.starts_with(b"/") {
            // As for the kernel, an absolute link leads out of every root but the guest's own.
            if !self.inside.fence.is_whole() || !self.inside.place.is_empty() {
                return Err(Errno::XDEV);
            }
            self.way.clear();
        }
        self.push(&target);
        Ok(())
    }
}

fn file_type(fd: impl AsFd) -> Result<FileType, Errno> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode))
}

fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/')
        .filter(|name| !matches!(*name, b"" | b"."))
}

#[cfg(test)]
mod tests;
