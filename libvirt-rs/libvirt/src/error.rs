//! What can go wrong, as a user of the library sees it.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::raw::api::ErrorNumber;
use crate::raw::virnet::VirNetMessageError;
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
    #[error("the stream is over: it was finished or aborted, or the daemon has ended it")]
    StreamOver,
    /// The URI is wrong.
    #[error(transparent)]
    Uri(#[from] crate::uri::Error),
    /// Nobody could be reached.
    #[error(transparent)]
    Transport(Arc<crate::transport::Error>),
    /// The daemon did not accept us.
    #[error(transparent)]
    Auth(Arc<crate::auth::Error>),
    /// A connection was not open in time.
    #[error(
        "{uri} could not be opened within {limit:?}; does a person have to approve it, or does the daemon hang?"
    )]
    OpeningTooSlow {
        /// The URI.
        uri: String,
        /// The time that was given.
        limit: Duration,
    },
    /// The daemon sent an event that was not asked for.
    #[error("the daemon sent an event as procedure {procedure}, which nobody asked for")]
    UnknownEvent {
        /// The procedure's number.
        procedure: i32,
    },
    /// The daemon does not tell of a kind of events.
    #[error(
        "the daemon does not tell of {kind}: it may be too old, or its hypervisor has none; leave the kind out, or ask \
         first which are supported"
    )]
    UnsupportedEvent {
        /// The family and the kind.
        kind: &'static str,
        /// What the daemon said.
        #[source]
        refusal: Box<RemoteError>,
    },
    /// An answer lacks what every daemon tells.
    #[error(
        "the daemon's answer lacks `{name}`; its version may be too old or too new for this client"
    )]
    MissingParameter {
        /// The parameter's name.
        name: &'static str,
    },
    /// A log output or filter that libvirt would not understand.
    #[error("`{text}` is no log output or filter: {why}")]
    LogSetting {
        /// It.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
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

/// `VIR_ERR_RPC`, with which a daemon also says that it does not know a procedure.
const RPC: i32 = 39;
/// `VIR_FROM_RPC` and `VIR_FROM_REMOTE`, which say so.
const RPC_DOMAINS: [i32; 2] = [7, 13];

impl RemoteError {
    /// What went wrong, if this crate knows libvirt's number for it.
    pub fn kind(&self) -> Option<ErrorNumber> {
        ErrorNumber::from_raw(self.code)
    }

    /// Whether it is this.
    pub fn is(&self, kind: ErrorNumber) -> bool {
        self.kind() == Some(kind)
    }

    /// The error in the payload of a packet.
    pub(crate) fn decode(payload: &[u8]) -> Error {
        match libvirt_xdr::from_bytes::<VirNetMessageError>(payload) {
            Ok(error) => Error::Libvirt(Box::new(error.into())),
            Err(error) => Error::Decode(error),
        }
    }
}

impl From<VirNetMessageError> for RemoteError {
    fn from(raw: VirNetMessageError) -> Self {
        let message = raw.message.unwrap_or_default();
        // An old daemon has no number of its own for a procedure that it does not know; libvirt's client does the same.
        let unknown = raw.code == RPC
            && RPC_DOMAINS.contains(&raw.domain)
            && message.starts_with("unknown procedure");
        Self {
            code: if unknown {
                ErrorNumber::NoSupport.as_raw()
            } else {
                raw.code
            },
            domain: raw.domain,
            level: raw.level,
            message,
            details: [raw.str1, raw.str2, raw.str3],
            numbers: [raw.int1, raw.int2],
        }
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = if self.message.is_empty() {
            "the daemon gave no reason"
        } else {
            &self.message
        };
        match self.kind() {
            Some(kind) => write!(f, "{message} (libvirt: {kind:?})"),
            None => write!(f, "{message} (libvirt: error {})", self.code),
        }
    }
}

impl std::error::Error for RemoteError {}

// === impl Error ===

impl Error {
    /// Whether the daemon reported this.
    pub fn is(&self, kind: ErrorNumber) -> bool {
        self.remote().is_some_and(|error| error.is(kind))
    }

    /// The daemon's error, if it is one.
    pub fn remote(&self) -> Option<&RemoteError> {
        match self {
            Self::Libvirt(error) | Self::UnsupportedEvent { refusal: error, .. } => Some(error),
            _ => None,
        }
    }
}

impl From<crate::transport::Error> for Error {
    fn from(error: crate::transport::Error) -> Self {
        Self::Transport(Arc::new(error))
    }
}

impl From<crate::auth::Error> for Error {
    fn from(error: crate::auth::Error) -> Self {
        Self::Auth(Arc::new(error))
    }
}

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
