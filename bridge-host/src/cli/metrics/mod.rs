//! `vbridge metrics`: a guest's counters and gauges, once or as a stream.

mod json;
mod screen;
mod table;
mod top;
mod watch;

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use vbridge_api::guest::v1::{
    MetricGroup, MetricsGetRequest, MetricsSample, MetricsWatchRequest,
    metrics_client::MetricsClient,
};

use super::{
    client::{Client, GuestOptions, Wire},
    duration,
    failure::Failure,
    output::{Output, print, print_compact, print_pretty},
};
pub(super) use top::{TopOptions, top};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    guest: GuestOptions,
    /// Go on and show a sample at every interval
    #[arg(long, short = 'w')]
    watch: bool,
    /// Time from one sample to the next: 100ms to 1h
    #[arg(long, short = 'i', value_name = "TIME", default_value = "1s", value_parser = duration)]
    interval: Duration,
    /// Only these groups, with commas between them [default: all]
    #[arg(long, value_name = "GROUP", value_enum, value_delimiter = ',')]
    groups: Vec<Group>,
    /// End after so many samples
    #[arg(long, short = 'c', value_name = "N", requires = "watch",
          value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

/// A part of the metrics, as the operator names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    Cpu,
    Memory,
    Disk,
    Network,
    Pressure,
    Processes,
}

impl Group {
    const ALL: [Self; 6] = [
        Self::Cpu,
        Self::Memory,
        Self::Disk,
        Self::Network,
        Self::Pressure,
        Self::Processes,
    ];
}

impl From<Group> for MetricGroup {
    fn from(group: Group) -> Self {
        match group {
            Group::Cpu => Self::Cpu,
            Group::Memory => Self::Memory,
            Group::Disk => Self::Disk,
            Group::Network => Self::Network,
            Group::Pressure => Self::Pressure,
            Group::Processes => Self::Processes,
        }
    }
}

/// Shows one sample, or one at every interval until it is ended.
pub(super) async fn run(options: &Options) -> Result<(), Failure> {
    let client = Client::guest(&options.guest).await?;
    let mut metrics = MetricsClient::new(client.channel());
    let groups = options
        .groups
        .iter()
        .map(|group| MetricGroup::from(*group).into())
        .collect();
    if options.watch {
        return watch(options, &client, &mut metrics, groups).await;
    }
    let asked = client.ask(MetricsGetRequest { groups }, async |request| {
        metrics.get(request).await
    });
    let sample = asked.await?.sample.unwrap_or_default();
    match options.guest.client.output {
        Output::Table => print(table::table(&sample)),
        Output::Json => print_pretty(&json::sample(&sample)),
    }
}

async fn watch(
    options: &Options,
    client: &Client,
    metrics: &mut MetricsClient<Wire>,
    groups: Vec<i32>,
) -> Result<(), Failure> {
    let interval = prost_types::Duration::try_from(options.interval)
        .map_err(|_| Failure::new("the interval is too long; give at most 1h"))?;
    let wanted = MetricsWatchRequest {
        groups,
        interval: Some(interval),
    };
    let watched = client.watch(wanted, async |request| metrics.watch(request).await);
    let mut samples = watched.await?;
    let shown = match options.groups.is_empty() {
        true => &Group::ALL[..],
        false => &options.groups,
    };
    let mut lines = watch::Lines::new(shown);
    let mut left = options.count;
    while left != Some(0) {
        let Some(message) = client.next(&mut samples, Some(options.interval)).await? else {
            return Err(Failure::new(format!(
                "guest \"{}\" has ended the stream of metrics; its agent may be stopping",
                client.name()
            )));
        };
        let sample: MetricsSample = message.sample.unwrap_or_default();
        match options.guest.client.output {
            Output::Table => print(lines.next(&sample, message.dropped))?,
            Output::Json => {
                let mut value = json::sample(&sample);
                if let Value::Object(fields) = &mut value {
                    fields.insert("guest".into(), json!(client.name()));
                    fields.insert("dropped".into(), json!(message.dropped));
                }
                print_compact(&value)?;
            }
        }
        left = left.map(|left| left - 1);
    }
    Ok(())
}
