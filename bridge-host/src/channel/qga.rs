//! The QEMU guest agent (QEMU: docs/interop/qemu-ga.rst, qga/qapi-schema.json).
//!
//! A line of JSON each way, without numbers: only its order says what an answer is for. So the conversation begins with
//! `guest-sync-delimited` and a number that nobody has used, and so it does again after each command whose answer was not
//! waited for to the end:
//!
//! ```text
//!              sync: FF {"guest-sync-delimited" id}
//!     Unsure ────────────────────────────────────────▶ Synced
//!       ▲      everything before FF {"return": id}       │ │ ▲
//!       │      is dropped                        command │ │ │ its answer
//!       │                                                ▼ │ │
//!       └──────────────── time-out, dropped, error ───── Asked
//! ```
//!
//! The byte FF, which no JSON has, makes the agent forget half a line, and comes back before the answer.

use std::path::PathBuf;

use libvirt::Domain;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::{sync::Mutex, time::timeout};

use super::{ChannelSettings, ProtocolError, VirtioChannel};

/// The channel that the QEMU guest agent looks for.
///
/// libvirt connects to a channel of this name itself, as [`Domain::qemu_agent_command`] needs it; QEMU takes one client at a
/// time. So use that for libvirt's domains, and this for machines without libvirt or an agent on another channel.
pub const QGA_CHANNEL: &str = "org.qemu.guest_agent.0";

const SENTINEL: u8 = 0xff;

/// A client of the QEMU guest agent. It may be shared: one command is answered before the next is sent.
#[derive(Debug)]
pub struct GuestAgent {
    channel: VirtioChannel,
    /// Whether the next line is the next command's answer.
    synced: Mutex<bool>,
}

/// What the agent says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct AgentInfo {
    /// Its version.
    pub version: String,
    /// All commands that it knows.
    #[serde(rename = "supported_commands")]
    pub commands: Vec<AgentCommand>,
}

/// One of the agent's commands.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct AgentCommand {
    /// Its name.
    pub name: String,
    /// Whether it may be used.
    pub enabled: bool,
    /// Whether it answers when it succeeds. See [`GuestAgent::execute_unanswered`].
    #[serde(rename = "success-response", default = "answers")]
    pub success_response: bool,
}

/// Agents before QEMU 2.1 do not say.
fn answers() -> bool {
    true
}

// === impl AgentInfo ===

impl AgentInfo {
    /// The commands that may be used.
    pub fn enabled(&self) -> impl Iterator<Item = &str> {
        let enabled = self.commands.iter().filter(|command| command.enabled);
        enabled.map(|command| command.name.as_str())
    }
}

// === impl GuestAgent ===

impl GuestAgent {
    /// The agent on this channel. It is not connected yet.
    pub fn new(channel: VirtioChannel) -> Self {
        Self {
            channel,
            synced: Mutex::new(false),
        }
    }

    /// The agent on the channel with this socket.
    pub fn at_path(path: impl Into<PathBuf>) -> Self {
        Self::new(VirtioChannel::new(QGA_CHANNEL, path))
    }

    /// The agent on a domain's channel of this name; [`QGA_CHANNEL`] is libvirt's own.
    ///
    /// # Errors
    /// As [`VirtioChannel::discover_from_domain`].
    pub async fn discover_from_domain(
        domain: &Domain,
        name: &str,
        settings: ChannelSettings,
    ) -> Result<Self, ProtocolError> {
        let channel = VirtioChannel::discover_with_settings(domain, name, settings).await?;
        Ok(Self::new(channel))
    }

    /// The channel.
    pub fn channel(&self) -> &VirtioChannel {
        &self.channel
    }

    /// Connects, unless it is connected, and drops what an earlier client has left.
    ///
    /// # Errors
    /// The channel can't be connected, or the agent does not answer.
    pub async fn connect(&self) -> Result<(), ProtocolError> {
        let mut synced = self.synced.lock().await;
        *synced = false;
        self.channel.connect().await?;
        self.sync().await?;
        *synced = true;
        Ok(())
    }

    /// The same, and tries to connect again as [`VirtioChannel::connect_with_retry`] does.
    ///
    /// # Errors
    /// The last try has failed, or the agent does not answer.
    pub async fn connect_with_retry(&self) -> Result<(), ProtocolError> {
        self.channel.connect_with_retry().await?;
        self.connect().await
    }

    /// Ends the connection.
    pub fn disconnect(&self) {
        self.channel.disconnect();
    }

    /// Has a command carried out, and gives what it returns. Arguments are an object, or null for none.
    ///
    /// If this is dropped or times out, the agent may carry it out all the same; the answer is thrown away.
    ///
    /// # Errors
    /// [`ProtocolError::AgentError`] if the agent refuses or fails; as [`VirtioChannel::send`] and
    /// [`VirtioChannel::receive_until`] otherwise.
    pub async fn execute(&self, command: &str, arguments: Value) -> Result<Value, ProtocolError> {
        let mut synced = self.synced.lock().await;
        self.send(&mut synced, command, arguments).await?;
        let line = self.channel.receive_until(b'\n').await?;
        let answer = parsed(&line)?;
        *synced = true;
        returned(answer)
    }

    /// Sends a command that does not answer when it succeeds, such as `guest-shutdown`. If it fails, that is not told.
    ///
    /// # Errors
    /// As [`VirtioChannel::send`].
    pub async fn execute_unanswered(
        &self,
        command: &str,
        arguments: Value,
    ) -> Result<(), ProtocolError> {
        let mut synced = self.synced.lock().await;
        self.send(&mut synced, command, arguments).await
    }

    /// Sees whether it answers.
    ///
    /// # Errors
    /// It does not.
    pub async fn ping(&self) -> Result<(), ProtocolError> {
        self.execute("guest-ping", Value::Null).await?;
        Ok(())
    }

    /// Its version and commands.
    ///
    /// # Errors
    /// As [`GuestAgent::execute`].
    pub async fn info(&self) -> Result<AgentInfo, ProtocolError> {
        let info = self.execute("guest-info", Value::Null).await?;
        serde_json::from_value(info).map_err(|error| {
            ProtocolError::ParseError(format!("guest-info has another form: {error}"))
        })
    }

    /// Sends a command in a conversation that is in order; it is not any more until the answer has come.
    async fn send(
        &self,
        synced: &mut bool,
        command: &str,
        arguments: Value,
    ) -> Result<(), ProtocolError> {
        if !*synced || !self.channel.is_connected() {
            *synced = false;
            self.sync().await?;
        }
        *synced = false;
        let mut request = json!({ "execute": command });
        if !arguments.is_null() {
            request["arguments"] = arguments;
        }
        self.channel.send_string(&format!("{request}\n")).await
    }

    /// Drops everything up to the answer to a number that nobody has used.
    async fn sync(&self) -> Result<(), ProtocolError> {
        let random = getrandom::u64().map_err(ProtocolError::NoRandom)?;
        // An integer that every JSON parser takes exactly.
        let id = random >> 11;
        let request = json!({ "execute": "guest-sync-delimited", "arguments": { "id": id } });
        let line = [&[SENTINEL], request.to_string().as_bytes(), b"\n"].concat();
        self.channel.send(&line).await?;
        let answered = async {
            loop {
                self.channel.skip_past(SENTINEL).await?;
                let line = match self.channel.receive_until(b'\n').await {
                    // An answer to somebody else.
                    Err(ProtocolError::TooLarge { .. }) => continue,
                    line => line?,
                };
                let answer = parsed(&line);
                if answer.is_ok_and(|answer| answer.get("return") == Some(&id.into())) {
                    return Ok(());
                }
            }
        };
        let after = self.channel.settings().receive_timeout;
        let answered = timeout(after, answered).await;
        let late = |_| {
            self.channel
                .late("guest-sync-delimited was not answered", after)
        };
        answered.map_err(late)?
    }
}

fn parsed(line: &[u8]) -> Result<Map<String, Value>, ProtocolError> {
    let answer: Map<String, Value> = serde_json::from_slice(line)
        .map_err(|error| ProtocolError::ParseError(format!("no JSON object: {error}")))?;
    match answer.contains_key("return") || answer.contains_key("error") {
        true => Ok(answer),
        false => Err(ProtocolError::ParseError(
            "its JSON has neither \"return\" nor \"error\"".to_owned(),
        )),
    }
}

fn returned(mut answer: Map<String, Value>) -> Result<Value, ProtocolError> {
    if let Some(error) = answer.get("error") {
        let text = |field: &str| error[field].as_str().unwrap_or_default();
        return Err(ProtocolError::agent(text("class"), text("desc")));
    }
    Ok(answer.remove("return").unwrap_or_default())
}
