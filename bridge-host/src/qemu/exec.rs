//! `Exec.Run`: a command from its start to its end.
//!
//! ```text
//!   guest-exec ─▶ Waiting: guest-exec-status after 10 ms, 15 ms … 1 s ── exited ─▶ the answer
//!                    │ its time is over, or the caller has gone
//!                    ▼
//!                 Alone: asked every 30 s for an hour, so that the agent can forget it
//! ```
//!
//! The agent keeps what a command has written until it is asked, so it is asked in a task of its own, whatever becomes of the call.
//! It can't end a command: one whose time is over, or whose caller has gone, **runs on**. Nor does it tell how much it has thrown away
//! beyond its own 16 MiB: at least a byte is counted as dropped then.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};
use tonic::{Response, Status, metadata::MetadataValue};
use tonic_types::StatusExt as _;
use vbridge_api::guest::v1::{ExecRunRequest, ExecRunResponse, ExitStatus, exit_status::How};

use self::request::Asked;
use super::{
    agent::Agent,
    failure::{Failure, Meaning},
    refusal::{self, Reason},
};
use crate::{
    error,
    limits::{
        AGENT_POLL_ALONE, AGENT_POLL_END, AGENT_POLL_FAILURES, AGENT_POLL_FIRST, AGENT_POLL_MAX,
    },
};

mod request;

/// The header that says what an answer has no field for.
const NOTE: &str = "x-vbridge-note";

/// Since when the agent can have both outputs as one.
const MERGES: (u32, u32) = (8, 0);

#[derive(Debug, Deserialize)]
struct Started {
    pid: i64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Outcome {
    exited: bool,
    exitcode: Option<i64>,
    signal: Option<i64>,
    out_data: Option<String>,
    err_data: Option<String>,
    #[serde(default)]
    out_truncated: bool,
    #[serde(default)]
    err_truncated: bool,
}

/// What becomes of a command.
type Told = Result<Response<ExecRunResponse>, Status>;

pub(super) async fn run(agent: Arc<Agent>, request: ExecRunRequest) -> Told {
    let asked = request::parse(request)?;
    if asked.merge_stderr && !agent.is_at_least(MERGES) {
        let why = "can have both outputs as one only since QEMU 8.0: end the line with 2>&1";
        return Err(refusal::cannot_field("merge_stderr", why));
    }
    let place = agent.run_place()?;
    let (told, answer) = oneshot::channel();
    tokio::spawn(async move {
        let _place = place;
        accompany(&agent, asked, told).await;
    });
    answer.await.unwrap_or_else(|_| {
        // Only if the runtime ends.
        Err(error::Reason::SessionEnded.status("", "the bridge is stopping"))
    })
}

/// Stays with a command until its end, longer than its caller if need be.
async fn accompany(agent: &Agent, asked: Asked, mut told: oneshot::Sender<Told>) {
    let begun = Instant::now();
    let pid = match start(agent, &asked).await {
        Ok(pid) => pid,
        Err(status) => {
            let _ = told.send(Err(status));
            return;
        }
    };
    let waiting = tokio::select! {
        outcome = waited(agent, pid, begun, asked.timeout) => outcome,
        () = told.closed() => Ok(None),
    };
    let answer = match waiting {
        Ok(Some(outcome)) => {
            let _ = told.send(answer(outcome, &asked, begun.elapsed()).map(Response::new));
            return;
        }
        Ok(None) => Ok(out_of_time(pid, begun.elapsed())),
        Err(failure) => {
            let is_lost = !matches!(failure, Failure::Away { .. });
            let _ = told.send(Err(lost(pid, &failure)));
            if is_lost {
                return;
            }
            alone(agent, pid).await;
            return;
        }
    };
    let _ = told.send(answer);
    alone(agent, pid).await;
}

async fn start(agent: &Agent, asked: &Asked) -> Result<i64, Status> {
    let mut arguments = json!({
        "path": asked.program,
        "arg": asked.arguments,
        "capture-output": match asked.merge_stderr {
            true => json!("merged"),
            false => json!(true),
        },
    });
    if let Some(environment) = &asked.environment {
        arguments["env"] = json!(environment);
    }
    if !asked.stdin.is_empty() {
        arguments["input-data"] = json!(STANDARD.encode(&asked.stdin));
    }
    let started: Result<Started, _> = agent.ask("guest-exec", arguments).await;
    let started = started.map_err(|failure| {
        let message = failure.to_string();
        match failure.meaning() {
            Some(Meaning::NotFound) => Reason::CmdNotFound.status(message),
            Some(Meaning::NoCommand | Meaning::Frozen) | None => failure.status(),
            Some(_) => Reason::CmdExecFailed.status(message),
        }
    });
    Ok(started?.pid)
}

/// Waits for a command's end; nothing if its time is over before.
async fn waited(
    agent: &Agent,
    pid: i64,
    begun: Instant,
    timeout: Duration,
) -> Result<Option<Outcome>, Failure> {
    let mut wait = AGENT_POLL_FIRST;
    let mut failures = 0_u32;
    loop {
        let left = timeout.saturating_sub(begun.elapsed());
        sleep(wait.min(left)).await;
        match outcome(agent, pid).await {
            Ok(Some(outcome)) => return Ok(Some(outcome)),
            Ok(None) => failures = 0,
            // One answer that does not come in time is no reason to leave the command.
            Err(failure @ Failure::Away { .. }) => {
                failures = failures.saturating_add(1);
                if failures >= AGENT_POLL_FAILURES {
                    return Err(failure);
                }
            }
            Err(failure) => return Err(failure),
        }
        if begun.elapsed() >= timeout {
            return Ok(None);
        }
        wait = (wait + wait / 2).min(AGENT_POLL_MAX);
    }
}

/// How a command has ended; nothing while it runs. Who asks then is told once, and the agent forgets it.
async fn outcome(agent: &Agent, pid: i64) -> Result<Option<Outcome>, Failure> {
    let arguments = json!({ "pid": pid });
    let outcome: Outcome = agent.ask("guest-exec-status", arguments).await?;
    Ok(outcome.exited.then_some(outcome))
}

/// Asks about a command until it has ended, for nobody.
async fn alone(agent: &Agent, pid: i64) {
    let begun = Instant::now();
    while begun.elapsed() < AGENT_POLL_END {
        sleep(AGENT_POLL_ALONE).await;
        match outcome(agent, pid).await {
            Ok(None) | Err(Failure::Away { .. }) => {}
            // It has ended, or the agent does not know it any more.
            Ok(Some(_)) | Err(_) => return,
        }
    }
}

fn answer(outcome: Outcome, asked: &Asked, duration: Duration) -> Result<ExecRunResponse, Status> {
    let how = match (outcome.signal, outcome.exitcode) {
        (Some(signal), _) => Some(How::Signal(number(signal)?)),
        (None, Some(code)) => Some(How::Code(number(code)?)),
        (None, None) => None,
    };
    let (stdout, stdout_dropped_bytes) = output(outcome.out_data, outcome.out_truncated, asked)?;
    let (stderr, stderr_dropped_bytes) = output(outcome.err_data, outcome.err_truncated, asked)?;
    Ok(ExecRunResponse {
        status: Some(ExitStatus {
            how,
            // Up to when it was asked about.
            duration: duration.try_into().ok(),
            ..ExitStatus::default()
        }),
        stdout,
        stderr,
        stdout_dropped_bytes,
        stderr_dropped_bytes,
    })
}

/// A code or a signal. Windows' codes are unsigned, and are told with the bits that they have.
fn number(number: i64) -> Result<i32, Failure> {
    let signed = i32::try_from(number).ok();
    let number = signed.or_else(|| u32::try_from(number).ok().map(u32::cast_signed));
    number.ok_or_else(|| {
        let why = "the command's exit code or signal is out of all range";
        Failure::garbled("guest-exec-status", why)
    })
}

/// The bytes of an output that are returned, and how many are not.
fn output(
    data: Option<String>,
    is_truncated: bool,
    asked: &Asked,
) -> Result<(Vec<u8>, u64), Failure> {
    let bytes = STANDARD.decode(data.unwrap_or_default());
    let mut bytes = bytes.map_err(|error| Failure::garbled("guest-exec-status", &error))?;
    let dropped = bytes.len().saturating_sub(asked.max_output);
    bytes.truncate(asked.max_output);
    let dropped = u64::try_from(dropped).unwrap_or(u64::MAX);
    Ok((bytes, dropped.max(is_truncated.into())))
}

/// The answer for a command whose time is over, and which runs on.
fn out_of_time(pid: i64, duration: Duration) -> Response<ExecRunResponse> {
    let mut response = Response::new(ExecRunResponse {
        status: Some(ExitStatus {
            timed_out: true,
            duration: duration.try_into().ok(),
            ..ExitStatus::default()
        }),
        ..ExecRunResponse::default()
    });
    let note = format!(
        "the command runs on as process {pid}: qemu-guest-agent can't end it, and tells what it has written only then"
    );
    if let Ok(note) = MetadataValue::try_from(note) {
        response.metadata_mut().insert(NOTE, note);
    }
    response
}

/// A command was started, and how it ended can't be learned.
fn lost(pid: i64, failure: &Failure) -> Status {
    let status = failure.status();
    let message = format!(
        "the command was started as process {pid}, and how it ends can't be told: {}",
        status.message()
    );
    Status::with_error_details(status.code(), message, status.get_error_details())
}

#[cfg(test)]
mod tests;
