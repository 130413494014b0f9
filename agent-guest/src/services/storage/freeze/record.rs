//! The record of a standstill, for the agent that comes after one that was killed: it thaws what nobody else would.
//!
//! ```text
//!   before the first is frozen ──▶ written, and locked ──▶ thawed ──▶ removed
//!                                         │ the agent is killed: the kernel gives the lock back
//!                                         ▼
//!                    the next agent starts, gets the lock ──▶ thaws all of it ──▶ removed
//! ```
//!
//! It lies in memory, where no standstill reaches it. Where it can't be kept, there is a standstill all the same.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::{fd::AsFd, unix::fs::OpenOptionsExt as _},
    path::PathBuf,
};

use rustix::{
    fs::{FlockOperation, OFlags, flock, fstatfs},
    io::Errno,
};

use crate::{
    limits::MAX_FREEZE_RECORD,
    source::{filesystem::Kernel, mounts},
};

/// Where it is, in memory on every system that follows the Filesystem Hierarchy Standard.
pub(crate) const PATH: &str = "/run/vbridge-agent.frozen";

/// File systems in memory, as statfs(2) numbers them: tmpfs and ramfs.
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// Nobody but the agent has to do with it.
const MODE: u32 = 0o600;

/// Mount points are apart in it: no path has a NUL.
const APART: char = '\0';

/// Where records are kept.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    path: PathBuf,
    /// Tests have no memory of their own.
    anywhere: bool,
}

/// A standstill's record, as long as it lasts.
#[derive(Debug)]
pub(super) struct Record {
    path: PathBuf,
    /// Holds the lock.
    _file: File,
}

impl Records {
    /// The guest's own.
    pub(crate) fn new() -> Self {
        Self {
            path: PATH.into(),
            anywhere: false,
        }
    }

    #[cfg(test)]
    pub(crate) fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            anywhere: true,
        }
    }

    /// Writes down what is going to be frozen.
    pub(super) fn keep(&self, points: &[&str]) -> io::Result<Record> {
        let text = points.join(&APART.to_string());
        if text.len() as u64 > MAX_FREEZE_RECORD {
            let message = format!("it would have more than {MAX_FREEZE_RECORD} bytes");
            return Err(io::Error::other(message));
        }
        let mut file = self.open(true)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        file.set_len(0)?;
        file.write_all(text.as_bytes())?;
        Ok(Record {
            path: self.path.clone(),
            _file: file,
        })
    }

    /// Thaws what an agent that was killed has left frozen. The mount points, and what could not be thawed. Blocks.
    pub(super) fn recover(&self, kernel: &dyn Kernel) -> io::Result<(Vec<String>, Vec<String>)> {
        let file = match self.open(false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Default::default()),
            file => file?,
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            // Another agent of this guest has frozen it, and lives.
            Err(Errno::WOULDBLOCK) => return Ok(Default::default()),
            locked => locked?,
        }
        let mut text = String::new();
        (&file).take(MAX_FREEZE_RECORD).read_to_string(&mut text)?;
        let mountinfo = kernel.mountinfo().map_err(io::Error::other)?;
        let mounts = mounts::in_reach(&mountinfo);
        let (mut thawed, mut failed) = (Vec::new(), Vec::new());
        // What was mounted first goes on first: what lies on it can't go on before it does.
        for point in text.split(APART).filter(|point| !point.is_empty()) {
            let mount = mounts.iter().find(|mount| mount.point == point);
            let Some(mount) = mount else { continue };
            match kernel.open(mount).map(|filesystem| filesystem.thaw()) {
                Ok(Ok(())) => thawed.push(point.to_owned()),
                // It was not reached, or somebody else was faster.
                Ok(Err(Errno::INVAL)) => {}
                Ok(Err(error)) => failed.push(format!("{point}: {error}")),
                Err(why) => failed.push(format!("{point}: {why}")),
            }
        }
        fs::remove_file(&self.path)?;
        Ok((thawed, failed))
    }

    fn open(&self, create: bool) -> io::Result<File> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(create)
            .mode(MODE)
            // Kernel's flags fit into an int.
            .custom_flags(flags.bits().cast_signed())
            .open(&self.path)?;
        if !self.anywhere && !is_in_memory(&file)? {
            let message = format!("{} does not lie in memory", self.path.display());
            return Err(io::Error::other(message));
        }
        Ok(file)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // The next agent finds nothing to thaw in one that is left.
        let _ = fs::remove_file(&self.path);
    }
}

fn is_in_memory(file: impl AsFd) -> io::Result<bool> {
    let kind = fstatfs(file)?.f_type;
    Ok(IN_MEMORY.contains(&kind))
}
