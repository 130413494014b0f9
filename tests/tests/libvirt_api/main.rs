//! What the libvirt client's handles promise beyond single calls, on a real daemon: states, kinds of events, streams in two
//! halves, procedures that have no method, and the daemon's administration.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod admin;
mod raw;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libvirt::events::{
    DomainEventId, DomainEventKind, Events, LifecycleEvent, NetworkEventId, NodeDeviceEventId,
    Notice, SecretEventId, StoragePoolEventId,
};
use libvirt::raw::api::{
    DomainChannelFlags, DomainCreateFlags, DomainDestroyFlagsValues, DomainEventResumedDetailType,
    DomainEventStartedDetailType, DomainEventStoppedDetailType, DomainEventSuspendedDetailType,
};
use libvirt::rpc::{OwnedReadHalf, OwnedWriteHalf};
use libvirt::{Backoff, Connect, ConnectState, Error, States};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use vbridge_tests::{
    content,
    fixture::{eventually, story},
    libvirt::{daemon::Libvirtd, domain::Domain},
};

/// For something that has happened to be told, on a machine that is badly overloaded.
const SOON: Duration = Duration::from_secs(10);

async fn notice<T>(events: &mut Events<T>) -> Result<Notice<T>> {
    let next = timeout(SOON, events.next())
        .await
        .context("no event came")?;
    Ok(next.context("the events have ended")??)
}

// === States ===

async fn state(states: &mut States) -> Result<ConnectState> {
    let next = timeout(SOON, states.next())
        .await
        .context("no state came")?;
    next.context("the states have ended")
}

#[test]
fn who_looks_late_sees_every_outage_with_its_reason_and_the_end() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = Connect::builder(&daemon.uri("test"))
            .reconnect(Backoff::default())
            .open()
            .await?;
        let mut states = connect.states();
        let kinds = [DomainEventId::Lifecycle];
        let mut events = connect.domain_events(&kinds, None, None).await?;
        for _ in 0..3 {
            daemon.kill9().await?;
            daemon.start_again().await?;
            let up_again = notice(&mut events).await?;
            ensure!(matches!(up_again, Notice::Reconnected), "{up_again:?}");
        }
        connect.close().await;
        // Nobody has looked until now.
        let first = state(&mut states).await?;
        ensure!(matches!(first, ConnectState::Up), "{first:?}");
        for round in 0..3 {
            let broken = state(&mut states).await?;
            let ConnectState::Reconnecting {
                why: Error::Connection(why),
                ..
            } = broken
            else {
                anyhow::bail!("{round}: {broken:?}");
            };
            ensure!(why.to_string().contains("closed"), "{round}: {why}");
            let mut next = state(&mut states).await?;
            if matches!(next, ConnectState::Reconnecting { .. }) {
                next = state(&mut states).await?;
            }
            ensure!(matches!(next, ConnectState::Up), "{round}: {next:?}");
        }
        let last = state(&mut states).await?;
        ensure!(matches!(last, ConnectState::Ended(_)), "{last:?}");
        ensure!(states.next().await.is_none());
        Ok(())
    }));
}

// === Kinds of events ===

/// Holds each kind of a family against what the family is said to have, and gives that.
macro_rules! family {
    ($connect:ident, $kinds:ty, $events:ident, $supported:ident) => {{
        let supported = $connect.$supported().await?;
        for &kind in <$kinds>::ALL {
            match $connect.$events(&[kind], None, None).await {
                Ok(_) => ensure!(supported.contains(&kind), "{kind:?} is there after all"),
                Err(error) => {
                    ensure!(!supported.contains(&kind), "{kind:?}: {error}");
                    let named = error.to_string().contains(&format!("the kind {kind:?}:"));
                    ensure!(named, "{kind:?}: {error}");
                    ensure!(matches!(error, Error::UnsupportedEvent { .. }), "{error:?}");
                    ensure!(error.remote().is_some(), "what the daemon said is lost");
                }
            }
        }
        supported
    }};
}

#[test]
fn a_kind_that_the_daemon_does_not_have_is_an_error_with_its_name_in_every_family() {
    story(Libvirtd::builder().run(async |daemon| {
        for driver in ["qemu", "test"] {
            let connect = Connect::open(&daemon.uri(driver)).await?;
            let domain = family!(
                connect,
                DomainEventId,
                domain_events,
                supported_domain_events
            );
            ensure!(domain.contains(&DomainEventId::Lifecycle), "{domain:?}");
            let network = family!(
                connect,
                NetworkEventId,
                network_events,
                supported_network_events
            );
            ensure!(network.contains(&NetworkEventId::Lifecycle), "{network:?}");
            let pool = family!(
                connect,
                StoragePoolEventId,
                storage_pool_events,
                supported_storage_pool_events
            );
            ensure!(pool == StoragePoolEventId::ALL, "{pool:?}");
            let device = family!(
                connect,
                NodeDeviceEventId,
                node_device_events,
                supported_node_device_events
            );
            ensure!(device == NodeDeviceEventId::ALL, "{device:?}");
            let secret = family!(
                connect,
                SecretEventId,
                secret_events,
                supported_secret_events
            );
            ensure!(
                secret.is_empty() == (driver == "test"),
                "{driver}: {secret:?}"
            );
            // libvirt 9.8 and 12.4 brought these.
            let version = connect.libvirt_version().await?;
            let later = network.contains(&NetworkEventId::MetadataChange);
            ensure!(later == ((version.major, version.minor) >= (9, 8)));
            let later = domain.contains(&DomainEventId::ChannelLifecycle);
            ensure!(later == ((version.major, version.minor) >= (12, 4)));
            let monitor = connect.monitor_events(None, None, None).await;
            match monitor {
                Ok(_) => ensure!(driver == "qemu"),
                Err(error) => ensure!(matches!(error, Error::UnsupportedEvent { .. }), "{error:?}"),
            }
        }
        Ok(())
    }));
}

#[test]
fn asking_which_kinds_there_are_takes_nothing_from_a_subscriber() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = Connect::open(&daemon.uri("test")).await?;
        let kinds = [DomainEventId::Lifecycle];
        let mut events = connect.domain_events(&kinds, None, None).await?;
        connect.supported_domain_events().await?;
        let domain = connect.domain_by_name("test").await?;
        domain.suspend().await?;
        let event = notice(&mut events).await?;
        ensure!(matches!(event, Notice::Event(_)), "{event:?}");
        // And one refused kind takes back those that were registered before it.
        let all = connect.domain_events(DomainEventId::ALL, None, None).await;
        if connect.supported_domain_events().await?.len() < DomainEventId::ALL.len() {
            ensure!(all.is_err());
        }
        domain.resume().await?;
        let event = notice(&mut events).await?;
        ensure!(matches!(event, Notice::Event(_)), "{event:?}");
        ensure!(connect.client()?.ignored_packets() == 0);
        Ok(())
    }));
}

#[test]
fn a_domains_life_is_told_with_the_reason_of_each_step() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = Connect::open(&daemon.uri("test")).await?;
        let kinds = [DomainEventId::Lifecycle];
        let mut events = connect.domain_events(&kinds, None, None).await?;
        let domain = connect.domain_by_name("test").await?;
        domain.suspend().await?;
        domain.resume().await?;
        domain.destroy(DomainDestroyFlagsValues::empty()).await?;
        domain.start(DomainCreateFlags::empty()).await?;
        for expected in [
            LifecycleEvent::Suspended(DomainEventSuspendedDetailType::Paused.into()),
            LifecycleEvent::Resumed(DomainEventResumedDetailType::Unpaused.into()),
            LifecycleEvent::Stopped(DomainEventStoppedDetailType::Destroyed.into()),
            LifecycleEvent::Started(DomainEventStartedDetailType::Booted.into()),
        ] {
            let Notice::Event(event) = notice(&mut events).await? else {
                anyhow::bail!("no event");
            };
            let expected = DomainEventKind::Lifecycle { event: expected };
            ensure!(event.kind == expected, "{:?}", event.kind);
        }
        Ok(())
    }));
}

#[test]
fn the_loss_of_a_hypervisor_can_be_watched_again_after_it_was_let_go() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = Connect::open(&daemon.uri("qemu")).await?;
        for _ in 0..3 {
            // The daemon takes one registration, which both share.
            let first = connect.close_events(None).await?;
            let second = connect.close_events(None).await?;
            drop((first, second));
        }
        ensure!(connect.client()?.ignored_packets() == 0);
        Ok(())
    }));
}

// === Streams in two halves ===

/// What the guest returns at full speed.
const ECHOED: u64 = 128 << 20;
const BLOCK: usize = 256 * 1024;
const SEED: u64 = 7;

/// Sends all of it, however fast it comes back.
async fn send_all(mut writer: OwnedWriteHalf) -> Result<OwnedWriteHalf> {
    let mut sent = 0;
    while sent < ECHOED {
        writer.write_all(&content::bytes(SEED, sent, BLOCK)).await?;
        sent += BLOCK as u64;
    }
    writer.flush().await?;
    Ok(writer)
}

/// Reads all of it, and compares.
async fn read_all(mut reader: OwnedReadHalf) -> Result<OwnedReadHalf> {
    let mut block = vec![0; BLOCK];
    let mut read = 0;
    while read < ECHOED {
        let length = reader.read(&mut block).await?;
        ensure!(length > 0, "it has ended after {read} bytes");
        let wrong = content::first_difference(SEED, read, &block[..length]);
        ensure!(wrong.is_none(), "byte {wrong:?} is another");
        read += length as u64;
    }
    Ok(reader)
}

#[test]
fn a_guests_channel_carries_bytes_both_ways_at_once_in_two_tasks() {
    const CHANNEL: Option<&str> = Some("org.vbridge.raw.0");
    let flags = DomainChannelFlags::empty();
    story(Libvirtd::builder().run(async |daemon| {
        let guest = Domain::builder("halves").build().await?;
        guest.create(daemon).await?;
        guest.up(daemon, 1).await?;
        let connect = Connect::open(&daemon.uri("qemu")).await?;
        let domain = connect.domain_by_name(guest.name()).await?;

        let (reader, writer) = domain.open_channel(CHANNEL, flags).await?.into_split();
        let writing = tokio::spawn(send_all(writer));
        let reading = tokio::spawn(read_all(reader));
        let writer = writing.await??;
        let mut reader = reading.await??;
        writer.finish().await?;
        ensure!(reader.chunk().await?.is_none());

        // Once finished it is free; a half keeps it, and with the second one it is free again.
        let (reader, writer) = domain.open_channel(CHANNEL, flags).await?.into_split();
        drop(writer);
        let refused = domain.open_channel(CHANNEL, flags).await;
        ensure!(refused.is_err(), "a channel that is in use is given away");
        drop(reader);
        eventually("the channel's release", SOON, async || {
            Ok(domain.open_channel(CHANNEL, flags).await.is_ok())
        })
        .await
    }));
}
