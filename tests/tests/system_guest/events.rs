//! What happens in the guest is told.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use tokio::time::timeout;
use vbridge_api::guest::v1::{
    EventKind, EventsSubscribeRequest, EventsSubscribeResponse, ListeningPort, OomKill,
    PortProtocol, events_client::EventsClient, events_subscribe_response::Event,
};
use vbridge_tests::process::PATIENCE;

use crate::world::{World, patient};

type Events = tonic::Streaming<EventsSubscribeResponse>;

async fn subscribe(world: &World, kinds: &[EventKind]) -> Result<Events> {
    let request = patient(EventsSubscribeRequest {
        kinds: kinds.iter().map(|kind| (*kind).into()).collect(),
    });
    let mut client = EventsClient::new(world.channel().await?);
    Ok(client.subscribe(request).await?.into_inner())
}

/// The next event of which `find` makes something.
async fn event<T>(events: &mut Events, find: impl Fn(Event) -> Option<T>) -> Result<T> {
    let found = async {
        loop {
            let message = events.message().await?.context("the events have ended")?;
            if let Some(found) = message.event.and_then(&find) {
                return anyhow::Ok(found);
            }
        }
    };
    timeout(PATIENCE, found).await.context("no such event")?
}

pub(crate) async fn agent_started(world: Arc<World>) -> Result<()> {
    let started = |event| match event {
        Event::AgentStarted(started) => Some(started),
        _ => None,
    };
    let kinds = [EventKind::AgentStarted];
    let first = event(&mut subscribe(&world, &kinds).await?, started).await?;
    let boot = world.shell("cat /proc/sys/kernel/random/boot_id").await?;
    ensure!(first.boot_id == boot, "{first:?}");
    world.guest.kill_agent().await?;
    world.answers().await?;
    let second = event(&mut subscribe(&world, &kinds).await?, started).await?;
    ensure!(
        second.boot_id == boot && second.start_time != first.start_time,
        "{second:?}"
    );
    Ok(())
}

pub(crate) async fn port(world: Arc<World>) -> Result<()> {
    let mut events = subscribe(&world, &[EventKind::ListeningPort]).await?;
    let changed = |listening: bool| {
        move |event| match event {
            Event::ListeningPort(port) if port.port == 2222 && port.listening == listening => {
                Some(port)
            }
            _ => None,
        }
    };
    let start = "systemd-run --quiet --unit=second-sshd /usr/sbin/sshd -D -p 2222 -o ListenAddress=127.0.0.1";
    world.shell(start).await?;
    let port: ListeningPort = event(&mut events, changed(true)).await?;
    let pid = world
        .shell("systemctl show --value --property MainPID second-sshd")
        .await?;
    ensure!(
        port.pid.to_string() == pid && port.program == "sshd",
        "{port:?} {pid}"
    );
    ensure!(
        port.address == "127.0.0.1" && port.protocol() == PortProtocol::Tcp,
        "{port:?}"
    );
    world.shell("systemctl stop second-sshd").await?;
    event(&mut events, changed(false)).await?;
    Ok(())
}

pub(crate) async fn oom_kill(world: Arc<World>) -> Result<()> {
    let mut events = subscribe(&world, &[EventKind::OomKill]).await?;
    let count = "awk '/^oom_kill /{print $2}' /proc/vmstat";
    let before: u64 = world.shell(count).await?.parse()?;
    world
        .shell("systemd-run --quiet --wait --property MemoryMax=16M tail /dev/zero; true")
        .await?;
    let killed: OomKill = event(&mut events, |event| match event {
        Event::OomKill(killed) => Some(killed),
        _ => None,
    })
    .await?;
    ensure!(
        killed.total > before && killed.program == "tail" && killed.pid != 0,
        "{killed:?}"
    );
    Ok(())
}
