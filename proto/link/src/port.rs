//! The guest's side of a serial channel, as the link sees it.

use std::{
    io,
    task::{Context, Poll},
};

/// What a read from a [`Port`] brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortRead {
    /// This many bytes, at least one.
    Data(usize),
    /// Nobody is connected on the host's side, and everything that was sent before has been read.
    ///
    /// A port says so once each time the host goes; afterwards [`Port::poll_read`] is pending until there are bytes
    /// again or the host has come and gone once more.
    Detached,
}

/// A serial port in a guest: a byte stream without connections.
///
/// It is what `/dev/virtio-ports/NAME` offers under Linux, and what other transports imitate:
///
/// - A host may be attached or not, and the port may learn of that late or never: bytes that follow each other in one
///   read may come from different hosts.
/// - A write is accepted whole or in part and gone; nobody confirms its delivery.
/// - While no host is attached, [`poll_write`](Port::poll_write) is pending.
///
/// An error means that the port itself is gone (hot-unplugged, say) and must be opened anew.
pub trait Port: Send + Unpin {
    /// Reads into `buf`, which must not be empty.
    ///
    /// # Errors
    /// The port is gone.
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<PortRead>>;

    /// Writes the beginning of `buf` and says how much of it; never 0 for a `buf` that is not empty.
    ///
    /// # Errors
    /// The port is gone.
    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>>;
}
