//! Where a path leads: the root that everything is opened below, and the paths that callers give.

use std::{
    ffi::OsStr,
    fs::File,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    sync::Arc,
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat},
    io::Errno,
};
use tonic::Status;

use super::{
    failure::{failed, unresolved, wrong_type},
    walk::Guard,
};
use crate::{
    error,
    limits::{MAX_PATH, RESOLVE_TRIES},
    policy::{Access, Fence, Held},
};

/// A path as a caller gives it, checked: absolute, without `..`, and written without what means nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GuestPath {
    /// Begins with a slash, and ends with none unless it is the root.
    text: String,
}

impl GuestPath {
    /// Checks what is in the field `field`.
    pub(crate) fn parse(field: &str, text: &str) -> Result<Self, Status> {
        let wrong = |description: &str| Err(error::invalid_field(field, description));
        if text.len() > MAX_PATH {
            return wrong(&format!(
                "has {} bytes, and {MAX_PATH} is the most",
                text.len()
            ));
        }
        if !text.starts_with('/') {
            return wrong("must be an absolute path, which begins with a slash");
        }
        if text.contains('\0') {
            return wrong("must not contain a NUL, which no name has");
        }
        let mut clean = String::with_capacity(text.len());
        for part in text.split('/') {
            match part {
                "" | "." => {}
                ".." => return wrong("must not contain \"..\": name the directory itself"),
                part => {
                    clean.push('/');
                    clean.push_str(part);
                }
            }
        }
        if clean.is_empty() {
            clean.push('/');
        }
        Ok(Self { text: clean })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The last name; "/" of the root.
    pub(crate) fn name(&self) -> &str {
        match self.text.rsplit_once('/') {
            Some((_, name)) if !name.is_empty() => name,
            _ => "/",
        }
    }
}

impl AsRef<[u8]> for GuestPath {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

/// A directory, and the rule that keeps all paths below it.
#[derive(Debug)]
pub(crate) struct Root {
    dir: OwnedFd,
    resolve: ResolveFlags,
    /// Bytes of a path that are the root's own.
    base: usize,
    /// What the policy has closed in it.
    guard: Guard,
}

impl Root {
    /// The guest's own root, which absolute links start from.
    pub(crate) fn whole() -> Result<Self, Status> {
        let dir = rustix::fs::openat(CWD, "/", PATH | OFlags::DIRECTORY, Mode::empty());
        Ok(Self {
            dir: dir.map_err(|errno| failed("open", "/", errno))?,
            resolve: ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
            base: 0,
            guard: Guard::default(),
        })
    }

    /// The root that the policy has found for a call's path; the guest's own if it has put no fence around one.
    pub(crate) fn within(fence: Option<Arc<Fence>>) -> Result<Self, Status> {
        let whole = Self::whole()?;
        let Some(fence) = fence else {
            return Ok(whole);
        };
        let root = fence.root();
        let path = if root.is_empty() { "." } else { root.as_str() };
        let dir = whole.open(path, PATH | OFlags::DIRECTORY, true);
        let dir =
            dir.map_err(|errno| failed("open the policy's root", format!("/{root}"), errno))?;
        let base = if root.is_empty() { 0 } else { root.len() + 1 };
        let guard = Guard::new(fence);
        Ok(Self {
            base,
            guard,
            ..Self::below(dir)
        })
    }

    /// A directory that no path leads out of: not by a link, wherever it was put, and whenever.
    pub(crate) fn below(dir: OwnedFd) -> Self {
        Self {
            dir,
            resolve: ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
            base: 0,
            guard: Guard::default(),
        }
    }

    /// The same directory, with the rule of this root if it is the root itself.
    pub(crate) fn at(&self, path: &GuestPath) -> Result<Self, Status> {
        let (dir, guard) = self.directory(path, false)?;
        let below = Self::below(dir);
        let resolve = match self.split(path) {
            Some(_) => below.resolve,
            None => self.resolve,
        };
        Ok(Self {
            resolve,
            guard,
            ..below
        })
    }

    /// A path below the root.
    pub(super) fn relative<'a>(&self, path: &'a GuestPath) -> &'a str {
        let below = path.text.get(self.base..).unwrap_or_default();
        match below.trim_start_matches('/') {
            "" => ".",
            below => below,
        }
    }

    /// The directory of a path below the root, and the name in it; none for the root itself.
    fn split<'a>(&self, path: &'a GuestPath) -> Option<(&'a str, &'a str)> {
        match self.relative(path) {
            "." => None,
            below => Some(below.rsplit_once('/').unwrap_or((".", below))),
        }
    }

    /// Why a path can't be opened.
    pub(super) fn unresolved(&self, path: impl AsRef<[u8]>, errno: Errno) -> Status {
        let refused = match errno {
            Errno::XDEV => self.guard.refused(&path),
            _ => None,
        };
        refused.unwrap_or_else(|| unresolved(path, errno))
    }

    pub(super) fn is_fenced(&self) -> bool {
        !self.guard.is_open()
    }

    /// Has what is on its file system written to the disk.
    pub(crate) fn sync(&self) -> Result<(), Errno> {
        rustix::fs::syncfs(&self.dir)
    }

    /// Opens a path that is relative to the root.
    pub(crate) fn open(
        &self,
        path: impl AsRef<OsStr>,
        flags: OFlags,
        follow: bool,
    ) -> Result<OwnedFd, Errno> {
        let (opened, _) = self.open_guarded(path.as_ref(), flags, follow)?;
        Ok(opened)
    }

    /// The same, with what is closed below it.
    pub(super) fn open_guarded(
        &self,
        path: &OsStr,
        flags: OFlags,
        follow: bool,
    ) -> Result<(OwnedFd, Guard), Errno> {
        if let Some(found) = self.guard.walk(&self.dir, path, flags, follow) {
            return found;
        }
        let mut flags = flags | OFlags::CLOEXEC;
        flags.set(OFlags::NOFOLLOW, !follow);
        for _ in 0..RESOLVE_TRIES {
            match rustix::fs::openat2(&self.dir, path, flags, Mode::empty(), self.resolve) {
                // Something was moved while the kernel was looking at "..".
                Err(Errno::AGAIN) => {}
                result => return Ok((result?, Guard::default())),
            }
        }
        Err(Errno::AGAIN)
    }

    /// What is at a path, whatever it is: opened without touching it, so that a device does not notice.
    pub(crate) fn find(&self, path: &GuestPath, follow: bool) -> Result<OwnedFd, Status> {
        let (found, _) = self.find_guarded(path, follow)?;
        Ok(found)
    }

    /// The same, with what is closed below it.
    pub(super) fn find_guarded(
        &self,
        path: &GuestPath,
        follow: bool,
    ) -> Result<(OwnedFd, Guard), Status> {
        self.open_guarded(OsStr::new(self.relative(path)), PATH, follow)
            .map_err(|errno| self.unresolved(path, errno))
    }

    /// The same of a path that may be missing; a link at its end is not followed.
    pub(crate) fn look(&self, path: &GuestPath) -> Result<Option<OwnedFd>, Status> {
        match self.open(self.relative(path), PATH, false) {
            Err(Errno::NOENT) => Ok(None),
            found => found
                .map(Some)
                .map_err(|errno| self.unresolved(path, errno)),
        }
    }

    /// A directory, to be read, with what is closed in it.
    pub(crate) fn directory(
        &self,
        path: &GuestPath,
        follow: bool,
    ) -> Result<(OwnedFd, Guard), Status> {
        let (found, guard) = self.find_guarded(path, follow)?;
        let (file_type, _) = stat(&found, path)?;
        if file_type != FileType::Directory {
            return Err(wrong_type(path, file_type, "directories"));
        }
        let dir = open_again(&found).map_err(|errno| failed("read", path, errno))?;
        Ok((dir, guard))
    }

    /// A regular file, opened with `flags`. Nothing else is ever opened: a pipe does not hang, a device does not start.
    pub(crate) fn regular(
        &self,
        path: &GuestPath,
        flags: OFlags,
        follow: bool,
    ) -> Result<File, Status> {
        let found = self.find(path, follow)?;
        open_regular(&found, path, flags)
    }

    /// The directory that a path's last name is in.
    pub(crate) fn parent<'a>(&self, path: &'a GuestPath) -> Result<(OwnedFd, &'a OsStr), Status> {
        let (dir, name, _) = self.parent_guarded(path)?;
        Ok((dir, name))
    }

    /// The same, with what is closed in it; the name is not.
    pub(super) fn parent_guarded<'a>(
        &self,
        path: &'a GuestPath,
    ) -> Result<(OwnedFd, &'a OsStr, Guard), Status> {
        let (parent, name) = self.split(path).ok_or_else(|| {
            let refused = self.guard.refused(path);
            refused.unwrap_or_else(|| {
                error::invalid_field("path", "is the root itself, which this can't be done to")
            })
        })?;
        let (dir, guard) = self
            .open_guarded(OsStr::new(parent), PATH | OFlags::DIRECTORY, true)
            .map_err(|errno| self.unresolved(path, errno))?;
        match guard.hides(name.as_bytes()) {
            true => Err(self.unresolved(path, Errno::XDEV)),
            false => Ok((dir, OsStr::new(name), guard)),
        }
    }

    /// Makes the directories on the way to a path's last name that are missing.
    pub(crate) fn make_parents(&self, path: &GuestPath) -> Result<(), Status> {
        match self.split(path) {
            None => Ok(()),
            Some((parent, _)) => {
                self.make_directories(OsStr::new(parent))
                    .map_err(|errno| match errno {
                        Errno::XDEV => self.unresolved(path, errno),
                        errno => failed("make the directories on the way to", path, errno),
                    })
            }
        }
    }

    /// Makes a directory and those on the way to it that are missing, with mode 0755, and opens it.
    pub(crate) fn make_directories(&self, path: &OsStr) -> Result<(), Errno> {
        let bytes = path.as_encoded_bytes();
        let mut dir = None;
        for end in ends(bytes) {
            let way = os(bytes.get(..end).unwrap_or_default());
            let next = match self.open(way, PATH | OFlags::DIRECTORY, true) {
                Err(Errno::NOENT) => {
                    let above: &OwnedFd = dir.as_ref().unwrap_or(&self.dir);
                    let name = bytes
                        .get(..end)
                        .unwrap_or_default()
                        .rsplit(|&byte| byte == b'/');
                    let name = os(name.into_iter().next().unwrap_or_default());
                    make_directory(above, name, 0o755)
                }
                found => found,
            }?;
            dir = Some(next);
        }
        Ok(())
    }
}

/// Whether the policy lets a file or a directory at this path be read, for a program that is given it.
pub(crate) fn may_read(rules: &Held, path: &str) -> bool {
    let found = || {
        let path = GuestPath::parse("", path).ok()?;
        let fence = rules.find_fence(path.as_str(), Access::Read).ok()?;
        let root = Root::within(fence).ok()?;
        let found = root.open(root.relative(&path), PATH, true).ok()?;
        Some(stat(&found, &path).ok()?.0)
    };
    matches!(found(), Some(FileType::RegularFile | FileType::Directory))
}

/// Where the names of a path end.
fn ends(path: &[u8]) -> impl Iterator<Item = usize> + '_ {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    slashes
        .map(|(at, _)| at)
        .chain([path.len()])
        .filter(|end| *end > 0)
}

/// Only to stand on: nothing is done to what is opened.
pub(crate) const PATH: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// Bytes as a name.
pub(crate) fn os(bytes: &[u8]) -> &OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(bytes)
}

/// Makes a directory with just these permissions, whatever the umask. One that is there already stays as it is.
pub(crate) fn make_directory(
    dir: impl AsFd,
    name: &OsStr,
    permissions: u32,
) -> Result<OwnedFd, Errno> {
    let made = rustix::fs::mkdirat(&dir, name, Mode::RWXU);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match made {
        Ok(()) => {
            let made = rustix::fs::openat(&dir, name, flags, Mode::empty())?;
            rustix::fs::fchmod(&made, Mode::from_raw_mode(permissions))?;
            Ok(made)
        }
        // Somebody else was faster.
        Err(Errno::EXIST) => rustix::fs::openat(&dir, name, flags, Mode::empty()),
        Err(errno) => Err(errno),
    }
}

/// The type and the attributes of what is open.
pub(crate) fn stat(fd: impl AsFd, path: impl AsRef<[u8]>) -> Result<(FileType, Stat), Status> {
    let stat = rustix::fs::fstat(fd).map_err(|errno| failed("look at", path, errno))?;
    Ok((FileType::from_raw_mode(stat.st_mode), stat))
}

/// A directory that is only stood on, opened to be read.
pub(crate) fn open_again(dir: impl AsFd) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(dir, ".", flags, Mode::empty())
}

/// The file that `found` stands on, if it is a regular one. It is opened by its descriptor, and not by its name.
pub(crate) fn open_regular(
    found: &OwnedFd,
    path: impl AsRef<[u8]>,
    flags: OFlags,
) -> Result<File, Status> {
    let (file_type, _) = stat(found, &path)?;
    if file_type != FileType::RegularFile {
        return Err(wrong_type(path, file_type, "regular files"));
    }
    // NONBLOCK: some files of /proc wait for what may never come.
    let flags = flags | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    rustix::fs::openat(CWD, by_descriptor(found.as_fd()), flags, Mode::empty())
        .map(File::from)
        .map_err(|errno| match errno {
            Errno::NOENT => error::failure(
                error::Reason::Unsupported,
                "the guest has no /proc, which files are opened through: mount it",
            ),
            errno => failed("open", path, errno),
        })
}

/// The name that the kernel has for what is open, for calls that take only names.
pub(crate) fn by_descriptor(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

#[cfg(test)]
mod tests;
