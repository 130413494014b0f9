//! A guest of a hypervisor that is reached by TLS, beside libvirt's bare stream to the same guest.
//!
//! ```text
//!   client ── TCP ── bridge ── stream over TLS ── libvirtd ── QEMU ── port ── agent with the service
//!   client ─────────────────── stream over TLS ── libvirtd ── QEMU ── port ── a program that reads or writes
//! ```
//!
//! Both streams have a connection of their own to one daemon, and both ports are the same domain's. The bridge stands outside
//! of the daemon's namespaces and does not see its files. All of it shares this machine's cores with the emulation of the guest.
//!
//! The agent in the guest does more than the program, and an emulated CPU makes that dear. What the way costs alone is seen
//! beside a bridge that has the port's socket here, on which the same agent is called in the same way. The port has one client
//! at a time, so these bridges take turns.

use ::libvirt::Connect;
use anyhow::{Context as _, Result};
use vbridge_tests::{
    fixture::{Bridge, eventually},
    libvirt::{
        certificates::{ClientCertificate, ServerCertificate},
        daemon::{Auth, Libvirtd},
        domain::{Domain, SINK_PORT, SOURCE_PORT},
        limits::BOOT,
    },
};
use xtask::qemu::{AGENT_PORT, RAW_PORT};

use crate::{
    Options, grpc,
    libvirt::{channel, echo, sink, source},
    report::{Figure, Report},
};

/// The guest's memory: as much as that of the guest beside it, in `link`.
const MEMORY_MIB: u32 = 256;

/// Measures, in rounds.
pub(crate) async fn run(options: &Options) -> Result<Report> {
    let mut report = None;
    let daemon = Libvirtd::builder().tls(ServerCertificate::Good, Auth::None);
    let measure = daemon.run(async |daemon| {
        report = Some(rounds(options, daemon).await?);
        Ok(())
    });
    measure.await?;
    report.context("nothing was measured")
}

/// One way to the guest: bytes a second, and seconds.
#[derive(Default)]
struct Way {
    to_host: Vec<f64>,
    to_guest: Vec<f64>,
    round_trip: Vec<f64>,
}

impl Way {
    /// A round through a bridge of its own. The bytes that it held resident at the end.
    async fn bridge(&mut self, arguments: &[String], guest: &str, bytes: u64) -> Result<u64> {
        let mut bridge = Bridge::start_with(Vec::new(), arguments.to_vec()).await?;
        // It may have to ask the hypervisor.
        let is_known = || async { Ok(bridge.guest(guest).await.is_ok()) };
        eventually("the guest", BOOT, is_known).await?;
        bridge.ready(guest).await?;
        let client = grpc::Client::open(&bridge.place(guest)).await?;
        self.to_host.push(client.read(bytes).await?);
        self.to_guest.push(client.write(bytes).await?);
        self.round_trip.push(client.unary().await?);
        let resident = bridge.resident_bytes()?;
        bridge.terminate().await?;
        Ok(resident)
    }
}

async fn rounds(options: &Options, daemon: &Libvirtd) -> Result<Report> {
    let bytes = options.mebibytes * 1024 * 1024;
    let domain = Domain::builder("bench").bytes(bytes).cpus(options.cpus);
    let domain = domain.memory_mib(MEMORY_MIB).build().await?;
    domain.create(daemon).await?;
    domain.up(daemon, 1).await?;
    let uri = daemon.tls_uri("qemu", ClientCertificate::Good)?;
    let socket = domain.channel(daemon, AGENT_PORT).await?;
    let far = vec!["--libvirt".to_owned(), uri.clone()];
    let seat = format!("{}=unix:{}", domain.name(), socket.display());
    let near = vec!["--guest".to_owned(), seat];
    let connect = Connect::open(&uri).await?;
    let handle = connect.domain_by_name(domain.name()).await?;
    let (mut bare, mut through, mut here) = (Way::default(), Way::default(), Way::default());
    let mut resident = 0;
    for round in 0..options.rounds {
        eprintln!("bench: round {} of {}", round + 1, options.rounds);
        here.bridge(&near, domain.name(), bytes).await?;
        bare.to_host
            .push(source(channel(&handle, SOURCE_PORT).await?, bytes).await?);
        bare.to_guest
            .push(sink(channel(&handle, SINK_PORT).await?, bytes).await?);
        bare.round_trip
            .push(echo(channel(&handle, RAW_PORT).await?).await?);
        resident = through.bridge(&far, domain.name(), bytes).await?;
    }
    let mut report = Report::new(format!(
        "one guest with {} emulated CPU(s) behind libvirt over TLS, {} rounds of {} MiB",
        options.cpus, options.rounds, options.mebibytes
    ));
    let bare_to_host = report.rate("libvirt's stream, guest to host", bare.to_host);
    let to_host = report.rate("through the bridge, guest to host", through.to_host);
    let here_to_host = report.rate("... of the port's socket here", here.to_host);
    let bare_to_guest = report.rate("libvirt's stream, host to guest", bare.to_guest);
    let to_guest = report.rate("through the bridge, host to guest", through.to_guest);
    let here_to_guest = report.rate("... of the port's socket here", here.to_guest);
    let bare_trip = report.time("libvirt's stream, a byte and back (p50)", bare.round_trip);
    let call = report.time("unary call through the bridge (p50)", through.round_trip);
    let here_call = report.time("... of the port's socket here (p50)", here.round_trip);
    report.add(Figure::bytes("bridge resident after a round", resident));
    report.ratio(
        "guest to host, through the bridge / libvirt's stream",
        to_host / bare_to_host,
        0.8,
        true,
    );
    report.ratio(
        "host to guest, through the bridge / libvirt's stream",
        to_guest / bare_to_guest,
        0.8,
        true,
    );
    report.compare("guest to host, far / here", to_host / here_to_host);
    report.compare("host to guest, far / here", to_guest / here_to_guest);
    report.compare("unary call, far / here", call / here_call);
    report.compare("unary call / a byte and back", call / bare_trip);
    Ok(report)
}
