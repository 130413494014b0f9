//! What happens in the guest, from those who know it to those who have subscribed.
//!
//! A publisher never waits. A subscriber that is behind by more than [`EVENT_BUFFER`] events loses the oldest. Each event
//! carries how many of each kind there have been with it, so that the subscriber can be told how many of *its* kinds are
//! gone, although it has never seen them.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::broadcast::{self, error::RecvError};
use vbridge_api::guest::v1::{
    EventKind, EventsSubscribeResponse, events_subscribe_response::Event,
};

use super::kinds::{KINDS, Kinds, index, kind_of};
use crate::{limits::EVENT_BUFFER, source::clock};

/// How many events of each kind there were.
type Counts = [u64; KINDS];

/// The way from publishers to subscribers. Clones are the same way.
#[derive(Debug, Clone)]
pub(crate) struct Bus(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    sender: broadcast::Sender<Arc<Published>>,
    /// Locked while an event is sent, too: their order is that of the counts.
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Published {
    message: EventsSubscribeResponse,
    counts: Counts,
}

/// One subscriber's end.
#[derive(Debug)]
pub(crate) struct Receiver {
    receiver: broadcast::Receiver<Arc<Published>>,
    kinds: Kinds,
    seen: Counts,
}

impl Bus {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            sender: broadcast::Sender::new(EVENT_BUFFER),
            counts: Mutex::default(),
        }))
    }

    /// Tells all who have subscribed, with the time of now.
    pub(crate) fn publish(&self, event: Event) {
        // Nothing that holds it can panic half-way.
        let mut counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts[index(kind_of(&event))] += 1;
        let message = EventsSubscribeResponse {
            time: Some(clock::now()),
            dropped: 0,
            event: Some(event),
        };
        let counts = *counts;
        // Without subscribers nobody needs to know.
        let _ = self.0.sender.send(Arc::new(Published { message, counts }));
    }

    /// What happens from now on.
    pub(crate) fn subscribe(&self, kinds: Kinds) -> Receiver {
        let counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        Receiver {
            receiver: self.0.sender.subscribe(),
            kinds,
            seen: *counts,
        }
    }
}

impl Receiver {
    /// The next event of the kinds asked for, or that the agent stops; `None` if there will be no more.
    pub(crate) async fn next(&mut self) -> Option<EventsSubscribeResponse> {
        loop {
            let published = match self.receiver.recv().await {
                Ok(published) => published,
                // The counts tell how many.
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return None,
            };
            let kind = published.message.event.as_ref().map(kind_of)?;
            if !self.kinds.contains(kind) && kind != EventKind::AgentStopping {
                continue;
            }
            let seen = std::mem::replace(&mut self.seen, published.counts);
            let wanted = |at: &usize| self.kinds.contains_index(*at);
            let new: u64 = (0..KINDS)
                .filter(wanted)
                .map(|at| published.counts[at] - seen[at])
                .sum();
            let mut message = published.message.clone();
            message.dropped = new.saturating_sub(1);
            return Some(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn power(number: usize) -> Event {
        Event::Power(number.to_string())
    }

    #[tokio::test]
    async fn who_is_too_slow_loses_the_oldest_of_its_kinds_and_is_told_how_many() {
        let bus = Bus::new();
        bus.publish(power(99));
        let mut receiver = bus.subscribe(Kinds::new([EventKind::Power]));
        for number in 0..EVENT_BUFFER {
            bus.publish(power(number));
            bus.publish(Event::PolicyLoaded("full".to_owned()));
        }
        // Half of those that are kept are of the other kind.
        let first = receiver.next().await.unwrap();
        let lost = EVENT_BUFFER / 2;
        assert_eq!(first.event, Some(power(lost)));
        assert_eq!(first.dropped, u64::try_from(lost).unwrap());
        let second = receiver.next().await.unwrap();
        assert_eq!((second.event, second.dropped), (Some(power(lost + 1)), 0));
    }

    #[tokio::test]
    async fn kinds_that_were_not_asked_for_do_not_come_and_do_not_count() {
        let bus = Bus::new();
        let mut receiver = bus.subscribe(Kinds::new([EventKind::Power]));
        bus.publish(Event::PolicyLoaded("full".to_owned()));
        bus.publish(power(1));
        let message = receiver.next().await.unwrap();
        assert_eq!((message.event, message.dropped), (Some(power(1)), 0));
        bus.publish(Event::AgentStopping(true));
        let last = receiver.next().await.unwrap();
        assert_eq!(
            last.event,
            Some(Event::AgentStopping(true)),
            "the end is for all"
        );
        drop(bus);
        assert_eq!(receiver.next().await, None);
    }
}
