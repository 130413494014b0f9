//! The host's end on tokio: one link for each connection to a channel's socket.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    task::JoinHandle,
};
use tracing::debug;

use super::{
    driver::{Channel, Driver},
    session::Session,
    shared::{End, Inner, LinkStats, Observer, Shared, now},
};
use crate::{EndReason, HostConfig, HostEnd, HostEvent, Random, RejectCode, SessionId};

/// Where a host's link stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkStatus {
    /// No session: the guest has not answered yet.
    Greeting {
        /// What it answered last, if it refused. The guest may have chosen the text.
        refused: Option<(RejectCode, String)>,
        /// Why the session before this ended, if there was one.
        ended: Option<EndReason>,
    },
    /// A session is open.
    Open {
        /// Its identity.
        id: SessionId,
        /// What the agent says of itself; any text.
        software: String,
        /// Whether the guest does not answer any more.
        silent: bool,
    },
    /// The channel was closed; nothing follows.
    Closed,
}

/// The host's end of a link on a connected channel.
///
/// Must be created within a tokio runtime. Dropping it ends its task and closes the channel.
#[derive(Debug)]
pub struct HostLink {
    shared: Arc<Shared>,
    status: watch::Receiver<LinkStatus>,
    /// The newest session that was handed out.
    taken: SessionId,
    driver: JoinHandle<()>,
}

impl HostLink {
    /// Greets the guest on a channel that was just connected.
    pub fn new(
        channel: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        config: HostConfig,
    ) -> Self {
        let shared = Shared::new(
            End::Host(HostEnd::new(config, Random::system(), now())),
            Channel(channel),
        );
        let (sender, status) = watch::channel(LinkStatus::Greeting {
            refused: None,
            ended: None,
        });
        let stats = Arc::clone(&shared.stats);
        let observer = Watching {
            status: sender,
            stats,
        };
        let driver = tokio::spawn(Driver::new(observer, Arc::clone(&shared)));
        Self {
            shared,
            status,
            taken: SessionId::NONE,
            driver,
        }
    }

    /// Waits for a session that was not yet handed out. May be cancelled at any time.
    ///
    /// # Errors
    /// The channel was closed.
    pub async fn session(&mut self) -> io::Result<Session> {
        let taken = self.taken;
        let status = self
            .status
            .wait_for(|status| match status {
                LinkStatus::Open { id, .. } => *id != taken,
                LinkStatus::Greeting { .. } => false,
                LinkStatus::Closed => true,
            })
            .await;
        match status.as_deref() {
            Ok(LinkStatus::Open { id, software, .. }) => {
                let (id, software) = (*id, software.clone());
                drop(status);
                self.taken = id;
                let mut inner = self.shared.lock();
                inner.current = id;
                inner.reader.wake();
                inner.writer.wake();
                drop(inner);
                Ok(Session::new(Arc::clone(&self.shared), id, software))
            }
            _ => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }

    /// Follows where the link stands.
    pub fn status(&self) -> watch::Receiver<LinkStatus> {
        self.status.clone()
    }

    /// Ends the session in order and waits until nothing comes any more, but not longer than `limit`; then closes the channel.
    ///
    /// What was under way is taken off QEMU's hands by that: for each client that leaves while QEMU holds bytes for it,
    /// QEMU loses one of the port's buffers. Drop the [`Session`] before.
    pub async fn finish(self, quiet: Duration, limit: Duration) {
        let until = tokio::time::Instant::now() + limit;
        let mut received = self.shared.stats.received_bytes();
        while tokio::time::Instant::now() < until {
            tokio::time::sleep(quiet).await;
            let now = self.shared.stats.received_bytes();
            if now == received {
                return;
            }
            received = now;
        }
    }

    /// Speaks to the link from anywhere.
    pub fn handle(&self) -> LinkHandle {
        LinkHandle {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl Drop for HostLink {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Speaks to a link; any number of them may exist. It does not keep the link alive.
#[derive(Debug, Clone)]
pub struct LinkHandle {
    shared: Arc<Shared>,
}

impl LinkHandle {
    /// Somebody waits for a session: greets soon, if the back-off has grown long.
    pub fn nudge(&self) {
        self.with_host(|end| end.nudge(now()));
    }

    /// Something is about to be written whose arrival matters: asks for a sign of life along with it, and returns the
    /// question's number. `None` if one was asked just before
    /// ([`QUESTION_SPACING`](crate::limits::QUESTION_SPACING)), without a session, and while the guest is known to be
    /// paused.
    pub fn ask_along(&self) -> Option<u64> {
        match &mut self.shared.lock().end {
            End::Host(end) => end.ask_along(now()),
            End::Guest(_) => None,
        }
    }

    /// Somebody doubts that the guest is there: asks it, and returns the question's number. `None` without a session, and
    /// while the guest is known to be paused.
    pub fn probe(&self) -> Option<u64> {
        self.with_host(|end| end.probe(now()))
    }

    /// Whether the guest has answered that question, or a later one: then it was alive when the question reached it.
    pub fn is_answered(&self, question: u64) -> bool {
        self.peek(|end| Some(end.is_answered(question)))
            .unwrap_or_default()
    }

    /// Whoever asked has waited long enough: the guest counts as silent, unless it was heard since `since`.
    pub fn give_up(&self, since: Instant) {
        self.with_host(|end| end.give_up(since));
    }

    /// Whether the virtual machine is known to be paused. A paused guest is not silent, however long.
    pub fn set_paused(&self, paused: bool) {
        self.with_host(|end| end.handle_paused(now(), paused));
    }

    /// When the guest of the open session was heard last; `None` without a session.
    pub fn heard(&self) -> Option<Instant> {
        self.peek(HostEnd::heard)
    }

    /// The last measured round trip, in the guest's agent and back.
    pub fn round_trip(&self) -> Option<Duration> {
        self.peek(HostEnd::round_trip)
    }

    /// Bytes that came outside any session: many mean that something else than an agent is at the port.
    pub fn stray_bytes(&self) -> u64 {
        self.peek(|end| Some(end.stray_bytes())).unwrap_or_default()
    }

    /// Counts what goes over the link.
    pub fn stats(&self) -> Arc<LinkStats> {
        Arc::clone(&self.shared.stats)
    }

    fn peek<T>(&self, look: impl FnOnce(&HostEnd) -> Option<T>) -> Option<T> {
        match &self.shared.lock().end {
            End::Host(end) => look(end),
            End::Guest(_) => None,
        }
    }

    /// Acts on the host's end, and lets the driver carry out what follows from it.
    fn with_host<T: Default>(&self, act: impl FnOnce(&mut HostEnd) -> T) -> T {
        let mut inner = self.shared.lock();
        let Inner { end, driver, .. } = &mut *inner;
        match end {
            End::Host(end) => {
                driver.wake_by_ref();
                act(end)
            }
            End::Guest(_) => T::default(),
        }
    }
}

struct Watching {
    status: watch::Sender<LinkStatus>,
    stats: Arc<LinkStats>,
}

impl Observer for Watching {
    fn observe(&mut self, end: &mut End) {
        while let Some(event) = end.host_event() {
            match event {
                HostEvent::Opened { id, software } => {
                    debug!(session = %id, agent = %software.escape_debug(), "session opened");
                    let silent = false;
                    self.status.send_replace(LinkStatus::Open {
                        id,
                        software,
                        silent,
                    });
                }
                HostEvent::Ended { id, reason } => {
                    debug!(session = %id, %reason, "session ended");
                    self.stats.add_end(&reason);
                    self.status.send_replace(LinkStatus::Greeting {
                        refused: None,
                        ended: Some(reason),
                    });
                }
                HostEvent::Refused { code, reason } => {
                    self.status.send_modify(|status| {
                        if let LinkStatus::Greeting { refused, .. } = status {
                            *refused = Some((code, reason));
                        }
                    });
                }
                HostEvent::Silent(now_silent) => {
                    self.status.send_modify(|status| {
                        if let LinkStatus::Open { silent, .. } = status {
                            *silent = now_silent;
                        }
                    });
                }
            }
        }
    }

    fn gone(&mut self, error: io::Error) {
        debug!(%error, "channel closed");
        self.status.send_replace(LinkStatus::Closed);
    }
}
