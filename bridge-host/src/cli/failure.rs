//! How an error looks to the operator: one sentence, and an exit status.

use std::{error::Error, io, time::Duration};

use bridge_host::{BridgeError, config::ConfigError};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::output::{printable, printable_sentence};

/// The agent's reason for what its guest can't do.
const UNSUPPORTED: &str = "UNSUPPORTED";

/// Why a command ends without success.
#[derive(Debug)]
pub(super) enum Failure {
    /// One sentence says it.
    Sentence(String),
    /// One sentence says it, and the exit status is this one.
    SentenceAndStatus(String, u8),
    /// The output has said it already.
    Told,
    /// Nothing is to be said: a command's own exit status, or what a shell reports for a signal.
    Status(u8),
    /// Nobody reads the output any more, like `head` after its lines: no error.
    NobodyReads,
}

impl Failure {
    pub(super) fn new(sentence: impl Into<String>) -> Self {
        Self::Sentence(sentence.into())
    }

    pub(super) fn sentence(&self) -> Option<&str> {
        match self {
            Self::Sentence(sentence) | Self::SentenceAndStatus(sentence, _) => Some(sentence),
            Self::Told | Self::Status(_) | Self::NobodyReads => None,
        }
    }

    pub(super) fn exit_status(&self) -> u8 {
        match self {
            Self::Sentence(_) | Self::Told => 1,
            Self::SentenceAndStatus(_, status) | Self::Status(status) => *status,
            Self::NobodyReads => 0,
        }
    }

    /// With this exit status, unless it has one of its own.
    pub(super) fn with_status(self, status: u8) -> Self {
        match self {
            Self::Sentence(sentence) => Self::SentenceAndStatus(sentence, status),
            Self::Told => Self::Status(status),
            other => other,
        }
    }

    /// The output can't be written.
    pub(super) fn output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::NobodyReads,
            _ => Self::new(format!("can't write the output: {error}")),
        }
    }
}

impl From<BridgeError> for Failure {
    fn from(error: BridgeError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(error.to_string())
    }
}

/// Whom a call was for and through which bridge it went: what its error is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) bridge: &'a str,
    /// `guest "web"`, or `the bridge`.
    pub(super) whom: &'a str,
    pub(super) limit: Duration,
}

impl Call<'_> {
    /// A status in words.
    pub(super) fn sentence(&self, status: &Status) -> String {
        if status.source().is_some_and(is_time_out) {
            return self.too_late();
        }
        if let Some(source) = status.source() {
            return self.connection(source);
        }
        let whom = self.whom;
        let message = printable_sentence(status.message());
        match status.code() {
            // A guest is as free with its messages as a bridge; both may leave them out.
            Code::DeadlineExceeded if message.is_empty() => self.too_late(),
            // A method that is there says itself why this guest can't do it.
            Code::Unimplemented if message.is_empty() || !is_unsupported(status) => {
                format!(
                    "{whom} does not offer this call: its agent may be older than this program, or not allow it"
                )
            }
            code if message.is_empty() => format!("{whom} answered: {}", code.description()),
            _ => message,
        }
    }

    /// No answer came in time.
    pub(super) fn too_late(&self) -> String {
        format!(
            "{} gave no answer within {}; give it longer with --timeout",
            self.whom,
            humantime::format_duration(self.limit)
        )
    }

    /// There was no connection within this time.
    pub(super) fn not_connected(&self, limit: Duration) -> String {
        format!(
            "the bridge at {} can't be reached: no connection within {}; give it longer with --connect-timeout",
            self.bridge,
            humantime::format_duration(limit)
        )
    }

    /// The bridge can't be reached, or not any more.
    pub(super) fn connection(&self, error: &(dyn Error + 'static)) -> String {
        let bridge = self.bridge;
        let kind = causes(error)
            .find_map(|cause| cause.downcast_ref::<io::Error>())
            .map(io::Error::kind);
        match kind {
            Some(io::ErrorKind::ConnectionRefused) => format!(
                "no bridge listens at {bridge}; start one with `vbridge serve --guest NAME=unix:PATH`, or say with --bridge where it is"
            ),
            Some(io::ErrorKind::NotFound) => format!(
                "no bridge listens at {bridge}: there is no such socket; start one with `vbridge serve --listen {bridge} --guest NAME=unix:PATH`, or say with --bridge where it is"
            ),
            Some(io::ErrorKind::PermissionDenied) => {
                format!("you may not connect to the bridge at {bridge}: permission denied")
            }
            Some(io::ErrorKind::TimedOut) => {
                format!("the bridge at {bridge} can't be reached: no answer from there in time")
            }
            _ if causes(error).any(is_closed) => format!(
                "the connection to {bridge} was closed from there; the bridge may have been stopped"
            ),
            _ => {
                // The innermost cause is the one that says something.
                let cause = causes(error).last().map(ToString::to_string);
                format!(
                    "the connection to {bridge} failed ({}); does a bridge listen there?",
                    printable(&cause.unwrap_or_default())
                )
            }
        }
    }
}

pub(super) fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| {
        (*error).source()
    })
}

fn is_time_out(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(<dyn Error>::is::<tonic::TimeoutExpired>)
}

/// Whether the agent knows the method, and says why the guest can't do it.
fn is_unsupported(status: &Status) -> bool {
    let details = status.get_error_details();
    details
        .error_info()
        .is_some_and(|info| info.reason == UNSUPPORTED)
}

/// Whether the connection was open and ended under the call.
fn is_closed(cause: &(dyn Error + 'static)) -> bool {
    cause
        .downcast_ref::<h2::Error>()
        .is_some_and(h2::Error::is_io)
        || cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

/// Whether the same call can't succeed a moment later either.
pub(super) fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: Call<'_> = Call {
        bridge: "127.0.0.1:7411",
        whom: "guest \"web\"",
        limit: Duration::from_secs(10),
    };

    #[test]
    fn the_message_of_a_status_is_the_sentence_and_can_not_harm_the_terminal() {
        let status = Status::not_found("no guest \"x\"; there is \"web\"\u{1b}[2J\n");
        let expected = "no guest \"x\"; there is \"web\"\\u{1b}[2J\\n";
        assert_eq!(CALL.sentence(&status), expected);
    }

    #[test]
    fn a_status_without_a_message_becomes_a_sentence_all_the_same() {
        for (code, words) in [
            (Code::DeadlineExceeded, "no answer within 10s"),
            (Code::Unimplemented, "does not offer this call"),
            (Code::Internal, "answered: "),
        ] {
            let sentence = CALL.sentence(&Status::new(code, ""));
            assert!(sentence.contains("guest \"web\""), "{sentence}");
            assert!(sentence.contains(words), "{sentence}");
        }
    }

    #[test]
    fn what_a_guest_can_not_do_is_told_in_its_own_words() {
        let sentence = |reason: &str| {
            let none = std::collections::HashMap::new();
            let details = tonic_types::ErrorDetails::with_error_info(reason, "vbridge", none);
            let status = Status::with_error_details(Code::Unimplemented, "no systemd", details);
            CALL.sentence(&status)
        };
        assert_eq!(sentence(UNSUPPORTED), "no systemd");
        assert!(sentence("UNKNOWN_SERVICE").contains("does not offer this call"));
    }

    #[test]
    fn a_refused_connection_says_where_and_how_to_start_a_bridge() {
        let sentence = CALL.connection(&io::Error::from(io::ErrorKind::ConnectionRefused));
        for words in ["127.0.0.1:7411", "vbridge serve --guest", "--bridge"] {
            assert!(sentence.contains(words), "{sentence}");
        }
    }
}
