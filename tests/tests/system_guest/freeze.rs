//! A standstill of the root file system, with the journal on it, while it is written to.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tokio::time::timeout;
use vbridge_api::guest::v1::{
    Command, EventKind, EventsSubscribeRequest, EventsSubscribeResponse, ExecRunRequest,
    FreezeChanged, PingRequest, ServicesGetRequest, StorageFreezeRequest,
    StorageFreezeStatusRequest, StorageThawRequest, events_client::EventsClient,
    events_subscribe_response::Event, exec_client::ExecClient, services_client::ServicesClient,
    storage_client::StorageClient, system_client::SystemClient,
};
use vbridge_tests::{fixture::eventually, process::PATIENCE};

use crate::world::{NAME, World, patient, refused};

/// Writes lines to the disk, and others to the journal, until told to stop.
const LOAD: &str = "rm -f /run/load.stop
systemd-run --quiet --unit=load sh -c '
    i=0; while [ ! -e /run/load.stop ]; do i=$((i+1)); echo $i; sync /root/load; done >>/root/load'
systemd-run --quiet --unit=noise sh -c 'while [ ! -e /run/load.stop ]; do echo noise; sleep 0.02; done'";

/// The agent logs every session and every frame from now on.
const TALK: &str = "sed -i 's/^#log = .*/log = \"debug\"/' /etc/vbridge/agent.toml && systemctl restart vbridge-agent";

/// For a standstill that ends by itself: long enough for all that is looked at meanwhile, on a slow machine.
const LIMIT: Duration = Duration::from_secs(25);

/// For a call that has nothing to wait for, on a machine that is badly overloaded; well below the limit.
const SOON: Duration = Duration::from_secs(4);

async fn lines(world: &World) -> Result<u64> {
    Ok(world.shell("wc -l </root/load").await?.parse()?)
}

async fn load_goes_on(world: &World) -> Result<()> {
    let before = lines(world).await?;
    eventually("the load goes on", PATIENCE, || async {
        Ok(lines(world).await? > before + 5)
    })
    .await
}

/// Perhaps to an agent that is just starting.
async fn ping(world: &World, limit: Duration) -> Result<()> {
    let mut system = SystemClient::new(world.channel().await?);
    let ping = system.ping(patient(PingRequest::default()));
    timeout(limit, ping).await.context("it does not answer")??;
    Ok(())
}

/// What would block is refused, and what would not answers.
async fn stands(world: &World) -> Result<()> {
    ping(world, SOON).await?;
    let channel = world.channel().await?;
    let run = ExecRunRequest {
        command: Some(Command {
            shell: "true".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let answer = timeout(SOON, ExecClient::new(channel.clone()).run(run)).await?;
    refused(answer, "FILESYSTEM_FROZEN")?;
    let get = ServicesGetRequest {
        name: "ssh.service".into(),
    };
    let answer = timeout(SOON, ServicesClient::new(channel.clone()).get(get)).await?;
    refused(answer, "FILESYSTEM_FROZEN")?;
    let again = StorageFreezeRequest::default();
    let mut storage = StorageClient::new(channel);
    refused(storage.freeze(again).await, "FILESYSTEM_FROZEN")?;
    let before = lines(world).await?;
    ping(world, SOON).await?;
    ensure!(lines(world).await? == before, "somebody still writes");
    Ok(())
}

pub(crate) async fn expires(world: Arc<World>) -> Result<()> {
    world.shell(TALK).await?;
    world.answers().await?;
    world.shell(LOAD).await?;
    load_goes_on(&world).await?;
    let mut storage = StorageClient::new(world.channel().await?);
    let began = Instant::now();
    let request = StorageFreezeRequest {
        mount_points: Vec::new(),
        limit: Some(prost_types::Duration::try_from(LIMIT)?),
    };
    let frozen = storage.freeze(request).await?.into_inner();
    ensure!(frozen.frozen == ["/"], "{frozen:?}");
    stands(&world).await?;
    // The agent has something to say of a new session, and the journal does not take it.
    {
        let mut bridge = world.bridge.write().await;
        bridge.kill9().await?;
        bridge.start_again().await?;
        bridge.ready(NAME).await?;
    }
    stands(&world).await?;
    let mut storage = StorageClient::new(world.channel().await?);
    let mut status = storage
        .freeze_status(StorageFreezeStatusRequest {})
        .await?
        .into_inner();
    ensure!(
        status.frozen == ["/"] && began.elapsed() < LIMIT,
        "{status:?} {:?}",
        began.elapsed()
    );
    eventually("it ends by itself", LIMIT + PATIENCE, || {
        let mut storage = storage.clone();
        async move {
            let status = storage.freeze_status(StorageFreezeStatusRequest {}).await?;
            Ok(status.into_inner().frozen.is_empty())
        }
    })
    .await?;
    ensure!(
        began.elapsed() >= LIMIT,
        "after {:?} already",
        began.elapsed()
    );
    status = storage
        .freeze_status(StorageFreezeStatusRequest {})
        .await?
        .into_inner();
    ensure!(status.expired, "{status:?}");
    load_goes_on(&world).await?;
    world
        .shell(
            "touch /run/load.stop; until ! systemctl -q is-active load noise; do sleep 0.1; done",
        )
        .await?;
    // Every line is there once, in its order.
    world
        .shell("seq $(wc -l </root/load) | cmp - /root/load")
        .await?;
    // What the agent said meanwhile has come through.
    let log = "journalctl --sync; journalctl --unit vbridge-agent --output cat | grep -c 'session opened'";
    let sessions: u32 = world.shell(log).await?.parse()?;
    ensure!(sessions >= 2, "the agent has told of {sessions} sessions");
    Ok(())
}

async fn next(stream: &mut tonic::Streaming<EventsSubscribeResponse>) -> Result<FreezeChanged> {
    loop {
        let event = timeout(PATIENCE, stream.message())
            .await
            .context("no event")??;
        if let Some(Event::Freeze(change)) = event.context("the events have ended")?.event {
            return Ok(change);
        }
    }
}

pub(crate) async fn thawed(world: Arc<World>) -> Result<()> {
    let channel = world.channel().await?;
    let request = EventsSubscribeRequest {
        kinds: vec![EventKind::Freeze.into()],
    };
    let mut events = EventsClient::new(channel.clone());
    let mut events = events.subscribe(request).await?.into_inner();
    let mut storage = StorageClient::new(channel);
    let request = StorageFreezeRequest {
        mount_points: vec!["/".into()],
        limit: None,
    };
    storage.freeze(request).await?;
    let change = next(&mut events).await?;
    ensure!(change.frozen && change.mount_points == ["/"], "{change:?}");
    let theirs = world
        .qga
        .lock()
        .await
        .call("guest-fsfreeze-status", serde_json::Value::Null)
        .await?;
    // It knows of its own standstills alone.
    ensure!(theirs == "thawed", "{theirs}");
    let thawed = storage.thaw(StorageThawRequest {}).await?.into_inner();
    ensure!(thawed.thawed == ["/"], "{thawed:?}");
    let change = next(&mut events).await?;
    ensure!(!change.frozen && !change.expired, "{change:?}");
    world
        .shell("touch /root/thawed && sync /root/thawed")
        .await?;
    Ok(())
}

pub(crate) async fn killed(world: Arc<World>) -> Result<()> {
    let record = "ls /run/vbridge-agent.frozen 2>/dev/null || echo none";
    let mut storage = StorageClient::new(world.channel().await?);
    let frozen = storage.freeze(StorageFreezeRequest::default()).await?;
    ensure!(frozen.into_inner().frozen == ["/"]);
    ensure!(world.shell(record).await? != "none");
    world.guest.kill_agent().await?;
    // systemd starts another one, from a disk that takes nothing.
    world.answers().await?;
    world
        .shell("touch /root/thawed && sync /root/thawed")
        .await?;
    let status = storage.freeze_status(patient(StorageFreezeStatusRequest {}));
    ensure!(status.await?.into_inner().frozen.is_empty());
    ensure!(world.shell(record).await? == "none");
    Ok(())
}
