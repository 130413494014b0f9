//! Why a command of the agent failed, and how that looks to a caller.
//!
//! ```text
//!   agent's error ─▶ Refused ─▶ its class and words say what: no such command, no such file, frozen …
//!   channel, libvirt ─▶ Away ─▶ UNAVAILABLE, or what the bridge says elsewhere in such a case
//!   too long an answer ─▶ TooMuch ─▶ RESOURCE_EXHAUSTED
//!   nonsense ─▶ Garbled ─▶ INTERNAL
//! ```
//!
//! The agent has but two classes of errors, so its words have to be read. What the system says stands at their end, where no
//! path or name of a caller's can stand for it.

use libvirt::raw::api::ErrorNumber;
use tonic::Status;

use super::refusal;
use crate::{
    channel::ProtocolError,
    error::{Reason, harmless},
    limits::CHANNEL_ERROR_TEXT,
};

/// What libvirt puts before the agent's own words.
const UNABLE: &str = "unable to execute QEMU agent command '";

/// Why a command was not carried out, or why that is not known.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The agent has answered with an error.
    Refused {
        command: String,
        /// The error's class; empty through libvirt, which does not pass it on.
        class: String,
        /// Its words, made harmless.
        said: String,
    },
    /// The agent was not reached, or has not answered: the command may be carried out all the same.
    Away { reason: Reason, why: String },
    /// The command or its answer is larger than the channel takes. It may have been carried out.
    TooMuch { command: String, why: String },
    /// The answer makes no sense.
    Garbled { command: String, why: String },
}

/// What the agent's words mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    NoCommand,
    Frozen,
    NotFound,
    Denied,
    Directory,
    NoSpace,
    Exists,
    Other,
}

/// What systems say at the end of the agent's sentence: Linux and its kin, then Windows.
const ENDS: [(&str, Meaning); 12] = [
    ("No such file or directory", Meaning::NotFound),
    ("Not a directory", Meaning::NotFound),
    ("Permission denied", Meaning::Denied),
    ("Operation not permitted", Meaning::Denied),
    ("Read-only file system", Meaning::Denied),
    ("Is a directory", Meaning::Directory),
    ("No space left on device", Meaning::NoSpace),
    ("Disk quota exceeded", Meaning::NoSpace),
    ("File exists", Meaning::Exists),
    ("cannot find the file specified", Meaning::NotFound),
    ("cannot find the path specified", Meaning::NotFound),
    ("Access is denied", Meaning::Denied),
];

// === impl Failure ===

impl Failure {
    pub(super) fn refused(command: &str, class: &str, said: &str) -> Self {
        Self::Refused {
            command: command.to_owned(),
            class: class.to_owned(),
            said: said.to_owned(),
        }
    }

    pub(super) fn garbled(command: &str, why: &(impl ToString + ?Sized)) -> Self {
        Self::Garbled {
            command: command.to_owned(),
            why: brief(&why.to_string()),
        }
    }

    /// What went wrong on a channel of the agent's own.
    pub(super) fn of_channel(command: &str, error: &ProtocolError) -> Self {
        let why = brief(&error.to_string());
        let away = |reason| Self::Away {
            reason,
            why: why.clone(),
        };
        match error {
            ProtocolError::AgentError { class, description } => {
                Self::refused(command, class, description)
            }
            ProtocolError::Timeout { .. } | ProtocolError::HalfSent { .. } => {
                away(Reason::GuestSilent)
            }
            ProtocolError::Closed { .. } | ProtocolError::Io { .. } => away(Reason::SessionEnded),
            ProtocolError::TooLarge { .. } => Self::TooMuch {
                command: command.to_owned(),
                why,
            },
            ProtocolError::ParseError(_) | ProtocolError::NotText { .. } => {
                Self::garbled(command, error)
            }
            _ => away(Reason::GuestUnreachable),
        }
    }

    /// What libvirt says that went wrong.
    pub(super) fn of_libvirt(command: &str, error: &libvirt::Error) -> Self {
        use libvirt::Error;
        let why = brief(&error.to_string());
        let away = |reason| Self::Away {
            reason,
            why: why.clone(),
        };
        let too_much = || Self::TooMuch {
            command: command.to_owned(),
            why: why.clone(),
        };
        let remote = match error {
            Error::Libvirt(remote) => remote,
            Error::Deadline { .. } => return away(Reason::GuestSilent),
            Error::TooLarge { .. } | Error::Encode(_) => return too_much(),
            Error::Decode(_) => return Self::garbled(command, error),
            Error::Auth(_) => return away(Reason::HypervisorDenied),
            _ => return away(Reason::HypervisorUnreachable),
        };
        // The agent's own error is libvirt's too, with a number that means anything.
        if let Some((_, said)) = remote.message.split_once(UNABLE) {
            let said = said.split_once("': ").map_or(said, |(_, said)| said);
            return Self::refused(command, "", &brief(said));
        }
        match remote.kind() {
            Some(
                ErrorNumber::AgentUnresponsive
                | ErrorNumber::AgentUnsynced
                | ErrorNumber::AgentCommandTimeout
                | ErrorNumber::OperationTimeout,
            ) => away(Reason::GuestSilent),
            Some(ErrorNumber::AgentCommandFailed) => Self::refused(command, "", &why),
            Some(ErrorNumber::OperationInvalid | ErrorNumber::NoDomain) => away(Reason::GuestOff),
            Some(ErrorNumber::ArgumentUnsupported) => away(Reason::GuestUnreachable),
            Some(ErrorNumber::OperationDenied | ErrorNumber::AccessDenied) => {
                away(Reason::HypervisorDenied)
            }
            // A string that does not fit into its packet.
            Some(ErrorNumber::Rpc) => too_much(),
            _ => away(Reason::HypervisorRefused),
        }
    }

    /// What the agent's words mean; nothing if it has said none.
    pub(super) fn meaning(&self) -> Option<Meaning> {
        let Self::Refused { class, said, .. } = self else {
            return None;
        };
        let said = said.trim_end_matches(|c: char| !c.is_alphanumeric());
        let is_about_command = said.starts_with("Command ") || said.starts_with("The command ");
        if is_about_command && said.contains(" has been disabled") {
            return Some(match said.contains("frozen") {
                true => Meaning::Frozen,
                false => Meaning::NoCommand,
            });
        }
        if class == "CommandNotFound"
            || is_about_command && said.ends_with("has not been found")
            || said.ends_with("is not currently supported")
        {
            return Some(Meaning::NoCommand);
        }
        let meaning = ENDS.iter().find(|(end, _)| said.ends_with(end));
        Some(meaning.map_or(Meaning::Other, |(_, meaning)| *meaning))
    }

    /// The agent's own words, if it has said any.
    pub(super) fn said(&self) -> Option<&str> {
        match self {
            Self::Refused { said, .. } => Some(said),
            _ => None,
        }
    }

    /// How it looks to a caller. Files that are not there are other things for most commands.
    pub(super) fn status(&self) -> Status {
        use refusal::Reason as Contract;
        let message = self.to_string();
        match self {
            Self::Away { reason, .. } => reason.status("", message),
            Self::TooMuch { .. } => Reason::AgentTooMuch.status("", message),
            Self::Garbled { .. } => Reason::AgentGarbled.status("", message),
            Self::Refused { .. } => match self.meaning() {
                Some(Meaning::NoCommand) => refusal::cannot(message),
                Some(Meaning::Frozen) => refusal::frozen(None),
                Some(Meaning::NotFound) => Contract::FileNotFound.status(message),
                Some(Meaning::Denied) => Contract::PermissionDenied.status(message),
                Some(Meaning::Directory) => Contract::WrongFileType.status(message),
                Some(Meaning::NoSpace) => Contract::NoSpace.status(message),
                Some(Meaning::Exists) => Contract::FileExists.status(message),
                Some(Meaning::Other) | None => Reason::AgentRefused.status("", message),
            },
        }
    }
}

/// A text from elsewhere that has to fit into a header with the rest of the sentence.
fn brief(text: &str) -> String {
    let brief: String = text.chars().take(CHANNEL_ERROR_TEXT).collect();
    harmless(&brief)
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused { command, said, .. } => {
                write!(f, "qemu-guest-agent refuses {command}: {said}")
            }
            Self::Away { why, .. } => write!(f, "qemu-guest-agent can't be asked: {why}"),
            Self::TooMuch { command, why } => write!(
                f,
                "{command} of qemu-guest-agent, or its answer, is too large and may have been carried out: {why}"
            ),
            Self::Garbled { command, why } => write!(
                f,
                "qemu-guest-agent answers {command} in a form that it should not have: {why}"
            ),
        }
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        failure.status()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tonic::Code;
    use tonic_types::StatusExt as _;

    use super::*;

    fn refused(class: &str, said: &str) -> (Code, String) {
        let status = Failure::refused("guest-x", class, said).status();
        let info = status.get_error_details().error_info().cloned();
        (status.code(), info.unwrap().reason)
    }

    #[test]
    fn the_agents_words_become_the_reasons_of_the_api() {
        for (said, code, reason) in [
            (
                "failed to open file '/x' (mode: 'r'): No such file or directory",
                Code::NotFound,
                "FILE_NOT_FOUND",
            ),
            (
                "failed to open file '/x', error was: 'Permission denied'.",
                Code::PermissionDenied,
                "PERMISSION_DENIED",
            ),
            (
                "failed to read file: Is a directory",
                Code::FailedPrecondition,
                "WRONG_FILE_TYPE",
            ),
            (
                "failed to flush: No space left on device",
                Code::ResourceExhausted,
                "NO_SPACE",
            ),
            (
                "failed to open C:\\x: The system cannot find the file specified.",
                Code::NotFound,
                "FILE_NOT_FOUND",
            ),
            (
                "Command guest-x has been disabled: the agent is in frozen state",
                Code::FailedPrecondition,
                "FILESYSTEM_FROZEN",
            ),
            (
                "Command guest-x has been disabled: the command is not allowed",
                Code::Unimplemented,
                "AGENT_CANNOT",
            ),
            (
                "The command guest-x has not been found",
                Code::Unimplemented,
                "AGENT_CANNOT",
            ),
            (
                "failed to lookup user 'x'",
                Code::FailedPrecondition,
                "AGENT_REFUSED",
            ),
        ] {
            assert_eq!(
                refused("GenericError", said),
                (code, reason.to_owned()),
                "{said}"
            );
        }
        let other = refused("CommandNotFound", "no");
        assert_eq!(other, (Code::Unimplemented, "AGENT_CANNOT".to_owned()));
    }

    #[test]
    fn a_callers_path_does_not_speak_for_the_system() {
        let said =
            "failed to open file '/No such file or directory/x' (mode: 'r'): Input/output error";
        assert_eq!(refused("GenericError", said).1, "AGENT_REFUSED");
    }

    #[test]
    fn a_channel_that_fails_is_unavailable_and_nonsense_is_internal() {
        let channel = || "\"a\" at /a".to_owned();
        let errors = [
            (
                ProtocolError::Timeout {
                    channel: channel(),
                    what: "nothing came",
                    after: std::time::Duration::from_secs(1),
                },
                Code::Unavailable,
            ),
            (
                ProtocolError::Closed {
                    channel: channel(),
                    dropped: 3,
                },
                Code::Unavailable,
            ),
            (
                ProtocolError::Connect {
                    channel: channel(),
                    source: io::ErrorKind::NotFound.into(),
                },
                Code::Unavailable,
            ),
            (
                ProtocolError::TooLarge {
                    channel: channel(),
                    what: "a message",
                    limit: 1,
                },
                Code::ResourceExhausted,
            ),
            (
                ProtocolError::ParseError("\u{1b}[2J".to_owned()),
                Code::Internal,
            ),
            (
                ProtocolError::AgentError {
                    class: "GenericError".to_owned(),
                    description: "no".to_owned(),
                },
                Code::FailedPrecondition,
            ),
        ];
        for (error, code) in errors {
            let status = Failure::of_channel("guest-x", &error).status();
            assert_eq!(status.code(), code, "{status}");
            assert!(!status.message().chars().any(char::is_control), "{status}");
        }
    }

    #[test]
    fn a_hypervisor_that_is_not_reached_is_unavailable() {
        let error = libvirt::Error::Deadline {
            procedure: "QEMU_DOMAIN_AGENT_COMMAND",
            deadline: std::time::Duration::from_secs(1),
        };
        let status = Failure::of_libvirt("guest-x", &error).status();
        assert_eq!(status.code(), Code::Unavailable);
        let status = Failure::of_libvirt("guest-x", &libvirt::Error::StreamOver).status();
        assert_eq!(status.code(), Code::Unavailable);
    }
}
