//! Who carries out the commands: a channel of the agent's own, or libvirt, which holds the usual one.
//!
//! | | [`Commands::Channel`] | [`Commands::Domain`] |
//! |---|---|---|
//! | answer within | the channel's `receive_timeout` | [`AGENT_ANSWER`], [`AGENT_SLOW_ANSWER`] for what waits for disks |
//! | largest message | the channel's `max_message`; see `AGENT_MESSAGE` | 4 MiB, libvirt's own limit |
//! | one that is given up | may be carried out; its answer is thrown away | the same |
//!
//! Neither connects anything: whoever made it does.

use std::{sync::Arc, time::Duration};

use libvirt::Domain;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::failure::Failure;
use crate::{
    channel::{AgentInfo, GuestAgent},
    error::Reason,
    limits::{AGENT_ANSWER, AGENT_ANSWER_MARGIN, AGENT_SLOW_ANSWER},
};

/// libvirt waits for no answer.
const NO_WAIT: i32 = 0;

/// Who carries out the commands.
#[derive(Debug, Clone)]
pub(crate) enum Commands {
    /// A channel of its own.
    Channel(Arc<GuestAgent>),
    /// libvirt, which holds the channel.
    Domain(Domain),
    /// A test.
    #[cfg(test)]
    Scripted(Arc<super::script::Script>),
}

// === impl Commands ===

impl Commands {
    /// Has a command carried out, and gives what it returns. Arguments are an object, or null for none.
    pub(crate) async fn execute(&self, command: &str, arguments: Value) -> Result<Value, Failure> {
        match self {
            Self::Channel(agent) => {
                let answer = agent.execute(command, arguments).await;
                answer.map_err(|error| Failure::of_channel(command, &error))
            }
            Self::Domain(domain) => through_libvirt(domain, command, arguments).await,
            #[cfg(test)]
            Self::Scripted(script) => script.execute(command, &arguments).await,
        }
    }

    /// Has a command carried out that does not answer when it succeeds. If it fails, that is not told.
    pub(crate) async fn execute_unanswered(
        &self,
        command: &str,
        arguments: Value,
    ) -> Result<(), Failure> {
        match self {
            Self::Channel(agent) => {
                let sent = agent.execute_unanswered(command, arguments).await;
                sent.map_err(|error| Failure::of_channel(command, &error))
            }
            Self::Domain(domain) => {
                let request = request(command, arguments);
                let sent = domain.qemu_agent_command(&request, NO_WAIT);
                let sent = timeout(AGENT_ANSWER, sent).await;
                let sent = sent.map_err(|_| late(command, AGENT_ANSWER))?;
                sent.map_err(|error| Failure::of_libvirt(command, &error))?;
                Ok(())
            }
            #[cfg(test)]
            Self::Scripted(script) => script.execute(command, &arguments).await.map(drop),
        }
    }

    /// The agent's version and commands.
    pub(crate) async fn info(&self) -> Result<AgentInfo, Failure> {
        let command = "guest-info";
        let info = self.execute(command, Value::Null).await?;
        serde_json::from_value(info).map_err(|error| Failure::garbled(command, &error))
    }
}

async fn through_libvirt(
    domain: &Domain,
    command: &str,
    arguments: Value,
) -> Result<Value, Failure> {
    let limit = match command.starts_with("guest-fsfreeze-") || command == "guest-fstrim" {
        true => AGENT_SLOW_ANSWER,
        false => AGENT_ANSWER,
    };
    let seconds = i32::try_from(limit.as_secs()).unwrap_or(i32::MAX);
    let request = request(command, arguments);
    let answer = domain.qemu_agent_command(&request, seconds);
    let answer = timeout(limit + AGENT_ANSWER_MARGIN, answer).await;
    let answer = answer.map_err(|_| late(command, limit))?;
    let answer = answer.map_err(|error| Failure::of_libvirt(command, &error))?;
    returned(command, answer.as_deref())
}

fn request(command: &str, arguments: Value) -> String {
    let mut request = json!({ "execute": command });
    if !arguments.is_null() {
        request["arguments"] = arguments;
    }
    request.to_string()
}

/// What stands in the answer that libvirt passes on as it is.
fn returned(command: &str, answer: Option<&str>) -> Result<Value, Failure> {
    let Some(answer) = answer else {
        return Err(Failure::garbled(command, "there is no answer"));
    };
    let mut answer: Value =
        serde_json::from_str(answer).map_err(|error| Failure::garbled(command, &error))?;
    match answer.get_mut("return") {
        Some(returned) => Ok(returned.take()),
        None => Err(Failure::garbled(command, "its JSON has no \"return\"")),
    }
}

fn late(command: &str, limit: Duration) -> Failure {
    Failure::Away {
        reason: Reason::GuestSilent,
        why: format!("libvirt has not passed on the answer to {command} within {limit:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_sent_only_if_there_are_some() {
        let bare = request("guest-ping", Value::Null);
        assert_eq!(bare, r#"{"execute":"guest-ping"}"#);
        let with = request("guest-file-close", json!({ "handle": 1 }));
        assert_eq!(
            with,
            r#"{"arguments":{"handle":1},"execute":"guest-file-close"}"#
        );
    }

    #[test]
    fn what_libvirt_passes_on_is_looked_at() {
        assert_eq!(returned("x", Some(r#"{"return":{}}"#)).unwrap(), json!({}));
        for answer in [None, Some("{}"), Some("nonsense"), Some("[1]"), Some("")] {
            let failure = returned("x", answer).unwrap_err();
            assert!(matches!(failure, Failure::Garbled { .. }), "{answer:?}");
        }
    }
}
