//! What can go wrong, as a user of the library sees it.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::rpc::ConnectionError;
use crate::rpc::limits::{DESCRIPTORS_MAX, PAYLOAD_MAX, SUBSCRIPTIONS};

/// Why a call, a stream or a connection failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The daemon answered with an error.
    #[error(transparent)]
    Libvirt(Box<RemoteError>),
    /// The connection has ended; it may be opened anew.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// A call was not answered in time. The daemon may still carry it out.
    #[error("{procedure} was not answered within {deadline:?}; the daemon may still carry it out")]
    Deadline {
        /// The procedure's name.
        procedure: &'static str,
        /// How long the caller was ready to wait.
        deadline: Duration,
    },
    /// Arguments cannot be encoded: one of them is beyond what the protocol allows.
    #[error("the arguments cannot be sent")]
    Encode(#[source] libvirt_xdr::Error),
    /// A reply or an event cannot be decoded.
    #[error("the daemon's answer cannot be read; is it newer than libvirt 12?")]
    Decode(#[source] libvirt_xdr::Error),
    /// The arguments are larger than a packet may be.
    #[error(
        "{procedure}: its arguments take {size} bytes, and a packet holds at most {PAYLOAD_MAX}"
    )]
    TooLarge {
        /// The procedure's name.
        procedure: &'static str,
        /// The size of the encoded arguments in bytes.
        size: usize,
    },
    /// Descriptors travel over Unix sockets only.
    #[error(
        "{procedure} passes file descriptors, which only a Unix socket carries; connect to the daemon locally"
    )]
    DescriptorsNeedUnixSocket {
        /// The procedure's name.
        procedure: &'static str,
    },
    /// More descriptors than one call may carry.
    #[error(
        "{procedure} was given {given} file descriptors, and a call carries at most {DESCRIPTORS_MAX}"
    )]
    TooManyDescriptors {
        /// The procedure's name.
        procedure: &'static str,
        /// How many there were.
        given: usize,
    },
    /// The connection has as many subscriptions as it may have.
    #[error(
        "the connection has {SUBSCRIPTIONS} subscriptions already; drop those that are not needed"
    )]
    TooManySubscriptions,
    /// The stream was finished or aborted.
    #[error("the stream is over: it was finished, or the daemon has ended it")]
    StreamOver,
    /// A hole that the protocol cannot express.
    #[error("a hole of {length} bytes is longer than the 2^63 - 1 that the protocol can express")]
    HoleTooLong {
        /// Its length in bytes.
        length: u64,
    },
}

/// An error that the daemon reported (`virNetMessageError`).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoteError {
    /// libvirt's number for what went wrong (`virErrorNumber`).
    pub code: i32,
    /// libvirt's number for the part of it that reports (`virErrorDomain`).
    pub domain: i32,
    /// How bad it is (`virErrorLevel`): 1 a warning, 2 an error.
    pub level: i32,
    /// The daemon's sentence.
    pub message: String,
    /// Further texts, as the daemon's part likes.
    pub details: [Option<String>; 3],
    /// Further numbers, as the daemon's part likes.
    pub numbers: [i32; 2],
}

// === impl RemoteError ===

impl RemoteError {
    /// The error in the payload of a packet.
    pub(crate) fn decode(payload: &[u8]) -> Error {
        let word = |at: usize| {
            payload
                .get(at..at + 4)
                .and_then(|w| w.try_into().ok())
                .map_or(0, i32::from_be_bytes)
        };
        let length = usize::try_from(word(12)).unwrap_or(0);
        let message = payload
            .get(16..16 + length)
            .map(|m| String::from_utf8_lossy(m).into_owned())
            .unwrap_or_default();
        Error::Libvirt(Box::new(Self {
            code: word(0),
            domain: word(4),
            level: 2,
            message,
            details: [None, None, None],
            numbers: [0, 0],
        }))
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "libvirt: {} (code {}, domain {})",
            self.message, self.code, self.domain
        )
    }
}

impl std::error::Error for RemoteError {}

// === impl Error ===

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Connection(_) => io::ErrorKind::ConnectionAborted,
            Error::Deadline { .. } => io::ErrorKind::TimedOut,
            Error::StreamOver => io::ErrorKind::BrokenPipe,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
