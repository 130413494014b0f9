//! The libvirt client's events, on a real daemon.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::future::try_join_all;
use libvirt::events::{DomainEventId, DomainEventKind, Events, NetworkEventId, Notice};
use libvirt::raw::api::{
    ConnectListAllDomainsFlags, DomainCreateFlags, DomainDefineFlags, DomainDestroyFlagsValues,
    DomainEventType, DomainUndefineFlagsValues,
};
use libvirt::{Backoff, Connect, ConnectState, Domain};
use tokio::time::timeout;
use vbridge_tests::{fixture::story, libvirt::daemon::Libvirtd};

/// For an event that has happened to arrive, on a machine that is badly overloaded.
const SOON: Duration = Duration::from_secs(10);

/// What the domain of the test driver is called that is always there.
const TEST: &str = "test";

async fn next<T>(events: &mut Events<T>) -> Result<Notice<T>> {
    let next = timeout(SOON, events.next())
        .await
        .context("no event came")?;
    Ok(next.context("the events have ended")??)
}

/// The kinds of life-cycle events, as they come, with the domain's name.
async fn life(
    events: &mut Events<libvirt::events::DomainEvent>,
    count: usize,
) -> Result<Vec<(String, DomainEventType)>> {
    let mut seen = Vec::with_capacity(count);
    while seen.len() < count {
        match next(events).await? {
            Notice::Event(event) => match event.kind {
                DomainEventKind::Lifecycle { event: what } => {
                    let known = what.event().known().context("an unknown event")?;
                    seen.push((event.domain.name().to_owned(), known));
                }
                other => bail!("another event: {other:?}"),
            },
            other => bail!("not an event: {other:?}"),
        }
    }
    Ok(seen)
}

fn small(name: &str) -> String {
    format!(
        "<domain type='test'><name>{name}</name><memory>8192</memory><os><type>hvm</type></os></domain>"
    )
}

#[test]
fn ten_thousand_events_arrive_in_order_and_none_is_lost() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = Connect::open(&daemon.uri("test")).await?;
        let mut events = connect
            .domain_events(&[DomainEventId::Lifecycle], None, Some(10_000))
            .await?;
        let domain = connect.domain_by_name(TEST).await?;
        for _ in 0..5_000 {
            domain.suspend().await?;
            domain.resume().await?;
        }
        // Only now: all of them have waited.
        let seen = life(&mut events, 10_000).await?;
        for (index, (name, what)) in seen.iter().enumerate() {
            let expected = [DomainEventType::Suspended, DomainEventType::Resumed][index % 2];
            ensure!(
                name == TEST && *what == expected,
                "event {index}: {name} {what:?}"
            );
        }
        Ok(())
    }));
}

#[test]
fn a_subscriber_that_sleeps_holds_nobody_up_and_learns_what_it_missed() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = Connect::open(&daemon.uri("test")).await?;
        let mut slow = connect
            .domain_events(&[DomainEventId::Lifecycle], None, Some(10))
            .await?;
        let mut quick = connect
            .domain_events(&[DomainEventId::Lifecycle], None, None)
            .await?;
        let domain = connect.domain_by_name(TEST).await?;
        for _ in 0..100 {
            domain.suspend().await?;
            domain.resume().await?;
        }
        life(&mut quick, 200).await?;
        let first = next(&mut slow).await?;
        ensure!(matches!(first, Notice::Missed(190)), "{first:?}");
        life(&mut slow, 10).await?;
        Ok(())
    }));
}

#[test]
fn what_happens_to_several_domains_comes_in_the_order_in_which_it_happened() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = Connect::open(&daemon.uri("test")).await?;
        let mut events = connect
            .domain_events(&[DomainEventId::Lifecycle], None, None)
            .await?;
        let mut of_one = None;
        let mut expected = Vec::new();
        for name in ["one", "two", "three"] {
            let domain = connect
                .define_domain(&small(name), DomainDefineFlags::empty())
                .await?;
            if name == "two" {
                of_one = Some(
                    connect
                        .domain_events(&[DomainEventId::Lifecycle], Some(&domain), None)
                        .await?,
                );
            }
            domain.start(DomainCreateFlags::empty()).await?;
            domain.suspend().await?;
            domain.resume().await?;
            domain.destroy(DomainDestroyFlagsValues::empty()).await?;
            domain.undefine(DomainUndefineFlagsValues::empty()).await?;
            for what in [
                DomainEventType::Defined,
                DomainEventType::Started,
                DomainEventType::Suspended,
                DomainEventType::Resumed,
                DomainEventType::Stopped,
                DomainEventType::Undefined,
            ] {
                expected.push((name.to_owned(), what));
            }
        }
        let seen = life(&mut events, expected.len()).await?;
        ensure!(seen == expected, "{seen:?}");
        let of_two = life(&mut of_one.context("it was subscribed")?, 5).await?;
        ensure!(of_two == expected[7..12], "{of_two:?}");
        Ok(())
    }));
}

#[test]
fn events_flow_again_after_the_daemon_was_killed() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = Connect::builder(&daemon.uri("test"))
            .reconnect(Backoff::default())
            .open()
            .await?;
        let mut domains = connect
            .domain_events(
                &[DomainEventId::Lifecycle, DomainEventId::MetadataChange],
                None,
                None,
            )
            .await?;
        let kinds = [NetworkEventId::Lifecycle];
        let mut networks = connect.network_events(&kinds, None, None).await?;
        let domain = connect.domain_by_name(TEST).await?;
        for round in 0..3 {
            domain.suspend().await?;
            domain.resume().await?;
            let seen = life(&mut domains, 2).await?;
            ensure!(seen[0].1 == DomainEventType::Suspended, "{round}: {seen:?}");

            daemon.kill9().await?;
            let error = timeout(SOON, domain.state()).await?;
            ensure!(error.is_err(), "{round}: a dead daemon has answered");
            daemon.start_again().await?;
            timeout(SOON, connect.ready()).await??;
            ensure!(matches!(connect.state(), ConnectState::Up), "{round}");
            let notice = next(&mut domains).await?;
            ensure!(matches!(notice, Notice::Reconnected), "{round}: {notice:?}");
            let notice = next(&mut networks).await?;
            ensure!(matches!(notice, Notice::Reconnected), "{round}: {notice:?}");
        }
        // The handle from before the first kill still serves.
        domain.suspend().await?;
        life(&mut domains, 1).await?;
        Ok(())
    }));
}

#[test]
fn events_end_with_the_reason_where_nobody_reconnects() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = Connect::open(&daemon.uri("test")).await?;
        let mut events = connect
            .domain_events(&[DomainEventId::Lifecycle], None, None)
            .await?;
        daemon.kill9().await?;
        let last = timeout(SOON, events.next()).await?.context("an item")?;
        let error = last.err().context("the daemon's end is an error")?;
        ensure!(
            error.to_string().contains("closed the connection"),
            "{error}"
        );
        ensure!(events.next().await.is_none());
        daemon.start_again().await
    }));
}

#[test]
fn a_dropped_subscription_is_taken_back_from_the_daemon() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = Connect::open(&daemon.uri("test")).await?;
        // More than a daemon would bear if they piled up, on one connection.
        for _ in 0..3_000 {
            let events = connect
                .domain_events(&[DomainEventId::Lifecycle], None, None)
                .await?;
            drop(events);
        }
        let domain = connect.domain_by_name(TEST).await?;
        domain.suspend().await?;
        ensure!(connect.client()?.ignored_packets() == 0);
        Ok(())
    }));
}

#[test]
fn many_subscribers_each_see_every_event() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = Connect::open(&daemon.uri("test")).await?;
        let subscribe = || connect.domain_events(&[DomainEventId::Lifecycle], None, None);
        let mut all = try_join_all((0..100).map(|_| subscribe())).await?;
        let domain: Domain = connect.domain_by_name(TEST).await?;
        domain.suspend().await?;
        domain.resume().await?;
        for events in &mut all {
            let seen = life(events, 2).await?;
            ensure!(
                seen[0].1 == DomainEventType::Suspended && seen[1].1 == DomainEventType::Resumed
            );
        }
        let running = connect.domains(ConnectListAllDomainsFlags::ACTIVE).await?;
        ensure!(running.len() == 1);
        Ok(())
    }));
}
