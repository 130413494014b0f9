//! The command line.
//!
//! | module | what it does |
//! |---|---|
//! | `serve` | runs the bridge |
//! | `attach` | gives a domain the channel |
//! | `domain` | the domains of the bridge's hypervisors: lists, starts and stops them |
//! | `exec` | runs commands in a guest, and shells |
//! | `files` | copies and lists a guest's files |
//! | `machine` | shuts a guest down, freezes and thaws it |
//! | `ping`, `system`, `metrics`, `guests` | ask a running bridge and show the answer |
//! | `services` | a guest's systemd: `service`, `logs` |
//! | `tunnel` | connections into a guest and out of it: `connect`, `forward` |
//! | `client`, `proof` | how they reach the bridge, how often they try, and how they prove who they are |
//! | `failure` | how an error looks to the operator, and the exit status |
//! | `output` | tables for people, JSON for programs; text from guests made harmless |
//! | `units` | sizes, times and shares in words and in JSON |

mod attach;
mod client;
mod domain;
mod exec;
mod failure;
mod files;
mod guests;
mod machine;
mod metrics;
mod output;
mod ping;
mod proof;
mod serve;
mod service;
mod services;
mod system;
mod tunnel;
mod units;

use std::{env, ffi::OsStr, io::Write as _, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand, error::ErrorKind};
use tokio::runtime;

use failure::Failure;

/// Exit status of a command line that makes no sense.
const USAGE: u8 = 2;

/// gRPC to every guest on this machine, over virtio-serial.
#[derive(Debug, Parser)]
#[command(name = "vbridge", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the bridge: offer the gRPC services of guests on local addresses
    Serve(serve::Options),
    /// Give a libvirt domain the channel that makes it a guest
    Attach(attach::Options),
    /// Ask a guest for signs of life and measure how long they take
    Ping(ping::Options),
    /// Show what a guest is: system, kernel, agent
    Info(system::InfoOptions),
    /// Show how a guest does: CPU, memory, file systems
    Status(system::StatusOptions),
    /// Show a guest's counters and gauges, once or again and again
    Metrics(metrics::Options),
    /// Run a command in a guest: its input, output and exit status are yours
    Exec(Box<exec::Options>),
    /// Open a shell in a guest; ~. at the beginning of a line leaves it
    Shell(Box<exec::ShellOptions>),
    /// Watch how a guest does, drawn anew in the same place
    Top(metrics::TopOptions),
    /// Copy files and directories between here and a guest
    Cp(files::copy::Options),
    /// List a directory of a guest
    Ls(files::list::ListOptions),
    /// Show what is known of a guest's file
    Stat(files::list::StatOptions),
    /// Power a guest off, reboot or halt it
    Shutdown(machine::ShutdownOptions),
    /// Hold up writing to a guest's file systems, for a snapshot
    Freeze(machine::FreezeOptions),
    /// Let writing go on
    Thaw(machine::ThawOptions),
    /// Show a guest's services, start and stop them
    Service(services::unit::Options),
    /// Show a guest's logs, once or as they come
    Logs(services::logs::Options),
    /// Show the bridge's guests and whether they can be reached
    Guests(guests::Options),
    /// Show the domains of the bridge's hypervisors, start and stop them
    Domain(domain::Options),
    /// Join standard input and output to a connection in a guest
    Connect(tunnel::connect::Options),
    /// Forward local ports and sockets into a guest, or a guest's to here, until Ctrl-C
    Forward(tunnel::forward::Options),
}

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let command = env::args_os().nth(1);
            return usage(&error, mistake(command.as_deref().and_then(OsStr::to_str)));
        }
    };
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(sentence) = failure.sentence() {
                say(sentence);
            }
            ExitCode::from(failure.exit_status())
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    let mut builder = match &command {
        Command::Serve(_) => runtime::Builder::new_multi_thread(),
        _ => runtime::Builder::new_current_thread(),
    };
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("can't start: {error}")))?;
    let done = runtime.block_on(async {
        match command {
            Command::Serve(options) => serve::run(options).await,
            Command::Attach(options) => attach::run(&options).await,
            Command::Ping(options) => ping::run(&options).await,
            Command::Info(options) => system::info(&options).await,
            Command::Status(options) => system::status(&options).await,
            Command::Metrics(options) => metrics::run(&options).await,
            Command::Exec(options) => exec::run(*options).await,
            Command::Shell(options) => exec::shell(*options).await,
            Command::Top(options) => metrics::top(&options).await,
            Command::Cp(options) => files::copy::run(&options).await,
            Command::Ls(options) => files::list::list(&options).await,
            Command::Stat(options) => files::list::stat(&options).await,
            Command::Shutdown(options) => machine::shutdown(&options).await,
            Command::Freeze(options) => machine::freeze(&options).await,
            Command::Thaw(options) => machine::thaw(&options).await,
            Command::Service(options) => services::unit::run(&options).await,
            Command::Logs(options) => services::logs::run(&options).await,
            Command::Guests(options) => guests::run(&options).await,
            Command::Domain(options) => domain::run(&options).await,
            Command::Connect(options) => tunnel::connect::run(&options).await,
            Command::Forward(options) => tunnel::forward::run(options).await,
        }
    });
    // A look-up of a host name can't be cancelled: nobody waits for it.
    runtime.shutdown_background();
    done
}

/// One line on standard error. If nobody reads it, there is nobody to tell.
fn say(sentence: &str) {
    let _ = writeln!(std::io::stderr(), "vbridge: {sentence}");
}

/// The exit status of a mistake on the command line; where a command's own is passed on, one that it hardly has.
fn mistake(command: Option<&str>) -> u8 {
    match command {
        Some("exec" | "shell") => exec::OURS,
        _ => USAGE,
    }
}

/// Help goes out as clap writes it; anything else becomes one line.
fn usage(error: &clap::Error, status: u8) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(status)
        }
        _ => {
            say(&usage_sentence(&error.render().to_string()));
            ExitCode::from(status)
        }
    }
}

/// clap's first paragraph and its tips, without the usage below them.
fn usage_sentence(rendered: &str) -> String {
    let text = rendered.strip_prefix("error: ").unwrap_or(rendered);
    let text = text.split("\n\nUsage:").next().unwrap_or_default();
    let text = text
        .split("\n\nFor more information")
        .next()
        .unwrap_or_default();
    let words: Vec<&str> = text.split_whitespace().collect();
    let sentence = words.join(" ").replace(" tip: ", "; ");
    format!("{sentence}; see `vbridge --help`")
}

/// The longest time that can be asked for: above it, sums might overflow somewhere, and nobody waits for a month.
const MAX_DURATION: Duration = Duration::from_secs(30 * 24 * 3600);

/// A length of time on the command line: `500ms`, `10s`, `1m 30s`.
fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|_| "it is not a length of time; write it like 500ms, 10s or 2m".to_owned())?;
    if duration.is_zero() || duration > MAX_DURATION {
        return Err("it must be more than nothing and at most 30 days".into());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_all_that_it_takes_say_what_they_are_for_in_the_same_way() {
        let check = |text: Option<&clap::builder::StyledStr>, whose: &str| {
            let text = text.map(ToString::to_string).unwrap_or_default();
            let first = text.chars().next().unwrap_or_default();
            assert!(first.is_uppercase(), "{whose}: {text:?}");
            assert!(!text.ends_with('.'), "{whose}: {text:?}");
        };
        let mut program = Cli::command();
        program.build();
        for command in program.get_subcommands() {
            let name = command.get_name();
            check(command.get_about(), name);
            for argument in command.get_arguments() {
                check(argument.get_help(), &format!("{name} {argument}"));
                for value in argument.get_value_names().into_iter().flatten() {
                    let is_loud = value
                        .chars()
                        .all(|c| c.is_ascii_uppercase() || ":[]=.-".contains(c));
                    let is_flag = !argument.get_action().takes_values();
                    assert!(is_loud || is_flag, "{name} {argument}: {value}");
                }
            }
        }
    }

    #[test]
    fn a_mistake_is_status_2_but_255_where_a_commands_status_is_passed_on() {
        for (command, status) in [
            (Some("ping"), 2),
            (Some("exec"), 255),
            (Some("shell"), 255),
            (None, 2),
        ] {
            assert_eq!(mistake(command), status, "{command:?}");
        }
    }

    #[test]
    fn a_mistake_on_the_command_line_becomes_one_sentence() {
        for (arguments, words) in [
            (
                &["ping", "--cuont", "3"][..],
                &["'--cuont'", "'--count'"][..],
            ),
            (&["ping", "--count", "many"], &["'many'", "--count"]),
            (&["ping", "a/b"], &["a/b", "only letters"]),
            (&["serve", "--guest", "web"], &["NAME=unix:PATH"]),
            (
                &["serve", "--listen", "here"],
                &["\"here\"", "127.0.0.1:7411"],
            ),
            (&["info", "--timeout", "soon"], &["length of time"]),
            (&["metrics", "--count", "1"], &["--watch"]),
            (&["forward", "web", "8080"], &["\"8080\"", "8080:80"]),
            (&["forward", "web"], &["FORWARD"]),
            (&["connect", "web", "0"], &["\"0\"", "1 to 65535"]),
            (&["pong"], &["'pong'", "'ping'"]),
        ] {
            let arguments = std::iter::once(&"vbridge").chain(arguments);
            let error = Cli::try_parse_from(arguments).unwrap_err();
            let sentence = usage_sentence(&error.render().to_string());
            assert_eq!(sentence.lines().count(), 1, "{sentence}");
            for word in words {
                assert!(
                    sentence.contains(word),
                    "\"{sentence}\" does not say {word}"
                );
            }
        }
    }

    #[test]
    fn a_length_of_time_is_neither_nothing_nor_for_ever() {
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        for text in ["", "0s", "soon", "1", "10years", "-1s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
