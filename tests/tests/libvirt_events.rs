//! The libvirt client's events, on a real daemon.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::FutureExt as _;
use futures_util::future::{try_join, try_join_all};
use libvirt::events::{
    DomainEventId, DomainEventKind, Events, NetworkEventId, NodeDeviceEvent, NodeDeviceEventId,
    NodeDeviceEventKind, Notice,
};
use libvirt::raw::api::{
    ConnectListAllDomainsFlags, DomainCreateFlags, DomainDefineFlags, DomainDestroyFlagsValues,
    DomainEventType, DomainUndefineFlagsValues, ErrorNumber, NodeDeviceCreateXmlFlags,
    NodeDeviceEventLifecycleType,
};
use libvirt::raw::remote::ConnectDomainEventCallbackRegisterAnyArgs;
use libvirt::{Backoff, Connect, ConnectState, Domain, Error};
use tokio::time::timeout;
use vbridge_tests::{
    fixture::{eventually, story},
    libvirt::{
        certificates::{ClientCertificate, ServerCertificate},
        daemon::{Auth, Libvirtd},
        limits::FAILED,
        sshd::Sshd,
    },
};

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

/// The daemon dies and comes back, a few times; the subscriptions from before go on.
async fn flow_again(daemon: &mut Libvirtd, uri: &str) -> Result<()> {
    let connect = Connect::builder(uri)
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
    let mut networks = connect
        .network_events(&[NetworkEventId::Lifecycle], None, None)
        .await?;
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
}

#[test]
fn events_flow_again_after_the_daemon_was_killed() {
    story(Libvirtd::builder().run(async |daemon| {
        let uri = daemon.uri("test");
        flow_again(daemon, &uri).await
    }));
}

#[test]
fn events_flow_again_over_tcp() {
    story(Libvirtd::builder().tcp(Auth::None).run(async |daemon| {
        let uri = daemon.tcp_uri("test")?;
        flow_again(daemon, &uri).await
    }));
}

#[test]
fn events_flow_again_over_tls() {
    let builder = Libvirtd::builder().tls(ServerCertificate::Good, Auth::None);
    story(builder.run(async |daemon| {
        let uri = daemon.tls_uri("test", ClientCertificate::Good)?;
        flow_again(daemon, &uri).await
    }));
}

/// The daemon dies, and nobody connects again.
async fn end_with_the_reason(daemon: &mut Libvirtd, uri: &str) -> Result<()> {
    let connect = Connect::open(uri).await?;
    let mut events = connect
        .domain_events(&[DomainEventId::Lifecycle], None, None)
        .await?;
    let killed = Instant::now();
    daemon.kill9().await?;
    let last = timeout(FAILED, events.next()).await?.context("an item")?;
    let after = killed.elapsed();
    ensure!(after < FAILED, "it took {after:?}");
    let error = last.err().context("the daemon's end is an error")?;
    ensure!(
        error.to_string().contains("closed the connection"),
        "{error}"
    );
    ensure!(events.next().await.is_none());
    daemon.start_again().await
}

#[test]
fn events_end_with_the_reason_where_nobody_reconnects() {
    let builder = Libvirtd::builder()
        .tcp(Auth::None)
        .tls(ServerCertificate::Good, Auth::None);
    story(builder.run(async |daemon| {
        let sshd = Sshd::start(daemon).await?;
        for uri in [
            daemon.uri("test"),
            daemon.tcp_uri("test")?,
            daemon.tls_uri("test", ClientCertificate::Good)?,
            sshd.uri("client", "known"),
        ] {
            let ended = end_with_the_reason(daemon, &uri).await;
            ended.with_context(|| uri.clone())?;
        }
        Ok(())
    }));
}

/// Registers for life-cycle events on the same connection, as no subscriber does: beside the shared registration, if there
/// is one. Gives the callback's number.
async fn registered_beside(connect: &Connect) -> Result<i32, Error> {
    let args = ConnectDomainEventCallbackRegisterAnyArgs {
        event_id: DomainEventId::Lifecycle as i32,
        dom: None,
    };
    let raw = connect.raw()?;
    let registered = raw.connect_domain_event_callback_register_any(&args).await;
    Ok(registered?.callback_id)
}

/// That the daemon has a registration of this connection's already.
async fn is_tracked(connect: &Connect) -> Result<()> {
    match registered_beside(connect).await {
        Ok(callback) => bail!("the daemon knows of no registration but the new one, {callback}"),
        Err(error) => {
            ensure!(error.to_string().contains("already tracked"), "{error}");
            Ok(())
        }
    }
}

#[test]
fn a_dropped_subscription_is_taken_back_from_the_daemon() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = Connect::open(&daemon.uri("test")).await?;
        let subscribe = || connect.domain_events(&[DomainEventId::Lifecycle], None, None);
        let (first, mut second) = try_join(subscribe(), subscribe()).await?;
        is_tracked(&connect).await?;
        drop(first);
        is_tracked(&connect).await?;
        let domain = connect.domain_by_name(TEST).await?;
        domain.suspend().await?;
        life(&mut second, 1).await?;
        drop(second);
        // The daemon is told by a task of the client's own, which nobody waits for.
        let taken_back = async || Ok(registered_beside(&connect).await.is_ok());
        eventually("a registration of its own", SOON, taken_back).await
    }));
}

#[test]
fn a_domain_is_one_to_its_subscribers_whatever_their_handles_hold_of_it() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = Connect::open(&daemon.uri("test")).await?;
        let kinds = [DomainEventId::Lifecycle];
        let running = connect.domain_by_name(TEST).await?;
        let mut first = connect.domain_events(&kinds, Some(&running), None).await?;
        running.destroy(DomainDestroyFlagsValues::empty()).await?;
        // It has no number now.
        let stopped = connect.domain_by_name(TEST).await?;
        ensure!(running.raw().id != stopped.raw().id);
        let mut second = connect.domain_events(&kinds, Some(&stopped), None).await?;
        stopped.start(DomainCreateFlags::empty()).await?;
        let seen = life(&mut first, 2).await?;
        ensure!(seen[0].1 == DomainEventType::Stopped && seen[1].1 == DomainEventType::Started);
        life(&mut second, 1).await?;
        Ok(())
    }));
}

#[test]
fn a_second_registration_is_not_taken_for_a_kind_that_the_daemon_does_not_know() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = Connect::open(&daemon.uri("test")).await?;
        // Past this client's own table of them.
        registered_beside(&connect).await?;
        let subscribed = connect.domain_events(&[DomainEventId::Lifecycle], None, None);
        let error = subscribed.await.err().context("the daemon took it twice")?;
        ensure!(matches!(error, Error::Libvirt(_)), "{error}");
        ensure!(error.to_string().contains("already tracked"), "{error}");
        Ok(())
    }));
}

#[test]
fn a_subscription_can_follow_the_end_of_another_at_once() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = Connect::open(&daemon.uri("test")).await?;
        // The daemon refuses a registration that overtakes the end of the one before.
        for _ in 0..1_000 {
            let events = connect
                .domain_events(&[DomainEventId::Lifecycle], None, None)
                .await?;
            drop(events);
        }
        let mut events = connect
            .domain_events(&[DomainEventId::Lifecycle], None, None)
            .await?;
        let domain = connect.domain_by_name(TEST).await?;
        domain.suspend().await?;
        life(&mut events, 1).await?;
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

#[test]
fn a_kind_of_event_that_the_daemon_does_not_know_is_its_error() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = Connect::open(&daemon.uri("test")).await?;
        // No version has so many.
        let args = ConnectDomainEventCallbackRegisterAnyArgs {
            event_id: 10_000,
            dom: None,
        };
        let raw = connect.raw()?;
        let refused = raw.connect_domain_event_callback_register_any(&args).await;
        let error = refused.err().context("the daemon cannot know it")?;
        ensure!(error.remote().is_some(), "{error}");

        // Among all the kinds that this client knows, an old daemon misses some, and says so; a new one has them all.
        let domain = connect.domain_by_name(TEST).await?;
        match connect.domain_events(DomainEventId::ALL, None, None).await {
            Ok(mut events) => {
                domain.suspend().await?;
                life(&mut events, 1).await?;
            }
            Err(error) => {
                ensure!(error.remote().is_some(), "{error}");
                // Those that it had taken before are given back.
                let taken_back = async || Ok(registered_beside(&connect).await.is_ok());
                eventually("a registration of its own", SOON, taken_back).await?;
            }
        }
        // The connection lives on.
        domain.refreshed().await?;
        Ok(())
    }));
}

/// A host bus adapter that the test driver makes beneath one of its own, under a name of which it has but one.
const ADAPTER: &str = "<device><parent>scsi_host1</parent><capability type='scsi_host'>\
     <capability type='fc_host'><wwnn>2000000012341234</wwnn><wwpn>1000000012341234</wwpn>\
     </capability></capability></device>";

/// What is told of devices next: which one, and what has become of it.
async fn of_devices(
    events: &mut Events<NodeDeviceEvent>,
) -> Result<(String, NodeDeviceEventLifecycleType)> {
    let event = match next(events).await? {
        Notice::Event(event) => event,
        other => bail!("not an event: {other:?}"),
    };
    match event.kind {
        NodeDeviceEventKind::Lifecycle { event: what, .. } => {
            let known = what.known().context("an unknown event")?;
            Ok((event.object.name().to_owned(), known))
        }
        other => bail!("another event: {other:?}"),
    }
}

#[test]
fn a_device_is_told_of_when_it_comes_and_when_it_goes() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = Connect::open(&daemon.uri("test")).await?;
        let mut all = connect
            .node_device_events(NodeDeviceEventId::ALL, None, None)
            .await?;
        let create = || connect.create_node_device(ADAPTER, NodeDeviceCreateXmlFlags::empty());
        let adapter = create().await?;
        let name = adapter.name();
        let mut of_it = connect
            .node_device_events(NodeDeviceEventId::ALL, Some(&adapter), None)
            .await?;
        let other = connect.node_device_by_name("computer").await?;
        let mut of_other = connect
            .node_device_events(NodeDeviceEventId::ALL, Some(&other), None)
            .await?;
        adapter.destroy().await?;
        let gone = connect.node_device_by_name(name).await;
        let error = gone.err().context("it is still there")?;
        ensure!(error.is(ErrorNumber::NoNodeDevice), "{error}");
        ensure!(create().await? == adapter);
        adapter.destroy().await?;

        let expected = [
            NodeDeviceEventLifecycleType::Created,
            NodeDeviceEventLifecycleType::Deleted,
            NodeDeviceEventLifecycleType::Created,
            NodeDeviceEventLifecycleType::Deleted,
        ]
        .map(|what| (name.to_owned(), what));
        for expected in &expected {
            let told = of_devices(&mut all).await?;
            ensure!(told == *expected, "{told:?}, and not {expected:?}");
        }
        // It had come before anybody could ask for it alone.
        for expected in &expected[1..] {
            let told = of_devices(&mut of_it).await?;
            ensure!(told == *expected, "{told:?}, and not {expected:?}");
        }
        let told = of_other.next().now_or_never();
        ensure!(told.is_none(), "nothing has happened to it: {told:?}");
        Ok(())
    }));
}
