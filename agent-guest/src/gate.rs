//! What stands between a request and its service: whether the method may be called at all, and now.
//!
//! | asked | who knows | of which services |
//! |---|---|---|
//! | may it be called | [`Policy`] | all |
//! | would it block on a frozen file system | [`Standstill`] | the agent's own |
//! | are there too many such calls | [`Policy`] | all |
//!
//! What an embedding program's services touch the agent can't know; they ask the standstill themselves.

use std::time::{Duration, Instant};

use tonic::Status;

use crate::{
    error::{self, Reason},
    policy::{Places, Policy},
    standstill::{Frozen, Standstill},
};

/// Calls that write to no file system, and so answer while some are frozen, as `storage.proto` promises.
const ANSWER_WHILE_FROZEN: [&str; 7] = [
    "/vbridge.guest.v1.System/Ping",
    "/vbridge.guest.v1.System/GetStatus",
    "/vbridge.guest.v1.Storage/",
    "/vbridge.guest.v1.Metrics/",
    "/vbridge.guest.v1.Events/",
    "/grpc.health.v1.Health/",
    "/grpc.reflection.",
];

/// What a caller is told at least to wait, where the time is over and thawing under way.
const SHORTEST_RETRY: Duration = Duration::from_millis(1);

/// Asks all who have a say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate {
    policy: Policy,
    standstill: Standstill,
}

impl Gate {
    pub(crate) fn new(policy: Policy, standstill: Standstill) -> Self {
        Self { policy, standstill }
    }

    /// Lets a call of `/package.Service/Method` in, with its places in the limits, or says why not. `is_own`: the service is
    /// the agent's own.
    pub(crate) fn admit(&self, path: &str, is_own: bool) -> Result<Option<Places>, Status> {
        self.policy.admit(path)?;
        match self.standstill.now() {
            Some(frozen)
                if is_own && !ANSWER_WHILE_FROZEN.iter().any(|own| path.starts_with(own)) =>
            {
                Err(refusal(&frozen))
            }
            // Last: who is refused has taken no token.
            _ => self.policy.enter(path),
        }
    }
}

/// How a call is refused that would have to wait for the end of a standstill.
pub(crate) fn refusal(frozen: &Frozen) -> Status {
    let remaining = frozen.until.saturating_duration_since(Instant::now());
    error::failure_for(
        Reason::FilesystemFrozen,
        "file systems of the guest are frozen: thaw them, or call again afterwards",
        remaining.max(SHORTEST_RETRY),
    )
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic_types::StatusExt as _;

    use super::*;

    #[test]
    fn what_would_block_is_refused_for_the_time_that_is_left() {
        let standstill = Standstill::default();
        let gate = Gate::new(Policy::default(), standstill.clone());
        let paths = [
            "/vbridge.guest.v1.System/Ping",
            "/vbridge.guest.v1.System/SetHostname",
            "/vbridge.guest.v1.System/GetInfo",
            "/vbridge.guest.v1.Storage/Thaw",
            "/vbridge.guest.v1.Metrics/Watch",
            "/vbridge.guest.v1.Time/Set",
            "/grpc.health.v1.Health/Check",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        ];
        let admitted = || paths.map(|path| gate.admit(path, true).is_ok());
        assert_eq!(admitted(), [true; 8]);
        standstill.set(Some(Frozen {
            mount_points: vec!["/".to_owned()],
            until: Instant::now() + Duration::from_secs(60),
        }));
        assert_eq!(
            admitted(),
            [true, false, false, true, true, false, true, true]
        );
        assert!(
            gate.admit(paths[1], false).is_ok(),
            "of others nothing is known"
        );
        let status = gate.admit(paths[1], true).unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "FILESYSTEM_FROZEN");
        let retry = details.retry_info().unwrap().retry_delay.unwrap();
        assert!(retry > Duration::from_secs(50) && retry <= Duration::from_secs(60));
        standstill.set(None);
        assert_eq!(admitted(), [true; 8]);
    }
}
