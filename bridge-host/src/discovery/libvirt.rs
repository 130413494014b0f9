//! Follows the domains of a hypervisor.
//!
//! ```text
//!                 opened, subscribed: a review            an event: one domain
//!   Connecting ─────────────────────────────▶ Following ◀────────────────────┐
//!       ▲                                      │  │  └──────────────────────┘
//!       │ it can't be opened anew              │  │ reconnected, events missed, every minute: a review
//!       └──────────────────────────────────────┘  └──────▶ (the same)
//! ```
//!
//! While the daemon is away, the guests stay as they were: a local guest's channel does not depend on it. One on another host is
//! a stream through it, which ends with it and is opened again.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
};

use futures_util::future::join_all;
use libvirt::{
    Connect, ConnectState, Domain, Error, Events, Notice,
    domain::StateAndReason,
    events::{DomainEvent, DomainEventId, DomainEventKind},
    raw::api::{ConnectListAllDomainsFlags, DomainState, DomainXmlFlags, ErrorNumber},
    rpc::ConnectionError,
};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{debug, info, warn};

use super::domain::Channel;
use crate::{
    bridge::check_name,
    channel::QGA_CHANNEL,
    guest::{Guest, GuestSpec},
    guests::{Guests, Refusal},
    hypervisor::Hypervisor,
    limits::{
        HYPERVISOR_LOOK, HYPERVISOR_QUESTIONS, HYPERVISOR_RETRY_FIRST, HYPERVISOR_RETRY_MAX,
        HYPERVISOR_REVIEW,
    },
    machine::Machine,
    place::{AgentPlace, Channel as Place, StreamPlace},
};

/// What a domain's name, state and channel depend on.
const EVENTS: [DomainEventId; 3] = [
    DomainEventId::Lifecycle,
    DomainEventId::DeviceAdded,
    DomainEventId::DeviceRemoved,
];

/// A hypervisor that is followed, and what is known of it.
struct Following {
    hypervisor: Arc<Hypervisor>,
    channel: String,
    /// Whether qemu-guest-agent is enough.
    qemu_agent: bool,
    /// Its host's name, for guests whose name is taken.
    host: String,
    guests: Guests,
    /// By the domains' UUIDs.
    known: HashMap<String, Known>,
    /// Domains that are left out, by their UUIDs, and why: it is logged once.
    left_out: HashMap<String, String>,
    /// Why the hypervisor could not be asked, as it was logged.
    complaint: Option<String>,
}

/// A domain that is a guest.
struct Known {
    domain: String,
    guest: Arc<Guest>,
}

/// A domain as it was found.
struct Found {
    uuid: String,
    domain: String,
    /// None if it does not exist any more.
    told: Option<(Domain, StateAndReason)>,
    /// None if it has no such channel, or does not exist any more.
    machine: Option<Machine>,
}

/// Follows it for ever.
pub(super) async fn follow(
    hypervisor: Arc<Hypervisor>,
    channel: String,
    qemu_agent: bool,
    guests: Guests,
) {
    let mut following = Following {
        hypervisor,
        channel,
        qemu_agent,
        host: String::new(),
        guests,
        known: HashMap::new(),
        left_out: HashMap::new(),
        complaint: None,
    };
    let mut wait = HYPERVISOR_RETRY_FIRST;
    loop {
        let mut up = false;
        let Err(error) = following.session(&mut up).await;
        following.hypervisor.is_away(error.to_string());
        following.complain(&error.to_string());
        if up {
            wait = HYPERVISOR_RETRY_FIRST;
        }
        sleep(wait).await;
        wait = (wait * 2).min(HYPERVISOR_RETRY_MAX);
    }
}

impl Following {
    /// Until the connection is over.
    async fn session(&mut self, up: &mut bool) -> Result<std::convert::Infallible, Error> {
        let connect = self.hypervisor.connection().read_only(true).open().await?;
        // Before the first review: what happens from now on is told.
        let mut events = subscribe(&connect).await?;
        self.host = connect.hostname().await.unwrap_or_default();
        *up = true;
        self.complaint = None;
        self.hypervisor.is_up(&connect, self.host.clone());
        info!(uri = %self.uri(), "hypervisor connected");
        let mut reviews = interval(HYPERVISOR_REVIEW);
        reviews.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut states = connect.states();
        // Those who watch have missed something: at first everything.
        let mut missed = true;
        loop {
            tokio::select! {
                notice = events.next() => match notice {
                    Some(Ok(Notice::Event(event))) => self.happened(event).await,
                    // What happened meanwhile is not known.
                    Some(Ok(_)) => {
                        missed = true;
                        reviews.reset_immediately();
                    }
                    Some(Err(error)) => return Err(error),
                    // An error comes before the end.
                    None => return Err(ConnectionError::ClosedHere.into()),
                },
                Some(state) = states.next() => match state {
                    ConnectState::Reconnecting { why, .. } => {
                        self.hypervisor.unknown();
                        self.complain(&why.to_string());
                    }
                    ConnectState::Up if self.complaint.take().is_some() => {
                        info!(uri = %self.uri(), "hypervisor connected again");
                    }
                    _ => {}
                },
                _ = reviews.tick() => match self.review(&connect).await {
                    // Whoever looks now finds everything, with the guests' names.
                    Ok(()) if std::mem::take(&mut missed) => self.hypervisor.unknown(),
                    Ok(()) => {}
                    Err(error) => {
                        self.complain(&format!("its domains can't be listed: {error}"));
                        reviews.reset_after(HYPERVISOR_RETRY_MAX);
                    }
                },
            }
        }
    }

    /// Looks at the domain, and then tells what has happened: whoever hears of it finds it so.
    async fn happened(&mut self, event: DomainEvent) {
        let DomainEvent { domain, kind } = event;
        let found = self.look(domain.clone()).await;
        let told = match &found {
            Ok(found) => Ok(found.told.clone()),
            Err(_) => Err(()),
        };
        self.settle(found);
        let DomainEventKind::Lifecycle { event } = kind else {
            return;
        };
        match told {
            Ok(Some((domain, state))) => self.hypervisor.tell(event, &domain, Some(state), false),
            Ok(None) => self.hypervisor.tell(event, &domain, None, true),
            Err(()) => self.hypervisor.tell(event, &domain, None, false),
        }
    }

    /// Looks at one domain.
    async fn look(&self, domain: Domain) -> Result<Found, String> {
        let mut found = Found {
            uuid: domain.uuid().to_string(),
            domain: domain.name().to_owned(),
            told: None,
            machine: None,
        };
        let told = async {
            // Its name may be another by now.
            let domain = domain.refreshed().await?;
            let state = domain.state().await?;
            let xml = domain.xml(DomainXmlFlags::empty()).await?;
            Ok((domain, state, xml))
        };
        let (domain, state, xml) = match timeout(HYPERVISOR_LOOK, told).await {
            Ok(Ok(told)) => told,
            // It has gone meanwhile.
            Ok(Err(error)) if Error::is(&error, ErrorNumber::NoDomain) => return Ok(found),
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err(format!("no answer within {HYPERVISOR_LOOK:?}")),
        };
        domain.name().clone_into(&mut found.domain);
        let channel = |name: &str| {
            super::domain::channel(&xml, name)
                .map_err(|error| format!("the XML of {} can't be read: {error}", found.domain))
        };
        let known = state.state.known();
        found.machine = match channel(&self.channel)? {
            Channel::Absent if self.qemu_agent => {
                // Whoever has its socket is libvirt, and asks it for others.
                let place = |_| self.stream(&domain, QGA_CHANNEL);
                let place = |socket| Some(Place::QemuAgent(AgentPlace::Domain(place(socket)?)));
                machine(known, channel(QGA_CHANNEL)?, place)
            }
            channel => machine(known, channel, |socket| self.place(&domain, socket)),
        };
        found.told = Some((domain, state));
        Ok(found)
    }

    /// Where the channel of a domain is, whose socket libvirt may have told: `None` if there is none yet.
    fn place(&self, domain: &Domain, socket: Option<PathBuf>) -> Option<Place> {
        if self.hypervisor.is_local() {
            return socket.map(Place::Socket);
        }
        self.stream(domain, &self.channel).map(Place::Stream)
    }

    /// A channel of a domain that runs, by way of libvirt.
    fn stream(&self, domain: &Domain, name: &str) -> Option<StreamPlace> {
        Some(StreamPlace {
            hypervisor: Arc::clone(&self.hypervisor),
            uuid: domain.uuid(),
            run: domain.id()?,
            name: name.to_owned(),
        })
    }

    /// Looks at all domains.
    async fn review(&mut self, connect: &Connect) -> Result<(), Error> {
        let domains = connect.domains(ConnectListAllDomainsFlags::empty()).await?;
        let uuids: HashSet<String> = domains
            .iter()
            .map(|domain| domain.uuid().to_string())
            .collect();
        let mut looks = Vec::with_capacity(domains.len());
        for some in domains.chunks(HYPERVISOR_QUESTIONS) {
            let some = some.iter().cloned();
            let some = some.map(|domain| self.look(domain));
            looks.extend(join_all(some).await);
        }
        let gone = self.known.keys().filter(|uuid| !uuids.contains(*uuid));
        for uuid in gone.cloned().collect::<Vec<_>>() {
            self.forget(&uuid);
        }
        self.left_out.retain(|uuid, _| uuids.contains(uuid));
        // Those first that have another name now: it may be another's by then.
        for found in looks.iter().flatten() {
            self.forget_renamed(found);
        }
        for found in looks {
            self.settle(found);
        }
        Ok(())
    }

    /// Makes what was found so.
    fn settle(&mut self, found: Result<Found, String>) {
        let mut found = match found {
            Ok(found) => found,
            Err(why) => {
                // The next review mends it, and so does the connection when it comes back.
                debug!(uri = %self.uri(), "a domain can't be looked at: {}", why.escape_debug());
                return;
            }
        };
        let Some(machine) = found.machine.take() else {
            self.left_out.remove(&found.uuid);
            self.forget(&found.uuid);
            return;
        };
        self.forget_renamed(&found);
        if let Some(known) = self.known.get(&found.uuid) {
            let is_free = |channel: &Place| self.guests.is_free(channel, &known.guest);
            if machine.channel().is_none_or(is_free) {
                known.guest.machine_is(&machine);
            } else {
                self.forget(&found.uuid);
                self.leave_out(found, Refusal::SameChannel);
            }
            return;
        }
        match self.add(&found, &machine) {
            Ok(guest) => {
                let name = guest.name();
                info!(guest = %name, domain = %found.domain.escape_debug(), uri = %self.uri(), "found");
                let domain = found.domain;
                self.left_out.remove(&found.uuid);
                self.hypervisor.has_guest(&found.uuid, guest.name());
                self.known.insert(found.uuid, Known { domain, guest });
            }
            Err(refusal) => self.leave_out(found, refusal),
        }
    }

    /// Says once why a domain is no guest.
    fn leave_out(&mut self, found: Found, refusal: Refusal) {
        let why = refusal.to_string();
        let before = self.left_out.insert(found.uuid, why.clone());
        if before.as_ref() != Some(&why) {
            warn!(domain = %found.domain.escape_debug(), uri = %self.uri(), "is left out: {why}");
        }
    }

    fn forget_renamed(&mut self, found: &Found) {
        let renamed = |known: &Known| known.domain != found.domain;
        if self.known.get(&found.uuid).is_some_and(renamed) {
            self.forget(&found.uuid);
        }
    }

    /// By its own name, with its host's where that is taken, or by its UUID where neither can be a guest's name.
    fn add(&self, found: &Found, machine: &Machine) -> Result<Arc<Guest>, Refusal> {
        let with_host = match self.host.as_str() {
            "" => String::new(),
            host => format!("{}@{host}", found.domain),
        };
        let mut refusal = Refusal::Taken;
        for name in [&found.domain, &with_host, &found.uuid] {
            if check_name(name).is_err() {
                continue;
            }
            // The machine has its place.
            let mut spec = GuestSpec::new(name, "");
            spec.uuid = Some(found.uuid.clone());
            match self.guests.add_with(spec, machine.clone()) {
                Ok(guest) => return Ok(guest),
                Err(Refusal::Taken) => {}
                Err(error) => {
                    refusal = error;
                    break;
                }
            }
        }
        Err(refusal)
    }

    fn forget(&mut self, uuid: &str) {
        if let Some(known) = self.known.remove(uuid) {
            info!(guest = %known.guest.name(), uri = %self.uri(), "is no guest any more");
            self.hypervisor.has_no_guest(uuid);
            self.guests.remove(&known.guest);
        }
    }

    fn uri(&self) -> &str {
        self.hypervisor.uri()
    }

    /// Says once why the hypervisor can't be asked.
    fn complain(&mut self, complaint: &str) {
        if self.complaint.as_deref() != Some(complaint) {
            warn!(uri = %self.uri(), "no answer from the hypervisor: {}", complaint.escape_debug());
            self.complaint = Some(complaint.to_owned());
        }
    }
}

/// All of the events that the daemon has.
async fn subscribe(connect: &Connect) -> Result<Events<DomainEvent>, Error> {
    let supported = connect.supported_domain_events().await?;
    let events: Vec<_> = EVENTS
        .into_iter()
        .filter(|event| supported.contains(event))
        .collect();
    connect.domain_events(&events, None, None).await
}

/// What a domain's state and channel come to; `None` if it is no guest.
fn machine(
    state: Option<DomainState>,
    channel: Channel,
    place: impl FnOnce(Option<PathBuf>) -> Option<Place>,
) -> Option<Machine> {
    let off = |why: &str| Some(Machine::Off(why.to_owned()));
    let socket = match channel {
        Channel::Absent => return None,
        Channel::Other(kind) => {
            return Some(Machine::Off(format!(
                "its channel is of the type \"{}\" and has no socket; it must be of the type \"unix\"",
                kind.escape_debug()
            )));
        }
        Channel::Defined => None,
        Channel::Socket(path) => Some(path),
    };
    match (state, place(socket)) {
        (Some(DomainState::Shutoff), _) => off("its virtual machine is off; start it"),
        (Some(DomainState::Crashed), _) => off("its virtual machine has crashed"),
        (Some(DomainState::Pmsuspended), _) => off("its guest has put itself to sleep; wake it up"),
        (_, None) => off("its virtual machine has opened no socket for the channel yet"),
        (Some(DomainState::Paused), Some(place)) => Some(Machine::Paused(place)),
        (_, Some(place)) => Some(Machine::Runs(place)),
    }
}
