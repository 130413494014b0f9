//! vbridge on one real guest, beside the raw channel.
//!
//! The raw channel is a second port of the virtual machine, with `dd` and a shell at the guest's end, or with a program
//! that reads and writes as fast as the port can. The goals are ratios to the former; those to the latter stand beside
//! them. Everything else goes the whole way: a gRPC client over TCP, the bridge, the link, the agent.

use anyhow::Result;
use vbridge_tests::{
    fixture::{Bridge, Guest},
    programs,
};

use crate::{
    Options, grpc,
    raw::{self, Peer},
    report::{Figure, Report},
};

/// Measures, in rounds.
pub(crate) async fn run(options: &Options) -> Result<Report> {
    let image = programs::image().await?;
    let guest = Guest::boot_as(image, |vm| options.hardware(vm)).await?;
    let mut bridge = Bridge::start([guest.seat("bench")]).await?;
    bridge.ready("bench").await?;
    let place = bridge.place("bench");
    let bytes = options.mebibytes * 1024 * 1024;
    let mut samples = Samples::default();
    for round in 0..options.rounds {
        eprintln!("bench: round {} of {}", round + 1, options.rounds);
        for (peer, raw) in [
            (Peer::Shell, &mut samples.shell),
            (Peer::Program, &mut samples.program),
        ] {
            raw.to_host.push(raw::source(&guest, peer, bytes).await?);
            raw::end(&guest).await?;
            raw.to_guest.push(raw::sink(&guest, peer, bytes).await?);
            raw::end(&guest).await?;
            raw.round_trip.push(raw::echo(&guest, peer).await?);
            raw::end(&guest).await?;
        }
        let client = grpc::Client::open(&place).await?;
        samples.to_host.push(client.read(bytes).await?);
        samples.to_guest.push(client.write(bytes).await?);
        samples.unary.push(client.unary().await?);
        samples.sequential.push(client.rate(1).await?);
        samples.parallel.push(client.rate(grpc::PARALLEL).await?);
        let (unary, bulk) = client.unary_beside_read(bytes).await?;
        samples.unary_beside_read.push(unary);
        samples.read_beside_unary.push(bulk);
        let (unary, bulk) = client.unary_beside_write(bytes).await?;
        samples.unary_beside_write.push(unary);
        samples.write_beside_unary.push(bulk);
    }
    let weights = weights(&guest, &mut bridge).await?;
    Ok(samples.report(options, &guest, weights))
}

/// Resident bytes of agent and bridge after all that.
async fn weights(guest: &Guest, bridge: &mut Bridge) -> Result<(u64, u64)> {
    Ok((
        guest.agent_resident_bytes().await?,
        bridge.process().resident_bytes()?,
    ))
}

/// The raw channel: bytes a second, and seconds.
#[derive(Default)]
struct Raw {
    to_host: Vec<f64>,
    to_guest: Vec<f64>,
    round_trip: Vec<f64>,
}

/// What was measured: bytes and calls a second, and seconds.
#[derive(Default)]
struct Samples {
    shell: Raw,
    program: Raw,
    to_host: Vec<f64>,
    to_guest: Vec<f64>,
    unary: Vec<f64>,
    sequential: Vec<f64>,
    parallel: Vec<f64>,
    unary_beside_read: Vec<f64>,
    read_beside_unary: Vec<f64>,
    unary_beside_write: Vec<f64>,
    write_beside_unary: Vec<f64>,
}

impl Samples {
    fn report(self, options: &Options, guest: &Guest, (agent, bridge): (u64, u64)) -> Report {
        let mut report = Report::new(format!(
            "one {} under {}, {} rounds of {} MiB",
            options.guest(),
            guest.vm().accelerator().name(),
            options.rounds,
            options.mebibytes
        ));
        let raw_to_host = report.rate("raw channel, guest to host (dd)", self.shell.to_host);
        let raw_to_guest = report.rate("raw channel, host to guest (dd)", self.shell.to_guest);
        let raw_round_trip = report.time(
            "raw channel, round trip of a line (p50)",
            self.shell.round_trip,
        );
        let best_to_host =
            report.rate("raw channel, guest to host (program)", self.program.to_host);
        let best_to_guest = report.rate(
            "raw channel, host to guest (program)",
            self.program.to_guest,
        );
        let best_round_trip = report.time(
            "raw channel, round trip of 64 bytes (program, p50)",
            self.program.round_trip,
        );
        let to_host = report.rate("stream, guest to host", self.to_host);
        let to_guest = report.rate("stream, host to guest", self.to_guest);
        let unary = report.time("unary call, idle (p50)", self.unary);
        let sequential = report.calls("unary calls, one at a time", self.sequential);
        let parallel = report.calls("unary calls, 32 in flight", self.parallel);
        let beside_read = report.time(
            "unary call beside a stream to the host (p50)",
            self.unary_beside_read,
        );
        let read_beside = report.rate("... and that stream", self.read_beside_unary);
        let beside_write = report.time(
            "unary call beside a stream to the guest (p50)",
            self.unary_beside_write,
        );
        let write_beside = report.rate("... and that stream", self.write_beside_unary);
        report.add(Figure::bytes("agent resident after the run", agent));
        report.add(Figure::bytes("bridge resident after the run", bridge));
        report.ratio(
            "stream, guest to host / raw",
            to_host / raw_to_host,
            0.80,
            true,
        );
        report.ratio(
            "stream, host to guest / raw",
            to_guest / raw_to_guest,
            0.65,
            true,
        );
        report.ratio(
            "unary p50 / raw round trip",
            unary / raw_round_trip,
            2.0,
            false,
        );
        report.ratio(
            "32 in flight / one at a time",
            parallel / sequential,
            5.0,
            true,
        );
        report.ratio(
            "unary beside a stream to the host / idle",
            beside_read / unary,
            6.0,
            false,
        );
        report.ratio("... that stream / alone", read_beside / to_host, 0.85, true);
        report.ratio(
            "unary beside a stream to the guest / idle",
            beside_write / unary,
            6.0,
            false,
        );
        report.ratio(
            "... that stream / alone",
            write_beside / to_guest,
            0.85,
            true,
        );
        report.compare(
            "stream, guest to host / raw (program)",
            to_host / best_to_host,
        );
        report.compare(
            "stream, host to guest / raw (program)",
            to_guest / best_to_guest,
        );
        report.compare(
            "unary p50 / raw round trip (program)",
            unary / best_round_trip,
        );
        report
    }
}
