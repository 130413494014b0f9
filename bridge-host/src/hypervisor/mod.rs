//! The hypervisors that the bridge follows: the connections to them, and what happens to their domains.
//!
//! ```text
//!                  the connection that reads, guests' names             lists, looks
//!   discovery ──────────────────────────────────────────▶ Hypervisor ──────────────▶ domains
//!       └──── what happens ──▶ News, of all hypervisors ──────────────────────────────▶
//!                                                             │ opened when somebody first changes something, then kept
//!                                                             └─────▶ the connection that writes
//! ```
//!
//! Discovery's connection may only read, so that a bridge whose user may do no more finds its guests all the same, and so that
//! a call that takes minutes (a start, a stop) does not hold up what discovery asks.

mod message;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use libvirt::{
    Backoff, Builder, Connect, ConnectState, Domain, Error,
    domain::StateAndReason,
    events::LifecycleEvent,
    uri::{Transport, Uri},
};
use tokio::{
    sync::{Semaphore, SemaphorePermit, broadcast},
    time::timeout,
};
use vbridge_api::host::v1::{
    Domain as DomainMessage, DomainEvent as EventMessage, Hypervisor as HypervisorMessage,
};

use crate::limits::{
    HYPERVISOR_ANSWER, HYPERVISOR_LOOK, HYPERVISOR_RECONNECT_MAX, HYPERVISOR_RETRY_FIRST,
    STREAMS_OPENED_AT_ONCE, WATCH_BACKLOG,
};

/// All hypervisors, in the order in which the operator has named them.
#[derive(Debug, Clone)]
pub(crate) struct Hypervisors {
    all: Vec<Arc<Hypervisor>>,
    news: broadcast::Sender<News>,
}

/// What is told of hypervisors.
#[derive(Debug, Clone)]
pub(crate) enum News {
    /// Something has happened to a domain.
    Event(Arc<EventMessage>),
    /// What has happened at this hypervisor is not known: it is to be looked at anew.
    Unknown(Arc<str>),
}

/// A hypervisor.
pub(crate) struct Hypervisor {
    uri: Arc<str>,
    known: Mutex<Known>,
    writing: tokio::sync::Mutex<Option<Connect>>,
    turns: Semaphore,
    news: broadcast::Sender<News>,
}

/// What discovery knows of it.
struct Known {
    reading: Result<Connect, String>,
    host: String,
    /// The names of guests by their domains' UUIDs.
    guests: HashMap<String, String>,
}

// === impl Hypervisors ===

impl Hypervisors {
    /// None yet.
    pub(crate) fn new() -> Self {
        let (news, _) = broadcast::channel(WATCH_BACKLOG);
        Self {
            all: Vec::new(),
            news,
        }
    }

    /// Adds one, of which nothing is known yet.
    pub(crate) fn add(&mut self, uri: &str) -> Arc<Hypervisor> {
        let known = Known {
            reading: Err("the bridge has just begun to connect it".to_owned()),
            host: String::new(),
            guests: HashMap::new(),
        };
        let hypervisor = Arc::new(Hypervisor {
            uri: uri.into(),
            known: Mutex::new(known),
            writing: tokio::sync::Mutex::default(),
            turns: Semaphore::new(STREAMS_OPENED_AT_ONCE),
            news: self.news.clone(),
        });
        self.all.push(Arc::clone(&hypervisor));
        hypervisor
    }

    /// All of them, in the operator's order.
    pub(crate) fn all(&self) -> &[Arc<Hypervisor>] {
        &self.all
    }

    /// The one with this URI.
    pub(crate) fn by_uri(&self, uri: &str) -> Option<&Arc<Hypervisor>> {
        self.all.iter().find(|hypervisor| hypervisor.uri() == uri)
    }

    /// Tells all who watch.
    #[cfg(test)]
    pub(crate) fn publish(&self, event: EventMessage) {
        let _ = self.news.send(News::Event(Arc::new(event)));
    }

    /// What happens from now on.
    pub(crate) fn news(&self) -> broadcast::Receiver<News> {
        self.news.subscribe()
    }
}

// === impl Hypervisor ===

impl Hypervisor {
    /// Its URI, as the operator has written it.
    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    /// What its host calls itself; empty if it is not known.
    pub(crate) fn host(&self) -> String {
        self.known().host.clone()
    }

    /// Whether its domains' channels are sockets of this host.
    pub(crate) fn is_local(&self) -> bool {
        Uri::parse(&self.uri)
            .is_ok_and(|uri| uri.transport() == Transport::Unix && uri.host().is_none())
    }

    /// The connection that reads, or why there is none. It may have broken: its calls say so at once.
    pub(crate) fn reading(&self) -> Result<Connect, String> {
        self.known().reading.clone()
    }

    /// A connection to it, not opened yet. It is opened again whenever it breaks.
    pub(crate) fn connection(&self) -> Builder {
        Connect::builder(&self.uri)
            .open_within(HYPERVISOR_ANSWER)
            .deadline(HYPERVISOR_ANSWER)
            .reconnect(Backoff {
                first: HYPERVISOR_RETRY_FIRST,
                most: HYPERVISOR_RECONNECT_MAX,
            })
    }

    /// The connection that changes something, which is opened if need be and stays open.
    pub(crate) async fn writing(&self) -> Result<Connect, Error> {
        let connect = match timeout(HYPERVISOR_ANSWER, self.open_writing()).await {
            Ok(opened) => opened?,
            Err(_) => return Err(self.too_slow(HYPERVISOR_ANSWER)),
        };
        match timeout(HYPERVISOR_LOOK, connect.ready()).await {
            Ok(ready) => ready?,
            // It says why it is not.
            Err(_) => drop(connect.client()?),
        }
        Ok(connect)
    }

    /// One opens it, and the others wait for that.
    async fn open_writing(&self) -> Result<Connect, Error> {
        let mut writing = self.writing.lock().await;
        let is_over = |connect: &Connect| matches!(connect.state(), ConnectState::Ended(_));
        if let Some(connect) = writing.as_ref().filter(|connect| !is_over(connect)) {
            return Ok(connect.clone());
        }
        let connect = self.connection().open().await?;
        *writing = Some(connect.clone());
        Ok(connect)
    }

    /// A turn at opening a stream: a daemon that comes back is not asked for all of its guests at once.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.turns.acquire().await.ok()
    }

    /// The error of what took longer than that.
    pub(crate) fn too_slow(&self, limit: Duration) -> Error {
        Error::OpeningTooSlow {
            uri: self.uri.to_string(),
            limit,
        }
    }

    /// It can be asked from now on.
    pub(crate) fn is_up(&self, connect: &Connect, host: String) {
        let mut known = self.known();
        known.reading = Ok(connect.clone());
        known.host = host;
    }

    /// It can't be asked any more.
    pub(crate) fn is_away(&self, why: String) {
        self.known().reading = Err(why);
        self.unknown();
    }

    /// A domain is a guest of this name.
    pub(crate) fn has_guest(&self, uuid: &str, guest: &str) {
        let (uuid, guest) = (uuid.to_owned(), guest.to_owned());
        self.known().guests.insert(uuid, guest);
    }

    /// A domain is no guest any more.
    pub(crate) fn has_no_guest(&self, uuid: &str) {
        self.known().guests.remove(uuid);
    }

    /// The name of the guest that the domain is, if it is one.
    pub(crate) fn guest(&self, uuid: &str) -> Option<String> {
        self.known().guests.get(uuid).cloned()
    }

    /// The UUID of the domain that is the guest of this name, in any letter case.
    pub(crate) fn domain_of(&self, guest: &str) -> Option<String> {
        let known = self.known();
        let mut guests = known.guests.iter();
        let found = guests.find(|(_, name)| name.eq_ignore_ascii_case(guest));
        found.map(|(uuid, _)| uuid.clone())
    }

    /// Something has happened to a domain, which was found like this afterwards.
    pub(crate) fn tell(
        &self,
        event: LifecycleEvent,
        domain: &Domain,
        state: Option<StateAndReason>,
        removed: bool,
    ) {
        let domain = self.describe(domain, state);
        // Nobody may be watching.
        let _ = self.news.send(News::Event(Arc::new(message::event(
            event, domain, removed,
        ))));
    }

    /// What has happened is not known.
    pub(crate) fn unknown(&self) {
        // Nobody may be watching.
        let _ = self.news.send(News::Unknown(Arc::clone(&self.uri)));
    }

    /// A domain as the host API shows it.
    pub(crate) fn describe(&self, domain: &Domain, state: Option<StateAndReason>) -> DomainMessage {
        let uuid = domain.uuid().to_string();
        DomainMessage {
            hypervisor: self.uri.to_string(),
            host: self.host(),
            name: domain.name().to_owned(),
            id: domain.id(),
            state: message::state(state).into(),
            state_reason: state.map(message::reason).unwrap_or_default(),
            guest: self.guest(&uuid).unwrap_or_default(),
            uuid,
        }
    }

    /// The hypervisor as the host API shows it, and why it can't be asked.
    pub(crate) fn message(&self, unreachable: impl Into<String>) -> HypervisorMessage {
        HypervisorMessage {
            uri: self.uri.to_string(),
            host: self.host(),
            unreachable: unreachable.into(),
        }
    }

    // What is done under the lock can't panic half-way.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Hypervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hypervisor").field(&self.uri).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hypervisor_that_is_not_there_says_why_and_its_guests_are_known_by_name() {
        let mut hypervisors = Hypervisors::new();
        let mut news = hypervisors.news();
        let uri = "qemu:///system?socket=/nowhere/libvirt-sock";
        let hypervisor = hypervisors.add(uri);
        assert!(hypervisor.reading().is_err());
        hypervisor.is_away("it has gone".to_owned());
        assert_eq!(hypervisor.reading().err().as_deref(), Some("it has gone"));
        assert!(matches!(news.try_recv(), Ok(News::Unknown(of)) if &*of == uri));
        let error = hypervisor.writing().await.unwrap_err().to_string();
        assert!(error.contains("/nowhere/libvirt-sock"), "{error}");
        hypervisor.has_guest("some-uuid", "Web@far");
        assert_eq!(
            hypervisor.domain_of("web@FAR").as_deref(),
            Some("some-uuid")
        );
        hypervisor.has_no_guest("some-uuid");
        assert_eq!(hypervisor.domain_of("Web@far"), None);
        assert!(hypervisors.by_uri(uri).is_some() && hypervisors.by_uri("").is_none());
    }
}
