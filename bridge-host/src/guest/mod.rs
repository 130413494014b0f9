//! One guest: keeps its channel connected and a session open.
//!
//! ```text
//!                  connect                   WELCOME, HTTP/2 up
//!    Unreachable ───────────▶ Greeting ─────────────────────────▶ Ready ◀──────▶ Silent
//!      ▲    ▲                  │    ▲ ▲          session ended      │    no answer  │
//!      │    │                  │    │ └──────────────────────────────┴──────────────┘
//!      │    │           REJECT ▼    │ the agent restarts
//!      │    └─────────────── Rejected
//!      ├── channel closed (from any state)
//!      │
//!      │ the machine starts
//!     Off ◀── the machine is known to have stopped (from any state)
//!
//!    Gone: no guest of this bridge any more; the end (from any state)
//! ```
//!
//! *Paused* lies over all of them while the [`Machine`] is: nothing is expected of a paused guest, no call is sent
//! to it, and no session is given up.
//!
//! | module | what it does |
//! |---|---|
//! | `tend` | keeps the channel connected |
//! | `session` | opens HTTP/2 on a session, encrypted where that is wanted |
//! | `adapted` | has a session with qemu-guest-agent instead |
//! | `totals` | counts what went over channels, and why sessions ended |
//!
//! Whether the channel is a socket here or a stream through a hypervisor's libvirt is `place`'s business.
//!
//! Calls see a [`Ready`] or a status that says why there is none. A call that waits hurries the connecting along.

mod adapted;
mod session;
mod tend;
mod totals;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use hyper::client::conn::http2::SendRequest;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast, watch},
    time::{Instant, timeout_at},
};
use tonic::Status;
use tracing::info;
use vbridge_api::host::v1::{Guest as GuestMessage, GuestState};
use vbridge_link::{Key, LinkHandle};

use crate::{
    address::ListenAddress,
    error::Reason,
    forward::RequestBody,
    guests::Change,
    limits::MAX_CALLS_PER_GUEST,
    machine::Machine,
    metrics::{Codes, Shared},
    place::{Channel, Unconnected},
};
use totals::Totals;

pub use session::{LinkTls, LinkTlsFiles};

/// A guest as the operator describes it.
#[derive(Debug, Clone)]
pub struct GuestSpec {
    /// Its name: what calls route by.
    pub name: String,
    /// The Unix socket of its virtio-serial channel.
    pub channel: PathBuf,
    /// A QEMU monitor (QMP) socket for the bridge alone: it tells pauses.
    pub monitor: Option<PathBuf>,
    /// A listen address of its own.
    pub listen: Option<ListenAddress>,
    /// The key that its agent must prove.
    pub key: Option<Key>,
    /// Encrypts what goes over the channel, and checks whose guest it is.
    pub tls: Option<LinkTls>,
    /// Which agent runs in it.
    pub agent: AgentKind,
    /// Its virtual machine's UUID: calls may route by it, too.
    pub uuid: Option<String>,
}

impl GuestSpec {
    /// A guest with a channel and nothing else.
    pub fn new(name: impl Into<String>, channel: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            channel: channel.into(),
            monitor: None,
            listen: None,
            key: None,
            tls: None,
            agent: AgentKind::default(),
            uuid: None,
        }
    }
}

/// Which agent runs in a guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AgentKind {
    /// vbridge-agent, or a program that has it built in.
    #[default]
    Vbridge,
    /// qemu-guest-agent alone, of which the bridge offers what it can.
    Qemu,
}

/// Where a guest stands.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) phase: Phase,
    pub(crate) paused: bool,
    pub(crate) since: SystemTime,
}

#[derive(Debug, Clone)]
pub(crate) enum Phase {
    Off(String),
    Gone,
    Unreachable(Unconnected),
    Greeting { after: Option<String> },
    Rejected(String),
    Ready(Ready),
    Silent(Ready),
}

/// A session that takes calls.
#[derive(Debug, Clone)]
pub(crate) struct Ready {
    pub(crate) sender: SendRequest<RequestBody>,
    /// None where qemu-guest-agent is asked: it has no link.
    pub(crate) link: Option<LinkHandle>,
    pub(crate) agent: String,
}

/// A guest and the task that looks after it.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) spec: GuestSpec,
    state: watch::Sender<State>,
    machine: watch::Sender<Machine>,
    calls: Arc<Semaphore>,
    hurry: Arc<Notify>,
    /// Whether the connection was seen to wait behind another client's.
    busy: AtomicBool,
    sessions: AtomicU64,
    totals: Totals,
    /// How its calls have ended.
    pub(crate) codes: Codes,
    /// Its own metrics as they were told last.
    pub(crate) sample: Shared,
    changes: broadcast::Sender<Change>,
}

impl Guest {
    pub(crate) fn new(
        spec: GuestSpec,
        machine: Machine,
        changes: broadcast::Sender<Change>,
    ) -> Arc<Self> {
        let phase = match &machine {
            Machine::Off(why) => Phase::Off(why.clone()),
            _ => Phase::Unreachable(Unconnected {
                reason: Reason::GuestUnreachable,
                why: "the bridge has just begun to look for it".to_owned(),
            }),
        };
        let state = State {
            phase,
            paused: machine.is_paused(),
            since: SystemTime::now(),
        };
        Arc::new(Self {
            spec,
            machine: watch::Sender::new(machine),
            state: watch::Sender::new(state),
            calls: Arc::new(Semaphore::new(MAX_CALLS_PER_GUEST)),
            hurry: Arc::default(),
            busy: AtomicBool::new(false),
            sessions: AtomicU64::new(0),
            totals: Totals::default(),
            codes: Codes::default(),
            sample: Shared::default(),
            changes,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its virtual machine's UUID; empty if it is not known.
    pub(crate) fn uuid(&self) -> &str {
        self.spec.uuid.as_deref().unwrap_or_default()
    }

    /// A place among the guest's calls, for as long as the permit lives.
    pub(crate) fn admit(&self) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(&self.calls).try_acquire_owned().map_err(|_| {
            let message = format!(
                "guest \"{}\" has {MAX_CALLS_PER_GUEST} calls under way, which is the limit; try again when some have ended",
                self.name()
            );
            Reason::TooManyCalls.status(self.name(), message)
        })
    }

    /// Waits at most until `deadline` for a session; with `patient`, also through a pause or a refusal.
    pub(crate) async fn ready(&self, deadline: Instant, patient: bool) -> Result<Ready, Status> {
        if let Some(ready) = usable(&self.state.borrow()) {
            return Ok(ready);
        }
        let mut states = self.state.subscribe();
        loop {
            {
                let state = states.borrow_and_update();
                if let Some(ready) = usable(&state) {
                    return Ok(ready);
                }
                let is_stuck = matches!(state.phase, Phase::Rejected(_) | Phase::Off(_));
                let hopeless = state.paused || is_stuck;
                if matches!(state.phase, Phase::Gone) || hopeless && !patient {
                    break;
                }
                if let Phase::Silent(Ready {
                    link: Some(link), ..
                }) = &state.phase
                {
                    // Whatever comes ends the silence: the number is of no use.
                    let _ = link.probe();
                }
            }
            self.hurry.notify_one();
            match timeout_at(deadline, states.changed()).await {
                Ok(Ok(())) => {}
                // The sender lives as long as the guest.
                Ok(Err(_)) | Err(_) => break,
            }
        }
        let state = self.state.borrow().clone();
        Err(self.why_not(&state))
    }

    /// Why there is no session, in words for a caller.
    fn why_not(&self, state: &State) -> Status {
        let (reason, why) = self.explain(state);
        reason.status(
            self.name(),
            format!("guest \"{}\" can't be reached: {why}", self.name()),
        )
    }

    fn explain(&self, state: &State) -> (Reason, String) {
        let place = self.machine.borrow().channel().cloned();
        let channel = place.as_ref().map(ToString::to_string).unwrap_or_default();
        match &state.phase {
            Phase::Gone => (
                Reason::GuestNotFound,
                "it is no guest of this bridge any more".to_owned(),
            ),
            Phase::Off(why) => (Reason::GuestOff, why.clone()),
            _ if state.paused => (
                Reason::GuestPaused,
                "its virtual machine is paused; resume it".to_owned(),
            ),
            Phase::Unreachable(Unconnected { reason, why }) => (*reason, why.clone()),
            Phase::Rejected(why) => (
                Reason::GuestRejected,
                format!("its agent refuses the session: {why}"),
            ),
            Phase::Silent(_) => (
                Reason::GuestSilent,
                "it does not answer any more; it may be paused, overloaded or hung".to_owned(),
            ),
            Phase::Ready(_) => (
                Reason::SessionEnded,
                "its session has just changed; try again".to_owned(),
            ),
            Phase::Greeting { .. } if self.busy.load(Ordering::Relaxed) => (
                Reason::ChannelBusy,
                format!(
                    "another client holds its channel {channel}, which takes one at a time; end that client"
                ),
            ),
            Phase::Greeting { after: Some(after) } => (
                Reason::GuestNotAnswering,
                format!(
                    "{after}, and nobody has answered the greeting on {channel} since; it may be restarting or paused"
                ),
            ),
            Phase::Greeting { after: None } => (
                Reason::GuestNotAnswering,
                format!(
                    "nobody answers the greeting on {channel}; the guest may be booting or paused, or vbridge-agent does not run in it{}",
                    place.as_ref().map(Channel::doubt).unwrap_or_default()
                ),
            ),
        }
    }

    /// A call through `ready` failed because its connection did: what the caller is told.
    pub(crate) fn session_ended(&self) -> Status {
        let message = format!(
            "the session with guest \"{}\" ended while the call was under way; it may or may not have been carried out",
            self.name()
        );
        Reason::SessionEnded.status(self.name(), message)
    }

    /// Done when the virtual machine is known to be paused.
    pub(crate) async fn paused(&self) {
        // The sender is a part of this.
        let _ = self.state.subscribe().wait_for(|state| state.paused).await;
    }

    /// The guest gave no sign of life since the call began.
    pub(crate) fn silent(&self) -> Status {
        let (reason, why) = if self.state.borrow().paused {
            (
                Reason::GuestPaused,
                "its virtual machine was paused; resume it",
            )
        } else {
            (Reason::GuestSilent, "it may be paused, overloaded or hung")
        };
        let message = format!(
            "guest \"{}\" does not answer: {why}; the call may be carried out when it goes on",
            self.name()
        );
        reason.status(self.name(), message)
    }

    /// The guest as the host API shows it.
    pub(crate) fn message(&self) -> GuestMessage {
        let state = self.state.borrow().clone();
        let (agent, link) = match &state.phase {
            Phase::Ready(ready) | Phase::Silent(ready) => {
                (ready.agent.clone(), ready.link.as_ref())
            }
            _ => (String::new(), None),
        };
        let kind = match (&state.phase, state.paused) {
            (Phase::Off(_) | Phase::Gone, _) => GuestState::Off,
            (_, true) => GuestState::Paused,
            (Phase::Unreachable(_), _) => GuestState::Unreachable,
            (Phase::Greeting { .. }, _) => GuestState::Greeting,
            (Phase::Rejected(_), _) => GuestState::Rejected,
            (Phase::Ready(_), _) => GuestState::Ready,
            (Phase::Silent(_), _) => GuestState::Silent,
        };
        let reason = match kind {
            GuestState::Ready => String::new(),
            _ => self.explain(&state).1,
        };
        let (sent, received) = self.totals.bytes();
        GuestMessage {
            name: self.spec.name.clone(),
            state: kind.into(),
            reason,
            since: Some(state.since.into()),
            channel: match self.machine.borrow().channel() {
                Some(channel) => channel.address(),
                None => String::new(),
            },
            uuid: self.uuid().to_owned(),
            listen: self
                .spec
                .listen
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            agent,
            sessions: self.sessions.load(Ordering::Relaxed),
            active_calls: u32::try_from(MAX_CALLS_PER_GUEST - self.calls.available_permits())
                .unwrap_or(u32::MAX),
            round_trip: link
                .and_then(LinkHandle::round_trip)
                .and_then(|duration| duration.try_into().ok()),
            sent_bytes: sent,
            received_bytes: received,
        }
    }

    /// How many sessions have ended, by cause.
    pub(crate) fn ends(&self) -> Vec<(&'static str, u64)> {
        self.totals.ends()
    }

    /// A guest that has gone stays so, whatever becomes of its channel.
    fn enter(&self, phase: Phase) {
        let is_new = self.state.send_if_modified(|state| {
            if matches!(state.phase, Phase::Gone) {
                return false;
            }
            if std::mem::discriminant(&state.phase) != std::mem::discriminant(&phase) {
                state.since = SystemTime::now();
            }
            state.phase = phase;
            true
        });
        if is_new {
            self.changed();
        }
    }

    /// What its virtual machine does has become known.
    pub(crate) fn machine_is(&self, machine: &Machine) {
        let paused = machine.is_paused();
        let is_new = self
            .machine
            .send_if_modified(|known| std::mem::replace(known, machine.clone()) != *machine);
        if !is_new {
            return;
        }
        let is_off = machine.channel().is_none();
        let was_paused = self.state.borrow().paused;
        if is_off || paused == was_paused {
            self.state.send_modify(|state| state.paused = paused);
            // Whoever looks after it tells the rest.
            return;
        }
        self.state.send_modify(|state| {
            state.paused = paused;
            state.since = SystemTime::now();
        });
        let what = if paused { "paused" } else { "running" };
        info!(guest = %self.name(), "virtual machine {what}");
        self.changed();
    }

    /// Its virtual machine stands still, or goes on.
    pub(crate) fn pauses(&self, paused: bool) {
        let machine = self.machine.borrow().clone();
        self.machine_is(&machine.with_pause(paused));
    }

    /// Whether its channel is that one now.
    pub(crate) fn has_channel(&self, channel: &Channel) -> bool {
        self.machine.borrow().channel() == Some(channel)
    }

    /// Whether its virtual machine may run.
    pub(crate) fn runs(&self) -> bool {
        self.machine.borrow().channel().is_some()
    }

    /// Its channel may be worth another look at once.
    pub(crate) fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// It is no guest of this bridge any more.
    pub(crate) fn removed(&self) {
        self.state.send_modify(|state| {
            state.phase = Phase::Gone;
            state.since = SystemTime::now();
        });
    }

    pub(crate) fn changed(&self) {
        // Nobody may be watching.
        let _ = self.changes.send(Change::State(self.spec.name.clone()));
    }
}

fn usable(state: &State) -> Option<Ready> {
    match &state.phase {
        Phase::Ready(ready) if !state.paused && !ready.sender.is_closed() => Some(ready.clone()),
        _ => None,
    }
}

/// The wait that a call asks for, or the default.
pub(crate) fn wait_of(headers: &http::HeaderMap) -> Result<(Duration, bool), Status> {
    use crate::limits::{DEFAULT_WAIT, MAX_WAIT};
    let Some(value) = headers.get(crate::forward::WAIT_HEADER) else {
        return Ok((DEFAULT_WAIT, false));
    };
    match value
        .to_str()
        .ok()
        .and_then(|text| humantime::parse_duration(text).ok())
    {
        Some(wait) if wait <= MAX_WAIT => Ok((wait, true)),
        _ => Err(Reason::InvalidWait.status(
            "",
            format!(
                "the metadata {} must be a duration up to {}s like 500ms or 10s",
                crate::forward::WAIT_HEADER,
                MAX_WAIT.as_secs()
            ),
        )),
    }
}
