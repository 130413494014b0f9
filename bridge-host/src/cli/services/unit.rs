//! `vbridge service`: units as systemctl(1) shows them.
//!
//! | exit status | why |
//! |---|---|
//! | 0 | the unit is active, or what was asked for is done |
//! | 1 | it could not be done or seen |
//! | 3 | the unit that is shown is inactive or failed |
//! | 4 | there is no such unit |

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use vbridge_api::guest::v1::{
    ServiceAction, ServicesControlRequest, ServicesGetRequest, ServicesListRequest, Unit,
    services_client::ServicesClient,
};

use super::super::{
    client::{Client, GuestOptions, Twice, Wire},
    failure::Failure,
    output::{Output, facts, listing, print, print_pretty, printable},
    say,
    units::{bytes, date, json_time},
};

/// Exit status for a unit that does not run, as with systemctl(1).
const NOT_RUNNING: u8 = 3;

/// Exit status for a unit that is not there, as with systemctl(1).
const NO_SUCH_UNIT: u8 = 4;

/// What the guest calls a unit that is not there. The bridge has another word for a guest that is not.
const NOT_FOUND: &str = "NOT_FOUND";

/// States of units that are listed unless all are wanted: all but inactive.
const SHOWN: [&str; 7] = [
    "active",
    "reloading",
    "refreshing",
    "failed",
    "activating",
    "deactivating",
    "maintenance",
];

/// The same for who asks for help.
const EXIT_STATUS: &str = "Exit status: 0, the unit is active, or what was asked for is done; 1, it could not be done or seen;
3, the unit that is shown is inactive or failed; 4, there is no such unit.";

#[derive(Debug, Args)]
#[command(after_help = EXIT_STATUS)]
pub(in crate::cli) struct Options {
    #[command(flatten)]
    guest: GuestOptions,
    /// The unit, like nginx or backup.timer; a pattern like 'nginx*' lists. All services unless said
    #[arg(value_name = "UNIT")]
    unit: Option<String>,
    /// What to do to it. Shows it unless said
    #[arg(value_enum, value_name = "ACTION")]
    action: Option<Action>,
    /// List inactive units, too, and those that only have files
    #[arg(long, short = 'a', conflicts_with = "action")]
    all: bool,
    /// List units of this kind: service, socket, timer, mount …
    #[arg(
        long = "type",
        short = 't',
        value_name = "KIND",
        conflicts_with = "unit"
    )]
    kind: Option<String>,
    /// Do not wait until it is done
    #[arg(long, requires = "action")]
    no_wait: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Action {
    Start,
    Stop,
    Restart,
    Reload,
    Enable,
    Disable,
}

impl Action {
    fn message(self) -> ServiceAction {
        match self {
            Self::Start => ServiceAction::Start,
            Self::Stop => ServiceAction::Stop,
            Self::Restart => ServiceAction::Restart,
            Self::Reload => ServiceAction::Reload,
            Self::Enable => ServiceAction::Enable,
            Self::Disable => ServiceAction::Disable,
        }
    }
}

/// Lists units, shows one, or does something to it.
pub(in crate::cli) async fn run(options: &Options) -> Result<(), Failure> {
    let client = Client::guest(&options.guest).await?;
    let service = ServicesClient::new(client.channel());
    match (options.unit.as_deref(), options.action) {
        (Some(unit), Some(action)) => control(options, &client, service, unit, action).await,
        (Some(unit), None) if !is_pattern(unit) => show(options, &client, service, unit).await,
        (unit, _) => list(options, &client, service, unit).await,
    }
}

fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

async fn list(
    options: &Options,
    client: &Client,
    mut service: ServicesClient<Wire>,
    pattern: Option<&str>,
) -> Result<(), Failure> {
    let kind = options.kind.as_ref().map(|kind| format!("*.{kind}"));
    let states = match options.all {
        true => &[][..],
        false => &SHOWN[..],
    };
    let wanted = ServicesListRequest {
        patterns: pattern.map(str::to_owned).or(kind).into_iter().collect(),
        active_states: states.iter().map(|state| (*state).to_owned()).collect(),
        all: options.all,
    };
    let asked = client.ask(wanted, async |request| service.list(request).await);
    let answer = asked.await?;
    match options.guest.client.output {
        Output::Json => {
            let units: Vec<Value> = answer.units.iter().map(listed).collect();
            print_pretty(&json!({ "units": units, "more": answer.more }))
        }
        Output::Table if answer.units.is_empty() => print("no units"),
        Output::Table => {
            if answer.more {
                say("there are more units than the guest lists: name a pattern");
            }
            print(table(&answer.units, options.all))
        }
    }
}

/// As `systemctl list-units` has it, and with files their state.
fn table(units: &[Unit], with_files: bool) -> String {
    let mut header = vec!["UNIT", "LOAD", "ACTIVE", "SUB", "DESCRIPTION"];
    if with_files {
        header.insert(1, "FILE");
    }
    let rows = units.iter().map(|unit| {
        let mut row = vec![
            printable(&unit.name),
            printable(&unit.load_state),
            printable(&unit.active_state),
            printable(&unit.sub_state),
            printable(&unit.description),
        ];
        if with_files {
            row.insert(1, printable(&unit.file_state));
        }
        row
    });
    listing(&header, rows)
}

async fn show(
    options: &Options,
    client: &Client,
    mut service: ServicesClient<Wire>,
    unit: &str,
) -> Result<(), Failure> {
    let name = unit.to_owned();
    // The status itself is needed for the exit status.
    let asked = client.asked(ServicesGetRequest { name }, async |request| {
        service.get(request).await
    });
    let answer = asked.await;
    let answer = answer.map_err(|status| failure(client.sentence(&status), &status))?;
    let unit = answer.unit.unwrap_or_default();
    match options.guest.client.output {
        Output::Json => print_pretty(&json(&unit))?,
        Output::Table => print(details(&unit))?,
    }
    shown(&unit)
}

/// The end of having shown it.
fn shown(unit: &Unit) -> Result<(), Failure> {
    match unit.active_state.as_str() {
        "inactive" | "failed" => Err(Failure::Status(NOT_RUNNING)),
        _ => Ok(()),
    }
}

async fn control(
    options: &Options,
    client: &Client,
    mut service: ServicesClient<Wire>,
    unit: &str,
    action: Action,
) -> Result<(), Failure> {
    let request = ServicesControlRequest {
        name: unit.to_owned(),
        action: action.message().into(),
        no_wait: options.no_wait,
    };
    // A service takes the time that it takes to start: the guest says when it has been too long.
    let ordered = client.again(Twice::Harmful, async || {
        let request = client.request(request.clone());
        let answer = service.control(request).await;
        answer.map(tonic::Response::into_inner)
    });
    let answer = ordered.await;
    let answer = answer.map_err(|status| failure(client.sentence(&status), &status))?;
    match options.guest.client.output {
        // Like systemctl: nothing is said of what is done.
        Output::Table => Ok(()),
        Output::Json => print_pretty(&json!({
            "unit": json(&answer.unit.unwrap_or_default()),
            "job_result": answer.job_result,
        })),
    }
}

/// What a call has failed with; a unit that is not there has an exit status of its own.
fn failure(sentence: String, status: &Status) -> Failure {
    let failure = Failure::new(sentence);
    match is_no_such_unit(status) {
        true => failure.with_status(NO_SUCH_UNIT),
        false => failure,
    }
}

fn is_no_such_unit(status: &Status) -> bool {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.as_str());
    status.code() == Code::NotFound && reason == Some(NOT_FOUND)
}

fn details(unit: &Unit) -> String {
    let with = |word: &str, more: &str| match more {
        "" => printable(word),
        more => format!("{} ({})", printable(word), printable(more)),
    };
    let some = |number: u64, text: String| match number {
        0 => String::new(),
        _ => text,
    };
    let count = |number: Option<u64>| number.map(|it| it.to_string()).unwrap_or_default();
    facts([
        ("Unit", printable(&unit.name)),
        ("Description", printable(&unit.description)),
        ("Loaded", with(&unit.load_state, &unit.file_state)),
        ("File", printable(&unit.path)),
        ("Active", with(&unit.active_state, &unit.sub_state)),
        ("Since", date(unit.state_time.as_ref())),
        (
            "Main PID",
            some(unit.main_pid.into(), unit.main_pid.to_string()),
        ),
        ("Tasks", count(unit.tasks)),
        ("Memory", unit.memory_bytes.map(bytes).unwrap_or_default()),
        (
            "CPU",
            unit.cpu_nanoseconds
                .map(|it| format!("{:?}", std::time::Duration::from_millis(it / 1_000_000)))
                .unwrap_or_default(),
        ),
        (
            "Restarts",
            some(unit.restarts.into(), unit.restarts.to_string()),
        ),
        (
            "Result",
            match unit.result.as_str() {
                "" | "success" => String::new(),
                result => with(result, &unit.exit_code.to_string()),
            },
        ),
    ])
}

fn listed(unit: &Unit) -> Value {
    json!({
        "name": unit.name,
        "description": unit.description,
        "load_state": unit.load_state,
        "active_state": unit.active_state,
        "sub_state": unit.sub_state,
        "file_state": unit.file_state,
        "path": unit.path,
    })
}

fn json(unit: &Unit) -> Value {
    let mut value = listed(unit);
    value["main_pid"] = unit.main_pid.into();
    value["state_time"] = json_time(unit.state_time.as_ref());
    value["memory_bytes"] = json!(unit.memory_bytes);
    value["tasks"] = json!(unit.tasks);
    value["cpu_nanoseconds"] = json!(unit.cpu_nanoseconds);
    value["restarts"] = unit.restarts.into();
    value["result"] = unit.result.clone().into();
    value["exit_code"] = unit.exit_code.into();
    value
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tonic_types::ErrorDetails;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    fn parse(arguments: &[&str]) -> Result<Options, clap::Error> {
        let arguments = std::iter::once(&"service").chain(arguments);
        Cli::try_parse_from(arguments).map(|cli| cli.options)
    }

    #[test]
    fn a_guest_comes_first_then_the_unit_and_what_to_do_to_it() {
        let options = parse(&["web", "nginx", "restart", "--no-wait"]).unwrap();
        assert_eq!(options.unit.as_deref(), Some("nginx"));
        assert_eq!(options.action, Some(Action::Restart));
        assert!(parse(&["web"]).unwrap().unit.is_none());
        assert!(parse(&["web", "nginx", "explode"]).is_err());
        assert!(parse(&["web", "nginx", "--no-wait"]).is_err());
        assert!(parse(&["web", "nginx", "--type", "timer"]).is_err());
    }

    #[test]
    fn only_the_guests_own_word_means_that_there_is_no_such_unit_which_is_status_4() {
        let status = |reason: &str| {
            let details =
                ErrorDetails::with_error_info(reason, "vbridge", std::collections::HashMap::new());
            Status::with_error_details(Code::NotFound, "", details)
        };
        for (status, exit_status) in [
            (status("NOT_FOUND"), 4),
            (status("GUEST_NOT_FOUND"), 1),
            (Status::not_found(""), 1),
            (Status::unavailable(""), 1),
        ] {
            let failure = failure("a sentence".to_owned(), &status);
            assert_eq!(failure.exit_status(), exit_status, "{status:?}");
            assert_eq!(failure.sentence(), Some("a sentence"));
        }
    }

    #[test]
    fn a_unit_that_does_not_run_is_shown_with_status_3() {
        for (state, exit_status) in [
            ("active", 0),
            ("activating", 0),
            ("reloading", 0),
            ("inactive", 3),
            ("failed", 3),
        ] {
            let unit = Unit {
                active_state: state.into(),
                ..Unit::default()
            };
            let ended = shown(&unit).map_or_else(|failure| failure.exit_status(), |()| 0);
            assert_eq!(ended, exit_status, "{state}");
        }
    }

    #[test]
    fn what_a_guest_says_of_a_unit_can_not_harm_the_terminal() {
        let evil = || "a\u{1b}[2J\n".to_owned();
        let unit = Unit {
            name: evil(),
            description: evil(),
            load_state: evil(),
            active_state: evil(),
            sub_state: evil(),
            file_state: evil(),
            path: evil(),
            result: evil(),
            ..Unit::default()
        };
        assert!(!details(&unit).contains('\u{1b}'));
        let table = table(&[unit], true);
        assert!(!table.contains('\u{1b}'));
        assert_eq!(table.lines().count(), 2, "{table}");
    }

    #[test]
    fn a_unit_is_shown_with_what_is_known_of_it() {
        let unit = Unit {
            name: "nginx.service".into(),
            load_state: "loaded".into(),
            file_state: "enabled".into(),
            active_state: "failed".into(),
            sub_state: "failed".into(),
            result: "exit-code".into(),
            exit_code: 7,
            ..Unit::default()
        };
        let text = details(&unit);
        for words in ["loaded (enabled)", "failed (failed)", "exit-code (7)"] {
            assert!(text.contains(words), "{text}");
        }
        assert!(
            !text.contains("Main PID") && !text.contains("Memory"),
            "{text}"
        );
    }
}
