//! The virtio console driver's character device.
//!
//! ```text
//!                 read = EAGAIN, a write is taken,
//!                 or an event without HUP
//!        ┌───────────────────────────────────────────┐
//!        │                                           ▼
//!    Detached ◀─ told once ─ Leaving ◀─ read = 0 ─ Attached
//! ```
//!
//! Facts of the driver (`drivers/char/virtio_console.c`) that shape this file:
//!
//! - **`read` returns 0 while no host is attached**, also with `O_NONBLOCK`, and what is buffered comes first. It is the
//!   only thing that says "everything before this belongs to a host that has gone". `EPOLLHUP` does not: when it is
//!   seen, the next host's bytes may be in the buffer already. So only a read of 0 is reported.
//! - **Data and "host attached" travel on different ways**: a new host's first bytes may be read while the driver still
//!   says that nobody is there, and the 0 after them is not a new departure. So a 0 counts only after evidence that a
//!   host *was* attached; bytes are none.
//! - **A port at boot has `EPOLLHUP` set.** mio turns that into "closed", which tokio never takes back: an `AsyncFd` on
//!   the port would be ready for ever. So a private epoll instance holds the port, and the `AsyncFd` holds the *epoll's*
//!   descriptor, which is readable when the port has an event and knows no HUP.
//! - **Edge-triggered**, because HUP stays set while no host is attached and a level would spin. The driver wakes its
//!   pollers at every change (data came, a buffer was consumed, attached, detached), and each wake is an edge that brings
//!   the whole state. After an edge the port must be read until EAGAIN or 0, or the rest would wait for the next one.
//! - **`EPOLLOUT` is asked for only while a writer waits.** Every buffer that the host consumes is an edge; with OUT in
//!   the mask each would wake this process, so that every answered call cost a second round through the event loop.
//!   `EPOLL_CTL_MOD` looks at the port's state by itself, so nothing is lost between "full" and asking.
//! - **A write may take nothing**: its queue is broken, or was full for a moment. Not an error, but not worth spinning
//!   either: it is tried again after [`PORT_WRITE_RETRY`].
//!
//! Reader and writer must be polled by the same task (the link's): there is one waker for both.

use std::{
    fs, io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::FileTypeExt as _,
    },
    path::Path,
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustix::{
    event::{Timespec, epoll},
    fs::{Mode, OFlags},
    io::Errno,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::Sleep,
};
use vbridge_link::{Port, PortRead};

use super::async_fd;
use crate::limits::{PORT_WRITE, PORT_WRITE_RETRY};

const IDLE: epoll::EventFlags = epoll::EventFlags::IN
    .union(epoll::EventFlags::RDHUP)
    .union(epoll::EventFlags::ET);
const WANTS_OUT: epoll::EventFlags = IDLE.union(epoll::EventFlags::OUT);
const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// What is known of the host's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host {
    /// It is there, or was when last seen.
    Attached,
    /// It has gone, and the reader has not been told.
    Leaving,
    /// It has gone or never came, and there is nothing to tell.
    Detached,
}

/// An open virtio-serial port.
///
/// Opening tells the host (through QMP and libvirt), closing discards what was not read.
#[derive(Debug)]
pub struct DevicePort {
    /// The private epoll. Declared first: it is closed before the port that it holds.
    events: AsyncFd<OwnedFd>,
    port: OwnedFd,
    host: Host,
    /// A read may bring something: no EAGAIN and no 0 since the last edge.
    readable: bool,
    /// A write may take something: no EAGAIN since the last edge.
    writable: bool,
    /// `EPOLLOUT` is in the mask.
    wants_out: bool,
    /// The pause after a write that took nothing.
    retry: Option<Pin<Box<Sleep>>>,
}

impl DevicePort {
    /// Opens the character device at `path`.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied`; `ResourceBusy`: another program has the port open; `InvalidInput`: it is no
    /// character device, or one that can't be polled.
    pub fn open(path: &Path) -> io::Result<Self> {
        // Looked at before it is opened: opening a FIFO or a tape may have effects.
        if !fs::metadata(path)?.file_type().is_char_device() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a character device",
            ));
        }
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        Self::new(rustix::fs::open(path, flags, Mode::empty())?)
    }

    /// Takes a descriptor that behaves like a port: non-blocking, and edge-triggered epoll works on it.
    ///
    /// # Errors
    /// `InvalidInput`: it can't be polled.
    pub fn new(port: OwnedFd) -> io::Result<Self> {
        let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&events, &port, epoll::EventData::new_u64(0), IDLE).map_err(
            |error| match error {
                Errno::PERM => io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "not a port: it can't be polled",
                ),
                other => other.into(),
            },
        )?;
        Ok(Self {
            events: async_fd(events, Interest::READABLE)?,
            port,
            host: Host::Detached,
            readable: true,
            writable: true,
            wants_out: false,
            retry: None,
        })
    }

    /// Whether a host is attached, and nothing can be written. Just after opening that is odd: what the port before this
    /// had queued is still there, and the host does not take it, or QEMU has lost it ([`super::rebind`]).
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn is_full(&self) -> io::Result<bool> {
        use rustix::event::{PollFd, PollFlags, poll};
        let mut port = [PollFd::new(&self.port, PollFlags::IN | PollFlags::OUT)];
        poll(&mut port, Some(&AT_ONCE))?;
        Ok(!port[0]
            .revents()
            .intersects(PollFlags::HUP | PollFlags::OUT))
    }

    /// Waits for the next edge and takes note of it.
    fn poll_edge(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.events.poll_read_ready(cx))?;
            let mut buffer = [MaybeUninit::uninit(); 1];
            let flags =
                match epoll::wait(self.events.get_ref().as_fd(), &mut buffer, Some(&AT_ONCE)) {
                    Ok((events, _)) => events.first().map(|event| event.flags),
                    Err(Errno::INTR) => continue,
                    Err(error) => return Poll::Ready(Err(error.into())),
                };
            // One descriptor is registered, edge-triggered: with its event taken, the epoll is not readable until the
            // next edge, which makes tokio's readiness anew.
            guard.clear_ready();
            if let Some(flags) = flags {
                self.note(flags)?;
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn note(&mut self, flags: epoll::EventFlags) -> io::Result<()> {
        // HUP alone is a port that was unplugged: the read says so.
        self.readable = true;
        if !flags.contains(epoll::EventFlags::HUP) {
            self.host = self.host.seen();
        }
        if flags.contains(epoll::EventFlags::OUT) {
            if self.writable && self.wants_out {
                // The writer has what it waited for.
                self.set_wants_out(false)?;
            }
            self.writable = true;
        }
        Ok(())
    }

    fn set_wants_out(&mut self, wants_out: bool) -> io::Result<()> {
        if self.wants_out != wants_out {
            let flags = if wants_out { WANTS_OUT } else { IDLE };
            epoll::modify(
                &self.events,
                &self.port,
                epoll::EventData::new_u64(0),
                flags,
            )?;
            self.wants_out = wants_out;
        }
        Ok(())
    }

    /// Reads until the buffer is full, or nothing is left. `None`: nothing to report.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<Option<PortRead>> {
        // One read brings at most 4 KiB (one virtqueue buffer): handing each up alone costs half of the throughput.
        let mut filled = 0;
        while filled < buf.len() {
            match rustix::io::read(&self.port, &mut buf[filled..]) {
                Ok(0) => {
                    self.readable = false;
                    self.host = self.host.gone();
                    break;
                }
                Ok(len) => filled += len,
                Err(Errno::AGAIN) => {
                    self.readable = false;
                    self.host = self.host.seen();
                    break;
                }
                Err(Errno::INTR) => {}
                // The error comes again; what was read before it counts.
                Err(_) if filled > 0 => break,
                Err(error) => return Err(error.into()),
            }
        }
        if filled > 0 {
            return Ok(Some(PortRead::Data(filled)));
        }
        Ok(self.departure())
    }

    /// Reports once that the host has gone.
    fn departure(&mut self) -> Option<PortRead> {
        if self.host != Host::Leaving {
            return None;
        }
        self.host = Host::Detached;
        Some(PortRead::Detached)
    }
}

impl Host {
    /// There is evidence that a host is attached. If one has left unnoticed in between, that still has to be told.
    fn seen(self) -> Self {
        match self {
            Self::Leaving => Self::Leaving,
            Self::Attached | Self::Detached => Self::Attached,
        }
    }

    /// A read returned 0.
    fn gone(self) -> Self {
        match self {
            Self::Attached | Self::Leaving => Self::Leaving,
            Self::Detached => Self::Detached,
        }
    }
}

impl Port for DevicePort {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<PortRead>> {
        // Told before anything else is read: what comes now belongs to another host.
        if let Some(departure) = self.departure() {
            return Poll::Ready(Ok(departure));
        }
        loop {
            if self.readable
                && let Some(read) = self.read(buf)?
            {
                return Poll::Ready(Ok(read));
            }
            if !self.readable {
                let blocked = !self.writable;
                ready!(self.poll_edge(cx))?;
                // The edge may have been the writer's, who waits with the same waker.
                if blocked && self.writable {
                    cx.waker().wake_by_ref();
                }
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let buf = &buf[..buf.len().min(PORT_WRITE)];
        loop {
            if let Some(retry) = &mut self.retry {
                ready!(retry.as_mut().poll(cx));
                self.retry = None;
            }
            if self.writable {
                match rustix::io::write(&self.port, buf) {
                    Ok(0) if !buf.is_empty() => {
                        self.retry = Some(Box::pin(tokio::time::sleep(PORT_WRITE_RETRY)));
                    }
                    Ok(len) => {
                        self.host = self.host.seen();
                        return Poll::Ready(Ok(len));
                    }
                    // Detached, or the queue is full.
                    Err(Errno::AGAIN) => {
                        self.writable = false;
                        self.set_wants_out(true)?;
                    }
                    Err(Errno::INTR) => {}
                    Err(error) => return Poll::Ready(Err(error.into())),
                }
            } else {
                ready!(self.poll_edge(cx))?;
                // The edge may have been the reader's.
                cx.waker().wake_by_ref();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, future::poll_fn, io::Write as _, os::fd::AsRawFd as _, path::PathBuf};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A FIFO's reading end behaves like a port: 0 and HUP without a writer, EAGAIN with an idle one.
    struct Fifo {
        _dir: tempfile::TempDir,
        path: PathBuf,
        port: DevicePort,
    }

    impl Fifo {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("port");
            rustix::fs::mknodat(
                rustix::fs::CWD,
                &path,
                rustix::fs::FileType::Fifo,
                Mode::from_raw_mode(0o600),
                0,
            )
            .unwrap();
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let port =
                DevicePort::new(rustix::fs::open(&path, flags, Mode::empty()).unwrap()).unwrap();
            Self {
                _dir: dir,
                path,
                port,
            }
        }

        fn attach(&self) -> File {
            File::options().write(true).open(&self.path).unwrap()
        }
    }

    async fn read(port: &mut DevicePort, buf: &mut [u8]) -> PortRead {
        poll_fn(|cx| port.poll_read(cx, buf)).await.unwrap()
    }

    async fn is_pending(port: &mut DevicePort, buf: &mut [u8]) -> bool {
        // The I/O driver gets several turns, so that an edge that is there is seen.
        for _ in 0..64 {
            if poll_fn(|cx| Poll::Ready(port.poll_read(cx, buf)))
                .await
                .is_ready()
            {
                return false;
            }
            tokio::task::yield_now().await;
        }
        true
    }

    #[tokio::test]
    async fn a_port_that_no_host_has_attached_to_reports_nothing() {
        let mut fifo = Fifo::new();
        assert!(is_pending(&mut fifo.port, &mut [0; 16]).await);
        assert!(
            !fifo.port.readable,
            "a detached port is not read again and again"
        );
    }

    #[tokio::test]
    async fn bytes_come_before_the_departure_and_the_departure_comes_once() {
        let mut fifo = Fifo::new();
        let mut buf = [0; 64];
        for round in 0..3 {
            let mut host = fifo.attach();
            // Seen attached: without that, a 0 is no departure.
            host.write_all(b"hello").unwrap();
            assert_eq!(read(&mut fifo.port, &mut buf).await, PortRead::Data(5));
            host.write_all(b"last words").unwrap();
            drop(host);
            assert_eq!(
                read(&mut fifo.port, &mut buf).await,
                PortRead::Data(10),
                "round {round}"
            );
            assert_eq!(&buf[..10], b"last words");
            assert_eq!(
                read(&mut fifo.port, &mut buf).await,
                PortRead::Detached,
                "round {round}"
            );
            assert!(is_pending(&mut fifo.port, &mut buf).await, "round {round}");
        }
    }

    #[tokio::test]
    async fn bytes_of_a_host_that_was_never_seen_attached_end_without_a_departure() {
        let mut fifo = Fifo::new();
        let mut buf = [0; 64];
        assert!(is_pending(&mut fifo.port, &mut buf).await);
        // As when the driver hands over a new host's first bytes before it says that a host is there.
        fifo.attach().write_all(b"early").unwrap();
        assert_eq!(read(&mut fifo.port, &mut buf).await, PortRead::Data(5));
        assert!(is_pending(&mut fifo.port, &mut buf).await);
    }

    #[tokio::test]
    async fn one_read_takes_all_that_is_there() {
        let mut fifo = Fifo::new();
        let mut host = fifo.attach();
        let mut buf = vec![0; 64 * 1024];
        assert!(is_pending(&mut fifo.port, &mut buf).await);
        for _ in 0..12 {
            host.write_all(&[7; 4096]).unwrap();
        }
        assert_eq!(
            read(&mut fifo.port, &mut buf).await,
            PortRead::Data(12 * 4096)
        );
        // A small buffer takes it in parts, and loses nothing.
        host.write_all(b"abcdef").unwrap();
        assert_eq!(read(&mut fifo.port, &mut buf[..4]).await, PortRead::Data(4));
        assert_eq!(read(&mut fifo.port, &mut buf[..4]).await, PortRead::Data(2));
        assert!(is_pending(&mut fifo.port, &mut buf).await);
    }

    #[tokio::test]
    async fn a_full_port_takes_more_when_the_host_reads_and_stops_asking_for_room() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let mut theirs = tokio::net::UnixStream::from_std(theirs).unwrap();
        let mut port = DevicePort::new(ours.into()).unwrap();
        let block = vec![1; 100_000];
        let mut sent = 0;
        while let Poll::Ready(len) = poll_fn(|cx| Poll::Ready(port.poll_write(cx, &block))).await {
            let len = len.unwrap();
            assert!(len <= PORT_WRITE);
            sent += len;
        }
        assert!(port.wants_out);
        let mut sink = vec![0; sent];
        theirs.read_exact(&mut sink).await.unwrap();
        assert!(poll_fn(|cx| port.poll_write(cx, b"more")).await.unwrap() > 0);
        // The next edges find nobody waiting for room.
        for _ in 0..3 {
            theirs.write_all(b"x").await.unwrap();
            assert_eq!(read(&mut port, &mut [0; 8]).await, PortRead::Data(1));
        }
        assert!(!port.wants_out);
    }

    #[tokio::test]
    async fn what_is_no_port_is_refused_in_words() {
        let error = DevicePort::open(Path::new("/dev/null")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(error.to_string(), "not a port: it can't be polled");
        let error = DevicePort::open(Path::new("/")).unwrap_err();
        assert_eq!(error.to_string(), "not a character device");
    }

    #[tokio::test]
    async fn the_descriptors_are_closed_with_the_port() {
        let fifo = Fifo::new();
        let numbers = [fifo.port.events.as_raw_fd(), fifo.port.port.as_raw_fd()];
        let open = |number: &i32| PathBuf::from(format!("/proc/self/fd/{number}"));
        let before: Vec<_> = numbers
            .iter()
            .map(|n| fs::read_link(open(n)).unwrap())
            .collect();
        assert!(before[0].to_string_lossy().contains("eventpoll"));
        let fifo_path = fifo.path.clone();
        drop(fifo);
        // Another test may have reused the numbers: what counts is that they are not ours any more.
        assert_ne!(fs::read_link(open(&numbers[1])).ok(), Some(fifo_path));
    }
}
