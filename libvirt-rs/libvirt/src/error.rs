//! What can go wrong, as a user of the library sees it.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::code::Code;
use crate::raw::api::{ErrorDomain, ErrorLevel, ErrorNumber};
use crate::raw::virnet::{
    VirNetMessageError, VirNetMessageNonnullDomain, VirNetMessageNonnullNetwork,
};
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
    /// A reply that brings descriptors brought none.
    #[error("the daemon answered {procedure} without the file descriptor that was asked for")]
    NoDescriptor {
        /// The procedure's name.
        procedure: &'static str,
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
    /// What went wrong.
    pub code: Code<ErrorNumber>,
    /// The part of libvirt that reports it.
    pub domain: Code<ErrorDomain>,
    /// How bad it is.
    pub level: Code<ErrorLevel>,
    /// The daemon's sentence.
    pub message: String,
    /// The domain that it is about, if the daemon says so; most leave it to the sentence.
    pub about_domain: Option<ErrorSubject>,
    /// The network that it is about, if the daemon says so.
    pub about_network: Option<ErrorSubject>,
    /// Further texts, as the daemon's part likes.
    pub details: [Option<String>; 3],
    /// Further numbers, as the daemon's part likes.
    pub numbers: [i32; 2],
}

/// A domain or network that an error is about.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ErrorSubject {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: Uuid,
    /// Its number, if it is a domain that runs.
    pub id: Option<i32>,
}

// === impl RemoteError ===

/// The parts of a daemon that say that they do not know a procedure.
const RPC_DOMAINS: [ErrorDomain; 2] = [ErrorDomain::Rpc, ErrorDomain::Remote];

impl RemoteError {
    /// What went wrong, to be matched; `None` if libvirt's number for it is newer than this crate.
    pub fn kind(&self) -> Option<ErrorNumber> {
        self.code.known()
    }

    /// Whether it is this.
    pub fn is(&self, kind: ErrorNumber) -> bool {
        self.code == kind
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
        let (code, domain) = (Code::new(raw.code), Code::new(raw.domain));
        let unknown = code == ErrorNumber::Rpc
            && RPC_DOMAINS.iter().any(|of| domain == *of)
            && message.starts_with("unknown procedure");
        Self {
            code: if unknown {
                ErrorNumber::NoSupport.into()
            } else {
                code
            },
            domain,
            level: Code::new(raw.level),
            message,
            about_domain: raw.dom.map(ErrorSubject::from),
            about_network: raw.net.map(ErrorSubject::from),
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
            None => write!(f, "{message} (libvirt: error {})", self.code.raw()),
        }
    }
}

impl std::error::Error for RemoteError {}

// === impl ErrorSubject ===

impl From<VirNetMessageNonnullDomain> for ErrorSubject {
    fn from(raw: VirNetMessageNonnullDomain) -> Self {
        Self {
            name: raw.name,
            uuid: Uuid::from_bytes(raw.uuid),
            id: Some(raw.id).filter(|id| *id >= 0),
        }
    }
}

impl From<VirNetMessageNonnullNetwork> for ErrorSubject {
    fn from(raw: VirNetMessageNonnullNetwork) -> Self {
        Self {
            name: raw.name,
            uuid: Uuid::from_bytes(raw.uuid),
            id: None,
        }
    }
}

// === impl Error ===

impl Error {
    /// Whether the daemon reported this.
    pub fn is(&self, kind: ErrorNumber) -> bool {
        self.remote().is_some_and(|error| error.is(kind))
    }

    /// What the daemon reported, to be matched; `None` if it is none of its errors, or newer than this crate.
    pub fn kind(&self) -> Option<ErrorNumber> {
        self.remote()?.kind()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(code: i32, domain: i32, message: &str) -> VirNetMessageError {
        VirNetMessageError {
            code,
            domain,
            level: 2,
            message: Some(message.to_owned()),
            ..VirNetMessageError::default()
        }
    }

    #[test]
    fn what_the_daemon_reports_can_be_matched_and_keeps_numbers_that_are_not_known() {
        let error = RemoteError::from(raw(42, 10, "no domain"));
        assert_eq!(error.code, ErrorNumber::NoDomain);
        assert_eq!(error.domain, ErrorDomain::Qemu);
        assert_eq!(error.level, ErrorLevel::Error);
        assert_eq!(error.to_string(), "no domain (libvirt: NoDomain)");
        let error = Error::Libvirt(Box::new(error));
        match error.kind() {
            Some(ErrorNumber::NoDomain) => {}
            other => panic!("{other:?}"),
        }
        let newer = RemoteError::from(raw(9999, -1, "?"));
        assert_eq!((newer.kind(), newer.domain.known()), (None, None));
        assert_eq!((newer.code.raw(), newer.domain.raw()), (9999, -1));
        assert_eq!(newer.to_string(), "? (libvirt: error 9999)");
        assert_eq!(Error::StreamOver.kind(), None);
    }

    #[test]
    fn what_an_error_is_about_is_kept() {
        let raw = VirNetMessageError {
            dom: Some(VirNetMessageNonnullDomain {
                name: "web".to_owned(),
                uuid: [7; 16],
                id: -1,
            }),
            net: Some(VirNetMessageNonnullNetwork {
                name: "blue".to_owned(),
                uuid: [8; 16],
            }),
            str2: Some("more".to_owned()),
            int1: 3,
            ..raw(1, 0, "it failed")
        };
        let error = RemoteError::from(raw);
        let domain = error.about_domain.unwrap();
        assert_eq!((domain.name.as_str(), domain.id), ("web", None));
        assert_eq!(domain.uuid, Uuid::from_bytes([7; 16]));
        let network = error.about_network.unwrap();
        assert_eq!((network.name.as_str(), network.id), ("blue", None));
        assert_eq!(error.details, [None, Some("more".to_owned()), None]);
        assert_eq!(error.numbers, [3, 0]);
    }

    #[test]
    fn a_procedure_that_a_daemon_does_not_know_is_not_supported() {
        for (code, domain, message, supported) in [
            (39, 7, "unknown procedure: 500", false),
            (39, 13, "unknown procedure: 500", false),
            (39, 10, "unknown procedure: 500", true),
            (38, 7, "unknown procedure: 500", true),
            (39, 7, "another", true),
        ] {
            let error = RemoteError::from(raw(code, domain, message));
            assert_eq!(!error.is(ErrorNumber::NoSupport), supported, "{error}");
        }
    }
}
