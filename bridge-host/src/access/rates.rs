//! How often a caller may call, and how much at once.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use crate::error::Reason;

/// Limits of one caller; without any, those of connections and guests remain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// Calls in a second; as many may come at once.
    pub per_second: Option<NonZeroU32>,
    /// Calls in a minute; as many may come at once.
    pub per_minute: Option<NonZeroU32>,
    /// Calls under way, streams among them.
    pub at_once: Option<NonZeroU32>,
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, DefaultClock, NoOpMiddleware>;

/// Counts a caller's calls.
#[derive(Debug)]
pub(super) struct Throttle {
    rates: Rates,
    limiters: Vec<(Limiter, NonZeroU32, &'static str)>,
    places: Option<Arc<Semaphore>>,
}

/// A call under way among its caller's others.
#[derive(Debug, Default)]
pub(crate) struct Place(#[expect(dead_code, reason = "it is held")] Option<OwnedSemaphorePermit>);

impl Throttle {
    pub(super) fn new(rates: Rates) -> Self {
        let second = rates
            .per_second
            .map(|rate| (Quota::per_second(rate), rate, "second"));
        let minute = rates
            .per_minute
            .map(|rate| (Quota::per_minute(rate), rate, "minute"));
        let limiters = [second, minute].into_iter().flatten();
        let limiters = limiters.map(|(quota, rate, span)| (RateLimiter::direct(quota), rate, span));
        let places = rates.at_once.map(|most| most.get() as usize);
        Self {
            rates,
            limiters: limiters.collect(),
            places: places.map(|most| Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)))),
        }
    }

    pub(super) fn rates(&self) -> &Rates {
        &self.rates
    }

    pub(super) fn admit(&self, caller: &str) -> Result<Place, Status> {
        // First, so that what finds no place costs nothing of the rate.
        let place = match &self.places {
            None => None,
            Some(places) => match Arc::clone(places).try_acquire_owned() {
                Ok(place) => Some(place),
                Err(_) => {
                    let most = self.rates.at_once.map_or(0, NonZeroU32::get);
                    let message = format!(
                        "caller \"{caller}\" has {most} calls under way, which is its limit; try again when some have ended"
                    );
                    return Err(Reason::CallerTooBusy.status("", message));
                }
            },
        };
        for (limiter, rate, span) in &self.limiters {
            if let Err(not_until) = limiter.check() {
                let wait = not_until.wait_time_from(DefaultClock::default().now());
                let wait = Duration::from_millis(u64::try_from(wait.as_millis()).unwrap_or(0) + 1);
                let message = format!(
                    "caller \"{caller}\" has made {rate} calls within a {span}, which is its limit; try again in {}",
                    humantime::format_duration(wait)
                );
                return Err(Reason::CallerTooFast.status_after(message, wait));
            }
        }
        Ok(Place(place))
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic_types::StatusExt as _;

    use super::*;

    #[test]
    fn calls_above_the_rate_are_told_when_to_come_again() {
        let throttle = Throttle::new(Rates {
            per_minute: NonZeroU32::new(3),
            ..Rates::default()
        });
        for _ in 0..3 {
            drop(throttle.admit("a").unwrap());
        }
        let status = throttle.admit("a").unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(
            status.message().contains("3 calls within a minute"),
            "{status:?}"
        );
        let retry = status
            .get_details_retry_info()
            .unwrap()
            .retry_delay
            .unwrap();
        assert!(
            retry > Duration::from_secs(10) && retry <= Duration::from_secs(21),
            "{retry:?}"
        );
    }

    #[test]
    fn a_call_that_has_ended_leaves_its_place_to_another() {
        let throttle = Throttle::new(Rates {
            at_once: NonZeroU32::new(2),
            ..Rates::default()
        });
        let first = throttle.admit("a").unwrap();
        let _second = throttle.admit("a").unwrap();
        let status = throttle.admit("a").unwrap_err();
        assert!(status.message().contains("2 calls under way"), "{status:?}");
        drop(first);
        assert!(throttle.admit("a").is_ok());
    }
}
