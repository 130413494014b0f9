//! Checks what a caller wants to run, against the promises of `exec.proto`.
//!
//! Nothing here looks at the guest: whether there is such a program or user is seen when it is spawned.

use std::{os::fd::OwnedFd, time::Duration};

use rustix::process::Signal;
use tonic::Status;
use vbridge_api::guest::v1::{
    self as api, EnvironmentVariable, ExecRunRequest, ExecStart, TerminalSize,
};

use super::ring::Full;
use crate::{
    error,
    limits::{
        DEFAULT_KILL_GRACE, DEFAULT_OUTPUT_BUFFER, DEFAULT_RUN_TIMEOUT, MAX_ARGUMENT,
        MAX_ARGUMENTS, MAX_ARGUMENTS_TOTAL, MAX_EXEC_TIMEOUT, MAX_KILL_GRACE, MAX_LABEL, MAX_NAME,
        MAX_OUTPUT_BUFFER, MAX_RUN_OUTPUT, MAX_RUN_STDIN, MAX_VARIABLES, MIN_OUTPUT_BUFFER,
    },
    policy::Places,
    source::clock,
};

/// The shell of [`api::Command::shell`].
const SHELL: &str = "/bin/sh";

/// The variable TERM of a terminal that names no other.
const DEFAULT_TERM: &str = "xterm-256color";

/// The size of a terminal that names no other.
const DEFAULT_SIZE: Size = Size {
    columns: 80,
    rows: 24,
};

/// A terminal's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) columns: u16,
    pub(crate) rows: u16,
}

/// A terminal to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Terminal {
    pub(crate) size: Size,
    pub(crate) term: String,
}

/// What a process's input and outputs are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Streams {
    pub(crate) terminal: Option<Terminal>,
    pub(crate) stdin: bool,
    pub(crate) merge_stderr: bool,
    /// The bound of what is kept of the outputs, together or each ([`Full`]).
    pub(crate) kept_bytes: usize,
    pub(crate) full: Full,
}

/// A command that keeps to the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) argv: Vec<String>,
    /// It came as a text for the shell.
    pub(crate) is_shell: bool,
    pub(crate) environment: Vec<(String, Option<String>)>,
    pub(crate) clear_environment: bool,
    pub(crate) directory: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) kill_grace: Duration,
    pub(crate) keep_running: bool,
    pub(crate) label: String,
    pub(crate) streams: Streams,
}

/// What the policy has granted a command.
#[derive(Debug, Default)]
pub(crate) struct Granted {
    /// The working directory itself, whatever its path leads to by now.
    pub(crate) directory: Option<OwnedFd>,
    /// Places in the limits, which a process holds until it has ended.
    pub(crate) places: Option<Places>,
}

/// A command for Run, and its input.
pub(crate) fn run(request: ExecRunRequest) -> Result<(Command, Vec<u8>), Status> {
    if request.stdin.len() > MAX_RUN_STDIN {
        let description = format!(
            "has {} bytes, and {MAX_RUN_STDIN} is the most: use Start",
            request.stdin.len()
        );
        return Err(error::invalid_field("stdin", description));
    }
    let most = u64::try_from(MAX_RUN_OUTPUT).unwrap_or(u64::MAX);
    let kept_bytes = match request.max_output_bytes {
        None => MAX_RUN_OUTPUT,
        Some(bytes) if bytes <= most => usize::try_from(bytes).unwrap_or(MAX_RUN_OUTPUT),
        Some(_) => {
            let description = format!("must be at most {most}: use Start for more");
            return Err(error::invalid_field("max_output_bytes", description));
        }
    };
    let streams = Streams {
        terminal: None,
        stdin: !request.stdin.is_empty(),
        merge_stderr: request.merge_stderr,
        kept_bytes,
        full: Full::DropNewest,
    };
    let command = command(request.command, streams, Some(DEFAULT_RUN_TIMEOUT))?;
    Ok((command, request.stdin))
}

/// A command for Start.
pub(crate) fn start(request: ExecStart) -> Result<Command, Status> {
    let bytes = request.output_buffer_bytes;
    let kept_bytes = match bytes.map(usize::try_from) {
        None => DEFAULT_OUTPUT_BUFFER,
        Some(Ok(bytes)) if (MIN_OUTPUT_BUFFER..=MAX_OUTPUT_BUFFER).contains(&bytes) => bytes,
        Some(_) => {
            let description = format!(
                "must be {MIN_OUTPUT_BUFFER} to {MAX_OUTPUT_BUFFER}; leave it out for 1 MiB"
            );
            return Err(error::invalid_field("output_buffer_bytes", description));
        }
    };
    let streams = Streams {
        terminal: request.terminal.map(terminal).transpose()?,
        stdin: !request.no_stdin,
        merge_stderr: request.merge_stderr,
        kept_bytes,
        full: match request.drop_oldest {
            true => Full::DropOldest,
            false => Full::Hold,
        },
    };
    command(request.command, streams, None)
}

/// A size that a terminal can have.
pub(crate) fn size(field: &str, message: &TerminalSize) -> Result<Size, Status> {
    let side = |value: u32| u16::try_from(value).ok().filter(|value| *value > 0);
    match (side(message.columns), side(message.rows)) {
        (Some(columns), Some(rows)) => Ok(Size { columns, rows }),
        _ => Err(error::invalid_field(
            field,
            "must have 1 to 65,535 columns and rows",
        )),
    }
}

/// A signal by its number. The names for real-time signals are the C library's own, and so they can't be sent.
pub(crate) fn signal(field: &str, number: i32) -> Result<Signal, Status> {
    Signal::from_named_raw(number)
        .ok_or_else(|| error::invalid_field(field, "must be a signal's number, 1 to 31"))
}

fn terminal(message: api::Terminal) -> Result<Terminal, Status> {
    text("terminal.type", &message.r#type, MAX_NAME)?;
    let size = message.size.as_ref();
    Ok(Terminal {
        size: size.map_or(Ok(DEFAULT_SIZE), |it| self::size("terminal.size", it))?,
        term: match message.r#type.is_empty() {
            true => DEFAULT_TERM.to_owned(),
            false => message.r#type,
        },
    })
}

fn command(
    message: Option<api::Command>,
    streams: Streams,
    timeout: Option<Duration>,
) -> Result<Command, Status> {
    let message = message.ok_or_else(|| error::invalid_field("command", "must be set"))?;
    text("command.label", &message.label, MAX_LABEL)?;
    text("command.user", &message.user, MAX_NAME)?;
    text("command.group", &message.group, MAX_NAME)?;
    let directory = &message.working_directory;
    text("command.working_directory", directory, MAX_ARGUMENT)?;
    if !directory.is_empty() && !directory.starts_with('/') {
        let description = "must be an absolute path";
        return Err(error::invalid_field(
            "command.working_directory",
            description,
        ));
    }
    let some = |text: String| (!text.is_empty()).then_some(text);
    Ok(Command {
        is_shell: !message.shell.is_empty(),
        argv: argv(message.argv, message.shell)?,
        environment: environment(message.environment)?,
        clear_environment: message.clear_environment,
        directory: some(message.working_directory),
        user: some(message.user),
        group: some(message.group),
        timeout: match message.timeout {
            None => timeout,
            Some(given) => Some(
                clock::duration(&given)
                    .filter(|given| !given.is_zero() && *given <= MAX_EXEC_TIMEOUT)
                    .ok_or_else(|| {
                        error::invalid_field(
                            "command.timeout",
                            "must be above 0, and at most 7 days",
                        )
                    })?,
            ),
        },
        kill_grace: match message.kill_grace {
            None => DEFAULT_KILL_GRACE,
            Some(given) => clock::duration(&given)
                .filter(|given| *given <= MAX_KILL_GRACE)
                .ok_or_else(|| error::invalid_field("command.kill_grace", "must be 0 to 60 s"))?,
        },
        keep_running: message.keep_running,
        label: message.label,
        streams,
    })
}

fn argv(argv: Vec<String>, shell: String) -> Result<Vec<String>, Status> {
    let argv = match (argv.is_empty(), shell.is_empty()) {
        (false, true) => argv,
        (true, false) => {
            text("command.shell", &shell, MAX_ARGUMENT)?;
            vec![SHELL.to_owned(), "-c".to_owned(), shell]
        }
        (true, true) => {
            let description = "must not be empty, unless shell is set";
            return Err(error::invalid_field("command.argv", description));
        }
        (false, false) => {
            let description = "must be empty if shell is set: choose one";
            return Err(error::invalid_field("command.argv", description));
        }
    };
    error::at_most("command.argv", argv.len(), MAX_ARGUMENTS)?;
    for (index, argument) in argv.iter().enumerate() {
        text(&format!("command.argv[{index}]"), argument, MAX_ARGUMENT)?;
    }
    if argv.first().is_some_and(String::is_empty) {
        let description = "must be the program's name";
        return Err(error::invalid_field("command.argv[0]", description));
    }
    total("command.argv", argv.iter().map(String::len))?;
    Ok(argv)
}

fn environment(
    variables: Vec<EnvironmentVariable>,
) -> Result<Vec<(String, Option<String>)>, Status> {
    error::at_most("command.environment", variables.len(), MAX_VARIABLES)?;
    for (index, variable) in variables.iter().enumerate() {
        let field = format!("command.environment[{index}]");
        let name = &variable.name;
        if name.is_empty() || name.contains(['=', '\0']) {
            let description = "must not be empty, and have no \"=\" and no NUL";
            return Err(error::invalid_field(format!("{field}.name"), description));
        }
        let value = variable.value.as_deref().unwrap_or_default();
        // Both are one string for execve(2). The value itself is never told.
        text(&format!("{field}.name"), name, MAX_NAME)?;
        text(
            &format!("{field}.value"),
            value,
            MAX_ARGUMENT - MAX_NAME - 1,
        )?;
    }
    let value = |variable: &EnvironmentVariable| variable.value.as_ref().map_or(0, String::len);
    total(
        "command.environment",
        variables.iter().map(|it| it.name.len() + value(it)),
    )?;
    let pairs = variables.into_iter().map(|it| (it.name, it.value));
    Ok(pairs.collect())
}

/// A text that the kernel takes: without NUL, and not too long.
fn text(field: &str, text: &str, most: usize) -> Result<(), Status> {
    let len = text.len();
    if len > most {
        let description = format!("has {len} bytes, and {most} is the most");
        return Err(error::invalid_field(field, description));
    }
    match text.contains('\0') {
        true => Err(error::invalid_field(field, "must not have a NUL")),
        false => Ok(()),
    }
}

fn total(field: &str, lengths: impl Iterator<Item = usize>) -> Result<(), Status> {
    let sum: usize = lengths.sum();
    match sum > MAX_ARGUMENTS_TOTAL {
        true => Err(error::invalid_field(
            field,
            format!("has {sum} bytes together, and {MAX_ARGUMENTS_TOTAL} is the most"),
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
