//! What the kernel does to a whole file system: freeze it, thaw it, trim it.
//!
//! Behind traits, since no test may stop the machine that it runs on.

use std::{borrow::Cow, os::fd::OwnedFd, sync::Arc};

use rustix::{
    fs::{FileType, Mode, OFlags},
    io::Errno,
};

use super::{
    Reader, SourceError,
    mounts::{self, Mount},
};

/// Type of file system whose parts have device numbers of their own.
const BTRFS: &str = "btrfs";

/// Where file systems are found.
pub(crate) trait Kernel: Send + Sync + 'static {
    /// `/proc/self/mountinfo`.
    fn mountinfo(&self) -> Result<String, SourceError>;

    /// Opens what is mounted there; else why not.
    fn open(&self, mount: &Mount) -> Result<Arc<dyn Filesystem>, String>;
}

/// A file system, held open: it can't be unmounted, and what happens to its path does not matter any more. All calls may
/// wait for the disk.
pub(crate) trait Filesystem: Send + Sync {
    /// Holds up all writing to it.
    fn freeze(&self) -> Result<(), Errno>;

    /// Lets writing go on. `EINVAL` if it was not frozen.
    fn thaw(&self) -> Result<(), Errno>;

    /// Tells the disk what is not in use, and leaves out runs of fewer bytes. Returns how many bytes that were.
    fn trim(&self, minimum: u64) -> Result<u64, Errno>;
}

/// The guest's own.
#[derive(Debug)]
pub(crate) struct System;

impl Kernel for System {
    fn mountinfo(&self) -> Result<String, SourceError> {
        let mut reader = Reader::new();
        reader.read(mounts::FILE).map(Cow::into_owned)
    }

    fn open(&self, mount: &Mount) -> Result<Arc<dyn Filesystem>, String> {
        let failed = |error: Errno| format!("can't be opened: {error}");
        // A mount point may be any kind of file: no open may wait for a pipe's other end.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::open(&mount.point, flags, Mode::empty()).map_err(failed)?;
        let stat = rustix::fs::fstat(&file).map_err(failed)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if !matches!(kind, FileType::Directory | FileType::RegularFile) {
            return Err("neither a directory nor a file is mounted there".to_owned());
        }
        let (major, minor) = (
            rustix::fs::major(stat.st_dev),
            rustix::fs::minor(stat.st_dev),
        );
        if mount.kind != BTRFS && mount.device != format!("{major}:{minor}") {
            return Err("another file system is mounted over it".to_owned());
        }
        Ok(Arc::new(Opened(file)))
    }
}

/// An open directory or file of it.
struct Opened(OwnedFd);

impl Filesystem for Opened {
    fn freeze(&self) -> Result<(), Errno> {
        vbridge_ioctl::freeze(&self.0)
    }

    fn thaw(&self) -> Result<(), Errno> {
        vbridge_ioctl::thaw(&self.0)
    }

    fn trim(&self, minimum: u64) -> Result<u64, Errno> {
        vbridge_ioctl::trim(&self.0, 0, u64::MAX, minimum)
    }
}
