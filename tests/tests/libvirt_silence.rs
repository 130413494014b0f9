//! What the libvirt client does when a real daemon falls silent: its process is stopped, its sockets are still there.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use libvirt::events::{DomainEvent, DomainEventId, Events, Notice};
use libvirt::raw::api::{StorageVolDownloadFlags, StorageVolUploadFlags};
use libvirt::rpc::{Chunk, ConnectionError, KeepaliveConfig, RawStream};
use libvirt::{Backoff, Builder, Connect, ConnectState, Error, StorageVol};
use tokio::time::timeout;
use vbridge_tests::{fixture::story, libvirt::daemon::Libvirtd};

/// The daemon is asked after so much silence, and given up after two questions without an answer: in 600 ms.
const KEEPALIVE: KeepaliveConfig = KeepaliveConfig {
    interval: Duration::from_millis(200),
    count: 2,
};
/// For the silence to be noticed, and for the connection to stand again, on a machine that is badly overloaded.
const SOON: Duration = Duration::from_secs(20);
/// For one attempt to open a connection to a daemon that does not answer.
const ATTEMPT: Duration = Duration::from_secs(2);
/// Attempts follow each other closely.
const IMPATIENT: Backoff = Backoff {
    first: Duration::from_millis(10),
    most: Duration::from_millis(50),
};

/// What a volume holds: more than the client takes before its reader does, and than a socket keeps.
const BYTES: u64 = 64 << 20;

/// Where it is.
const POOL: &str = "pool";

fn to(uri: &str) -> Builder {
    Connect::builder(uri).keepalive(KEEPALIVE)
}

/// A volume in a pool of a private daemon.
async fn volume(connect: &Connect, daemon: &Libvirtd) -> Result<StorageVol> {
    daemon.pool(POOL).await?;
    daemon.volume(POOL, "volume", BYTES).await?;
    let pool = connect.storage_pool_by_name(POOL).await?;
    Ok(pool.volume_by_name("volume").await?)
}

/// What somebody fails with who waits for a silent daemon.
async fn fails<T: std::fmt::Debug>(
    what: &str,
    waiting: impl Future<Output = Result<T, Error>>,
) -> Result<Error> {
    let waited = timeout(SOON, waiting).await;
    match waited.with_context(|| format!("{what} hangs"))? {
        Ok(value) => bail!("{what} has got {value:?} of a silent daemon"),
        Err(error) => Ok(error),
    }
}

/// That somebody who waits for a silent daemon is told that it is silent.
async fn is_told<T: std::fmt::Debug>(
    what: &str,
    waiting: impl Future<Output = Result<T, Error>>,
) -> Result<()> {
    let error = fails(what, waiting).await?;
    let silence = KEEPALIVE.interval * (KEEPALIVE.count + 1);
    ensure!(
        matches!(&error, Error::Connection(ConnectionError::Silent(said)) if *said == silence),
        "{what}: {error}"
    );
    ensure!(error.to_string().contains("silent"), "{what}: {error}");
    Ok(())
}

/// Reads a stream to its end.
async fn drain(stream: &mut RawStream) -> Result<u64, Error> {
    let mut count = 0;
    while let Some(chunk) = stream.chunk().await? {
        count += match chunk {
            Chunk::Data(bytes) => bytes.len() as u64,
            Chunk::Hole(length) => length,
        };
    }
    Ok(count)
}

/// Writes until it fails.
async fn pour(stream: &mut RawStream) -> Result<Infallible, Error> {
    loop {
        stream.send(&[1; 1 << 20]).await?;
    }
}

#[test]
fn calls_and_subscribers_are_told_that_the_daemon_is_silent() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = to(&daemon.uri("test")).open().await?;
        let mut events = connect
            .domain_events(&[DomainEventId::Lifecycle], None, None)
            .await?;
        daemon.freeze().await?;
        let (call, subscriber) = tokio::join!(
            is_told("a call", connect.hostname()),
            is_told("a subscriber", async {
                let last = events.next().await;
                last.unwrap_or(Err(Error::StreamOver))
            })
        );
        call?;
        subscriber?;
        ensure!(events.next().await.is_none());
        ensure!(matches!(connect.state(), ConnectState::Ended(_)));
        // It is over for good, and calls say so at once.
        is_told("a later call", connect.hostname()).await?;
        daemon.thaw().await
    }));
}

#[test]
fn streams_are_told_that_the_daemon_is_silent() {
    story(Libvirtd::builder().run(async |daemon| {
        let builder = to(&daemon.uri("qemu")).open_within(ATTEMPT);
        let connect = builder.open().await?;
        let volume = volume(&connect, daemon).await?;
        let download = || volume.download(0, 0, StorageVolDownloadFlags::empty());
        let mut reading = download().await?;
        ensure!(matches!(reading.chunk().await?, Some(Chunk::Data(_))));
        let mut writing = volume.upload(0, 0, StorageVolUploadFlags::empty()).await?;
        writing.send(&[1; 1 << 20]).await?;
        let mut finishing = volume.upload(0, 0, StorageVolUploadFlags::empty()).await?;
        finishing.send(b"the last words").await?;
        daemon.freeze().await?;
        let (read, wrote, finished, opened) = tokio::join!(
            is_told("a reader", drain(&mut reading)),
            is_told("a writer", pour(&mut writing)),
            is_told("a finish", finishing.finish()),
            // Its own connection is never opened, and the one of the calls ends meanwhile.
            fails("an opening", download()),
        );
        read?;
        wrote?;
        finished?;
        opened?;
        daemon.thaw().await
    }));
}

#[test]
fn a_stream_that_shares_the_connection_is_told_as_well() {
    story(Libvirtd::builder().run(async |daemon| {
        let builder = to(&daemon.uri("qemu")).share_streams(true);
        let connect = builder.open().await?;
        let volume = volume(&connect, daemon).await?;
        let mut reading = volume
            .download(0, 0, StorageVolDownloadFlags::empty())
            .await?;
        ensure!(matches!(reading.chunk().await?, Some(Chunk::Data(_))));
        daemon.freeze().await?;
        is_told("a reader", drain(&mut reading)).await?;
        is_told("a finish", reading.finish()).await?;
        is_told("a call", connect.hostname()).await?;
        daemon.thaw().await
    }));
}

/// The next notice of a subscription that must not end.
async fn next(events: &mut Events<DomainEvent>) -> Result<Notice<DomainEvent>> {
    let next = timeout(SOON, events.next())
        .await
        .context("no event came")?;
    Ok(next.context("the events have ended")??)
}

#[test]
fn calls_work_and_events_flow_again_once_the_daemon_goes_on() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = to(&daemon.uri("test"))
            .open_within(ATTEMPT)
            .reconnect(IMPATIENT)
            .open()
            .await?;
        let mut events = connect
            .domain_events(&[DomainEventId::Lifecycle], None, None)
            .await?;
        let domain = connect.domain_by_name("test").await?;
        for round in 0..2 {
            daemon.freeze().await?;
            is_told("a call", domain.state()).await?;
            // The sockets take connections, which nobody serves: an attempt ends without an answer.
            let mut states = connect.states();
            let tried = timeout(SOON, async {
                while let Some(state) = states.next().await {
                    if let ConnectState::Reconnecting {
                        why: Error::OpeningTooSlow { limit, .. },
                        ..
                    } = state
                    {
                        return Ok(limit);
                    }
                }
                bail!("it has ended: {:?}", connect.state())
            });
            let limit = tried.await.context("no attempt has ended")??;
            ensure!(limit == ATTEMPT, "{round}: {limit:?}");
            daemon.thaw().await?;
            timeout(SOON, connect.ready()).await??;
            let notice = next(&mut events).await?;
            ensure!(matches!(notice, Notice::Reconnected), "{round}: {notice:?}");
            domain.suspend().await?;
            domain.resume().await?;
            for _ in 0..2 {
                let notice = next(&mut events).await?;
                ensure!(matches!(notice, Notice::Event(_)), "{round}: {notice:?}");
            }
        }
        connect.close().await;
        Ok(())
    }));
}

#[test]
fn a_daemon_that_is_silent_for_a_moment_is_not_given_up() {
    story(Libvirtd::builder().run(async |daemon| {
        // The default: half a minute.
        let connect = Connect::open(&daemon.uri("test")).await?;
        let client = connect.client()?;
        daemon.freeze().await?;
        let waiting = connect.clone();
        let call = tokio::spawn(async move { waiting.hostname().await });
        daemon.thaw().await?;
        timeout(SOON, call).await.context("a call hangs")???;
        ensure!(client.ended().is_none());
        Ok(())
    }));
}
