//! Port after port, session after session.
//!
//! ```text
//!               opened                      the port failed
//!    Opening ───────────▶ Serving (a link) ─────────────────▶ Opening, after REOPEN_DELAY
//!       │ ▲                  │    │ a host greets, and the port takes nothing
//!       │ └───── rebound ────│────┘
//!       └───────── stop ─────┴──▶ Stopping: GOAWAY, calls end, BYE, the port is closed
//! ```
//!
//! Everything that the agent has to do with the link's crate, but for its ports, is here.

use std::{future::Future, io, path::PathBuf, pin::pin, sync::Arc};

use rustix::io::Errno;
use vbridge_link::{GuestConfig, GuestLink, Key};

use crate::{
    agent::{NAME, RunError, VERSION},
    events::Hub,
    exec::Registry,
    limits::{REOPEN_DELAY, SHUTDOWN_GRACE},
    port::{FindError, Finder, ListenPort, Listener, Rebind, rebind},
    services::{health::Health, sampler::Sampler, storage::Freezer},
    sessions::Sessions,
    systemd::Systemd,
    tunnel::Tunnels,
};

/// Where the agent serves.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// On a virtio-serial port.
    Device(Finder),
    /// On a Unix socket.
    Socket(PathBuf),
}

/// What a running agent consists of.
pub(crate) struct Serving {
    pub(crate) place: Place,
    pub(crate) key: Option<Key>,
    pub(crate) rebind: Rebind,
    pub(crate) sessions: Sessions,
    pub(crate) sampler: Sampler,
    pub(crate) systemd: Systemd,
    pub(crate) tunnels: Tunnels,
    pub(crate) freezer: Freezer,
    pub(crate) health: Arc<Health>,
    pub(crate) processes: Registry,
    pub(crate) events: Hub,
}

enum Source {
    Device(Finder),
    Socket(Arc<Listener>),
}

impl Serving {
    /// Serves until `shutdown`. Nothing stays frozen when it ends, even if it is given up in the middle.
    pub(crate) async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let thaw = self.freezer.thaw_on_drop();
        let result = self.serve(shutdown).await;
        drop(thaw);
        self.freezer.end().await;
        result
    }

    async fn serve(&self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let mut source = match self.place.clone() {
            Place::Device(finder) => Source::Device(finder),
            Place::Socket(path) => {
                let listener = Listener::bind(&path)?;
                tracing::info!("serving on unix:{}", path.display());
                Source::Socket(Arc::new(listener))
            }
        };
        let mut shutdown = pin!(shutdown);
        // The last complaint about a stuck port: it is said once, and not with each greeting.
        let mut said = String::new();
        loop {
            let mut link = tokio::select! {
                () = shutdown.as_mut() => return Ok(()),
                link = self.open(&source) => link?,
            };
            let failure = loop {
                tokio::select! {
                    () = shutdown.as_mut() => {
                        self.stop(link).await;
                        return Ok(());
                    }
                    session = link.accept() => match session {
                        Ok(session) => {
                            said.clear();
                            tracing::debug!(host = %session.peer_software().escape_debug(), "session opened");
                            self.sessions.serve(session);
                        }
                        Err(error) => break error,
                    }
                }
            };
            link.close().await;
            let is_freed = match &source {
                Source::Device(finder) if failure.kind() == io::ErrorKind::TimedOut => {
                    self.free(finder, &mut said).await
                }
                _ => {
                    tracing::warn!("{}; opening it anew", describe(&failure));
                    false
                }
            };
            // It was there once: from now on its absence is worth waiting for.
            if let Source::Device(finder) = source {
                source = Source::Device(finder.wait(true));
            }
            if is_freed {
                continue;
            }
            tokio::select! {
                () = shutdown.as_mut() => return Ok(()),
                () = tokio::time::sleep(REOPEN_DELAY) => {}
            }
        }
    }

    async fn open(&self, source: &Source) -> Result<GuestLink, FindError> {
        let config = GuestConfig {
            software: format!("{NAME}/{VERSION}"),
            key: self.key.clone(),
            ..GuestConfig::default()
        };
        Ok(match source {
            Source::Device(finder) => {
                let (port, path) = finder.open().await?;
                tracing::info!("serving on {}", path.display());
                GuestLink::new(port, config)
            }
            Source::Socket(listener) => {
                GuestLink::new(ListenPort::new(Arc::clone(listener)), config)
            }
        })
    }

    /// Frees a port that takes nothing although a host is there. Whether that was done.
    async fn free(&self, finder: &Finder, said: &mut String) -> bool {
        let path = match finder.try_open() {
            // Only a port that is full from the start is stuck; any other may have had no host.
            Ok((port, path)) if port.is_full().unwrap_or(false) => path,
            _ => return false,
        };
        let allowed = self.rebind;
        let port = path.clone();
        let done = tokio::task::spawn_blocking(move || rebind::rebind(&port, allowed)).await;
        let stuck = format!(
            "the port {} is stuck, since QEMU has lost all of its buffers",
            path.display()
        );
        match done {
            Ok(Ok(())) => {
                tracing::warn!("{stuck}; it was freed by rebinding its driver");
                true
            }
            Ok(Err(error)) => {
                let text = format!("{stuck}; restart the guest, since {error}");
                if *said != text {
                    tracing::error!("{text}");
                    *said = text;
                }
                false
            }
            // The runtime ends.
            Err(_) => false,
        }
    }

    /// Ends everything in order: streams that would go on for ever, processes, calls, the session, the port.
    async fn stop(&self, link: GuestLink) {
        tracing::info!("stopping");
        self.health.stop();
        self.sampler.stop();
        self.systemd.stop();
        self.tunnels.stop();
        // Processes and calls that wait for a frozen file system can end only then.
        self.freezer.end().await;
        self.processes.stop().await;
        self.events.stop();
        if self.sessions.stop().await {
            // Its BYE is on its way. A host that takes nothing is not waited for long.
            let _ = tokio::time::timeout(SHUTDOWN_GRACE, link.flushed()).await;
        }
    }
}

fn describe(failure: &io::Error) -> String {
    if failure.raw_os_error() == Some(Errno::NODEV.raw_os_error()) {
        "the port was unplugged".to_owned()
    } else {
        format!("the port failed: {failure}")
    }
}
