//! The listeners: who may connect, over what, and for how long without a word.

use std::{io, sync::Arc};

use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener},
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use crate::{
    access::{self, Acceptor, Peer},
    address::ListenAddress,
    connections::{Connection, Connections},
    error::BridgeError,
    front::Front,
    limits::{
        CLIENT_KEEPALIVE, CLIENT_KEEPALIVE_TIMEOUT, CONNECTION_WINDOW, EVICTION, FIRST_WORDS,
        MAX_HEADER_LIST, MAX_PENDING_RESETS, MAX_STREAMS_PER_CONNECTION, SEND_BUFFER,
        STREAM_WINDOW,
    },
};

/// Pause after a failed accept: most likely the process is out of descriptors.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// What a listener needs to serve.
#[derive(Clone)]
pub(crate) struct Serving {
    pub(crate) front: Front,
    /// Of this listener.
    pub(crate) connections: Connections,
    /// For TCP, if that is encrypted.
    pub(crate) tls: Option<Acceptor>,
    /// Cancelled when the bridge ends: calls under way may end.
    pub(crate) drain: CancellationToken,
    /// Cancelled when they have had their time.
    pub(crate) cut: CancellationToken,
    /// All connections.
    pub(crate) tasks: TaskTracker,
}

impl Serving {
    fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(connection);
    }
}

/// A socket that somebody else listens on already, and hands over.
#[derive(Debug)]
pub enum Socket {
    /// A TCP socket.
    Tcp(std::net::TcpListener),
    /// A Unix socket. Its file stays when the bridge ends.
    Unix(std::os::unix::net::UnixListener),
}

impl Socket {
    /// What it listens on.
    pub(crate) fn address(&self) -> io::Result<ListenAddress> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(ListenAddress::Tcp),
            Self::Unix(listener) => {
                let address = listener.local_addr()?;
                let path = address.as_pathname().unwrap_or("(unnamed)".as_ref());
                Ok(ListenAddress::Unix(path.to_owned()))
            }
        }
    }
}

/// A socket that clients connect to.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Goes with the listener, unless it is somebody else's.
        _file: Option<SocketFile>,
    },
}

/// Removes a socket's file.
pub(crate) struct SocketFile(std::path::PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may be gone already; there is nobody left to tell.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Listens, and says where: a port 0 has become a real one.
    pub(crate) async fn bind(
        address: &ListenAddress,
        is_open: bool,
    ) -> Result<(Self, ListenAddress), BridgeError> {
        let error = |source| BridgeError::Listen {
            address: address.clone(),
            source,
        };
        match address {
            ListenAddress::Tcp(socket) => {
                let listener = TcpListener::bind(socket).await.map_err(error)?;
                let bound = listener.local_addr().map_err(error)?;
                Ok((Self::Tcp(listener), ListenAddress::Tcp(bound)))
            }
            ListenAddress::Unix(path) => {
                remove_stale(path).map_err(error)?;
                let listener = UnixListener::bind(path).map_err(error)?;
                // Where nobody is asked who they are, whoever may connect may call every guest: the owner alone.
                let mode = if is_open { 0o600 } else { 0o666 };
                let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
                std::fs::set_permissions(path, mode).map_err(error)?;
                let _file = Some(SocketFile(path.clone()));
                Ok((Self::Unix { listener, _file }, address.clone()))
            }
        }
    }

    /// Listens on a socket that was handed over.
    pub(crate) fn take(socket: Socket) -> io::Result<Self> {
        match socket {
            Socket::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener).map(Self::Tcp)
            }
            Socket::Unix(listener) => {
                listener.set_nonblocking(true)?;
                let listener = UnixListener::from_std(listener)?;
                let _file = None;
                Ok(Self::Unix { listener, _file })
            }
        }
    }

    /// Accepts until cancelled.
    pub(crate) async fn run(self, serving: Serving) {
        loop {
            let accepted = match &self {
                Self::Tcp(listener) => listener.accept().await.map(|(stream, address)| {
                    // Without it, small answers wait for acknowledgements.
                    if let Err(error) = stream.set_nodelay(true) {
                        debug!(%error, "no TCP_NODELAY");
                    }
                    let peer = Peer {
                        address: Some(address),
                        ..Peer::default()
                    };
                    let place = serving.connections.enter();
                    match serving.tls.clone() {
                        Some(acceptor) => {
                            serving.spawn(encrypted(acceptor, stream, peer, serving.clone(), place))
                        }
                        None => serving.spawn(converse(stream, peer, serving.clone(), place)),
                    }
                }),
                Self::Unix { listener, .. } => listener.accept().await.map(|(stream, _)| {
                    let peer = Peer {
                        uid: stream.peer_cred().ok().map(|peer| peer.uid()),
                        ..Peer::default()
                    };
                    let place = serving.connections.enter();
                    serving.spawn(converse(stream, peer, serving.clone(), place));
                }),
            };
            if let Err(error) = accepted {
                warn!(%error, "can't accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            // The next waits in the kernel's backlog.
            serving.connections.room().await;
        }
    }
}

/// Removes the socket of a bridge that has crashed; one that somebody listens on stays.
fn remove_stale(path: &std::path::Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt as _;
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {
            match std::os::unix::net::UnixStream::connect(path) {
                Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path)
                }
                Err(error) => Err(error),
            }
        }
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file that is no socket; choose another path or remove it",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// A connection with TLS.
async fn encrypted(
    acceptor: Acceptor,
    stream: TcpStream,
    mut peer: Peer,
    serving: Serving,
    place: Arc<Connection>,
) {
    let accepted = tokio::select! {
        accepted = timeout(FIRST_WORDS, acceptor.now().accept(stream)) => accepted,
        () = place.leave() => return,
        () = serving.drain.cancelled() => return,
    };
    match accepted {
        Ok(Ok(stream)) => {
            peer.names = stream
                .get_ref()
                .1
                .peer_certificates()
                .map_or_else(Vec::new, |chain| {
                    chain.first().map_or_else(Vec::new, access::names)
                });
            converse(stream, peer, serving, place).await;
        }
        Ok(Err(error)) => debug!(%peer, %error, "no TLS"),
        Err(_) => debug!(%peer, "no TLS in time"),
    }
}

/// A connection from its first words to its end.
async fn converse<S>(stream: S, peer: Peer, serving: Serving, place: Arc<Connection>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = TokioIo::new(place.watch(stream));
    let (front, peer, own) = (serving.front, Arc::new(peer), Arc::clone(&place));
    let service = tower::service_fn(move |request| {
        front
            .clone()
            .serve(Arc::clone(&peer), Arc::clone(&own), request)
    });
    let builder = builder();
    let connection = builder.serve_connection(stream, TowerToHyperService::new(service));
    tokio::pin!(connection);
    let (mut has_spoken, mut draining, mut evicted) = (false, false, false);
    let first_words = sleep(FIRST_WORDS);
    let cut_off = sleep(EVICTION);
    tokio::pin!(first_words, cut_off);
    loop {
        tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    debug!(%error, "a client's connection ended");
                }
                return;
            }
            () = &mut first_words, if !has_spoken => {
                if place.is_mute() {
                    return;
                }
                has_spoken = true;
            }
            () = serving.cut.cancelled() => return,
            () = serving.drain.cancelled(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            () = place.leave(), if !evicted => {
                if place.is_unused() {
                    return;
                }
                evicted = true;
                connection.as_mut().graceful_shutdown();
                cut_off.as_mut().reset(Instant::now() + EVICTION);
            }
            () = &mut cut_off, if evicted => {
                if place.is_idle() {
                    return;
                }
                // A call was faster. Its place is needed no less when it has ended.
                cut_off.as_mut().reset(Instant::now() + EVICTION);
            }
        }
    }
}

/// HTTP, with every limit.
fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(FIRST_WORDS)
        .keep_alive(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .keep_alive_interval(CLIENT_KEEPALIVE)
        .keep_alive_timeout(CLIENT_KEEPALIVE_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_send_buf_size(SEND_BUFFER);
    builder
}
