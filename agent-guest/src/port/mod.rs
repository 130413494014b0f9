//! The ports that the agent serves on.
//!
//! | module | what it is |
//! |---|---|
//! | [`device`] | the virtio console driver's character device |
//! | [`find`] | which device that is, and what to say when there is none |
//! | [`rebind`] | the cure for a port that QEMU has used up |
//! | [`listen`] | a Unix socket that plays QEMU's part, for machines without a VM |

pub mod device;
pub mod find;
pub mod listen;
pub mod rebind;
mod watch;

pub use device::DevicePort;
pub use find::{FindError, Finder};
pub use listen::{ListenError, ListenPort, Listener};
pub use rebind::{Rebind, RebindError};

use std::{io, os::fd::OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Registers a descriptor with tokio, for reading.
///
/// tokio deprecates this constructor because a type could hand out descriptors that it does not own, and offers an
/// unsafe one instead. [`OwnedFd`] owns its descriptor for as long as it lives, so there is nothing to promise, and this
/// crate does without `unsafe`.
#[expect(deprecated, reason = "sound for OwnedFd; its successor is unsafe")]
pub(crate) fn async_fd(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, Interest::READABLE)
}
