//! The guest's end, and its beginning anew.

use std::sync::Arc;

use anyhow::{Result, ensure};
use vbridge_api::guest::v1::{PowerShutdownRequest, ShutdownMode, power_client::PowerClient};
use vbridge_tests::process::PATIENCE;

use crate::world::{NAME, World};

pub(crate) async fn reboot(world: Arc<World>) -> Result<()> {
    let before = world.info().await?;
    world.shell("touch /root/written-before").await?;
    let vm = world.guest.vm();
    vm.expect_boot().await;
    let mut power = PowerClient::new(world.channel().await?);
    let request = PowerShutdownRequest {
        mode: ShutdownMode::Reboot.into(),
        force: false,
    };
    // It answers, and only then acts.
    power.shutdown(request).await?;
    vm.wait_boot().await?;
    world.bridge.read().await.ready(NAME).await?;
    let after = world.info().await?;
    ensure!(after.boot_id != before.boot_id && after.machine_id == before.machine_id);
    // What was written before is there, though nobody has synced it: it was a shutdown in order.
    world.shell("test -e /root/written-before").await?;
    Ok(())
}

pub(crate) async fn power_off(world: Arc<World>) -> Result<()> {
    world.good(&["shutdown", NAME]).await?;
    world.guest.vm().wait_end(3 * PATIENCE).await?;
    let output = world.vbridge(&["ping", NAME, "-c", "1"]).await?;
    ensure!(!output.status.success(), "{output:?}");
    Ok(())
}
