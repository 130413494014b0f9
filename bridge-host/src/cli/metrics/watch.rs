//! Samples for people as they come: one line each, counters as rates since the line before.

use std::time::Duration;

use vbridge_api::guest::v1::{CpuTimes, DiskMetrics, MetricsSample};

use crate::cli::units::{bytes, bytes_of, clock, duration};

use super::Group;

/// Lines between two headers: one is always in sight on a terminal of common height.
const LINES_PER_HEADER: u64 = 20;

/// Names of block devices that are made of others, or of memory: counting them would count their bytes twice.
const NOT_DISKS: [&str; 6] = ["loop", "ram", "zram", "dm-", "md", "sr"];

/// Writes the lines.
#[derive(Debug)]
pub(super) struct Lines {
    columns: Vec<Column>,
    written: u64,
    previous: Option<Counters>,
}

/// A column: its header and its width. Values are aligned to the right.
#[derive(Debug, Clone, Copy)]
struct Column {
    header: &'static str,
    width: usize,
    value: fn(&MetricsSample, &Counters, Option<&Rates>) -> Option<String>,
}

/// What is counted, summed up over devices.
#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    uptime: Option<Duration>,
    cpu_busy: f64,
    cpu_all: f64,
    read: u64,
    written: u64,
    received: u64,
    sent: u64,
}

/// What changed from one sample to the next.
#[derive(Debug, Clone, Copy)]
struct Rates {
    busy_percent: Option<f64>,
    read: f64,
    written: f64,
    received: f64,
    sent: f64,
}

impl Lines {
    pub(super) fn new(groups: &[Group]) -> Self {
        let columns = groups
            .iter()
            .flat_map(|group| columns(*group))
            .copied()
            .collect();
        Self {
            columns,
            written: 0,
            previous: None,
        }
    }

    /// The next line, with a header above it from time to time.
    pub(super) fn next(&mut self, sample: &MetricsSample, dropped: u64) -> String {
        let counters = Counters::of(sample);
        let rates = self.previous.and_then(|previous| counters.since(&previous));
        self.previous = Some(counters);
        let mut text = String::new();
        if self.written.is_multiple_of(LINES_PER_HEADER) {
            text.push_str("TIME    ");
            for column in &self.columns {
                text.push_str(&format!("  {:>1$}", column.header, column.width));
            }
            text.push('\n');
        }
        self.written += 1;
        text.push_str(&clock(sample.time.as_ref()));
        for column in &self.columns {
            let value = (column.value)(sample, &counters, rates.as_ref());
            text.push_str(&format!(
                "  {:>1$}",
                value.as_deref().unwrap_or("-"),
                column.width
            ));
        }
        if dropped > 0 {
            text.push_str(&format!("  ({dropped} lost before)"));
        }
        text
    }
}

/// The columns of a group.
fn columns(group: Group) -> &'static [Column] {
    macro_rules! column {
        ($header:literal, $width:literal, $value:expr) => {
            Column {
                header: $header,
                width: $width,
                value: $value,
            }
        };
    }
    match group {
        Group::Cpu => &[
            column!("CPU", 7, |sample, _, rates| {
                let told = sample.cpu.as_ref()?.busy_percent;
                told.or(rates?.busy_percent)
                    .map(|busy| format!("{busy:.1} %"))
            }),
            column!("LOAD", 6, |sample, _, _| Some(format!(
                "{:.2}",
                sample.cpu.as_ref()?.load_one
            ))),
        ],
        Group::Memory => &[
            column!("MEM USED", 9, |sample, _, _| {
                let memory = sample.memory.as_ref()?;
                Some(bytes(
                    memory.total_bytes.saturating_sub(memory.available_bytes),
                ))
            }),
            column!("OF", 9, |sample, _, _| Some(bytes(
                sample.memory.as_ref()?.total_bytes
            ))),
        ],
        Group::Disk => &[
            column!("READ/s", 9, |_, _, rates| Some(bytes_of(rates?.read))),
            column!("WRITE/s", 9, |_, _, rates| Some(bytes_of(rates?.written))),
        ],
        Group::Network => &[
            column!("NET IN/s", 9, |_, _, rates| Some(bytes_of(rates?.received))),
            column!("OUT/s", 9, |_, _, rates| Some(bytes_of(rates?.sent))),
        ],
        Group::Pressure => &[column!("CPU/MEM/IO STALL %", 18, |sample, _, _| {
            let all = sample.pressure.as_ref()?;
            let share = |one: &Option<vbridge_api::guest::v1::Pressure>| {
                let stall = one.as_ref().and_then(|one| one.some.as_ref());
                stall.map_or_else(|| "-".into(), |stall| format!("{:.1}", stall.avg10_percent))
            };
            Some(format!(
                "{}/{}/{}",
                share(&all.cpu),
                share(&all.memory),
                share(&all.io)
            ))
        })],
        Group::Processes => &[
            column!("TASKS", 6, |sample, _, _| Some(
                sample.processes.as_ref()?.tasks.to_string()
            )),
            column!("RUN", 4, |sample, _, _| Some(
                sample.processes.as_ref()?.running.to_string()
            )),
        ],
    }
}

impl Counters {
    fn of(sample: &MetricsSample) -> Self {
        let mut counters = Self {
            uptime: duration(sample.uptime.as_ref()),
            ..Self::default()
        };
        if let Some(times) = sample.cpu.as_ref().and_then(|cpu| cpu.total.as_ref()) {
            counters.cpu_all = all_time(times);
            counters.cpu_busy = counters.cpu_all - times.idle - times.iowait;
        }
        for disk in sample
            .disks
            .iter()
            .filter(|disk| is_whole_disk(disk, &sample.disks))
        {
            counters.read = counters.read.saturating_add(disk.read_bytes);
            counters.written = counters.written.saturating_add(disk.written_bytes);
        }
        for network in sample
            .networks
            .iter()
            .filter(|network| network.name != "lo")
        {
            counters.received = counters.received.saturating_add(network.received_bytes);
            counters.sent = counters.sent.saturating_add(network.sent_bytes);
        }
        counters
    }

    /// None if no time has passed between them, by the guest's own account.
    fn since(&self, previous: &Self) -> Option<Rates> {
        let time = self.uptime?.checked_sub(previous.uptime?)?.as_secs_f64();
        if time <= 0.0 {
            return None;
        }
        #[allow(clippy::cast_precision_loss)] // For people: three digits are shown.
        // A device that has gone takes its count with it: no rate is below zero.
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / time;
        let cpu = self.cpu_all - previous.cpu_all;
        Some(Rates {
            busy_percent: (cpu > 0.0).then(|| (self.cpu_busy - previous.cpu_busy) * 100.0 / cpu),
            read: rate(self.read, previous.read),
            written: rate(self.written, previous.written),
            received: rate(self.received, previous.received),
            sent: rate(self.sent, previous.sent),
        })
    }
}

fn all_time(times: &CpuTimes) -> f64 {
    times.user
        + times.nice
        + times.system
        + times.idle
        + times.iowait
        + times.irq
        + times.softirq
        + times.steal
}

/// Not a partition of another one (`vda1` of `vda`, `nvme0n1p1` of `nvme0n1`) and not made of others.
fn is_whole_disk(disk: &DiskMetrics, all: &[DiskMetrics]) -> bool {
    if NOT_DISKS.iter().any(|prefix| disk.name.starts_with(prefix)) {
        return false;
    }
    let stem = disk.name.trim_end_matches(|c: char| c.is_ascii_digit());
    if stem.len() == disk.name.len() {
        return true;
    }
    let parents = [Some(stem), stem.strip_suffix('p')];
    !all.iter()
        .any(|other| parents.contains(&Some(other.name.as_str())))
}

#[cfg(test)]
mod tests {
    use vbridge_api::guest::v1::{CpuMetrics, MemoryMetrics, NetworkMetrics};

    use super::*;

    fn disk(name: &str, read_bytes: u64) -> DiskMetrics {
        DiskMetrics {
            name: name.into(),
            read_bytes,
            ..DiskMetrics::default()
        }
    }

    fn sample(second: i64) -> MetricsSample {
        let bytes = u64::try_from(second).unwrap() << 20;
        MetricsSample {
            time: Some(prost_types::Timestamp {
                seconds: 1_700_000_000 + second,
                nanos: 0,
            }),
            uptime: Some(prost_types::Duration {
                seconds: 100 + second,
                nanos: 0,
            }),
            cpu: Some(CpuMetrics {
                load_one: 0.5,
                ..CpuMetrics::default()
            }),
            memory: Some(MemoryMetrics {
                total_bytes: 480 << 20,
                available_bytes: 300 << 20,
                ..MemoryMetrics::default()
            }),
            disks: vec![disk("vda", bytes), disk("vda1", bytes)],
            networks: vec![NetworkMetrics {
                name: "lo".into(),
                received_bytes: bytes,
                ..NetworkMetrics::default()
            }],
            ..MetricsSample::default()
        }
    }

    #[test]
    fn lines_show_rates_since_the_line_before_and_a_header_first() {
        let mut lines = Lines::new(&[Group::Cpu, Group::Memory, Group::Disk, Group::Network]);
        let first = lines.next(&sample(0), 0);
        let (header, first) = first.split_once('\n').unwrap();
        assert!(
            header.starts_with("TIME") && header.contains("MEM USED"),
            "{header}"
        );
        assert!(
            first.starts_with("22:13:20") && first.ends_with('-'),
            "{first}"
        );
        let second = lines.next(&sample(2), 3);
        assert_eq!(header.len(), first.len());
        assert!(
            second.contains("180 MiB    480 MiB    1.0 MiB        0 B"),
            "{second}"
        );
        assert!(second.ends_with("(3 lost before)"), "{second}");
    }

    #[test]
    fn a_guest_whose_clock_stands_still_or_goes_back_shows_no_rates() {
        let mut lines = Lines::new(&[Group::Disk]);
        lines.next(&sample(5), 0);
        assert!(lines.next(&sample(5), 0).ends_with('-'));
        assert!(lines.next(&sample(1), 0).ends_with('-'));
    }

    #[test]
    fn partitions_and_disks_that_are_made_of_others_are_not_counted_twice() {
        let names = [
            "vda",
            "vda1",
            "nvme0n1",
            "nvme0n1p1",
            "dm-0",
            "loop0",
            "sdb1",
            "mmcblk0",
        ];
        let disks = names.map(|name| disk(name, 1));
        let whole = disks.iter().filter(|one| is_whole_disk(one, &disks));
        let whole: Vec<&str> = whole.map(|disk| disk.name.as_str()).collect();
        assert_eq!(whole, ["vda", "nvme0n1", "sdb1", "mmcblk0"]);
    }

    #[test]
    fn the_header_comes_again() {
        let mut lines = Lines::new(&[Group::Processes]);
        let headers =
            (0..=LINES_PER_HEADER).filter(|_| lines.next(&sample(0), 0).contains("TASKS"));
        assert_eq!(headers.count(), 2);
    }
}
