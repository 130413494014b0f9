//! `vbridge exec` and `vbridge shell`: a command in a guest, as if it ran here.
//!
//! ```text
//!   stdin ──▶ input ──┐                        ┌──▶ stdout, stderr
//!   signals, size ────┴──▶ Exec.Start/Attach ──┤
//!                                              └──▶ the end: our exit status
//! ```
//!
//! | exit status | why |
//! |---|---|
//! | the command's | it has exited |
//! | 128 + N | signal N has ended it, or us |
//! | 124 | its `--time-limit` has passed, as with timeout(1) |
//! | 126, 127 | it can't be run, or is not there, as with a shell |
//! | 255 | the guest or the bridge can't be reached, or does not want it, or the command line makes no sense, as with ssh(1) |

mod escape;
mod input;
mod list;
mod session;
mod terminal;

use std::time::Duration;

use clap::Args;
use vbridge_api::guest::v1::{Command, EnvironmentVariable, ExecAttach, ExecStart};

use super::{
    client::{Client, GuestOptions},
    duration,
    failure::Failure,
    output::Output,
};
use escape::Choice;
use session::{Begin, Session};

/// Exit status for what is not the command's doing.
pub(super) const OURS: u8 = 255;

/// Whose login shell it is, the guest knows.
const LOGIN_SHELL: &str = r#"exec "${SHELL:-/bin/sh}" -l"#;

/// The same for who asks for help.
const EXIT_STATUS: &str = "Exit status: the command's; 128 + N, signal N has ended it, or this program; 124, its --time-limit has
passed; 126, it can't be run; 127, it is not there; 255, anything else that is not the command's doing.";

#[derive(Debug, Args)]
#[command(
    after_help = EXIT_STATUS,
    override_usage = "vbridge exec [OPTIONS] [NAME] -- COMMAND [ARGUMENT...]
       vbridge exec [OPTIONS] [NAME] --line LINE
       vbridge exec [OPTIONS] [NAME] --attach ID | --list"
)]
pub(super) struct Options {
    #[command(flatten)]
    guest: GuestOptions,
    #[command(flatten)]
    how: HowOptions,
    #[command(flatten)]
    way_out: EscapeOptions,
    /// Run it in a terminal of its own, as interactive programs want it
    #[arg(long, short = 't')]
    tty: bool,
    /// Give it no input
    #[arg(long, short = 'n')]
    no_stdin: bool,
    /// End it when it has run for so long
    #[arg(long, value_name = "TIME", value_parser = duration)]
    time_limit: Option<Duration>,
    /// Let it go on when the connection to it is lost
    #[arg(long)]
    keep_running: bool,
    /// Start it, print its id, and leave it running
    #[arg(long, short = 'd', conflicts_with_all = ["tty", "attach", "list"])]
    detach: bool,
    /// Go on with a command that was started before
    #[arg(long, value_name = "ID", conflicts_with_all = ["command", "line"])]
    attach: Option<String>,
    /// Show the commands that were started before
    #[arg(long, conflicts_with_all = ["command", "line", "attach"])]
    list: bool,
    /// A line for the guest's shell, instead of a program and its arguments
    #[arg(long, value_name = "LINE", conflicts_with = "command")]
    line: Option<String>,
    /// The program and its arguments; no shell looks at them
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = EXIT_STATUS)]
pub(super) struct ShellOptions {
    #[command(flatten)]
    guest: GuestOptions,
    #[command(flatten)]
    how: HowOptions,
    #[command(flatten)]
    way_out: EscapeOptions,
}

/// How to get away from a guest that does not answer.
#[derive(Debug, Args)]
struct EscapeOptions {
    /// In a terminal this character, typed at the beginning of a line, and then a dot leave the command; none: nothing does
    #[arg(long, value_name = "CHAR", default_value = escape::USUAL)]
    escape: Choice,
}

/// As whom and where a command runs.
#[derive(Debug, Args)]
struct HowOptions {
    /// Whose rights it has; the agent's own unless said
    #[arg(long, short = 'u', value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Where it runs; the user's home directory, or / without a user
    #[arg(long, short = 'C', value_name = "DIR")]
    directory: Option<String>,
    /// Sets a variable of its environment, or takes it away; may be given again
    #[arg(long, short = 'e', value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Start it with no variables but those of --env
    #[arg(long)]
    clear_env: bool,
}

/// Runs a command; its exit status becomes ours.
pub(super) async fn run(options: Options) -> Result<(), Failure> {
    exec(options)
        .await
        .map_err(|failure| failure.with_status(OURS))
}

async fn exec(mut options: Options) -> Result<(), Failure> {
    if options.list {
        return list::run(
            &Client::guest(&options.guest).await?,
            options.guest.client.output,
        )
        .await;
    }
    table_only(&options.guest)?;
    let begin = match options.attach.take() {
        Some(id) => Begin::Attach(ExecAttach {
            id,
            keep_running: options.keep_running.then_some(true),
            ..ExecAttach::default()
        }),
        None => Begin::Start(Box::new(ExecStart {
            command: Some(options.command()?),
            no_stdin: options.no_stdin || options.detach,
            // A command that nobody listens to is not to be held up.
            drop_oldest: options.detach,
            ..ExecStart::default()
        })),
    };
    let client = Client::guest(&options.guest).await?;
    let session = Session {
        begin,
        terminal: options.tty,
        input: !options.no_stdin,
        escape: options.way_out.escape,
        keep_running: options.keep_running || options.detach,
        detach: options.detach,
    };
    session.run(&client).await
}

/// A login shell: in a terminal if there is one here.
pub(super) async fn shell(options: ShellOptions) -> Result<(), Failure> {
    let run = async {
        table_only(&options.guest)?;
        let client = Client::guest(&options.guest).await?;
        let command = Command {
            argv: ["/bin/sh", "-c", LOGIN_SHELL].map(str::to_owned).into(),
            ..options.how.command()?
        };
        let session = Session {
            begin: Begin::Start(Box::new(ExecStart {
                command: Some(command),
                ..ExecStart::default()
            })),
            terminal: terminal::is_here(),
            input: true,
            escape: options.way_out.escape,
            keep_running: false,
            detach: false,
        };
        session.run(&client).await
    };
    run.await.map_err(|failure| failure.with_status(OURS))
}

/// What the command writes is passed on as it is.
fn table_only(options: &GuestOptions) -> Result<(), Failure> {
    match options.client.output {
        Output::Table => Ok(()),
        Output::Json => Err(Failure::new(
            "the command's own output is passed on as it is: leave out --output json",
        )),
    }
}

// === impl Options ===

impl Options {
    fn command(&mut self) -> Result<Command, Failure> {
        let argv = std::mem::take(&mut self.command);
        let shell = self.line.take().unwrap_or_default();
        if argv.is_empty() && shell.is_empty() {
            return Err(Failure::new(
                "which command? write it after `--`, or as a line with --line; `vbridge shell` opens a shell",
            ));
        }
        Ok(Command {
            argv,
            shell,
            timeout: self.time_limit.and_then(|limit| limit.try_into().ok()),
            keep_running: self.keep_running || self.detach,
            ..self.how.command()?
        })
    }
}

// === impl HowOptions ===

impl HowOptions {
    /// A command without its words.
    fn command(&self) -> Result<Command, Failure> {
        let (user, group) = match self.user.as_deref().map(|user| user.split_once(':')) {
            Some(Some((user, group))) => (user, group),
            Some(None) => (self.user.as_deref().unwrap_or_default(), ""),
            None => ("", ""),
        };
        Ok(Command {
            environment: self
                .env
                .iter()
                .map(|text| variable(text))
                .collect::<Result<_, _>>()?,
            clear_environment: self.clear_env,
            working_directory: self.directory.clone().unwrap_or_default(),
            user: user.to_owned(),
            group: group.to_owned(),
            ..Command::default()
        })
    }
}

fn variable(text: &str) -> Result<EnvironmentVariable, Failure> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    if name.is_empty() {
        return Err(Failure::new(
            "a variable needs a name: write --env NAME=VALUE, or --env NAME to take it away",
        ));
    }
    Ok(EnvironmentVariable {
        name: name.to_owned(),
        value,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    fn options(arguments: &[&str]) -> Options {
        let arguments = std::iter::once(&"exec").chain(arguments);
        Cli::try_parse_from(arguments).unwrap().options
    }

    #[test]
    fn words_after_the_dashes_are_the_commands_whatever_they_look_like() {
        let mut options = options(&[
            "web", "-u", "www:adm", "-e", "A=b=c", "-e", "B", "--", "ls", "-u", "--",
        ]);
        let command = options.command().unwrap();
        assert_eq!(command.argv, ["ls", "-u", "--"]);
        assert_eq!(
            (command.user.as_str(), command.group.as_str()),
            ("www", "adm")
        );
        let variables = command.environment.iter();
        let variables: Vec<_> = variables
            .map(|it| (it.name.as_str(), it.value.as_deref()))
            .collect();
        assert_eq!(variables, [("A", Some("b=c")), ("B", None)]);
    }

    #[test]
    fn a_command_is_needed_and_a_variable_has_a_name() {
        let sentence = |arguments: &[&str]| match options(arguments).command() {
            Err(Failure::Sentence(sentence)) => sentence,
            other => panic!("{other:?}"),
        };
        assert!(sentence(&["web"]).contains("which command"));
        assert!(sentence(&["-e", "=x", "--", "ls"]).contains("needs a name"));
    }

    #[test]
    fn a_detached_command_goes_on() {
        let command = options(&["-d", "--line", "sleep 9"]).command().unwrap();
        assert!(command.keep_running);
        assert_eq!(command.shell, "sleep 9");
    }
}
