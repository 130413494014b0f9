//! An agent for tests: it answers from a function, and remembers what it was asked.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use super::{
    Commands,
    failure::Failure,
    serve::{Services, services},
};
use crate::channel::AgentInfo;

type Answer = dyn Fn(&str, &Value) -> Result<Value, Failure> + Send + Sync;

/// The agent of a test.
pub(crate) struct Script {
    answer: Box<Answer>,
    asked: Mutex<Vec<(String, Value)>>,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Script")
    }
}

impl Script {
    pub(crate) fn new(
        answer: impl Fn(&str, &Value) -> Result<Value, Failure> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            answer: Box::new(answer),
            asked: Mutex::default(),
        })
    }

    /// One that gives the same answer whenever it is asked for a command, and knows no others.
    pub(crate) fn fixed<const N: usize>(answers: [(&str, Value); N]) -> Arc<Self> {
        let answers: HashMap<String, Value> = answers
            .into_iter()
            .map(|(command, answer)| (command.to_owned(), answer))
            .collect();
        Self::new(move |command, _| match answers.get(command) {
            Some(answer) => Ok(answer.clone()),
            None => Err(no(command, "no such answer in this test")),
        })
    }

    pub(crate) async fn execute(&self, command: &str, arguments: &Value) -> Result<Value, Failure> {
        // As any real agent is: not ready at once.
        tokio::task::yield_now().await;
        let asked = (command.to_owned(), arguments.clone());
        self.asked.lock().unwrap().push(asked);
        (self.answer)(command, arguments)
    }

    /// What it was asked so far, but for what it can do.
    pub(crate) fn asked(&self) -> Vec<(String, Value)> {
        let asked = self.asked.lock().unwrap();
        let asked = asked.iter().filter(|(command, _)| command != "guest-info");
        asked.cloned().collect()
    }

    /// The names of these commands.
    pub(crate) fn commands(&self) -> Vec<String> {
        let asked = self.asked().into_iter();
        asked.map(|(command, _)| command).collect()
    }

    /// The arguments of the last of these commands.
    pub(crate) fn last(&self, command: &str) -> Value {
        let asked = self.asked().into_iter().rev();
        let mut asked = asked.filter(|(asked, _)| asked == command);
        asked.next().expect("it was asked").1
    }

    /// All services, on an agent that allows everything.
    pub(crate) fn serve(self: &Arc<Self>) -> Services {
        self.serve_with(&info(&ALL, &[]))
    }

    pub(crate) fn serve_with(self: &Arc<Self>, info: &AgentInfo) -> Services {
        services(Commands::Scripted(Arc::clone(self)), info.clone())
    }
}

/// The agent's error.
pub(crate) fn no(command: &str, said: &str) -> Failure {
    Failure::refused(command, "GenericError", said)
}

/// What `guest-info` says: commands that are allowed, and some that are not.
pub(crate) fn info(enabled: &[&str], disabled: &[&str]) -> AgentInfo {
    let enabled = enabled.iter().map(|name| (name, true));
    let commands = enabled.chain(disabled.iter().map(|name| (name, false)));
    let commands: Vec<Value> = commands
        .map(|(name, enabled)| json!({ "name": name, "enabled": enabled }))
        .collect();
    let info = json!({ "version": "9.2.0", "supported_commands": commands });
    serde_json::from_value(info).expect("it is one")
}

/// All commands that the services use.
pub(crate) const ALL: [&str; 41] = [
    "guest-info",
    "guest-ping",
    "guest-get-osinfo",
    "guest-get-host-name",
    "guest-get-users",
    "guest-get-timezone",
    "guest-get-time",
    "guest-set-time",
    "guest-exec",
    "guest-exec-status",
    "guest-file-open",
    "guest-file-read",
    "guest-file-write",
    "guest-file-seek",
    "guest-file-flush",
    "guest-file-close",
    "guest-network-get-interfaces",
    "guest-network-get-route",
    "guest-get-vcpus",
    "guest-set-vcpus",
    "guest-get-memory-blocks",
    "guest-get-memory-block-info",
    "guest-set-memory-blocks",
    "guest-get-fsinfo",
    "guest-get-disks",
    "guest-fsfreeze-status",
    "guest-fsfreeze-freeze",
    "guest-fsfreeze-freeze-list",
    "guest-fsfreeze-thaw",
    "guest-fstrim",
    "guest-shutdown",
    "guest-suspend-ram",
    "guest-suspend-disk",
    "guest-suspend-hybrid",
    "guest-set-user-password",
    "guest-ssh-get-authorized-keys",
    "guest-ssh-add-authorized-keys",
    "guest-ssh-remove-authorized-keys",
    "guest-get-cpustats",
    "guest-get-diskstats",
    "guest-get-load",
];
