//! `vbridge ping`: signs of life, and how long they take.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::{
    signal,
    time::{Instant, MissedTickBehavior, interval},
};
use tonic::Status;
use vbridge_api::guest::v1::{PingRequest, PingResponse, system_client::SystemClient};

use super::{
    client::{Client, GuestOptions, Twice, Wire},
    duration,
    failure::{Failure, is_final},
    output::{Output, print, print_compact},
    units::milliseconds,
};

/// The most that a guest takes in one ping, by the contract of `System.Ping`.
const MAX_SIZE: u32 = 65_536;

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    guest: GuestOptions,
    /// How many pings to send; 0 goes on until Ctrl-C
    #[arg(long, short = 'c', value_name = "N", default_value_t = 4)]
    count: u64,
    /// Time from one ping to the next
    #[arg(long, short = 'i', value_name = "TIME", default_value = "1s", value_parser = duration)]
    interval: Duration,
    /// Bytes that each ping carries there and back, at most 65536
    #[arg(long, short = 's', value_name = "BYTES", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_SIZE)))]
    size: u32,
}

/// Pings; an answer that is missing makes the exit status 1.
pub(super) async fn run(options: &Options) -> Result<(), Failure> {
    let client = Client::guest(&options.guest).await?;
    let mut statistics = Statistics::default();
    // Ctrl-C ends it with statistics, as with ping(8).
    let ended = tokio::select! {
        ended = ping(options, &client, &mut statistics) => ended,
        _ = signal::ctrl_c() => {
            statistics.interrupt(options.interval);
            Ok(())
        }
    };
    match ended {
        Err(failure @ Failure::NobodyReads) => return Err(failure),
        // Nothing to make statistics of.
        Err(failure) if statistics.sent <= 1 => return Err(failure),
        Err(failure) => {
            if let Some(sentence) = failure.sentence() {
                super::say(sentence);
            }
        }
        Ok(()) => {}
    }
    match options.guest.client.output {
        Output::Table => print(statistics.table(client.name()))?,
        Output::Json => print_compact(&statistics.json(client.name()))?,
    }
    if statistics.sent > 0 && statistics.sent == statistics.received() {
        Ok(())
    } else {
        Err(Failure::Told)
    }
}

async fn ping(
    options: &Options,
    client: &Client,
    statistics: &mut Statistics,
) -> Result<(), Failure> {
    let size = usize::try_from(options.size).unwrap_or(usize::MAX);
    let mut system = SystemClient::new(client.channel());
    let mut ticks = interval(options.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while options.count == 0 || statistics.sent < options.count {
        ticks.tick().await;
        statistics.sent += 1;
        let sequence = statistics.sent;
        let payload = payload(size, sequence);
        // Only the first is tried again: it shows whether the guest is there. Of the others it is a result that they are lost.
        let answer = match sequence {
            1 => {
                let first = async || one(&mut system, client, &payload, statistics).await;
                client.again(Twice::Harmless, first).await
            }
            _ => one(&mut system, client, &payload, statistics).await,
        };
        let time = statistics.time();
        let answer = answer.map_err(|status| Miss {
            sentence: client.sentence(&status),
            is_final: is_final(status.code()),
        });
        let answer = answer.and_then(|answer| match answer.payload == payload {
            true => Ok(()),
            false => Err(Miss::of(
                "the answer carries other bytes than the ping did".into(),
            )),
        });
        match answer {
            Ok(()) => {
                statistics.times.push(time);
                match options.guest.client.output {
                    Output::Table => print(format_args!(
                        "{size} bytes from {}: seq={sequence} time={}",
                        client.name(),
                        milliseconds(time)
                    ))?,
                    Output::Json => print_compact(&json!({
                        "guest": client.name(),
                        "sequence": sequence,
                        "payload_bytes": size,
                        "seconds": time.as_secs_f64(),
                    }))?,
                }
            }
            Err(miss) if miss.is_final => return Err(Failure::new(miss.sentence)),
            Err(miss) => {
                super::say(&format!("ping {sequence}: {}", miss.sentence));
                if options.guest.client.output == Output::Json {
                    print_compact(&json!({
                        "guest": client.name(),
                        "sequence": sequence,
                        "error": miss.sentence,
                    }))?;
                }
            }
        }
    }
    Ok(())
}

/// A ping without its answer.
struct Miss {
    sentence: String,
    /// Another ping would fare the same.
    is_final: bool,
}

impl Miss {
    fn of(sentence: String) -> Self {
        Self {
            sentence,
            is_final: false,
        }
    }
}

/// One ping, whose time begins now.
async fn one(
    system: &mut SystemClient<Wire>,
    client: &Client,
    payload: &[u8],
    statistics: &mut Statistics,
) -> Result<PingResponse, Status> {
    let request = client.request_in_time(PingRequest {
        payload: payload.to_vec(),
    });
    statistics.under_way = Some(Instant::now());
    client.in_time(system.ping(request)).await
}

/// Bytes of every value, other ones in every ping: an answer to another ping is noticed.
fn payload(size: usize, sequence: u64) -> Vec<u8> {
    let bytes = (0..=u8::MAX).cycle();
    let offset = usize::from(sequence.to_le_bytes()[0]);
    bytes.skip(offset).take(size).collect()
}

/// What ping(8) shows at its end.
#[derive(Debug, Default)]
struct Statistics {
    sent: u64,
    under_way: Option<Instant>,
    times: Times,
}

impl Statistics {
    fn received(&self) -> u64 {
        self.times.count
    }

    /// How long the last ping was under way, which it is no longer.
    fn time(&mut self) -> Duration {
        let begin = self.under_way.take();
        begin.map(|begin| begin.elapsed()).unwrap_or_default()
    }

    /// A ping that was under way for less than `patience` does not count: it may well have been answered.
    fn interrupt(&mut self, patience: Duration) {
        if self
            .under_way
            .take()
            .is_some_and(|begin| begin.elapsed() < patience)
        {
            self.sent -= 1;
        }
    }

    fn table(&self, name: &str) -> String {
        let (sent, received) = (self.sent, self.received());
        let lost = super::units::share(sent - received, sent);
        let mut text = format!("{name}: {sent} sent, {received} answered, {lost} lost");
        if let Some((min, average, max)) = self.times.summary() {
            text.push_str(&format!(
                "\nmin {}, avg {}, max {}",
                milliseconds(min),
                milliseconds(average),
                milliseconds(max)
            ));
        }
        text
    }

    fn json(&self, name: &str) -> serde_json::Value {
        let summary = self.times.summary();
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
        json!({
            "guest": name,
            "statistics": {
                "sent": self.sent,
                "received": self.received(),
                "min_seconds": seconds(summary.map(|(min, _, _)| min)),
                "avg_seconds": seconds(summary.map(|(_, average, _)| average)),
                "max_seconds": seconds(summary.map(|(_, _, max)| max)),
            },
        })
    }
}

/// Times summed up as they come: a ping may go on for weeks.
#[derive(Debug, Default)]
struct Times {
    count: u64,
    min: Duration,
    max: Duration,
    sum: Duration,
}

impl Times {
    fn push(&mut self, time: Duration) {
        self.min = if self.count == 0 {
            time
        } else {
            self.min.min(time)
        };
        self.max = self.max.max(time);
        self.sum = self.sum.saturating_add(time);
        self.count += 1;
    }

    fn summary(&self) -> Option<(Duration, Duration, Duration)> {
        if self.count == 0 {
            return None;
        }
        #[allow(clippy::cast_precision_loss)] // For people: five digits are shown.
        let average = self.sum.div_f64(self.count as f64);
        Some((self.min, average, self.max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_tell_least_mean_and_most_and_what_was_lost() {
        let mut statistics = Statistics {
            sent: 4,
            ..Statistics::default()
        };
        for ms in [2, 1, 3] {
            statistics.times.push(Duration::from_millis(ms));
        }
        let text = "web: 4 sent, 3 answered, 25.0 % lost\nmin 1.00 ms, avg 2.00 ms, max 3.00 ms";
        assert_eq!(statistics.table("web"), text);
        let json = statistics.json("web");
        assert_eq!(json["statistics"]["received"], 3);
        assert_eq!(json["statistics"]["avg_seconds"], 0.002);
    }

    #[test]
    fn statistics_of_nothing_divide_by_nothing() {
        let statistics = Statistics {
            sent: 1,
            ..Statistics::default()
        };
        assert_eq!(
            statistics.table("web"),
            "web: 1 sent, 0 answered, 100.0 % lost"
        );
        assert!(statistics.json("web")["statistics"]["min_seconds"].is_null());
    }

    #[test]
    fn a_ping_that_ctrl_c_cuts_off_at_once_is_not_lost_but_one_that_hangs_is() {
        for (patience, sent) in [(Duration::from_secs(3600), 0), (Duration::ZERO, 1)] {
            let under_way = Some(Instant::now());
            let mut statistics = Statistics {
                sent: 1,
                under_way,
                ..Statistics::default()
            };
            statistics.interrupt(patience);
            assert_eq!(statistics.sent, sent);
        }
    }

    #[test]
    fn every_ping_carries_other_bytes() {
        assert_eq!(payload(3, 1), [1, 2, 3]);
        assert_ne!(payload(64, 1), payload(64, 2));
        assert_eq!(payload(70_000, 0).len(), 70_000);
    }
}
