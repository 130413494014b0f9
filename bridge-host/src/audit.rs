//! The audit log: a line of JSON for each call, when it is over.
//!
//! ```text
//!   a call begins ── a place for its line ──▶ under way ── ends ──▶ line ──▶ writer ──▶ file
//!                        │ none is free                                  ▲      │
//!                        └──▶ refused                                    └──────┘ can't be written: again and again
//! ```
//!
//! No call is carried out without its line: its place is kept for it from the beginning, and while lines can't be written there
//! are ever fewer places. After SIGHUP the file is opened anew, so that it can be rotated.
//!
//! | key | what it is |
//! |---|---|
//! | `time` | when the call began, in UTC |
//! | `caller` | who called; empty where nobody is asked |
//! | `peer` | where from: address and port, or `uid:` and the user |
//! | `guest` | whom the call was for; `bridge` is the bridge itself; empty if it named nobody |
//! | `method` | `package.Service/Method`, or the path of another request |
//! | `status` | gRPC's name of the status, also where the bridge refuses another request; else `HTTP` and a number |
//! | `received`, `sent` | bytes of bodies from the caller and to it |
//! | `ms` | how long it took, in milliseconds |
//! | `why` | why the bridge refused it, if it did |

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use serde::Serialize;
use tokio::sync::mpsc::{self, OwnedPermit, Receiver, Sender};
use tonic::Status;
use tracing::{error, info};

use crate::{
    error::{BridgeError, Reason},
    limits::{AUDIT_RETRY, MAX_AUDITED_CALLS},
};

/// What is written of a call.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) time: String,
    pub(crate) caller: String,
    pub(crate) peer: String,
    pub(crate) guest: String,
    pub(crate) method: String,
    pub(crate) status: String,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
}

/// Where calls find a place for their lines.
#[derive(Debug, Clone)]
pub(crate) struct Audit {
    lines: Sender<Line>,
    again: Arc<AtomicBool>,
}

/// A call's place.
#[derive(Debug)]
pub(crate) struct Slot(OwnedPermit<Line>);

impl Audit {
    /// Opens the file, and writes to it on a thread of its own until all that could is gone. The thread says at its end how many
    /// lines were not written.
    pub(crate) fn open(path: &Path) -> Result<(Self, thread::JoinHandle<usize>), BridgeError> {
        let failed = |source| BridgeError::Audit {
            path: path.to_owned(),
            source,
        };
        let file = open(path).map_err(failed)?;
        let (lines, receiver) = mpsc::channel(MAX_AUDITED_CALLS);
        let again = Arc::new(AtomicBool::new(false));
        let writer = Writer {
            path: path.to_owned(),
            file,
            again: Arc::clone(&again),
            failing: false,
        };
        let thread = thread::Builder::new()
            .name("audit".to_owned())
            .spawn(|| writer.run(receiver))
            .map_err(failed)?;
        Ok((Self { lines, again }, thread))
    }

    /// A place for a call's line.
    pub(crate) fn place(&self) -> Result<Slot, Status> {
        match self.lines.clone().try_reserve_owned() {
            Ok(permit) => Ok(Slot(permit)),
            Err(_) => Err(Reason::AuditStopped.status(
                "",
                format!("{MAX_AUDITED_CALLS} calls are under way or wait to be written to the audit log, and one without its line is not carried out; see whether the log can be written"),
            )),
        }
    }

    /// What has the file opened anew.
    pub(crate) fn rotation(&self) -> Rotation {
        Rotation(Arc::clone(&self.again))
    }
}

/// Has the file opened anew. It keeps nobody from ending the log.
#[derive(Debug, Clone)]
pub(crate) struct Rotation(Arc<AtomicBool>);

impl Rotation {
    /// Before the next line.
    pub(crate) fn reopen(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Slot {
    pub(crate) fn write(self, line: Line) {
        self.0.send(line);
    }
}

/// Where it is not there yet, it is for its owner alone.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

struct Writer {
    path: PathBuf,
    file: File,
    again: Arc<AtomicBool>,
    /// Whether the last attempt failed, which is logged once.
    failing: bool,
}

impl Writer {
    fn run(mut self, mut lines: Receiver<Line>) -> usize {
        while let Some(line) = lines.blocking_recv() {
            // Strings and numbers can be written as JSON.
            let Ok(mut text) = serde_json::to_vec(&line) else {
                continue;
            };
            text.push(b'\n');
            let mut rest = text.as_slice();
            while let Err(failure) = self.write(&text, &mut rest) {
                if !std::mem::replace(&mut self.failing, true) {
                    error!(
                        path = %self.path.display(), error = %failure,
                        "the audit log can't be written; calls will be refused when {MAX_AUDITED_CALLS} lines wait"
                    );
                }
                if lines.is_closed() {
                    // The bridge ends, and would wait for ever.
                    return 1 + lines.len();
                }
                thread::sleep(AUDIT_RETRY);
            }
            if std::mem::take(&mut self.failing) {
                info!(path = %self.path.display(), "the audit log is written again");
            }
        }
        0
    }

    /// Takes from `rest` what is written of `line`. A new file begins with a whole one.
    fn write<'a>(&mut self, line: &'a [u8], rest: &mut &'a [u8]) -> io::Result<()> {
        if self.again.swap(false, Ordering::Acquire) {
            match open(&self.path) {
                Ok(file) => (self.file, *rest) = (file, line),
                Err(error) => {
                    self.again.store(true, Ordering::Release);
                    return Err(error);
                }
            }
        }
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => *rest = rest.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn line(method: &str) -> Line {
        Line {
            time: "2026-11-30T00:00:00Z".to_owned(),
            caller: "ops".to_owned(),
            peer: "uid:0".to_owned(),
            guest: "web".to_owned(),
            method: method.to_owned(),
            status: "OK".to_owned(),
            received: 1,
            sent: 2,
            ms: 0.5,
            why: None,
        }
    }

    #[test]
    fn every_line_is_written_before_the_end_and_is_one_line_whatever_it_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let (audit, thread) = Audit::open(&path).unwrap();
        for method in ["a.B/C", "a\nb\u{1b}[2J\"", "ü"] {
            audit.place().unwrap().write(line(method));
        }
        drop(audit);
        assert_eq!(thread.join().unwrap(), 0);
        let text = std::fs::read_to_string(&path).unwrap();
        let methods: Vec<_> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .map(|line| line["method"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(methods, ["a.B/C", "a\nb\u{1b}[2J\"", "ü"]);
        assert!(!text.contains('\u{1b}'));
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_rotated_log_goes_on_in_a_new_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let (audit, thread) = Audit::open(&path).unwrap();
        std::fs::rename(&path, dir.path().join("old")).unwrap();
        audit.rotation().reopen();
        audit.place().unwrap().write(line("new"));
        drop(audit);
        thread.join().unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("\"new\""));
    }

    #[test]
    fn a_call_without_a_place_for_its_line_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (audit, _thread) = Audit::open(&dir.path().join("audit.jsonl")).unwrap();
        let mut places: Vec<_> = (0..MAX_AUDITED_CALLS)
            .map(|_| audit.place().unwrap())
            .collect();
        let status = audit.place().unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        places.pop();
        assert!(audit.place().is_ok());
    }

    #[test]
    fn a_log_that_can_not_be_opened_is_named() {
        let error = Audit::open(Path::new("/nonexistent/audit.jsonl")).unwrap_err();
        assert!(
            error.to_string().contains("/nonexistent/audit.jsonl"),
            "{error}"
        );
    }
}
