//! What all services share: the agent, what it allows, and what is under way.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tonic::Status;

use super::{Commands, failure::Failure, freeze::Standstill, refusal};
use crate::{
    channel::AgentInfo,
    error::harmless,
    limits::{AGENT_INFO_AGE, MAX_AGENT_COMMANDS, MAX_AGENT_FILES, MAX_AGENT_RUNS, MAX_AGENT_TEXT},
};

/// The agent of one guest.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) commands: Commands,
    known: Mutex<Known>,
    pings: AtomicU64,
    runs: Arc<Semaphore>,
    files: Arc<Semaphore>,
    /// Trimming goes on alone.
    pub(super) trimming: tokio::sync::Mutex<()>,
    pub(super) standstill: Standstill,
}

/// What it has said of itself.
#[derive(Debug)]
struct Known {
    version: String,
    /// Its commands, and whether they may be used.
    commands: HashMap<String, bool>,
    asked: Instant,
}

// === impl Agent ===

impl Agent {
    pub(super) fn new(commands: Commands, info: AgentInfo) -> Arc<Self> {
        Arc::new(Self {
            commands,
            known: Mutex::new(Known::new(info)),
            pings: AtomicU64::new(0),
            runs: Arc::new(Semaphore::new(MAX_AGENT_RUNS)),
            files: Arc::new(Semaphore::new(MAX_AGENT_FILES)),
            trimming: tokio::sync::Mutex::default(),
            standstill: Standstill::default(),
        })
    }

    /// What a command returns, in the form that it should have.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        command: &str,
        arguments: Value,
    ) -> Result<T, Failure> {
        let answer = self.commands.execute(command, arguments).await?;
        serde_json::from_value(answer).map_err(|error| Failure::garbled(command, &error))
    }

    /// The same for what an answer can be given without: nothing if the agent does not allow it, or fails.
    pub(super) async fn ask_if_allowed<T: DeserializeOwned>(&self, command: &str) -> Option<T> {
        match self.obstacle(&[command]) {
            None => self.ask(command, Value::Null).await.ok(),
            Some(_) => None,
        }
    }

    /// Has something done whose answer says nothing.
    pub(super) async fn tell(&self, command: &str, arguments: Value) -> Result<(), Failure> {
        self.commands.execute(command, arguments).await.map(drop)
    }

    /// Its version.
    pub(super) fn version(&self) -> String {
        self.known().version.clone()
    }

    /// Whether it is at least of this version.
    pub(super) fn is_at_least(&self, wanted: (u32, u32)) -> bool {
        let version = self.version();
        let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= wanted
    }

    /// Why these commands can't be used; nothing if they can.
    pub(super) fn obstacle(&self, commands: &[&str]) -> Option<String> {
        let known = self.known();
        commands.iter().find_map(|command| match known.commands.get(*command) {
            Some(true) => None,
            Some(false) => Some(format!(
                "qemu-guest-agent does not allow {command} (allow-rpcs or block-rpcs of its configuration)"
            )),
            None => Some(format!(
                "qemu-guest-agent {} has no {command}",
                known.version
            )),
        })
    }

    /// Refuses a call for which the agent does not allow these commands. What it allows may have changed: it is asked again.
    pub(super) async fn require(&self, commands: &[&str]) -> Result<(), Status> {
        if self.obstacle(commands).is_none() {
            return Ok(());
        }
        self.look_again().await;
        let Some(obstacle) = self.obstacle(commands) else {
            return Ok(());
        };
        // It allows next to nothing while file systems are frozen, whoever has frozen them.
        let state: Option<String> = self.ask_if_allowed("guest-fsfreeze-status").await;
        match state.as_deref() {
            Some("frozen") => Err(refusal::frozen(self.standstill.remaining())),
            _ => Err(refusal::cannot(obstacle)),
        }
    }

    /// Asks the agent anew what it allows, unless it was asked a moment ago.
    pub(super) async fn look_again(&self) {
        {
            let mut known = self.known();
            if known.asked.elapsed() < AGENT_INFO_AGE {
                return;
            }
            known.asked = Instant::now();
        }
        // If it can't be asked, what is known stays, and whatever is asked next says why.
        if let Ok(info) = self.commands.info().await {
            *self.known() = Known::new(info);
        }
    }

    /// The number of a Ping that is answered now.
    pub(super) fn next_ping(&self) -> u64 {
        self.pings.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// A place for a command that runs.
    pub(super) fn run_place(&self) -> Result<OwnedSemaphorePermit, Status> {
        let place = Arc::clone(&self.runs).try_acquire_owned();
        place.map_err(|_| refusal::too_many("commands", MAX_AGENT_RUNS))
    }

    /// A place for a file that is open.
    pub(super) fn file_place(&self) -> Result<OwnedSemaphorePermit, Status> {
        let place = Arc::clone(&self.files).try_acquire_owned();
        place.map_err(|_| refusal::too_many("files", MAX_AGENT_FILES))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Known ===

impl Known {
    fn new(info: AgentInfo) -> Self {
        let commands = info.commands.into_iter().take(MAX_AGENT_COMMANDS);
        Self {
            version: harmless(&info.version),
            commands: commands
                .map(|command| (command.name, command.enabled))
                .collect(),
            asked: Instant::now(),
        }
    }
}

/// A text of the agent's, as it is but not too long.
pub(super) fn text(text: String) -> String {
    match text.char_indices().nth(MAX_AGENT_TEXT) {
        Some((end, _)) => text.get(..end).unwrap_or_default().to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use tonic::Code;

    use super::*;
    use crate::qemu::script::{Script, info};

    fn agent(script: &Arc<Script>, info: AgentInfo) -> Arc<Agent> {
        Agent::new(Commands::Scripted(Arc::clone(script)), info)
    }

    #[tokio::test]
    async fn a_command_that_is_missing_is_told_apart_from_one_that_is_not_allowed() {
        let script = Script::fixed([]);
        let agent = agent(&script, info(&["guest-ping"], &["guest-exec"]));
        assert!(agent.require(&["guest-ping"]).await.is_ok());
        for (command, words) in [
            ("guest-exec", "does not allow guest-exec"),
            ("guest-get-load", "9.2.0 has no guest-get-load"),
        ] {
            let status = agent.require(&["guest-ping", command]).await.unwrap_err();
            assert_eq!(status.code(), Code::Unimplemented);
            assert!(status.message().contains(words), "{status}");
            assert!(
                status
                    .message()
                    .ends_with("install vbridge-agent in the guest")
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_allowed_and_is_now_is_found_out() {
        let now = json!({ "version": "9", "supported_commands": [{ "name": "guest-exec", "enabled": true }] });
        let script = Script::fixed([("guest-info", now)]);
        let agent = agent(&script, info(&[], &["guest-exec"]));
        assert!(agent.require(&["guest-exec"]).await.is_err(), "just asked");
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(agent.require(&["guest-exec"]).await.is_ok());
    }

    #[tokio::test]
    async fn somebody_elses_standstill_is_told_as_one() {
        let script = Script::fixed([("guest-fsfreeze-status", json!("frozen"))]);
        let agent = agent(&script, info(&["guest-fsfreeze-status"], &["guest-exec"]));
        let status = agent.require(&["guest-exec"]).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(status.message().contains("frozen"), "{status}");
    }

    #[test]
    fn versions_are_compared_by_number() {
        for (version, is) in [
            ("8.1.0", true),
            ("10.0.2", true),
            ("8.0.9", false),
            ("7.2", false),
            ("", false),
            ("nonsense", false),
            ("99999999999999999999.1", false),
        ] {
            let mut info = info(&[], &[]);
            info.version = version.to_owned();
            let agent = agent(&Script::fixed([]), info);
            assert_eq!(agent.is_at_least((8, 1)), is, "{version}");
        }
    }

    #[test]
    fn long_texts_are_cut_off_between_characters() {
        assert_eq!(
            text("ü".repeat(MAX_AGENT_TEXT + 1)),
            "ü".repeat(MAX_AGENT_TEXT)
        );
        assert_eq!(text("a\u{1b}".to_owned()), "a\u{1b}");
    }
}
