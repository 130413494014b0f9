//! What happens on a hypervisor, as it happens.
//!
//! A registration belongs to the [`Connect`], not to one connection: when that was opened anew, its subscriptions have
//! been registered again, and the subscriber gets [`Notice::Reconnected`] in its place in the order, since what happened
//! meanwhile was told to nobody.
//!
//! ```text
//!   daemon ── event ──▶ Messages (bounded queue of one connection) ──▶ slot ──▶ Events<T> ──▶ subscriber
//!                                                                      ▲
//!                          supervisor: a new connection's Messages ────┘
//! ```
//!
//! There is a family of events for each kind of object, and in each family there are kinds with numbers of libvirt's: a
//! subscriber names those that it wants. **A kind that the daemon does not have is an error**, in every family, which
//! names it: an event that never comes should not look like one that has not happened yet. Which kinds there are is
//! another question, with an answer of its own:
//!
//! ```no_run
//! # async fn watch(connect: libvirt::Connect) -> Result<(), libvirt::Error> {
//! let kinds = connect.supported_network_events().await?;
//! let events = connect.network_events(&kinds, None, None).await?;
//! # Ok(())
//! # }
//! ```

mod domain;
mod family;
mod lifecycle;
mod objects;
#[cfg(test)]
mod tests;
mod topics;

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_util::Stream;

pub use domain::{DomainEvent, DomainEventId, DomainEventKind, GraphicsAddress, GraphicsIdentity};
pub use lifecycle::LifecycleEvent;
pub use objects::{
    CloseEvent, MonitorEvent, NetworkEvent, NetworkEventId, NetworkEventKind, NodeDeviceEvent,
    NodeDeviceEventId, NodeDeviceEventKind, SecretEvent, SecretEventId, SecretEventKind,
    StoragePoolEvent, StoragePoolEventId, StoragePoolEventKind,
};

use crate::connect::Connect;
use crate::error::Error;
use crate::rpc::{Interruption, Message, Messages};
use topics::{About, Lease};
pub(crate) use topics::{Topic, Topics};

/// Events of one kind, in the order in which the daemon sent them: a [`Stream`], with [`next`](Self::next) for those who
/// need no more.
///
/// A subscriber that is behind holds nobody up: beyond the queue's capacity, or when they have more than 32 MiB together,
/// the oldest events make room, and [`Notice::Missed`] says how many.
pub struct Events<T> {
    connect: Connect,
    registration: Arc<Registration>,
    decode: fn(&Connect, &Message) -> Result<T, Error>,
    done: bool,
}

/// An event, or what a subscriber must know beside it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Notice<T> {
    /// It happened.
    Event(T),
    /// So many events were lost, because they came faster than they were taken. Look at the state anew.
    Missed(u64),
    /// The connection broke and was opened again. What happened in between is not known: look at the state anew.
    Reconnected,
}

/// Topics that share a queue, on whatever connection there is.
#[derive(Debug)]
pub(crate) struct Registration {
    id: u64,
    topics: Vec<Topic>,
    capacity: Option<usize>,
    slot: Mutex<Slot>,
}

/// Topics that are registered on one connection.
#[derive(Debug)]
pub(crate) struct Registered {
    messages: Messages,
    leases: Vec<Lease>,
}

#[derive(Debug, Default)]
struct Slot {
    /// The queues of the connections so far; all but the last belong to connections that have ended.
    queues: VecDeque<Messages>,
    /// The subscriber has come to the end of a connection, and has not been told of the next one.
    interrupted: bool,
    /// What the newest connection's daemon was asked for.
    leases: Vec<Lease>,
    /// No connection will follow.
    ended: bool,
    /// The daemon refused to register it on a new connection.
    refused: Option<Error>,
    waker: Option<Waker>,
}

/// All registrations of a [`Connect`].
#[derive(Debug, Default)]
pub(crate) struct Registrations {
    next: u64,
    all: BTreeMap<u64, Arc<Registration>>,
    ended: bool,
}

// === impl Events ===

impl<T> Events<T> {
    pub(crate) async fn subscribe(
        connect: &Connect,
        topics: Vec<Topic>,
        capacity: Option<usize>,
        decode: fn(&Connect, &Message) -> Result<T, Error>,
    ) -> Result<Self, Error> {
        let on = connect.topics()?;
        let registration = connect.registrations().add(topics, capacity);
        // Dropped half-way, it takes itself back.
        let events = Self {
            connect: connect.clone(),
            registration,
            decode,
            done: false,
        };
        let what = events.registration.name();
        let register = events.registration.register(&on);
        let registered = connect.within(what, register).await?;
        events.registration.install_first(registered);
        Ok(events)
    }

    /// The next event. `None` after an error, which is the last item: the connection has ended for good, or an event
    /// could not be read.
    pub async fn next(&mut self) -> Option<Result<Notice<T>, Error>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl<T> Unpin for Events<T> {}

impl<T> Stream for Events<T> {
    type Item = Result<Notice<T>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.done {
            return Poll::Ready(None);
        }
        let mut slot = self.registration.slot();
        let item = loop {
            if slot.interrupted && !slot.queues.is_empty() {
                slot.interrupted = false;
                break Ok(Notice::Reconnected);
            }
            let Some(messages) = slot.queues.front_mut() else {
                if let Some(refusal) = &slot.refused {
                    break Err(refusal.clone());
                }
                if slot.ended {
                    break Err(self.connect.why_ended());
                }
                slot.waker = Some(cx.waker().clone());
                return Poll::Pending;
            };
            match Pin::new(messages).poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => {
                    break (self.decode)(&self.connect, &message).map(Notice::Event);
                }
                Poll::Ready(Some(Err(Interruption::Missed(count)))) => {
                    break Ok(Notice::Missed(count));
                }
                Poll::Ready(Some(Err(Interruption::Ended(_))) | None) => {
                    slot.queues.pop_front();
                    slot.interrupted = true;
                }
                Poll::Pending => {
                    slot.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        };
        drop(slot);
        self.done = item.is_err();
        Poll::Ready(Some(item))
    }
}

impl<T> Drop for Events<T> {
    fn drop(&mut self) {
        self.connect.registrations().remove(self.registration.id);
        let mut slot = self.registration.slot();
        slot.ended = true;
        slot.clear();
    }
}

impl<T> std::fmt::Debug for Events<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events")
            .field("registration", &self.registration.id)
            .finish_non_exhaustive()
    }
}

// === impl Registration ===

impl Registration {
    /// Registers all topics on a connection; events from then on are in the queue that this gives.
    async fn register(&self, on: &Topics) -> Result<Registered, Error> {
        let events: Vec<_> = self.topics.iter().map(|topic| topic.event).collect();
        // Before the daemon is asked: then no event can be missed.
        let mut messages = on.client().subscribe(&events, self.capacity)?;
        let mut leases = Vec::with_capacity(self.topics.len());
        for topic in &self.topics {
            let lease = on.lease(topic).await?;
            if let Some(callback) = lease.callback() {
                messages.only(&topic.event, callback);
            }
            leases.push(lease);
        }
        Ok(Registered { messages, leases })
    }

    /// As [`register`](Self::register), on a connection that was opened anew: what the daemon refuses there is told to the
    /// subscriber, and is no reason not to use the connection.
    pub(crate) async fn register_again(&self, on: &Topics) -> Result<Option<Registered>, Error> {
        match self.register(on).await {
            Err(refusal) if refusal.remote().is_some() => {
                let mut slot = self.slot();
                slot.refused = Some(refusal);
                slot.wake();
                Ok(None)
            }
            registered => registered.map(Some),
        }
    }

    /// The procedure that registers it, or the first of them.
    fn name(&self) -> &'static str {
        let first = self.topics.first();
        first.map_or("a registration", |topic| topic.register.name)
    }

    /// As [`install`](Self::install), of the connection on which the subscriber has begun. If that has broken in the
    /// meantime, the one that followed is installed already.
    fn install_first(&self, registered: Registered) {
        let mut slot = self.slot();
        if slot.queues.is_empty() && slot.leases.is_empty() && slot.refused.is_none() {
            slot.install(registered);
        }
    }

    /// Lets the subscriber have the events of a connection. Whoever hears of the connection by that can use it: it is up.
    pub(crate) fn install(&self, registered: Registered) {
        self.slot().install(registered);
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Slot ===

impl Slot {
    fn install(&mut self, registered: Registered) {
        // A subscriber that takes nothing while connections come and go keeps the first and the last of them. Of those in
        // between it is told that it has to look anew, as of each.
        self.queues.truncate(1);
        self.queues.push_back(registered.messages);
        self.leases = registered.leases;
        self.refused = None;
        if self.ended {
            self.clear();
        }
        self.wake();
    }

    fn clear(&mut self) {
        self.leases.clear();
        self.queues.clear();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

// === impl Registrations ===

impl Registrations {
    fn add(&mut self, topics: Vec<Topic>, capacity: Option<usize>) -> Arc<Registration> {
        let id = self.next;
        self.next += 1;
        let registration = Arc::new(Registration {
            id,
            topics,
            capacity,
            slot: Mutex::new(Slot {
                ended: self.ended,
                ..Slot::default()
            }),
        });
        self.all.insert(id, Arc::clone(&registration));
        registration
    }

    fn remove(&mut self, id: u64) {
        self.all.remove(&id);
    }

    /// All of them, to be registered on a new connection.
    pub(crate) fn all(&self) -> Vec<Arc<Registration>> {
        self.all.values().cloned().collect()
    }

    /// No connection will follow.
    pub(crate) fn end(&mut self) {
        self.ended = true;
        for registration in self.all.values() {
            let mut slot = registration.slot();
            slot.ended = true;
            slot.leases.clear();
            slot.wake();
        }
    }
}
