//! Sockets that ask for nothing, those for readers, and those where nobody answers.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libvirt::{
    Connect, Environment, Error,
    raw::api::{DomainCreateFlags, DomainDestroyFlagsValues, DomainXmlFlags, ErrorNumber},
};
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use vbridge_tests::{
    fixture::story,
    libvirt::daemon::{Auth, Libvirtd},
};

use crate::{comes_in, is_refused, to};

const PLUG: DomainDestroyFlagsValues = DomainDestroyFlagsValues::empty();

#[test]
fn a_tcp_port_without_authentication_lets_anybody_in() {
    story(Libvirtd::builder().tcp(Auth::None).run(async |daemon| {
        let uri = daemon.tcp_uri("test")?;
        let connect = comes_in(to(&uri)).await?;
        ensure!(
            !connect.is_secure().await?,
            "the daemon thinks that nobody can listen"
        );
        ensure!(connect.uri() == "test:///default", "{}", connect.uri());
        Ok(())
    }));
}

/// Reads, and can't write.
async fn only_reads(connect: &Connect) -> Result<()> {
    let domain = connect.domain_by_name("test").await?;
    ensure!(domain.is_active().await? && connect.is_read_only());
    for result in [
        domain.destroy(PLUG).await,
        domain.suspend().await,
        connect
            .create_domain("<domain/>", DomainCreateFlags::empty())
            .await
            .map(drop),
        domain.xml(DomainXmlFlags::SECURE).await.map(drop),
    ] {
        let error = result.err().context("a write succeeded")?;
        ensure!(error.is(ErrorNumber::OperationDenied), "{error:?}");
        let said = error.to_string();
        ensure!(said.starts_with("operation forbidden"), "{said}");
    }
    ensure!(domain.is_active().await?, "it was stopped all the same");
    Ok(())
}

#[test]
fn a_reader_can_not_write_by_its_socket_nor_by_its_flag() {
    story(Libvirtd::builder().tcp(Auth::None).run(async |daemon| {
        let socket = daemon.read_only_socket_path();
        let of_readers = format!("test+unix:///default?socket={}", socket.display());
        // The flag on each transport; and the readers' socket, which libvirt's library calls with the flag as well.
        for uri in [
            daemon.uri("test"),
            daemon.tcp_uri("test")?,
            of_readers.clone(),
        ] {
            only_reads(&comes_in(to(&uri).read_only(true)).await?)
                .await
                .context(uri)?;
        }
        // Who asks for more there than reading gets no more.
        let bold = comes_in(to(&of_readers)).await?;
        let denied = bold.domain_by_name("test").await?.destroy(PLUG).await;
        ensure!(denied.is_err_and(|error| error.is(ErrorNumber::OperationDenied)));

        // Where the URI names no socket, a reader finds the readers'.
        let mut environment = Environment::of_process();
        environment.run_dir = daemon.folder().join("run");
        let found = to("test+unix:///default").environment(environment.clone());
        only_reads(&comes_in(found.read_only(true)).await?).await?;
        let found = comes_in(to("test+unix:///default").environment(environment)).await?;
        found.domain_by_name("test").await?.suspend().await?;
        Ok(())
    }));
}

#[test]
fn a_socket_that_is_not_there_or_dead_is_named() {
    story(async {
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name).display().to_string();
        let missing = path("missing");
        let uri = format!("qemu+unix:///system?socket={missing}");
        is_refused(to(&uri), &[&missing, "start the daemon"]).await?;

        let dead = path("dead");
        drop(UnixListener::bind(&dead)?);
        let uri = format!("qemu+unix:///system?socket={dead}");
        is_refused(to(&uri), &[&dead, "nobody listens", "start it again"]).await?;

        let mut environment = Environment::of_process();
        environment.run_dir = folder.path().to_owned();
        let words = [
            &path("libvirt/virtqemud-sock"),
            &path("libvirt/libvirt-sock"),
        ];
        let words = words.map(String::as_str);
        is_refused(to("qemu:///system").environment(environment), &words).await?;

        // A port that nobody else gets, and on which nobody listens.
        let held = TcpSocket::new_v4()?;
        held.bind(([127, 0, 0, 1], 0).into())?;
        let port = held.local_addr()?.port().to_string();
        let uri = format!("qemu+tcp://127.0.0.1:{port}/system");
        is_refused(to(&uri), &["127.0.0.1", &port, "refused"]).await?;
        Ok(())
    });
}

#[test]
fn a_daemon_that_accepts_and_says_nothing_is_given_up_in_time() {
    const LIMIT: Duration = Duration::from_millis(300);
    /// Far less than any other limit on the way.
    const SOON: Duration = Duration::from_secs(10);

    story(async {
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("mute");
        let _unix = UnixListener::bind(&socket)?;
        let tcp = TcpListener::bind("127.0.0.1:0").await?;
        let port = tcp.local_addr()?.port();
        for (uri, peer) in [
            (
                format!("qemu+unix:///system?socket={}", socket.display()),
                "mute",
            ),
            (format!("qemu+tcp://127.0.0.1:{port}/system"), "127.0.0.1"),
            (
                format!("qemu+tls://127.0.0.1:{port}/system?no_verify=1"),
                "127.0.0.1",
            ),
            ("qemu+ext:///system?command=tail".to_owned(), "tail"),
        ] {
            let started = std::time::Instant::now();
            let error = is_refused(to(&uri).open_within(LIMIT), &["300ms", peer]).await?;
            let took = started.elapsed();
            ensure!(took >= LIMIT && took < SOON, "{error} after {took:?}");
        }
        Ok(())
    });
}

#[test]
fn what_answers_but_is_no_daemon_is_told_from_one() {
    use tokio::io::AsyncWriteExt as _;

    story(async {
        let tcp = TcpListener::bind("127.0.0.1:0").await?;
        let uri = format!("qemu+tcp://{}/system", tcp.local_addr()?);
        let other = tokio::spawn(async move {
            let (mut socket, _) = tcp.accept().await?;
            socket.write_all(b"220 mail.example ESMTP\r\n").await?;
            // Until the client has had enough.
            tokio::io::copy(&mut socket, &mut tokio::io::sink()).await
        });
        let error = is_refused(to(&uri), &["broke the protocol"]).await?;
        ensure!(matches!(error, Error::Connection(_)), "{error:?}");
        let source = std::error::Error::source(&error)
            .context("no source")?
            .to_string();
        ensure!(source.contains("may not be a libvirt daemon"), "{source}");
        other.await??;
        Ok(())
    });
}
