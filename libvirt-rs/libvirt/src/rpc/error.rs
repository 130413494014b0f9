//! What ends a connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::limits::{DESCRIPTORS_MAX, PACKET_MAX, PACKET_MIN, STREAM_EARLY};

/// Why a connection has ended. Everything that waited on it has failed with a copy of this.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The daemon has closed the connection: it was stopped or has died, or it refused what it was sent.
    #[error("the libvirt daemon closed the connection")]
    ClosedByDaemon,
    /// [`Client::close`](crate::rpc::Client::close) was called.
    #[error("this side closed the connection to the libvirt daemon")]
    ClosedHere,
    /// The transport failed.
    #[error("the connection to the libvirt daemon failed")]
    Io(#[source] Arc<io::Error>),
    /// What came is not libvirt's protocol.
    #[error("the libvirt daemon broke the protocol")]
    Protocol(#[source] ProtocolError),
    /// The daemon has left keepalive pings unanswered.
    #[error(
        "the libvirt daemon has been silent for {0:?} and answers no pings: it hangs, or the way to it is cut"
    )]
    Silent(Duration),
}

/// What in the bytes was wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A length word that no packet can have.
    #[error(
        "a packet claims {0} bytes where {PACKET_MIN} to {PACKET_MAX} are possible; the other side may not be a libvirt daemon"
    )]
    Length(usize),
    /// An unknown packet type.
    #[error("a packet is of the unknown kind {0}")]
    Kind(u32),
    /// An unknown packet status.
    #[error("a packet has the unknown status {0}")]
    Status(u32),
    /// More descriptors than a packet may carry.
    #[error("a packet announces {0} file descriptors, at most {DESCRIPTORS_MAX} are possible")]
    Descriptors(u32),
    /// Fewer descriptors arrived than were announced.
    #[error("a packet's file descriptors did not arrive with it")]
    DescriptorsMissing,
    /// Descriptors arrived that no packet has announced.
    #[error("file descriptors arrived that no packet has announced")]
    DescriptorsUnannounced,
    /// A packet that only a client may send.
    #[error("the daemon sent a call, which only a client may")]
    Call,
    /// A stream of which too much has come before the reply that opens it.
    #[error(
        "the daemon sent {STREAM_EARLY} bytes of a stream before it had answered the call that opens it"
    )]
    StreamTooEarly,
    /// A hole that cannot be decoded, or is negative.
    #[error("a stream's hole cannot be read")]
    Hole,
}

// === impl ConnectionError ===

impl From<io::Error> for ConnectionError {
    fn from(error: io::Error) -> Self {
        // A daemon that dies with our bytes unread resets the connection: it has closed it all the same.
        match error.kind() {
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => Self::ClosedByDaemon,
            _ => Self::Io(Arc::new(error)),
        }
    }
}

impl From<ProtocolError> for ConnectionError {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}
