//! What may be asked of a command, and what of it this agent can do.

use std::time::Duration;

use tonic::Status;
use vbridge_api::guest::v1::{Command, EnvironmentVariable, ExecRunRequest};

use crate::qemu::refusal::{at_most, cannot_field, invalid};

/// The shell of a line.
const SHELL: &str = "/bin/sh";

/// The PATH of a command that gets no other variables, as the guest's own agent has it.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// As `exec.proto` promises.
const MAX_ARGUMENTS: usize = 4096;
const MAX_ARGUMENT: usize = 128 * 1024 - 1;
const MAX_TOTAL: usize = 1024 * 1024;
const MAX_VARIABLES: usize = 256;
const MAX_VARIABLE_NAME: usize = 256;
const MAX_VARIABLE_VALUE: usize = 130_814;
const MAX_STDIN: usize = 1024 * 1024;
const MAX_OUTPUT: usize = 1024 * 1024;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_TIMEOUT: Duration = Duration::from_secs(7 * 24 * 3600);
const MAX_KILL_GRACE: Duration = Duration::from_secs(60);

/// A command to be run, checked.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) program: String,
    pub(super) arguments: Vec<String>,
    /// All that it gets; absent: the agent's own.
    pub(super) environment: Option<Vec<String>>,
    pub(super) stdin: Vec<u8>,
    pub(super) max_output: usize,
    pub(super) merge_stderr: bool,
    pub(super) timeout: Duration,
}

pub(super) fn parse(request: ExecRunRequest) -> Result<Asked, Status> {
    let command = request.command;
    let command = command.ok_or_else(|| invalid("command", "must be set"))?;
    if request.stdin.len() > MAX_STDIN {
        let len = request.stdin.len();
        let description = format!("has {len} bytes, and {MAX_STDIN} is the most");
        return Err(invalid("stdin", description));
    }
    let max_output = match request.max_output_bytes {
        None => MAX_OUTPUT,
        Some(most) => usize::try_from(most)
            .ok()
            .filter(|most| *most <= MAX_OUTPUT)
            .ok_or_else(|| {
                let description = format!("is {most}, and {MAX_OUTPUT} is the most");
                invalid("max_output_bytes", description)
            })?,
    };
    refuse(&command)?;
    let timeout = timeout(&command)?;
    let environment = environment(command.environment, command.clear_environment)?;
    let (program, arguments) = arguments(command.argv, command.shell)?;
    Ok(Asked {
        program,
        arguments,
        environment,
        stdin: request.stdin,
        max_output,
        merge_stderr: request.merge_stderr,
        timeout,
    })
}

/// Refuses what this agent can't do.
fn refuse(command: &Command) -> Result<(), Status> {
    let wishes = [
        (
            "command.working_directory",
            !matches!(command.working_directory.as_str(), "" | "/"),
            "can't choose a command's directory: begin a shell line with cd",
        ),
        (
            "command.user",
            !command.user.is_empty(),
            "runs all commands as its own user: use setpriv, runuser or su",
        ),
        (
            "command.group",
            !command.group.is_empty(),
            "runs all commands with its own group: use setpriv or sg",
        ),
        (
            "command.label",
            !command.label.is_empty(),
            "has no list of commands in which a label could stand",
        ),
    ];
    match wishes.iter().find(|(_, is_wished, _)| *is_wished) {
        Some((field, _, why)) => Err(cannot_field(field, why)),
        None => Ok(()),
    }
}

/// How long it is waited for. That nothing is killed makes the time before a SIGKILL pointless, and no less valid.
fn timeout(command: &Command) -> Result<Duration, Status> {
    if let Some(grace) = command.kill_grace {
        let grace = Duration::try_from(grace).ok();
        if grace.is_none_or(|grace| grace > MAX_KILL_GRACE) {
            return Err(invalid("command.kill_grace", "must be 0 to 60 s"));
        }
    }
    let Some(timeout) = command.timeout else {
        return Ok(DEFAULT_TIMEOUT);
    };
    Duration::try_from(timeout)
        .ok()
        .filter(|timeout| !timeout.is_zero() && *timeout <= MAX_TIMEOUT)
        .ok_or_else(|| invalid("command.timeout", "must be above 0 and at most 7 days"))
}

/// The agent gives a command its own variables, or others in their place.
fn environment(
    variables: Vec<EnvironmentVariable>,
    clear: bool,
) -> Result<Option<Vec<String>>, Status> {
    at_most("command.environment", variables.len(), MAX_VARIABLES)?;
    if !clear {
        return match variables.is_empty() {
            true => Ok(None),
            false => Err(cannot_field(
                "command.environment",
                "can't add variables to its own, only replace all of them: set clear_environment as well, or begin a shell line with them",
            )),
        };
    }
    let mut total = 0_usize;
    let mut environment = Vec::new();
    for (index, variable) in variables.into_iter().enumerate() {
        let field = |of| format!("command.environment[{index}].{of}");
        let name = variable.name;
        if name.is_empty() || name.len() > MAX_VARIABLE_NAME || name.contains(['=', '\0']) {
            let description = "must have 1 to 256 bytes, without \"=\" and NUL";
            return Err(invalid(&field("name"), description));
        }
        // Without a value there is nothing to take away.
        let Some(value) = variable.value else {
            continue;
        };
        if value.len() > MAX_VARIABLE_VALUE || value.contains('\0') {
            let description = format!("must have at most {MAX_VARIABLE_VALUE} bytes, and no NUL");
            return Err(invalid(&field("value"), description));
        }
        let entry = format!("{name}={value}");
        total = total.saturating_add(entry.len());
        if total > MAX_TOTAL {
            let description = format!("has more than {MAX_TOTAL} bytes, which is the most");
            return Err(invalid("command.environment", description));
        }
        environment.push(entry);
    }
    if !environment.iter().any(|entry| entry.starts_with("PATH=")) {
        environment.push(PATH.to_owned());
    }
    Ok(Some(environment))
}

/// The program, and its arguments without it.
fn arguments(argv: Vec<String>, shell: String) -> Result<(String, Vec<String>), Status> {
    if argv.is_empty() == shell.is_empty() {
        return Err(invalid("command", "must have either argv or shell"));
    }
    if !shell.is_empty() {
        check("command.shell", &shell)?;
        return Ok((SHELL.to_owned(), vec!["-c".to_owned(), shell]));
    }
    at_most("command.argv", argv.len(), MAX_ARGUMENTS)?;
    let mut total = 0_usize;
    for (index, argument) in argv.iter().enumerate() {
        check(&format!("command.argv[{index}]"), argument)?;
        total = total.saturating_add(argument.len());
    }
    if total > MAX_TOTAL {
        let description = format!("has {total} bytes, and {MAX_TOTAL} is the most");
        return Err(invalid("command.argv", description));
    }
    let mut argv = argv.into_iter();
    match argv.next() {
        Some(program) if !program.is_empty() => Ok((program, argv.collect())),
        _ => Err(invalid("command.argv[0]", "must name a program")),
    }
}

fn check(field: &str, argument: &str) -> Result<(), Status> {
    if argument.len() > MAX_ARGUMENT {
        let description = format!(
            "has {} bytes, and {MAX_ARGUMENT} is the most",
            argument.len()
        );
        return Err(invalid(field, description));
    }
    match argument.contains('\0') {
        true => Err(invalid(field, "must not have a NUL")),
        false => Ok(()),
    }
}
