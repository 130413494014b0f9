//! The agent as a whole: what it serves, and where.
//!
//! | module | what it is |
//! |---|---|
//! | [`builder`] | what an embedding program can say of it |
//! | [`assembly`] | its own services, and what they share |

mod assembly;
mod builder;

use std::{fmt, future::Future, sync::Arc};

use vbridge_link::Key;

#[cfg(feature = "tls")]
use crate::tls::Tls;
use crate::{
    discovery::DescriptorError,
    events::Hub,
    exec::Registry,
    port::{FindError, ListenError, Rebind},
    router,
    serve::{Place, Serving},
    services::{health::Health, sampler::Sampler, storage::Freezer},
    sessions::Sessions,
    systemd::Systemd,
    tunnel::Tunnels,
};
pub use builder::AgentBuilder;

/// The name of the channel that the agent serves on unless told otherwise.
pub const DEFAULT_CHANNEL: &str = "org.vbridge.agent.0";

/// What the agent calls itself.
pub(crate) const NAME: &str = "vbridge-agent";

/// Its version.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A guest agent, ready to run.
pub struct Agent {
    place: Place,
    key: Option<Key>,
    rebind: Rebind,
    router: router::Router,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
    sampler: Sampler,
    systemd: Systemd,
    tunnels: Tunnels,
    freezer: Freezer,
    health: Arc<Health>,
    processes: Registry,
    events: Hub,
}

/// Why an agent can't be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A service's name is taken.
    #[error("the service {0} was added twice, or is one of the agent's own")]
    Duplicate(&'static str),
    /// An upstream that can't be, beside the others or beside the agent's own services.
    #[error("{0}")]
    Upstream(String),
    /// A descriptor set can't be used.
    #[error(transparent)]
    Descriptors(#[from] DescriptorError),
    /// Two places to serve on.
    #[error("a port's path and a socket to listen on exclude each other: choose one")]
    TwoPlaces,
    /// A name that can't be a channel's.
    #[error("a channel's name must not be empty or contain a slash, and this is {0:?}")]
    Channel(String),
}

/// Why a running agent gave up.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no port.
    #[error(transparent)]
    Port(#[from] FindError),
    /// The socket can't be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

// === impl Agent ===

impl Agent {
    /// Starts with an agent that serves its own services on the default channel.
    pub fn builder() -> AgentBuilder {
        AgentBuilder::new()
    }

    /// Serves until `shutdown` completes, then ends calls and session in order, within a few seconds.
    ///
    /// Must run within a tokio runtime with I/O and time enabled; a single-threaded one serves best. Processes that the
    /// agent has started for its callers are killed at the end, unless they were to go on. The program must not ignore
    /// SIGCHLD, nor wait for children that are not its own.
    ///
    /// # Errors
    /// There is no port and it is not to be waited for, or the socket can't be listened on.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let serving = Serving {
            place: self.place,
            key: self.key,
            rebind: self.rebind,
            sessions: Sessions::new(
                self.router,
                #[cfg(feature = "tls")]
                self.tls,
            ),
            sampler: self.sampler,
            systemd: self.systemd,
            tunnels: self.tunnels,
            freezer: self.freezer,
            health: self.health,
            processes: self.processes.clone(),
            events: self.events,
        };
        let result = serving.run(shutdown).await;
        // A port that had gone must not save them.
        self.processes.stop().await;
        result
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent")
            .field("place", &self.place)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}
