//! The same through everything: client, bridge, link, agent.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use vbridge_tests::{
    content,
    exercise::v1::{
        BulkReadRequest, BulkWriteRequest, UnaryRequest, exercise_client::ExerciseClient,
    },
    place::{self, Place},
};

use crate::report::median;

/// Calls in flight at once.
pub(crate) const PARALLEL: usize = 32;

const CHUNK: u32 = 64 * 1024;
const CALLS: usize = 400;
const RATE_TIME: Duration = Duration::from_secs(2);

pub(crate) struct Client {
    client: ExerciseClient<Channel>,
}

impl Client {
    pub(crate) async fn open(place: &Place) -> Result<Self> {
        let client = place.exercise().await?;
        Ok(Self { client })
    }

    /// On a channel of its own kind.
    pub(crate) fn on(channel: Channel) -> Self {
        let client = place::exercise(channel);
        Self { client }
    }

    /// Bytes a second from the guest.
    pub(crate) async fn read(&self, bytes: u64) -> Result<f64> {
        let request = BulkReadRequest {
            size: bytes,
            chunk: CHUNK,
            seed: content::FREE,
            without_digest: true,
            ..BulkReadRequest::default()
        };
        let begin = Instant::now();
        let mut stream = self.client.clone().bulk_read(request).await?.into_inner();
        let mut total = 0;
        while let Some(message) = stream.message().await? {
            total += message.data.len() as u64;
        }
        anyhow::ensure!(total == bytes, "{total} of {bytes} bytes arrived");
        Ok(total as f64 / begin.elapsed().as_secs_f64())
    }

    /// Bytes a second to the guest.
    pub(crate) async fn write(&self, bytes: u64) -> Result<f64> {
        let data = content::bytes(content::FREE, 0, CHUNK as usize);
        let messages = (0..bytes / u64::from(CHUNK)).map(move |_| BulkWriteRequest {
            data: data.clone(),
            seed: content::FREE,
            without_digest: true,
            ..BulkWriteRequest::default()
        });
        let begin = Instant::now();
        let response = self
            .client
            .clone()
            .bulk_write(tokio_stream::iter(messages))
            .await?;
        anyhow::ensure!(response.get_ref().bytes == bytes, "bytes are missing");
        Ok(bytes as f64 / begin.elapsed().as_secs_f64())
    }

    async fn call(&self) -> Result<()> {
        self.client.clone().unary(UnaryRequest::default()).await?;
        Ok(())
    }

    /// Seconds for a call: the median.
    pub(crate) async fn unary(&self) -> Result<f64> {
        let mut times = Vec::with_capacity(CALLS);
        for _ in 0..CALLS {
            let begin = Instant::now();
            self.call().await?;
            times.push(begin.elapsed().as_secs_f64());
        }
        Ok(median(&times))
    }

    /// Calls a second with so many in flight.
    pub(crate) async fn rate(&self, parallel: usize) -> Result<f64> {
        let begin = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..parallel {
            let client = Self {
                client: self.client.clone(),
            };
            tasks.spawn(async move {
                let mut calls = 0;
                while begin.elapsed() < RATE_TIME {
                    client.call().await?;
                    calls += 1;
                }
                anyhow::Ok(calls)
            });
        }
        let mut calls = 0;
        while let Some(done) = tasks.join_next().await {
            calls += done??;
        }
        Ok(f64::from(calls) / begin.elapsed().as_secs_f64())
    }

    /// Seconds for a call while the guest sends, and how fast it sends.
    pub(crate) async fn unary_beside_read(&self, bytes: u64) -> Result<(f64, f64)> {
        self.beside(async |client| client.read(bytes * 2).await)
            .await
    }

    /// Seconds for a call while the guest receives, and how fast it does.
    pub(crate) async fn unary_beside_write(&self, bytes: u64) -> Result<(f64, f64)> {
        self.beside(async |client| client.write(bytes * 2).await)
            .await
    }

    async fn beside(&self, bulk: impl AsyncFnOnce(&Self) -> Result<f64>) -> Result<(f64, f64)> {
        let over = Arc::new(AtomicBool::new(false));
        let calls = async {
            let mut times = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let begin = Instant::now();
                self.call().await?;
                times.push(begin.elapsed().as_secs_f64());
                // A caller, not a load: the stream's own speed is to be seen beside it.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            anyhow::Ok(times)
        };
        let stream = async {
            let speed = bulk(self).await;
            over.store(true, Ordering::Relaxed);
            speed
        };
        let (times, speed) = tokio::join!(calls, stream);
        Ok((median(&times?), speed?))
    }
}
