//! What the bridge itself costs: the same calls through it, and to the same service on a Unix socket with nothing in between.
//!
//! ```text
//!   client ── Unix socket ── bridge ── link on a Unix socket ── agent with the service
//!   client ── Unix socket ───────────────────────────────────── the service
//! ```
//!
//! CPU is that of all programs of a way together, the client's too, by call and by byte: the bridge can't hide work in others.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use vbridge_tests::{
    fixture::{Bridge, LocalAgent},
    process::{Process, cpu_time},
};

use crate::{
    Options,
    grpc::{Client, PARALLEL},
    report::{Report, median},
};

/// The agent's name at the bridge.
const MEASURED: &str = "agent";

/// One way to the service.
struct Way {
    client: Client,
    /// Other programs than this one that work for it.
    programs: Vec<u32>,
    calls: Vec<f64>,
    rates: Vec<f64>,
    cpu_by_call: Vec<f64>,
    reads: Vec<f64>,
    writes: Vec<f64>,
}

impl Way {
    async fn new(socket: &Path, authority: &str, programs: &[&Process]) -> Result<Self> {
        Ok(Self {
            client: Client::on(connect(socket, authority).await?),
            programs: programs.iter().map(|process| process.pid()).collect(),
            calls: Vec::new(),
            rates: Vec::new(),
            cpu_by_call: Vec::new(),
            reads: Vec::new(),
            writes: Vec::new(),
        })
    }

    /// CPU time of this program and the others.
    fn cpu(&self) -> Result<Duration> {
        let mut sum = cpu_time(std::process::id())?;
        for pid in &self.programs {
            sum += cpu_time(*pid)?;
        }
        Ok(sum)
    }

    async fn round(&mut self, bytes: u64) -> Result<()> {
        self.calls.push(self.client.unary().await?);
        let (begin, before) = (Instant::now(), self.cpu()?);
        let rate = self.client.rate(PARALLEL).await?;
        let calls = rate * begin.elapsed().as_secs_f64();
        let cpu = self.cpu()?.saturating_sub(before);
        self.cpu_by_call.push(cpu.as_secs_f64() / calls);
        self.rates.push(rate);
        self.reads.push(self.client.read(bytes).await?);
        self.writes.push(self.client.write(bytes).await?);
        Ok(())
    }
}

async fn connect(socket: &Path, authority: &str) -> Result<Channel> {
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Endpoint::from_shared(format!("http://{authority}"))?
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(8 * 1024 * 1024)
        .connect_with_connector(connector)
        .await
        .with_context(|| format!("can't connect {}", socket.display()))
}

/// Measures all rounds.
pub(crate) async fn run(options: &Options) -> Result<Report> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("bridge");
    let mut agent = LocalAgent::start().await?;
    let mut direct = LocalAgent::direct().await?;
    let seat = format!("{MEASURED}=unix:{}", agent.channel().display());
    let listen = format!("unix:{}", socket.display());
    let arguments = ["--guest", &seat, "--listen", &listen].map(str::to_owned);
    let mut bridge = Bridge::start_with(Vec::new(), arguments.to_vec()).await?;
    bridge.ready(MEASURED).await?;
    let programs = [&*bridge.process(), &*agent.process()];
    let mut through = Way::new(&socket, MEASURED, &programs).await?;
    let path = direct.channel().to_owned();
    let mut alone = Way::new(&path, "localhost", &[&*direct.process()]).await?;
    let bytes = options.mebibytes * 1024 * 1024;
    for round in 1..=options.rounds {
        eprintln!("bench: cost, round {round} of {}", options.rounds);
        alone.round(bytes).await?;
        through.round(bytes).await?;
    }
    let mut report =
        Report::new("one bridge and an agent, on this machine without a guest".to_owned());
    let ratio = |through: &[f64], alone: &[f64]| median(through) / median(alone);
    let cpu = ratio(&through.cpu_by_call, &alone.cpu_by_call);
    let (read, write) = (
        ratio(&through.reads, &alone.reads),
        ratio(&through.writes, &alone.writes),
    );
    let (call, rate) = (
        ratio(&through.calls, &alone.calls),
        ratio(&through.rates, &alone.rates),
    );
    for (way, name) in [
        (alone, "the service alone"),
        (through, "through the bridge"),
    ] {
        report.time(&format!("call, {name}"), way.calls);
        report.calls(&format!("{PARALLEL} in flight, {name}"), way.rates);
        report.time(&format!("CPU of a call, {name}"), way.cpu_by_call);
        report.rate(&format!("stream from it, {name}"), way.reads);
        report.rate(&format!("stream to it, {name}"), way.writes);
    }
    report.compare("call through the bridge / alone", call);
    report.compare("calls a second through the bridge / alone", rate);
    report.ratio("CPU of a call through the bridge / alone", cpu, 1.5, false);
    report.ratio("stream from it through the bridge / alone", read, 0.8, true);
    report.ratio("stream to it through the bridge / alone", write, 0.8, true);
    Ok(report)
}
