//! What the daemon has been asked for: once each, however many subscribers want it.
//!
//! A daemon refuses a second registration for the same events on one connection, so subscribers share them:
//!
//! ```text
//!   absent ── first lease ──▶ registering ──▶ registered, n leases ── last lease dropped ──▶ deregistering ──▶ absent
//! ```
//!
//! Each arrow between the ends runs in a task of its own, under the topic's lock. So nothing is left half-way when a subscriber
//! goes away in between, and no registration overtakes the end of the one before it, which the daemon's workers would
//! allow.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use crate::error::{Error, RemoteError};
use crate::raw::api::{ErrorDomain, ErrorNumber};
use crate::rpc::{Client, ConnectionError, Procedure};

/// What the daemon is asked for: one kind of events.
#[derive(Debug, Clone)]
pub(crate) struct Topic {
    /// What it is, for people.
    pub(crate) kind: &'static str,
    /// Registers, with these arguments. Its result is the callback's number, or nothing.
    pub(crate) register: Procedure,
    pub(crate) arguments: Vec<u8>,
    pub(crate) about: About,
    /// The events that come then.
    pub(crate) event: Procedure,
    /// Takes the registration back, with the callback's number as its argument where there is one.
    pub(crate) deregister: Procedure,
}

/// What tells a registration from others by the same procedure, as the daemon sees it. Its arguments do not: they name an
/// object with all that a handle holds of it, and two handles of one domain may differ in its number, or in its name since
/// that was changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct About {
    /// The kind's number, where the procedure has several.
    pub(crate) kind: i32,
    /// The object's UUID, or its name if it has none; all objects if it is missing.
    pub(crate) object: Option<Vec<u8>>,
    /// What else the daemon goes by.
    pub(crate) filter: Option<String>,
}

/// The registrations of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Topics {
    client: Client,
    known: Arc<StdMutex<HashMap<Key, Arc<Entry>>>>,
    runtime: Handle,
}

/// The registering procedure, and what it is about.
type Key = (u32, i32, About);

/// What the daemon was asked for, once it was; locked while it is asked.
type Entry = Mutex<Option<Registered>>;

#[derive(Debug)]
struct Registered {
    callback: Option<i32>,
    leases: usize,
}

/// Keeps a registration.
#[derive(Debug)]
pub(crate) struct Lease {
    topics: Topics,
    topic: Topic,
    callback: Option<i32>,
}

// === impl Topics ===

impl Topics {
    /// None yet. Must be called on a runtime, as the client was.
    pub(crate) fn new(client: &Client) -> Self {
        Self {
            client: client.clone(),
            known: Arc::default(),
            runtime: Handle::current(),
        }
    }

    /// The connection.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Registers for a topic, unless that has been done.
    pub(crate) async fn lease(&self, topic: &Topic) -> Result<Lease, Error> {
        let (topics, topic) = (self.clone(), topic.clone());
        let task = self
            .runtime
            .spawn(async move { topics.register(topic).await });
        // The task neither panics nor is aborted, unless the runtime ends.
        task.await
            .unwrap_or(Err(Error::Connection(ConnectionError::ClosedHere)))
    }

    async fn register(self, topic: Topic) -> Result<Lease, Error> {
        let entry = self.entry(&topic);
        let callback = self.register_in(&entry, &topic).await;
        self.forget(&entry, &topic);
        Ok(Lease {
            callback: callback?,
            topics: self,
            topic,
        })
    }

    async fn register_in(&self, entry: &Entry, topic: &Topic) -> Result<Option<i32>, Error> {
        let mut registered = entry.lock().await;
        if let Some(known) = &mut *registered {
            known.leases += 1;
            return Ok(known.callback);
        }
        let arguments = topic.arguments.clone();
        let reply = self.client.call(&topic.register, arguments).await;
        let reply = reply.map_err(|error| topic.refused(error))?;
        let callback = callback(&reply);
        let leases = 1;
        *registered = Some(Registered { callback, leases });
        Ok(callback)
    }

    async fn release(self, topic: Topic) {
        let entry = self.entry(&topic);
        let mut registered = entry.lock().await;
        if let Some(known) = &mut *registered {
            known.leases -= 1;
        }
        if let Some(Registered { callback, .. }) = registered.take_if(|known| known.leases == 0) {
            let argument =
                callback.map_or_else(Vec::new, |callback| callback.to_be_bytes().to_vec());
            // It fails only with the connection, and then there is nothing to take back.
            let _ = self.client.call(&topic.deregister, argument).await;
        }
        drop(registered);
        self.forget(&entry, &topic);
    }

    fn entry(&self, topic: &Topic) -> Arc<Entry> {
        Arc::clone(self.known().entry(topic.key()).or_default())
    }

    /// An entry that nobody uses and for which nothing is registered is not kept.
    fn forget(&self, entry: &Arc<Entry>, topic: &Topic) {
        let mut known = self.known();
        // The table's and the caller's own: while the table is locked, nobody gets another.
        let unused = Arc::strong_count(entry) == 2;
        if unused && entry.try_lock().is_ok_and(|entry| entry.is_none()) {
            known.remove(&topic.key());
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Key, Arc<Entry>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Topic ===

impl Topic {
    fn key(&self) -> Key {
        let Procedure {
            program, number, ..
        } = self.register;
        (program, number, self.about.clone())
    }

    /// What it means that registering has failed.
    fn refused(&self, error: Error) -> Error {
        match error {
            // An old daemon calls a number that it does not know an internal error, a younger one an invalid argument;
            // a hypervisor without such events, or a daemon without the procedure, does not support it.
            Error::Libvirt(refusal)
                if refusal.is(ErrorNumber::InternalError)
                    || refusal.is(ErrorNumber::InvalidArg) && !is_of_the_list(&refusal)
                    || refusal.is(ErrorNumber::NoSupport) =>
            {
                let kind = self.kind;
                Error::UnsupportedEvent { kind, refusal }
            }
            error => error,
        }
    }
}

// === impl Lease ===

impl Lease {
    /// The number by which the daemon marks these events, where it does.
    pub(crate) fn callback(&self) -> Option<i32> {
        self.callback
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (topics, topic) = (self.topics.clone(), self.topic.clone());
        self.topics.runtime.spawn(topics.release(topic));
    }
}

/// Whether the daemon's list of registrations says it, of a second one: it belongs to no part of libvirt, and a kind that
/// is not known is refused before it comes to the list.
fn is_of_the_list(refusal: &RemoteError) -> bool {
    refusal.domain == ErrorDomain::None
}

/// The callback's number, where a reply has one.
fn callback(reply: &Bytes) -> Option<i32> {
    reply
        .first_chunk::<4>()
        .map(|word| i32::from_be_bytes(*word))
}
