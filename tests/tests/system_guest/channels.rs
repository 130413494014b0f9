//! Agents of other kinds on a port of their own, spoken to with the bridge's library: one in Python, one in shell, and the QEMU
//! guest agent.
//!
//! They have the port one after the other. An agent that has been ended answers nothing, and the next one gets a connection
//! of its own.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use bridge_host::channel::{
    GuestAgent, Protocol as _, ProtocolError, VirtioChannel, VirtioSerialBuilder,
};
use serde_json::json;
use vbridge_tests::{fixture::eventually, process::PATIENCE};
use xtask::qemu::RAW_PORT;

use crate::world::{NAME, World};

const PYTHON: &str = include_str!("../../../bridge-host/examples/agents/json_agent.py");
const SHELL: &str = include_str!("../../../bridge-host/examples/agents/lines_agent.sh");

/// Its state and its pid are not the other one's, which the guest has on its own port.
const QGA: &str = "qemu-ga -m virtio-serial -t /run/second-qga -f /run/second-qga/pid -p";

/// A unit that has the port.
struct Agent<'a> {
    world: &'a World,
    name: &'static str,
}

impl<'a> Agent<'a> {
    /// Runs a command with the port's path behind it, and waits until it has opened that.
    async fn start(world: &'a World, name: &'static str, command: &str) -> Result<Self> {
        let port = format!("/dev/virtio-ports/{RAW_PORT}");
        let run = format!("systemd-run --quiet --collect --unit={name} {command} {port}");
        world.shell(&run).await?;
        let opened = format!(
            "if ls -l /proc/[0-9]*/fd 2>/dev/null | grep -q -- \"-> $(readlink -f {port})$\"; then echo yes; fi"
        );
        eventually("the agent opens its port", PATIENCE, async || {
            Ok(world.shell(&opened).await? == "yes")
        })
        .await?;
        Ok(Self { world, name })
    }

    /// A program of ours, by what is in its file.
    async fn program(
        world: &'a World,
        name: &'static str,
        interpreter: &str,
        text: &str,
    ) -> Result<Self> {
        let there = world.here.path().join(name);
        std::fs::write(&there, text)?;
        let there = there.to_str().context("a path in UTF-8")?;
        let guest = format!("/run/{name}");
        world
            .good(&["cp", there, &format!("{NAME}:{guest}")])
            .await?;
        Self::start(world, name, &format!("{interpreter} {guest}")).await
    }

    async fn stop(self) -> Result<()> {
        self.world
            .shell(&format!("systemctl stop {}", self.name))
            .await?;
        Ok(())
    }
}

/// The port's socket, connected to the agent that runs now.
fn channel(world: &World) -> VirtioChannel {
    VirtioChannel::new(RAW_PORT, world.guest.vm().raw_channel())
}

pub(crate) async fn python(world: Arc<World>) -> Result<()> {
    let agent = Agent::program(&world, "json-agent", "python3", PYTHON).await?;
    let mut json = VirtioSerialBuilder::new(RAW_PORT)
        .with_socket_path(world.guest.vm().raw_channel())
        .with_json_handler()
        .build();
    json.open().await?;
    ensure!(json.request(b"ping").await? == b"pong");
    let name = world.shell("hostname").await?;
    ensure!(json.request(b"host").await? == name.as_bytes());
    // Longer than what a port is read of at once.
    let long = "\u{e9}".repeat(20_000);
    let answer = json.request(format!("upper {long}").as_bytes()).await?;
    ensure!(
        answer == long.to_uppercase().as_bytes(),
        "{} bytes",
        answer.len()
    );
    let error = json.request(b"rm").await;
    let error = error.err().context("it has done it")?;
    ensure!(matches!(error, ProtocolError::AgentError { .. }), "{error}");
    // A connection of its own finds the same agent.
    json.reconnect().await?;
    ensure!(json.request(b"ping").await? == b"pong");
    json.disconnect().await?;
    agent.stop().await
}

pub(crate) async fn shell(world: Arc<World>) -> Result<()> {
    let agent = Agent::program(&world, "lines-agent", "sh", SHELL).await?;
    let channel = channel(&world);
    channel.connect().await?;
    let name = world.shell("hostname").await?;
    for (question, answer) in [("ping", "pong"), ("host", &name), ("?", "unknown command")] {
        channel.send_string(&format!("{question}\n")).await?;
        let line = channel.receive_line().await?;
        ensure!(line == answer, "{question}: {line}");
    }
    channel.send_string("uptime\n").await?;
    let uptime: f64 = channel.receive_line().await?.parse()?;
    ensure!(uptime > 0.0);
    channel.disconnect();
    agent.stop().await
}

pub(crate) async fn qga(world: Arc<World>) -> Result<()> {
    world.shell("mkdir -p /run/second-qga").await?;
    let agent = Agent::start(&world, "second-qga", QGA).await?;
    let qga = GuestAgent::new(channel(&world));
    qga.connect().await?;
    let info = qga.info().await?;
    ensure!(info.enabled().any(|name| name == "guest-exec"), "{info:?}");
    let host = qga.execute("guest-get-host-name", json!(null)).await?;
    ensure!(
        host["host-name"] == world.shell("hostname").await?,
        "{host}"
    );
    let error = qga.execute("guest-nothing", json!(null)).await;
    let error = error.err().context("it has such a command")?;
    let unknown = |class: &str| class == "CommandNotFound";
    ensure!(
        matches!(&error, ProtocolError::AgentError { class, .. } if unknown(class)),
        "{error}"
    );
    // Each is given up when it has left; no answer of theirs is the next command's.
    for _ in 0..20 {
        tokio::select! {
            biased;
            answer = qga.execute("guest-get-osinfo", json!(null)) => {
                ensure!(answer?["id"] == "debian");
            }
            () = tokio::task::yield_now() => {}
        }
        let zone = qga.execute("guest-get-timezone", json!(null)).await?;
        ensure!(zone.get("offset").is_some(), "{zone}");
    }
    // Nor is what another connection has left.
    channel_with_half_a_command(&world, &qga).await?;
    qga.ping().await?;
    qga.disconnect();
    agent.stop().await
}

/// Leaves the agent with half a line, and with a command whose answer nobody has taken.
async fn channel_with_half_a_command(world: &World, qga: &GuestAgent) -> Result<()> {
    qga.disconnect();
    let stranger = channel(world);
    stranger.connect().await?;
    stranger
        .send_string("{\"execute\": \"guest-get-osinfo\"}\n{\"exec")
        .await?;
    stranger.disconnect();
    qga.connect().await?;
    Ok(())
}
