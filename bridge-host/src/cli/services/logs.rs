//! `vbridge logs`: a guest's journal as journalctl(1) shows it, in its short format, with times in UTC.

use std::time::{Duration, SystemTime};

use clap::Args;
use serde_json::{Value, json};
use vbridge_api::guest::v1::{LogEntry, ServicesLogsRequest, services_client::ServicesClient};

use super::super::{
    client::{Client, GuestOptions},
    failure::Failure,
    output::{Output, print, print_compact, printable, printable_to},
    say,
    units::{date, json_time},
};

/// Characters of one line of a message that are shown. The guest cuts messages off at 64 KiB.
const MAX_LINE: usize = 64 * 1024;

/// Months as syslog writes them.
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Severities as journalctl(1) calls them, the worst first.
const SEVERITIES: [&str; 8] = [
    "emerg", "alert", "crit", "err", "warning", "notice", "info", "debug",
];

#[derive(Debug, Args)]
pub(in crate::cli) struct Options {
    #[command(flatten)]
    guest: GuestOptions,
    /// Only of this unit; may be given again
    #[arg(long = "unit", short = 'u', value_name = "UNIT")]
    units: Vec<String>,
    /// Go on with what comes, until Ctrl-C
    #[arg(long, short = 'f')]
    follow: bool,
    /// The last N entries. All unless said, or 10 with --follow
    #[arg(long, short = 'n', value_name = "N")]
    lines: Option<u32>,
    /// From then on: 2026-01-02 12:00:00 (UTC), or how long ago, like 1h
    #[arg(long, short = 'S', value_name = "TIME", value_parser = moment)]
    since: Option<SystemTime>,
    /// Until then
    #[arg(long, short = 'U', value_name = "TIME", value_parser = moment)]
    until: Option<SystemTime>,
    /// Only this severity and worse: emerg, alert, crit, err, warning, notice, info or debug, or 0 to 7
    #[arg(long, short = 'p', value_name = "SEVERITY", value_parser = severity)]
    priority: Option<u32>,
    /// Only of this boot
    #[arg(long, short = 'b')]
    boot: bool,
    /// Only the kernel's
    #[arg(long, short = 'k')]
    kernel: bool,
}

/// Shows entries as they come.
pub(in crate::cli) async fn run(options: &Options) -> Result<(), Failure> {
    let client = Client::guest(&options.guest).await?;
    let mut service = ServicesClient::new(client.channel());
    let wanted = ServicesLogsRequest {
        units: options.units.clone(),
        follow: options.follow,
        lines: options.lines,
        since: options.since.map(Into::into),
        until: options.until.map(Into::into),
        priority: options.priority,
        this_boot: options.boot,
        after_cursor: String::new(),
        kernel: options.kernel,
    };
    let watched = client.watch(wanted, async |request| service.logs(request).await);
    let mut entries = watched.await?;
    // To look through a large journal takes its time, and to follow one has no end.
    while let Some(message) = client.next(&mut entries, None).await? {
        for entry in &message.entries {
            match options.guest.client.output {
                Output::Table => print(short(entry))?,
                Output::Json => print_compact(&json(entry))?,
            }
        }
        if message.skipped > 0 {
            say(&format!("entries left out: {}", message.skipped));
        }
    }
    Ok(())
}

/// An entry in journalctl's short format. Further lines of a message are indented, so that none can be taken for an entry.
fn short(entry: &LogEntry) -> String {
    let mut text = time(entry);
    for word in [&entry.hostname, &entry.identifier] {
        if !word.is_empty() {
            text.push(' ');
            text.push_str(&printable(word));
        }
    }
    if entry.pid != 0 {
        text.push_str(&format!("[{}]", entry.pid));
    }
    text.push_str(": ");
    let indent = " ".repeat(text.chars().count());
    for (i, line) in entry.message.trim_end().lines().enumerate() {
        if i > 0 {
            text.push('\n');
            text.push_str(&indent);
        }
        text.push_str(&printable_to(line, MAX_LINE));
    }
    text
}

/// `Jan 02 12:00:00`; dashes if it makes no sense.
fn time(entry: &LogEntry) -> String {
    // "2026-01-02T12:00:01Z"
    let date = date(entry.time.as_ref());
    let month = || {
        let month: usize = date.get(5..7)?.parse().ok()?;
        let month = MONTHS.get(month.checked_sub(1)?)?;
        Some(format!(
            "{month} {} {}",
            date.get(8..10)?,
            date.get(11..19)?
        ))
    };
    month().unwrap_or_else(|| "--- -- --:--:--".to_owned())
}

fn json(entry: &LogEntry) -> Value {
    json!({
        "time": json_time(entry.time.as_ref()),
        "unit": entry.unit,
        "identifier": entry.identifier,
        "pid": entry.pid,
        "priority": entry.priority,
        "message": entry.message,
        "cursor": entry.cursor,
        "hostname": entry.hostname,
    })
}

/// A moment on the command line.
fn moment(text: &str) -> Result<SystemTime, String> {
    let ago = |ago: Duration| SystemTime::now().checked_sub(ago);
    let parsed = match humantime::parse_duration(text) {
        Ok(duration) => ago(duration),
        Err(_) => humantime::parse_rfc3339_weak(text).ok(),
    };
    parsed
        .filter(|moment| *moment >= SystemTime::UNIX_EPOCH)
        .ok_or_else(|| {
            "it is no time; write it like \"2026-01-02 12:00:00\" (UTC), or how long ago: 1h"
                .to_owned()
        })
}

fn severity(text: &str) -> Result<u32, String> {
    let named = SEVERITIES.iter().position(|name| *name == text);
    let number = named.or_else(|| text.parse().ok().filter(|it| *it < SEVERITIES.len()));
    number.and_then(|it| it.try_into().ok()).ok_or_else(|| {
        let names = SEVERITIES.join(", ");
        format!("it is no severity; write 0 to 7, or one of {names}")
    })
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;

    fn entry(message: &str) -> LogEntry {
        LogEntry {
            time: Some(Timestamp {
                seconds: 1_767_355_201,
                nanos: 0,
            }),
            hostname: "web".into(),
            identifier: "nginx".into(),
            pid: 42,
            message: message.into(),
            ..LogEntry::default()
        }
    }

    #[test]
    fn an_entry_is_a_line_as_journalctl_writes_it() {
        let expected = "Jan 02 12:00:01 web nginx[42]: it's up";
        assert_eq!(short(&entry("it's up\n")), expected);
        let bare = LogEntry {
            message: "hi".into(),
            ..LogEntry::default()
        };
        assert_eq!(short(&bare), "--- -- --:--:--: hi");
    }

    #[test]
    fn no_line_of_a_message_can_pass_for_an_entry_or_harm_the_terminal() {
        let mut evil = entry("a\u{1b}[2J\nJan 02 12:00:01 web sshd[1]: b\r\u{202e}");
        evil.hostname = "w\nb".into();
        evil.identifier = "\u{9b}".into();
        let text = short(&evil);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[1].starts_with("                "), "{text}");
        assert!(
            text.is_ascii() && !text.contains(['\u{1b}', '\r']),
            "{text}"
        );
    }

    #[test]
    fn a_long_line_is_shown_whole() {
        let long = "x".repeat(10_000);
        assert!(short(&entry(&long)).ends_with(&long));
    }

    #[test]
    fn a_time_is_a_moment_or_how_long_ago_it_was() {
        let before = SystemTime::now();
        let hour = Duration::from_secs(3600);
        assert!(moment("1h").unwrap() >= before - hour);
        let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_355_200);
        assert_eq!(moment("2026-01-02 12:00:00"), Ok(noon));
        assert_eq!(moment("2026-01-02T12:00:00Z"), Ok(noon));
        for text in ["", "yesterday", "9999years", "--rotate"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_severity_has_a_name_and_a_number() {
        assert_eq!([severity("err"), severity("7")], [Ok(3), Ok(7)]);
        assert!(severity("8").is_err() && severity("bad").is_err());
    }
}
