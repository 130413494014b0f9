//! Connections that come, and wait to be taken.
//!
//! ```text
//!                 accepted, told               Accept
//!      the kernel ─────────────▶ Waiting ───────────────▶ a tunnel
//!                                   │
//!                                   │ nobody took it in time, or the call has ended
//!                                   ▼
//!                                 reset
//! ```
//!
//! A connection is accepted only if it can be told, and there is room for one more to wait. Otherwise it waits in the kernel,
//! whose own backlog bounds that.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, chmodat, fstat, statat},
    io::Errno,
};
use tokio::{
    net::{TcpListener, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, sleep, sleep_until, timeout},
};
use tonic::Status;
use vbridge_api::guest::v1::{
    TunnelIncoming, TunnelListenResponse, tunnel_listen_response::Message,
};

use super::{
    Answers, Aside, Tunnels,
    address::{Address, UnixPath},
    relay::Resetting,
    socket::{ConnectError, Socket, permitted, prompt, site, unix_text},
};
use crate::{
    error::{self, Reason},
    files::path::{PATH, by_descriptor},
    limits::TUNNEL_ACCEPT_PAUSE,
    policy::{AddressUse, Held, Site, Wanted},
};

/// The connections of all listeners that wait, by listener and in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    connections: Mutex<BTreeMap<(u64, u64), Incoming>>,
    listeners: AtomicU64,
}

/// A connection that waits.
struct Incoming {
    socket: Accepted,
    until: Instant,
    /// Its place among those that may wait.
    _place: OwnedSemaphorePermit,
}

/// Reset if nobody takes it.
enum Accepted {
    Tcp(Resetting),
    Unix(UnixStream),
}

/// A socket that is listened on.
enum Listener {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Goes with the listener.
        _file: Option<SocketFile>,
    },
}

/// Removes a socket's file, and nothing that has taken its place.
struct SocketFile {
    path: PathBuf,
    /// The file itself. While it is open, no other has its number.
    file: Option<OwnedFd>,
    aside: Aside,
}

/// What one call to Listen has waiting. It goes with the call.
struct Mine {
    waiting: Arc<Waiting>,
    listener: u64,
}

impl Tunnels {
    /// Listens until the call has ended.
    pub(crate) async fn listen(
        &self,
        address: &Address,
        rules: Arc<Held>,
        answers: &Answers<TunnelListenResponse>,
    ) -> Result<(), Status> {
        let _place = self.listener()?;
        let listener = self.bind(address, rules).await?;
        let listening = Message::Listening(listener.address());
        let first = TunnelListenResponse {
            message: Some(listening),
        };
        if answers.send(Ok(first)).await.is_err() {
            return Ok(());
        }
        let mine = Mine {
            waiting: Arc::clone(&self.waiting),
            listener: self.waiting.listeners.fetch_add(1, Ordering::Relaxed),
        };
        let places = Arc::new(Semaphore::new(self.limits.backlog));
        let mut sequence = 0;
        loop {
            let accepted = tokio::select! {
                accepted = next(&listener, &places, answers) => accepted,
                () = mine.first_is_late() => {
                    mine.forget_late();
                    continue;
                }
            };
            match accepted {
                Ok(None) => return Ok(()),
                Ok(Some((accepted, place, told))) => {
                    let id = (mine.listener, sequence);
                    sequence += 1;
                    let peer = accepted.peer();
                    let incoming = Incoming {
                        socket: accepted,
                        until: Instant::now() + self.limits.accept_timeout,
                        _place: place,
                    };
                    mine.waiting.lock().insert(id, incoming);
                    let incoming = TunnelIncoming { id: text(id), peer };
                    told.send(Ok(TunnelListenResponse {
                        message: Some(Message::Incoming(incoming)),
                    }));
                }
                Err(error) => {
                    tracing::debug!(%error, "can't accept a connection for a tunnel");
                    sleep(TUNNEL_ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Takes a connection that waits.
    pub(crate) fn take(&self, id: &str) -> Result<Socket, Status> {
        let taken = key(id).and_then(|key| self.waiting.lock().remove(&key));
        taken.and_then(|incoming| incoming.socket.into_socket()).ok_or_else(|| {
            let limit = self.limits.accept_timeout;
            let message = format!(
                "no connection waits under the id {id:?}: it was taken, or not within {limit:?}, or its Listen has ended"
            );
            error::failure(Reason::NotFound, message)
        })
    }

    async fn bind(&self, address: &Address, rules: Arc<Held>) -> Result<Listener, Status> {
        let limit = self.limits.connect_timeout;
        let bound = timeout(limit, async {
            match address {
                Address::Tcp(host) => {
                    let found = host.look_up(&self.aside).await;
                    let found = found.map_err(ConnectError::Other)?;
                    let wanted = |address| Wanted::Tcp(host.host(), address);
                    let addresses = permitted(&rules, found, AddressUse::Listen, wanted);
                    let addresses = addresses.map_err(ConnectError::Refused)?;
                    let listener = TcpListener::bind(&addresses[..]).await;
                    listener.map(Listener::Tcp).map_err(ConnectError::Other)
                }
                Address::Unix(path) => {
                    let site = site(path, AddressUse::Listen, rules, &self.aside).await?;
                    let bound = bind_unix(path, site, &self.aside).await;
                    bound.map_err(ConnectError::Other)
                }
                // `Address::to_listen` gives none.
                Address::Udp(_) => Err(ConnectError::Other(io::ErrorKind::Unsupported.into())),
            }
        });
        let failed = |reason, why: String| {
            let message = format!("can't listen on {address} in the guest: {why}");
            error::failure(reason, message)
        };
        match bound.await {
            Ok(Ok(listener)) => Ok(listener),
            Ok(Err(ConnectError::Other(error))) => Err(match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    failed(Reason::PermissionDenied, error.to_string())
                }
                io::ErrorKind::AddrInUse if matches!(address, Address::Unix(_)) => failed(
                    Reason::KernelRefused,
                    format!("{error}; if nobody listens there any more, remove the file"),
                ),
                _ => failed(Reason::KernelRefused, error.to_string()),
            }),
            Ok(Err(error)) => Err(error.status(address)),
            Err(_) => Err(failed(
                Reason::KernelRefused,
                format!("that takes longer than {limit:?}"),
            )),
        }
    }
}

/// The next connection, with its place and its turn to be told; none if the call has ended. Dropped before its end, it has
/// accepted none.
async fn next<'a, A>(
    listener: &Listener,
    places: &Arc<Semaphore>,
    answers: &'a Answers<A>,
) -> io::Result<
    Option<(
        Accepted,
        OwnedSemaphorePermit,
        mpsc::Permit<'a, Result<A, Status>>,
    )>,
> {
    // The semaphore is never closed.
    let Ok(place) = Arc::clone(places).acquire_owned().await else {
        return Ok(None);
    };
    let Ok(turn) = answers.reserve().await else {
        return Ok(None);
    };
    let accepted = match listener {
        Listener::Tcp(listener) => {
            let (stream, _) = listener.accept().await?;
            prompt(&stream);
            Accepted::Tcp(Resetting(Some(stream)))
        }
        Listener::Unix { listener, .. } => Accepted::Unix(listener.accept().await?.0),
    };
    Ok(Some((accepted, place, turn)))
}

/// Makes a socket and its file on a thread: a frozen file system would hold up the whole agent.
async fn bind_unix(path: &UnixPath, site: Site, aside: &Aside) -> io::Result<Listener> {
    let Some(mut file) = path.file() else {
        let listener = UnixListener::bind(path.to_system())?;
        return Ok(Listener::Unix {
            listener,
            _file: None,
        });
    };
    if let Site::At(path) = site {
        file = path;
    }
    let remover = aside.clone();
    let made = aside.run(move || {
        let listener = std::os::unix::net::UnixListener::bind(&file)?;
        let made = made(&file)?;
        // From here on the file is ours to remove, also if nobody waits for it any more.
        let guard = SocketFile {
            path: file,
            file: Some(made),
            aside: remover,
        };
        guard.restrict()?;
        listener.set_nonblocking(true)?;
        Ok((listener, guard))
    });
    let (listener, guard) = made.await?;
    Ok(Listener::Unix {
        listener: UnixListener::from_std(listener)?,
        _file: Some(guard),
    })
}

/// Stands on the socket's file that was just made, and follows no link that somebody has put in its place.
fn made(path: &Path) -> io::Result<OwnedFd> {
    let file = rustix::fs::open(path, PATH | OFlags::NOFOLLOW, Mode::empty())?;
    match FileType::from_raw_mode(fstat(&file)?.st_mode) {
        FileType::Socket => Ok(file),
        _ => Err(io::Error::other(
            "something else has taken the place of the socket's file",
        )),
    }
}

/// Removes a socket's file, if it is still there.
fn remove(path: &Path, file: &OwnedFd) -> io::Result<()> {
    let there = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
    let which = |stat: &Stat| (stat.st_dev, stat.st_ino);
    match which(&there) == which(&fstat(file)?) {
        true => std::fs::remove_file(path),
        false => Ok(()),
    }
}

impl SocketFile {
    /// The owner alone may connect, whatever the umask was.
    fn restrict(&self) -> io::Result<()> {
        let file = self.file.as_ref().ok_or(Errno::BADF)?;
        let name = by_descriptor(file.as_fd());
        Ok(chmodat(
            CWD,
            name,
            Mode::RUSR | Mode::WUSR,
            AtFlags::empty(),
        )?)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let Some(file) = self.file.take() else {
            return;
        };
        let path = std::mem::take(&mut self.path);
        let aside = self.aside.clone();
        runtime.spawn(async move {
            // It may be gone already; there is nobody left to tell.
            let _ = aside.run(move || remove(&path, &file)).await;
        });
    }
}

impl Listener {
    fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => listener
                .local_addr()
                .map_or_else(|_| String::new(), |address| address.to_string()),
            Self::Unix { listener, .. } => listener
                .local_addr()
                .as_ref()
                .map(unix_text)
                .unwrap_or_default(),
        }
    }
}

// === impl Accepted, Waiting, Mine ===

impl Accepted {
    fn peer(&self) -> String {
        match self {
            Self::Tcp(Resetting(Some(stream))) => stream
                .peer_addr()
                .map_or_else(|_| String::new(), |address| address.to_string()),
            Self::Tcp(Resetting(None)) => String::new(),
            Self::Unix(stream) => stream
                .peer_addr()
                .as_ref()
                .map(unix_text)
                .unwrap_or_default(),
        }
    }

    fn into_socket(self) -> Option<Socket> {
        match self {
            Self::Tcp(mut stream) => stream.take().map(Socket::Tcp),
            Self::Unix(stream) => Some(Socket::Unix(stream)),
        }
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming")
            .field("until", &self.until)
            .finish_non_exhaustive()
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(u64, u64), Incoming>> {
        // Nothing under the lock leaves a half-made state behind.
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mine {
    /// Waits until the time of the oldest is over. Those that have been taken since do not matter: it wakes too early.
    async fn first_is_late(&self) {
        let oldest = self.oldest().map(|(_, until)| until);
        match oldest {
            Some(until) => sleep_until(until).await,
            None => std::future::pending().await,
        }
    }

    fn oldest(&self) -> Option<((u64, u64), Instant)> {
        let waiting = self.waiting.lock();
        let mut mine = waiting.range((self.listener, 0)..=(self.listener, u64::MAX));
        mine.next().map(|(id, incoming)| (*id, incoming.until))
    }

    fn forget_late(&self) {
        let now = Instant::now();
        while let Some((id, until)) = self.oldest()
            && until <= now
        {
            self.waiting.lock().remove(&id);
        }
    }
}

impl Drop for Mine {
    fn drop(&mut self) {
        while let Some((id, _)) = self.oldest() {
            self.waiting.lock().remove(&id);
        }
    }
}

/// An id as callers see it.
fn text((listener, sequence): (u64, u64)) -> String {
    format!("{listener}-{sequence}")
}

fn key(id: &str) -> Option<(u64, u64)> {
    let (listener, sequence) = id.split_once('-')?;
    Some((listener.parse().ok()?, sequence.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_socket_that_was_made_is_taken_for_its_file_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let bind = || std::os::unix::net::UnixListener::bind(&path).unwrap();
        let _first = bind();
        let file = made(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(
            remove(&path, &file).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        let _second = bind();
        remove(&path, &file).unwrap();
        assert!(path.exists());
        remove(&path, &made(&path).unwrap()).unwrap();
        assert!(!path.exists());
        let target = dir.path().join("target");
        let _third = std::os::unix::net::UnixListener::bind(&target).unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert!(made(&path).is_err());
    }

    #[test]
    fn an_id_is_read_as_it_is_written_and_nonsense_is_none() {
        assert_eq!(key(&text((3, 17))), Some((3, 17)));
        for id in [
            "",
            "3",
            "3-",
            "-3",
            "a-b",
            "3-17-1",
            "99999999999999999999-1",
        ] {
            assert_eq!(key(id), None, "{id:?}");
        }
    }
}
