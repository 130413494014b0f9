//! Which failed requests a client sends again, when, and how often.
//!
//! | what has failed | again | after |
//! |---|---:|---|
//! | the network: no connection, or a lost one | 3 times | 1 s, 2 s, 4 s |
//! | a timeout | twice | 5 s each |
//! | something inside | once | 10 s |
//! | parameters, permissions, and everything else that would fail in the same way | never | |
//!
//! That is the table of the design that the JSON API comes from, and [`Policy::default`]; `vbridge` itself goes by it. What is
//! sent again may be done twice: a lost connection does not tell whether the request had arrived. So it is for requests of
//! which that does no harm, and for failures of which the bridge says that no guest has seen the request ([`is_undone`]).
//!
//! Any tonic client calls so. Each attempt is a request of its own:
//!
//! ```no_run
//! use bridge_host::retry::{self, Policy};
//! use vbridge_api::guest::v1::{PingRequest, PingResponse, system_client::SystemClient};
//!
//! async fn ping(client: &mut SystemClient<tonic::transport::Channel>) -> Result<PingResponse, tonic::Status> {
//!     let answer = retry::call(Policy::default(), async || client.ping(PingRequest::default()).await);
//!     Ok(answer.await?.into_inner())
//! }
//! ```
//!
//! What is no gRPC has [`Policy::run`], and who wants to say something before each wait has [`Attempts`]:
//!
//! ```
//! use std::time::Duration;
//! use bridge_host::retry::{Failed, Policy};
//!
//! let mut attempts = Policy::default().attempts();
//! assert_eq!(attempts.after(Failed::Network), Some(Duration::from_secs(1)));
//! assert_eq!(attempts.after(Failed::Network), Some(Duration::from_secs(2)));
//! assert_eq!(attempts.after(Failed::Parameters), None);
//! ```

mod failed;

use std::time::Duration;

use tonic::Status;

pub use failed::{Failed, is_absent, is_undone};

/// Calls until there is an answer, or a failure that is not tried again (any more). For calls that may be carried out twice.
///
/// # Errors
/// The last failure.
pub async fn call<T>(
    policy: Policy,
    mut call: impl AsyncFnMut() -> Result<T, Status>,
) -> Result<T, Status> {
    let mut attempts = policy.attempts();
    loop {
        let status = match call().await {
            Ok(answer) => return Ok(answer),
            Err(status) => status,
        };
        match attempts.after(Failed::of_status(&status)) {
            Some(delay) => tokio::time::sleep(delay).await,
            None => return Err(status),
        }
    }
}

/// How often it is tried again after one kind of failure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    times: u32,
    first: Duration,
    factor: f64,
    longest: Duration,
}

// === impl Backoff ===

impl Backoff {
    /// Never.
    pub const NEVER: Self = Self::fixed(0, Duration::ZERO);

    /// So many times, always after the same delay.
    pub const fn fixed(times: u32, delay: Duration) -> Self {
        Self::growing(times, delay, 1.0)
    }

    /// So many times; each delay is twice the one before.
    pub const fn doubling(times: u32, first: Duration) -> Self {
        Self::growing(times, first, 2.0)
    }

    /// So many times; each delay is so many times the one before. A factor that makes no sense makes the delay the longest.
    pub const fn growing(times: u32, first: Duration, factor: f64) -> Self {
        Self {
            times,
            first,
            factor,
            longest: Duration::MAX,
        }
    }

    /// With no delay longer than this.
    #[must_use]
    pub const fn at_most(mut self, longest: Duration) -> Self {
        self.longest = longest;
        self
    }

    /// At most so many times.
    #[must_use]
    pub const fn times_at_most(mut self, times: u32) -> Self {
        if self.times > times {
            self.times = times;
        }
        self
    }

    /// The delay before a retry, counted from 0; none if there is no such retry.
    fn delay(self, retry: u32) -> Option<Duration> {
        let seconds = self.first.as_secs_f64() * self.factor.powf(f64::from(retry));
        let delay = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        (retry < self.times).then(|| delay.min(self.longest))
    }
}

/// What is tried again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// After [`Failed::Network`].
    pub network: Backoff,
    /// After [`Failed::Timeout`].
    pub timeout: Backoff,
    /// After [`Failed::Internal`].
    pub internal: Backoff,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            network: Backoff::doubling(3, Duration::from_secs(1)),
            timeout: Backoff::fixed(2, Duration::from_secs(5)),
            internal: Backoff::fixed(1, Duration::from_secs(10)),
        }
    }
}

// === impl Policy ===

impl Policy {
    /// Nothing is tried again.
    pub const NEVER: Self = Self {
        network: Backoff::NEVER,
        timeout: Backoff::NEVER,
        internal: Backoff::NEVER,
    };

    /// The attempts of one request.
    pub fn attempts(self) -> Attempts {
        Attempts {
            policy: self,
            network: 0,
            timeout: 0,
            internal: 0,
        }
    }

    /// Sends a request until it succeeds, or fails in a way that is not tried again (any more). The last failure is returned.
    ///
    /// # Errors
    /// The last failure.
    pub async fn run<T, E, F: Future<Output = Result<T, E>>>(
        self,
        failed: impl Fn(&E) -> Failed,
        mut request: impl FnMut() -> F,
    ) -> Result<T, E> {
        let mut attempts = self.attempts();
        loop {
            let error = match request().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            match attempts.after(failed(&error)) {
                Some(delay) => tokio::time::sleep(delay).await,
                None => return Err(error),
            }
        }
    }
}

/// The attempts of one request. Each kind of failure is counted for itself, so that there are six retries at most by default.
#[derive(Debug, Clone)]
pub struct Attempts {
    policy: Policy,
    network: u32,
    timeout: u32,
    internal: u32,
}

// === impl Attempts ===

impl Attempts {
    /// How long to wait before the next attempt; none if there is none.
    pub fn after(&mut self, failed: Failed) -> Option<Duration> {
        self.again(failed).map(|again| again.delay)
    }

    /// The next attempt; none if there is none.
    pub fn again(&mut self, failed: Failed) -> Option<Again> {
        let (backoff, made) = match failed {
            Failed::Network => (self.policy.network, &mut self.network),
            Failed::Timeout => (self.policy.timeout, &mut self.timeout),
            Failed::Internal => (self.policy.internal, &mut self.internal),
            Failed::Parameters | Failed::Permission | Failed::Other => return None,
        };
        let delay = backoff.delay(*made)?;
        *made = made.saturating_add(1);
        Some(Again {
            delay,
            number: *made,
            of: backoff.times,
        })
    }
}

/// A further attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Again {
    /// How long to wait before it.
    pub delay: Duration,
    /// Which one it is after failures of this kind, from 1 on.
    pub number: u32,
    /// ... and how many there are at most.
    pub of: u32,
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::time::Instant;

    use super::*;

    /// When a request that fails so is sent, in seconds from the first time on.
    async fn sent(failures: &[Failed]) -> (Vec<u64>, Result<(), Failed>) {
        let begun = Instant::now();
        let times = RefCell::new(Vec::new());
        let mut failures = failures.iter();
        let outcome = Policy::default()
            .run(
                |failed: &Failed| *failed,
                || {
                    times.borrow_mut().push(begun.elapsed().as_secs());
                    let outcome = failures.next().map_or(Ok(()), |failed| Err(*failed));
                    async move { outcome }
                },
            )
            .await;
        (times.into_inner(), outcome)
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_connection_is_tried_three_times_more_ever_later() {
        let (times, outcome) = sent(&[Failed::Network; 9]).await;
        assert_eq!((times, outcome), (vec![0, 1, 3, 7], Err(Failed::Network)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_is_tried_twice_more_and_an_internal_error_once() {
        let (times, outcome) = sent(&[Failed::Timeout; 9]).await;
        assert_eq!((times, outcome), (vec![0, 5, 10], Err(Failed::Timeout)));
        let (times, outcome) = sent(&[Failed::Internal; 9]).await;
        assert_eq!((times, outcome), (vec![0, 10], Err(Failed::Internal)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_would_fail_again_is_sent_once() {
        for failed in [Failed::Parameters, Failed::Permission, Failed::Other] {
            assert_eq!(sent(&[failed; 2]).await, (vec![0], Err(failed)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_kind_of_failure_is_counted_for_itself_until_one_attempt_succeeds() {
        use Failed::{Internal, Network, Timeout};
        let (times, outcome) = sent(&[Network, Timeout, Network, Internal]).await;
        assert_eq!((times, outcome), (vec![0, 1, 6, 8, 18], Ok(())));
        let never = Policy::NEVER.run(|failed| *failed, || async { Err::<(), _>(Network) });
        assert_eq!(never.await, Err(Network));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_sent_again_by_the_table_also_from_a_task_of_its_own() {
        let calls = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let made = std::sync::Arc::clone(&calls);
        let begun = Instant::now();
        let task = tokio::spawn(call(Policy::default(), async move || {
            match made.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
                0 | 1 => Err(Status::unavailable("gone")),
                _ => Ok(tonic::Response::new(7)),
            }
        }));
        assert_eq!(task.await.unwrap().unwrap().into_inner(), 7);
        assert_eq!(begun.elapsed().as_secs(), 3);
        assert_eq!(calls.load(std::sync::atomic::Ordering::Relaxed), 3);
    }

    #[test]
    fn a_delay_grows_as_far_as_it_can_be_counted_or_is_wanted() {
        let backoff = Backoff::doubling(u32::MAX, Duration::MAX);
        assert_eq!(backoff.delay(1000), Some(Duration::MAX));
        let minute = Duration::from_secs(60);
        assert_eq!(backoff.at_most(minute).delay(1000), Some(minute));
        let backoff = Backoff::growing(3, Duration::from_secs(2), 1.5);
        let delays = [0, 1, 2, 3].map(|retry| backoff.delay(retry));
        let seconds = |seconds| Some(Duration::from_secs_f64(seconds));
        assert_eq!(delays, [seconds(2.0), seconds(3.0), seconds(4.5), None]);
        assert_eq!(backoff.times_at_most(1).delay(1), None);
        assert_eq!(Backoff::NEVER.delay(0), None);
    }
}
