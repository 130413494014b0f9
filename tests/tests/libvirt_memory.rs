//! What a slow subscriber costs the libvirt client, on a real daemon.
//!
//! The memory of the whole process is counted, so this test has a program of its own. How the bound depends on the queue
//! and on the events' size is a test of the client's own, `memory`, against a daemon that says what it is told.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libvirt::events::{DomainEventId, DomainEventKind, Notice};
use libvirt::{Connect, Domain};
use peak_alloc::PeakAlloc;
use tokio::time::timeout;
use vbridge_tests::{fixture::story, libvirt::daemon::Libvirtd};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// What the subscriber sleeps through: two events for each of these.
const ROUNDS: usize = 15_000;
/// What waits for it at most.
const KEPT: usize = 1_000;
/// What the process may take while the subscriber sleeps: five times what a thousand events do (some hundred bytes each), for
/// the calls beside them and the runtime take some as well. All events, were they kept, would take six times as much.
const HELD: usize = 512 * 1024;
/// For an event that has happened to arrive, on a machine that is badly overloaded.
const SOON: Duration = Duration::from_secs(10);

async fn suspend_and_resume(domain: &Domain, rounds: usize) -> Result<()> {
    for _ in 0..rounds {
        domain.suspend().await?;
        domain.resume().await?;
    }
    Ok(())
}

#[test]
fn a_subscriber_that_sleeps_does_not_grow_memory_and_learns_what_it_missed() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = Connect::open(&daemon.uri("test")).await?;
        let domain = connect.domain_by_name("test").await?;
        // What the first calls make stays; it is not the subscriber's.
        suspend_and_resume(&domain, 10).await?;

        let before = ALLOCATOR.current_usage();
        ALLOCATOR.reset_peak_usage();
        let mut events = connect
            .domain_events(&[DomainEventId::Lifecycle], None, Some(KEPT))
            .await?;
        // Each of these is a call beside the events, and is answered though nobody takes them.
        suspend_and_resume(&domain, ROUNDS).await?;
        let held = ALLOCATOR.peak_usage().saturating_sub(before);
        eprintln!("{held} bytes at most while {} events came", 2 * ROUNDS);
        ensure!(held <= HELD, "{held} bytes are held, {HELD} are allowed");

        // Each event is either told or counted as missed, once.
        let (mut told, mut missed) = (0, 0);
        while told + missed < 2 * ROUNDS {
            let next = timeout(SOON, events.next()).await;
            let next = next.with_context(|| format!("nothing more after {told} and {missed}"))?;
            match next.context("the events have ended")?? {
                Notice::Missed(count) => missed += usize::try_from(count)?,
                Notice::Event(event) => {
                    let lifecycle = matches!(event.kind, DomainEventKind::Lifecycle { .. });
                    ensure!(lifecycle && event.domain == domain, "{told}: {event:?}");
                    told += 1;
                }
                notice => anyhow::bail!("{notice:?}"),
            }
        }
        ensure!(told + missed == 2 * ROUNDS, "{told} and {missed}");
        // A call's event may come behind its reply: the last one then finds a subscriber that is awake.
        ensure!((KEPT..=KEPT + 1).contains(&told), "{told} were kept");
        Ok(())
    }));
}
