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
//! Whether the channel is a socket here or a stream through a hypervisor's libvirt is `channel`'s business.
//!
//! Calls see a [`Ready`] or a status that says why there is none. A call that waits hurries the connecting along.
//!
//! **A channel on which nothing at all comes is connected anew**, soon and then ever more rarely (its `Pace`). QEMU
//! (hw/char/virtio-console.c, seen with 7.2) can leave a port throttled for good: when its write to a client that was
//! killed fails while the guest's inbound queue is full too, it handles the disconnect, which lifts the throttle, and
//! then throttles the port for the failed write, with nothing left to wait for. Whatever the guest sends stays in its
//! queue, until the *next* client leaves. The guest can't know, the host is not told, and no greeting gets through;
//! leaving and coming back is all that it takes. Seen once in some 400 kills of a bridge under traffic both ways.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast, watch},
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tonic::Status;
use tracing::{debug, info, warn};
use vbridge_api::host::v1::{Guest as GuestMessage, GuestState};
use vbridge_link::{HostConfig, HostLink, Key, LinkHandle, LinkStats, LinkStatus, RejectCode};

use crate::{
    address::ListenAddress,
    error::Reason,
    forward::RequestBody,
    guests::Change,
    limits::{
        BUSY_LOOK, CONNECTION_WINDOW, MAX_CALLS_PER_GUEST, MAX_FRAME, MAX_HEADER_LIST,
        MAX_LATE_FRAMES, MAX_RESETS_KNOWN, PARTING, PARTING_QUIET, RESET_KNOWN, SEND_BUFFER,
        STREAM_WINDOW,
    },
    machine::Machine,
    metrics::{Codes, Shared},
    monitor,
    place::{Channel, Connected, Unconnected},
};

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
            uuid: None,
        }
    }
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
    pub(crate) link: LinkHandle,
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
    /// Bytes of channels that were closed.
    sent: AtomicU64,
    received: AtomicU64,
    stats: watch::Sender<Option<Arc<LinkStats>>>,
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
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            stats: watch::Sender::new(None),
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
                if let Phase::Silent(ready) = &state.phase {
                    // Whatever comes ends the silence: the number is of no use.
                    let _ = ready.link.probe();
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
            Phase::Ready(ready) | Phase::Silent(ready) => (ready.agent.clone(), Some(&ready.link)),
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
        let (sent, received) = self.bytes();
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

    fn bytes(&self) -> (u64, u64) {
        let (mut sent, mut received) = (
            self.sent.load(Ordering::Relaxed),
            self.received.load(Ordering::Relaxed),
        );
        if let Some(stats) = &*self.stats.borrow() {
            sent += stats.sent_bytes();
            received += stats.received_bytes();
        }
        (sent, received)
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

    // === Looking after the channel ===

    /// Keeps the guest connected until `stop` is true; then it leaves in order.
    pub(crate) async fn look_after(self: Arc<Self>, stop: watch::Receiver<bool>) {
        match &self.spec.monitor {
            Some(monitor) => tokio::select! {
                () = monitor::follow(monitor, &self) => {}
                () = self.stay_connected(stop) => {}
            },
            None => self.stay_connected(stop).await,
        }
    }

    async fn stay_connected(&self, mut stop: watch::Receiver<bool>) {
        let mut machines = self.machine.subscribe();
        // Connections in a row that failed, and that were deaf.
        let (mut failed, mut deaf) = (0_u32, 0_u32);
        loop {
            let machine = machines.borrow_and_update().clone();
            let channel = match machine {
                Machine::Runs(channel) | Machine::Paused(channel) => channel,
                Machine::Off(why) => {
                    info!(guest = %self.name(), "off: {why}");
                    self.enter(Phase::Off(why));
                    tokio::select! {
                        // The sender is a part of this.
                        _ = machines.changed() => {}
                        () = stopped(&mut stop) => return,
                    }
                    (failed, deaf) = (0, 0);
                    continue;
                }
            };
            let pace = channel.pace();
            let connected = tokio::select! {
                connected = channel.connect() => connected,
                () = stopped(&mut stop) => return,
                // It may take long, and not be its channel any more.
                _ = machines.changed() => continue,
            };
            match connected {
                Ok(stream) => {
                    failed = 0;
                    let patience = pace.patience(deaf);
                    match self
                        .converse(stream, &channel, patience, &mut machines, &mut stop)
                        .await
                    {
                        Parting::Stopped => return,
                        Parting::Moved => {
                            deaf = 0;
                            continue;
                        }
                        Parting::Deaf => {
                            deaf = deaf.saturating_add(1);
                            tokio::time::sleep(pace.rest).await;
                            continue;
                        }
                        Parting::Closed { heard: true } => deaf = 0,
                        Parting::Closed { heard: false } => {}
                    }
                    self.enter(Phase::Unreachable(Unconnected {
                        reason: Reason::GuestUnreachable,
                        why: closed(&channel),
                    }));
                }
                Err(error) => self.unreachable(error),
            }
            // A call that waits does not make the bridge spin: the shortest wait stays.
            tokio::time::sleep(pace.first).await;
            tokio::select! {
                () = tokio::time::sleep(pace.wait(failed)) => {}
                () = self.hurry.notified() => {}
                () = stopped(&mut stop) => return,
                _ = machines.changed() => {
                    (failed, deaf) = (0, 0);
                    continue;
                }
            }
            failed = failed.saturating_add(1);
        }
    }

    fn unreachable(&self, error: Unconnected) {
        let known = matches!(&self.state.borrow().phase, Phase::Unreachable(old) if *old == error);
        if !known {
            info!(guest = %self.name(), "not reachable: {}", error.why);
            self.enter(Phase::Unreachable(error));
        }
    }

    /// From the connection of the channel to its end: one session after another.
    async fn converse(
        &self,
        stream: Connected,
        channel: &Channel,
        patience: Duration,
        machines: &mut watch::Receiver<Machine>,
        stop: &mut watch::Receiver<bool>,
    ) -> Parting {
        let config = HostConfig {
            software: concat!("vbridge/", env!("CARGO_PKG_VERSION")).to_owned(),
            key: self.spec.key.clone(),
            ..HostConfig::default()
        };
        let mut link = HostLink::new(stream, config);
        let handle = link.handle();
        let stats = handle.stats();
        self.stats.send_replace(Some(Arc::clone(&stats)));
        handle.set_paused(machines.borrow().is_paused());
        let mut statuses = link.status();
        if !matches!(self.state.borrow().phase, Phase::Greeting { .. }) {
            self.enter(Phase::Greeting { after: None });
        }
        let mut connection: Option<JoinHandle<()>> = None;
        let connected = Instant::now();
        let mut end = connected + patience;
        self.busy.store(false, Ordering::Relaxed);
        // Callers are told of another client before that.
        let deaf = tokio::time::sleep(patience.min(BUSY_LOOK));
        tokio::pin!(deaf);
        let parting = loop {
            tokio::select! {
                biased;
                session = link.session() => {
                    let Ok(session) = session else {
                        break Parting::Closed { heard: stats.received_bytes() > 0 };
                    };
                    self.busy.store(false, Ordering::Relaxed);
                    let agent = session.peer_software().to_owned();
                    if let Some(old) = connection.take() {
                        old.abort();
                    }
                    match handshake(session).await {
                        Ok((sender, task)) => {
                            connection = Some(task);
                            self.sessions.fetch_add(1, Ordering::Relaxed);
                            info!(guest = %self.name(), agent = %agent.escape_debug(), "guest up");
                            let link = handle.clone();
                            self.enter(Phase::Ready(Ready { sender, link, agent }));
                        }
                        Err(error) => debug!(guest = %self.name(), %error, "HTTP/2 did not come up"),
                    }
                }
                changed = statuses.changed() => {
                    if changed.is_err() {
                        break Parting::Closed { heard: stats.received_bytes() > 0 };
                    }
                    let status = statuses.borrow_and_update().clone();
                    self.follow(status);
                }
                () = self.hurry.notified() => handle.nudge(),
                () = stopped(stop) => break Parting::Stopped,
                // The sender is a part of this.
                _ = machines.changed() => {
                    let machine = machines.borrow_and_update();
                    if machine.channel() != Some(channel) {
                        break Parting::Moved;
                    }
                    handle.set_paused(machine.is_paused());
                }
                () = &mut deaf, if stats.received_bytes() == 0 => {
                    // In the backlog it is another client's turn, and a paused guest has no word to say.
                    let is_busy = self.look(channel, connected).await;
                    if is_busy || machines.borrow().is_paused() {
                        end = Instant::now() + patience;
                    } else if Instant::now() >= end {
                        break Parting::Deaf;
                    }
                    deaf.as_mut().reset(end);
                }
            }
        };
        if let Some(connection) = connection {
            connection.abort();
            if parting == Parting::Stopped {
                // With it the session is dropped. How it ended does not matter.
                let _ = connection.await;
                link.finish(PARTING_QUIET, PARTING).await;
            }
        }
        self.stats.send_replace(None);
        self.sent.fetch_add(stats.sent_bytes(), Ordering::Relaxed);
        self.received
            .fetch_add(stats.received_bytes(), Ordering::Relaxed);
        match parting {
            Parting::Closed { .. } => info!(guest = %self.name(), "channel closed"),
            Parting::Moved => debug!(guest = %self.name(), "channel left: the machine has stopped"),
            Parting::Stopped => debug!(guest = %self.name(), "channel left"),
            Parting::Deaf => {
                debug!(guest = %self.name(), "no answer: the channel is connected anew")
            }
        }
        parting
    }

    /// Looks whether another client holds the channel, and tells it where that is new.
    async fn look(&self, channel: &Channel, connected: Instant) -> bool {
        let is_busy = channel.is_busy(connected).await;
        if self.busy.swap(is_busy, Ordering::Relaxed) != is_busy {
            self.changed();
        }
        is_busy
    }

    fn follow(&self, status: LinkStatus) {
        let phase = self.state.borrow().phase.clone();
        match (status, phase) {
            (
                LinkStatus::Greeting {
                    refused: Some((code, reason)),
                    ..
                },
                _,
            ) => {
                let why = reason.escape_debug().to_string();
                if code == RejectCode::Authentication {
                    warn!(guest = %self.name(), "session refused: {why}");
                } else {
                    info!(guest = %self.name(), "session refused: {why}");
                }
                self.enter(Phase::Rejected(why));
            }
            (
                LinkStatus::Greeting {
                    ended: Some(ended), ..
                },
                _,
            ) => {
                info!(guest = %self.name(), reason = %ended.to_string().escape_debug(), "guest gone");
                self.enter(Phase::Greeting {
                    after: Some(ended.to_string().escape_debug().to_string()),
                });
            }
            (LinkStatus::Open { silent: true, .. }, Phase::Ready(ready)) => {
                info!(guest = %self.name(), "guest silent");
                self.enter(Phase::Silent(ready));
            }
            (LinkStatus::Open { silent: false, .. }, Phase::Silent(ready)) => {
                info!(guest = %self.name(), "guest answers again");
                self.enter(Phase::Ready(ready));
            }
            _ => {}
        }
    }
}

/// How a connection of the channel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parting {
    /// The other side closed it. Whether anything was heard before.
    Closed { heard: bool },
    /// Nothing was heard: this side closed it, to try another.
    Deaf,
    /// The machine is known to have stopped, or to have another channel.
    Moved,
    /// The bridge stops.
    Stopped,
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error is the bridge's end as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn usable(state: &State) -> Option<Ready> {
    match &state.phase {
        Phase::Ready(ready) if !state.paused && !ready.sender.is_closed() => Some(ready.clone()),
        _ => None,
    }
}

/// Why there is no session on a channel that was connected.
fn closed(channel: &Channel) -> String {
    match channel {
        Channel::Socket(_) => {
            format!("its channel {channel} was closed; the virtual machine may have been shut down")
        }
        Channel::Stream(_) => format!(
            "{channel} was closed; the virtual machine may have been shut down, or libvirt's daemon there"
        ),
    }
}

/// HTTP/2 on a session, as client. Every window is generous: the link bounds what is in flight.
async fn handshake(
    session: vbridge_link::Session,
) -> hyper::Result<(SendRequest<RequestBody>, JoinHandle<()>)> {
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_send_buf_size(SEND_BUFFER)
        .max_concurrent_reset_streams(MAX_RESETS_KNOWN)
        .reset_stream_duration(RESET_KNOWN)
        .max_local_error_reset_streams(MAX_LATE_FRAMES)
        .handshake(TokioIo::new(session))
        .await?;
    let task = tokio::spawn(async move {
        if let Err(error) = connection.await {
            debug!(%error, "HTTP/2 to a guest ended");
        }
    });
    Ok((sender, task))
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
