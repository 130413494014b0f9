//! Keeps a guest's channel connected, from its first connection to the bridge's end.
//!
//! **A channel on which nothing at all comes is connected anew**, soon and then ever more rarely (its `Pace`). QEMU
//! (hw/char/virtio-console.c, seen with 7.2) can leave a port throttled for good: when its write to a client that was
//! killed fails while the guest's inbound queue is full too, it handles the disconnect, which lifts the throttle, and
//! then throttles the port for the failed write, with nothing left to wait for. Whatever the guest sends stays in its
//! queue, until the *next* client leaves. The guest can't know, the host is not told, and no greeting gets through;
//! leaving and coming back is all that it takes. Seen once in some 400 kills of a bridge under traffic both ways.

use std::{
    any::Any,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::BoxFuture;
use hyper::client::conn::http2::SendRequest;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, Sleep},
};
use tracing::{debug, info, warn};
use vbridge_link::{EndReason, HostConfig, HostLink, LinkHandle, LinkStatus, RejectCode};

use super::{
    Guest, Phase, Ready,
    session::{self, Opened, Unopened},
};
use crate::{
    error::Reason,
    forward::RequestBody,
    limits::{BUSY_LOOK, LINK_REFUSED_FIRST, LINK_REFUSED_MAX, PARTING, PARTING_QUIET},
    machine::Machine,
    monitor,
    place::{Channel, Connected, Unconnected},
};

impl Guest {
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
            if let Channel::QemuAgent(place) = &channel {
                match self.adapt(place, &channel, &mut machines, &mut stop).await {
                    Parting::Stopped => return,
                    Parting::Moved => {
                        failed = 0;
                        continue;
                    }
                    Parting::Closed { heard: true } => failed = 0,
                    Parting::Closed { heard: false } | Parting::Deaf => {}
                }
            } else {
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

    pub(super) fn unreachable(&self, error: Unconnected) {
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
        self.totals.begin(Arc::clone(&stats));
        handle.set_paused(machines.borrow().is_paused());
        let mut statuses = link.status();
        if !matches!(self.state.borrow().phase, Phase::Greeting { .. }) {
            self.enter(Phase::Greeting { after: None });
        }
        let mut connection: Option<JoinHandle<()>> = None;
        // HTTP/2 that is about to come up, or a session that was refused and is kept until the next try.
        let mut opening: Option<BoxFuture<'_, Result<Opened, Unopened>>> = None;
        let mut refused: Option<Refused> = None;
        let mut refusals = 0_u32;
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
                    if let Some(old) = connection.take() {
                        old.abort();
                    }
                    refused = None;
                    let (tls, name) = (self.spec.tls.clone(), self.name().to_owned());
                    opening = Some(Box::pin(session::open(session, tls, name)));
                }
                opened = pending_without(opening.as_mut()) => {
                    opening = None;
                    match opened {
                        Ok(opened) => {
                            refusals = 0;
                            connection = Some(opened.connection);
                            let (sender, agent) = (opened.sender, opened.agent);
                            self.comes_up(sender, Some(handle.clone()), agent);
                        }
                        Err(Unopened::Failed(why)) => {
                            debug!(guest = %self.name(), "no HTTP/2: {why}");
                        }
                        Err(Unopened::Refused(why, session)) => {
                            warn!(guest = %self.name(), "session refused: {why}");
                            self.enter(Phase::Rejected(why));
                            refused = Some(Refused::new(session, refusals));
                            refusals = refusals.saturating_add(1);
                        }
                    }
                }
                // Whoever lets go of it is greeted anew.
                () = pending_without(refused.as_mut().map(|it| &mut it.rest)) => refused = None,
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
        let cause = (parting == Parting::Moved && connection.is_some()).then_some(MACHINE_STOPPED);
        drop((opening, refused));
        if let Some(connection) = connection {
            connection.abort();
            if parting == Parting::Stopped {
                // With it the session is dropped. How it ended does not matter.
                let _ = connection.await;
                link.finish(PARTING_QUIET, PARTING).await;
            }
        }
        self.totals.end(cause);
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

    /// From now on it takes calls.
    pub(super) fn comes_up(
        &self,
        sender: SendRequest<RequestBody>,
        link: Option<LinkHandle>,
        agent: String,
    ) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        info!(guest = %self.name(), agent = %agent.escape_debug(), "guest up");
        self.enter(Phase::Ready(Ready {
            sender,
            link,
            agent,
        }));
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
            // This side let go of it, to try again: nothing is new.
            (
                LinkStatus::Greeting {
                    ended: Some(EndReason::Closed),
                    ..
                },
                Phase::Rejected(_),
            ) => {}
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

/// The cause of a session's end that the link does not learn.
const MACHINE_STOPPED: &str = "machine_stopped";

/// A session that one end has refused.
struct Refused {
    /// Lets go of it when the rest is over.
    _session: Box<dyn Any + Send>,
    rest: Pin<Box<Sleep>>,
}

impl Refused {
    fn new(session: Box<dyn Any + Send>, before: u32) -> Self {
        let factor = 1_u32.checked_shl(before).unwrap_or(u32::MAX);
        let rest = LINK_REFUSED_FIRST
            .saturating_mul(factor)
            .min(LINK_REFUSED_MAX);
        Self {
            _session: session,
            rest: Box::pin(tokio::time::sleep(rest)),
        }
    }
}

/// The future's outcome; without one, nothing ever.
async fn pending_without<F: Future + Unpin>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// How a connection of the channel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parting {
    /// The other side closed it. Whether anything was heard before.
    Closed { heard: bool },
    /// Nothing was heard: this side closed it, to try another.
    Deaf,
    /// The machine is known to have stopped, or to have another channel.
    Moved,
    /// The bridge stops.
    Stopped,
}

pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error is the bridge's end as well.
    let _ = stop.wait_for(|stop| *stop).await;
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
        Channel::QemuAgent(_) => format!("{channel} does not answer any more"),
    }
}
