//! Shows what the domains of a hypervisor use, as a table: one call for all of them.
//!
//! ```text
//! cargo run -p libvirt --example stats -- qemu:///system
//! ```

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use indicatif::BinaryBytes;
use libvirt::domain::DomainStats;
use libvirt::raw::api::{ConnectGetAllDomainStatsFlags, DomainState, DomainStatsTypes};
use libvirt::{Code, Connect, Params};

#[derive(Debug, Parser)]
struct Arguments {
    /// The hypervisor; without one: LIBVIRT_DEFAULT_URI, or whatever the daemon finds.
    #[arg(default_value = "", hide_default_value = true)]
    uri: String,
    /// The seconds over which the use of CPUs is measured.
    #[arg(long, default_value_t = 1.0)]
    over: f64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let over = Duration::try_from_secs_f64(arguments.over).context("--over")?;
    let connect = Connect::builder(&arguments.uri)
        .read_only(true)
        .open()
        .await?;
    let before = sample(&connect).await?;
    let start = Instant::now();
    tokio::time::sleep(over).await;
    let now = sample(&connect).await?;
    let elapsed = start.elapsed();

    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "domain", "state", "CPUs", "CPU %", "memory", "read", "written", "received", "sent",
    ]);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for DomainStats { domain, values } in &now {
        let earlier = before.iter().find(|earlier| earlier.domain == *domain);
        let used = earlier.and_then(|earlier| {
            let used = values
                .number("cpu.time")?
                .checked_sub(earlier.values.number("cpu.time")?)?;
            Some(Duration::from_nanos(used).as_secs_f64() / elapsed.as_secs_f64() * 100.0)
        });
        table.add_row([
            domain.name().to_owned(),
            state(values),
            shown(values.number("vcpu.current")),
            shown(used.map(|used| format!("{used:.1}"))),
            bytes(
                values
                    .number("balloon.current")
                    .map(|kib| kib.saturating_mul(1024)),
            ),
            bytes(sum(values, "block", "rd.bytes")),
            bytes(sum(values, "block", "wr.bytes")),
            bytes(sum(values, "net", "rx.bytes")),
            bytes(sum(values, "net", "tx.bytes")),
        ]);
    }
    println!("{table}");
    connect.close().await;
    Ok(())
}

async fn sample(connect: &Connect) -> Result<Vec<DomainStats>, libvirt::Error> {
    let what = DomainStatsTypes::STATE
        | DomainStatsTypes::CPU_TOTAL
        | DomainStatsTypes::BALLOON
        | DomainStatsTypes::VCPU
        | DomainStatsTypes::INTERFACE
        | DomainStatsTypes::BLOCK;
    // Without ENFORCE_STATS a hypervisor gives those that it has.
    connect
        .all_domain_stats(&[], what, ConnectGetAllDomainStatsFlags::empty())
        .await
}

fn state(values: &Params) -> String {
    let state = values
        .number("state.state")
        .and_then(|state| i32::try_from(state).ok());
    shown(state.map(Code::<DomainState>::new))
}

/// The sum over all devices of a group, such as `block.0.rd.bytes` and `block.1.rd.bytes`.
fn sum(values: &Params, group: &str, counter: &str) -> Option<u64> {
    let devices = values.number(&format!("{group}.count"))?;
    let counts =
        (0..devices).filter_map(|device| values.number(&format!("{group}.{device}.{counter}")));
    Some(counts.sum())
}

fn bytes(count: Option<u64>) -> String {
    shown(count.map(BinaryBytes))
}

/// A dash for what the hypervisor does not tell.
fn shown(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
