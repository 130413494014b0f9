//! The libvirt client, beside the C library (through its Python binding) on the same private daemon.
//!
//! Calls go to the test driver, which answers without doing anything; the channel is that of a real QEMU domain, opened
//! through the daemon, and beside it the same channel's socket, as a client on the host itself would use it.
//!
//! A call alone is mostly two wake-ups, one at each end, so it matters who has to be woken here. In a task the caller and
//! the connection share a thread, as they do in `block_on` of a runtime with one thread. `block_on` of a runtime with
//! several has a thread of its own, which another one wakes with each reply. All three are measured.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use ::libvirt::{Connect, Domain as Handle, raw::api::DomainChannelFlags, rpc::RawStream};
use anyhow::{Context as _, Result, ensure};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::UnixStream,
    runtime,
    task::JoinSet,
};
use vbridge_tests::libvirt::{
    daemon::Libvirtd,
    domain::{Domain, SINK_PORT, SOURCE_PORT},
    reference::measured,
};
use xtask::qemu::RAW_PORT;

use crate::{
    Options, decode,
    report::{Report, median},
};

/// Calls of one sample, one after the other.
const CALLS: usize = 10_000;
/// Calls of one sample that overlap.
const OVERLAPPING: usize = 40_000;
/// How many overlap.
const PARALLEL: usize = 64;
/// The daemon takes as many requests of one client at a time; the rest waits in the socket.
const REQUESTS: u32 = 128;
/// The workers of a second daemon, of each priority: on a machine with few cores, those of the usual one, 5 to 20 and 5 for
/// urgent calls, mostly wake each other.
const WORKERS: u32 = 1;
/// Round trips through the channel.
const ECHOES: usize = 500;
const BLOCK: usize = 256 * 1024;

/// Samples of calls one at a time: calls a second.
#[derive(Default)]
struct Sequential {
    c: Vec<f64>,
    in_task: Vec<f64>,
    one_thread: Vec<f64>,
    threads: Vec<f64>,
}

/// One way's samples of the channel: bytes a second, and seconds.
#[derive(Default)]
struct Channel {
    to_host: Vec<f64>,
    to_guest: Vec<f64>,
    round_trip: Vec<f64>,
}

/// All ways through the channel.
#[derive(Default)]
struct Channels {
    socket: Channel,
    c: Channel,
    ours: Channel,
}

/// What was sampled of calls that overlap.
#[derive(Default)]
struct Overlapping {
    calls: Vec<f64>,
    /// As `calls`, and `alone` one at a time, on the daemon with few workers.
    few_workers: Vec<f64>,
    alone: Vec<f64>,
}

/// Measures, in rounds.
pub(crate) async fn run(options: &Options) -> Result<Report> {
    let mut report = None;
    let usual = Libvirtd::builder().max_client_requests(REQUESTS);
    let few = Libvirtd::builder()
        .max_client_requests(REQUESTS)
        .workers(WORKERS, WORKERS)
        .prio_workers(WORKERS);
    let measure = usual.run(async |usual| {
        few.run(async |few| {
            report = Some(rounds(options, usual, few).await?);
            Ok(())
        })
        .await
    });
    measure.await?;
    report.context("nothing was measured")
}

/// A connection that lets all calls go to the daemon at once.
async fn open(uri: &str) -> Result<Connect> {
    let builder = Connect::builder(uri).calls_at_once(PARALLEL);
    Ok(builder.open().await?)
}

async fn rounds(options: &Options, daemon: &Libvirtd, few: &Libvirtd) -> Result<Report> {
    let bytes = options.mebibytes * 1024 * 1024;
    let domain = Domain::builder("bench").bytes(bytes).build().await?;
    domain.create(daemon).await?;
    domain.up(daemon, 1).await?;
    let (test, qemu) = (daemon.uri("test"), daemon.uri("qemu"));
    let connect = open(&test).await?;
    let few = open(&few.uri("test")).await?;
    let hypervisor = Connect::open(&qemu).await?;
    let handle = hypervisor.domain_by_name(domain.name()).await?;
    let mut alone = Sequential::default();
    let mut overlapping = Overlapping::default();
    let mut channels = Channels::default();
    let mut decoded = decode::Samples::default();
    for round in 0..options.rounds {
        eprintln!("bench: round {} of {}", round + 1, options.rounds);
        alone.c.push(c_calls(&test).await?);
        alone.in_task.push(in_task(&connect).await?);
        alone.one_thread.push(in_block_on(&test, one_thread).await?);
        alone.threads.push(in_block_on(&test, threads).await?);
        overlapping.calls.push(parallel(&connect).await?);
        overlapping.alone.push(in_task(&few).await?);
        overlapping.few_workers.push(parallel(&few).await?);

        let of_c = async |kind: &str, count: u64, figure: &str| {
            let arguments = [&qemu, domain.name(), kind, &count.to_string()];
            number(&measured("channel.py", &arguments).await?, figure)
        };
        let socket = async |name: &str| {
            let path = domain.channel(daemon, name).await?;
            Ok::<_, anyhow::Error>(UnixStream::connect(path).await?)
        };
        let Channels {
            socket: raw,
            c,
            ours,
        } = &mut channels;
        raw.to_host
            .push(source(socket(SOURCE_PORT).await?, bytes).await?);
        c.to_host.push(of_c("source", bytes, "per_second").await?);
        ours.to_host
            .push(source(channel(&handle, SOURCE_PORT).await?, bytes).await?);
        raw.to_guest
            .push(sink(socket(SINK_PORT).await?, bytes).await?);
        c.to_guest.push(of_c("sink", bytes, "per_second").await?);
        ours.to_guest
            .push(sink(channel(&handle, SINK_PORT).await?, bytes).await?);
        raw.round_trip.push(echo(socket(RAW_PORT).await?).await?);
        c.round_trip
            .push(of_c("echo", ECHOES as u64, "median").await?);
        ours.round_trip
            .push(echo(channel(&handle, RAW_PORT).await?).await?);
        decoded.take()?;
    }
    let mut report = Report::new(format!(
        "a private libvirtd (max_client_requests = {REQUESTS}), {} rounds of {CALLS} calls and {} MiB",
        options.rounds, options.mebibytes
    ));
    report_calls(&mut report, alone, overlapping);
    report_channels(&mut report, channels);
    decoded.report(&mut report);
    Ok(report)
}

fn report_calls(report: &mut Report, alone: Sequential, overlapping: Overlapping) {
    let c = report.calls("C library (Python), calls one at a time", alone.c);
    let in_task = report.calls("calls, one at a time, in a task", alone.in_task);
    let one_thread = report.calls("... in block_on, one thread", alone.one_thread);
    let threads = report.calls("... in block_on, several threads", alone.threads);
    let at_once = report.calls("calls, 64 in flight", overlapping.calls);
    let alone_few = report.calls(
        "daemon of 1 + 1 workers: calls, one at a time",
        overlapping.alone,
    );
    let at_once_few = report.calls("... and 64 in flight", overlapping.few_workers);
    report.ratio("calls in a task / C library", in_task / c, 1.0, true);
    report.compare("calls in block_on, one thread / C library", one_thread / c);
    report.compare(
        "calls in block_on, several threads / C library",
        threads / c,
    );
    report.ratio("64 in flight / one at a time", at_once / in_task, 3.0, true);
    report.ratio(
        "daemon of 1 + 1 workers: 64 in flight / one at a time",
        at_once_few / alone_few,
        3.0,
        true,
    );
}

fn report_channels(report: &mut Report, channels: Channels) {
    let Channels { socket, c, ours } = channels;
    let raw_to_host = report.rate("channel's socket, to the host", socket.to_host);
    let c_to_host = report.rate("C library, channel to the host", c.to_host);
    let to_host = report.rate("channel to the host", ours.to_host);
    let raw_to_guest = report.rate("channel's socket, to the guest", socket.to_guest);
    let c_to_guest = report.rate("C library, channel to the guest", c.to_guest);
    let to_guest = report.rate("channel to the guest", ours.to_guest);
    let raw_trip = report.time("channel's socket, a byte and back (p50)", socket.round_trip);
    let c_trip = report.time("C library, a byte and back (p50)", c.round_trip);
    let trip = report.time("a byte and back (p50)", ours.round_trip);
    report.ratio(
        "channel to the host / C library",
        to_host / c_to_host,
        0.9,
        true,
    );
    report.ratio(
        "channel to the guest / C library",
        to_guest / c_to_guest,
        0.9,
        true,
    );
    report.compare("a byte and back / C library", trip / c_trip);
    // What the daemon costs that stands in between.
    report.compare("channel to the host / its socket", to_host / raw_to_host);
    report.compare("channel to the guest / its socket", to_guest / raw_to_guest);
    report.compare("a byte and back / its socket", trip / raw_trip);
}

fn number(said: &serde_json::Value, figure: &str) -> Result<f64> {
    let value = said[figure].as_f64();
    value.with_context(|| format!("there is no {figure} in {said}"))
}

fn per_second(count: usize, since: Instant) -> f64 {
    count as f64 / since.elapsed().as_secs_f64()
}

async fn c_calls(uri: &str) -> Result<f64> {
    let said = measured("calls.py", &[uri, "lib_version", &CALLS.to_string()]).await?;
    number(&said, "per_second")
}

async fn sequential(connect: &Connect) -> Result<f64> {
    connect.libvirt_version().await?;
    let started = Instant::now();
    for _ in 0..CALLS {
        connect.libvirt_version().await?;
    }
    Ok(per_second(CALLS, started))
}

/// In a task, as a server's calls are.
async fn in_task(connect: &Connect) -> Result<f64> {
    let connect = connect.clone();
    tokio::spawn(async move { sequential(&connect).await }).await?
}

/// In `block_on` of another runtime, as the calls of a program are that is not asynchronous otherwise.
async fn in_block_on(uri: &str, runtime: fn() -> runtime::Builder) -> Result<f64> {
    let uri = uri.to_owned();
    let calls = move || {
        let runtime = runtime().enable_all().build()?;
        runtime.block_on(async {
            let connect = open(&uri).await?;
            let calls = sequential(&connect).await?;
            connect.close().await;
            Ok(calls)
        })
    };
    tokio::task::spawn_blocking(calls).await?
}

fn one_thread() -> runtime::Builder {
    runtime::Builder::new_current_thread()
}

/// As many threads as the machine has cores.
fn threads() -> runtime::Builder {
    runtime::Builder::new_multi_thread()
}

async fn parallel(connect: &Connect) -> Result<f64> {
    let left = Arc::new(AtomicUsize::new(OVERLAPPING));
    let mut callers = JoinSet::new();
    let started = Instant::now();
    for _ in 0..PARALLEL {
        let (connect, left) = (connect.clone(), Arc::clone(&left));
        callers.spawn(async move {
            let more = |left: usize| left.checked_sub(1);
            while left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
                .is_ok()
            {
                connect.libvirt_version().await?;
            }
            Ok::<_, ::libvirt::Error>(())
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    Ok(per_second(OVERLAPPING, started))
}

/// The channel, when the daemon has noticed that its last user has gone.
pub(crate) async fn channel(domain: &Handle, name: &str) -> Result<RawStream> {
    let flags = DomainChannelFlags::empty();
    Ok(domain.open_channel(Some(name), flags).await?)
}

pub(crate) async fn source(mut channel: impl AsyncRead + Unpin, bytes: u64) -> Result<f64> {
    let mut block = vec![0; BLOCK];
    let started = Instant::now();
    let mut left = bytes;
    while left > 0 {
        let most = BLOCK.min(usize::try_from(left)?);
        let read = channel.read(&mut block[..most]).await?;
        ensure!(read > 0, "the channel has ended {left} bytes too early");
        left -= read as u64;
    }
    Ok(per_second(usize::try_from(bytes)?, started))
}

pub(crate) async fn sink(
    mut channel: impl AsyncRead + AsyncWrite + Unpin,
    bytes: u64,
) -> Result<f64> {
    let block = vec![0; BLOCK];
    let started = Instant::now();
    let mut left = bytes;
    while left > 0 {
        let most = BLOCK.min(usize::try_from(left)?);
        channel.write_all(&block[..most]).await?;
        left -= most as u64;
    }
    let counted = channel.read_u64_le().await?;
    ensure!(
        counted == bytes,
        "the guest has counted {counted} bytes of {bytes}"
    );
    Ok(per_second(usize::try_from(bytes)?, started))
}

pub(crate) async fn echo(mut channel: impl AsyncRead + AsyncWrite + Unpin) -> Result<f64> {
    let mut times = Vec::with_capacity(ECHOES);
    for index in 0..ECHOES {
        let sent = (index % 251).try_into()?;
        let started = Instant::now();
        channel.write_u8(sent).await?;
        let echo = channel.read_u8().await?;
        ensure!(echo == sent, "round trip {index} has brought another byte");
        times.push(Duration::as_secs_f64(&started.elapsed()));
    }
    Ok(median(&times))
}
