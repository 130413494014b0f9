//! The agent's end of a pipe or of a terminal.

use std::{io, os::fd::OwnedFd};

use rustix::io::{Errno, ioctl_fionbio, ioctl_fionread};
use tokio::io::{Interest, unix::AsyncFd};

use crate::port::async_fd;

/// A descriptor that never blocks.
#[derive(Debug)]
pub(super) struct Channel(AsyncFd<OwnedFd>);

impl Channel {
    /// Must be called within a runtime with I/O enabled.
    pub(super) fn new(descriptor: OwnedFd) -> io::Result<Self> {
        // It belongs to this end's open file alone: the process's end goes on to block.
        ioctl_fionbio(&descriptor, true)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        Ok(Self(async_fd(descriptor, interest)?))
    }

    pub(super) fn descriptor(&self) -> &OwnedFd {
        self.0.get_ref()
    }

    /// Calls `read` once there may be something to read, and again as long as there is nothing. Bytes are not lost if the
    /// future is dropped.
    pub(super) async fn read<R>(
        &self,
        mut read: impl FnMut(&OwnedFd) -> io::Result<R>,
    ) -> io::Result<R> {
        self.0
            .async_io(Interest::READABLE, |descriptor| read(descriptor))
            .await
    }

    /// Writes some bytes. None are written if the future is dropped.
    pub(super) async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .async_io(Interest::WRITABLE, |descriptor| {
                retry(|| rustix::io::write(descriptor, bytes))
            })
            .await
    }

    /// Bytes that can be read now.
    pub(super) fn waiting(&self) -> usize {
        let waiting = ioctl_fionread(self.descriptor()).unwrap_or_default();
        usize::try_from(waiting).unwrap_or(usize::MAX)
    }
}

/// Reads some bytes; 0 at the end, which a terminal tells with an error of its own once nobody has it open.
pub(super) fn read(descriptor: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    match retry(|| rustix::io::read(descriptor, &mut *buffer)) {
        Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => Ok(0),
        result => result,
    }
}

fn retry<R>(mut call: impl FnMut() -> Result<R, Errno>) -> io::Result<R> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}
