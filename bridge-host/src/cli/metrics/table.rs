//! One sample for people: a table for each group.

use vbridge_api::guest::v1::{CpuTimes, MetricsSample, Pressure};

use crate::cli::{
    output::{facts, listing, printable},
    units::{bytes, date, duration, long_time, percent, share},
};

/// The sample as text.
pub(super) fn table(sample: &MetricsSample) -> String {
    let mut parts = vec![summary(sample)];
    if !sample.disks.is_empty() {
        let rows = sample.disks.iter().map(|disk| {
            vec![
                printable(&disk.name),
                bytes(disk.read_bytes),
                bytes(disk.written_bytes),
                disk.reads.to_string(),
                disk.writes.to_string(),
                format!("{:.1} s", disk.busy_seconds),
                disk.in_flight.to_string(),
            ]
        });
        let header = [
            "DISK",
            ">READ",
            ">WRITTEN",
            ">READS",
            ">WRITES",
            ">BUSY",
            ">IN FLIGHT",
        ];
        parts.push(listing(&header, rows));
    }
    if !sample.networks.is_empty() {
        let rows = sample.networks.iter().map(|network| {
            vec![
                printable(&network.name),
                bytes(network.received_bytes),
                bytes(network.sent_bytes),
                network.received_packets.to_string(),
                network.sent_packets.to_string(),
                network
                    .received_errors
                    .saturating_add(network.sent_errors)
                    .to_string(),
                network
                    .received_dropped
                    .saturating_add(network.sent_dropped)
                    .to_string(),
            ]
        });
        let header = [
            "NETWORK",
            ">RECEIVED",
            ">SENT",
            ">PACKETS IN",
            ">PACKETS OUT",
            ">ERRORS",
            ">DROPPED",
        ];
        parts.push(listing(&header, rows));
    }
    if let Some(all) = &sample.pressure {
        let resources = [("cpu", &all.cpu), ("memory", &all.memory), ("io", &all.io)];
        let rows = resources
            .iter()
            .filter_map(|(name, one)| one.as_ref().map(|one| (*name, one)));
        let rows = rows.flat_map(|(name, one)| pressure(name, one));
        parts.push(listing(
            &["PRESSURE", "TASKS", ">10 s", ">1 min", ">5 min", ">TOTAL"],
            rows,
        ));
    }
    parts.join("\n\n")
}

fn summary(sample: &MetricsSample) -> String {
    let mut rows = vec![
        ("Time", date(sample.time.as_ref())),
        (
            "Up for",
            duration(sample.uptime.as_ref())
                .map(long_time)
                .unwrap_or_default(),
        ),
    ];
    if let Some(cpu) = &sample.cpu {
        let times = cpu.total.clone().unwrap_or_default();
        let load = (cpu.load_one, cpu.load_five, cpu.load_fifteen);
        rows.push(("CPUs", cpu.cpus.len().to_string()));
        rows.push(("Since boot", cpu_shares(&times)));
        rows.push(("Load", format!("{:.2} {:.2} {:.2}", load.0, load.1, load.2)));
        rows.push(("Switches", format!("{} since boot", cpu.context_switches)));
    }
    if let Some(memory) = &sample.memory {
        let used = memory.total_bytes.saturating_sub(memory.available_bytes);
        let used_share = share(used, memory.total_bytes);
        rows.push((
            "Memory",
            format!(
                "{} of {} used ({used_share})",
                bytes(used),
                bytes(memory.total_bytes)
            ),
        ));
        rows.push(("Available", bytes(memory.available_bytes)));
        rows.push(("Free", bytes(memory.free_bytes)));
        rows.push(("Buffers", bytes(memory.buffers_bytes)));
        rows.push(("Cached", bytes(memory.cached_bytes)));
        rows.push(("Dirty", bytes(memory.dirty_bytes)));
        let swap_used = memory
            .swap_total_bytes
            .saturating_sub(memory.swap_free_bytes);
        rows.push((
            "Swap",
            format!(
                "{} of {} used",
                bytes(swap_used),
                bytes(memory.swap_total_bytes)
            ),
        ));
    }
    if let Some(processes) = &sample.processes {
        let (tasks, started) = (processes.tasks, processes.started);
        let (running, blocked) = (processes.running, processes.blocked);
        rows.push((
            "Tasks",
            format!("{tasks}, {running} running, {blocked} blocked, {started} since boot"),
        ));
    }
    facts(rows)
}

/// Shares of the time since boot.
fn cpu_shares(times: &CpuTimes) -> String {
    let interrupts = times.irq + times.softirq;
    let user = times.user + times.nice;
    let parts = [
        ("user", user),
        ("system", times.system),
        ("interrupts", interrupts),
        ("iowait", times.iowait),
        ("steal", times.steal),
        ("idle", times.idle),
    ];
    let all: f64 = parts.iter().map(|(_, time)| time).sum();
    if all <= 0.0 {
        return String::new();
    }
    let parts = parts.map(|(name, time)| format!("{name} {}", percent(time * 100.0 / all)));
    parts.join(", ")
}

fn pressure(name: &str, pressure: &Pressure) -> Vec<Vec<String>> {
    let kinds = [("some", &pressure.some), ("all", &pressure.full)];
    let stalls = kinds.iter().filter_map(|(tasks, stall)| {
        let stall = stall.as_ref()?;
        Some(vec![
            name.to_owned(),
            (*tasks).to_owned(),
            percent(stall.avg10_percent),
            percent(stall.avg60_percent),
            percent(stall.avg300_percent),
            format!("{:.1} s", stall.total_seconds),
        ])
    });
    stalls.collect()
}

#[cfg(test)]
mod tests {
    use vbridge_api::guest::v1::{
        CpuMetrics, DiskMetrics, MemoryMetrics, NetworkMetrics, PressureMetrics, Stall,
    };

    use super::*;

    #[test]
    fn every_group_has_its_place() {
        let total = CpuTimes {
            user: 25.0,
            idle: 75.0,
            ..CpuTimes::default()
        };
        let stall = Stall {
            avg10_percent: 1.5,
            ..Stall::default()
        };
        let sample = MetricsSample {
            cpu: Some(CpuMetrics {
                total: Some(total),
                ..CpuMetrics::default()
            }),
            memory: Some(MemoryMetrics {
                total_bytes: 400 << 20,
                available_bytes: 300 << 20,
                ..MemoryMetrics::default()
            }),
            disks: vec![DiskMetrics {
                name: "vda\r".into(),
                ..DiskMetrics::default()
            }],
            networks: vec![NetworkMetrics {
                name: "eth0".into(),
                ..NetworkMetrics::default()
            }],
            pressure: Some(PressureMetrics {
                io: Some(Pressure {
                    some: Some(stall),
                    full: None,
                }),
                ..PressureMetrics::default()
            }),
            ..MetricsSample::default()
        };
        let text = table(&sample);
        for words in [
            "user 25.0 %",
            "100 MiB of 400 MiB used (25.0 %)",
            "vda\\r",
            "eth0",
            "1.5 %",
        ] {
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn an_empty_sample_is_shown_without_its_groups() {
        let text = table(&MetricsSample::default());
        assert!(!text.contains("DISK") && !text.contains("Memory"), "{text}");
    }
}
