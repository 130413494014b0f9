//! How a domain is, and why.

use std::fmt;

use crate::code::Code;
use crate::raw::api::{
    DomainBlockedReason, DomainCrashedReason, DomainNostateReason, DomainPausedReason,
    DomainPmSuspendedReason, DomainRunningReason, DomainShutdownReason, DomainShutoffReason,
    DomainState,
};

/// How a domain is, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateAndReason {
    /// How it is.
    pub state: Code<DomainState>,
    /// Why.
    pub reason: StateReason,
}

/// Why a domain is as it is: each state has reasons of its own.
///
/// ```
/// use libvirt::domain::StateReason;
/// use libvirt::raw::api::DomainPausedReason;
///
/// fn needs_space(reason: StateReason) -> bool {
///     matches!(reason, StateReason::Paused(why) if why == DomainPausedReason::Ioerror)
/// }
/// # assert!(needs_space(DomainPausedReason::Ioerror.into()) && !needs_space(DomainPausedReason::User.into()));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StateReason {
    /// Why it has no state.
    Nostate(Code<DomainNostateReason>),
    /// Why it runs.
    Running(Code<DomainRunningReason>),
    /// Why it waits for something.
    Blocked(Code<DomainBlockedReason>),
    /// Why it stands still.
    Paused(Code<DomainPausedReason>),
    /// Why it is shutting down.
    Shutdown(Code<DomainShutdownReason>),
    /// Why it does not run.
    Shutoff(Code<DomainShutoffReason>),
    /// Why it has crashed.
    Crashed(Code<DomainCrashedReason>),
    /// Why its guest sleeps.
    Pmsuspended(Code<DomainPmSuspendedReason>),
    /// The number of a reason for a state that is newer than this crate.
    Unknown(i32),
}

// === impl StateReason ===

impl StateReason {
    pub(super) fn new(state: i32, reason: i32) -> Self {
        match DomainState::from_raw(state) {
            Some(DomainState::Nostate) => Self::Nostate(Code::new(reason)),
            Some(DomainState::Running) => Self::Running(Code::new(reason)),
            Some(DomainState::Blocked) => Self::Blocked(Code::new(reason)),
            Some(DomainState::Paused) => Self::Paused(Code::new(reason)),
            Some(DomainState::Shutdown) => Self::Shutdown(Code::new(reason)),
            Some(DomainState::Shutoff) => Self::Shutoff(Code::new(reason)),
            Some(DomainState::Crashed) => Self::Crashed(Code::new(reason)),
            Some(DomainState::Pmsuspended) => Self::Pmsuspended(Code::new(reason)),
            None => Self::Unknown(reason),
        }
    }

    /// The number, which means something together with the state alone.
    pub fn raw(self) -> i32 {
        match self {
            Self::Nostate(reason) => reason.raw(),
            Self::Running(reason) => reason.raw(),
            Self::Blocked(reason) => reason.raw(),
            Self::Paused(reason) => reason.raw(),
            Self::Shutdown(reason) => reason.raw(),
            Self::Shutoff(reason) => reason.raw(),
            Self::Crashed(reason) => reason.raw(),
            Self::Pmsuspended(reason) => reason.raw(),
            Self::Unknown(reason) => reason,
        }
    }
}

impl fmt::Display for StateReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nostate(reason) => reason.fmt(f),
            Self::Running(reason) => reason.fmt(f),
            Self::Blocked(reason) => reason.fmt(f),
            Self::Paused(reason) => reason.fmt(f),
            Self::Shutdown(reason) => reason.fmt(f),
            Self::Shutoff(reason) => reason.fmt(f),
            Self::Crashed(reason) => reason.fmt(f),
            Self::Pmsuspended(reason) => reason.fmt(f),
            Self::Unknown(reason) => write!(f, "unknown ({reason})"),
        }
    }
}

macro_rules! reasons {
    ($($reason:ident => $variant:ident),* $(,)?) => {
        $(
            impl From<$reason> for StateReason {
                fn from(reason: $reason) -> Self {
                    Self::$variant(reason.into())
                }
            }

            /// Whether it is this reason, and one for that state.
            impl PartialEq<$reason> for StateReason {
                fn eq(&self, reason: &$reason) -> bool {
                    *self == Self::from(*reason)
                }
            }
        )*
    };
}

reasons!(
    DomainNostateReason => Nostate,
    DomainRunningReason => Running,
    DomainBlockedReason => Blocked,
    DomainPausedReason => Paused,
    DomainShutdownReason => Shutdown,
    DomainShutoffReason => Shutoff,
    DomainCrashedReason => Crashed,
    DomainPmSuspendedReason => Pmsuspended,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_of_its_state_and_keeps_its_number() {
        // 1 is `Booted` of a running domain, and `User` of a paused one.
        let running = StateReason::new(DomainState::Running.as_raw(), 1);
        let paused = StateReason::new(DomainState::Paused.as_raw(), 1);
        assert_eq!(running, DomainRunningReason::Booted);
        assert_eq!(paused, DomainPausedReason::User);
        assert_ne!(running, paused);
        assert_eq!(
            (running.to_string(), paused.to_string()),
            ("Booted".into(), "User".into())
        );
        for state in 0..9 {
            assert_eq!(StateReason::new(state, 99).raw(), 99);
            assert_eq!(StateReason::new(state, 99).to_string(), "unknown (99)");
        }
        assert_eq!(StateReason::new(8, 1), StateReason::Unknown(1));
    }
}
