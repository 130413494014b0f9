//! What a caller is told of a hypervisor's refusal, and of one that can't be asked.

use libvirt::{Error, raw::api::ErrorNumber};
use tonic::Status;

use crate::{
    error::{Reason, harmless as shown},
    hypervisor::Hypervisor,
};

/// The hypervisor can't be asked.
pub(super) fn unreachable(hypervisor: &Hypervisor, why: &str) -> Status {
    let uri = hypervisor.uri();
    let message = format!(
        "the hypervisor {} can't be asked: {}",
        shown(uri),
        shown(why)
    );
    Reason::HypervisorUnreachable.about([("hypervisor", uri)], message)
}

/// libvirt's error about a domain, or of the connection; the domain may be empty.
pub(super) fn refusal(hypervisor: &Hypervisor, domain: &str, error: &Error) -> Status {
    match reason(error) {
        Reason::HypervisorUnreachable => unreachable(hypervisor, &error.to_string()),
        reason => because(reason, hypervisor, domain, error),
    }
}

/// libvirt's error about a domain that runs where it should not, or the other way round.
pub(super) fn wrong_state(hypervisor: &Hypervisor, domain: &str, error: &Error) -> Status {
    because(Reason::DomainState, hypervisor, domain, error)
}

fn because(reason: Reason, hypervisor: &Hypervisor, domain: &str, error: &Error) -> Status {
    let uri = hypervisor.uri();
    // libvirt's sentence without its number, which the reason stands for.
    let said = match error.remote() {
        Some(error) if !error.message.is_empty() => shown(&error.message),
        _ => shown(&error.to_string()),
    };
    let whose = match domain {
        "" => format!("the hypervisor {}", shown(uri)),
        domain => format!("domain \"{}\" at {}", shown(domain), shown(uri)),
    };
    let message = match reason {
        Reason::DomainNotFound => format!("{whose} is not there any more: {said}"),
        Reason::DomainState => format!("{whose} is not in a state for that: {said}"),
        Reason::HypervisorDenied => {
            format!("{whose}: libvirt does not allow that to the bridge's user: {said}")
        }
        Reason::HypervisorTimeout => format!("{whose}: {said}; it may still be done"),
        _ => format!("{whose}: libvirt refuses: {said}"),
    };
    reason.about([("hypervisor", uri), ("domain", domain)], message)
}

fn reason(error: &Error) -> Reason {
    match error {
        Error::Connection(_) | Error::Transport(_) | Error::OpeningTooSlow { .. } => {
            return Reason::HypervisorUnreachable;
        }
        Error::Auth(_) => return Reason::HypervisorDenied,
        Error::Deadline { .. } => return Reason::HypervisorTimeout,
        _ => {}
    }
    match error.kind() {
        Some(ErrorNumber::NoDomain) => Reason::DomainNotFound,
        Some(ErrorNumber::OperationInvalid) => Reason::DomainState,
        Some(
            ErrorNumber::OperationDenied
            | ErrorNumber::AccessDenied
            | ErrorNumber::AuthFailed
            | ErrorNumber::AuthCancelled
            | ErrorNumber::AuthUnavailable,
        ) => Reason::HypervisorDenied,
        Some(ErrorNumber::OperationTimeout | ErrorNumber::AgentCommandTimeout) => {
            Reason::HypervisorTimeout
        }
        _ => Reason::HypervisorRefused,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::Code;
    use tonic_types::StatusExt as _;

    use super::*;
    use crate::hypervisor::Hypervisors;

    #[test]
    fn a_refusal_has_the_reason_and_the_hypervisor_and_the_domain_in_its_details() {
        let hypervisor = Hypervisors::new().add("qemu:///system");
        let late = Error::Deadline {
            procedure: "DOMAIN_CREATE",
            deadline: Duration::from_secs(1),
        };
        let status = refusal(&hypervisor, "web", &late);
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert!(status.message().contains("may still be done"), "{status:?}");
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.reason, "HYPERVISOR_TIMEOUT");
        assert_eq!(info.metadata["domain"], "web");
        assert_eq!(info.metadata["hypervisor"], "qemu:///system");
        let gone = Error::OpeningTooSlow {
            uri: "qemu:///system".to_owned(),
            limit: Duration::from_secs(1),
        };
        let status = refusal(&hypervisor, "web", &gone);
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.get_details_retry_info().is_some());
    }
}
