//! How many calls there may be: a second, and at once.
//!
//! ```text
//!   a call ──▶ each limit that names its method:  a token in the bucket? ── no ──▶ refused, until there is one
//!                                                 a place?              ── no ──▶ refused, until a call ends
//!          ──▶ let in; it holds a place of each until its stream ends, and a process that it has started until that ends
//! ```
//!
//! A limit has one bucket and one count, however many callers there are; that is all that is kept. A limit that goes on to be
//! there when the rules change keeps both by its name.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tonic::Status;

use super::methods::names;
use crate::error::{self, Reason};

/// When a caller may try again after a call too many at once: nobody knows when one ends.
const RETRY_PLACE: Duration = Duration::from_secs(1);

/// Bounds calls of some methods, together.
#[derive(Debug, Clone, PartialEq)]
pub struct Limit {
    name: String,
    methods: Vec<String>,
    rate: Option<Rate>,
    concurrent: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Rate {
    /// Calls a second, in the long run.
    per_second: f64,
    /// Calls at a moment.
    burst: f64,
}

/// The limits that hold, with what is used of them.
#[derive(Debug, Default)]
pub(super) struct Limiter(Vec<(Limit, Arc<Use>)>);

/// What is used of a limit.
#[derive(Debug, Default)]
struct Use(Mutex<Used>);

#[derive(Debug, Default)]
struct Used {
    /// Tokens in the bucket, and when that was. None: it is full.
    bucket: Option<(f64, Instant)>,
    calls: u32,
    /// Whether a refusal was logged since the last call was let in.
    said: bool,
}

/// A call's places. The last clone gives them back when it is dropped.
#[derive(Clone)]
pub(crate) struct Places(
    #[expect(dead_code, reason = "they are given back by being dropped")] Arc<[Place]>,
);

struct Place(Arc<Use>);

// === impl Limit ===

impl Limit {
    /// A limit for these methods together, which bounds nothing yet.
    pub fn new(
        name: impl Into<String>,
        methods: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            name: name.into(),
            methods: methods.into_iter().map(Into::into).collect(),
            rate: None,
            concurrent: None,
        }
    }

    /// So many calls in such a time, in the long run, and `burst` at a moment.
    #[must_use]
    pub fn rate(mut self, calls: u32, time: Duration, burst: u32) -> Self {
        let per_second = f64::from(calls.max(1)) / time.as_secs_f64().max(f64::MIN_POSITIVE);
        let burst = f64::from(burst.max(1));
        self.rate = Some(Rate { per_second, burst });
        self
    }

    /// So many calls at once. A stream counts until it ends, and a process until it has ended.
    #[must_use]
    pub fn concurrent(mut self, calls: u32) -> Self {
        self.concurrent = Some(calls);
        self
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Takes a token and a place, or says what is missing and for how long.
    fn enter(&self, used: &mut Used, now: Instant) -> Result<(), (Reason, String, Duration)> {
        if let Some(most) = self.concurrent.filter(|most| used.calls >= *most) {
            let message = format!("{most} such calls are under way in the guest");
            return Err((Reason::TooMany, message, RETRY_PLACE));
        }
        if let Some(Rate { per_second, burst }) = self.rate {
            let tokens = used.bucket.map_or(burst, |(tokens, then)| {
                let gained = now.saturating_duration_since(then).as_secs_f64() * per_second;
                burst.min(tokens + gained)
            });
            if tokens < 1.0 {
                used.bucket = Some((tokens, now));
                let wait = Duration::try_from_secs_f64((1.0 - tokens) / per_second);
                let message = "there were too many such calls lately".to_owned();
                return Err((Reason::RateLimited, message, wait.unwrap_or(Duration::MAX)));
            }
            used.bucket = Some((tokens - 1.0, now));
        }
        used.calls += 1;
        Ok(())
    }
}

// === impl Limiter ===

impl Limiter {
    /// These limits; those that `old` has by the same name go on with what is used.
    pub(super) fn new(limits: &[Limit], old: &Self) -> Self {
        let mut old: BTreeMap<&str, &Arc<Use>> = old
            .0
            .iter()
            .map(|(limit, it)| (limit.name.as_str(), it))
            .collect();
        let limits = limits.iter().map(|limit| {
            // Of two of one name only the first goes on: no call takes a place of the same thing twice.
            let used = old.remove(limit.name.as_str()).cloned();
            (limit.clone(), used.unwrap_or_default())
        });
        Self(limits.collect())
    }

    /// Lets a call in, or says which limit refuses it. What was taken of others is given back then, but for tokens.
    pub(super) fn enter(&self, method: &str, now: Instant) -> Result<Option<Places>, Status> {
        let mut places = Vec::new();
        for (limit, it) in &self.0 {
            if !names(&limit.methods, method) {
                continue;
            }
            let mut used = it.lock();
            if let Err((reason, why, wait)) = limit.enter(&mut used, now) {
                if !std::mem::replace(&mut used.said, true) {
                    let (method, name) = (super::shown(method), limit.name.escape_debug());
                    tracing::warn!("{method} was refused by the limit {name}: {why}");
                }
                return Err(error::limited(reason, &limit.name, why, wait));
            }
            used.said = false;
            places.push(Place(Arc::clone(it)));
        }
        Ok((!places.is_empty()).then(|| Places(places.into())))
    }
}

// === impl Use, Place ===

impl Use {
    fn lock(&self) -> MutexGuard<'_, Used> {
        // Nothing that holds the lock can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut used = self.0.lock();
        used.calls = used.calls.saturating_sub(1);
    }
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Places").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic_types::StatusExt as _;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limiter(limit: Limit) -> Limiter {
        Limiter::new(&[limit], &Limiter::default())
    }

    #[test]
    fn a_bucket_has_a_burst_and_fills_again() {
        let limiter = limiter(Limit::new("slow", ["a.B/*"]).rate(2, SECOND, 3));
        let start = Instant::now();
        let enter = |after| limiter.enter("a.B/C", start + after);
        for _ in 0..3 {
            assert!(enter(Duration::ZERO).is_ok());
        }
        let status = enter(Duration::ZERO).unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(info.reason, "RATE_LIMITED");
        assert_eq!(info.metadata["rule"], "slow");
        let retry = details.retry_info().unwrap().retry_delay.unwrap();
        assert_eq!(retry, SECOND / 2);
        assert!(enter(retry).is_ok());
        assert!(enter(retry).is_err());
        for _ in 0..3 {
            assert!(
                enter(SECOND * 60).is_ok(),
                "no more than the burst is saved"
            );
        }
        assert!(enter(SECOND * 60).is_err());
        assert!(
            limiter.enter("a.X/C", start).unwrap().is_none(),
            "another method"
        );
    }

    #[test]
    fn a_call_has_its_place_until_all_that_hold_it_are_gone() {
        let limiter = limiter(Limit::new("few", ["*"]).concurrent(1));
        let enter = || limiter.enter("a.B/C", Instant::now());
        let call = enter().unwrap().unwrap();
        let process = call.clone();
        let status = enter().unwrap_err();
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "TOO_MANY");
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(RETRY_PLACE));
        drop(call);
        assert!(enter().is_err());
        drop(process);
        assert!(enter().is_ok());
    }

    #[test]
    fn all_limits_must_let_a_call_in_and_give_back_what_one_refuses() {
        let limits = [
            Limit::new("wide", ["*"]).concurrent(2),
            Limit::new("narrow", ["a.B/C"]).concurrent(1),
        ];
        let limiter = Limiter::new(&limits, &Limiter::default());
        let enter = |method| limiter.enter(method, Instant::now());
        let _first = enter("a.B/C").unwrap();
        for _ in 0..3 {
            assert!(enter("a.B/C").is_err());
        }
        let _second = enter("a.B/D").unwrap();
        assert!(enter("a.B/D").is_err());
    }

    #[test]
    fn calls_that_were_let_in_count_under_new_rules() {
        let limit = |most| [Limit::new("few", ["*"]).concurrent(most)];
        let old = Limiter::new(&limit(2), &Limiter::default());
        let call = old.enter("a.B/C", Instant::now()).unwrap();
        let new = Limiter::new(&limit(1), &old);
        assert!(new.enter("a.B/C", Instant::now()).is_err());
        drop(call);
        assert!(new.enter("a.B/C", Instant::now()).is_ok());
    }
}
