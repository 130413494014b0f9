//! One sampler, however many subscribers.
//!
//! ```text
//!            the first subscription                     its task
//!    Idle ───────────────────────────▶ Sampling ─┐  sleep until the next cohort is due
//!     ▲                                 │    ▲   │  read the union of the groups that are due
//!     └─────────────────────────────────┘    └───┘  hand each due subscriber its view
//!            the last one has gone
//! ```
//!
//! - **Idle costs nothing**: there is no task and no timer.
//! - **A cohort is all subscribers with the same interval.** They share their ticks, so that a thousand subscribers at one
//!   second cost one reading a second. A lone subscriber has exactly its interval; one who joins a cohort gets its
//!   second sample after half to one and a half of it. Cohorts that are due within [`SAMPLE_FRESHNESS`] of each other
//!   share a reading too, which bounds the number of readings whatever intervals are asked for.
//! - **The first sample is taken by the subscribing call itself**: a guest whose counters can't be read fails that call,
//!   before there is a stream.
//! - **A buffer holds references to readings**, [`SUBSCRIBER_BUFFER`] at most, and the message is made when the
//!   subscriber takes it. A full buffer loses its oldest, and the sampler never waits: a stuck subscriber costs the
//!   others nothing.
//! - **`busy_percent` is computed when a sample is taken out**, against the one taken out before: it always covers the
//!   whole time since what the subscriber saw last, whatever was dropped in between.
//! - A reading that fails ends the subscriptions that wanted it.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use tokio_stream::Stream;
use tonic::Status;
use vbridge_api::guest::v1::{CpuTimes, MetricsWatchResponse};

use super::snapshot::{Groups, Snapshot, Source};
use crate::{
    error,
    limits::{
        CPU_BASE_MAX_AGE, CPU_BASE_MIN_AGE, MAX_SUBSCRIBERS, SAMPLE_FRESHNESS, SUBSCRIBER_BUFFER,
    },
    source::cpu,
};

/// The one reader of the kernel's counters.
#[derive(Clone)]
pub(crate) struct Sampler {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// The cohorts have changed.
    changed: Notify,
}

struct State {
    source: Box<dyn Source>,
    phase: Phase,
    subscribers: HashMap<u64, Subscriber>,
    /// When each interval is due next.
    cohorts: BTreeMap<Duration, Instant>,
    next_id: u64,
    last: Option<(Instant, Arc<Snapshot>)>,
    cpu: CpuHistory,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No task.
    Idle,
    /// The task runs.
    Sampling,
    /// The agent stops: there will be no more samples.
    Stopped,
}

struct Subscriber {
    groups: Groups,
    interval: Duration,
    /// It skips the tick of its cohort that comes too soon after its first sample.
    not_before: Instant,
    buffer: VecDeque<(u64, Arc<Snapshot>)>,
    sequence: u64,
    /// Samples lost since the last that was taken out.
    dropped: u64,
    /// Why there will be no more.
    end: Option<Status>,
    waker: Option<Waker>,
}

// === impl Sampler ===

impl Sampler {
    pub(crate) fn new(source: impl Source) -> Self {
        let state = State {
            source: Box::new(source),
            phase: Phase::Idle,
            subscribers: HashMap::new(),
            cohorts: BTreeMap::new(),
            next_id: 0,
            last: None,
            cpu: CpuHistory::default(),
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                changed: Notify::new(),
            }),
        }
    }

    /// Reads `groups` now, or takes a reading that is not older than [`SAMPLE_FRESHNESS`].
    pub(crate) fn read(&self, groups: Groups) -> Result<Arc<Snapshot>, Status> {
        self.shared.lock().read(Instant::now(), groups)
    }

    /// The CPU times that a share of busy time should be counted from, if there are any.
    pub(crate) fn cpu_base(&self) -> Option<CpuTimes> {
        self.shared.lock().cpu.base(Instant::now())
    }

    /// Subscribes to `groups`; the first sample is in the buffer already.
    pub(crate) fn subscribe(
        &self,
        groups: Groups,
        interval: Duration,
    ) -> Result<Subscription, Status> {
        let now = Instant::now();
        let mut state = self.shared.lock();
        if state.phase == Phase::Stopped {
            return Err(error::agent_stopping());
        }
        if state.subscribers.len() >= MAX_SUBSCRIBERS {
            return Err(error::too_many_subscribers("metrics", MAX_SUBSCRIBERS));
        }
        let first = state.read(now, groups)?;
        let mut subscriber = Subscriber {
            groups,
            interval,
            not_before: now + interval / 2,
            buffer: VecDeque::new(),
            sequence: 0,
            dropped: 0,
            end: None,
            waker: None,
        };
        subscriber.push(first);
        let id = state.next_id;
        state.next_id += 1;
        state.subscribers.insert(id, subscriber);
        state.cohorts.entry(interval).or_insert(now + interval);
        if state.phase == Phase::Idle {
            state.phase = Phase::Sampling;
            tokio::spawn(run(Arc::clone(&self.shared)));
        } else {
            self.shared.changed.notify_one();
        }
        Ok(Subscription {
            shared: Arc::clone(&self.shared),
            id,
            groups,
            previous: None,
        })
    }

    /// Ends every subscription: the agent stops.
    pub(crate) fn stop(&self) {
        let mut state = self.shared.lock();
        state.phase = Phase::Stopped;
        state.cohorts.clear();
        for subscriber in state.subscribers.values_mut() {
            subscriber.finish(error::agent_stopping());
        }
        self.shared.changed.notify_one();
    }
}

impl fmt::Debug for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.lock();
        f.debug_struct("Sampler")
            .field("phase", &state.phase)
            .field("subscribers", &state.subscribers.len())
            .finish_non_exhaustive()
    }
}

/// The sampler's task.
async fn run(shared: Arc<Shared>) {
    loop {
        let next = {
            let mut state = shared.lock();
            let next = state.cohorts.values().min().copied();
            if next.is_none() && state.phase == Phase::Sampling {
                state.phase = Phase::Idle;
            }
            next
        };
        let Some(next) = next else { return };
        tokio::select! {
            () = tokio::time::sleep_until(next) => shared.lock().tick(Instant::now()),
            () = shared.changed.notified() => {}
        }
    }
}

// === impl Shared, State, Subscriber ===

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock leaves a half-made state behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn read(&mut self, now: Instant, groups: Groups) -> Result<Arc<Snapshot>, Status> {
        if let Some((at, last)) = &self.last
            && now.duration_since(*at) < SAMPLE_FRESHNESS
            && last.groups.contains(groups)
        {
            return Ok(Arc::clone(last));
        }
        let snapshot = self
            .source
            .read(groups)
            .map_err(|error| error::source_unavailable(&error))?;
        if groups.contains(Groups::CPU)
            && let Some(total) = &snapshot.cpu.total
        {
            self.cpu.note(now, total);
        }
        let snapshot = Arc::new(snapshot);
        self.last = Some((now, Arc::clone(&snapshot)));
        Ok(snapshot)
    }

    /// Serves every subscriber that is due.
    fn tick(&mut self, now: Instant) {
        let mut groups = Groups::default();
        let mut due = Vec::new();
        for (&interval, next) in &mut self.cohorts {
            if *next > now {
                continue;
            }
            // What was missed while the guest was paused is not made up for.
            *next = (*next + interval).max(now + interval / 2);
            due.push(interval);
        }
        let is_due = |subscriber: &Subscriber| {
            due.contains(&subscriber.interval)
                && subscriber.not_before <= now
                && subscriber.end.is_none()
        };
        for subscriber in self
            .subscribers
            .values()
            .filter(|subscriber| is_due(subscriber))
        {
            groups = groups.union(subscriber.groups);
        }
        if groups == Groups::default() {
            return;
        }
        let result = self.read(now, groups);
        for subscriber in self
            .subscribers
            .values_mut()
            .filter(|subscriber| is_due(subscriber))
        {
            match &result {
                Ok(snapshot) => subscriber.push(Arc::clone(snapshot)),
                Err(status) => subscriber.finish(status.clone()),
            }
        }
    }

    fn unsubscribe(&mut self, id: u64) {
        let Some(gone) = self.subscribers.remove(&id) else {
            return;
        };
        if !self
            .subscribers
            .values()
            .any(|other| other.interval == gone.interval)
        {
            self.cohorts.remove(&gone.interval);
        }
        if self.subscribers.is_empty() {
            self.last = None;
        }
    }
}

impl Subscriber {
    fn push(&mut self, snapshot: Arc<Snapshot>) {
        if self.buffer.len() == SUBSCRIBER_BUFFER {
            self.buffer.pop_front();
            self.dropped += 1;
        }
        self.sequence += 1;
        self.buffer.push_back((self.sequence, snapshot));
        self.wake();
    }

    fn finish(&mut self, status: Status) {
        self.end = Some(status);
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

// === Subscription ===

/// The stream of one subscriber. Dropped, it unsubscribes.
pub(crate) struct Subscription {
    shared: Arc<Shared>,
    id: u64,
    groups: Groups,
    /// CPU times of the sample before.
    previous: Option<CpuTimes>,
}

impl Subscription {
    fn message(
        &mut self,
        sequence: u64,
        snapshot: &Snapshot,
        dropped: u64,
    ) -> MetricsWatchResponse {
        let mut sample = snapshot.sample(self.groups, sequence);
        if let Some(cpu) = &mut sample.cpu {
            let total = cpu.total.clone().unwrap_or_default();
            let previous = self.previous.replace(total.clone());
            cpu.busy_percent =
                previous.map(|previous| cpu::busy_percent(&previous, &total).unwrap_or_default());
        }
        MetricsWatchResponse {
            sample: Some(sample),
            dropped,
        }
    }
}

impl Stream for Subscription {
    type Item = Result<MetricsWatchResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let (sequence, snapshot, dropped) = {
            let mut state = this.shared.lock();
            let Some(subscriber) = state.subscribers.get_mut(&this.id) else {
                return Poll::Ready(None);
            };
            let Some((sequence, snapshot)) = subscriber.buffer.pop_front() else {
                let Some(status) = subscriber.end.take() else {
                    subscriber.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                };
                state.unsubscribe(this.id);
                return Poll::Ready(Some(Err(status)));
            };
            (sequence, snapshot, std::mem::take(&mut subscriber.dropped))
        };
        Poll::Ready(Some(Ok(this.message(sequence, &snapshot, dropped))))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.lock().unsubscribe(self.id);
        self.shared.changed.notify_one();
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

// === CpuHistory ===

/// CPU times of two moments, at least [`CPU_BASE_MIN_AGE`] apart: one of them is always old enough to count from.
#[derive(Debug, Default)]
struct CpuHistory {
    newer: Option<(Instant, CpuTimes)>,
    older: Option<(Instant, CpuTimes)>,
}

impl CpuHistory {
    fn note(&mut self, now: Instant, total: &CpuTimes) {
        if self
            .newer
            .as_ref()
            .is_none_or(|(at, _)| now.duration_since(*at) >= CPU_BASE_MIN_AGE)
        {
            self.older = self.newer.replace((now, total.clone()));
        }
    }

    fn base(&self, now: Instant) -> Option<CpuTimes> {
        let usable = CPU_BASE_MIN_AGE..=CPU_BASE_MAX_AGE;
        [&self.newer, &self.older]
            .into_iter()
            .flatten()
            .find(|(at, _)| usable.contains(&now.duration_since(*at)))
            .map(|(_, total)| total.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use tokio_stream::StreamExt as _;
    use tonic::Code;
    use vbridge_api::guest::v1::CpuMetrics;

    use super::*;
    use crate::source::{Reader, SourceError};

    const SECOND: Duration = Duration::from_secs(1);

    /// A source whose CPUs are busy half of the time, by tokio's clock.
    #[derive(Clone)]
    struct Fake {
        start: Instant,
        reads: Arc<AtomicUsize>,
        broken: Arc<AtomicBool>,
    }

    impl Fake {
        fn new() -> Self {
            Self {
                start: Instant::now(),
                reads: Arc::default(),
                broken: Arc::default(),
            }
        }

        fn reads(&self) -> usize {
            self.reads.load(Ordering::Relaxed)
        }
    }

    impl Source for Fake {
        fn read(&mut self, groups: Groups) -> Result<Snapshot, SourceError> {
            if self.broken.load(Ordering::Relaxed) {
                return Err(Reader::new().read("proc/nothing").unwrap_err());
            }
            self.reads.fetch_add(1, Ordering::Relaxed);
            let half = self.start.elapsed().as_secs_f64() / 2.0;
            let total = CpuTimes {
                user: half,
                idle: half,
                ..CpuTimes::default()
            };
            Ok(Snapshot {
                groups,
                cpu: CpuMetrics {
                    total: Some(total),
                    ..CpuMetrics::default()
                },
                ..Snapshot::default()
            })
        }
    }

    fn fixture() -> (Fake, Sampler) {
        let fake = Fake::new();
        (fake.clone(), Sampler::new(fake))
    }

    async fn next(subscription: &mut Subscription) -> MetricsWatchResponse {
        subscription.next().await.unwrap().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_lone_subscriber_has_its_interval_exactly_and_its_first_sample_at_once() {
        let (_, sampler) = fixture();
        let start = Instant::now();
        let mut subscription = sampler.subscribe(Groups::ALL, SECOND).unwrap();
        for sequence in 1..=4 {
            let message = next(&mut subscription).await;
            let sample = message.sample.unwrap();
            assert_eq!((sample.sequence, message.dropped), (sequence, 0));
            // Timers have a resolution of 1 ms.
            let due = SECOND * u32::try_from(sequence - 1).unwrap();
            assert!(start.elapsed() >= due && start.elapsed() < due + Duration::from_millis(5));
            let busy = sample.cpu.unwrap().busy_percent;
            assert_eq!(busy.map(f64::round), (sequence > 1).then_some(50.0));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_subscribers_cost_one_reading_each_second() {
        let (fake, sampler) = fixture();
        let mut subscriptions = Vec::new();
        for _ in 0..1000 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            subscriptions.push(sampler.subscribe(Groups::CPU, SECOND).unwrap());
        }
        let before = fake.reads();
        tokio::time::sleep(SECOND * 10).await;
        assert_eq!(fake.reads() - before, 10);
        for subscription in &mut subscriptions {
            let first = next(subscription).await;
            assert_eq!(first.sample.unwrap().sequence, 1);
            assert_eq!(next(subscription).await.sample.unwrap().sequence, 2);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn different_intervals_share_the_sampler_and_each_gets_its_groups() {
        let (fake, sampler) = fixture();
        let mut fast = sampler.subscribe(Groups::CPU, SECOND).unwrap();
        let mut slow = sampler.subscribe(Groups::MEMORY, SECOND * 3).unwrap();
        let before = fake.reads();
        for _ in 0..7 {
            let sample = next(&mut fast).await.sample.unwrap();
            assert!(sample.cpu.is_some() && sample.memory.is_none());
        }
        assert_eq!(
            fake.reads() - before,
            6,
            "the slow one's ticks fall on the fast one's"
        );
        for sequence in 1..=3 {
            let sample = next(&mut slow).await.sample.unwrap();
            assert_eq!(sample.sequence, sequence);
            assert!(sample.cpu.is_none() && sample.memory.is_some());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stuck_subscriber_loses_its_oldest_samples_and_delays_nobody() {
        let (_, sampler) = fixture();
        let mut stuck = sampler.subscribe(Groups::CPU, SECOND).unwrap();
        let mut lively = sampler.subscribe(Groups::CPU, SECOND).unwrap();
        let total = SUBSCRIBER_BUFFER as u64 + 5;
        for sequence in 1..=total {
            let message = next(&mut lively).await;
            assert_eq!(
                (message.sample.unwrap().sequence, message.dropped),
                (sequence, 0)
            );
        }
        let message = next(&mut stuck).await;
        assert_eq!((message.sample.unwrap().sequence, message.dropped), (6, 5));
        let message = next(&mut stuck).await;
        let sample = message.sample.unwrap();
        assert_eq!(
            (sample.sequence, message.dropped),
            (7, 0),
            "what was lost is told once"
        );
        assert_eq!(sample.cpu.unwrap().busy_percent.map(f64::round), Some(50.0));
    }

    #[tokio::test(start_paused = true)]
    async fn without_subscribers_the_sampler_sleeps_and_wakes_again() {
        let (fake, sampler) = fixture();
        let subscription = sampler.subscribe(Groups::CPU, SECOND).unwrap();
        tokio::time::sleep(SECOND * 2).await;
        drop(subscription);
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        assert_eq!(sampler.shared.lock().phase, Phase::Idle);
        assert!(sampler.shared.lock().cohorts.is_empty());
        let before = fake.reads();
        tokio::time::sleep(SECOND * 100).await;
        assert_eq!(fake.reads(), before);
        let mut again = sampler.subscribe(Groups::CPU, SECOND).unwrap();
        assert_eq!(next(&mut again).await.sample.unwrap().sequence, 1);
        assert_eq!(next(&mut again).await.sample.unwrap().sequence, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_joins_a_cohort_is_not_served_twice_in_a_row() {
        let (_, sampler) = fixture();
        let _first = sampler.subscribe(Groups::CPU, SECOND).unwrap();
        tokio::time::sleep(Duration::from_millis(900)).await;
        let joined = Instant::now();
        let mut late = sampler.subscribe(Groups::CPU, SECOND).unwrap();
        next(&mut late).await;
        next(&mut late).await;
        let gap = joined.elapsed();
        assert!(gap >= SECOND / 2 && gap <= SECOND * 3 / 2, "{gap:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn readings_are_bounded_however_many_intervals_there_are() {
        let (fake, sampler) = fixture();
        let subscriptions: Vec<_> = (0..1000)
            .map(|number| {
                sampler
                    .subscribe(Groups::CPU, Duration::from_millis(100 + number))
                    .unwrap()
            })
            .collect();
        tokio::time::sleep(SECOND * 10).await;
        let bound = SECOND.as_millis() / SAMPLE_FRESHNESS.as_millis() * 10;
        assert!(
            (fake.reads() as u128) <= bound + 1,
            "{} readings",
            fake.reads()
        );
        drop(subscriptions);
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_fails_refuses_the_call_or_ends_the_stream() {
        let (fake, sampler) = fixture();
        let mut subscription = sampler.subscribe(Groups::CPU, SECOND).unwrap();
        fake.broken.store(true, Ordering::Relaxed);
        tokio::time::sleep(SECOND * 2).await;
        assert_eq!(
            sampler.subscribe(Groups::CPU, SECOND).unwrap_err().code(),
            Code::Unavailable
        );
        next(&mut subscription).await;
        let status = subscription.next().await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(subscription.next().await.is_none());
        assert!(sampler.shared.lock().subscribers.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn stopping_ends_every_stream_after_what_it_still_holds() {
        let (_, sampler) = fixture();
        let mut subscription = sampler.subscribe(Groups::CPU, SECOND).unwrap();
        sampler.stop();
        next(&mut subscription).await;
        let status = subscription.next().await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(
            sampler.subscribe(Groups::CPU, SECOND).unwrap_err().code(),
            Code::Unavailable
        );
    }

    #[tokio::test(start_paused = true)]
    async fn subscriptions_are_limited() {
        let (_, sampler) = fixture();
        let mut subscriptions: Vec<_> = (0..MAX_SUBSCRIBERS)
            .map(|_| sampler.subscribe(Groups::CPU, SECOND).unwrap())
            .collect();
        assert_eq!(
            sampler.subscribe(Groups::CPU, SECOND).unwrap_err().code(),
            Code::ResourceExhausted
        );
        subscriptions.pop();
        assert!(sampler.subscribe(Groups::CPU, SECOND).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_a_base_for_the_cpu_share_soon_after_the_first_reading() {
        let (_, sampler) = fixture();
        assert_eq!(sampler.cpu_base(), None);
        let first = sampler.read(Groups::CPU).unwrap().cpu.total.clone();
        assert_eq!(sampler.cpu_base(), None, "too young");
        tokio::time::sleep(CPU_BASE_MIN_AGE).await;
        assert_eq!(sampler.cpu_base(), first);
        // A reading just now does not take the base away.
        sampler.read(Groups::CPU).unwrap();
        assert_eq!(sampler.cpu_base(), first);
        tokio::time::sleep(CPU_BASE_MAX_AGE * 2).await;
        assert_eq!(sampler.cpu_base(), None, "too old");
    }
}
