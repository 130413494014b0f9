//! Connecting from a URI to a stream that carries bytes.

use std::{fs, io::IoSlice};

use futures_util::FutureExt as _;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, UnixListener},
};

use super::*;

async fn carries_bytes(near: &mut Io, mut far: impl AsyncRead + AsyncWrite + Unpin) {
    assert!(near.is_write_vectored());
    let parts = [IoSlice::new(b"pi"), IoSlice::new(b"ng")];
    assert_eq!(near.write_vectored(&parts).await.unwrap(), 4);
    near.flush().await.unwrap();
    let mut taken = [0; 4];
    far.read_exact(&mut taken).await.unwrap();
    assert_eq!(&taken, b"ping");
    far.write_all(b"pong").await.unwrap();
    near.read_exact(&mut taken).await.unwrap();
    assert_eq!(&taken, b"pong");
    near.shutdown().await.unwrap();
    assert_eq!(far.read(&mut taken).await.unwrap(), 0);
}

async fn connected(uri: &str, options: &Options, read_only: bool) -> Result<Connected, Error> {
    connect(&Uri::parse(uri).unwrap(), options, read_only).await
}

#[tokio::test]
async fn a_unix_socket_stays_one_for_it_carries_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    options.environment.uid = 0;
    options.environment.run_dir = dir.path().to_owned();
    fs::create_dir(dir.path().join("libvirt")).unwrap();
    let path = dir.path().join("libvirt/virtqemud-sock-ro");
    let listener = UnixListener::bind(&path).unwrap();
    let mut near = connected("qemu:///system", &options, true).await.unwrap();
    assert_eq!(
        (near.kind, near.peer),
        (Kind::Unix, path.display().to_string())
    );
    assert!(matches!(near.io, Io::Unix(_)));
    carries_bytes(&mut near.io, listener.accept().await.unwrap().0).await;
}

#[tokio::test]
async fn tcp_reaches_the_uris_host_and_port() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let uri = format!("qemu+tcp://{address}/system");
    let mut near = connected(&uri, &Options::default(), false).await.unwrap();
    assert_eq!((near.kind, near.peer), (Kind::Tcp, address));
    assert!(!near.protection.is_private());
    carries_bytes(&mut near.io, listener.accept().await.unwrap().0).await;
}

#[tokio::test]
async fn what_only_a_local_connection_can_do_is_refused_elsewhere() {
    for uri in [
        "qemu+tcp://h/system?mode=direct",
        "qemu://h/system?mode=direct",
        "qemu+ssh://h/system?mode=direct",
        "qemu+ext:///system?mode=direct&command=/bin/cat",
    ] {
        let error = connected(uri, &Options::default(), false)
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains("leave mode= out"),
            "{uri}: {error}"
        );
    }
}

#[tokio::test]
async fn missing_certificates_are_told_before_anybody_is_spoken_to() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let uri = format!(
        "qemu+tls://{address}/system?pkipath={}",
        dir.path().display()
    );
    let error = connected(&uri, &Options::default(), false)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("cacert.pem; put it there"),
        "{error}"
    );
    // Nothing waits to be accepted.
    assert!(listener.accept().now_or_never().is_none());
}

#[test]
fn only_who_is_verified_is_alone_with_this_client() {
    for (uri, encrypted, verified) in [
        ("qemu:///system", true, true),
        ("qemu+unix:///system?socket=/s&no_verify=1", true, true),
        ("qemu+tcp://h/system", false, false),
        ("qemu://h/system", true, true),
        ("qemu+tls://h/system?no_verify=0", true, true),
        ("qemu+tls://h/system?no_verify=1", true, false),
        ("qemu+ssh://h/system", true, true),
        ("qemu+ssh://h/system?command=/my/ssh", true, true),
        (
            "qemu+ssh://h/system?known_hosts=/k&known_hosts_verify=normal",
            true,
            true,
        ),
        ("qemu+ssh://h/system?known_hosts_verify=auto", true, false),
        ("qemu+ssh://h/system?known_hosts_verify=ignore", true, false),
        ("qemu+ssh://h/system?no_verify=1", true, false),
        ("qemu+libssh://h/system", true, true),
        ("qemu+libssh2://h/system?no_verify=1", true, false),
        ("qemu+ext:///system?command=/my/program", false, false),
    ] {
        let protection = Protection::of(&Uri::parse(uri).unwrap());
        assert_eq!(
            (protection.encrypted, protection.verified),
            (encrypted, verified),
            "{uri}"
        );
        assert_eq!(protection.is_private(), encrypted && verified, "{uri}");
    }
}
