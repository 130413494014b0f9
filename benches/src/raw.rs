//! The raw channel: plain bytes through a port, without any protocol.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::timeout,
};
use vbridge_tests::fixture::Guest;

use crate::report::median;

const PORT: &str = "/dev/$(grep -l org.vbridge.raw.0 /sys/class/virtio-ports/*/name | cut -d/ -f5)";
const BLOCK: usize = 64 * 1024;
const ECHOES: usize = 500;
/// The size of a small request with its HTTP/2 frames.
const ECHO_BYTES: usize = 64;
const LIMIT: Duration = Duration::from_secs(120);

/// What reads and writes at the guest's end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Peer {
    /// What every system has, and what is commonly meant by the channel's own speed: `dd` in blocks of 64 KiB, and a
    /// shell that returns each line.
    Shell,
    /// A program made for it, which does nothing but read and write (`vbridge-raw`): as fast as the channel gets.
    Program,
}

impl Peer {
    fn source(self, bytes: u64) -> String {
        match self {
            Self::Shell => format!(
                "dd if=/dev/zero of={PORT} bs={BLOCK} count={}",
                bytes / BLOCK as u64
            ),
            Self::Program => format!("vbridge-raw {PORT} source {bytes}"),
        }
    }

    /// Both end with a line of eight bytes.
    fn sink(self, bytes: u64) -> String {
        match self {
            Self::Shell => format!(
                "dd if={PORT} of=/dev/null bs={BLOCK} iflag=fullblock count={}; echo 7-bytes >{PORT}",
                bytes / BLOCK as u64
            ),
            Self::Program => format!("vbridge-raw {PORT} sink {bytes}"),
        }
    }

    fn echo(self) -> String {
        match self {
            Self::Shell => {
                format!("exec 3<>{PORT}; while read -r line <&3; do echo \"$line\" >&3; done")
            }
            Self::Program => format!("vbridge-raw {PORT} echo"),
        }
    }
}

/// Starts the guest's part, and connects.
async fn begin(guest: &Guest, what: &str) -> Result<UnixStream> {
    let stream = UnixStream::connect(guest.vm().raw_channel()).await?;
    guest
        .exec(&format!(
            "(sh -c 'echo $$ >/tmp/raw.pid; {what}' >/dev/null 2>&1 &)"
        ))
        .await?;
    Ok(stream)
}

/// Ends it. Some would end by themselves; an echo without a host looks for one a thousand times a second.
pub(crate) async fn end(guest: &Guest) -> Result<()> {
    guest
        .exec("kill -9 $(cat /tmp/raw.pid) 2>/dev/null; killall dd vbridge-raw 2>/dev/null; true")
        .await?;
    Ok(())
}

/// Bytes a second from the guest.
pub(crate) async fn source(guest: &Guest, peer: Peer, bytes: u64) -> Result<f64> {
    let mut stream = begin(guest, &peer.source(bytes)).await?;
    let work = async {
        let mut buf = vec![0; BLOCK];
        let (mut total, mut started) = (0, None);
        while total < bytes {
            let len = stream.read(&mut buf).await?;
            // The clock starts with the first bytes: the program in the guest is up then.
            started.get_or_insert_with(Instant::now);
            total += len as u64;
        }
        let elapsed = started.map_or(Duration::ZERO, |started| started.elapsed());
        anyhow::Ok(total as f64 / elapsed.as_secs_f64())
    };
    timeout(LIMIT, work)
        .await
        .context("the raw channel stalls")?
}

/// Bytes a second to the guest.
pub(crate) async fn sink(guest: &Guest, peer: Peer, bytes: u64) -> Result<f64> {
    // First some bytes that show that the guest reads: the program is up when half of them are taken.
    let mut stream = begin(guest, &peer.sink(bytes)).await?;
    let work = async {
        let buf = vec![0; BLOCK];
        let (mut total, mut started) = (0, None);
        while total < bytes {
            let len = BLOCK.min(usize::try_from(bytes - total)?);
            stream.write_all(&buf[..len]).await?;
            total += len as u64;
            // What the sockets hold goes at once; behind it the guest's reading sets the pace.
            if started.is_none() && total >= 2 * 1024 * 1024 {
                started = Some((Instant::now(), total));
            }
        }
        let mut end = [0; 8];
        stream.read_exact(&mut end).await?;
        let (started, skipped) = started.context("more bytes are needed")?;
        anyhow::Ok((bytes - skipped) as f64 / started.elapsed().as_secs_f64())
    };
    timeout(LIMIT, work)
        .await
        .context("the raw channel stalls")?
}

/// Seconds for a round trip: the median.
pub(crate) async fn echo(guest: &Guest, peer: Peer) -> Result<f64> {
    let mut stream = begin(guest, &peer.echo()).await?;
    let work = async {
        let mut times = Vec::with_capacity(ECHOES);
        let (mut ping, mut pong) = ([b'x'; ECHO_BYTES], [0; ECHO_BYTES]);
        ping[ECHO_BYTES - 1] = b'\n';
        for _ in 0..ECHOES + 10 {
            let begin = Instant::now();
            stream.write_all(&ping).await?;
            stream.read_exact(&mut pong).await?;
            times.push(begin.elapsed().as_secs_f64());
        }
        // The first ones wait for the program to start.
        Ok(median(&times[10..]))
    };
    timeout(LIMIT, work)
        .await
        .context("the raw channel stalls")?
}
