//! The byte stream under a connection: a Unix socket, over which descriptors travel, or anything else.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;

use super::limits::DESCRIPTORS_MAX;

/// Reads and writes bytes.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// What a connection runs on.
pub(crate) enum Wire {
    /// Also carries descriptors.
    Unix(UnixStream),
    /// Bytes only.
    Bytes(Box<dyn Duplex>),
}

// === impl Wire ===

impl Wire {
    /// Whether descriptors can be sent.
    pub(crate) fn carries_descriptors(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// Reads what there is; descriptors that come with it are put into `descriptors`. Zero bytes are the end.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        descriptors: &mut Vec<OwnedFd>,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Unix(socket) => loop {
                ready!(socket.poll_read_ready(cx))?;
                match socket.try_io(Interest::READABLE, || {
                    receive(socket.as_fd(), buffer, descriptors)
                }) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return Poll::Ready(result),
                }
            },
            Self::Bytes(stream) => {
                let mut buffer = ReadBuf::new(buffer);
                ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
                Poll::Ready(Ok(buffer.filled().len()))
            }
        }
    }

    /// Writes some of `bytes`.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = match self {
            Self::Unix(socket) => ready!(Pin::new(socket).poll_write(cx, bytes))?,
            Self::Bytes(stream) => ready!(Pin::new(stream).poll_write(cx, bytes))?,
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        Poll::Ready(Ok(written))
    }

    /// Sends one descriptor with its carrier byte.
    pub(crate) fn poll_write_descriptor(
        &mut self,
        cx: &mut Context<'_>,
        descriptor: BorrowedFd<'_>,
    ) -> Poll<io::Result<()>> {
        let Self::Unix(socket) = self else {
            return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
        };
        loop {
            ready!(socket.poll_write_ready(cx))?;
            match socket.try_io(Interest::WRITABLE, || send(socket.as_fd(), descriptor)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Sees to it that what was written leaves.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Bytes(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// Whether the other side is known to be gone, without reading what it has left. Known of Unix sockets only.
    pub(crate) fn hung_up(&self) -> bool {
        let Self::Unix(socket) = self else {
            return false;
        };
        let gone = PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR;
        let mut sockets = [PollFd::new(socket, PollFlags::RDHUP)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        rustix::event::poll(&mut sockets, Some(&now)).is_ok()
            && sockets[0].revents().intersects(gone)
    }
}

fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(buffer)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let truncated = received.flags.contains(ReturnFlags::CTRUNC);
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if truncated {
        // The kernel has thrown away those for which this process had no room.
        return Err(io::Error::other(
            "file descriptors of the daemon's were lost: this process may have no more open (RLIMIT_NOFILE)",
        ));
    }
    Ok(received.bytes)
}

fn send(socket: BorrowedFd<'_>, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let rights = [descriptor];
    // The space was made for it.
    let _ = ancillary.push(SendAncillaryMessage::ScmRights(&rights));
    rustix::net::sendmsg(
        socket,
        &[IoSlice::new(&[0])],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}
