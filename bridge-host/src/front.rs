//! The listeners, and what happens to a request that arrives at one.

use std::{convert::Infallible, io, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
};
use tonic::{Status, body::Body, service::Routes};
use tower::ServiceExt as _;
use tracing::{debug, warn};

use crate::{
    address::ListenAddress,
    error::BridgeError,
    forward::{BoxError, Failure, forward},
    guest::Guest,
    guests::Guests,
    json,
    limits::{
        CLIENT_KEEPALIVE, CLIENT_KEEPALIVE_TIMEOUT, CONNECTION_WINDOW, MAX_CONNECTIONS,
        MAX_HEADER_LIST, MAX_PENDING_RESETS, MAX_STREAMS_PER_CONNECTION, SEND_BUFFER,
        STREAM_WINDOW,
    },
    metrics::{self, Calls, Exporter},
    routing::{Target, route},
};

/// Pause after a failed accept: most likely the process is out of descriptors.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// What a request needs: shared by all listeners.
#[derive(Clone)]
pub(crate) struct Front {
    pub(crate) guests: Guests,
    /// The bridge's own services.
    pub(crate) routes: Routes,
    /// What calls are counted by.
    pub(crate) calls: Calls,
    /// What is measured, for whoever asks.
    pub(crate) exporter: Exporter,
    /// The same for those who don't speak gRPC.
    pub(crate) json: json::Api,
    /// The guest that this listener belongs to.
    pub(crate) fixed: Option<Arc<Guest>>,
}

impl Front {
    async fn serve(self, request: Request<Incoming>) -> Result<Response<Body>, BoxError> {
        let is_scrape = request.uri().path() == metrics::PATH && request.method() == Method::GET;
        if is_scrape && self.fixed.is_none() {
            return Ok(scraped(&self.exporter).await);
        }
        if request.uri().path().starts_with(json::PREFIX) {
            return Ok(self.json.serve(self.fixed.as_ref(), request).await);
        }
        if request.version() < Version::HTTP_2 {
            return Ok(not_http2());
        }
        let target = match &self.fixed {
            Some(guest) => Ok(Target::Guest(Arc::clone(guest))),
            None => route(&self.guests, request.uri(), request.headers()),
        };
        match target {
            Ok(Target::Guest(guest)) => {
                let mut record = self.calls.begin(&guest, request.uri().path());
                match forward(guest, request).await {
                    Ok(response) => Ok(record.follow(response).map(Body::new)),
                    Err(Failure::Status(status)) => {
                        record.status(status.code());
                        Ok(status.into_http())
                    }
                    Err(Failure::Reset(error)) => Err(error.into()),
                }
            }
            Ok(Target::Bridge) => {
                let response = self.routes.oneshot(request.map(Body::new)).await?;
                Ok(response)
            }
            Err(status) => Ok(Status::into_http(status)),
        }
    }
}

/// An answer for Prometheus.
async fn scraped(exporter: &Exporter) -> Response<Body> {
    let (status, text) = match exporter.scrape().await {
        Ok(text) => (StatusCode::OK, text),
        // A string takes whatever is written to it.
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let text = Full::new(Bytes::from(text)).map_err(|never: Infallible| match never {});
    let mut response = Response::new(Body::new(text));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static(metrics::CONTENT_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// An answer for browsers and curl: they learn what this port is.
fn not_http2() -> Response<Body> {
    let text = "This is a vbridge port. It speaks gRPC, over HTTP/2 without TLS (prior knowledge); try grpcurl -plaintext. curl finds /api/v1/openapi.json, Prometheus /metrics.\n";
    let mut response = Response::new(Body::new(
        Full::new(Bytes::from_static(text.as_bytes())).map_err(|never: Infallible| match never {}),
    ));
    *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response.headers_mut().insert(
        header::CONNECTION,
        header::HeaderValue::from_static("close"),
    );
    response
}

/// A socket that clients connect to.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Goes with the listener.
        _file: SocketFile,
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
                // Whoever may connect may call every guest: the owner alone.
                std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
                    .map_err(error)?;
                let _file = SocketFile(path.clone());
                Ok((Self::Unix { listener, _file }, address.clone()))
            }
        }
    }

    /// Accepts until cancelled.
    pub(crate) async fn run(self, front: Front, graceful: Arc<GracefulShutdown>) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let accepted = match &self {
                Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                    // Without it, small answers wait for acknowledgements.
                    if let Err(error) = stream.set_nodelay(true) {
                        debug!(%error, "no TCP_NODELAY");
                    }
                    spawn(stream, &front, &graceful, place);
                }),
                Self::Unix { listener, .. } => listener
                    .accept()
                    .await
                    .map(|(stream, _)| spawn(stream, &front, &graceful, place)),
            };
            if let Err(error) = accepted {
                warn!(%error, "can't accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
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

fn spawn<S>(
    stream: S,
    front: &Front,
    graceful: &GracefulShutdown,
    place: tokio::sync::OwnedSemaphorePermit,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let front = front.clone();
    let service = tower::service_fn(move |request| front.clone().serve(request));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).keep_alive(false);
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
    let watcher = graceful.watcher();
    tokio::spawn(async move {
        let connection =
            builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        if let Err(error) = watcher.watch(connection.into_owned()).await {
            debug!(%error, "a client's connection ended");
        }
        drop(place);
    });
}
