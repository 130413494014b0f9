//! What the libvirt client's handles promise beyond single calls, on a real daemon: states, kinds of events, streams in two
//! halves, and the daemon's administration.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libvirt::events::{DomainEventId, Events, Notice};
use libvirt::{Backoff, Connect, ConnectState, Error, States};
use tokio::time::timeout;
use vbridge_tests::{fixture::story, libvirt::daemon::Libvirtd};

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
