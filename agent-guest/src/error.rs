//! How an error looks to the caller: a `google.rpc.Status` with an `ErrorInfo` whose reason is stable.
//!
//! | reason | code | when |
//! |---|---|---|
//! | `INVALID_FIELD` | INVALID_ARGUMENT | a field of the request is outside its documented range (`BadRequest` names it) |
//! | `REQUEST_TOO_LARGE` | INVALID_ARGUMENT | the request is larger than its service takes |
//! | `SOURCE_UNAVAILABLE` | UNAVAILABLE | the kernel's files that the answer is made of can't be read |
//! | `TOO_MANY_SUBSCRIBERS` | RESOURCE_EXHAUSTED | no further subscription of this sort is possible now |
//! | `AGENT_STOPPING` | UNAVAILABLE | the agent was asked to stop |
//! | `UNKNOWN_SERVICE` | UNIMPLEMENTED | the agent serves no such service |
//! | `UNKNOWN_HEALTH_NAME` | NOT_FOUND | a health check names a service that the agent does not serve |
//! | `DEADLINE_EXCEEDED` | DEADLINE_EXCEEDED | the call's `grpc-timeout` has passed, or the longest that this guest lets calls of one answer take |
//! | `POLICY_DENIED` | PERMISSION_DENIED | the policy refuses it; the rule's name is in `ErrorInfo`'s metadata as `rule` |
//! | `CALL_NOT_SIGNED` | UNAUTHENTICATED | the guest wants each call signed, and metadata of this one are missing or malformed |
//! | `CALL_SIGNATURE_WRONG` | UNAUTHENTICATED | the call's signature is not that of the guest's key for this method, time and nonce |
//! | `CALL_EXPIRED` | UNAUTHENTICATED | the call was signed too long ago, or for a time too far ahead |
//! | `CALL_REPLAYED` | UNAUTHENTICATED | a call of this method with this nonce was made already |
//! | `PERMISSION_DENIED` | PERMISSION_DENIED | the guest's kernel does not let the agent do it |
//! | `KERNEL_REFUSED` | FAILED_PRECONDITION | the guest's kernel refuses it as things are |
//! | `RATE_LIMITED` | RESOURCE_EXHAUSTED | there were too many such calls lately; if a limit of the policy says so, its name is in the metadata as `rule` |
//! | `TOO_MANY` | RESOURCE_EXHAUSTED | there is too much of it at once: calls, processes, connections; a limit of the policy is named as above |
//! | `CMD_NOT_FOUND` | NOT_FOUND | there is no such program |
//! | `CMD_EXEC_FAILED` | FAILED_PRECONDITION | the program can't be started |
//! | `PROCESS_NOT_FOUND` | NOT_FOUND | there is no process with that id (any more) |
//! | `OUTPUT_LOST` | OUT_OF_RANGE | the bytes that are asked for are not kept any more; `ErrorInfo`'s metadata has the first that is, as `stdout_kept_from` or `stderr_kept_from` |
//! | `FILE_NOT_FOUND` | NOT_FOUND | there is nothing at that path |
//! | `FILE_EXISTS` | ALREADY_EXISTS | there is something at that path, and it must not be replaced |
//! | `WRONG_FILE_TYPE` | FAILED_PRECONDITION | what is there is of another type: a directory, a device … |
//! | `DIGEST_MISMATCH` | DATA_LOSS | what has arrived has another digest than it should |
//! | `NO_SPACE` | RESOURCE_EXHAUSTED | the guest's disk or quota is full |
//! | `FILESYSTEM_FROZEN` | FAILED_PRECONDITION | file systems are frozen; `RetryInfo` says for how long at most |
//! | `UNSUPPORTED` | UNIMPLEMENTED | this guest can't do it; the message says why |
//! | `NOT_FOUND` | NOT_FOUND | there is no such unit, user, CPU, connection … |
//! | `JOB_FAILED` | FAILED_PRECONDITION | systemd could not do it |
//! | `CONNECT_FAILED` | UNAVAILABLE | nobody answers at that address in the guest |
//! | `CONNECTION_RESET` | ABORTED | the connection's other end has broken it off |
//! | `ABORTED` | ABORTED | what the call is about has changed under it |
//! | `UPSTREAM_UNAVAILABLE` | UNAVAILABLE | the local server that serves this can't be reached |
//! | `INTERNAL` | INTERNAL | something failed that should not: the message says what |

use std::{collections::HashMap, fmt, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{limits::MAX_ERROR_MESSAGE, source::SourceError};

/// The domain of every reason.
pub const DOMAIN: &str = "vbridge";

/// When a caller may try again what failed for want of a resource.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// Why a call failed, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A field is outside its documented range.
    InvalidField,
    /// The request is larger than its service takes.
    RequestTooLarge,
    /// The kernel's files that the answer is made of can't be read.
    SourceUnavailable,
    /// No further subscription of this sort is possible now.
    TooManySubscribers,
    /// The agent was asked to stop.
    AgentStopping,
    /// The agent serves no such service.
    UnknownService,
    /// A health check names a service that the agent does not serve.
    UnknownHealthName,
    /// The call's time is over.
    DeadlineExceeded,
    /// The policy refuses it.
    PolicyDenied,
    /// The guest wants calls signed, and this one is not.
    CallNotSigned,
    /// The call's signature is not the right one.
    CallSignatureWrong,
    /// The call was signed for another time.
    CallExpired,
    /// The call was made already.
    CallReplayed,
    /// The guest's kernel does not let the agent do it.
    PermissionDenied,
    /// The guest's kernel refuses it as things are.
    KernelRefused,
    /// There were too many such calls lately.
    RateLimited,
    /// There is too much of it at once.
    TooMany,
    /// There is no such program.
    CmdNotFound,
    /// The program can't be started.
    CmdExecFailed,
    /// There is no process with that id.
    ProcessNotFound,
    /// The bytes that are asked for are not kept any more.
    OutputLost,
    /// There is nothing at that path.
    FileNotFound,
    /// There is something at that path.
    FileExists,
    /// What is there is of another type.
    WrongFileType,
    /// What has arrived has another digest than it should.
    DigestMismatch,
    /// The disk or the quota is full.
    NoSpace,
    /// File systems are frozen.
    FilesystemFrozen,
    /// This guest can't do it.
    Unsupported,
    /// There is no such thing.
    NotFound,
    /// systemd could not do it.
    JobFailed,
    /// Nobody answers at that address.
    ConnectFailed,
    /// The other end has broken the connection off.
    ConnectionReset,
    /// What the call is about has changed under it.
    Aborted,
    /// The local server that serves this can't be reached.
    UpstreamUnavailable,
    /// Something failed that should not.
    Internal,
}

impl Reason {
    /// The reason as `ErrorInfo` carries it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidField => "INVALID_FIELD",
            Self::RequestTooLarge => "REQUEST_TOO_LARGE",
            Self::SourceUnavailable => "SOURCE_UNAVAILABLE",
            Self::TooManySubscribers => "TOO_MANY_SUBSCRIBERS",
            Self::AgentStopping => "AGENT_STOPPING",
            Self::UnknownService => "UNKNOWN_SERVICE",
            Self::UnknownHealthName => "UNKNOWN_HEALTH_NAME",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::PolicyDenied => "POLICY_DENIED",
            Self::CallNotSigned => "CALL_NOT_SIGNED",
            Self::CallSignatureWrong => "CALL_SIGNATURE_WRONG",
            Self::CallExpired => "CALL_EXPIRED",
            Self::CallReplayed => "CALL_REPLAYED",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::KernelRefused => "KERNEL_REFUSED",
            Self::RateLimited => "RATE_LIMITED",
            Self::TooMany => "TOO_MANY",
            Self::CmdNotFound => "CMD_NOT_FOUND",
            Self::CmdExecFailed => "CMD_EXEC_FAILED",
            Self::ProcessNotFound => "PROCESS_NOT_FOUND",
            Self::OutputLost => "OUTPUT_LOST",
            Self::FileNotFound => "FILE_NOT_FOUND",
            Self::FileExists => "FILE_EXISTS",
            Self::WrongFileType => "WRONG_FILE_TYPE",
            Self::DigestMismatch => "DIGEST_MISMATCH",
            Self::NoSpace => "NO_SPACE",
            Self::FilesystemFrozen => "FILESYSTEM_FROZEN",
            Self::Unsupported => "UNSUPPORTED",
            Self::NotFound => "NOT_FOUND",
            Self::JobFailed => "JOB_FAILED",
            Self::ConnectFailed => "CONNECT_FAILED",
            Self::ConnectionReset => "CONNECTION_RESET",
            Self::Aborted => "ABORTED",
            Self::UpstreamUnavailable => "UPSTREAM_UNAVAILABLE",
            Self::Internal => "INTERNAL",
        }
    }

    /// The status code that belongs to the reason.
    pub fn code(self) -> Code {
        match self {
            Self::InvalidField | Self::RequestTooLarge => Code::InvalidArgument,
            Self::SourceUnavailable
            | Self::AgentStopping
            | Self::ConnectFailed
            | Self::UpstreamUnavailable => Code::Unavailable,
            Self::TooManySubscribers | Self::RateLimited | Self::TooMany | Self::NoSpace => {
                Code::ResourceExhausted
            }
            Self::UnknownService | Self::Unsupported => Code::Unimplemented,
            Self::UnknownHealthName
            | Self::CmdNotFound
            | Self::ProcessNotFound
            | Self::FileNotFound
            | Self::NotFound => Code::NotFound,
            Self::DeadlineExceeded => Code::DeadlineExceeded,
            Self::PolicyDenied | Self::PermissionDenied => Code::PermissionDenied,
            Self::CallNotSigned
            | Self::CallSignatureWrong
            | Self::CallExpired
            | Self::CallReplayed => Code::Unauthenticated,
            Self::KernelRefused
            | Self::CmdExecFailed
            | Self::WrongFileType
            | Self::FilesystemFrozen
            | Self::JobFailed => Code::FailedPrecondition,
            Self::OutputLost => Code::OutOfRange,
            Self::FileExists => Code::AlreadyExists,
            Self::DigestMismatch => Code::DataLoss,
            Self::ConnectionReset | Self::Aborted => Code::Aborted,
            Self::Internal => Code::Internal,
        }
    }
}

/// A field that is outside its documented range.
pub(crate) fn invalid_field(field: impl Into<String>, description: impl Into<String>) -> Status {
    let (field, description) = (field.into(), bounded(description.into()));
    let message = format!("{field}: {description}");
    let mut details = details(Reason::InvalidField);
    details.add_bad_request_violation(field, description);
    status(Reason::InvalidField, message, details)
}

/// A request that is larger than `limit` bytes.
pub(crate) fn request_too_large(limit: usize) -> Status {
    let reason = Reason::RequestTooLarge;
    let message = format!("the request is larger than the {limit} bytes that this service takes");
    status(reason, message, details(reason))
}

/// A source that can't be read.
pub(crate) fn source_unavailable(error: &SourceError) -> Status {
    let reason = Reason::SourceUnavailable;
    status(reason, error.to_string(), details(reason))
}

/// A subscription too many, of `what`.
pub(crate) fn too_many_subscribers(what: &str, limit: usize) -> Status {
    let reason = Reason::TooManySubscribers;
    let mut details = details(reason);
    details.set_retry_info(Some(RETRY_SOON));
    let message =
        format!("this guest already has {limit} {what} subscriptions: end one, or share one");
    status(reason, message, details)
}

/// The end of a stream because the agent stops.
pub(crate) fn agent_stopping() -> Status {
    let reason = Reason::AgentStopping;
    let mut details = details(reason);
    details.set_retry_info(Some(RETRY_SOON));
    status(
        reason,
        "the guest's agent is stopping: call again when it is back",
        details,
    )
}

/// A call of a service that is not there.
pub(crate) fn unknown_service(path: &str) -> Status {
    let reason = Reason::UnknownService;
    let message =
        format!("the agent serves no method {path}: list its services through reflection");
    status(reason, message, details(reason))
}

/// A health check of a service that is not there.
pub(crate) fn unknown_health_name(name: &str) -> Status {
    let reason = Reason::UnknownHealthName;
    let message =
        format!("the agent serves no service {name:?}: list its services through reflection");
    status(reason, message, details(reason))
}

/// A call whose time is over.
pub(crate) fn deadline_exceeded() -> Status {
    let reason = Reason::DeadlineExceeded;
    status(
        reason,
        "the call's deadline passed in the guest",
        details(reason),
    )
}

/// A call of one answer that takes longer than the agent lets any take.
pub(crate) fn request_timeout(longest: Duration) -> Status {
    let reason = Reason::DeadlineExceeded;
    let message = format!(
        "the call took longer than {longest:?}, which is the most in this guest (request_timeout): ask for less, or start it and watch it"
    );
    status(reason, message, details(reason))
}

/// A list in the field `field` that is longer than `limit`.
pub(crate) fn at_most(field: &str, len: usize, limit: usize) -> Result<(), Status> {
    match len > limit {
        true => Err(invalid_field(
            field,
            format!("has {len} entries, and {limit} is the most"),
        )),
        false => Ok(()),
    }
}

/// A failure that is told by its reason and one sentence.
pub(crate) fn failure(reason: Reason, message: impl Into<String>) -> Status {
    status(reason, message, details(reason))
}

/// A failure that may be over after a while.
pub(crate) fn failure_for(reason: Reason, message: impl Into<String>, retry: Duration) -> Status {
    let mut details = details(reason);
    details.set_retry_info(Some(retry));
    status(reason, message, details)
}

/// Bytes of an output that are not kept any more.
pub(crate) fn output_lost(output: &str, kept_from: u64) -> Status {
    let reason = Reason::OutputLost;
    let first = kept_from.to_string();
    let message =
        format!("the bytes of {output} before {first} are not kept any more: ask from there");
    let metadata = HashMap::from([(format!("{output}_kept_from"), first)]);
    let details = ErrorDetails::with_error_info(reason.as_str(), DOMAIN, metadata);
    status(reason, message, details)
}

/// What a rule of the policy refuses.
pub(crate) fn policy_denied(rule: &str, message: impl Into<String>) -> Status {
    let reason = Reason::PolicyDenied;
    let metadata = HashMap::from([("rule".to_owned(), rule.to_owned())]);
    let details = ErrorDetails::with_error_info(reason.as_str(), DOMAIN, metadata);
    status(reason, message, details)
}

/// A call too many for a limit of the policy.
pub(crate) fn limited(
    reason: Reason,
    rule: &str,
    why: impl fmt::Display,
    retry: Duration,
) -> Status {
    let metadata = HashMap::from([("rule".to_owned(), rule.to_owned())]);
    let mut details = ErrorDetails::with_error_info(reason.as_str(), DOMAIN, metadata);
    details.set_retry_info(Some(retry));
    let message = format!("the guest's policy bounds these calls, and {why} ({rule})");
    status(reason, message, details)
}

fn details(reason: Reason) -> ErrorDetails {
    ErrorDetails::with_error_info(reason.as_str(), DOMAIN, HashMap::<String, String>::new())
}

fn status(reason: Reason, message: impl Into<String>, details: ErrorDetails) -> Status {
    Status::with_error_details(reason.code(), bounded(message.into()), details)
}

/// The message, without its middle if it is longer than a header can carry: what a caller has sent may be repeated in it.
fn bounded(message: String) -> String {
    if message.len() <= MAX_ERROR_MESSAGE {
        return message;
    }
    // The reason, and what to do about it, stand at the end.
    let (mut head, mut tail) = (
        MAX_ERROR_MESSAGE / 4 * 3,
        message.len() - MAX_ERROR_MESSAGE / 4,
    );
    // A character has at most four bytes.
    while !message.is_char_boundary(head) {
        head -= 1;
    }
    while !message.is_char_boundary(tail) {
        tail += 1;
    }
    let (head, tail) = (message.get(..head), message.get(tail..));
    format!("{}…{}", head.unwrap_or_default(), tail.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_field_is_named_in_the_details() {
        let status = invalid_field("interval", "must be at least 100 ms");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "interval: must be at least 100 ms");
        let details = status.get_error_details();
        let info = details.error_info().expect("ErrorInfo is there");
        assert_eq!(
            (info.domain.as_str(), info.reason.as_str()),
            ("vbridge", "INVALID_FIELD")
        );
        let violations = &details
            .bad_request()
            .expect("BadRequest is there")
            .field_violations;
        assert_eq!(violations[0].field, "interval");
    }

    #[test]
    fn a_message_that_repeats_too_much_loses_its_middle() {
        for letter in ["x", "ü", "€", "\u{1f980}"] {
            for extra in 0..4 {
                let name = letter.repeat(MAX_ERROR_MESSAGE) + &"y".repeat(extra);
                let status = failure(Reason::NotFound, format!("no {name:?}: look for it"));
                let text = status.message();
                assert!(
                    text.len() <= MAX_ERROR_MESSAGE + "…".len(),
                    "{}",
                    text.len()
                );
                assert!(text.starts_with("no ") && text.ends_with(": look for it"));
            }
        }
        let short = "x".repeat(MAX_ERROR_MESSAGE);
        assert_eq!(failure(Reason::NotFound, short.clone()).message(), short);
    }

    #[test]
    fn a_shortage_tells_when_to_try_again() {
        let details = too_many_subscribers("metrics", 7).get_error_details();
        assert_eq!(
            details.retry_info().and_then(|info| info.retry_delay),
            Some(RETRY_SOON)
        );
    }
}
