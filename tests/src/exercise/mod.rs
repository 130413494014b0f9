//! A gRPC service that does everything a gRPC service can do, on demand. It runs inside the guest and, as the
//! reference for what should come out, directly on a TCP port.
//!
//! | module | what it is |
//! |---|---|
//! | [`v1`] | the contract, generated from `proto/vbridge/test/v1/exercise.proto` |
//! | `service` | the methods |
//! | `counters` | what became of the calls |
//! | `wire` | what tonic's handlers can't say: trailers of a call that succeeds, resets with a code |

mod counters;
mod service;
mod wire;

use std::{io, net::SocketAddr, path::Path};

use tokio::{
    net::{TcpListener, UnixListener},
    task::JoinHandle,
};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{codec::CompressionEncoding, transport::server::TcpIncoming};

pub use self::{service::Exercise, wire::Wire};

/// The contract.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    unreachable_pub,
    rustdoc::all
)]
pub mod v1 {
    tonic::include_proto!("vbridge.test.v1");
}

/// The encoded `google.protobuf.FileDescriptorSet` of the contract.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/exercise.binpb"));

/// The largest message that is read or written: 64 MiB of payload, and what is around it.
pub const MAX_MESSAGE: usize = 70 * 1024 * 1024;

/// The service, ready for a server. Clones count together.
pub type ExerciseService = Wire<v1::exercise_server::ExerciseServer<Exercise>>;

/// Builds the service.
pub fn service() -> ExerciseService {
    let exercise = Exercise::default();
    let counters = exercise.counters();
    let server = v1::exercise_server::ExerciseServer::new(exercise)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip);
    Wire::new(server, counters)
}

/// The service directly on a TCP port: the reference. It ends when this is dropped.
#[derive(Debug)]
pub struct Reference {
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl Reference {
    /// Serves on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// There is no port.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = tokio::spawn(async move {
            let served = tonic::transport::Server::builder()
                .add_service(service())
                .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
                .await;
            if let Err(error) = served {
                eprintln!("the reference server ended: {error}");
            }
        });
        Ok(Self { address, server })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Serves the exercise service on a Unix socket, with nothing in between, until `shutdown` is done.
///
/// # Errors
/// There can be no such socket, or it breaks.
pub async fn serve_on(path: &Path, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    tonic::transport::Server::builder()
        .add_service(service())
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), shutdown)
        .await
        .map_err(io::Error::other)
}

impl Drop for Reference {
    fn drop(&mut self) {
        self.server.abort();
    }
}
