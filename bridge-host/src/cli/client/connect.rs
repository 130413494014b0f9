//! Connections to a bridge, by TCP, with TLS, or on its socket.

use std::{error::Error, io, pin::Pin, time::Duration};

use bridge_host::{
    limits::{CONNECTION_WINDOW, STREAM_WINDOW},
    retry::Failed,
};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tower_service::Service as _;

use super::{
    super::{failure::causes, proof::encrypted},
    address::BridgeAddress,
};

/// What `:authority` says: no guest's name, so that the metadata alone decides.
const ORIGIN: &str = "http://localhost";

/// How long what belongs to a connection may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Until it stands.
    pub(super) connect: Duration,
    /// While the other end takes nothing of what is written. None: for ever.
    pub(super) write: Option<Duration>,
}

/// Connects. The limits of time count for each connection that is made, also when one that was lost is made again.
pub(super) async fn connect(
    address: &BridgeAddress,
    tls: Option<TlsConnector>,
    limits: Limits,
) -> Result<Channel, tonic::transport::Error> {
    let write = limits.write;
    match address {
        BridgeAddress::Tcp(authority) => {
            let mut http = HttpConnector::new();
            http.set_nodelay(true);
            http.set_connect_timeout(Some(limits.connect));
            let connector = tower::service_fn(move |uri: Uri| {
                let connecting = http.call(uri);
                async move {
                    let stream = connecting.await?.into_inner();
                    Ok::<_, tonic::codegen::StdError>(limited(stream, write))
                }
            });
            windows(Endpoint::from_shared(format!("http://{authority}"))?)
                .origin(Uri::from_static(ORIGIN))
                .connect_timeout(limits.connect)
                .connect_with_connector(connector)
                .await
        }
        BridgeAddress::Https(authority) => {
            let authority = authority.clone();
            let connector = tower::service_fn(move |_: Uri| {
                let (authority, tls) = (authority.clone(), tls.clone());
                async move {
                    let stream = encrypted(&authority, tls).await?;
                    Ok::<_, io::Error>(limited(stream, write))
                }
            });
            windows(Endpoint::from_static(ORIGIN))
                .connect_timeout(limits.connect)
                .connect_with_connector(connector)
                .await
        }
        BridgeAddress::Unix(path) => {
            let path = path.clone();
            let connector = tower::service_fn(move |_: Uri| {
                let path = path.clone();
                async move { Ok::<_, io::Error>(limited(UnixStream::connect(path).await?, write)) }
            });
            windows(Endpoint::from_static(ORIGIN))
                .connect_timeout(limits.connect)
                .connect_with_connector(connector)
                .await
        }
    }
}

/// Every stream may fill its window without slowing another, as in the bridge.
fn windows(endpoint: Endpoint) -> Endpoint {
    endpoint
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
}

/// A stream that fails when the other end takes nothing for so long.
fn limited<S: AsyncRead + AsyncWrite>(
    stream: S,
    write: Option<Duration>,
) -> TokioIo<Pin<Box<TimeoutStream<S>>>> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(write);
    TokioIo::new(Box::pin(stream))
}

/// Whether the time for it was over.
pub(super) fn is_late(error: &(dyn Error + 'static)) -> bool {
    kind(error) == Some(io::ErrorKind::TimedOut)
}

/// What a connection that can't be made has failed of. A certificate that is wrong and a socket that is another's stay so.
pub(super) fn failed(error: &(dyn Error + 'static)) -> Failed {
    match kind(error) {
        Some(io::ErrorKind::PermissionDenied) => Failed::Permission,
        Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) | None => Failed::Other,
        Some(_) => Failed::Network,
    }
}

fn kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    let mut errors = causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>());
    errors.next().map(io::Error::kind)
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt as _, time::Instant};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_for_so_long_as_may_be_is_given_up() {
        let limit = Duration::from_secs(30);
        let (here, _there) = tokio::io::duplex(16);
        let mut here = limited(here, Some(limit)).into_inner();
        here.write_all(&[0; 16]).await.unwrap();
        let begun = Instant::now();
        let error = here.write_all(&[0; 16]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed(), limit);
    }

    #[test]
    fn what_would_fail_again_is_told_apart_from_what_may_come() {
        for (kind, expected) in [
            (io::ErrorKind::ConnectionRefused, Failed::Network),
            (io::ErrorKind::NotFound, Failed::Network),
            (io::ErrorKind::TimedOut, Failed::Network),
            (io::ErrorKind::PermissionDenied, Failed::Permission),
            (io::ErrorKind::InvalidData, Failed::Other),
        ] {
            assert_eq!(failed(&io::Error::from(kind)), expected, "{kind}");
        }
    }
}
