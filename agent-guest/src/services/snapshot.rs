//! One reading of the kernel's counters, of which each caller gets the groups that it asked for.

use prost_types::{Duration, Timestamp};
use tonic::Status;
use vbridge_api::guest::v1::{
    CpuMetrics, DiskMetrics, LoadAverage, MemoryMetrics, MetricGroup, MetricsSample,
    NetworkMetrics, PressureMetrics, ProcessMetrics,
};

use crate::{
    error,
    source::{Reader, SourceError, clock, cpu, disk, memory, network, pressure},
};

/// A set of metric groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Groups(u8);

impl Groups {
    pub(crate) const CPU: Self = Self(1);
    pub(crate) const MEMORY: Self = Self(1 << 1);
    pub(crate) const DISK: Self = Self(1 << 2);
    pub(crate) const NETWORK: Self = Self(1 << 3);
    pub(crate) const PRESSURE: Self = Self(1 << 4);
    pub(crate) const PROCESSES: Self = Self(1 << 5);
    pub(crate) const ALL: Self = Self((1 << 6) - 1);

    /// The groups that a request names; none means all.
    pub(crate) fn from_request(groups: &[i32]) -> Result<Self, Status> {
        if groups.is_empty() {
            return Ok(Self::ALL);
        }
        groups
            .iter()
            .enumerate()
            .try_fold(Self::default(), |set, (index, &value)| {
                let group = match MetricGroup::try_from(value) {
                    Ok(MetricGroup::Cpu) => Self::CPU,
                    Ok(MetricGroup::Memory) => Self::MEMORY,
                    Ok(MetricGroup::Disk) => Self::DISK,
                    Ok(MetricGroup::Network) => Self::NETWORK,
                    Ok(MetricGroup::Pressure) => Self::PRESSURE,
                    Ok(MetricGroup::Processes) => Self::PROCESSES,
                    Ok(MetricGroup::Unspecified) | Err(_) => {
                        let description = format!(
                            "{value} is not a metric group; leave groups empty for all of them"
                        );
                        return Err(error::invalid_field(
                            format!("groups[{index}]"),
                            description,
                        ));
                    }
                };
                Ok(set.union(group))
            })
    }

    pub(crate) const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// What was read at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Snapshot {
    /// What it holds.
    pub(crate) groups: Groups,
    pub(crate) time: Timestamp,
    pub(crate) uptime: Duration,
    pub(crate) cpu: CpuMetrics,
    pub(crate) memory: MemoryMetrics,
    pub(crate) disks: Vec<DiskMetrics>,
    pub(crate) networks: Vec<NetworkMetrics>,
    pub(crate) pressure: Option<PressureMetrics>,
    pub(crate) processes: ProcessMetrics,
}

impl Snapshot {
    /// The part that belongs to `groups`, as one message.
    pub(crate) fn sample(&self, groups: Groups, sequence: u64) -> MetricsSample {
        MetricsSample {
            time: Some(self.time),
            uptime: Some(self.uptime),
            sequence,
            cpu: groups.contains(Groups::CPU).then(|| self.cpu.clone()),
            memory: groups.contains(Groups::MEMORY).then_some(self.memory),
            disks: if groups.contains(Groups::DISK) {
                self.disks.clone()
            } else {
                Vec::new()
            },
            networks: if groups.contains(Groups::NETWORK) {
                self.networks.clone()
            } else {
                Vec::new()
            },
            pressure: if groups.contains(Groups::PRESSURE) {
                self.pressure
            } else {
                None
            },
            processes: groups.contains(Groups::PROCESSES).then_some(self.processes),
        }
    }
}

/// Where snapshots come from.
pub(crate) trait Source: Send + 'static {
    /// Reads `groups` now.
    fn read(&mut self, groups: Groups) -> Result<Snapshot, SourceError>;
}

/// The kernel, through /proc.
#[derive(Debug)]
pub(crate) struct Proc {
    reader: Reader,
    ticks_per_second: u64,
}

impl Proc {
    pub(crate) fn new(reader: Reader) -> Self {
        Self {
            reader,
            ticks_per_second: rustix::param::clock_ticks_per_second(),
        }
    }

    /// A file that kernels without disks or network lack; without /proc at all it is an error nevertheless.
    fn optional<T: Default>(
        &mut self,
        path: &str,
        parse: impl FnOnce(&str) -> T,
    ) -> Result<T, SourceError> {
        match self.reader.read(path) {
            Ok(text) => Ok(parse(&text)),
            Err(error) if error.is_missing() => {
                self.reader.read("proc/loadavg").map(|_| T::default())
            }
            Err(error) => Err(error),
        }
    }
}

impl Source for Proc {
    fn read(&mut self, groups: Groups) -> Result<Snapshot, SourceError> {
        let mut snapshot = Snapshot {
            groups,
            time: clock::now(),
            uptime: clock::uptime(),
            ..Snapshot::default()
        };
        if groups.intersects(Groups::CPU.union(Groups::PROCESSES)) {
            let stat = cpu::Stat::parse(&self.reader.read("proc/stat")?, self.ticks_per_second);
            let (LoadAverage { one, five, fifteen }, tasks) =
                cpu::parse_loadavg(&self.reader.read("proc/loadavg")?);
            snapshot.cpu = CpuMetrics {
                total: Some(stat.total),
                cpus: stat.cpus,
                busy_percent: None,
                load_one: one,
                load_five: five,
                load_fifteen: fifteen,
                context_switches: stat.context_switches,
            };
            snapshot.processes = ProcessMetrics {
                tasks,
                running: stat.running,
                blocked: stat.blocked,
                started: stat.started,
            };
        }
        if groups.contains(Groups::MEMORY) {
            snapshot.memory = memory::parse(&self.reader.read("proc/meminfo")?);
        }
        if groups.contains(Groups::DISK) {
            snapshot.disks = self.optional("proc/diskstats", disk::parse)?;
        }
        if groups.contains(Groups::NETWORK) {
            snapshot.networks = self.optional("proc/net/dev", network::parse)?;
        }
        if groups.contains(Groups::PRESSURE) {
            snapshot.pressure = pressure::read(&mut self.reader);
        }
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn no_groups_means_all_and_a_wrong_one_is_named() {
        assert_eq!(Groups::from_request(&[]).unwrap(), Groups::ALL);
        assert_eq!(
            Groups::from_request(&[1, 6, 1]).unwrap(),
            Groups::CPU.union(Groups::PROCESSES)
        );
        for wrong in [0, 7, -1] {
            let status = Groups::from_request(&[2, wrong]).unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument);
            assert!(
                status.message().starts_with("groups[1]: "),
                "{}",
                status.message()
            );
        }
    }

    #[test]
    fn this_machine_is_read() {
        let snapshot = Proc::new(Reader::new()).read(Groups::ALL).unwrap();
        let total = snapshot.cpu.total.as_ref().unwrap();
        assert!(total.idle + total.user > 0.0);
        assert!(!snapshot.cpu.cpus.is_empty());
        assert!(snapshot.memory.total_bytes > snapshot.memory.free_bytes);
        assert!(snapshot.processes.tasks > 0);
        assert!(snapshot.networks.iter().any(|network| network.name == "lo"));
    }

    #[test]
    fn a_sample_holds_only_what_was_asked_for() {
        let snapshot = Proc::new(Reader::new()).read(Groups::ALL).unwrap();
        let sample = snapshot.sample(Groups::MEMORY, 7);
        assert_eq!(sample.sequence, 7);
        assert!(sample.memory.is_some());
        assert!(sample.cpu.is_none() && sample.processes.is_none() && sample.pressure.is_none());
        assert!(sample.disks.is_empty() && sample.networks.is_empty());
    }

    #[test]
    fn without_proc_every_group_is_an_error_but_missing_hardware_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut source = Proc::new(Reader::below(dir.path()));
        for group in [Groups::CPU, Groups::MEMORY, Groups::DISK, Groups::NETWORK] {
            assert!(source.read(group).is_err());
        }
        std::fs::create_dir(dir.path().join("proc")).unwrap();
        std::fs::write(dir.path().join("proc/loadavg"), "0.5 0.4 0.3 1/2 3").unwrap();
        let snapshot = source
            .read(Groups::DISK.union(Groups::NETWORK).union(Groups::PRESSURE))
            .unwrap();
        assert!(
            snapshot.disks.is_empty()
                && snapshot.networks.is_empty()
                && snapshot.pressure.is_none()
        );
    }
}
