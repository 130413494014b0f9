//! The agent as a user has installed it.

use std::sync::Arc;

use anyhow::{Result, ensure};
use tonic::Code;
use vbridge_api::guest::v1::{GetTimezoneRequest, system_client::SystemClient};
use vbridge_tests::{fixture::eventually, process::PATIENCE};

use crate::world::World;

pub(crate) async fn started_by_udev(world: Arc<World>) -> Result<()> {
    let show = "systemctl show --value --property";
    let wanted = world
        .shell(&format!("{show} WantedBy vbridge-agent"))
        .await?;
    // The port's device unit, which udev's rule has made; systemctl quotes what it has escaped.
    ensure!(
        wanted.trim_matches('"').ends_with(".device") && !wanted.contains(' '),
        "{wanted:?}"
    );
    let states = format!("{show} ActiveState,UnitFileState vbridge-agent");
    let states = world.shell(&states).await?;
    // It is not enabled: nothing but the port has started it.
    let mut states: Vec<_> = states.lines().collect();
    states.sort_unstable();
    ensure!(states == ["active", "disabled"], "{states:?}");
    let info = world.info().await?;
    let agent = info.agent.unwrap_or_default();
    ensure!(agent.pid == world.guest.agent_pid().await?, "{agent:?}");
    ensure!(info.os.unwrap_or_default().id == "debian");
    let disabled: Vec<_> = info
        .methods
        .iter()
        .filter(|method| !method.enabled && method.name.starts_with("vbridge.guest.v1."))
        .map(|method| (&method.name, &method.reason))
        .collect();
    // Only what the virtual machine itself can't do.
    let suspend = |name: &str| name.ends_with("Power/Suspend");
    ensure!(
        disabled.iter().all(|(name, _)| suspend(name)),
        "{disabled:?}"
    );
    Ok(())
}

pub(crate) async fn killed(world: Arc<World>) -> Result<()> {
    let before = world.guest.agent_pid().await?;
    world.guest.kill_agent().await?;
    world.answers().await?;
    let agent = world.info().await?.agent.unwrap_or_default();
    ensure!(agent.pid != before, "the agent {before} was not killed");
    Ok(())
}

/// `systemctl reload` has the agent read its policy anew, and no other agent comes for it.
pub(crate) async fn reloaded(world: Arc<World>) -> Result<()> {
    let policy = "/run/policy.toml";
    let settings = "/etc/vbridge/agent.toml";
    world
        .shell(&format!(
            "cp {settings} /run/agent.toml; echo 'profile = \"full\"' >{policy}
             sed -i 's|^#policy = .*|policy = \"{policy}\"|' {settings} && systemctl restart vbridge-agent"
        ))
        .await?;
    world.answers().await?;
    let system = SystemClient::new(world.channel().await?);
    let before = world.guest.agent_pid().await?;
    let deny = "printf '[[rule]]\\nname = \"no-zone\"\\ndeny = [\"*.System/GetTimezone\"]\\n'";
    world
        .shell(&format!(
            "{deny} >>{policy} && systemctl reload vbridge-agent"
        ))
        .await?;
    eventually("the rule holds", PATIENCE, || {
        let mut system = system.clone();
        async move {
            let answer = system.get_timezone(GetTimezoneRequest {}).await;
            Ok(answer.is_err_and(|status| status.code() == Code::PermissionDenied))
        }
    })
    .await?;
    ensure!(world.guest.agent_pid().await? == before);
    world
        .shell(&format!(
            "cp /run/agent.toml {settings} && systemctl restart vbridge-agent"
        ))
        .await?;
    world.answers().await
}

/// The port goes, and the agent with it; the port comes back, and so does the agent.
pub(crate) async fn port_goes_and_comes(world: Arc<World>) -> Result<()> {
    let port = "$(grep -lx org.vbridge.agent.0 /sys/class/virtio-ports/*/name | head -n 1)";
    let find = format!("basename $(readlink -f $(dirname {port})/device)");
    let device = world.shell(&find).await?;
    let driver = "/sys/bus/virtio/drivers/virtio_console";
    world
        .shell(&format!("echo {device} >{driver}/unbind"))
        .await?;
    let inactive = "systemctl show --value --property ActiveState vbridge-agent";
    eventually("the agent has gone with its port", PATIENCE, || async {
        Ok(world.shell(inactive).await? == "inactive")
    })
    .await?;
    world
        .shell(&format!("echo {device} >{driver}/bind"))
        .await?;
    world.answers().await
}
