//! Subscribers of metrics, some of whom never read.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tokio::{task::JoinSet, time::timeout};
use tonic::{Streaming, transport::Channel};
use vbridge_api::guest::v1::{
    MetricsWatchRequest, MetricsWatchResponse, metrics_client::MetricsClient,
};

use crate::place::Place;

/// Later than this after its reading no sample may arrive, beyond what the quickest takes: far more than a busy machine
/// makes of it, and far less than a stalled subscriber's silence.
const LATE: Duration = Duration::from_secs(2);

/// How many subscribe, and how.
#[derive(Debug, Clone, Copy)]
pub struct Watchers {
    /// Who read.
    pub lively: usize,
    /// Who subscribe first and never read.
    pub stuck: usize,
    /// What they all ask for.
    pub interval: Duration,
    /// Samples that each of the lively ones waits for.
    pub samples: u64,
}

/// One sample as it came.
struct Sample {
    sequence: u64,
    dropped: u64,
    /// Of its reading, since the guest's boot.
    uptime: Duration,
    arrival: Instant,
}

impl Watchers {
    /// Subscribes, and checks that every lively one gets every sample in order and on time, and that all samples come from
    /// the readings of one sampler. `stalled` is called while the stuck ones are stuck. Then they read, and have to be told
    /// what they have lost.
    ///
    /// # Errors
    /// Something is not so.
    pub async fn run<F: Future<Output = Result<()>>>(
        self,
        place: &Place,
        stalled: impl FnOnce() -> F,
    ) -> Result<()> {
        // With windows as small as HTTP/2 has them at first, and one connection for all of them.
        let narrow = place.endpoint().initial_stream_window_size(65_535);
        let narrow = narrow.initial_connection_window_size(65_535);
        let narrow = narrow.connect().await?;
        let mut stuck = Vec::new();
        for _ in 0..self.stuck {
            stuck.push(self.subscribe(narrow.clone()).await?);
        }
        let channel = place.channel().await?;
        let mut tasks = JoinSet::new();
        for _ in 0..self.lively {
            let stream = self.subscribe(channel.clone()).await?;
            tasks.spawn(self.samples(stream));
        }
        let mut all = Vec::new();
        while let Some(samples) = tasks.join_next().await {
            let samples = samples??;
            self.check(&samples)?;
            all.extend(samples);
        }
        is_on_time(&all)?;
        self.is_one_sampler(&all)?;
        stalled().await?;
        // All at once: they share the window of one connection, which those would hold that still do not read.
        let mut tasks = JoinSet::new();
        for stream in stuck {
            tasks.spawn(timeout(self.patience(), self.accounts(stream)));
        }
        while let Some(accounted) = tasks.join_next().await {
            accounted?.context("one that was stuck gets nothing")??;
        }
        Ok(())
    }

    /// What all samples may take: twice their time, and some more.
    fn patience(self) -> Duration {
        self.interval.mul_f64(2.0 * self.samples as f64) + Duration::from_secs(30)
    }

    async fn subscribe(self, channel: Channel) -> Result<Streaming<MetricsWatchResponse>> {
        let request = MetricsWatchRequest {
            groups: Vec::new(),
            interval: Some(prost_types::Duration {
                seconds: i64::try_from(self.interval.as_secs())?,
                nanos: i32::try_from(self.interval.subsec_nanos())?,
            }),
        };
        let call = MetricsClient::new(channel).watch(request).await?;
        Ok(call.into_inner())
    }

    fn samples(
        self,
        mut stream: Streaming<MetricsWatchResponse>,
    ) -> impl Future<Output = Result<Vec<Sample>>> {
        let all = async move {
            let mut samples = Vec::new();
            for _ in 0..self.samples {
                let message = stream.message().await?.context("the stream has ended")?;
                samples.push(sample(&message)?);
            }
            Ok(samples)
        };
        async move {
            timeout(self.patience(), all)
                .await
                .context("a lively one waits for ever")?
        }
    }

    /// One subscriber's samples: all of them, in order, at the interval's distance.
    fn check(self, samples: &[Sample]) -> Result<()> {
        for (sample, sequence) in samples.iter().zip(1..) {
            ensure!(
                (sample.sequence, sample.dropped) == (sequence, 0),
                "number {} comes as the {sequence}th, with {} dropped",
                sample.sequence,
                sample.dropped
            );
        }
        // The second joins the ticks of those who were there before.
        for pair in samples.windows(2).skip(1) {
            let [before, after] = pair else { continue };
            let gap = after.uptime.saturating_sub(before.uptime);
            ensure!(
                gap > self.interval / 3 && gap < self.interval * 2,
                "{gap:?} lie between the samples {} and {}",
                before.sequence,
                after.sequence
            );
        }
        let (Some(second), Some(last)) = (samples.get(1), samples.last()) else {
            return Ok(());
        };
        let span = last.uptime.saturating_sub(second.uptime).as_secs_f64();
        let due = self.interval.as_secs_f64() * (self.samples - 2) as f64;
        ensure!(
            (span - due).abs() < self.interval.as_secs_f64(),
            "{span} s lie between the second and the last, and {due} s should"
        );
        Ok(())
    }

    /// All readings behind the samples, however many were told of each, are at the interval's distance. The first sample of
    /// each is taken by the call itself.
    fn is_one_sampler(self, samples: &[Sample]) -> Result<()> {
        let readings: BTreeSet<_> = samples
            .iter()
            .filter(|sample| sample.sequence > 1)
            .map(|sample| sample.uptime)
            .collect();
        let readings: Vec<_> = readings.into_iter().collect();
        for pair in readings.windows(2) {
            let [before, after] = pair else { continue };
            let gap = after.saturating_sub(*before);
            ensure!(
                gap > self.interval / 3,
                "two readings are {gap:?} apart: more than one sampler reads"
            );
        }
        Ok(())
    }

    /// What a stuck one gets in the end, and what it is told to have lost, are together all samples up to there.
    async fn accounts(self, mut stream: Streaming<MetricsWatchResponse>) -> Result<()> {
        let (mut taken, mut dropped) = (0, 0);
        loop {
            let message = stream.message().await?.context("the stream has ended")?;
            let sample = sample(&message)?;
            taken += 1;
            dropped += sample.dropped;
            ensure!(
                sample.sequence == taken + dropped,
                "{taken} samples were taken and {dropped} dropped, and the last is number {}",
                sample.sequence
            );
            if sample.sequence >= self.samples {
                return Ok(());
            }
        }
    }
}

fn sample(message: &MetricsWatchResponse) -> Result<Sample> {
    let sample = message
        .sample
        .as_ref()
        .context("a message without sample")?;
    let uptime = sample.uptime.as_ref().context("a sample without uptime")?;
    Ok(Sample {
        sequence: sample.sequence,
        dropped: message.dropped,
        uptime: Duration::new(uptime.seconds.try_into()?, uptime.nanos.try_into()?),
        arrival: Instant::now(),
    })
}

/// Nobody gets a sample much later after its reading than the quickest gets one.
fn is_on_time(samples: &[Sample]) -> Result<()> {
    let Some(first) = samples.iter().map(|sample| sample.arrival).min() else {
        return Ok(());
    };
    let delay = |sample: &Sample| {
        let arrival = sample.arrival.duration_since(first).as_secs_f64();
        arrival - sample.uptime.as_secs_f64()
    };
    let delays = samples.iter().map(delay);
    let (quickest, slowest) = (
        delays.clone().fold(f64::INFINITY, f64::min),
        delays.fold(f64::NEG_INFINITY, f64::max),
    );
    let late = slowest - quickest;
    ensure!(
        late < LATE.as_secs_f64(),
        "a sample arrives {late} s later than others"
    );
    Ok(())
}
