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

mod domain;
mod objects;

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::Stream;

pub use domain::{DomainEvent, DomainEventId, DomainEventKind};
pub use objects::{
    MonitorEvent, NetworkEvent, NetworkEventKind, NodeDeviceEvent, NodeDeviceEventKind,
    SecretEvent, SecretEventKind, StoragePoolEvent, StoragePoolEventKind,
};

use crate::connect::Connect;
use crate::error::Error;
use crate::rpc::{Client, Interruption, Message, Messages, Procedure};

/// Events of one kind, in the order in which the daemon sent them: a [`Stream`], with [`next`](Self::next) for those who
/// need no more.
///
/// A subscriber that is behind holds nobody up: beyond the queue's capacity the oldest events make room, and
/// [`Notice::Missed`] says how many.
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

/// What the daemon is asked for: one kind of events.
#[derive(Debug, Clone)]
pub(crate) struct Topic {
    /// Registers, with these arguments. Its result is the callback's number, or nothing.
    pub(crate) register: Procedure,
    pub(crate) arguments: Vec<u8>,
    /// The events that come then.
    pub(crate) event: Procedure,
    /// Takes the registration back, with the callback's number as its argument.
    pub(crate) deregister: Procedure,
    /// A daemon that does not know it is asked for the rest.
    pub(crate) optional: bool,
}

/// Topics that share a queue, on whatever connection there is.
#[derive(Debug)]
pub(crate) struct Registration {
    id: u64,
    topics: Vec<Topic>,
    capacity: Option<usize>,
    slot: Mutex<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    /// The queues of the connections so far; all but the last belong to connections that have ended.
    queues: VecDeque<Messages>,
    /// The subscriber has come to the end of a connection, and has not been told of the next one.
    interrupted: bool,
    /// The callbacks on the newest connection.
    callbacks: Vec<(Procedure, i32)>,
    client: Option<Client>,
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
        let client = connect.client()?;
        let registration = connect.registrations().add(topics, capacity);
        // Dropped half-way, it takes itself back.
        let events = Self {
            connect: connect.clone(),
            registration,
            decode,
            done: false,
        };
        events.registration.register(&client).await?;
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
        slot.deregister();
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
    /// Registers all topics on a connection; events from then on are in the slot's newest queue.
    pub(crate) async fn register(&self, client: &Client) -> Result<(), Error> {
        let events: Vec<_> = self.topics.iter().map(|topic| topic.event).collect();
        // Before the daemon is asked: then no event can be missed.
        let mut messages = client.subscribe(&events, self.capacity)?;
        let mut callbacks = Vec::new();
        for topic in &self.topics {
            let reply = match client.call(&topic.register, topic.arguments.clone()).await {
                // An unknown number is an invalid argument to the daemon.
                Err(Error::Libvirt(_)) if topic.optional => continue,
                reply => reply?,
            };
            if let Some(callback) = callback(&reply) {
                messages.only(&topic.event, callback);
                callbacks.push((topic.deregister, callback));
            }
        }
        let mut slot = self.slot();
        slot.queues.push_back(messages);
        slot.callbacks = callbacks;
        slot.client = Some(client.clone());
        if slot.ended {
            slot.deregister();
        }
        slot.wake();
        Ok(())
    }

    /// As [`register`](Self::register), on a connection that was opened anew: what the daemon refuses there is told to the
    /// subscriber, and is no reason not to use the connection.
    pub(crate) async fn register_again(&self, client: &Client) -> Result<(), Error> {
        match self.register(client).await {
            Err(refusal @ Error::Libvirt(_)) => {
                let mut slot = self.slot();
                slot.refused = Some(refusal);
                slot.wake();
                Ok(())
            }
            result => result,
        }
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The callback's number, where a reply has one.
fn callback(reply: &Bytes) -> Option<i32> {
    reply
        .first_chunk::<4>()
        .map(|word| i32::from_be_bytes(*word))
}

// === impl Slot ===

impl Slot {
    fn deregister(&mut self) {
        let callbacks = std::mem::take(&mut self.callbacks);
        if let Some(client) = self.client.take() {
            for (procedure, callback) in callbacks {
                client.post(&procedure, &callback.to_be_bytes());
            }
        }
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
            slot.client = None;
            slot.wake();
        }
    }
}
