//! A Unix socket that plays QEMU's part, for machines without a VM.
//!
//! As with a character device of QEMU (`-chardev socket,server=on`) there is one host at a time, others wait in the
//! backlog; what a host sent is read before its departure is noticed, and what was not sent to it is not kept for the
//! next.

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileTypeExt as _, MetadataExt as _},
            net::UnixStream as StdUnixStream,
        },
    },
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use rustix::{
    fs::Mode,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    net::{UnixListener, UnixStream},
};
use vbridge_link::{Port, PortRead};

use crate::limits::{LISTEN_BACKLOG, PORT_WRITE};

/// Why a socket can't be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address can't be one.
    #[error("can't listen on {path}: a socket's path has 1 to 107 bytes")]
    Address {
        /// Where.
        path: PathBuf,
    },
    /// There is something else at that path.
    #[error("can't listen on {0}: a file that is no socket is in the way")]
    NotASocket(PathBuf),
    /// Somebody listens there already.
    #[error("can't listen on {0}: another program listens there, perhaps a second agent")]
    InUse(PathBuf),
    /// The kernel refused.
    #[error("can't listen on {path}: {error}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
}

/// A listening socket. The file is removed with it.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket file: a successor's file is not removed.
    identity: Option<(u64, u64)>,
}

impl Listener {
    /// Listens on `path`, which its owner alone may connect to. A socket file that nobody listens on is replaced.
    ///
    /// # Errors
    /// It can't, and why.
    pub fn bind(path: impl Into<PathBuf>) -> Result<Self, ListenError> {
        let path = path.into();
        let fail = |error: io::Error| ListenError::Io {
            path: path.clone(),
            error,
        };
        let address =
            SocketAddrUnix::new(&path).map_err(|_| ListenError::Address { path: path.clone() })?;
        let socket = match bind(&address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(&path)?;
                bind(&address).map_err(fail)?
            }
            other => other.map_err(fail)?,
        };
        let identity = identity(&path);
        let listener = std::os::unix::net::UnixListener::from(socket);
        let listener = UnixListener::from_std(listener).map_err(fail)?;
        Ok(Self {
            listener,
            path,
            identity,
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // Whoever removed it before wanted the same.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn bind(address: &SocketAddrUnix) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Set before binding, Linux gives the file this mode: there is no moment in which others could connect.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, address)?;
    rustix::net::listen(&socket, LISTEN_BACKLOG)?;
    Ok(socket)
}

/// Removes a socket file that nobody listens on.
fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let fail = |error| ListenError::Io {
        path: path.to_owned(),
        error,
    };
    let kind = fs::symlink_metadata(path).map_err(fail)?.file_type();
    if !kind.is_socket() {
        return Err(ListenError::NotASocket(path.to_owned()));
    }
    match StdUnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(fail)
        }
        // EAGAIN: its backlog is full, so somebody listens.
        Ok(_) => Err(ListenError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(ListenError::InUse(path.to_owned()))
        }
        Err(error) => Err(fail(error)),
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// A [`Port`] over a listening socket: the host is whoever is connected.
#[derive(Debug)]
pub struct ListenPort {
    listener: Arc<Listener>,
    host: Option<Connection>,
    /// Who waits for a host to write to.
    writer: Option<Waker>,
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    /// It takes no more bytes; it may still have sent some.
    write_closed: bool,
}

impl ListenPort {
    /// Serves the hosts that connect to `listener`.
    pub fn new(listener: Arc<Listener>) -> Self {
        Self {
            listener,
            host: None,
            writer: None,
        }
    }

    fn park_writer(&mut self, cx: &Context<'_>) -> Poll<io::Result<usize>> {
        match &mut self.writer {
            Some(waker) => waker.clone_from(cx.waker()),
            slot => *slot = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Port for ListenPort {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<PortRead>> {
        loop {
            let Some(host) = &mut self.host else {
                let (stream, _) = ready!(self.listener.listener.poll_accept(cx))?;
                self.host = Some(Connection {
                    stream,
                    write_closed: false,
                });
                if let Some(writer) = self.writer.take() {
                    writer.wake();
                }
                continue;
            };
            let mut read = ReadBuf::new(buf);
            return match ready!(Pin::new(&mut host.stream).poll_read(cx, &mut read)) {
                Ok(()) if !read.filled().is_empty() => {
                    Poll::Ready(Ok(PortRead::Data(read.filled().len())))
                }
                // Closed, half-closed or reset: QEMU makes no difference.
                Ok(()) | Err(_) => {
                    self.host = None;
                    Poll::Ready(Ok(PortRead::Detached))
                }
            };
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Some(host) = self.host.as_mut().filter(|host| !host.write_closed) else {
            return self.park_writer(cx);
        };
        let buf = &buf[..buf.len().min(PORT_WRITE)];
        match ready!(Pin::new(&mut host.stream).poll_write(cx, buf)) {
            Ok(len) if len > 0 => Poll::Ready(Ok(len)),
            // The host has gone. The reader notices when it has read what the host sent before.
            Ok(_) | Err(_) => {
                host.write_closed = true;
                self.park_writer(cx)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, os::unix::fs::PermissionsExt as _};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    struct Fixture {
        _dir: tempfile::TempDir,
        path: PathBuf,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("agent.sock");
            Self { _dir: dir, path }
        }

        fn port(&self) -> ListenPort {
            ListenPort::new(Arc::new(Listener::bind(&self.path).unwrap()))
        }
    }

    async fn read(port: &mut ListenPort) -> (PortRead, Vec<u8>) {
        let mut buf = vec![0; 1024];
        let read = poll_fn(|cx| port.poll_read(cx, &mut buf)).await.unwrap();
        if let PortRead::Data(len) = read {
            buf.truncate(len);
        }
        (read, buf)
    }

    #[tokio::test]
    async fn one_host_follows_the_other_and_each_departure_is_told() {
        let fixture = Fixture::new();
        let mut port = fixture.port();
        let mut first = UnixStream::connect(&fixture.path).await.unwrap();
        // It succeeds, into the backlog.
        let mut second = UnixStream::connect(&fixture.path).await.unwrap();
        second.write_all(b"second").await.unwrap();
        first.write_all(b"first").await.unwrap();
        assert_eq!(read(&mut port).await.1, b"first");
        assert_eq!(
            poll_fn(|cx| port.poll_write(cx, b"hello")).await.unwrap(),
            5
        );
        let mut answer = [0; 5];
        first.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"hello");
        first.write_all(b"bye").await.unwrap();
        drop(first);
        assert_eq!(read(&mut port).await.1, b"bye");
        assert_eq!(read(&mut port).await.0, PortRead::Detached);
        assert_eq!(read(&mut port).await.1, b"second");
    }

    #[tokio::test]
    async fn a_writer_waits_for_a_host() {
        let fixture = Fixture::new();
        let mut port = fixture.port();
        let path = fixture.path.clone();
        let host = tokio::spawn(async move {
            let mut host = UnixStream::connect(path).await.unwrap();
            let mut ready = [0; 5];
            host.read_exact(&mut ready).await.unwrap();
            ready
        });
        let written = poll_fn(|cx| {
            // The reader is the one who accepts.
            let _ = port.poll_read(cx, &mut [0; 16]);
            port.poll_write(cx, b"READY")
        });
        assert_eq!(written.await.unwrap(), 5);
        assert_eq!(&host.await.unwrap(), b"READY");
    }

    #[tokio::test]
    async fn what_a_host_sent_before_it_left_is_read_though_writing_to_it_fails() {
        let fixture = Fixture::new();
        let mut port = fixture.port();
        let mut host = UnixStream::connect(&fixture.path).await.unwrap();
        host.write_all(b"one").await.unwrap();
        assert_eq!(read(&mut port).await.1, b"one");
        host.write_all(b"two").await.unwrap();
        drop(host);
        assert!(
            poll_fn(|cx| Poll::Ready(port.poll_write(cx, b"lost")))
                .await
                .is_pending()
        );
        assert_eq!(read(&mut port).await.1, b"two");
        assert_eq!(read(&mut port).await.0, PortRead::Detached);
    }

    #[tokio::test]
    async fn the_socket_is_private_and_goes_with_the_listener() {
        let fixture = Fixture::new();
        let port = fixture.port();
        let mode = fs::metadata(&fixture.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(port);
        assert!(!fixture.path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_its_successor_is_left_alone() {
        let fixture = Fixture::new();
        drop(std::os::unix::net::UnixListener::bind(&fixture.path).unwrap());
        let first = fixture.port();
        fs::remove_file(&fixture.path).unwrap();
        let _second = fixture.port();
        drop(first);
        assert!(fixture.path.exists());
    }

    #[tokio::test]
    async fn a_socket_in_use_and_a_file_are_not_touched() {
        let fixture = Fixture::new();
        let _port = fixture.port();
        assert!(matches!(
            Listener::bind(&fixture.path),
            Err(ListenError::InUse(_))
        ));
        let file = fixture.path.with_extension("txt");
        fs::write(&file, "precious").unwrap();
        assert!(matches!(
            Listener::bind(&file),
            Err(ListenError::NotASocket(_))
        ));
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_path_too_long_is_explained() {
        let error = Listener::bind(format!("/tmp/{}", "x".repeat(200))).unwrap_err();
        assert!(error.to_string().contains("107 bytes"), "{error}");
    }
}
