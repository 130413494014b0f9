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
use sha2::{Digest as _, Sha256};
use tonic::Code;
use vbridge_api::{
    guest::v1::{
        Command, EventsSubscribeRequest, ExecRunRequest, FilesReadRequest, FilesWriteRequest,
        FilesWriteStart, GetInfoRequest, GetInfoResponse, WriteMode, events_client::EventsClient,
        exec_client::ExecClient, exit_status::How, files_client::FilesClient, files_read_response,
        files_write_request, system_client::SystemClient,
    },
    host::v1::GuestState,
};
use vbridge_tests::{
    fixture::{Bridge, eventually},
    process::PATIENCE,
};
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

/// The guest as if it had nothing but qemu-guest-agent, at a bridge of its own.
pub(crate) async fn adapted(world: Arc<World>) -> Result<()> {
    world.shell("mkdir -p /run/second-qga").await?;
    let agent = Agent::start(&world, "second-qga", QGA).await?;
    let port = world.guest.vm().raw_channel();
    let seat = format!("plain=unix:{},agent=qemu", port.display());
    let words = ["--guest".to_owned(), seat];
    let bridge = Bridge::start_with(Vec::new(), words.to_vec()).await?;
    bridge.ready("plain").await?;
    let told = bridge.guest("plain").await?;
    ensure!(told.agent.starts_with("qemu-ga/"), "{told:?}");

    // What the guest's own agent says of the same guest.
    let channel = bridge.place("plain").channel().await?;
    let mut system = SystemClient::new(channel.clone());
    let theirs = system.get_info(GetInfoRequest {}).await?.into_inner();
    let ours = world.info().await?;
    let said = |info: &GetInfoResponse| {
        let release = info.kernel.as_ref().map(|kernel| kernel.release.clone());
        (info.hostname.clone(), info.os.clone(), release)
    };
    ensure!(said(&theirs) == said(&ours), "{:?}", said(&theirs));
    let why = |name: &str| {
        let method = theirs.methods.iter().find(|method| method.name == name);
        method.map(|method| method.reason.as_str())
    };
    ensure!(
        why("vbridge.guest.v1.System/Ping") == Some(""),
        "it can't answer a ping"
    );
    ensure!(
        why("vbridge.guest.v1.Tunnel/Connect").is_some_and(|why| why.contains("qemu-guest-agent")),
        "it can make tunnels"
    );

    // A command with its input, both outputs and its status.
    let mut exec = ExecClient::new(channel.clone());
    let run = ExecRunRequest {
        command: Some(Command {
            shell: "cat; echo no >&2; exit 7".to_owned(),
            ..Command::default()
        }),
        stdin: b"through the agent".to_vec(),
        ..ExecRunRequest::default()
    };
    let run = exec.run(run).await?.into_inner();
    ensure!(
        run.stdout == b"through the agent" && run.stderr == b"no\n",
        "{run:?}"
    );
    ensure!(
        run.status
            .as_ref()
            .is_some_and(|it| it.how == Some(How::Code(7))),
        "{run:?}"
    );

    // A file of many pieces, there and back.
    let content: Vec<u8> = (0..3_000_000_u32)
        .map(|at| (at / 251).to_le_bytes()[0])
        .collect();
    let mut files = FilesClient::new(channel.clone());
    let start = files_write_request::Message::Start(FilesWriteStart {
        path: "/run/adapted".to_owned(),
        mode: WriteMode::Replace.into(),
        ..FilesWriteStart::default()
    });
    let pieces = content.chunks(65536);
    let pieces = pieces.map(|piece| files_write_request::Message::Data(piece.to_vec()));
    let messages = std::iter::once(start).chain(pieces);
    let messages = messages.map(|message| FilesWriteRequest {
        message: Some(message),
    });
    let messages: Vec<_> = messages.collect();
    files.write(tokio_stream::iter(messages)).await?;
    let sum = world.shell("sha256sum </run/adapted").await?;
    let digest = Sha256::digest(&content);
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(sum.starts_with(&digest), "{sum} is not {digest}");
    let read = FilesReadRequest {
        path: "/run/adapted".to_owned(),
        ..FilesReadRequest::default()
    };
    let mut read = files.read(read).await?.into_inner();
    let mut back = Vec::new();
    while let Some(message) = read.message().await? {
        if let Some(files_read_response::Piece::Data(data)) = message.piece {
            back.extend(data);
        }
    }
    ensure!(
        back == content,
        "it came back otherwise: {} bytes",
        back.len()
    );

    // What it has no command for.
    let mut events = EventsClient::new(channel);
    let status = events.subscribe(EventsSubscribeRequest::default()).await;
    let status = status.err().context("it has events")?;
    ensure!(status.code() == Code::Unimplemented, "{status:?}");
    ensure!(status.message().contains("qemu-guest-agent"), "{status:?}");

    // It goes and comes again.
    agent.stop().await?;
    bridge.reaches("plain", GuestState::Unreachable).await?;
    let agent = Agent::start(&world, "second-qga", QGA).await?;
    bridge.ready("plain").await?;
    drop(bridge);
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
