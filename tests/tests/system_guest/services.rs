//! systemd's units and its journal.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use tokio::time::timeout;
use tonic::transport::Channel;
use vbridge_api::guest::v1::{
    LogEntry, ServiceAction, ServicesControlRequest, ServicesGetRequest, ServicesListRequest,
    ServicesLogsRequest, Unit, services_client::ServicesClient,
};
use vbridge_tests::process::PATIENCE;

use crate::world::{NAME, World, refused};

/// A unit of the tests' own, which says something good and something bad when it starts.
const UNIT: &str = "probe.service";

const WRITE_UNIT: &str = r#"cat >/etc/systemd/system/probe.service <<'EOF'
[Unit]
Description=A probe
[Service]
ExecStart=/bin/sh -c 'echo the probe is up; echo "<3>the probe complains"; exec sleep infinity'
[Install]
WantedBy=multi-user.target
EOF
systemctl daemon-reload"#;

type Client = ServicesClient<Channel>;

async fn client(world: &World) -> Result<Client> {
    world.shell(WRITE_UNIT).await?;
    Ok(ServicesClient::new(world.channel().await?))
}

async fn control(client: &mut Client, action: ServiceAction) -> Result<Unit> {
    let request = ServicesControlRequest {
        name: UNIT.into(),
        action: action.into(),
        no_wait: false,
    };
    let answer = client.control(request).await?.into_inner();
    answer.unit.context("the answer has no unit")
}

async fn get(client: &mut Client) -> Result<Unit> {
    let request = ServicesGetRequest { name: UNIT.into() };
    let answer = client.get(request).await?.into_inner();
    answer.unit.context("the answer has no unit")
}

pub(crate) async fn listed(world: Arc<World>) -> Result<()> {
    let mut client = ServicesClient::new(world.channel().await?);
    let request = ServicesListRequest {
        patterns: vec!["*.service".into()],
        active_states: vec!["active".into()],
        all: false,
    };
    let units = client.list(request).await?.into_inner().units;
    let mut ours: Vec<_> = units.iter().map(|unit| unit.name.as_str()).collect();
    let list =
        "systemctl list-units --plain --no-legend --state=active '*.service' | cut -d' ' -f1";
    let theirs = world.shell(list).await?;
    let mut theirs: Vec<_> = theirs.lines().collect();
    ours.sort_unstable();
    theirs.sort_unstable();
    ensure!(ours == theirs, "{ours:?}\n{theirs:?}");
    ensure!(ours.contains(&"vbridge-agent.service"));
    Ok(())
}

pub(crate) async fn controlled(world: Arc<World>) -> Result<()> {
    let mut client = client(&world).await?;
    let unit = get(&mut client).await?;
    ensure!(
        unit.active_state == "inactive" && unit.file_state == "disabled",
        "{unit:?}"
    );
    let unit = control(&mut client, ServiceAction::Start).await?;
    let first = unit.main_pid;
    ensure!(unit.active_state == "active" && first != 0, "{unit:?}");
    let own = "systemctl show --value --property MainPID probe";
    ensure!(world.shell(own).await? == first.to_string());
    let unit = control(&mut client, ServiceAction::Restart).await?;
    ensure!(
        unit.active_state == "active" && unit.main_pid != first,
        "{unit:?}"
    );
    control(&mut client, ServiceAction::Enable).await?;
    ensure!(world.shell("systemctl is-enabled probe").await? == "enabled");
    ensure!(get(&mut client).await?.file_state == "enabled");
    control(&mut client, ServiceAction::Disable).await?;
    ensure!(get(&mut client).await?.file_state == "disabled");
    let unit = control(&mut client, ServiceAction::Stop).await?;
    ensure!(
        unit.active_state == "inactive" && unit.main_pid == 0,
        "{unit:?}"
    );
    let absent = ServicesGetRequest {
        name: "no-such.service".into(),
    };
    refused(client.get(absent).await, "NOT_FOUND")
}

pub(crate) async fn statuses(world: Arc<World>) -> Result<()> {
    client(&world).await?;
    world.shell("systemctl stop probe").await?;
    for (words, status) in [
        (&["service", NAME, "probe"][..], 3),
        (&["service", NAME, "probe", "start"], 0),
        (&["service", NAME, "probe"], 0),
        (&["service", NAME, "no-such"], 4),
        (&["service", NAME, "probe", "stop"], 0),
        (&["service", NAME, "probe"], 3),
    ] {
        let output = world.vbridge(words).await?;
        ensure!(
            output.status.code() == Some(status),
            "{words:?}: {output:?}"
        );
    }
    for unit in ["probe", "no-such"] {
        let status = format!("systemctl status {unit} >/dev/null 2>&1; echo $?");
        let theirs: i32 = world.shell(&status).await?.parse()?;
        let ours = world.vbridge(&["service", NAME, unit]).await?;
        ensure!(ours.status.code() == Some(theirs), "{unit}: {ours:?}");
    }
    Ok(())
}

/// All entries of a call that ends by itself.
async fn entries(client: &mut Client, request: ServicesLogsRequest) -> Result<Vec<LogEntry>> {
    let mut stream = client.logs(request).await?.into_inner();
    let mut entries = Vec::new();
    while let Some(message) = stream.message().await? {
        entries.extend(message.entries);
    }
    Ok(entries)
}

/// Restarts the probe, and waits until the journal has all that it says then. The guest's time before, in seconds.
async fn restart(world: &World) -> Result<i64> {
    let now = world.shell("date +%s").await?;
    let complaint =
        format!("journalctl --unit probe --since @{now} | grep -q 'the probe complains'");
    world
        .shell(&format!(
            "systemctl restart probe; until {complaint}; do sleep 0.1; done"
        ))
        .await?;
    Ok(now.parse()?)
}

pub(crate) async fn journal(world: Arc<World>) -> Result<()> {
    let mut client = client(&world).await?;
    let now = restart(&world).await?;
    let request = ServicesLogsRequest {
        units: vec![UNIT.into()],
        since: Some(prost_types::Timestamp {
            seconds: now,
            nanos: 0,
        }),
        ..Default::default()
    };
    let all = entries(&mut client, request.clone()).await?;
    let said = |what: &str| {
        let entry = all.iter().find(|entry| entry.message == what);
        entry.with_context(|| format!("nobody has said {what:?}: {all:?}"))
    };
    let up = said("the probe is up")?;
    ensure!(up.unit == UNIT && up.priority == 6 && up.pid != 0, "{up:?}");
    ensure!(said("the probe complains")?.priority == 3);
    let bad = ServicesLogsRequest {
        priority: Some(3),
        ..request.clone()
    };
    let bad = entries(&mut client, bad).await?;
    ensure!(
        bad.len() == 1 && bad[0].message == "the probe complains",
        "{bad:?}"
    );
    let the_last = [&all[all.len() - 1].cursor];
    for since in [request.since, None] {
        let last = ServicesLogsRequest {
            lines: Some(1),
            since,
            ..request.clone()
        };
        let last = entries(&mut client, last).await?;
        let cursors: Vec<_> = last.iter().map(|entry| &entry.cursor).collect();
        ensure!(cursors == the_last, "since {since:?}: {last:?}");
    }
    let behind = ServicesLogsRequest {
        lines: Some(1),
        since: None,
        after_cursor: all[0].cursor.clone(),
        ..request
    };
    let behind = entries(&mut client, behind).await?;
    ensure!(
        behind.len() == 1 && behind[0].cursor == all[1].cursor,
        "{behind:?}"
    );
    Ok(())
}

pub(crate) async fn followed(world: Arc<World>) -> Result<()> {
    let mut client = client(&world).await?;
    let request = ServicesLogsRequest {
        units: vec![UNIT.into()],
        follow: true,
        lines: Some(0),
        ..Default::default()
    };
    let mut stream = client.logs(request).await?.into_inner();
    control(&mut client, ServiceAction::Restart).await?;
    let heard = async {
        loop {
            let message = stream.message().await?.context("the stream has ended")?;
            let mut said = message.entries.iter();
            if said.any(|entry| entry.message == "the probe is up") {
                return anyhow::Ok(());
            }
        }
    };
    timeout(PATIENCE, heard)
        .await
        .context("nothing is heard")??;
    Ok(())
}

pub(crate) async fn shown(world: Arc<World>) -> Result<()> {
    client(&world).await?;
    restart(&world).await?;
    let shown = world
        .good(&["logs", NAME, "-u", "probe", "-n", "50"])
        .await?;
    ensure!(
        shown.contains("vbridge-system sh[") && shown.contains("]: the probe is up\n"),
        "{shown}"
    );
    let bad = world
        .good(&["logs", NAME, "-u", "probe", "-p", "err", "-n", "1"])
        .await?;
    ensure!(
        bad.ends_with(": the probe complains\n") && bad.lines().count() == 1,
        "{bad}"
    );
    // Some programs write to the kernel's log, too, but not the probe.
    let kernel = world.good(&["logs", NAME, "-k", "-b", "-n", "500"]).await?;
    ensure!(
        kernel.contains(" kernel: Linux version") && !kernel.contains("the probe"),
        "{kernel}"
    );
    Ok(())
}
