//! Starting, stopping and the like, and waiting until it is done.
//!
//! ```text
//!    listen for JobRemoved ──▶ ask ──▶ the job's name ──▶ JobRemoved with that name ──▶ its result
//!                               └─ a job may be over before its name is known: those are remembered
//! ```

use std::{collections::VecDeque, pin::pin};

use futures_util::StreamExt as _;
use tokio::time::timeout;
use tonic::Status;
use vbridge_api::guest::v1::{ServiceAction, Unit};
use zbus::{Connection, MatchRule, Message, MessageStream, OwnedObjectPath, message};

use super::{
    Systemd, UnitName, brief,
    bus::{MANAGER, MANAGER_PATH, SYSTEMD, call, manage, read, unreachable},
};
use crate::{
    error::{self, Reason},
    limits::{JOB_TIMEOUT, MAX_EARLY_JOBS},
};

/// What happens to jobs of the unit that contradict a new one: they make way, as with systemctl.
const REPLACE: &str = "replace";

/// What was changed for a unit's file: kind, link, destination.
type Changes = Vec<(String, String, String)>;

/// A job that is over: its id, its object, its unit, its result.
type Removed = (u32, OwnedObjectPath, String, String);

/// A job and who has said so: another than systemd may send such a signal, too.
#[derive(Debug, PartialEq, Eq)]
struct Job {
    sender: String,
    path: OwnedObjectPath,
}

impl Systemd {
    /// Does something to a unit. Returns the unit as it is then, and systemd's word for the job's end.
    pub(crate) async fn control(
        &self,
        name: &UnitName,
        action: ServiceAction,
        no_wait: bool,
    ) -> Result<(Unit, String), Status> {
        let connection = self.0.bus.connection().await?;
        let result = match method(action) {
            Some(method) => job(&connection, method, name, no_wait).await?,
            None => {
                change(&connection, action, name).await?;
                String::new()
            }
        };
        // It is done: that there is nothing to be seen of it any more is no failure.
        let unit = self.describe(name).await.unwrap_or_else(|_| Unit {
            name: name.to_string(),
            ..Unit::default()
        });
        Ok((unit, result))
    }
}

/// The method that makes a job of an action; none if the action takes no job.
fn method(action: ServiceAction) -> Option<&'static str> {
    match action {
        ServiceAction::Start => Some("StartUnit"),
        ServiceAction::Stop => Some("StopUnit"),
        ServiceAction::Restart => Some("RestartUnit"),
        ServiceAction::Reload => Some("ReloadUnit"),
        ServiceAction::ReloadOrRestart => Some("ReloadOrRestartUnit"),
        ServiceAction::TryRestart => Some("TryRestartUnit"),
        ServiceAction::Unspecified
        | ServiceAction::Enable
        | ServiceAction::Disable
        | ServiceAction::Mask
        | ServiceAction::Unmask
        | ServiceAction::ResetFailed => None,
    }
}

/// Changes what is written of a unit, or remembered of it.
async fn change(
    connection: &Connection,
    action: ServiceAction,
    name: &UnitName,
) -> Result<(), Status> {
    let names = [name.as_str()];
    let names = &names[..];
    // For good and not only until the next boot; nothing that is in the way is replaced.
    let (runtime, force) = (false, false);
    match action {
        ServiceAction::Enable => {
            let arguments = (names, runtime, force);
            let (has_install, changes): (bool, Changes) =
                manage(connection, "EnableUnitFiles", &arguments).await?;
            if !has_install && changes.is_empty() {
                return Err(error::failure(
                    Reason::JobFailed,
                    format!("{name} can't be enabled: its file does not say where ([Install])"),
                ));
            }
        }
        ServiceAction::Disable => {
            // Disabling what is not there succeeds.
            let _: String = manage(connection, "GetUnitFileState", &(name.as_str(),)).await?;
            let _: Changes = manage(connection, "DisableUnitFiles", &(names, runtime)).await?;
        }
        ServiceAction::Mask => {
            let arguments = (names, runtime, force);
            let _: Changes = manage(connection, "MaskUnitFiles", &arguments).await?;
        }
        ServiceAction::Unmask => {
            let _: Changes = manage(connection, "UnmaskUnitFiles", &(names, runtime)).await?;
        }
        ServiceAction::ResetFailed => {
            return manage(connection, "ResetFailedUnit", &(name.as_str(),)).await;
        }
        // What takes a job is not done here, and nothing is not asked for.
        _ => return Ok(()),
    }
    // As systemctl does: what is loaded learns of it.
    manage(connection, "Reload", &()).await
}

/// Has a job done. Returns its result; nothing if it is not waited for.
async fn job(
    connection: &Connection,
    method: &str,
    name: &UnitName,
    no_wait: bool,
) -> Result<String, Status> {
    let arguments = (name.as_str(), REPLACE);
    let asked = call(connection, MANAGER_PATH, MANAGER, method, &arguments);
    if no_wait {
        asked.await?;
        return Ok(String::new());
    }
    // Who is not subscribed is told of its own jobs alone, and by old versions of nothing. Being so already is an error,
    // and a version without signals is one that shows itself below.
    let _ = call(connection, MANAGER_PATH, MANAGER, "Subscribe", &()).await;
    let mut signals = removed_jobs(connection)
        .await
        .map_err(|error| unreachable(&error.to_string()))?;
    let result = match timeout(JOB_TIMEOUT, wait(asked, &mut signals)).await {
        Ok(result) => result?,
        Err(_) => {
            return Err(error::failure(
                Reason::DeadlineExceeded,
                format!("{name}: the job is not done after {JOB_TIMEOUT:?}, and goes on"),
            ));
        }
    };
    match result.as_str() {
        "done" | "skipped" => Ok(result),
        result => Err(error::failure(
            Reason::JobFailed,
            format!(
                "{name}: the job has ended with {:?}: its logs may say why",
                brief(result)
            ),
        )),
    }
}

async fn removed_jobs(connection: &Connection) -> zbus::Result<MessageStream> {
    let rule = MatchRule::builder()
        .msg_type(message::Type::Signal)
        .sender(SYSTEMD)
        .interface(MANAGER)
        .member("JobRemoved")
        .path(MANAGER_PATH)
        .build()?;
    MessageStream::for_match_rule(rule, connection, None).await
}

/// Asks for a job, and waits for its end. Signals are taken while the answer is not there yet: zbus reads on only when there
/// is room for them.
async fn wait(
    asked: impl Future<Output = Result<Message, Status>>,
    signals: &mut MessageStream,
) -> Result<String, Status> {
    let mut asked = pin!(asked);
    let mut job = None;
    let mut early = VecDeque::new();
    loop {
        let signal = tokio::select! {
            answer = &mut asked, if job.is_none() => {
                let asked = of(&answer?)?;
                if let Some((_, result)) = early.drain(..).find(|(job, _)| *job == asked) {
                    return Ok(result);
                }
                job = Some(asked);
                continue;
            }
            signal = signals.next() => signal,
        };
        let signal = match signal {
            Some(Ok(signal)) => signal,
            Some(Err(error)) => return Err(unreachable(&error.to_string())),
            None => return Err(unreachable("it was closed while a job was under way")),
        };
        // What can't be read is not systemd's.
        let Ok((_, path, _, result)) = read::<Removed>(&signal) else {
            continue;
        };
        let removed = Job {
            sender: sender(&signal),
            path,
        };
        match &job {
            Some(job) if *job == removed => return Ok(result),
            Some(_) => {}
            None => {
                if early.len() == MAX_EARLY_JOBS {
                    early.pop_front();
                }
                early.push_back((removed, result));
            }
        }
    }
}

/// The job that an answer names.
fn of(answer: &Message) -> Result<Job, Status> {
    Ok(Job {
        sender: sender(answer),
        path: read(answer)?,
    })
}

/// Who has sent a message: the bus itself sees to it that this is true.
fn sender(message: &Message) -> String {
    let header = message.header();
    header.sender().map(ToString::to_string).unwrap_or_default()
}
