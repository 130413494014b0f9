//! `vbridge forward` and `vbridge connect`, through a bridge to an agent on a Unix socket.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{net::SocketAddr, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket, UnixStream},
    process::Command,
    time::timeout,
};
use vbridge_tests::{
    content,
    fixture::{Bridge, LocalAgent, eventually, story},
    process::{PATIENCE, Process},
    programs,
};

/// More than all buffers on the way hold together.
const BULK: usize = 8 * 1024 * 1024;

struct World {
    bridge: Bridge,
    _agent: LocalAgent,
}

impl World {
    async fn start() -> Result<Self> {
        let agent = LocalAgent::start().await?;
        let bridge = Bridge::start([agent.seat("local")]).await?;
        bridge.ready("local").await?;
        Ok(Self {
            bridge,
            _agent: agent,
        })
    }

    async fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(&programs::host().await?.bridge);
        command.args(arguments);
        command.args(["--bridge", &self.bridge.address().to_string()]);
        command.env_remove("VBRIDGE_ADDRESS");
        // What fails is to be seen at once, and nobody's settings count here.
        command.env("VBRIDGE_RETRIES", "0");
        command.env("VBRIDGE_CLIENT_CONFIG", "");
        Ok(command)
    }

    async fn forward(&self, arguments: &[&str]) -> Result<Process> {
        let arguments = [&["forward", "local"], arguments].concat();
        Process::spawn(self.command(&arguments).await?)
    }
}

/// Where it says to listen for what goes to `target`: `vbridge: forwarding HERE to TARGET`.
async fn forwarded(process: &mut Process, target: &str) -> Result<String> {
    let find = |line: &str| {
        let (here, there) = line
            .strip_prefix("vbridge: forwarding ")?
            .split_once(" to ")?;
        (there == target).then(|| here.to_owned())
    };
    process.line(target, find).await
}

/// Somebody who sends back what comes and closes behind it, again and again.
async fn echo() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    Ok(port)
}

/// A port that nobody listens on: taken and given back.
async fn nobody() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port())
}

/// Sends much, closes its end, and has all come back.
async fn comes_back(stream: impl AsyncRead + AsyncWrite) -> Result<()> {
    let (read, write) = tokio::io::split(stream);
    comes_back_over(read, write).await
}

async fn comes_back_over(
    mut read: impl AsyncRead + Unpin,
    mut write: impl AsyncWrite + Unpin,
) -> Result<()> {
    let sent = content::bytes(1, 0, BULK);
    let mut received = Vec::new();
    let both = async {
        let upload = async {
            write.write_all(&sent).await?;
            write.shutdown().await?;
            // A pipe ends only with its last descriptor.
            drop(write);
            Ok(())
        };
        tokio::try_join!(upload, read.read_to_end(&mut received))
    };
    timeout(PATIENCE, both)
        .await
        .context("it takes for ever")??;
    ensure!(received == sent, "other bytes have come back");
    Ok(())
}

#[test]
fn ports_and_sockets_here_lead_into_the_guest_beside_one_that_leads_to_nobody() {
    story(async {
        let world = World::start().await?;
        let dir = tempfile::tempdir()?;
        let socket = dir.path().join("here.sock");
        let (echo, nobody) = (echo().await?, nobody().await?);
        let answering = UdpSocket::bind("127.0.0.1:0").await?;
        let udp = answering.local_addr()?.port();
        let mut forward = world
            .forward(&[
                &format!("0:{echo}"),
                &format!("127.0.0.1:0:localhost:{nobody}"),
                &format!("{}:{echo}", socket.display()),
                &format!("udp:0:{udp}"),
            ])
            .await?;
        let port = forwarded(&mut forward, &format!("port {echo} of local")).await?;
        comes_back(TcpStream::connect(&port).await?).await?;

        let target = format!("localhost:{nobody} of local");
        let port = forwarded(&mut forward, &target).await?;
        // The refusal may be there before the connection is known to be.
        let refused = async {
            let mut refused = TcpStream::connect(&port).await?;
            refused.read_to_end(&mut Vec::new()).await
        };
        let ended = timeout(PATIENCE, refused).await?;
        ensure!(
            ended.is_err(),
            "a refused connection looks like one that has ended"
        );
        let told = |line: &str| {
            let is_told = line.starts_with(&format!("vbridge: {port}: "));
            (is_told && line.contains("Connection refused")).then_some(())
        };
        forward.line("who is not there", told).await?;

        comes_back(UnixStream::connect(&socket).await?).await?;

        let port = forwarded(&mut forward, &format!("UDP port {udp} of local")).await?;
        let port: SocketAddr = port.strip_prefix("udp:").context("no udp:")?.parse()?;
        let asking = UdpSocket::bind("127.0.0.1:0").await?;
        let mut buffer = vec![0; 65_536];
        for size in [1, 0, 65_507] {
            let datagram = content::bytes(2, 0, size);
            asking.send_to(&datagram, port).await?;
            let (len, from) = timeout(PATIENCE, answering.recv_from(&mut buffer)).await??;
            ensure!(buffer[..len] == datagram[..], "{size} bytes did not arrive");
            answering.send_to(&datagram, from).await?;
            let (len, from) = timeout(PATIENCE, asking.recv_from(&mut buffer)).await??;
            ensure!(
                from == port && buffer[..len] == datagram[..],
                "{size} bytes did not return"
            );
        }

        forward.signal(Signal::INT)?;
        ensure!(forward.ended().await?.code() == Some(130));
        ensure!(!socket.exists(), "the socket's file is still there");
        Ok(())
    });
}

#[test]
fn a_port_of_the_guest_leads_to_here_and_is_listened_on_again_when_the_guest_is_back() {
    story(async {
        let mut agent = LocalAgent::start().await?;
        let bridge = Bridge::start([agent.seat("local")]).await?;
        bridge.ready("local").await?;
        let (echo, port) = (echo().await?, nobody().await?.to_string());
        let there = format!("127.0.0.1:{port}");
        let mut command = Command::new(&programs::host().await?.bridge);
        command.args(["forward", "local", "-R", &format!("{port}:{echo}")]);
        command.args(["-R", &format!("0:{}", nobody().await?)]);
        command.args(["--bridge", &bridge.address().to_string()]);
        let mut forward = Process::spawn(command)?;
        let said = format!("vbridge: forwarding {there} of local to port {echo}");
        forward
            .line("where it listens", |line| (line == said).then_some(()))
            .await?;
        comes_back(TcpStream::connect(&there).await?).await?;
        agent.kill9().await?;
        agent.start_again().await?;
        let again = format!("vbridge: {there} of local: listening again");
        forward
            .line("that it listens again", |line| {
                (line == again).then_some(())
            })
            .await?;
        comes_back(TcpStream::connect(&there).await?).await?;
        ensure!(forward.terminate().await?.code() == Some(143));
        eventually("the guest does not listen any more", PATIENCE, async || {
            Ok(TcpStream::connect(&there).await.is_err())
        })
        .await
    });
}

#[test]
fn connect_joins_standard_input_and_output_to_a_connection() {
    story(async {
        let world = World::start().await?;
        let echo = echo().await?.to_string();
        let mut command = world.command(&["connect", "local", &echo]).await?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = child.stdin.take().context("no input")?;
        let output = child.stdout.take().context("no output")?;
        comes_back_over(output, input).await?;
        let status = timeout(PATIENCE, child.wait()).await??;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    });
}

#[test]
fn what_connect_reads_of_a_connection_ends_before_what_it_writes() {
    story(async {
        let world = World::start().await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port().to_string();
        let mut command = world.command(&["connect", "local", &port]).await?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (mut stream, _) = timeout(PATIENCE, listener.accept()).await??;
        stream.write_all(b"banner").await?;
        stream.shutdown().await?;
        let mut output = Vec::new();
        let stdout = child.stdout.as_mut().context("no output")?;
        timeout(PATIENCE, stdout.read_to_end(&mut output)).await??;
        ensure!(output == b"banner");
        let mut input = child.stdin.take().context("no input")?;
        input.write_all(b"and so on").await?;
        drop(input);
        let mut rest = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut rest)).await??;
        ensure!(rest == b"and so on");
        ensure!(timeout(PATIENCE, child.wait()).await??.success());
        Ok(())
    });
}

#[test]
fn a_connection_that_can_not_be_made_is_one_sentence_and_status_1() {
    story(async {
        let world = World::start().await?;
        let nobody = nobody().await?.to_string();
        let busy = TcpListener::bind("127.0.0.1:0").await?;
        let busy = format!("{}:80", busy.local_addr()?);
        for (arguments, words) in [
            (&["connect", "local", &nobody][..], "Connection refused"),
            (&["connect", "local", "/no/such.sock"], "/no/such.sock"),
            (&["connect", "nobody", "22"], "nobody"),
            (&["forward", "nobody", "0:22"], "nobody"),
            (&["forward", "local", &busy], "somebody listens there"),
            (
                &["forward", "local", "-R", "/no/dir/x.sock:80"],
                "/no/dir/x.sock",
            ),
        ] {
            let mut command = world.command(arguments).await?;
            let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
            let output = timeout(Duration::from_secs(20), output).await??;
            let told = String::from_utf8(output.stderr)?;
            ensure!(output.status.code() == Some(1), "{told}");
            ensure!(told.lines().count() == 1 && told.contains(words), "{told}");
        }
        Ok(())
    });
}
