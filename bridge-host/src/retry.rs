//! Which failed requests a client sends again, when, and how often.
//!
//! | what has failed | again | after |
//! |---|---:|---|
//! | the network: no connection, or a lost one | 3 times | 1 s, 2 s, 4 s |
//! | a timeout | twice | 5 s each |
//! | something inside | once | 10 s |
//! | parameters, permissions, and everything else that would fail in the same way | never | |
//!
//! That is the table of the design that the JSON API comes from, and [`Policy::default`]. What is sent again may be done twice:
//! a lost connection does not tell whether the request had arrived. It is for requests of which that does no harm.
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

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// What has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failed {
    /// There was no connection, or it was lost.
    Network,
    /// It took too long.
    Timeout,
    /// The request is wrong.
    Parameters,
    /// It is not allowed.
    Permission,
    /// Something that should not fail.
    Internal,
    /// What was asked for is not there, or has failed itself.
    Other,
}

// === impl Failed ===

impl Failed {
    /// What a code of the JSON API says. Of 1002 it is not asked again: the command's time was over, not the request's.
    pub fn of_code(code: u16) -> Self {
        match code {
            2000..=2999 => Self::Parameters,
            4000..=4999 => Self::Permission,
            5002 | 6001 => Self::Network,
            6002 => Self::Timeout,
            5000..=5999 => Self::Internal,
            _ => Self::Other,
        }
    }

    /// What a gRPC status says.
    pub fn of_status(status: &Status) -> Self {
        match status.code() {
            Code::InvalidArgument | Code::OutOfRange => Self::Parameters,
            Code::PermissionDenied | Code::Unauthenticated => Self::Permission,
            Code::DeadlineExceeded => Self::Timeout,
            Code::Unavailable if is_silent(status) => Self::Timeout,
            Code::Unavailable | Code::ResourceExhausted => Self::Network,
            Code::Internal | Code::Unknown | Code::DataLoss => Self::Internal,
            _ => Self::Other,
        }
    }
}

/// Whether the guest has only not answered, as the JSON API has it.
fn is_silent(status: &Status) -> bool {
    let details = status.get_error_details();
    let info = details.error_info();
    info.is_some_and(|info| info.reason == "GUEST_SILENT")
}

/// How often it is tried again after one kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    times: u32,
    first: Duration,
    factor: u32,
}

// === impl Backoff ===

impl Backoff {
    /// Never.
    pub const NEVER: Self = Self::fixed(0, Duration::ZERO);

    /// So many times, always after the same delay.
    pub const fn fixed(times: u32, delay: Duration) -> Self {
        Self {
            times,
            first: delay,
            factor: 1,
        }
    }

    /// So many times; each delay is twice the one before.
    pub const fn doubling(times: u32, first: Duration) -> Self {
        Self {
            times,
            first,
            factor: 2,
        }
    }

    /// The delay before a retry, counted from 0; none if there is no such retry.
    fn delay(self, retry: u32) -> Option<Duration> {
        let factor = self.factor.saturating_pow(retry);
        (retry < self.times).then(|| self.first.saturating_mul(factor))
    }
}

/// What is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
        let (backoff, made) = match failed {
            Failed::Network => (self.policy.network, &mut self.network),
            Failed::Timeout => (self.policy.timeout, &mut self.timeout),
            Failed::Internal => (self.policy.internal, &mut self.internal),
            Failed::Parameters | Failed::Permission | Failed::Other => return None,
        };
        let delay = backoff.delay(*made)?;
        *made = made.saturating_add(1);
        Some(delay)
    }
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

    #[test]
    fn a_code_and_a_status_say_what_has_failed() {
        for (code, failed) in [
            (1001, Failed::Other),
            (1002, Failed::Other),
            (2003, Failed::Parameters),
            (3002, Failed::Other),
            (4001, Failed::Permission),
            (5001, Failed::Internal),
            (5002, Failed::Network),
            (6001, Failed::Network),
            (6002, Failed::Timeout),
        ] {
            assert_eq!(Failed::of_code(code), failed, "{code}");
        }
        for (status, failed) in [
            (Status::unavailable("gone"), Failed::Network),
            (Status::deadline_exceeded("late"), Failed::Timeout),
            (Status::invalid_argument("wrong"), Failed::Parameters),
            (Status::permission_denied("no"), Failed::Permission),
            (Status::internal("oh"), Failed::Internal),
            (Status::not_found("nothing"), Failed::Other),
        ] {
            assert_eq!(Failed::of_status(&status), failed);
        }
        let silent = crate::error::Reason::GuestSilent.status("web", "no answer");
        assert_eq!(Failed::of_status(&silent), Failed::Timeout);
    }

    #[test]
    fn a_delay_grows_as_far_as_it_can_be_counted() {
        let backoff = Backoff::doubling(u32::MAX, Duration::MAX);
        assert_eq!(backoff.delay(1000), Some(Duration::MAX));
        assert_eq!(Backoff::NEVER.delay(0), None);
    }
}
