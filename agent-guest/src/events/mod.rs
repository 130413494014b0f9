//! Events of the guest: who knows of them, and who wants to.
//!
//! ```text
//!    Exec, Storage, Power, the agent's end ──────────────────────────┐ publish
//!                                                                    ▼
//!    ports, OOM kills, the clock, the policy ──▶ their watchers ──▶ the bus ──▶ subscriptions
//!                                                    ▲                              │
//!                                                    └── exist while one wants them ┘
//! ```
//!
//! A source that has to be looked at has one watcher however many subscribers. It begins with the first that wants one of its
//! kinds, whose call waits until the watcher has seen how things are; and it ends with the last.
//!
//! | module | what it is |
//! |---|---|
//! | [`bus`] | the way from those who know to those who want to |
//! | [`kinds`] | which events |
//! | [`watchers`] | those who look |

mod bus;
mod kinds;
mod watchers;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures_util::stream::{self, BoxStream};
use prost_types::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use vbridge_api::guest::v1::{
    AgentStarted, EventKind, EventsSubscribeResponse, events_subscribe_response::Event,
};

pub(crate) use self::{bus::Bus, kinds::Kinds};
use self::{
    bus::Receiver,
    watchers::{Sources, Watched, Watchers},
};
use crate::{
    agent, error,
    limits::MAX_EVENT_SUBSCRIBERS,
    policy::Policy,
    source::{Reader, clock},
};

/// What a subscriber gets.
pub(crate) type Events = BoxStream<'static, Result<EventsSubscribeResponse, Status>>;

/// Where one subscribes. Clones are the same.
#[derive(Clone)]
pub(crate) struct Hub {
    bus: Bus,
    watchers: Watchers,
    places: Arc<Semaphore>,
    started: Timestamp,
    stopping: Arc<AtomicBool>,
}

/// One who has subscribed.
struct Subscription {
    receiver: Receiver,
    kinds: Kinds,
    first: Option<EventsSubscribeResponse>,
    is_stopped: bool,
    _watched: Watched,
    _place: OwnedSemaphorePermit,
}

// === impl Hub ===

impl Hub {
    pub(crate) fn new(bus: Bus, policy: Policy) -> Self {
        Self {
            watchers: Watchers::new(Sources::new(bus.clone(), policy, "/")),
            bus,
            places: Arc::new(Semaphore::new(MAX_EVENT_SUBSCRIBERS)),
            started: clock::now(),
            stopping: Arc::default(),
        }
    }

    /// Tells what happens from now on.
    pub(crate) async fn subscribe(&self, kinds: Kinds) -> Result<Events, Status> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place =
            place.map_err(|_| error::too_many_subscribers("event", MAX_EVENT_SUBSCRIBERS))?;
        let receiver = self.bus.subscribe(kinds);
        // Whoever is there before this is set gets the last event.
        if self.stopping.load(Ordering::SeqCst) {
            return Err(error::agent_stopping());
        }
        let first = kinds.contains(EventKind::AgentStarted);
        let subscription = Subscription {
            receiver,
            kinds,
            first: first.then(|| self.agent_started()),
            is_stopped: false,
            _watched: self.watchers.watch(kinds).await,
            _place: place,
        };
        let events = stream::unfold(Some(subscription), |subscription| async move {
            let mut subscription = subscription?;
            Some(match subscription.next().await {
                Ok(message) => (Ok(message), Some(subscription)),
                Err(status) => (Err(status), None),
            })
        });
        Ok(Box::pin(events))
    }

    /// The last event of all: the agent stops.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.bus.publish(Event::AgentStopping(true));
    }

    fn agent_started(&self) -> EventsSubscribeResponse {
        EventsSubscribeResponse {
            time: Some(clock::now()),
            dropped: 0,
            event: Some(Event::AgentStarted(AgentStarted {
                start_time: Some(self.started),
                boot_id: Reader::new().line("proc/sys/kernel/random/boot_id"),
                version: agent::VERSION.to_owned(),
            })),
        }
    }
}

// === impl Subscription ===

impl Subscription {
    /// The next event, or why there are no more.
    async fn next(&mut self) -> Result<EventsSubscribeResponse, Status> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        if self.is_stopped {
            return Err(error::agent_stopping());
        }
        let message = self.receiver.next().await;
        let message = message.ok_or_else(error::agent_stopping)?;
        if let Some(Event::AgentStopping(_)) = message.event {
            self.is_stopped = true;
            if !self.kinds.contains(EventKind::AgentStopping) {
                return Err(error::agent_stopping());
            }
        }
        Ok(message)
    }
}
