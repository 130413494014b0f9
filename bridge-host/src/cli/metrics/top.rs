//! `vbridge top`: how a guest does, drawn anew in the same place.

use std::time::Duration;

use clap::Args;
use rustix::{stdio::stdout, termios::isatty};
use vbridge_api::guest::v1::{
    CpuTimes, DiskMetrics, MetricsSample, MetricsWatchRequest, NetworkMetrics, Pressure,
    metrics_client::MetricsClient,
};

use super::screen::{Heard, Screen, Signals};
use crate::cli::{
    client::{Client, GuestOptions},
    duration,
    failure::Failure,
    output::{Output, listing, printable},
    units::{self, bytes, bytes_of, clock, long_time, percent},
};

/// Characters of a bar.
const BAR: usize = 30;

/// CPUs that have a line of their own; of more, only their mean is shown.
const CPUS: usize = 8;

#[derive(Debug, Args)]
pub(in crate::cli) struct TopOptions {
    #[command(flatten)]
    guest: GuestOptions,
    /// Time from one picture to the next: 100ms to 1h
    #[arg(long, short = 'i', value_name = "TIME", default_value = "2s", value_parser = duration)]
    interval: Duration,
}

/// Draws until Ctrl-C.
pub(in crate::cli) async fn top(options: &TopOptions) -> Result<(), Failure> {
    if options.guest.client.output == Output::Json || !isatty(stdout()) {
        return Err(Failure::new(
            "top draws on a terminal; for programs there is `vbridge metrics --watch --output json`",
        ));
    }
    let client = Client::guest(&options.guest).await?;
    let mut metrics = MetricsClient::new(client.channel());
    let interval = prost_types::Duration::try_from(options.interval)
        .map_err(|_| Failure::new("the interval is too long; give at most 1h"))?;
    let wanted = MetricsWatchRequest {
        groups: Vec::new(),
        interval: Some(interval),
    };
    let watched = client.watch(wanted, async |request| metrics.watch(request).await);
    let mut samples = watched.await?;
    let mut signals = Signals::new()?;
    let screen = Screen::enter()?;
    let mut previous = None;
    let mut drawn = String::new();
    loop {
        let next = tokio::select! {
            next = client.next(&mut samples, Some(options.interval)) => next?,
            heard = signals.next() => match heard {
                Heard::Resized => {
                    screen.draw(&drawn)?;
                    continue;
                }
                Heard::Interrupted => return Ok(()),
                Heard::Ended(status) => return Err(Failure::Status(status)),
            },
        };
        let Some(message) = next else {
            return Err(Failure::new(format!(
                "guest \"{}\" has ended the stream of metrics; its agent may be stopping",
                client.name()
            )));
        };
        let sample = message.sample.unwrap_or_default();
        drawn = picture(client.name(), &sample, previous.as_ref());
        screen.draw(&drawn)?;
        previous = Some(sample);
    }
}

/// What is drawn: counters as rates since the sample before.
fn picture(name: &str, sample: &MetricsSample, previous: Option<&MetricsSample>) -> String {
    let uptime = |sample: &MetricsSample| units::duration(sample.uptime.as_ref());
    let elapsed = previous
        .and_then(uptime)
        .zip(uptime(sample))
        .and_then(|(before, now)| now.checked_sub(before))
        .map(|elapsed| elapsed.as_secs_f64())
        .filter(|elapsed| *elapsed > 0.0);
    let mut parts = vec![head(name, sample), cpu(sample, previous), memory(sample)];
    parts.push(disks(sample, previous, elapsed));
    parts.push(networks(sample, previous, elapsed));
    parts.retain(|part| !part.is_empty());
    parts.join("\n\n")
}

fn head(name: &str, sample: &MetricsSample) -> String {
    let mut line = format!("{}  {}", printable(name), clock(sample.time.as_ref()));
    if let Some(uptime) = units::duration(sample.uptime.as_ref()) {
        line.push_str(&format!("  up {}", long_time(uptime)));
    }
    if let Some(cpu) = &sample.cpu {
        let load = (cpu.load_one, cpu.load_five, cpu.load_fifteen);
        line.push_str(&format!("  load {:.2} {:.2} {:.2}", load.0, load.1, load.2));
    }
    if let Some(tasks) = &sample.processes {
        line.push_str(&format!(
            "  {} tasks, {} running, {} blocked",
            tasks.tasks, tasks.running, tasks.blocked
        ));
    }
    line
}

fn cpu(sample: &MetricsSample, previous: Option<&MetricsSample>) -> String {
    let Some(cpu) = &sample.cpu else {
        return String::new();
    };
    let before = previous.and_then(|previous| previous.cpu.as_ref());
    let mut lines = Vec::new();
    let total = cpu.total.as_ref();
    if let Some(parts) = total
        .zip(before.and_then(|cpu| cpu.total.as_ref()))
        .and_then(parts)
    {
        lines.push(line("CPU", parts.busy, &parts.words));
    }
    if (2..=CPUS).contains(&cpu.cpus.len()) {
        let each = cpu.cpus.iter().filter_map(|now| {
            let before = before?.cpus.iter().find(|before| before.name == now.name)?;
            let parts = parts((now, before))?;
            Some(line(&printable(&now.name), parts.busy, &parts.words))
        });
        lines.extend(each);
    }
    if let Some(pressure) = &sample.pressure {
        let one = |pressure: &Option<Pressure>| {
            let some = pressure
                .as_ref()
                .and_then(|pressure| pressure.some.as_ref());
            percent(some.map(|stall| stall.avg10_percent).unwrap_or_default())
        };
        lines.push(format!(
            "waiting for  cpu {}  memory {}  disks {}",
            one(&pressure.cpu),
            one(&pressure.memory),
            one(&pressure.io)
        ));
    }
    lines.join("\n")
}

/// What a CPU has done since the sample before, in percent.
struct Parts {
    busy: f64,
    words: String,
}

fn parts((now, before): (&CpuTimes, &CpuTimes)) -> Option<Parts> {
    let user = now.user + now.nice - before.user - before.nice;
    let system = now.system + now.irq + now.softirq - before.system - before.irq - before.softirq;
    let iowait = now.iowait - before.iowait;
    let steal = now.steal - before.steal;
    let idle = now.idle - before.idle;
    let all = user + system + iowait + steal + idle;
    if all <= 0.0 {
        return None;
    }
    let share = |part: f64| percent((part * 100.0 / all).clamp(0.0, 100.0));
    Some(Parts {
        busy: ((user + system + steal) / all).clamp(0.0, 1.0),
        words: format!(
            "user {}, system {}, iowait {}, steal {}",
            share(user),
            share(system),
            share(iowait),
            share(steal)
        ),
    })
}

fn memory(sample: &MetricsSample) -> String {
    let Some(memory) = &sample.memory else {
        return String::new();
    };
    let used = memory.total_bytes.saturating_sub(memory.available_bytes);
    let words = format!(
        "{} of {}, {} cached, {} dirty",
        bytes(used),
        bytes(memory.total_bytes),
        bytes(memory.cached_bytes),
        bytes(memory.dirty_bytes)
    );
    let mut text = line("memory", part(used, memory.total_bytes), &words);
    if memory.swap_total_bytes > 0 {
        let used = memory
            .swap_total_bytes
            .saturating_sub(memory.swap_free_bytes);
        let words = format!("{} of {}", bytes(used), bytes(memory.swap_total_bytes));
        text.push('\n');
        text.push_str(&line("swap", part(used, memory.swap_total_bytes), &words));
    }
    text
}

fn disks(sample: &MetricsSample, previous: Option<&MetricsSample>, elapsed: Option<f64>) -> String {
    let rows = sample.disks.iter().map(|disk| {
        let before = previous.and_then(|it| it.disks.iter().find(|it| it.name == disk.name));
        let rate = |of: fn(&DiskMetrics) -> u64| rate(of(disk), before.map(of), elapsed);
        let busy = before.zip(elapsed).map(|(before, elapsed)| {
            percent(((disk.busy_seconds - before.busy_seconds) * 100.0 / elapsed).clamp(0.0, 100.0))
        });
        vec![
            printable(&disk.name),
            rate(|disk| disk.read_bytes),
            rate(|disk| disk.written_bytes),
            busy.unwrap_or_else(|| "-".to_owned()),
            disk.in_flight.to_string(),
        ]
    });
    table(
        &["DISK", ">READ/s", ">WRITTEN/s", ">BUSY", ">IN FLIGHT"],
        rows,
    )
}

fn networks(
    sample: &MetricsSample,
    previous: Option<&MetricsSample>,
    elapsed: Option<f64>,
) -> String {
    let rows = sample.networks.iter().map(|network| {
        let before = previous.and_then(|it| it.networks.iter().find(|it| it.name == network.name));
        let rate = |of: fn(&NetworkMetrics) -> u64| rate(of(network), before.map(of), elapsed);
        let errors = network.received_errors.saturating_add(network.sent_errors);
        let dropped = network
            .received_dropped
            .saturating_add(network.sent_dropped);
        vec![
            printable(&network.name),
            rate(|network| network.received_bytes),
            rate(|network| network.sent_bytes),
            errors.to_string(),
            dropped.to_string(),
        ]
    });
    table(
        &["NETWORK", ">RECEIVED/s", ">SENT/s", ">ERRORS", ">DROPPED"],
        rows,
    )
}

fn table(header: &[&str], rows: impl ExactSizeIterator<Item = Vec<String>>) -> String {
    match rows.len() {
        0 => String::new(),
        _ => listing(header, rows),
    }
}

#[allow(clippy::cast_precision_loss)] // For people: three digits are shown.
fn rate(now: u64, before: Option<u64>, elapsed: Option<f64>) -> String {
    match before.zip(elapsed) {
        Some((before, elapsed)) => bytes_of(now.saturating_sub(before) as f64 / elapsed),
        None => "-".to_owned(),
    }
}

#[allow(clippy::cast_precision_loss)] // For people: a bar has thirty steps.
fn part(used: u64, whole: u64) -> f64 {
    match whole {
        0 => 0.0,
        whole => used as f64 / whole as f64,
    }
}

/// A name, a bar and words.
fn line(name: &str, part: f64, words: &str) -> String {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss
    )]
    // Between nothing and the whole bar.
    let full = (part.clamp(0.0, 1.0) * BAR as f64).round() as usize;
    let share = percent(part * 100.0);
    format!("{name:<8}[{:<BAR$}] {share:>7}  {words}", "|".repeat(full))
}

#[cfg(test)]
mod tests {
    use vbridge_api::guest::v1::{CpuMetrics, MemoryMetrics};

    use super::*;

    fn sample(seconds: i64, user: f64, idle: f64, sent: u64) -> MetricsSample {
        MetricsSample {
            uptime: Some(prost_types::Duration { seconds, nanos: 0 }),
            cpu: Some(CpuMetrics {
                total: Some(CpuTimes {
                    user,
                    idle,
                    ..CpuTimes::default()
                }),
                ..CpuMetrics::default()
            }),
            memory: Some(MemoryMetrics {
                total_bytes: 400 << 20,
                available_bytes: 300 << 20,
                ..MemoryMetrics::default()
            }),
            networks: vec![NetworkMetrics {
                name: "eth0\u{1b}".into(),
                sent_bytes: sent,
                ..NetworkMetrics::default()
            }],
            ..MetricsSample::default()
        }
    }

    #[test]
    fn a_picture_shows_what_happened_since_the_one_before() {
        let first = sample(10, 1.0, 9.0, 1 << 20);
        let text = picture("web", &first, None);
        assert!(!text.contains("user"), "nothing to compare with: {text}");
        let second = sample(12, 2.0, 10.0, 5 << 20);
        let text = picture("web", &second, Some(&first));
        for words in [
            "web",
            "user 50.0 %",
            "100 MiB of 400 MiB",
            "2.0 MiB",
            "eth0\\u{1b}",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn a_counter_that_went_back_is_no_rate_and_no_panic() {
        let text = picture(
            "web",
            &sample(12, 0.0, 0.0, 0),
            Some(&sample(10, 5.0, 5.0, 9)),
        );
        assert!(text.contains("eth0"), "{text}");
        assert!(picture("", &MetricsSample::default(), None).lines().count() < 3);
    }

    #[test]
    fn a_bar_is_as_full_as_its_share() {
        assert_eq!(line("x", 0.5, "").matches('|').count(), BAR / 2);
        assert_eq!(line("x", 7.0, "").matches('|').count(), BAR);
    }
}
