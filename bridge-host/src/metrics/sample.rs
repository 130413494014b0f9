//! A guest's own metrics, asked for at most once a second however many scrape.

use std::sync::Arc;

use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use vbridge_api::guest::v1::{MetricsGetRequest, MetricsSample, metrics_client::MetricsClient};

use crate::{
    guest::Guest,
    inside::Inside,
    limits::{SAMPLE_LIMIT, SAMPLE_SHARED},
};

/// The last answer, or that there was none. While one asks, the others wait for that.
#[derive(Debug, Default)]
pub(crate) struct Shared(Mutex<Option<(Instant, Option<Arc<MetricsSample>>)>>);

impl Shared {
    /// A sample that is fresh enough; `None` if the guest gives none.
    pub(super) async fn sample(&self, guest: &Arc<Guest>) -> Option<Arc<MetricsSample>> {
        let mut last = self.0.lock().await;
        if let Some((at, sample)) = &*last
            && at.elapsed() < SAMPLE_SHARED
        {
            return sample.clone();
        }
        let sample = timeout(SAMPLE_LIMIT, ask(guest)).await.ok().flatten();
        *last = Some((Instant::now(), sample.clone()));
        sample
    }
}

async fn ask(guest: &Arc<Guest>) -> Option<Arc<MetricsSample>> {
    let inside = Inside::new(Arc::clone(guest));
    let mut client = MetricsClient::with_origin(inside, Inside::origin());
    // A guest that is away, refuses, or has no such service: it is a sample less.
    let answer = client.get(MetricsGetRequest::default()).await.ok()?;
    answer.into_inner().sample.map(Arc::new)
}
