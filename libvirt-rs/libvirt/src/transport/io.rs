//! The stream of bytes of any transport.

use std::{
    io::{IoSlice, Result},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::client::TlsStream;

use super::ProcessStream;

/// The stream of bytes of any transport.
///
/// An enum and not a trait object: file descriptors travel over Unix sockets alone, so those must stay what they are.
#[derive(Debug)]
#[non_exhaustive]
pub enum Io {
    /// A socket of this host.
    Unix(UnixStream),
    /// TCP.
    Tcp(TcpStream),
    /// TLS. In a box, for it is far larger than the others.
    Tls(Box<TlsStream<TcpStream>>),
    /// A child process: ssh, or a program of the user's.
    Process(Box<ProcessStream>),
}

/// Calls one method of whichever stream it is.
macro_rules! delegate {
    ($io:expr, $method:ident $(, $argument:expr)*) => {
        match $io {
            Io::Unix(stream) => Pin::new(stream).$method($($argument),*),
            Io::Tcp(stream) => Pin::new(stream).$method($($argument),*),
            Io::Tls(stream) => Pin::new(stream).$method($($argument),*),
            Io::Process(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        delegate!(self.get_mut(), poll_read, cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        delegate!(self.get_mut(), poll_write, cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        delegate!(self.get_mut(), poll_write_vectored, cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Process(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        delegate!(self.get_mut(), poll_flush, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        delegate!(self.get_mut(), poll_shutdown, cx)
    }
}
