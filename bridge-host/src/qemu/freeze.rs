//! `Storage.Freeze` and its end. The agent knows no limit, so the bridge keeps it:
//!
//! ```text
//!            Freeze                    the agent has frozen some
//!    Free ───────────▶ Reserved(until) ─────────────────────────▶ Frozen(until)
//!      ▲                   │ none, or refused                        │ │ Thaw
//!      ├───────────────────┘                                         │ └──────────▶ Free
//!      │                   │ no answer, or nobody waits for it       │ the limit
//!      │                   ▼                                         ▼
//!      └────────────── Thawing: tried again and again until the agent says that it is done
//! ```
//!
//! All of this goes on in a task of its own, whatever becomes of the call. While the guest is not free, other calls are refused.
//! What is frozen is thawed by nobody if the bridge is killed meanwhile; `Storage.Thaw` does it when it is back.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, sleep_until},
};
use tonic::Status;
use tracing::{error, warn};
use vbridge_api::guest::v1 as api;

use super::{
    agent::{Agent, text},
    failure::Failure,
    refusal::{self, Reason, at_most, invalid, shown},
    storage::Filesystem,
};
use crate::{error, limits::THAW_TRIES};

/// Mount points in one request, as `storage.proto` promises.
const MAX_MOUNT_POINTS: usize = 256;

/// Bounds of a standstill's limit, and the limit of one that does not say, as `storage.proto` promises.
const MIN_LIMIT: Duration = Duration::from_millis(100);
const MAX_LIMIT: Duration = Duration::from_secs(600);
const DEFAULT_LIMIT: Duration = Duration::from_secs(60);

/// Waits between tries to thaw.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Stands for file systems that the agent has frozen and does not name.
const SOME: &str = "*";

/// Whether the guest's file systems stand still.
#[derive(Debug, Default)]
pub(super) struct Standstill(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    current: Option<Current>,
    /// Of the next one.
    number: u64,
    /// Whether the last one was ended by its limit.
    expired: bool,
}

#[derive(Debug, Clone)]
struct Current {
    number: u64,
    /// None until the agent has frozen them.
    frozen: Vec<String>,
    until: Instant,
}

// === impl Standstill ===

impl Standstill {
    /// For how long it lasts at most; nothing if there is none.
    pub(super) fn remaining(&self) -> Option<Duration> {
        let until = self.state().current.as_ref()?.until;
        Some(until.saturating_duration_since(Instant::now()))
    }

    fn reserve(&self, until: Instant) -> Result<u64, Status> {
        let mut state = self.state();
        if let Some(current) = &state.current {
            let remaining = current.until.saturating_duration_since(Instant::now());
            return Err(refusal::frozen(Some(remaining)));
        }
        let number = state.number;
        state.number = number.wrapping_add(1);
        state.expired = false;
        state.current = Some(Current {
            number,
            frozen: Vec::new(),
            until,
        });
        Ok(number)
    }

    /// These stand still now.
    fn set(&self, number: u64, frozen: Vec<String>) {
        let mut state = self.state();
        if let Some(current) = &mut state.current
            && current.number == number
        {
            current.frozen = frozen;
        }
    }

    fn is(&self, number: u64) -> bool {
        let state = self.state();
        state
            .current
            .as_ref()
            .is_some_and(|current| current.number == number)
    }

    /// It is over; what stood still.
    fn end(&self, number: u64, expired: bool) -> Vec<String> {
        let mut state = self.state();
        match state.current.take_if(|current| current.number == number) {
            Some(current) => {
                state.expired = expired;
                current.frozen
            }
            None => Vec::new(),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is to be frozen.
struct Wanted {
    /// Those that were asked for; none: all.
    mount_points: Vec<String>,
    number: u64,
    until: Instant,
}

pub(super) async fn freeze(
    agent: Arc<Agent>,
    request: api::StorageFreezeRequest,
) -> Result<api::StorageFreezeResponse, Status> {
    let limit = match request.limit {
        None => DEFAULT_LIMIT,
        Some(limit) => Duration::try_from(limit)
            .ok()
            .filter(|limit| (MIN_LIMIT..=MAX_LIMIT).contains(limit))
            .ok_or_else(|| invalid("limit", "must be 100 ms to 10 min"))?,
    };
    let until = Instant::now() + limit;
    at_most("mount_points", request.mount_points.len(), MAX_MOUNT_POINTS)?;
    if let Some(remaining) = agent.standstill.remaining() {
        return Err(refusal::frozen(Some(remaining)));
    }
    agent.require(&[command(&request.mount_points)]).await?;
    let number = agent.standstill.reserve(until)?;
    let wanted = Wanted {
        mount_points: request.mount_points,
        number,
        until,
    };
    let (told, answer) = oneshot::channel();
    tokio::spawn(stand_still(agent, wanted, told));
    answer.await.unwrap_or_else(|_| {
        // Only if the runtime ends.
        Err(error::Reason::SessionEnded.status("", "the bridge is stopping"))
    })
}

fn command(mount_points: &[String]) -> &'static str {
    match mount_points.is_empty() {
        true => "guest-fsfreeze-freeze",
        false => "guest-fsfreeze-freeze-list",
    }
}

/// A standstill from its beginning to its end.
async fn stand_still(
    agent: Arc<Agent>,
    wanted: Wanted,
    told: oneshot::Sender<Result<api::StorageFreezeResponse, Status>>,
) {
    let number = wanted.number;
    let (answer, goes_on) = match begin(&agent, &wanted).await {
        Ok(answer) => {
            let goes_on = !answer.frozen.is_empty();
            (Ok(answer), goes_on)
        }
        Err(status) if is_over(&status) => (Err(status), false),
        // It may be frozen, or be so in a moment.
        Err(status) => {
            let _ = told.send(Err(status));
            thaw_for_sure(&agent, number, false).await;
            return;
        }
    };
    if !goes_on {
        agent.standstill.end(number, false);
        let _ = told.send(answer);
        return;
    }
    if !agent.standstill.is(number) {
        // Storage.Thaw has come before there was anything to thaw.
        let why = "the standstill was ended before it had begun";
        let _ = told.send(Err(error::Reason::AgentRefused.status("", why)));
        thaw_until_done(&agent, || true).await;
        return;
    }
    if told.send(answer).is_err() {
        thaw_for_sure(&agent, number, false).await;
        return;
    }
    sleep_until(wanted.until).await;
    thaw_for_sure(&agent, number, true).await;
}

/// Whether the agent has said that it has frozen nothing, or was not asked to.
fn is_over(status: &Status) -> bool {
    !matches!(
        status.code(),
        tonic::Code::Unavailable | tonic::Code::Internal | tonic::Code::ResourceExhausted
    )
}

async fn begin(agent: &Agent, wanted: &Wanted) -> Result<api::StorageFreezeResponse, Status> {
    let asked = &wanted.mount_points;
    // Nothing can be asked any more once they stand still.
    let mounted: Option<Vec<Filesystem>> = agent.ask_if_allowed("guest-get-fsinfo").await;
    let mounted = mounted.map(|mounted| {
        let mounted = mounted.into_iter().map(|mounted| text(mounted.mountpoint));
        mounted.collect::<HashSet<String>>()
    });
    if let Some(mounted) = &mounted
        && let Some(missing) = asked.iter().find(|asked| !mounted.contains(*asked))
    {
        let message = format!("nothing is mounted at {}", shown(missing));
        return Err(Reason::NotFound.status(message));
    }
    let command = command(asked);
    let arguments = match asked.is_empty() {
        true => Value::Null,
        false => json!({ "mountpoints": asked }),
    };
    let count: u64 = agent.ask(command, arguments).await?;
    let mut candidates: Vec<String> = match asked.is_empty() {
        false => asked.clone(),
        true => mounted.unwrap_or_default().into_iter().collect(),
    };
    candidates.sort();
    candidates.dedup();
    let answer = told(count, candidates);
    agent.standstill.set(wanted.number, answer.frozen.clone());
    Ok(answer)
}

/// The agent says only how many it has frozen. If they are as many as could be, they are those.
fn told(count: u64, candidates: Vec<String>) -> api::StorageFreezeResponse {
    let (frozen, skipped) = if count == 0 {
        let skipped = candidates.iter();
        let skipped = skipped.map(|mount| format!("{mount}: it can't be frozen"));
        (Vec::new(), skipped.collect())
    } else if usize::try_from(count).is_ok_and(|count| count == candidates.len()) {
        (candidates, Vec::new())
    } else {
        let why = format!("{SOME}: qemu-guest-agent has frozen {count} and does not tell which");
        (vec![SOME.to_owned()], vec![why])
    };
    api::StorageFreezeResponse { frozen, skipped }
}

/// Ends a standstill, unless somebody else has.
async fn thaw_for_sure(agent: &Agent, number: u64, expired: bool) {
    thaw_until_done(agent, || agent.standstill.is(number)).await;
    agent.standstill.end(number, expired);
}

/// Thaws until the agent says that it is done, or there is no more need.
async fn thaw_until_done(agent: &Agent, is_needed: impl Fn() -> bool) {
    let mut wait = RETRY_FIRST;
    for _ in 0..THAW_TRIES {
        if !is_needed() {
            return;
        }
        match thawed(agent).await {
            Ok(_) => return,
            Err(failure) => {
                warn!("a guest's file systems can't be thawed, trying again: {failure}");
            }
        }
        sleep(wait).await;
        wait = wait.saturating_mul(2).min(RETRY_MAX);
    }
    error!(
        "a guest's file systems could not be thawed; see whether its agent is well, and thaw them with Storage.Thaw"
    );
}

/// How many the agent has thawed.
async fn thawed(agent: &Agent) -> Result<u64, Failure> {
    agent.ask("guest-fsfreeze-thaw", Value::Null).await
}

pub(super) async fn thaw(
    agent: Arc<Agent>,
    _: api::StorageThawRequest,
) -> Result<api::StorageThawResponse, Status> {
    let number = agent
        .standstill
        .state()
        .current
        .as_ref()
        .map(|current| current.number);
    let count = thawed(&agent).await?;
    let stood = match number {
        Some(number) => agent.standstill.end(number, false),
        None => Vec::new(),
    };
    Ok(api::StorageThawResponse {
        thawed: match count {
            0 => Vec::new(),
            _ if stood.is_empty() => vec![SOME.to_owned()],
            _ => stood,
        },
    })
}

pub(super) async fn freeze_status(
    agent: Arc<Agent>,
    _: api::StorageFreezeStatusRequest,
) -> Result<api::StorageFreezeStatusResponse, Status> {
    let command = "guest-fsfreeze-status";
    let status: String = agent.ask(command, Value::Null).await?;
    let is_frozen = match status.as_str() {
        "frozen" => true,
        "thawed" => false,
        _ => {
            let why = "it is neither \"frozen\" nor \"thawed\"";
            return Err(Failure::garbled(command, why).status());
        }
    };
    let state = agent.standstill.state();
    let ours = state.current.as_ref().filter(|_| is_frozen);
    Ok(api::StorageFreezeStatusResponse {
        frozen: match ours {
            Some(current) if !current.frozen.is_empty() => current.frozen.clone(),
            // Somebody else has frozen them.
            None if is_frozen => vec![SOME.to_owned()],
            _ => Vec::new(),
        },
        remaining: ours.and_then(|current| {
            let remaining = current.until.saturating_duration_since(Instant::now());
            remaining.try_into().ok()
        }),
        expired: state.expired,
    })
}

#[cfg(test)]
mod tests;
