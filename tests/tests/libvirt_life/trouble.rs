//! A guest that hangs, a caller that goes, and a daemon that dies under its domains.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use libvirt::{
    Backoff, Connect, Error,
    raw::{
        api::{DomainControlState, ErrorNumber},
        qemu::DomainMonitorCommandArgs,
        remote::DomainGetControlInfoArgs,
    },
};
use vbridge_tests::{
    fixture::{eventually, story},
    libvirt::{daemon::Libvirtd, domain::Domain, limits::CLIENT},
};

use crate::support::{DEFINE, DESTROY, PAUSED, QMP, Record, UNDEFINE, open, refused};

/// A deadline that passes, for certain, and not before the call has left.
const PATIENCE: Duration = Duration::from_secs(1);

/// Sends a signal to a domain's QEMU.
async fn signal(daemon: &Libvirtd, name: &str, signal: &str) -> Result<()> {
    let file = daemon.path(format!("/run/libvirt/qemu/{name}.pid"));
    let pid = std::fs::read_to_string(file).context("no process id of QEMU")?;
    daemon.within("kill", &[signal, pid.trim()]).await?.ok()?;
    Ok(())
}

/// Waits until the daemon has turned to a domain's QEMU and has no answer yet.
async fn is_occupied(domain: &libvirt::Domain) -> Result<()> {
    let args = DomainGetControlInfoArgs {
        dom: domain.raw().clone(),
        flags: 0,
    };
    let occupied = DomainControlState::Occupied.as_raw();
    let ask = async || {
        let raw = domain.connect().raw()?;
        let info = raw.domain_get_control_info(&args).await?;
        Ok(i32::try_from(info.state)? == occupied)
    };
    eventually("the daemon's waiting for QEMU", CLIENT, ask).await
}

#[test]
fn calls_about_a_hung_guest_end_with_their_deadline_or_their_caller() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = open(daemon).await?;
        let machine = Domain::builder("hung").build().await?;
        let domain = connect.create_domain(machine.xml(), PAUSED).await?;
        signal(daemon, "hung", "-STOP").await?;

        // The caller goes away once the daemon is at it; then the deadline of another passes. The daemon works on both, one
        // behind the other.
        let client = connect.client()?;
        let status = r#"{"execute":"query-status"}"#;
        tokio::select! {
            answered = domain.qemu_monitor_command(status, QMP) => bail!("{answered:?} of a QEMU that hangs"),
            waited = is_occupied(&domain) => waited?,
        }
        let hurried = connect.with_deadline(PATIENCE).qemu()?;
        let args = DomainMonitorCommandArgs {
            dom: domain.raw().clone(),
            cmd: status.to_owned(),
            flags: 0,
        };
        match hurried.domain_monitor_command(&args).await {
            Err(Error::Deadline { deadline, .. }) => ensure!(deadline == PATIENCE),
            other => bail!("{other:?}"),
        }
        ensure!(client.unfinished() == 2, "{} calls", client.unfinished());
        // What needs no QEMU goes on, on the same connection.
        ensure!(domain.is_active().await? && connect.hostname().await?.len() > 1);

        signal(daemon, "hung", "-CONT").await?;
        let answered = async || Ok(client.unfinished() == 0);
        eventually("the daemon's late answers", CLIENT, answered).await?;
        ensure!(
            client.ignored_packets() == 0,
            "{} packets",
            client.ignored_packets()
        );
        let status = domain.qemu_monitor_command(status, QMP).await?;
        ensure!(
            status.contains("paused") || status.contains("prelaunch"),
            "{status}"
        );
        Ok(())
    }));
}

#[test]
fn a_domains_life_is_told_on_after_its_daemon_has_died() {
    story(Libvirtd::builder().run(async |daemon| {
        let backoff = Backoff {
            first: Duration::from_millis(20),
            most: Duration::from_millis(200),
        };
        let connect = Connect::builder(&daemon.uri("qemu"))
            .deadline(CLIENT)
            .reconnect(backoff)
            .open()
            .await?;
        let mut record = Record::of_domains(&connect).await?;
        let machine = Domain::builder("survivor").build().await?;
        let domain = connect.define_domain(machine.xml(), DEFINE).await?;
        domain.start(PAUSED).await?;
        record
            .tells(&["Defined Added", "Started Booted", "Suspended Paused"])
            .await?;
        let id = domain.refreshed().await?.id();

        let before = connect.client()?;
        daemon.kill9().await?;
        before.wait_ended().await;
        drop(before);
        daemon.start_again().await?;
        record.tells(&["Reconnected"]).await?;
        connect.ready().await?;
        ensure!(
            domain.refreshed().await?.id() == id,
            "it is another process"
        );
        domain.resume().await?;
        domain.destroy(DESTROY).await?;
        domain.undefine(UNDEFINE).await?;
        record
            .tells(&[
                "Resumed Unpaused",
                "Shutdown Host",
                "Stopped Destroyed",
                "Undefined Removed",
            ])
            .await?;
        refused(domain.state().await, ErrorNumber::NoDomain)?;
        record.ends(&connect).await?;
        connect.close().await;
        Ok(())
    }));
}

#[test]
fn a_qemu_that_is_killed_ends_its_domain() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = open(daemon).await?;
        let mut record = Record::of_domains(&connect).await?;
        let machine = Domain::builder("killed").build().await?;
        let domain = connect.create_domain(machine.xml(), PAUSED).await?;
        signal(daemon, "killed", "-KILL").await?;
        record
            .tells(&["Started Booted", "Suspended Paused", "Stopped Failed"])
            .await?;
        refused(domain.state().await, ErrorNumber::NoDomain)?;
        record.ends(&connect).await
    }));
}
