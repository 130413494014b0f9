//! Refusals in the words of the guest's own API: the same reasons, codes and details as its agent gives.
//!
//! | reason | code | when |
//! |---|---|---|
//! | `INVALID_FIELD` | INVALID_ARGUMENT | a field is outside its documented range (`BadRequest` names it) |
//! | `FILE_NOT_FOUND`, `NOT_FOUND` | NOT_FOUND | the guest has no such file, or no such other thing |
//! | `CMD_NOT_FOUND` | NOT_FOUND | there is no such program |
//! | `CMD_EXEC_FAILED` | FAILED_PRECONDITION | the program can't be started |
//! | `FILE_EXISTS` | ALREADY_EXISTS | there is a file, and it must not be replaced |
//! | `PERMISSION_DENIED` | PERMISSION_DENIED | the guest's kernel does not let the agent do it |
//! | `WRONG_FILE_TYPE` | FAILED_PRECONDITION | it is a directory |
//! | `NO_SPACE` | RESOURCE_EXHAUSTED | the guest's disk or quota is full |
//! | `DIGEST_MISMATCH` | DATA_LOSS | what has arrived has another digest than it should |
//! | `FILESYSTEM_FROZEN` | FAILED_PRECONDITION | file systems are frozen |
//! | `TOO_MANY` | RESOURCE_EXHAUSTED | there is too much of it at once |
//! | `UNKNOWN_HEALTH_NAME` | NOT_FOUND | a health check names a service that is not served |
//!
//! What this agent in particular can't do is the bridge's own `AGENT_CANNOT`.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::error::{self, DOMAIN, harmless};

/// What helps against most of what the agent can't do.
const INSTALL: &str = "install vbridge-agent in the guest";

/// When a caller may try again what there was too much of.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// Why a call failed, as the guest's API has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    InvalidField,
    FileNotFound,
    NotFound,
    CmdNotFound,
    CmdExecFailed,
    FileExists,
    PermissionDenied,
    WrongFileType,
    NoSpace,
    DigestMismatch,
    FilesystemFrozen,
    TooMany,
    UnknownHealthName,
}

impl Reason {
    fn name(self) -> &'static str {
        match self {
            Self::InvalidField => "INVALID_FIELD",
            Self::FileNotFound => "FILE_NOT_FOUND",
            Self::NotFound => "NOT_FOUND",
            Self::CmdNotFound => "CMD_NOT_FOUND",
            Self::CmdExecFailed => "CMD_EXEC_FAILED",
            Self::FileExists => "FILE_EXISTS",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::WrongFileType => "WRONG_FILE_TYPE",
            Self::NoSpace => "NO_SPACE",
            Self::DigestMismatch => "DIGEST_MISMATCH",
            Self::FilesystemFrozen => "FILESYSTEM_FROZEN",
            Self::TooMany => "TOO_MANY",
            Self::UnknownHealthName => "UNKNOWN_HEALTH_NAME",
        }
    }

    fn code(self) -> Code {
        match self {
            Self::InvalidField => Code::InvalidArgument,
            Self::FileNotFound | Self::NotFound | Self::CmdNotFound | Self::UnknownHealthName => {
                Code::NotFound
            }
            Self::CmdExecFailed | Self::WrongFileType | Self::FilesystemFrozen => {
                Code::FailedPrecondition
            }
            Self::FileExists => Code::AlreadyExists,
            Self::PermissionDenied => Code::PermissionDenied,
            Self::NoSpace | Self::TooMany => Code::ResourceExhausted,
            Self::DigestMismatch => Code::DataLoss,
        }
    }

    fn details(self) -> ErrorDetails {
        let nothing = HashMap::<String, String>::new();
        ErrorDetails::with_error_info(self.name(), DOMAIN, nothing)
    }

    /// The status with this reason and one sentence.
    pub(super) fn status(self, message: impl Into<String>) -> Status {
        Status::with_error_details(self.code(), message, self.details())
    }

    fn status_after(self, message: impl Into<String>, retry: Duration) -> Status {
        let mut details = self.details();
        details.set_retry_info(Some(retry));
        Status::with_error_details(self.code(), message, details)
    }
}

/// A field that is outside its documented range.
pub(super) fn invalid(field: &str, description: impl Into<String>) -> Status {
    let reason = Reason::InvalidField;
    let description = description.into();
    let message = format!("{field}: {description}");
    let mut details = reason.details();
    details.add_bad_request_violation(field, description);
    Status::with_error_details(reason.code(), message, details)
}

/// A list in the field `field` that is longer than `limit`.
pub(super) fn at_most(field: &str, len: usize, limit: usize) -> Result<(), Status> {
    match len > limit {
        true => {
            let description = format!("has {len} entries, and {limit} is the most");
            Err(invalid(field, description))
        }
        false => Ok(()),
    }
}

/// A call that can't be served, and why; what to do about it follows.
pub(super) fn cannot(why: impl Into<String>) -> Status {
    error::Reason::AgentCannot.status("", format!("{}; {INSTALL}", why.into()))
}

/// A field whose wish this agent can't fulfil: the call is refused rather than carried out without it.
pub(super) fn cannot_field(field: &str, why: &str) -> Status {
    let message = format!("{field}: qemu-guest-agent {why}; leave it out, or {INSTALL}");
    error::Reason::AgentCannot.about([("field", field)], message)
}

/// Too much of `what` at once.
pub(super) fn too_many(what: &str, limit: usize) -> Status {
    let message = format!("this guest already has {limit} {what} under way: wait for one to end");
    Reason::TooMany.status_after(message, RETRY_SOON)
}

/// File systems are frozen, and for how long still if that is known.
pub(super) fn frozen(remaining: Option<Duration>) -> Status {
    let reason = Reason::FilesystemFrozen;
    let message = "file systems of the guest are frozen: wait, or thaw them with Storage.Thaw";
    match remaining {
        Some(remaining) => reason.status_after(message, remaining),
        None => reason.status(message),
    }
}

/// A caller's text in a sentence.
pub(super) fn shown(text: &str) -> String {
    format!("\"{}\"", harmless(text))
}
