//! The journal, as `journalctl` reads it.
//!
//! Of lines since a time, journalctl gives the first ones (systemd 252), and the last ones are what is asked for. So it is
//! asked twice: backwards for where they begin, and then from there.
//!
//! The program is a child that lives as long as its [`Journal`]: dropped, it is killed. Nothing is read of it that nobody
//! takes, so it waits for a caller who does. What a caller says reaches it only as `--flag=value` with values that were
//! checked, and after `--` there is nothing but our own.

use std::{
    io,
    path::Path,
    process::{ExitStatus, Stdio},
};

use prost_types::Timestamp;
use tokio::{
    io::AsyncReadExt as _,
    process::{Child, ChildStderr, ChildStdout, Command},
    time::timeout,
};
use tonic::Status;
use vbridge_api::guest::v1::{ServicesLogsRequest, ServicesLogsResponse};

use super::{
    Systemd, UnitName, brief,
    entry::{self, FIELDS},
    lines::{Line, Lines},
};
use crate::{
    error::{self, Reason, invalid_field},
    limits::{
        JOURNAL_END, LOG_BATCH_BYTES, LOG_BATCH_ENTRIES, MAX_CURSOR, MAX_JOURNAL_ERROR,
        MAX_LOG_LINE, MAX_UNIT_NAMES,
    },
    services::aside,
};

/// Where programs of the system are, whatever the agent's own environment says.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Entries that come before those that are followed, if nothing else is asked for.
const FOLLOWED: u32 = 10;

/// The field that is read of entries whose place alone is wanted.
const SEARCHED: &str = "PRIORITY";

/// Largest severity's number.
const DEBUG: u32 = 7;

/// 9999-12-31T23:59:59Z: what systemd has for the last moment.
const LAST_SECOND: i64 = 253_402_300_799;

/// What the program is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Query {
    /// Its arguments, which say too where to begin; but with `search`.
    arguments: Vec<String>,
    search: Option<Search>,
}

/// The query begins at the last of these entries.
#[derive(Debug, PartialEq, Eq)]
struct Search {
    arguments: Vec<String>,
    /// How the query begins if there is none.
    otherwise: String,
}

/// Entries as they come.
#[derive(Debug)]
pub(crate) struct Journal {
    child: Child,
    lines: Lines<ChildStdout>,
    /// None when it has said all.
    errors: Option<ChildStderr>,
    /// The last that it has said of errors.
    said: Vec<u8>,
    is_over: bool,
}

// === impl Query ===

impl Query {
    /// What is asked for, checked.
    pub(crate) fn new(request: &ServicesLogsRequest) -> Result<Self, Status> {
        let filters = filters(request)?;
        let since = match &request.since {
            Some(_) if !request.after_cursor.is_empty() => {
                let why = "and after_cursor say both where to begin: give one of them";
                return Err(invalid_field("since", why));
            }
            Some(time) => Some(format!("--since=@{}", moment("since", time)?)),
            None => None,
        };
        let mut arguments = Vec::new();
        if request.follow {
            arguments.push("--follow".to_owned());
        }
        let goes_on = since.is_some() || !request.after_cursor.is_empty();
        let lines = match request.lines {
            None if request.follow && !goes_on => Some(FOLLOWED),
            lines => lines,
        };
        let mut search = None;
        match (lines, since) {
            (Some(lines @ 1..), Some(since)) => {
                if request.follow {
                    arguments.push("--no-tail".to_owned());
                }
                let lines = format!("--lines={lines}");
                let mut arguments = vec!["--reverse".to_owned(), lines, since.clone()];
                arguments.extend_from_slice(&filters);
                search = Some(Search {
                    arguments: beginning(SEARCHED, arguments),
                    otherwise: since,
                });
            }
            // Of none it does not matter since when.
            (Some(lines), _) => arguments.push(format!("--lines={lines}")),
            (None, since) => {
                if request.follow {
                    arguments.push("--no-tail".to_owned());
                }
                arguments.extend(since);
            }
        }
        if !request.after_cursor.is_empty() {
            check_cursor(&request.after_cursor)
                .map_err(|why| invalid_field("after_cursor", why))?;
            arguments.push(format!("--after-cursor={}", request.after_cursor));
        }
        arguments.extend(filters);
        Ok(Self {
            arguments: beginning(FIELDS, arguments),
            search,
        })
    }
}

/// The arguments that every query has, and these.
fn beginning(fields: &str, arguments: Vec<String>) -> Vec<String> {
    let mut all = [
        "--output=json",
        &format!("--output-fields={fields}"),
        // Large fields would be null.
        "--all",
        "--no-pager",
        // No hints for people between the entries.
        "--quiet",
    ]
    .map(str::to_owned)
    .to_vec();
    all.extend(arguments);
    all
}

/// Which entries, wherever they begin. These arguments come last.
fn filters(request: &ServicesLogsRequest) -> Result<Vec<String>, Status> {
    error::at_most("units", request.units.len(), MAX_UNIT_NAMES)?;
    let mut arguments = Vec::new();
    for (i, unit) in request.units.iter().enumerate() {
        let field = || format!("units[{i}]");
        let unit = UnitName::parse(unit).map_err(|why| invalid_field(field(), why))?;
        arguments.push(format!("--unit={unit}"));
    }
    if let Some(time) = &request.until {
        arguments.push(format!("--until=@{}", moment("until", time)?));
    }
    if let Some(priority) = request.priority {
        if priority > DEBUG {
            let why = format!("{priority} is no severity: they are 0 to {DEBUG}");
            return Err(invalid_field("priority", why));
        }
        arguments.push(format!("--priority={priority}"));
    }
    if request.this_boot {
        arguments.push("--boot=0".to_owned());
    }
    if request.kernel {
        // --dmesg would be of this boot alone.
        arguments.extend(["--", "_TRANSPORT=kernel"].map(str::to_owned));
    }
    Ok(arguments)
}

/// Seconds since 1970, as systemd.time(7) has them behind an @.
fn moment(field: &str, time: &Timestamp) -> Result<String, Status> {
    let is_moment =
        (0..=LAST_SECOND).contains(&time.seconds) && (0..1_000_000_000).contains(&time.nanos);
    match is_moment {
        true => Ok(format!("{}.{:06}", time.seconds, time.nanos / 1000)),
        false => Err(invalid_field(field, "must be a time from 1970 to 9999")),
    }
}

/// A cursor is opaque, but not every text is one.
fn check_cursor(cursor: &str) -> Result<(), String> {
    if cursor.len() > MAX_CURSOR {
        return Err(format!("is longer than {MAX_CURSOR} bytes, and no cursor"));
    }
    let is_cursor = |c: char| c.is_ascii_alphanumeric() || "=;-_".contains(c);
    match cursor.starts_with('-') || !cursor.chars().all(is_cursor) {
        true => Err("is no cursor: take that of an entry".to_owned()),
        false => Ok(()),
    }
}

// === impl Systemd ===

impl Systemd {
    /// Begins to read the journal.
    pub(crate) async fn journal(&self, query: Query) -> Result<Journal, Status> {
        let Query {
            mut arguments,
            search,
        } = query;
        if let Some(search) = search {
            let mut journal = self.read_journal(search.arguments).await?;
            let mut begin = search.otherwise;
            while let Some(answer) = journal.next().await {
                if let Some(entry) = answer?.entries.pop() {
                    begin = format!("--cursor={}", entry.cursor);
                }
            }
            arguments.insert(0, begin);
        }
        self.read_journal(arguments).await
    }

    async fn read_journal(&self, arguments: Vec<String>) -> Result<Journal, Status> {
        let program = self.0.places.journalctl.clone();
        // To start a program may take as long as the disk does.
        aside(move || Journal::start(&program, &arguments))
            .await?
            .map_err(|error| {
                let message = format!("can't start the guest's journalctl: {error}");
                error::failure(Reason::CmdExecFailed, message)
            })
    }
}

// === impl Journal ===

impl Journal {
    /// Must be called within a runtime with I/O enabled.
    fn start(program: &Path, arguments: &[String]) -> io::Result<Self> {
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take();
        let stdout = stdout.ok_or_else(|| io::Error::other("it has no output"))?;
        Ok(Self {
            lines: Lines::new(stdout, MAX_LOG_LINE),
            errors: child.stderr.take(),
            child,
            said: Vec::new(),
            is_over: false,
        })
    }

    /// The next entries: those that are there already, at least one, none at the end. May be dropped while it waits, but
    /// for what it has taken then.
    pub(crate) async fn next(&mut self) -> Option<Result<ServicesLogsResponse, Status>> {
        if self.is_over {
            return None;
        }
        let mut answer = ServicesLogsResponse::default();
        let mut bytes = 0;
        loop {
            match self.line().await {
                Ok(Some(Line::Whole(line))) => {
                    bytes += line.len();
                    match entry::parse(&line) {
                        Some(entry) => answer.entries.push(entry),
                        None => answer.skipped += 1,
                    }
                }
                Ok(Some(Line::TooLong)) => answer.skipped += 1,
                Ok(None) => {
                    self.is_over = true;
                    return self.end().await.map(Err);
                }
                Err(error) => {
                    self.is_over = true;
                    return Some(Err(unreadable(&error.to_string())));
                }
            }
            let is_full = bytes >= LOG_BATCH_BYTES || answer.entries.len() >= LOG_BATCH_ENTRIES;
            if is_full || !self.lines.has_next() {
                return Some(Ok(answer));
            }
        }
    }

    /// The next line. What the program says of errors is taken meanwhile, or it might wait for that.
    async fn line(&mut self) -> io::Result<Option<Line>> {
        loop {
            tokio::select! {
                biased;
                line = self.lines.next() => return line,
                () = hear(&mut self.errors, &mut self.said), if self.errors.is_some() => {}
            }
        }
    }

    /// How the program has ended, if that was a failure.
    async fn end(&mut self) -> Option<Status> {
        let rest = async {
            while self.errors.is_some() {
                hear(&mut self.errors, &mut self.said).await;
            }
            self.child.wait().await
        };
        let why = match timeout(JOURNAL_END, rest).await {
            Ok(Ok(status)) if status.success() => return None,
            Ok(Ok(status)) => self.complaint(status),
            Ok(Err(error)) => error.to_string(),
            // It is killed when it is dropped.
            Err(_) => "it does not end".to_owned(),
        };
        Some(unreadable(&why))
    }

    /// Its last line.
    fn complaint(&self, status: ExitStatus) -> String {
        let said = String::from_utf8_lossy(&self.said);
        match said.trim().lines().next_back() {
            Some(line) => brief(line),
            None => status.to_string(),
        }
    }
}

/// Takes some of what is said, and keeps the end of it.
async fn hear(errors: &mut Option<ChildStderr>, said: &mut Vec<u8>) {
    let Some(pipe) = errors else {
        return;
    };
    let mut piece = [0; 512];
    match pipe.read(&mut piece).await {
        Ok(0) | Err(_) => *errors = None,
        Ok(length) => {
            said.extend_from_slice(&piece[..length]);
            said.drain(..said.len().saturating_sub(MAX_JOURNAL_ERROR));
        }
    }
}

fn unreadable(why: &str) -> Status {
    let message = format!("the guest's journalctl has failed: {why}");
    error::failure(Reason::SourceUnavailable, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(request: &ServicesLogsRequest) -> Vec<String> {
        let query = Query::new(request).unwrap();
        assert_eq!(query.search, None);
        its_own(query.arguments)
    }

    fn its_own(mut arguments: Vec<String>) -> Vec<String> {
        assert_eq!(arguments[0], "--output=json");
        arguments.split_off(5)
    }

    fn seconds(seconds: i64) -> Option<Timestamp> {
        Some(Timestamp { seconds, nanos: 0 })
    }

    #[test]
    fn what_is_asked_for_becomes_flags() {
        assert!(arguments(&ServicesLogsRequest::default()).is_empty());
        let request = ServicesLogsRequest {
            units: vec!["nginx".to_owned(), "a@b.timer".to_owned()],
            lines: Some(7),
            until: Some(Timestamp {
                seconds: 7,
                nanos: 1_500,
            }),
            priority: Some(3),
            this_boot: true,
            after_cursor: "s=ab;i=1".to_owned(),
            kernel: true,
            ..ServicesLogsRequest::default()
        };
        let expected = [
            "--lines=7",
            "--after-cursor=s=ab;i=1",
            "--unit=nginx.service",
            "--unit=a@b.timer",
            "--until=@7.000001",
            "--priority=3",
            "--boot=0",
            "--",
            "_TRANSPORT=kernel",
        ];
        assert_eq!(arguments(&request), expected);
        let since = ServicesLogsRequest {
            since: seconds(0),
            ..ServicesLogsRequest::default()
        };
        assert_eq!(arguments(&since), ["--since=@0.000000"]);
    }

    #[test]
    fn the_last_entries_since_a_time_are_looked_for_from_the_end() {
        let request = ServicesLogsRequest {
            units: vec!["nginx".to_owned()],
            follow: true,
            lines: Some(3),
            since: seconds(7),
            kernel: true,
            ..ServicesLogsRequest::default()
        };
        let query = Query::new(&request).unwrap();
        let search = query.search.unwrap();
        assert_eq!(search.otherwise, "--since=@7.000000");
        let filters = ["--unit=nginx.service", "--", "_TRANSPORT=kernel"];
        let expected = ["--reverse", "--lines=3", "--since=@7.000000"];
        assert_eq!(its_own(search.arguments), [expected, filters].concat());
        let expected = [&["--follow", "--no-tail"], &filters[..]].concat();
        assert_eq!(its_own(query.arguments), expected);
        let none = ServicesLogsRequest {
            lines: Some(0),
            since: seconds(7),
            ..ServicesLogsRequest::default()
        };
        assert_eq!(arguments(&none), ["--lines=0"]);
    }

    #[test]
    fn following_begins_with_ten_entries_unless_it_goes_on_from_somewhere() {
        let follow = ServicesLogsRequest {
            follow: true,
            ..ServicesLogsRequest::default()
        };
        assert_eq!(arguments(&follow), ["--follow", "--lines=10"]);
        let goes_on = ServicesLogsRequest {
            after_cursor: "s=1".to_owned(),
            ..follow.clone()
        };
        let expected = ["--follow", "--no-tail", "--after-cursor=s=1"];
        assert_eq!(arguments(&goes_on), expected);
        let some = ServicesLogsRequest {
            lines: Some(3),
            ..follow
        };
        assert_eq!(arguments(&some), ["--follow", "--lines=3"]);
    }

    #[test]
    fn what_is_no_value_is_refused_with_its_field() {
        type Change = fn(&mut ServicesLogsRequest);
        let cases: [(&str, Change); 9] = [
            ("units[0]", |it| it.units = vec!["--rotate".to_owned()]),
            ("units[1]", |it| {
                it.units = vec!["a".to_owned(), "b c".to_owned()];
            }),
            ("units:", |it| {
                it.units = vec!["a".to_owned(); MAX_UNIT_NAMES + 1];
            }),
            ("priority", |it| it.priority = Some(8)),
            ("after_cursor", |it| it.after_cursor = "-x".to_owned()),
            ("after_cursor", |it| it.after_cursor = "a b".to_owned()),
            ("since", |it| {
                it.since = seconds(-1);
            }),
            ("since", |it| {
                it.since = seconds(7);
                it.after_cursor = "s=1".to_owned();
            }),
            ("until", |it| {
                it.until = Some(Timestamp {
                    seconds: 0,
                    nanos: -1,
                });
            }),
        ];
        for (field, change) in cases {
            let mut request = ServicesLogsRequest::default();
            change(&mut request);
            let status = Query::new(&request).unwrap_err();
            assert!(status.message().starts_with(field), "{status}");
        }
    }
}
