//! The guest's end on tokio: yields one session after another.

use std::{future::poll_fn, io, sync::Arc, task::Poll};

use tokio::{sync::mpsc, task::JoinHandle};
use tracing::{debug, warn};

use super::{
    driver::Driver,
    session::Session,
    shared::{End, LinkStats, Observer, Shared, now},
};
use crate::{GuestConfig, GuestEnd, GuestEvent, Port, Random, SessionId};

/// Sessions that may be open before one is accepted. Older ones have ended by then and are dropped unseen.
const BACKLOG: usize = 4;

/// The guest's end of a link on a [`Port`].
///
/// Must be created within a tokio runtime. Dropping it ends its task and closes the port.
#[derive(Debug)]
pub struct GuestLink {
    shared: Arc<Shared>,
    sessions: mpsc::Receiver<io::Result<(SessionId, String)>>,
    driver: JoinHandle<()>,
}

impl GuestLink {
    /// Starts the link on a port that was just opened.
    pub fn new(port: impl Port + 'static, config: GuestConfig) -> Self {
        let shared = Shared::new(
            End::Guest(GuestEnd::new(config, Random::system(), now())),
            port,
        );
        let (sender, sessions) = mpsc::channel(BACKLOG);
        let observer = Accepting { sender };
        let driver = tokio::spawn(Driver::new(observer, Arc::clone(&shared)));
        Self {
            shared,
            sessions,
            driver,
        }
    }

    /// Waits for the next session. The one before it has ended by then. May be cancelled at any time.
    ///
    /// # Errors
    /// The port is gone and must be opened anew; [`TimedOut`](io::ErrorKind::TimedOut): a host greets, and the port has
    /// taken nothing of the answer for [`STUCK_AFTER`](crate::limits::STUCK_AFTER). The link goes on; but unless the host
    /// has left in the meantime, it would wait for ever.
    pub async fn accept(&mut self) -> io::Result<Session> {
        match self.sessions.recv().await {
            Some(Ok((id, software))) => {
                let mut inner = self.shared.lock();
                inner.current = id;
                // Whoever waited on the session before must see its end.
                inner.reader.wake();
                inner.writer.wake();
                drop(inner);
                Ok(Session::new(Arc::clone(&self.shared), id, software))
            }
            Some(Err(error)) => Err(error),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Waits until the port has taken everything that was written, the BYE of a closed session included.
    ///
    /// It waits for ever while no host is attached; put a limit on it.
    pub async fn flushed(&self) {
        poll_fn(|cx| {
            let mut inner = self.shared.lock();
            if inner.is_gone() || inner.end.transmit().is_empty() {
                return Poll::Ready(());
            }
            inner.writer.register(cx);
            inner.driver.wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// Ends the link as dropping it does, and returns when the port is closed.
    pub async fn close(mut self) {
        self.driver.abort();
        // How it ended does not matter: it holds the port no more.
        let _ = (&mut self.driver).await;
    }

    /// Counts what goes over the link.
    pub fn stats(&self) -> &LinkStats {
        &self.shared.stats
    }
}

impl Drop for GuestLink {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

struct Accepting {
    sender: mpsc::Sender<io::Result<(SessionId, String)>>,
}

impl Observer for Accepting {
    fn observe(&mut self, end: &mut End) {
        while let Some(event) = end.guest_event() {
            match event {
                GuestEvent::Opened { id, software } => {
                    debug!(session = %id, host = %software.escape_debug(), "session opened");
                    // With a full backlog the session is not accepted, and the host tries again.
                    if self.sender.try_send(Ok((id, software))).is_err() {
                        end.close(now(), id, "");
                    }
                }
                GuestEvent::Ended { id, reason } => debug!(session = %id, %reason, "session ended"),
                GuestEvent::Refused { code, reason } => {
                    warn!(?code, reason = %reason.escape_debug(), "refused a host");
                }
                GuestEvent::Stuck => {
                    let error = io::Error::new(
                        io::ErrorKind::TimedOut,
                        "it takes nothing although a host greets",
                    );
                    // It comes again with the next greeting.
                    let _ = self.sender.try_send(Err(error));
                }
            }
        }
    }

    fn gone(&mut self, error: io::Error) {
        // With a full backlog nobody learns of the error, but of the channel's end.
        let _ = self.sender.try_send(Err(error));
    }
}
