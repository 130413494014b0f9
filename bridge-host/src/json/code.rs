//! The numeric codes of the API, and what becomes of a gRPC status.
//!
//! | code | `error_type` | HTTP | when |
//! |---:|---|---:|---|
//! | 0 | | 200 | it was done |
//! | 1001 | `CMD_EXEC_FAILED` | 200 | a command ended with another status than 0 (which is in `exit_code`), or could not be started; systemd could not do it |
//! | 1002 | `CMD_TIMEOUT` | 200 | a command was killed because its time was over |
//! | 1002 | `FILE_OPERATION_FAILED` | 200 | a file could not be read or written as it is: it exists, is a directory, the disk is full … |
//! | 1003 | `CMD_NOT_FOUND` | 200 | the guest has no `/bin/sh` |
//! | 2001 | `INVALID_PARAMS` | 400, 413, 415 | a parameter is wrong, unknown, or too large; there is no such owner or group |
//! | 2002 | `JSON_PARSE_ERROR` | 400 | the body is no JSON |
//! | 2003 | `MISSING_REQUIRED` | 400 | a parameter is missing, or the guest's name |
//! | 3001 | `ENDPOINT_NOT_FOUND` | 404, 405 | there is no such endpoint, method, or guest |
//! | 3002 | `FILE_NOT_FOUND` | 404 | there is no such file, directory or unit |
//! | 4001 | `PERMISSION_DENIED` | 403 | a policy or the guest's kernel refuses it, the guest wants calls signed and this one is not (well), or a page of another site asks |
//! | 5001 | `INTERNAL_ERROR` | 500 | something failed that should not |
//! | 5002 | `SERVICE_UNAVAILABLE` | 503 | the guest can't be reached or can't do it, or there is too much at once; `Retry-After` says when another try may help |
//! | 6001 | `CONNECTION_LOST` | 503 | the session with the guest ended meanwhile: it may or may not have been done |
//! | 6002 | `READ_TIMEOUT` | 504 | the guest, or the request's body, took longer than `timeout` |
//!
//! The API's design has two tables that give 1002 two meanings. Both hold: files know no timeout of a command, and a command does
//! nothing to a file. By its example a shell's own 127 ("command not found") is 1001, as any program may end with 127.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Map, Value};
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::limits::MAX_JSON_DETAIL;

/// When another try may find a place.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// What all reasons begin with for which an agent refuses what is not signed as it wants it.
const CALL: &str = "CALL_";

/// Why a request has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    CmdExecFailed,
    CmdTimeout,
    FileOperationFailed,
    CmdNotFound,
    InvalidParams,
    JsonParseError,
    MissingRequired,
    EndpointNotFound,
    FileNotFound,
    PermissionDenied,
    InternalError,
    ServiceUnavailable,
    ConnectionLost,
    ReadTimeout,
}

/// What a code is for clients.
struct Facts {
    number: u16,
    name: &'static str,
    message: &'static str,
    http: StatusCode,
    grpc: tonic::Code,
}

// === impl Code ===

impl Code {
    #[cfg(test)]
    pub(super) const ALL: [Self; 14] = [
        Self::CmdExecFailed,
        Self::CmdTimeout,
        Self::FileOperationFailed,
        Self::CmdNotFound,
        Self::InvalidParams,
        Self::JsonParseError,
        Self::MissingRequired,
        Self::EndpointNotFound,
        Self::FileNotFound,
        Self::PermissionDenied,
        Self::InternalError,
        Self::ServiceUnavailable,
        Self::ConnectionLost,
        Self::ReadTimeout,
    ];

    #[rustfmt::skip]
    fn facts(self) -> Facts {
        use StatusCode as Http;
        use tonic::Code as Grpc;
        let (number, name, message, http, grpc) = match self {
            Self::CmdExecFailed => (1001, "CMD_EXEC_FAILED", "Command execution failed", Http::OK, Grpc::Ok),
            Self::CmdTimeout => (1002, "CMD_TIMEOUT", "Command timed out", Http::OK, Grpc::Ok),
            Self::FileOperationFailed => (1002, "FILE_OPERATION_FAILED", "File operation failed", Http::OK, Grpc::FailedPrecondition),
            Self::CmdNotFound => (1003, "CMD_NOT_FOUND", "Command not found", Http::OK, Grpc::NotFound),
            Self::InvalidParams => (2001, "INVALID_PARAMS", "Invalid parameters", Http::BAD_REQUEST, Grpc::InvalidArgument),
            Self::JsonParseError => (2002, "JSON_PARSE_ERROR", "The body is not JSON", Http::BAD_REQUEST, Grpc::InvalidArgument),
            Self::MissingRequired => (2003, "MISSING_REQUIRED", "A required parameter is missing", Http::BAD_REQUEST, Grpc::InvalidArgument),
            Self::EndpointNotFound => (3001, "ENDPOINT_NOT_FOUND", "Endpoint not found", Http::NOT_FOUND, Grpc::Unimplemented),
            Self::FileNotFound => (3002, "FILE_NOT_FOUND", "Not found", Http::NOT_FOUND, Grpc::NotFound),
            Self::PermissionDenied => (4001, "PERMISSION_DENIED", "Permission denied", Http::FORBIDDEN, Grpc::PermissionDenied),
            Self::InternalError => (5001, "INTERNAL_ERROR", "Internal error", Http::INTERNAL_SERVER_ERROR, Grpc::Internal),
            Self::ServiceUnavailable => (5002, "SERVICE_UNAVAILABLE", "Service unavailable", Http::SERVICE_UNAVAILABLE, Grpc::Unavailable),
            Self::ConnectionLost => (6001, "CONNECTION_LOST", "Connection lost", Http::SERVICE_UNAVAILABLE, Grpc::Unavailable),
            Self::ReadTimeout => (6002, "READ_TIMEOUT", "Read timed out", Http::GATEWAY_TIMEOUT, Grpc::DeadlineExceeded),
        };
        Facts { number, name, message, http, grpc }
    }

    pub(super) fn number(self) -> u16 {
        self.facts().number
    }

    pub(super) fn name(self) -> &'static str {
        self.facts().name
    }

    pub(super) fn message(self) -> &'static str {
        self.facts().message
    }

    pub(super) fn http(self) -> StatusCode {
        self.facts().http
    }

    /// What a status is, by its reason if it has one.
    fn of(status: &Status, reason: &str) -> Self {
        match reason {
            "CMD_NOT_FOUND" => return Self::CmdNotFound,
            "CMD_EXEC_FAILED" | "JOB_FAILED" => return Self::CmdExecFailed,
            "FILE_EXISTS" | "WRONG_FILE_TYPE" | "DIGEST_MISMATCH" | "NO_SPACE"
            | "KERNEL_REFUSED" | "ABORTED" => return Self::FileOperationFailed,
            "GUEST_NOT_FOUND" => return Self::EndpointNotFound,
            "GUEST_NOT_NAMED" => return Self::MissingRequired,
            "GUEST_SILENT" => return Self::ReadTimeout,
            "SESSION_ENDED" => return Self::ConnectionLost,
            "FILESYSTEM_FROZEN" => return Self::ServiceUnavailable,
            _ => {}
        }
        match status.code() {
            tonic::Code::InvalidArgument | tonic::Code::OutOfRange => Self::InvalidParams,
            tonic::Code::NotFound => Self::FileNotFound,
            tonic::Code::PermissionDenied | tonic::Code::Unauthenticated => Self::PermissionDenied,
            tonic::Code::DeadlineExceeded => Self::ReadTimeout,
            tonic::Code::Unavailable
            | tonic::Code::ResourceExhausted
            | tonic::Code::Unimplemented => Self::ServiceUnavailable,
            _ => Self::InternalError,
        }
    }
}

/// Why a request has failed, as it is told.
#[derive(Debug)]
pub(super) struct Failure {
    code: Code,
    http: StatusCode,
    grpc: tonic::Code,
    detail: String,
    more: Map<String, Value>,
    /// Few have any, and it is large.
    headers: Box<HeaderMap>,
}

// === impl Failure ===

impl Failure {
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            http: code.http(),
            grpc: code.facts().grpc,
            detail: detail.into(),
            more: Map::new(),
            headers: Box::default(),
        }
    }

    /// There is too much at once.
    pub(super) fn busy() -> Self {
        let detail = "the bridge has as many requests of this API as it takes: try again when some have ended";
        Self::new(Code::ServiceUnavailable, detail).retry_after(RETRY_SOON)
    }

    /// With another HTTP status than the code's own.
    pub(super) fn status(mut self, http: StatusCode) -> Self {
        self.http = http;
        self
    }

    pub(super) fn header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }

    /// With a further member of `data`.
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// Of a call that has nothing to do with files: what is wrong with one there is wrong with the command.
    pub(super) fn of_command(mut self) -> Self {
        if self.code == Code::FileOperationFailed {
            self.code = Code::CmdExecFailed;
        }
        self
    }

    fn retry_after(mut self, delay: Duration) -> Self {
        // Whole seconds, and never none.
        let seconds = delay.as_millis().div_ceil(1000).max(1);
        if let Ok(seconds) = seconds.to_string().try_into() {
            self.headers.insert(header::RETRY_AFTER, seconds);
        }
        self
    }

    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    pub(super) fn code(&self) -> Code {
        self.code
    }

    pub(super) fn http(&self) -> StatusCode {
        self.http
    }

    pub(super) fn grpc(&self) -> tonic::Code {
        self.grpc
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// What is told of it.
    pub(super) fn into_data(self) -> Value {
        let mut data = self.more;
        data.insert("error_type".to_owned(), self.code.name().into());
        let detail: String = self.detail.chars().take(MAX_JSON_DETAIL).collect();
        data.insert("detail".to_owned(), detail.into());
        Value::Object(data)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let reason = details.error_info().map(|info| info.reason.clone());
        let code = Code::of(&status, reason.as_deref().unwrap_or_default());
        let mut failure = Self::new(code, status.message());
        failure.grpc = status.code();
        // A guest that wants each call signed takes no bearer's token, and a browser is not to ask for one.
        let is_guests = reason.as_deref().is_some_and(|it| it.starts_with(CALL));
        if status.code() == tonic::Code::Unauthenticated && !is_guests {
            failure = failure
                .status(StatusCode::UNAUTHORIZED)
                .header(header::WWW_AUTHENTICATE, "Bearer");
        }
        if let Some(reason) = reason {
            failure = failure.with("reason", reason);
        }
        let retry = details.retry_info().and_then(|info| info.retry_delay);
        match retry {
            Some(delay) if failure.http == StatusCode::SERVICE_UNAVAILABLE => {
                failure.retry_after(delay)
            }
            _ => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    fn status(code: tonic::Code, reason: &str) -> Status {
        let none = HashMap::<String, String>::new();
        let details = ErrorDetails::with_error_info(reason, "vbridge", none);
        Status::with_error_details(code, "why", details)
    }

    #[test]
    fn every_code_is_in_the_table_above() {
        let source = include_str!("code.rs");
        for code in Code::ALL {
            let row = format!(
                "| {} | `{}` | {}",
                code.number(),
                code.name(),
                code.http().as_u16()
            );
            assert!(source.contains(&row), "{row}");
        }
    }

    #[test]
    fn a_status_becomes_a_code_by_its_reason_and_else_by_itself() {
        use tonic::Code as Grpc;
        for (grpc, reason, code) in [
            (Grpc::NotFound, "CMD_NOT_FOUND", 1003),
            (Grpc::FailedPrecondition, "CMD_EXEC_FAILED", 1001),
            (Grpc::FailedPrecondition, "JOB_FAILED", 1001),
            (Grpc::AlreadyExists, "FILE_EXISTS", 1002),
            (Grpc::ResourceExhausted, "NO_SPACE", 1002),
            (Grpc::InvalidArgument, "INVALID_FIELD", 2001),
            (Grpc::InvalidArgument, "GUEST_NOT_NAMED", 2003),
            (Grpc::NotFound, "GUEST_NOT_FOUND", 3001),
            (Grpc::NotFound, "FILE_NOT_FOUND", 3002),
            (Grpc::NotFound, "NOT_FOUND", 3002),
            (Grpc::PermissionDenied, "POLICY_DENIED", 4001),
            (Grpc::Internal, "INTERNAL", 5001),
            (Grpc::Unavailable, "GUEST_OFF", 5002),
            (Grpc::ResourceExhausted, "RATE_LIMITED", 5002),
            (Grpc::Unimplemented, "UNSUPPORTED", 5002),
            (Grpc::FailedPrecondition, "FILESYSTEM_FROZEN", 5002),
            (Grpc::Unavailable, "SESSION_ENDED", 6001),
            (Grpc::DeadlineExceeded, "DEADLINE_EXCEEDED", 6002),
            (Grpc::Unavailable, "GUEST_SILENT", 6002),
        ] {
            let failure = Failure::from(status(grpc, reason));
            assert_eq!(failure.code().number(), code, "{reason}");
            assert_eq!(failure.grpc(), grpc);
            let data = failure.into_data();
            assert_eq!(
                (&data["detail"], &data["reason"]),
                (&"why".into(), &reason.into())
            );
        }
        for (reason, http) in [("CALL_EXPIRED", 403), ("CALLER_UNKNOWN", 401)] {
            let failure = Failure::from(status(Grpc::Unauthenticated, reason));
            assert_eq!(
                (failure.code().number(), failure.http().as_u16()),
                (4001, http)
            );
            let asks = failure.headers().contains_key(header::WWW_AUTHENTICATE);
            assert_eq!(asks, http == 401, "{reason}");
        }
        let bare = Failure::from(Status::data_loss("why"));
        assert_eq!(bare.code(), Code::InternalError);
        assert_eq!(bare.into_data().get("reason"), None);
    }

    #[test]
    fn a_shortage_says_when_to_try_again_in_whole_seconds() {
        for (millis, seconds) in [(0, "1"), (100, "1"), (1000, "1"), (1001, "2"), (5000, "5")] {
            let mut details = ErrorDetails::new();
            details.set_retry_info(Some(Duration::from_millis(millis)));
            let status = Status::with_error_details(tonic::Code::Unavailable, "busy", details);
            let failure = Failure::from(status);
            assert_eq!(failure.headers()[header::RETRY_AFTER], seconds);
        }
    }

    #[test]
    fn what_a_detail_repeats_is_cut_off() {
        let failure = Failure::new(Code::InternalError, "ü".repeat(MAX_JSON_DETAIL + 1));
        let data = failure.into_data();
        let detail = data["detail"].as_str().unwrap();
        assert_eq!(detail.chars().count(), MAX_JSON_DETAIL);
    }
}
