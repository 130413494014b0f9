//! Wakes the search for a port when a device node appears.

use std::{io, mem::MaybeUninit, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::inotify::{self, CreateFlags, WatchFlags},
    io::Errno,
};
use tokio::io::{Interest, unix::AsyncFd};

use super::async_fd;

/// Bytes of events that are taken at once; what they say does not matter, only that they came.
const EVENTS: usize = 1024;

/// An inotify watch over directories of device nodes.
///
/// It is a help, not a promise: where it can't be had, [`changed`](DeviceWatch::changed) is pending for ever, and the
/// search goes on by its clock.
#[derive(Debug)]
pub(super) struct DeviceWatch(Option<AsyncFd<OwnedFd>>);

impl DeviceWatch {
    /// Watches those of `directories` that exist.
    pub(super) fn new<'a>(directories: impl IntoIterator<Item = &'a Path>) -> Self {
        Self(Self::try_new(directories).ok())
    }

    fn try_new<'a>(
        directories: impl IntoIterator<Item = &'a Path>,
    ) -> io::Result<AsyncFd<OwnedFd>> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        for directory in directories {
            // New nodes and links, and those whose permissions udev has just set.
            let what = WatchFlags::CREATE
                | WatchFlags::MOVED_TO
                | WatchFlags::ATTRIB
                | WatchFlags::ONLYDIR;
            match inotify::add_watch(&inotify, directory, what) {
                Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        async_fd(inotify, Interest::READABLE)
    }

    /// Waits until something has appeared or changed.
    pub(super) async fn changed(&self) {
        let Some(inotify) = &self.0 else {
            return std::future::pending().await;
        };
        loop {
            let Ok(mut guard) = inotify.readable().await else {
                return std::future::pending().await;
            };
            let mut changed = false;
            let mut events = [MaybeUninit::<u8>::uninit(); EVENTS];
            while rustix::io::read(inotify.get_ref(), &mut events)
                .is_ok_and(|(read, _)| !read.is_empty())
            {
                changed = true;
            }
            guard.clear_ready();
            if changed {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_new_file_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        let watch = DeviceWatch::new([dir.path(), missing.as_path()]);
        std::fs::write(dir.path().join("vport0p1"), "").unwrap();
        watch.changed().await;
    }
}
