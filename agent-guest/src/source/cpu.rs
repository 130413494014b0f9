//! `/proc/stat` and `/proc/loadavg`: CPU time, load, process counts.

use vbridge_api::guest::v1::{CpuTimes, LoadAverage};

use super::number;
use crate::limits::MAX_CPUS;

/// What `/proc/stat` says.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Stat {
    /// All CPUs together.
    pub(crate) total: CpuTimes,
    /// Each online CPU.
    pub(crate) cpus: Vec<CpuTimes>,
    pub(crate) context_switches: u64,
    /// Processes and threads started since boot.
    pub(crate) started: u64,
    pub(crate) running: u64,
    pub(crate) blocked: u64,
}

impl Stat {
    /// Reads the text, whose times are in ticks of which a second has `hz`.
    pub(crate) fn parse(text: &str, hz: u64) -> Self {
        let mut stat = Self::default();
        for line in text.lines() {
            let mut fields = line.split_ascii_whitespace();
            let Some(key) = fields.next() else { continue };
            match key {
                "cpu" => stat.total = cpu_times(key, fields, hz),
                "ctxt" => stat.context_switches = fields.next().map(number).unwrap_or_default(),
                "processes" => stat.started = fields.next().map(number).unwrap_or_default(),
                "procs_running" => stat.running = fields.next().map(number).unwrap_or_default(),
                "procs_blocked" => stat.blocked = fields.next().map(number).unwrap_or_default(),
                _ if key.starts_with("cpu") && stat.cpus.len() < MAX_CPUS => {
                    stat.cpus.push(cpu_times(key, fields, hz));
                }
                _ => {}
            }
        }
        stat
    }
}

fn cpu_times<'a>(name: &str, fields: impl Iterator<Item = &'a str>, hz: u64) -> CpuTimes {
    // Older kernels have fewer columns. Those after `steal` are time of virtual machines, which `user` and `nice` hold
    // already.
    let mut seconds = fields
        .map(|ticks| number::<f64>(ticks) / hz_f64(hz))
        .chain(std::iter::repeat(0.0));
    let mut next = || seconds.next().unwrap_or_default();
    CpuTimes {
        name: name.to_owned(),
        user: next(),
        nice: next(),
        system: next(),
        idle: next(),
        iowait: next(),
        irq: next(),
        softirq: next(),
        steal: next(),
    }
}

fn hz_f64(hz: u64) -> f64 {
    u32::try_from(hz.max(1)).map_or(100.0, f64::from)
}

/// Share of CPU time not spent idle between two readings, 0 to 100; `None` if no time has passed.
pub(crate) fn busy_percent(from: &CpuTimes, to: &CpuTimes) -> Option<f64> {
    let idle = |times: &CpuTimes| times.idle + times.iowait;
    let total = |times: &CpuTimes| {
        idle(times)
            + times.user
            + times.nice
            + times.system
            + times.irq
            + times.softirq
            + times.steal
    };
    let elapsed = total(to) - total(from);
    if elapsed <= 0.0 {
        return None;
    }
    // iowait may go backwards when CPUs come and go.
    let busy = elapsed - (idle(to) - idle(from));
    Some((100.0 * busy / elapsed).clamp(0.0, 100.0))
}

/// Reads `/proc/loadavg`: the averages, and the number of tasks that exist.
pub(crate) fn parse_loadavg(text: &str) -> (LoadAverage, u64) {
    let mut fields = text.split_ascii_whitespace();
    let mut average = || fields.next().map(number).unwrap_or_default();
    let load = LoadAverage {
        one: average(),
        five: average(),
        fifteen: average(),
    };
    let tasks = fields
        .next()
        .and_then(|tasks| tasks.split_once('/'))
        .map(|(_running, all)| number(all))
        .unwrap_or_default();
    (load, tasks)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "\
cpu  10132153 290696 3084719 46828483 16683 0 25195 175628 0 0
cpu0 1393280 32966 572056 13343292 6130 0 17875 23933 0 0
cpu2 1335559 32207 535263 13399285 5437 0 3204 20051 0 0
intr 1462898 0 0 7 1 0
ctxt 115315
btime 1769041911
processes 86031
procs_running 6
procs_blocked 2
softirq 15442892 1 2 3
";

    #[test]
    fn stat_of_a_recent_kernel_is_read() {
        let stat = Stat::parse(STAT, 100);
        assert_eq!(stat.total.name, "cpu");
        assert!((stat.total.user - 101_321.53).abs() < 1e-6);
        assert!((stat.total.steal - 1756.28).abs() < 1e-6);
        let names: Vec<_> = stat.cpus.iter().map(|cpu| cpu.name.as_str()).collect();
        assert_eq!(names, ["cpu0", "cpu2"], "an offline CPU leaves a gap");
        assert_eq!(
            (
                stat.context_switches,
                stat.started,
                stat.running,
                stat.blocked
            ),
            (115_315, 86_031, 6, 2)
        );
    }

    #[test]
    fn stat_of_a_very_old_kernel_lacks_columns() {
        let stat = Stat::parse("cpu 100 0 50 850\ncpu0 100 0 50 850\nfuture thing\n\n", 100);
        assert!((stat.total.idle - 8.5).abs() < 1e-9);
        assert_eq!(stat.total.steal, 0.0);
        assert_eq!(stat.cpus.len(), 1);
    }

    #[test]
    fn no_more_cpus_are_kept_than_promised() {
        let text: String = (0..5000).map(|cpu| format!("cpu{cpu} 1 1 1 1\n")).collect();
        assert_eq!(Stat::parse(&text, 100).cpus.len(), MAX_CPUS);
    }

    #[test]
    fn busy_is_what_is_not_idle() {
        let from = Stat::parse("cpu 100 0 100 800 0 0 0 0", 100).total;
        let to = Stat::parse("cpu 150 0 110 830 5 0 0 5", 100).total;
        assert!((busy_percent(&from, &to).unwrap() - 65.0).abs() < 1e-9);
        assert_eq!(busy_percent(&to, &to), None);
        assert_eq!(
            busy_percent(&to, &from),
            None,
            "time does not run backwards"
        );
    }

    #[test]
    fn loadavg_is_read() {
        let (load, tasks) = parse_loadavg("0.20 0.18 12.50 1/80 11206\n");
        assert_eq!(
            (load.one, load.five, load.fifteen, tasks),
            (0.2, 0.18, 12.5, 80)
        );
        assert_eq!(parse_loadavg("nonsense"), (LoadAverage::default(), 0));
    }
}
