//! What a failure says: of which kind it is, and whether anything was done.

use std::{error::Error, io};

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::error::DOMAIN;

/// Reasons of the bridge that it gives before a call is sent on: nothing of it has been done.
const UNDONE: [&str; 9] = [
    "GUEST_OFF",
    "GUEST_UNREACHABLE",
    "GUEST_NOT_ANSWERING",
    "CHANNEL_BUSY",
    "GUEST_REJECTED",
    "TOO_MANY_CALLS",
    "CALLER_TOO_FAST",
    "CALLER_TOO_BUSY",
    "AUDIT_STOPPED",
];

/// Those of them that `x-vbridge-wait` has the bridge wait out.
const WAITED_FOR: [&str; 5] = [
    "GUEST_OFF",
    "GUEST_UNREACHABLE",
    "GUEST_NOT_ANSWERING",
    "CHANNEL_BUSY",
    "GUEST_REJECTED",
];

/// What has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failed {
    /// There was no connection, or it was lost.
    Network,
    /// It took too long.
    Timeout,
    /// The request is wrong.
    Parameters,
    /// It is not allowed.
    Permission,
    /// Something that should not fail.
    Internal,
    /// What was asked for is not there, or has failed itself.
    Other,
}

// === impl Failed ===

impl Failed {
    /// What a code of the JSON API says. Of 1002 it is not asked again: the command's time was over, not the request's.
    pub fn of_code(code: u16) -> Self {
        match code {
            2000..=2999 => Self::Parameters,
            4000..=4999 => Self::Permission,
            5002 | 6001 => Self::Network,
            6002 => Self::Timeout,
            5000..=5999 => Self::Internal,
            _ => Self::Other,
        }
    }

    /// What a gRPC status says: the other end's, or one that was made here because the connection is lost or the time over.
    pub fn of_status(status: &Status) -> Self {
        if causes(status).any(<dyn Error>::is::<tonic::TimeoutExpired>) {
            return Self::Timeout;
        }
        if causes(status).any(is_lost) {
            return Self::Network;
        }
        match status.code() {
            Code::InvalidArgument | Code::OutOfRange => Self::Parameters,
            Code::PermissionDenied | Code::Unauthenticated => Self::Permission,
            Code::DeadlineExceeded => Self::Timeout,
            Code::Unavailable if is_silent(status) => Self::Timeout,
            Code::Unavailable | Code::ResourceExhausted => Self::Network,
            Code::Internal | Code::Unknown | Code::DataLoss => Self::Internal,
            _ => Self::Other,
        }
    }
}

/// Whether it is the end of a connection, or says that there was none.
fn is_lost(cause: &(dyn Error + 'static)) -> bool {
    let of_h2 = |error: &h2::Error| error.is_io() || error.is_go_away() && error.is_remote();
    let of_hyper = |error: &hyper::Error| error.is_canceled() || error.is_closed();
    cause.is::<tonic::ConnectError>()
        || cause.is::<io::Error>()
        || cause.downcast_ref::<h2::Error>().is_some_and(of_h2)
        || cause.downcast_ref::<hyper::Error>().is_some_and(of_hyper)
}

/// Whether the guest has only not answered, as the JSON API has it.
fn is_silent(status: &Status) -> bool {
    let details = status.get_error_details();
    let info = details.error_info();
    info.is_some_and(|info| info.reason == "GUEST_SILENT")
}

/// Whether a call has surely not been carried out, in part or as a whole: it never got to the bridge, or the bridge says that it
/// could not pass it on. Then any call may be sent again.
pub fn is_undone(status: &Status) -> bool {
    let never_sent = causes(status).any(<dyn Error>::is::<tonic::ConnectError>);
    never_sent || is_of_bridge(status, &UNDONE)
}

/// Whether the guest could not be reached, which a caller may have asked the bridge to wait for (`x-vbridge-wait`).
pub fn is_absent(status: &Status) -> bool {
    is_of_bridge(status, &WAITED_FOR)
}

fn is_of_bridge(status: &Status, reasons: &[&str]) -> bool {
    let details = status.get_error_details();
    let info = details.error_info();
    info.is_some_and(|info| info.domain == DOMAIN && reasons.contains(&info.reason.as_str()))
}

/// What has made a status at this end. A status that has come has no cause.
fn causes(status: &Status) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(status.source(), |cause: &&(dyn Error + 'static)| {
        (*cause).source()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Reason;

    #[test]
    fn a_code_and_a_status_say_what_has_failed() {
        for (code, failed) in [
            (1001, Failed::Other),
            (1002, Failed::Other),
            (2003, Failed::Parameters),
            (3002, Failed::Other),
            (4001, Failed::Permission),
            (5001, Failed::Internal),
            (5002, Failed::Network),
            (6001, Failed::Network),
            (6002, Failed::Timeout),
        ] {
            assert_eq!(Failed::of_code(code), failed, "{code}");
        }
        for (status, failed) in [
            (Status::unavailable("gone"), Failed::Network),
            (Status::deadline_exceeded("late"), Failed::Timeout),
            (Status::invalid_argument("wrong"), Failed::Parameters),
            (Status::permission_denied("no"), Failed::Permission),
            (Status::internal("oh"), Failed::Internal),
            (Status::not_found("nothing"), Failed::Other),
        ] {
            assert_eq!(Failed::of_status(&status), failed);
        }
        let silent = Reason::GuestSilent.status("web", "no answer");
        assert_eq!(Failed::of_status(&silent), Failed::Timeout);
    }

    #[test]
    fn only_what_the_bridge_did_not_pass_on_is_surely_not_done() {
        for (reason, undone, absent) in [
            (Reason::GuestOff, true, true),
            (Reason::GuestUnreachable, true, true),
            (Reason::GuestNotAnswering, true, true),
            (Reason::ChannelBusy, true, true),
            (Reason::GuestRejected, true, true),
            (Reason::TooManyCalls, true, false),
            (Reason::CallerTooFast, true, false),
            (Reason::CallerTooBusy, true, false),
            (Reason::AuditStopped, true, false),
            (Reason::SessionEnded, false, false),
            (Reason::GuestSilent, false, false),
            (Reason::GuestPaused, false, false),
            (Reason::DeadlineExceeded, false, false),
            (Reason::HypervisorUnreachable, false, false),
            (Reason::HypervisorTimeout, false, false),
        ] {
            let status = reason.status("web", "why");
            let is = (is_undone(&status), is_absent(&status));
            assert_eq!(is, (undone, absent), "{reason:?}");
        }
        assert!(!is_undone(&Status::unavailable("gone")));
    }

    #[tokio::test]
    async fn a_connection_that_can_not_be_made_is_the_network_and_its_call_is_not_done() {
        // A port that nobody listens on: taken and given back.
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", taken.local_addr().unwrap());
        drop(taken);
        let endpoint = tonic::transport::Endpoint::from_shared(address).unwrap();
        let mut health =
            tonic_health::pb::health_client::HealthClient::new(endpoint.connect_lazy());
        let request = tonic_health::pb::HealthCheckRequest::default();
        let status = health.check(request).await.unwrap_err();
        assert_eq!(Failed::of_status(&status), Failed::Network, "{status:?}");
        assert!(is_undone(&status), "{status:?}");
    }
}
