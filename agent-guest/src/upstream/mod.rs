//! Local gRPC servers of the guest, whose services are reached through the agent like its own.
//!
//! ```text
//!    a call of a service that the agent does not have
//!       │ the pattern that has most of its name
//!    its server ── no connection ──▶ connect: one at a time, UPSTREAM_CONNECT_TIMEOUT
//!       │                               │ fails: UNAVAILABLE with UPSTREAM_UNAVAILABLE
//!       ▼                               ▼
//!    a stream of the one HTTP/2 connection that all calls share, until it breaks
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | what is said of an upstream, and what makes sense |
//! | [`forward`] | calls, as bytes |
//! | [`ask`] | what the agent itself asks: reflection |
//! | [`health`] | how they are, once and from now on |
//! | [`reflection`] | the agent's reflection with theirs |

mod ask;
mod config;
mod forward;
mod health;
pub(crate) mod reflection;

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use http::Request;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    sync::watch,
    time::timeout,
};
use tonic::{Status, body::Body};

use self::{ask::Known, config::Address};
use crate::{
    error::{self, Reason},
    limits::{
        CONNECTION_WINDOW, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, MAX_FRAME_SIZE, MAX_HEADER_LIST,
        MAX_UPSTREAMS, STREAM_SEND_BUFFER, STREAM_WINDOW, UPSTREAM_CONNECT_TIMEOUT,
    },
    router::CallFuture,
};
pub use config::{Upstream, UpstreamError};

/// All upstreams of an agent. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Upstreams(Arc<[Arc<Server>]>);

/// One of them, and its connection.
pub(crate) struct Server {
    upstream: Upstream,
    /// Held while one is made.
    connecting: tokio::sync::Mutex<()>,
    connection: Mutex<Option<Arc<Connection>>>,
}

struct Connection {
    sender: http2::SendRequest<Body>,
    /// What it has said of itself.
    known: Known,
    /// Its task has the other half, and drops it.
    end: watch::Receiver<()>,
}

// === impl Upstreams ===

impl Upstreams {
    /// These, if none has anything of the services `own`; else what is wrong.
    pub(crate) fn new(upstreams: Vec<Upstream>, own: &[&str]) -> Result<Self, String> {
        if upstreams.len() > MAX_UPSTREAMS {
            return Err(format!(
                "there are {} upstreams, and {MAX_UPSTREAMS} is the most",
                upstreams.len()
            ));
        }
        for (at, upstream) in upstreams.iter().enumerate() {
            let name = upstream.name();
            let mut others = upstreams.iter().take(at);
            if others.any(|other| other.name() == name) {
                return Err(format!("upstream {name}: another has the same name"));
            }
            for pattern in upstream.patterns() {
                if let Some(taken) = own.iter().find(|service| pattern.matches(service)) {
                    return Err(format!(
                        "upstream {name}: {pattern} has {taken}, which is the agent's own"
                    ));
                }
                let mut others = upstreams.iter().take(at);
                if let Some(other) = others.find(|other| other.patterns().contains(pattern)) {
                    return Err(format!(
                        "upstream {name}: {pattern} is upstream {}'s already",
                        other.name()
                    ));
                }
            }
        }
        let servers = upstreams.into_iter().map(|upstream| {
            Arc::new(Server {
                upstream,
                connecting: tokio::sync::Mutex::default(),
                connection: Mutex::default(),
            })
        });
        Ok(Self(servers.collect()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn servers(&self) -> &[Arc<Server>] {
        &self.0
    }

    /// Who serves a service.
    pub(crate) fn find(&self, service: &str) -> Option<&Arc<Server>> {
        let matching = self.0.iter().filter_map(|server| {
            let weight = server.upstream.matches(service)?;
            Some((weight, server))
        });
        let best = matching.max_by_key(|(weight, _)| *weight);
        best.map(|(_, server)| server)
    }
}

// === impl Server ===

impl Server {
    /// Passes a call on.
    pub(crate) fn call(self: &Arc<Self>, request: Request<Body>) -> CallFuture {
        Box::pin(forward::forward(Arc::clone(self), request))
    }

    /// The connection, made anew if there is none.
    async fn connection(&self) -> Result<Arc<Connection>, Status> {
        if let Some(connection) = self.current() {
            return Ok(connection);
        }
        let connected = timeout(UPSTREAM_CONNECT_TIMEOUT, async {
            let _turn = self.connecting.lock().await;
            match self.current() {
                Some(connection) => Ok(connection),
                None => self.connect().await,
            }
        });
        match connected.await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(self.unavailable(&error.to_string())),
            Err(_) => Err(self.unavailable("it takes too long to connect")),
        }
    }

    fn current(&self) -> Option<Arc<Connection>> {
        let connection = self.lock().clone();
        connection.filter(|connection| !connection.sender.is_closed())
    }

    /// It is not to be used any more.
    fn forget(&self, connection: &Arc<Connection>) {
        let mut current = self.lock();
        if current
            .as_ref()
            .is_some_and(|it| Arc::ptr_eq(it, connection))
        {
            *current = None;
        }
    }

    async fn connect(&self) -> io::Result<Arc<Connection>> {
        let (sender, end) = match self.upstream.place() {
            Address::Unix(path) => handshake(UnixStream::connect(path).await?).await?,
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                handshake(stream).await?
            }
        };
        let connection = Arc::new(Connection {
            sender,
            known: Known::default(),
            end,
        });
        *self.lock() = Some(Arc::clone(&connection));
        tracing::debug!(upstream = self.upstream.name(), "connected");
        Ok(connection)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<Connection>>> {
        // Nothing that holds it can panic half-way.
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// How a call is refused that can't be passed on.
    fn unavailable(&self, why: &str) -> Status {
        let message = format!(
            "the guest's server \"{}\" at {} can't be reached: {why}",
            self.upstream.name(),
            self.upstream.address()
        );
        error::failure(Reason::UpstreamUnavailable, message)
    }
}

// === impl Connection ===

impl Connection {
    /// Waits until it is no more.
    async fn ended(&self) {
        // Nothing is ever sent: an error means that the task has ended.
        let _ = self.end.clone().changed().await;
    }
}

/// Whoever calls, and what ends with the connection.
async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> io::Result<(http2::SendRequest<Body>, watch::Receiver<()>)> {
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME_SIZE)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_send_buf_size(STREAM_SEND_BUFFER)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    let (sender, connection) = http
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let (alive, end) = watch::channel(());
    tokio::spawn(async move {
        // Each call is told by itself.
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an upstream's connection ended");
        }
        drop(alive);
    });
    Ok((sender, end))
}
