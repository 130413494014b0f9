//! Everything that is measured, as text.

use std::{fmt, sync::Arc};

use futures_util::future::join_all;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet, text::encode},
    metrics::MetricType,
    registry::Registry,
};
use vbridge_api::{
    guest::v1::{CpuTimes, DiskMetrics, MetricsSample, NetworkMetrics, Pressure, Stall},
    host::v1::{Guest as GuestMessage, GuestState},
};

use super::Calls;
use crate::{
    guest::Guest,
    guests::Guests,
    limits::{MAX_LABEL, MAX_SERIES_CPUS, MAX_SERIES_DEVICES, SAMPLES_AT_ONCE},
};

/// Where it is.
pub(crate) const PATH: &str = "/metrics";

/// What it is: every Prometheus since 2.5 reads it.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Makes the text.
#[derive(Clone)]
pub(crate) struct Exporter {
    guests: Guests,
    calls: Calls,
}

impl Exporter {
    pub(crate) fn new(guests: Guests, calls: Calls) -> Self {
        Self { guests, calls }
    }

    /// Asks the guests that somebody sees, and writes what they and the bridge have measured.
    pub(crate) async fn scrape(&self, sees: impl Fn(&str) -> bool) -> Result<String, fmt::Error> {
        let mut guests = self.guests.all();
        guests.retain(|guest| sees(guest.name()));
        let mut scraped = Vec::with_capacity(guests.len());
        for some in guests.chunks(SAMPLES_AT_ONCE) {
            scraped.extend(join_all(some.iter().cloned().map(Scraped::new)).await);
        }
        let mut registry = Registry::default();
        self.calls.register(&mut registry);
        registry.register_collector(Box::new(Scrape(scraped)));
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

/// A guest as it was when it was asked.
#[derive(Debug)]
struct Scraped {
    state: GuestMessage,
    codes: Vec<(&'static str, u64)>,
    ends: Vec<(&'static str, u64)>,
    sample: Option<Arc<MetricsSample>>,
}

impl Scraped {
    async fn new(guest: Arc<Guest>) -> Self {
        let state = guest.message();
        let sample = match state.state() {
            GuestState::Ready => guest.sample.sample(&guest).await,
            _ => None,
        };
        Self {
            state,
            codes: guest.codes.counts(),
            ends: guest.ends(),
            sample,
        }
    }

    fn label(&self) -> (&'static str, String) {
        ("guest", label(&self.state.name))
    }
}

/// All of them.
#[derive(Debug)]
struct Scrape(Vec<Scraped>);

/// A metric of which each thing has one value: name, help, type, value.
type Metric<T> = (
    &'static str,
    &'static str,
    MetricType,
    fn(&T) -> Option<f64>,
);

use MetricType::{Counter, Gauge};

/// What the bridge knows of each guest.
const BRIDGE: [Metric<Scraped>; 8] = [
    (
        "vbridge_guest_up",
        "Whether calls go through to the guest",
        Gauge,
        |it| Some(f64::from(u8::from(it.state.state() == GuestState::Ready))),
    ),
    (
        "vbridge_guest_scrape_success",
        "Whether the guest has told its metrics",
        Gauge,
        |it| Some(f64::from(u8::from(it.sample.is_some()))),
    ),
    (
        "vbridge_guest_sessions",
        "Sessions that were opened",
        Counter,
        |it| count(it.state.sessions),
    ),
    (
        "vbridge_guest_active_calls",
        "Calls under way",
        Gauge,
        |it| Some(it.state.active_calls.into()),
    ),
    (
        "vbridge_guest_sent_bytes",
        "Bytes sent to the guest's channel",
        Counter,
        |it| count(it.state.sent_bytes),
    ),
    (
        "vbridge_guest_received_bytes",
        "Bytes received from the guest's channel",
        Counter,
        |it| count(it.state.received_bytes),
    ),
    (
        "vbridge_guest_round_trip_seconds",
        "The last round trip that was measured on the link",
        Gauge,
        |it| {
            let round_trip = it.state.round_trip.as_ref()?;
            Some(seconds(round_trip.seconds, round_trip.nanos))
        },
    ),
    (
        "vbridge_guest_state_seconds",
        "When the guest has entered its state, since 1970",
        Gauge,
        |it| {
            let since = it.state.since.as_ref()?;
            Some(seconds(since.seconds, since.nanos))
        },
    ),
];

/// What a guest knows of itself, under the node exporter's names.
const NODE: [Metric<MetricsSample>; 24] = [
    (
        "node_time_seconds",
        "The guest's clock, since 1970",
        Gauge,
        |it| {
            let time = it.time.as_ref()?;
            Some(seconds(time.seconds, time.nanos))
        },
    ),
    (
        "node_boot_time_seconds",
        "When the guest has booted, since 1970",
        Gauge,
        |it| {
            let (time, uptime) = (it.time.as_ref()?, it.uptime.as_ref()?);
            Some(seconds(time.seconds, time.nanos) - seconds(uptime.seconds, uptime.nanos))
        },
    ),
    (
        "node_load1",
        "Runnable tasks, over one minute",
        Gauge,
        |it| Some(it.cpu.as_ref()?.load_one),
    ),
    (
        "node_load5",
        "Runnable tasks, over five minutes",
        Gauge,
        |it| Some(it.cpu.as_ref()?.load_five),
    ),
    (
        "node_load15",
        "Runnable tasks, over fifteen minutes",
        Gauge,
        |it| Some(it.cpu.as_ref()?.load_fifteen),
    ),
    ("node_context_switches", "Context switches", Counter, |it| {
        count(it.cpu.as_ref()?.context_switches)
    }),
    (
        "node_memory_MemTotal_bytes",
        "What the kernel manages",
        Gauge,
        |it| count(it.memory.as_ref()?.total_bytes),
    ),
    (
        "node_memory_MemFree_bytes",
        "Not used at all",
        Gauge,
        |it| count(it.memory.as_ref()?.free_bytes),
    ),
    (
        "node_memory_MemAvailable_bytes",
        "What programs can get without swapping",
        Gauge,
        |it| count(it.memory.as_ref()?.available_bytes),
    ),
    (
        "node_memory_Buffers_bytes",
        "Block device buffers",
        Gauge,
        |it| count(it.memory.as_ref()?.buffers_bytes),
    ),
    ("node_memory_Cached_bytes", "Page cache", Gauge, |it| {
        count(it.memory.as_ref()?.cached_bytes)
    }),
    (
        "node_memory_Dirty_bytes",
        "Waiting to be written",
        Gauge,
        |it| count(it.memory.as_ref()?.dirty_bytes),
    ),
    ("node_memory_SwapTotal_bytes", "Swap space", Gauge, |it| {
        count(it.memory.as_ref()?.swap_total_bytes)
    }),
    (
        "node_memory_SwapFree_bytes",
        "Swap space not in use",
        Gauge,
        |it| count(it.memory.as_ref()?.swap_free_bytes),
    ),
    (
        "node_procs_running",
        "Tasks that run or could",
        Gauge,
        |it| count(it.processes.as_ref()?.running),
    ),
    (
        "node_procs_blocked",
        "Tasks that wait for a disk",
        Gauge,
        |it| count(it.processes.as_ref()?.blocked),
    ),
    ("node_processes_threads", "Tasks that exist", Gauge, |it| {
        count(it.processes.as_ref()?.tasks)
    }),
    (
        "node_forks",
        "Processes and threads started",
        Counter,
        |it| count(it.processes.as_ref()?.started),
    ),
    (
        "node_pressure_cpu_waiting_seconds",
        "Time in which a task waited for a CPU",
        Counter,
        |it| stalled(some(it.pressure.as_ref()?.cpu.as_ref())),
    ),
    (
        "node_pressure_memory_waiting_seconds",
        "Time in which a task waited for memory",
        Counter,
        |it| stalled(some(it.pressure.as_ref()?.memory.as_ref())),
    ),
    (
        "node_pressure_memory_stalled_seconds",
        "Time in which all tasks waited for memory",
        Counter,
        |it| stalled(full(it.pressure.as_ref()?.memory.as_ref())),
    ),
    (
        "node_pressure_io_waiting_seconds",
        "Time in which a task waited for disks",
        Counter,
        |it| stalled(some(it.pressure.as_ref()?.io.as_ref())),
    ),
    (
        "node_pressure_io_stalled_seconds",
        "Time in which all tasks waited for disks",
        Counter,
        |it| stalled(full(it.pressure.as_ref()?.io.as_ref())),
    ),
    ("node_cpus_online", "CPUs that are online", Gauge, |it| {
        count(it.cpu.as_ref()?.cpus.len() as u64)
    }),
];

const DISK: [Metric<DiskMetrics>; 6] = [
    (
        "node_disk_reads_completed",
        "Reads that completed",
        Counter,
        |it| count(it.reads),
    ),
    ("node_disk_read_bytes", "Bytes read", Counter, |it| {
        count(it.read_bytes)
    }),
    (
        "node_disk_writes_completed",
        "Writes that completed",
        Counter,
        |it| count(it.writes),
    ),
    ("node_disk_written_bytes", "Bytes written", Counter, |it| {
        count(it.written_bytes)
    }),
    (
        "node_disk_io_time_seconds",
        "Time with requests under way",
        Counter,
        |it| Some(it.busy_seconds),
    ),
    ("node_disk_io_now", "Requests under way", Gauge, |it| {
        count(it.in_flight)
    }),
];

const NETWORK: [Metric<NetworkMetrics>; 8] = [
    (
        "node_network_receive_bytes",
        "Bytes received",
        Counter,
        |it| count(it.received_bytes),
    ),
    (
        "node_network_receive_packets",
        "Packets received",
        Counter,
        |it| count(it.received_packets),
    ),
    (
        "node_network_receive_errs",
        "Receive errors",
        Counter,
        |it| count(it.received_errors),
    ),
    (
        "node_network_receive_drop",
        "Received packets that were dropped",
        Counter,
        |it| count(it.received_dropped),
    ),
    ("node_network_transmit_bytes", "Bytes sent", Counter, |it| {
        count(it.sent_bytes)
    }),
    (
        "node_network_transmit_packets",
        "Packets sent",
        Counter,
        |it| count(it.sent_packets),
    ),
    ("node_network_transmit_errs", "Send errors", Counter, |it| {
        count(it.sent_errors)
    }),
    (
        "node_network_transmit_drop",
        "Packets dropped before they were sent",
        Counter,
        |it| count(it.sent_dropped),
    ),
];

/// A mode of a CPU's time.
type Mode = (&'static str, fn(&CpuTimes) -> f64);

const MODES: [Mode; 8] = [
    ("user", |it| it.user),
    ("nice", |it| it.nice),
    ("system", |it| it.system),
    ("idle", |it| it.idle),
    ("iowait", |it| it.iowait),
    ("irq", |it| it.irq),
    ("softirq", |it| it.softirq),
    ("steal", |it| it.steal),
];

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let build = [("version", env!("CARGO_PKG_VERSION").to_owned())];
        let build = std::iter::once((build, 1.0));
        family(
            &mut encoder,
            ("vbridge_build_info", "The bridge", Gauge),
            build,
        )?;
        for (name, help, kind, value) in BRIDGE {
            let values = self.0.iter().map(|it| ([it.label()], value(it)));
            let values = values.filter_map(|(labels, value)| Some((labels, value?)));
            family(&mut encoder, (name, help, kind), values)?;
        }
        let states = self.0.iter().map(|it| {
            let state = it.state.state().as_str_name();
            let state = state.trim_start_matches("GUEST_STATE_").to_lowercase();
            ([it.label(), ("state", state)], 1.0)
        });
        let about = (
            "vbridge_guest_state",
            "The guest's state, which is a label",
            Gauge,
        );
        family(&mut encoder, about, states)?;
        let about = (
            "vbridge_calls",
            "Calls to the guest that have ended",
            Counter,
        );
        self.counted(&mut encoder, about, "code", |it| &it.codes)?;
        let about = (
            "vbridge_guest_session_ends",
            "Sessions that have ended, by cause",
            Counter,
        );
        self.counted(&mut encoder, about, "cause", |it| &it.ends)?;
        self.samples(&mut encoder)
    }
}

impl Scrape {
    /// What is counted for each guest under several names, which are few and fixed.
    fn counted(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        about: (&'static str, &'static str, MetricType),
        name: &'static str,
        counts: impl Fn(&Scraped) -> &[(&'static str, u64)],
    ) -> Result<(), fmt::Error> {
        let values = self.0.iter().flat_map(|it| {
            let label = it.label();
            let counts = counts(it).iter();
            counts.map(move |(value, count)| {
                let labels = [label.clone(), (name, (*value).to_owned())];
                (labels, *count as f64)
            })
        });
        family(encoder, about, values)
    }

    /// What the guests have told.
    fn samples(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let told = || {
            let all = self.0.iter();
            all.filter_map(|it| Some((it.label(), it.sample.as_deref()?)))
        };
        for (name, help, kind, value) in NODE {
            let values = told().filter_map(|(guest, sample)| Some(([guest], value(sample)?)));
            family(encoder, (name, help, kind), values)?;
        }
        let times = told().flat_map(|(guest, sample)| {
            let cpus = sample.cpu.as_ref().map_or(&[][..], |cpu| &cpu.cpus);
            let cpus = cpus.iter().take(MAX_SERIES_CPUS);
            cpus.flat_map(move |cpu| {
                let name = label(cpu.name.trim_start_matches("cpu"));
                let labels = [guest.clone(), ("cpu", name)];
                MODES.map(|(mode, time)| {
                    let [guest, name] = labels.clone();
                    ([guest, name, ("mode", mode.to_owned())], time(cpu))
                })
            })
        });
        let about = ("node_cpu_seconds", "CPU time by mode", Counter);
        family(encoder, about, times)?;
        for (name, help, kind, value) in DISK {
            let values = told().flat_map(|(guest, sample)| {
                let disks = sample.disks.iter().take(MAX_SERIES_DEVICES);
                disks.filter_map(move |disk| {
                    let labels = [guest.clone(), ("device", label(&disk.name))];
                    Some((labels, value(disk)?))
                })
            });
            family(encoder, (name, help, kind), values)?;
        }
        for (name, help, kind, value) in NETWORK {
            let values = told().flat_map(|(guest, sample)| {
                let networks = sample.networks.iter().take(MAX_SERIES_DEVICES);
                networks.filter_map(move |network| {
                    let labels = [guest.clone(), ("device", label(&network.name))];
                    Some((labels, value(network)?))
                })
            });
            family(encoder, (name, help, kind), values)?;
        }
        Ok(())
    }
}

/// One name with its help and type, and all values that there are.
fn family<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, kind): (&'static str, &'static str, MetricType),
    values: impl Iterator<Item = (L, f64)>,
) -> Result<(), fmt::Error> {
    let mut values = values.peekable();
    if values.peek().is_none() {
        return Ok(());
    }
    let is_counter = matches!(kind, Counter);
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in values {
        let mut metric = family.encode_family(&labels)?;
        match is_counter {
            true => metric.encode_counter::<NoLabelSet, _, f64>(&value, None)?,
            false => metric.encode_gauge(&value)?,
        }
    }
    Ok(())
}

/// A name of a guest's, cut to a length that a label may have. What it is made of is escaped where it is written.
fn label(text: &str) -> String {
    text.chars().take(MAX_LABEL).collect()
}

/// OpenMetrics has floating-point numbers: above 2^53 the last digits go.
fn count(count: u64) -> Option<f64> {
    Some(count as f64)
}

fn seconds(seconds: i64, nanos: i32) -> f64 {
    seconds as f64 + f64::from(nanos) / 1e9
}

fn some(pressure: Option<&Pressure>) -> Option<&Stall> {
    pressure?.some.as_ref()
}

fn full(pressure: Option<&Pressure>) -> Option<&Stall> {
    pressure?.full.as_ref()
}

fn stalled(stall: Option<&Stall>) -> Option<f64> {
    Some(stall?.total_seconds)
}
