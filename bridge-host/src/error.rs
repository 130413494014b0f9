//! How the bridge's errors look to callers and operators.
//!
//! A call that the bridge answers itself gets a `google.rpc.Status` with an `ErrorInfo` of domain `vbridge`:
//!
//! | reason | code | meaning | RetryInfo |
//! |---|---|---|---|
//! | `GUEST_NOT_FOUND` | NOT_FOUND | no guest has that name | |
//! | `GUEST_NOT_NAMED` | INVALID_ARGUMENT | several guests, and the call names none | |
//! | `GUEST_OFF` | UNAVAILABLE | the virtual machine does not run | yes |
//! | `GUEST_UNREACHABLE` | UNAVAILABLE | the channel's socket can't be connected | yes |
//! | `GUEST_NOT_ANSWERING` | UNAVAILABLE | nobody answers the greeting | yes |
//! | `CHANNEL_BUSY` | UNAVAILABLE | another client holds the channel | yes |
//! | `GUEST_REJECTED` | UNAVAILABLE | the agent refuses the session | yes |
//! | `GUEST_PAUSED` | UNAVAILABLE | the virtual machine is paused | yes |
//! | `GUEST_SILENT` | UNAVAILABLE | the guest does not answer any more | yes |
//! | `SESSION_ENDED` | UNAVAILABLE | the session ended under the call | yes |
//! | `TOO_MANY_CALLS` | RESOURCE_EXHAUSTED | the guest has too many calls under way | yes |
//! | `DEADLINE_EXCEEDED` | DEADLINE_EXCEEDED | the guest let the deadline pass | |
//! | `INVALID_WAIT` | INVALID_ARGUMENT | `x-vbridge-wait` makes no sense | |
//! | `CALLER_UNKNOWN` | UNAUTHENTICATED | the caller does not prove who it is, or what it proves has expired | |
//! | `CALLER_REFUSED` | PERMISSION_DENIED | no rule allows the call, or one refuses it | |
//! | `CALLER_TOO_FAST` | RESOURCE_EXHAUSTED | the caller has made too many calls lately | yes |
//! | `CALLER_TOO_BUSY` | RESOURCE_EXHAUSTED | the caller has too many calls under way | yes |
//! | `AUDIT_STOPPED` | UNAVAILABLE | the audit log can't be written | yes |
//! | `DOMAIN_NOT_FOUND` | NOT_FOUND | no hypervisor has such a domain | |
//! | `DOMAIN_AMBIGUOUS` | INVALID_ARGUMENT | several domains are called that | |
//! | `DOMAIN_STATE` | FAILED_PRECONDITION | the domain is not in a state for that | |
//! | `TOO_MANY_DOMAINS` | RESOURCE_EXHAUSTED | more domains than one list has | |
//! | `HYPERVISOR_NOT_FOUND` | NOT_FOUND | the bridge follows no such hypervisor | |
//! | `HYPERVISOR_UNREACHABLE` | UNAVAILABLE | the hypervisor can't be asked | yes |
//! | `HYPERVISOR_DENIED` | PERMISSION_DENIED | the hypervisor does not allow it to the bridge | |
//! | `HYPERVISOR_TIMEOUT` | DEADLINE_EXCEEDED | no answer in time; it may still be done | |
//! | `HYPERVISOR_REFUSED` | FAILED_PRECONDITION | the hypervisor says no, in its own words | |
//! | `AGENT_CANNOT` | UNIMPLEMENTED | the guest has only the QEMU guest agent, which can't do it, or may not | |
//! | `AGENT_REFUSED` | FAILED_PRECONDITION | that agent says no, in its own words | |
//! | `AGENT_GARBLED` | INTERNAL | its answer makes no sense | |
//! | `AGENT_TOO_MUCH` | RESOURCE_EXHAUSTED | a command or its answer is larger than its channel takes | |
//!
//! What else is said of calls to such a guest has the reasons of the guest's own API; see `qemu::refusal`.

use std::{collections::HashMap, io, path::PathBuf, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{
    access::{AccessError, TlsError},
    address::ListenAddress,
    limits::{MAX_FOREIGN_TEXT, MAX_GUESTS},
};

/// The domain of every `ErrorInfo`.
pub const DOMAIN: &str = "vbridge";

/// Why the bridge answers a call itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    GuestNotFound,
    GuestNotNamed,
    GuestOff,
    GuestUnreachable,
    GuestNotAnswering,
    ChannelBusy,
    GuestRejected,
    GuestPaused,
    GuestSilent,
    SessionEnded,
    TooManyCalls,
    DeadlineExceeded,
    InvalidWait,
    CallerUnknown,
    CallerRefused,
    CallerTooFast,
    CallerTooBusy,
    AuditStopped,
    DomainNotFound,
    DomainAmbiguous,
    DomainState,
    TooManyDomains,
    HypervisorNotFound,
    HypervisorUnreachable,
    HypervisorDenied,
    HypervisorTimeout,
    HypervisorRefused,
    AgentCannot,
    AgentRefused,
    AgentGarbled,
    AgentTooMuch,
}

impl Reason {
    fn name(self) -> &'static str {
        match self {
            Self::GuestNotFound => "GUEST_NOT_FOUND",
            Self::GuestNotNamed => "GUEST_NOT_NAMED",
            Self::GuestOff => "GUEST_OFF",
            Self::GuestUnreachable => "GUEST_UNREACHABLE",
            Self::GuestNotAnswering => "GUEST_NOT_ANSWERING",
            Self::ChannelBusy => "CHANNEL_BUSY",
            Self::GuestRejected => "GUEST_REJECTED",
            Self::GuestPaused => "GUEST_PAUSED",
            Self::GuestSilent => "GUEST_SILENT",
            Self::SessionEnded => "SESSION_ENDED",
            Self::TooManyCalls => "TOO_MANY_CALLS",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::InvalidWait => "INVALID_WAIT",
            Self::CallerUnknown => "CALLER_UNKNOWN",
            Self::CallerRefused => "CALLER_REFUSED",
            Self::CallerTooFast => "CALLER_TOO_FAST",
            Self::CallerTooBusy => "CALLER_TOO_BUSY",
            Self::AuditStopped => "AUDIT_STOPPED",
            Self::DomainNotFound => "DOMAIN_NOT_FOUND",
            Self::DomainAmbiguous => "DOMAIN_AMBIGUOUS",
            Self::DomainState => "DOMAIN_STATE",
            Self::TooManyDomains => "TOO_MANY_DOMAINS",
            Self::HypervisorNotFound => "HYPERVISOR_NOT_FOUND",
            Self::HypervisorUnreachable => "HYPERVISOR_UNREACHABLE",
            Self::HypervisorDenied => "HYPERVISOR_DENIED",
            Self::HypervisorTimeout => "HYPERVISOR_TIMEOUT",
            Self::HypervisorRefused => "HYPERVISOR_REFUSED",
            Self::AgentCannot => "AGENT_CANNOT",
            Self::AgentRefused => "AGENT_REFUSED",
            Self::AgentGarbled => "AGENT_GARBLED",
            Self::AgentTooMuch => "AGENT_TOO_MUCH",
        }
    }

    fn code(self) -> Code {
        match self {
            Self::GuestNotFound | Self::DomainNotFound | Self::HypervisorNotFound => Code::NotFound,
            Self::GuestNotNamed | Self::InvalidWait | Self::DomainAmbiguous => {
                Code::InvalidArgument
            }
            Self::TooManyCalls
            | Self::CallerTooFast
            | Self::CallerTooBusy
            | Self::TooManyDomains
            | Self::AgentTooMuch => Code::ResourceExhausted,
            Self::DeadlineExceeded | Self::HypervisorTimeout => Code::DeadlineExceeded,
            Self::DomainState | Self::HypervisorRefused | Self::AgentRefused => {
                Code::FailedPrecondition
            }
            Self::AgentCannot => Code::Unimplemented,
            Self::AgentGarbled => Code::Internal,
            Self::CallerUnknown => Code::Unauthenticated,
            Self::CallerRefused | Self::HypervisorDenied => Code::PermissionDenied,
            Self::GuestOff
            | Self::GuestUnreachable
            | Self::GuestNotAnswering
            | Self::ChannelBusy
            | Self::GuestRejected
            | Self::GuestPaused
            | Self::GuestSilent
            | Self::SessionEnded
            | Self::AuditStopped
            | Self::HypervisorUnreachable => Code::Unavailable,
        }
    }

    /// When another try may bring something else.
    fn retry(self) -> Option<Duration> {
        match self {
            Self::SessionEnded => Some(Duration::from_millis(100)),
            Self::GuestSilent
            | Self::GuestNotAnswering
            | Self::GuestUnreachable
            | Self::TooManyCalls
            | Self::CallerTooFast
            | Self::CallerTooBusy => Some(Duration::from_secs(1)),
            Self::ChannelBusy
            | Self::GuestRejected
            | Self::GuestPaused
            | Self::GuestOff
            | Self::AuditStopped
            | Self::HypervisorUnreachable => Some(Duration::from_secs(5)),
            Self::GuestNotFound
            | Self::GuestNotNamed
            | Self::DeadlineExceeded
            | Self::InvalidWait
            | Self::CallerUnknown
            | Self::CallerRefused
            | Self::DomainNotFound
            | Self::DomainAmbiguous
            | Self::DomainState
            | Self::TooManyDomains
            | Self::HypervisorNotFound
            | Self::HypervisorDenied
            | Self::HypervisorTimeout
            | Self::HypervisorRefused
            | Self::AgentCannot
            | Self::AgentRefused
            | Self::AgentGarbled
            | Self::AgentTooMuch => None,
        }
    }

    /// The status for a call to `guest` (empty if none is meant).
    pub(crate) fn status(self, guest: &str, message: impl Into<String>) -> Status {
        self.about([("guest", guest)], message)
    }

    /// The status for a call about something else: what it is, and which one (empty if none is meant).
    pub(crate) fn about<const N: usize>(
        self,
        what: [(&str, &str); N],
        message: impl Into<String>,
    ) -> Status {
        self.made(what, message, self.retry())
    }

    /// The status for a call of which it is known when another try may bring something else.
    pub(crate) fn status_after(self, message: impl Into<String>, retry: Duration) -> Status {
        self.made([], message, Some(retry))
    }

    fn made<const N: usize>(
        self,
        what: [(&str, &str); N],
        message: impl Into<String>,
        retry: Option<Duration>,
    ) -> Status {
        let mut details = ErrorDetails::new();
        let named = what.iter().filter(|(_, which)| !which.is_empty());
        let metadata: HashMap<String, String> = named
            .map(|(what, which)| ((*what).to_owned(), (*which).to_owned()))
            .collect();
        details.set_error_info(self.name(), DOMAIN, metadata);
        if let Some(retry) = retry {
            details.set_retry_info(Some(retry));
        }
        Status::with_error_details(self.code(), message, details)
    }
}

/// A text from elsewhere, made harmless and not too long. Quotation marks stay as they are.
pub(crate) fn harmless(text: &str) -> String {
    let mut harmless = String::new();
    for (i, c) in text.chars().enumerate() {
        match c {
            _ if i == MAX_FOREIGN_TEXT => {
                harmless.push('…');
                break;
            }
            '"' | '\'' => harmless.push(c),
            c => harmless.extend(c.escape_debug()),
        }
    }
    harmless
}

/// Why a bridge can't be built or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BridgeError {
    /// Two guests have one name.
    #[error("two guests are named \"{0}\"; give each guest a name of its own")]
    DuplicateGuest(String),
    /// Two guests have one channel.
    #[error("two guests have the channel {path}, which takes one client at a time; give each its own", path = .0.display())]
    DuplicateChannel(PathBuf),
    /// More guests than a bridge takes.
    #[error(
        "there are more than {MAX_GUESTS} guests, which is the limit of one bridge; run several bridges"
    )]
    TooManyGuests,
    /// A guest's name can't be used.
    #[error("\"{0}\" can't be a guest's name: {1}")]
    BadName(String, &'static str),
    /// A guest's channel is something else than a socket.
    #[error("the channel {path} of guest \"{guest}\" is {what}, not a Unix socket; give the path of the channel's socket", path = .path.display())]
    NotASocket {
        /// The guest.
        guest: String,
        /// The path.
        path: PathBuf,
        /// What is there.
        what: &'static str,
    },
    /// Nothing to listen on.
    #[error("the bridge has no address to listen on; give it one with --listen")]
    NoAddress,
    /// An address can't be listened on.
    #[error("can't listen on {address}: {source_text}", source_text = listen_text(.source))]
    Listen {
        /// The address.
        address: ListenAddress,
        /// Why.
        source: io::Error,
    },
    /// An address that other machines reach, where nobody is asked who they are.
    #[error(
        "{0} can be reached from other machines, and nobody there would be asked who they are: add callers and rules to the configuration, or listen on 127.0.0.1"
    )]
    Exposed(ListenAddress),
    /// An address that other machines reach, where everything is sent as it is.
    #[error(
        "{0} can be reached from other machines, and tokens and calls would go there unencrypted: add [tls] to the configuration, or listen on 127.0.0.1"
    )]
    Plain(ListenAddress),
    /// Callers and rules can't be used.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Certificates can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The audit log can't be opened.
    #[error("can't write the audit log {path}: {source}; give a path in a folder where the bridge's user may write", path = .path.display())]
    Audit {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A socket that was handed over can't be used.
    #[error("a socket that was handed over can't be used: {0}; it must be one that listens")]
    Socket(io::Error),
    /// Something can't be changed while the bridge serves.
    #[error("{0} can't come or go while the bridge runs; restart it")]
    NeedsRestart(&'static str),
    /// A service of the bridge's own can't be set up.
    #[error("the bridge's own services can't be set up: {0}")]
    Services(String),
}

/// An `io::Error` of listening in words that say what to do.
fn listen_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "somebody listens there already; choose another address or end that program".into()
        }
        io::ErrorKind::PermissionDenied => {
            "permission denied; choose another address, or run the bridge as a user who may".into()
        }
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address".into(),
        io::ErrorKind::NotFound => "the directory does not exist; create it first".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_from_elsewhere_is_harmless_and_not_too_long() {
        let text = "no 'x' \"y\"\n\u{1b}[2J";
        assert_eq!(harmless(text), "no 'x' \"y\"\\n\\u{1b}[2J");
        let long = harmless(&"ü".repeat(5_000));
        assert_eq!(long.chars().count(), MAX_FOREIGN_TEXT + 1);
    }
}
