//! `vbridge.guest.v1.Metrics`: the guest's counters, once or as a stream.

use std::time::Duration;

use tonic::{Request, Response, Status};
use vbridge_api::guest::v1::{
    MetricsGetRequest, MetricsGetResponse, MetricsWatchRequest, metrics_server,
};

use super::{
    sampler::{Sampler, Subscription},
    snapshot::Groups,
};
use crate::{
    error,
    limits::{DEFAULT_INTERVAL, MAX_INTERVAL, MIN_INTERVAL},
    source::clock,
};

/// The service.
#[derive(Debug)]
pub(crate) struct Metrics {
    sampler: Sampler,
}

impl Metrics {
    pub(crate) fn new(sampler: Sampler) -> Self {
        Self { sampler }
    }
}

#[tonic::async_trait]
impl metrics_server::Metrics for Metrics {
    type WatchStream = Subscription;

    async fn get(
        &self,
        request: Request<MetricsGetRequest>,
    ) -> Result<Response<MetricsGetResponse>, Status> {
        let groups = Groups::from_request(&request.get_ref().groups)?;
        let sample = self.sampler.read(groups)?.sample(groups, 1);
        Ok(Response::new(MetricsGetResponse {
            sample: Some(sample),
        }))
    }

    async fn watch(
        &self,
        request: Request<MetricsWatchRequest>,
    ) -> Result<Response<Subscription>, Status> {
        let request = request.get_ref();
        let groups = Groups::from_request(&request.groups)?;
        let interval = interval(request.interval.as_ref())?;
        Ok(Response::new(self.sampler.subscribe(groups, interval)?))
    }
}

fn interval(message: Option<&prost_types::Duration>) -> Result<Duration, Status> {
    let Some(message) = message else {
        return Ok(DEFAULT_INTERVAL);
    };
    clock::duration(message)
        .filter(|interval| (MIN_INTERVAL..=MAX_INTERVAL).contains(interval))
        .ok_or_else(|| {
            error::invalid_field("interval", "must be 100 ms to 1 h; leave it out for 1 s")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_has_bounds_and_a_default() {
        let of = |seconds, nanos| interval(Some(&prost_types::Duration { seconds, nanos }));
        assert_eq!(interval(None).unwrap(), Duration::from_secs(1));
        assert_eq!(of(0, 100_000_000).unwrap(), Duration::from_millis(100));
        assert_eq!(of(3600, 0).unwrap(), Duration::from_secs(3600));
        for (seconds, nanos) in [
            (0, 99_999_999),
            (3600, 1),
            (-5, 0),
            (0, 0),
            (0, 2_000_000_000),
            (i64::MAX, 0),
        ] {
            assert_eq!(
                of(seconds, nanos).unwrap_err().code(),
                tonic::Code::InvalidArgument
            );
        }
    }
}
