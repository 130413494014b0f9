//! Measures vbridge and its libvirt client: every figure is a ratio to something that was measured minutes before on the
//! same machine.
//!
//! | part | measures | beside |
//! |---|---|---|
//! | `link` | calls and streams to a real guest, through everything | the raw channel |
//! | `guest` | files and commands of a real guest, through everything | the QEMU guest agent in the same guest |
//! | `cost` | calls and streams to an agent at a socket, through the bridge | the same to the same service alone |
//! | `churn` | calls to quiet guests while others come and go | the same calls in peace |
//! | `remote` | streams to a guest of a hypervisor that is reached by TLS, through everything | libvirt's bare stream to the same guest |
//! | `libvirt` | the libvirt client on a private daemon | the C library on the same daemon, and the channel's own socket |
//! | | its decoder | one that goes byte by byte |
//!
//! Rounds of everything are interleaved, and medians are taken, because the machine's own speed changes.

#![allow(
    clippy::needless_pass_by_value,
    reason = "samples are handed over and end with the report"
)]

mod churn;
mod cost;
mod decode;
mod grpc;
mod guest;
mod helper;
mod libvirt;
mod link;
mod raw;
mod remote;
mod report;

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use helper::Role;
use tokio::runtime;
use xtask::qemu::VmBuilder;

/// Measures vbridge on a real guest, and its libvirt client on a real daemon.
#[derive(Parser)]
struct Options {
    /// What to measure; everything if nothing is named.
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// How often everything is measured; the medians count.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Mebibytes of one bulk stream.
    #[arg(long, default_value_t = 64)]
    mebibytes: u64,
    /// The guest's virtual CPUs.
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// The guest's CPU as QEMU names it. `max,-erms` is one whose `rep movsb`, which software emulates byte by byte, the guest's
    /// kernel leaves alone.
    #[arg(long, default_value = "max")]
    cpu_model: String,
    /// Quiet guests of `churn`.
    #[arg(long, default_value_t = 180)]
    guests: usize,
    /// Guests of `churn` that start or stop in a second.
    #[arg(long, default_value_t = 20)]
    churn: u32,
    /// How long they do.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Guests of `churn` that start are given the machine's cores as everybody is, and not only when they are idle.
    #[arg(long)]
    equal: bool,
    /// What this process does as another one's helper.
    #[arg(long, hide = true, requires = "place")]
    role: Option<Role>,
    /// ... and where.
    #[arg(long, hide = true, requires = "role")]
    place: Option<String>,
    /// Where the figures go as JSON.
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Part {
    Link,
    Guest,
    Cost,
    Churn,
    Remote,
    Libvirt,
}

impl Options {
    /// The guest's hardware.
    fn hardware(&self, vm: VmBuilder) -> VmBuilder {
        vm.cpus(self.cpus)
            .qemu_arg("-cpu")
            .qemu_arg(&self.cpu_model)
    }

    /// The guest, for a report's headline.
    fn guest(&self) -> String {
        format!("guest with {} CPU(s) \"{}\"", self.cpus, self.cpu_model)
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match (options.role, &options.place) {
        (Some(role), Some(place)) => help(role, place),
        _ => match runtime::Runtime::new() {
            Ok(runtime) => runtime.block_on(run(&options)),
            Err(error) => Err(error.into()),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// On one thread: it does one thing.
fn help(role: Role, place: &str) -> Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let worked = runtime.block_on(helper::work(role, place));
    // One of its threads may still read tasks.
    runtime.shutdown_background();
    worked
}

async fn run(options: &Options) -> Result<()> {
    let wanted = |part: Part| options.parts.is_empty() || options.parts.contains(&part);
    let mut reports = BTreeMap::new();
    if wanted(Part::Link) {
        reports.insert("link", link::run(options).await?);
    }
    if wanted(Part::Guest) {
        reports.insert("guest", guest::run(options).await?);
    }
    if wanted(Part::Cost) {
        reports.insert("cost", cost::run(options).await?);
    }
    if wanted(Part::Churn) {
        reports.insert("churn", churn::run(options).await?);
    }
    if wanted(Part::Remote) {
        reports.insert("remote", remote::run(options).await?);
    }
    if wanted(Part::Libvirt) {
        reports.insert("libvirt", libvirt::run(options).await?);
    }
    for report in reports.values() {
        report.print();
    }
    let path = &options.json;
    let json = serde_json::to_string_pretty(&reports)?;
    std::fs::write(path, json).with_context(|| format!("can't write {}", path.display()))
}
