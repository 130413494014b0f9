//! What the libvirt client does when a real daemon dies.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use libvirt::events::{DomainEventId, Notice};
use libvirt::raw::api::{DomainConsoleFlags, StorageVolDownloadFlags, StorageVolUploadFlags};
use libvirt::rpc::ConnectionError;
use libvirt::{Backoff, Builder, Connect, Error, StorageVol};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;
use vbridge_tests::{
    fixture::story,
    libvirt::{
        certificates::{ClientCertificate, ServerCertificate},
        daemon::{Auth, Libvirtd},
        limits::FAILED,
        sshd::Sshd,
    },
};

/// What the daemon takes of one client at a time, and more than there are callers.
const REQUESTS: u32 = 100;
/// Who calls when the daemon dies.
const CALLERS: usize = 64;
/// Where every connection dies young, pauses would grow to seconds.
const IMPATIENT: Backoff = Backoff {
    first: Duration::from_millis(10),
    most: Duration::from_millis(50),
};
/// For a connection to stand again.
const SOON: Duration = Duration::from_secs(10);
/// Where the volumes are.
const POOL: &str = "pool";

/// A volume of so many bytes in a pool of a private daemon.
async fn volume(connect: &Connect, daemon: &Libvirtd, bytes: u64) -> Result<StorageVol> {
    daemon.pool(POOL).await?;
    daemon.volume(POOL, "volume", bytes).await?;
    let pool = connect.storage_pool_by_name(POOL).await?;
    Ok(pool.volume_by_name("volume").await?)
}

/// Kills the daemon beneath 64 callers and starts it again, so many times. Of their calls the daemon has as many as the
/// connection lets go at once.
async fn fails_calls_within_a_second(
    daemon: &mut Libvirtd,
    builder: Builder,
    rounds: usize,
) -> Result<()> {
    let connect = builder.reconnect(IMPATIENT).open().await?;
    for round in 0..rounds {
        timeout(SOON, connect.ready()).await??;
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let connect = connect.clone();
            callers.spawn(async move {
                loop {
                    if let Err(error) = connect.capabilities().await {
                        return (error, Instant::now());
                    }
                }
            });
        }
        // Let them get going: an event of theirs, not time.
        connect.capabilities().await?;
        let killed = Instant::now();
        daemon.kill9().await?;
        let mut slowest = Duration::ZERO;
        while let Some(failed) = timeout(FAILED, callers.join_next())
            .await
            .context("a call hangs")?
        {
            let (error, at) = failed?;
            ensure!(matches!(error, Error::Connection(_)), "{round}: {error}");
            slowest = slowest.max(at.saturating_duration_since(killed));
        }
        ensure!(slowest < FAILED, "{round}: it took {slowest:?}");
        eprintln!("round {round}: the last call failed after {slowest:?}");
        daemon.start_again().await?;
    }
    timeout(SOON, connect.ready()).await??;
    connect.capabilities().await?;
    Ok(())
}

/// All callers' calls are with the daemon at once.
fn all_at_once(uri: &str) -> Builder {
    Connect::builder(uri).calls_at_once(REQUESTS as usize)
}

#[test]
fn a_daemon_that_is_killed_fails_every_call_within_a_second() {
    let builder = Libvirtd::builder().max_client_requests(REQUESTS);
    story(builder.run(async |daemon| {
        // Four go at once, and the others wait here.
        let usual = Connect::builder(&daemon.uri("test"));
        fails_calls_within_a_second(daemon, usual, 5).await?;
        let all = all_at_once(&daemon.uri("test"));
        fails_calls_within_a_second(daemon, all, 5).await
    }));
}

#[test]
fn a_daemon_that_is_killed_fails_every_call_within_a_second_over_tcp() {
    let builder = Libvirtd::builder()
        .max_client_requests(REQUESTS)
        .tcp(Auth::None);
    story(builder.run(async |daemon| {
        let builder = all_at_once(&daemon.tcp_uri("test")?);
        fails_calls_within_a_second(daemon, builder, 3).await
    }));
}

#[test]
fn a_daemon_that_is_killed_fails_every_call_within_a_second_over_tls() {
    let builder = Libvirtd::builder()
        .max_client_requests(REQUESTS)
        .tls(ServerCertificate::Good, Auth::None);
    story(builder.run(async |daemon| {
        let builder = all_at_once(&daemon.tls_uri("test", ClientCertificate::Good)?);
        fails_calls_within_a_second(daemon, builder, 3).await
    }));
}

#[test]
fn a_daemon_that_is_killed_fails_every_call_within_a_second_over_ssh() {
    let builder = Libvirtd::builder().max_client_requests(REQUESTS);
    story(builder.run(async |daemon| {
        let sshd = Sshd::start(daemon).await?;
        // By the helper of libvirt's, and by netcat where that is missing.
        for proxy in ["native", "netcat"] {
            let uri = format!("{}&proxy={proxy}", sshd.uri("client", "known"));
            let failed = fails_calls_within_a_second(daemon, all_at_once(&uri), 3).await;
            failed.with_context(|| format!("{proxy}\n{}", sshd.log()))?;
        }
        Ok(())
    }));
}

#[test]
fn streams_and_events_end_with_the_daemon_within_a_second() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = Connect::builder(&daemon.uri("qemu"))
            .reconnect(Backoff::default())
            .open()
            .await?;
        let volume = volume(&connect, daemon, 1 << 30).await?;
        let mut events = connect
            .domain_events(&[DomainEventId::Lifecycle], None, None)
            .await?;
        let mut upload = volume.upload(0, 0, StorageVolUploadFlags::empty()).await?;
        let mut download = volume
            .download(0, 0, StorageVolDownloadFlags::empty())
            .await?;
        let unread = volume
            .download(0, 0, StorageVolDownloadFlags::empty())
            .await?;
        let (went, gone) = oneshot::channel();
        let writing = tokio::spawn(async move {
            let mut went = Some(went);
            let block = vec![1; 1 << 20];
            loop {
                if let Err(error) = upload.send(&block).await {
                    return error;
                }
                if let Some(went) = went.take() {
                    let _ = went.send(());
                }
            }
        });
        let (died, dead) = oneshot::channel();
        let (begun, begins) = oneshot::channel();
        let reading = tokio::spawn(async move {
            let mut buffer = vec![0; 1 << 20];
            download.read_exact(&mut buffer[..1]).await?;
            let _ = begun.send(());
            // Far from the volume's end: what comes after the daemon's death must not look like it.
            let _ = dead.await;
            while download.read(&mut buffer).await? > 0 {}
            std::io::Result::Ok(())
        });
        gone.await?;
        begins.await?;
        daemon.kill9().await?;
        let _ = died.send(());
        let failed = timeout(FAILED, writing)
            .await
            .context("an upload hangs")??;
        ensure!(matches!(failed, Error::Connection(_)), "{failed}");
        let read = timeout(FAILED, reading)
            .await
            .context("a download hangs")??;
        let failed = read.err().context("a dead daemon's download has an end")?;
        let inner = failed.get_ref().and_then(|inner| inner.downcast_ref());
        ensure!(matches!(inner, Some(Error::Connection(_))), "{failed}");
        let failed = timeout(FAILED, unread.finish())
            .await
            .context("a finish hangs")?;
        ensure!(matches!(failed, Err(Error::Connection(_))), "{failed:?}");
        daemon.start_again().await?;
        let notice = timeout(SOON, events.next())
            .await
            .with_context(|| format!("{:?}", connect.state()))?
            .context("an item")??;
        ensure!(matches!(notice, Notice::Reconnected), "{notice:?}");
        // Whoever hears of the new connection can use it at once.
        connect.storage_pool_by_name("pool").await?;
        Ok(())
    }));
}

/// How many clients went without a word, by the daemon's log. It has written that when it counts them no more.
fn rude_clients(daemon: &Libvirtd) -> usize {
    daemon.log().matches("virNetSocketReadWire").count()
}

#[test]
fn a_connection_that_was_closed_is_not_opened_again() {
    story(Libvirtd::builder().run(async |daemon| {
        daemon.has_clients(0).await?;
        let before = rude_clients(daemon);
        let connect = Connect::builder(&daemon.uri("test"))
            .reconnect(Backoff::default())
            .open()
            .await?;
        daemon.has_clients(1).await?;
        connect.close().await;
        let error = connect.hostname().await.err().context("it is closed")?;
        ensure!(error.to_string().contains("this side closed"), "{error}");
        ensure!(connect.ready().await.is_err());
        // And the daemon saw an orderly end.
        daemon.has_clients(0).await?;
        ensure!(rude_clients(daemon) == before, "{}", daemon.log());

        // It would have told of another one.
        let rude = UnixStream::connect(daemon.socket_path()).await?;
        daemon.has_clients(1).await?;
        drop(rude);
        daemon.has_clients(0).await?;
        ensure!(rude_clients(daemon) == before + 1, "{}", daemon.log());
        Ok(())
    }));
}

#[test]
fn a_connection_that_was_closed_opens_no_stream() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = Connect::builder(&daemon.uri("qemu"))
            .reconnect(Backoff::default())
            .open()
            .await?;
        let volume = volume(&connect, daemon, 1 << 20).await?;
        let other = Connect::open(&daemon.uri("test")).await?;
        let domain = other.domain_by_name("test").await?;
        connect.close().await;
        other.close().await;
        let console = domain.open_console(None, DomainConsoleFlags::empty());
        let download = volume.download(0, 0, StorageVolDownloadFlags::empty());
        let upload = volume.upload(0, 0, StorageVolUploadFlags::empty());
        for (what, opened) in [
            ("a console", console.await),
            ("a download", download.await),
            ("an upload", upload.await),
        ] {
            let error = opened.err().with_context(|| format!("{what} is opened"))?;
            ensure!(
                matches!(error, Error::Connection(ConnectionError::ClosedHere)),
                "{what}: {error}"
            );
        }
        daemon.has_clients(0).await
    }));
}

#[test]
fn what_is_dropped_leaves_no_connection_behind() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = Connect::open(&daemon.uri("test")).await?;
        let domain = connect.domain_by_name("test").await?;
        let events = connect
            .domain_events(&[DomainEventId::Lifecycle], None, None)
            .await?;
        let client = connect.client()?;
        drop((connect, domain, events));
        // The client alone keeps it open, and then nobody does.
        let raw = libvirt::raw::remote::Remote::new(client);
        raw.connect_get_hostname().await?;
        daemon.has_clients(1).await?;
        drop(raw);
        daemon.has_clients(0).await?;

        // Whoever holds something of it keeps it open as well: an object, a subscription, or a stream.
        let connect = Connect::open(&daemon.uri("test")).await?;
        let domain = connect.domain_by_name("test").await?;
        drop(connect);
        domain.state().await?;
        let events = domain
            .connect()
            .domain_events(&[DomainEventId::Lifecycle], None, None)
            .await?;
        drop(domain);
        daemon.has_clients(1).await?;
        drop(events);
        daemon.has_clients(0).await?;

        let connect = Connect::open(&daemon.uri("qemu")).await?;
        let volume = volume(&connect, daemon, 1 << 20).await?;
        let mut download = volume
            .download(0, 0, StorageVolDownloadFlags::empty())
            .await?;
        daemon.has_clients(2).await?;
        drop((connect, volume));
        daemon.has_clients(1).await?;
        let mut content = Vec::new();
        download.read_to_end(&mut content).await?;
        ensure!(content.len() == 1 << 20, "{} bytes", content.len());
        drop(download);
        daemon.has_clients(0).await
    }));
}
