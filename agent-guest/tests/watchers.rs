//! Subscribers of metrics who never read, right at the agent: what they lose is counted, and nobody else notices.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::BTreeSet;

use agent_guest::limits::{STREAM_SEND_BUFFER, SUBSCRIBER_BUFFER};
use common::{Running, within};
use prost::Message as _;
use tonic::{Streaming, transport::Channel};
use vbridge_api::guest::v1::{
    MetricsWatchRequest, MetricsWatchResponse, metrics_client::MetricsClient,
};

const STUCK: usize = 20;
const LIVELY: usize = 180;

async fn subscribe(channel: &Channel) -> Streaming<MetricsWatchResponse> {
    let request = MetricsWatchRequest {
        groups: Vec::new(),
        interval: Some(prost_types::Duration {
            seconds: 0,
            nanos: 100_000_000,
        }),
    };
    let mut metrics = MetricsClient::new(channel.clone());
    within(metrics.watch(request)).await.unwrap().into_inner()
}

async fn next(stream: &mut Streaming<MetricsWatchResponse>) -> MetricsWatchResponse {
    within(stream.message()).await.unwrap().expect("it goes on")
}

/// The readings that the samples come from, but for the first, which the call takes itself.
async fn lively(mut stream: Streaming<MetricsWatchResponse>, samples: u64) -> BTreeSet<(i64, i32)> {
    let mut readings = BTreeSet::new();
    for sequence in 1..=samples {
        let message = next(&mut stream).await;
        let sample = message.sample.unwrap();
        assert_eq!((sample.sequence, message.dropped), (sequence, 0));
        let uptime = sample.uptime.unwrap();
        if sequence > 1 {
            readings.insert((uptime.seconds, uptime.nanos));
        }
    }
    readings
}

#[tokio::test]
async fn twenty_that_never_read_lose_their_oldest_and_a_hundred_and_eighty_nothing() {
    let agent = Running::start();
    let mut host = agent.host().await;
    // Windows of the streams as small as what one message needs, and room for all of them in the connection's.
    let configure = |endpoint: tonic::transport::Endpoint| {
        endpoint
            .initial_stream_window_size(4096)
            .initial_connection_window_size(16 << 20)
    };
    let channel = host.channel_with(configure).await;
    let mut stuck = Vec::new();
    for _ in 0..STUCK {
        stuck.push(subscribe(&channel).await);
    }
    let first = next(&mut stuck[0]).await;
    // All that a stream's buffers hold, and half as much again.
    let held = (4096 + STREAM_SEND_BUFFER) / first.encoded_len() + SUBSCRIBER_BUFFER;
    let samples = u64::try_from(held * 3 / 2).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..LIVELY {
        tasks.spawn(lively(subscribe(&channel).await, samples));
    }
    let mut readings = BTreeSet::new();
    while let Some(seen) = tasks.join_next().await {
        readings.extend(seen.unwrap());
    }
    // They have begun within a second or two, and have seen the same readings since.
    let readings = u64::try_from(readings.len()).unwrap();
    assert!(
        readings < samples + 60,
        "{readings} readings for {samples} samples: more than one sampler reads"
    );
    for (number, mut stream) in stuck.into_iter().enumerate() {
        let (mut taken, mut dropped) = (u64::from(number == 0), 0);
        loop {
            let message = next(&mut stream).await;
            taken += 1;
            dropped += message.dropped;
            let sequence = message.sample.unwrap().sequence;
            assert_eq!(sequence, taken + dropped, "what is lost is counted");
            if sequence >= samples {
                break;
            }
        }
        assert!(dropped > 0, "{taken} were taken and none was lost");
    }
    drop(channel);
    drop(host);
    agent.until_quiet().await;
    agent.stop().await.unwrap();
}
