//! Files and commands of one real guest, beside the QEMU guest agent in the same guest.
//!
//! Both have a port of their own with a controller of its own, the same files in the same memory, and a client in this
//! program. Ours goes the whole way: over TCP, the bridge, the link, the agent. The other's client writes to the port's
//! socket; it takes the answers' base64 as it comes and sends one that it has made before, so that decoding and encoding
//! cost it nothing here.
//!
//! guest-file-write makes no digests, and what is set beside it does not either; what both of ours cost is told as well.
//!
//! A command is over for that client when guest-exec-status says so: it asks at once, and then every millisecond.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tokio_stream::{StreamExt as _, iter};
use tonic::transport::Channel;
use vbridge_api::guest::v1::{
    Command, ExecRunRequest, FilesReadRequest, FilesWriteRequest, FilesWriteStart,
    exec_client::ExecClient, exit_status::How, files_client::FilesClient,
    files_read_response::Piece, files_write_request::Message,
};
use vbridge_tests::{
    content,
    fixture::{Bridge, Guest},
    programs,
    qga::{Peer, Qga},
};

use crate::{
    Options,
    report::{Report, median},
};

const NAME: &str = "bench";

/// The file that is read, and the one that is written.
const FILES: [&str; 2] = ["/tmp/source", "/tmp/target"];

/// Bytes in one message of ours.
const PIECE: usize = 128 * 1024;

/// Bytes that the other is asked for at once, or given. A multiple of three, so that its base64 has no padding.
const PEER_PIECE: u64 = 3 * 256 * 1024;

/// Commands in a row.
const COMMANDS: usize = 100;

/// Between two questions whether a command is over.
const POLL: Duration = Duration::from_millis(1);

/// Measures, in rounds.
pub(crate) async fn run(options: &Options) -> Result<Report> {
    let peer = Peer::new()?;
    let image = programs::image_with(Peer::add_to).await?;
    let guest = Guest::boot_as(&image, |vm| {
        peer.port(options.hardware(vm).memory_mib(1024))
    })
    .await?;
    peer.start(&guest).await?;
    let mut other = peer.connect().await?;
    let bridge = Bridge::start([guest.seat(NAME)]).await?;
    bridge.ready(NAME).await?;
    let channel = bridge.place(NAME).channel().await?;
    // A multiple of what both move at once.
    let bytes = (options.mebibytes << 20) / PEER_PIECE * PEER_PIECE;
    guest
        .exec(&format!(
            "dd if=/dev/zero of={} bs={PEER_PIECE} count={} 2>&1",
            FILES[0],
            bytes / PEER_PIECE
        ))
        .await?;
    let mut samples = Samples::default();
    for round in 0..options.rounds {
        eprintln!("bench: round {} of {}", round + 1, options.rounds);
        samples.read.push(read(channel.clone(), bytes).await?);
        samples.peer_read.push(peer_read(&mut other, bytes).await?);
        samples
            .write
            .push(write(channel.clone(), bytes, false).await?);
        let plain = write(channel.clone(), bytes, true).await?;
        samples.plain_write.push(plain);
        samples
            .peer_write
            .push(peer_write(&mut other, bytes).await?);
        samples.exec.push(exec(channel.clone()).await?);
        samples.peer_exec.push(peer_exec(&mut other).await?);
    }
    Ok(samples.report(options, &guest))
}

/// Bytes a second, and seconds.
#[derive(Default)]
struct Samples {
    read: Vec<f64>,
    peer_read: Vec<f64>,
    write: Vec<f64>,
    plain_write: Vec<f64>,
    peer_write: Vec<f64>,
    exec: Vec<f64>,
    peer_exec: Vec<f64>,
}

impl Samples {
    fn report(self, options: &Options, guest: &Guest) -> Report {
        let mut report = Report::new(format!(
            "files and commands of one {} under {}, {} rounds of {} MiB",
            options.guest(),
            guest.vm().accelerator().name(),
            options.rounds,
            options.mebibytes
        ));
        let read = report.rate("Files.Read", self.read);
        let peer_read = report.rate("guest-file-read", self.peer_read);
        let write = report.rate("Files.Write", self.write);
        let plain_write = report.rate("Files.Write without digests", self.plain_write);
        let peer_write = report.rate("guest-file-write", self.peer_write);
        let exec = report.time("Exec.Run of /bin/true (p50)", self.exec);
        let peer_exec = report.time(
            "guest-exec of /bin/true, polled at once and then each 1 ms (p50)",
            self.peer_exec,
        );
        report.ratio("Files.Read / guest-file-read", read / peer_read, 8.0, true);
        report.ratio(
            "Files.Write without digests / guest-file-write",
            plain_write / peer_write,
            20.0,
            true,
        );
        report.compare(
            "Files.Write with digests / guest-file-write",
            write / peer_write,
        );
        report.ratio("Exec.Run / guest-exec", exec / peer_exec, 1.0, false);
        report
    }
}

async fn read(channel: Channel, bytes: u64) -> Result<f64> {
    let request = FilesReadRequest {
        path: FILES[0].to_owned(),
        ..FilesReadRequest::default()
    };
    let begin = Instant::now();
    let mut stream = FilesClient::new(channel).read(request).await?.into_inner();
    let mut total = 0;
    while let Some(message) = stream.message().await? {
        if let Some(Piece::Data(data)) = message.piece {
            total += data.len() as u64;
        }
    }
    ensure!(total == bytes, "{total} of {bytes} bytes have come");
    Ok(total as f64 / begin.elapsed().as_secs_f64())
}

async fn write(channel: Channel, bytes: u64, no_digests: bool) -> Result<f64> {
    let start = FilesWriteStart {
        path: FILES[1].to_owned(),
        no_digests,
        ..FilesWriteStart::default()
    };
    let pieces = (0..bytes).step_by(PIECE).map(move |offset| {
        let left = usize::try_from(bytes - offset).unwrap_or(PIECE);
        content::bytes(content::FREE, 0, left.min(PIECE))
    });
    let messages = iter([Message::Start(start)])
        .chain(iter(pieces).map(|piece| Message::Data(piece.into())))
        .map(|message| FilesWriteRequest {
            message: Some(message),
        });
    let begin = Instant::now();
    let answer = FilesClient::new(channel)
        .write(messages)
        .await?
        .into_inner();
    let elapsed = begin.elapsed();
    let size = answer.file.context("the answer has no file")?.size;
    ensure!(size == bytes, "{size} of {bytes} bytes were written");
    Ok(bytes as f64 / elapsed.as_secs_f64())
}

/// Seconds for a command: the median.
async fn exec(channel: Channel) -> Result<f64> {
    let mut client = ExecClient::new(channel);
    let mut times = Vec::with_capacity(COMMANDS);
    for _ in 0..COMMANDS {
        let command = Command {
            argv: vec!["/bin/true".to_owned()],
            ..Command::default()
        };
        let request = ExecRunRequest {
            command: Some(command),
            ..ExecRunRequest::default()
        };
        let begin = Instant::now();
        let answer = client.run(request).await?.into_inner();
        times.push(begin.elapsed().as_secs_f64());
        let how = answer.status.and_then(|status| status.how);
        ensure!(how == Some(How::Code(0)), "{how:?}");
    }
    Ok(median(&times))
}

// === the other ===

async fn open(client: &mut Qga, path: &str, mode: &str) -> Result<Value> {
    let arguments = json!({"path": path, "mode": mode});
    client.call("guest-file-open", arguments).await
}

async fn close(client: &mut Qga, handle: &Value) -> Result<()> {
    let arguments = json!({"handle": handle});
    client.call("guest-file-close", arguments).await?;
    Ok(())
}

async fn peer_read(client: &mut Qga, bytes: u64) -> Result<f64> {
    let begin = Instant::now();
    let handle = open(client, FILES[0], "r").await?;
    let request =
        json!({"execute": "guest-file-read", "arguments": {"handle": handle, "count": PEER_PIECE}});
    let request = format!("{request}\n");
    for _ in 0..bytes / PEER_PIECE {
        let answer = client.call_raw(request.as_bytes()).await?;
        // What it should be by its length: base64 has four characters for three bytes.
        if (answer.len() as u64) < PEER_PIECE / 3 * 4 {
            bail!("guest-file-read: {}", String::from_utf8_lossy(&answer));
        }
    }
    close(client, &handle).await?;
    Ok(bytes as f64 / begin.elapsed().as_secs_f64())
}

async fn peer_write(client: &mut Qga, bytes: u64) -> Result<f64> {
    // Zeros, too.
    let base64 = "A".repeat(usize::try_from(PEER_PIECE / 3 * 4)?);
    let begin = Instant::now();
    let handle = open(client, FILES[1], "w").await?;
    let request =
        json!({"execute": "guest-file-write", "arguments": {"handle": handle, "buf-b64": base64}});
    let request = format!("{request}\n");
    for _ in 0..bytes / PEER_PIECE {
        let answer = client.call_raw(request.as_bytes()).await?;
        let answer: Value = serde_json::from_slice(&answer)?;
        if answer["return"]["count"] != PEER_PIECE {
            bail!("guest-file-write: {answer}");
        }
    }
    close(client, &handle).await?;
    Ok(bytes as f64 / begin.elapsed().as_secs_f64())
}

/// Seconds until a command is known to be over: the median.
async fn peer_exec(client: &mut Qga) -> Result<f64> {
    let mut times = Vec::with_capacity(COMMANDS);
    for _ in 0..COMMANDS {
        let arguments = json!({"path": "/bin/true", "capture-output": true});
        let begin = Instant::now();
        let started = client.call("guest-exec", arguments).await?;
        let status = loop {
            let arguments = json!({"pid": started["pid"]});
            let status = client.call("guest-exec-status", arguments).await?;
            if status["exited"] == true {
                break status;
            }
            tokio::time::sleep(POLL).await;
        };
        times.push(begin.elapsed().as_secs_f64());
        ensure!(status["exitcode"] == 0, "{status}");
    }
    Ok(median(&times))
}
