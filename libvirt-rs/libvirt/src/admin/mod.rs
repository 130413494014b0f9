//! The administration of a daemon: its servers, their clients and threads, its logs.
//!
//! Each daemon of libvirt's has a socket for this beside the others, with a program of its own. Only whoever the daemon
//! runs as may connect, and only on the daemon's host.
//!
//! ```no_run
//! # async fn look() -> Result<(), libvirt::Error> {
//! use libvirt::admin::Daemon;
//!
//! let daemon = Daemon::open("libvirtd:///system").await?;
//! for server in daemon.servers().await? {
//!     let threads = server.thread_pool().await?;
//!     println!("{}: {} threads, {} of them idle", server.name(), threads.current, threads.idle);
//!     for client in server.clients().await? {
//!         let info = client.info().await?;
//!         println!("  client {} over {}: {:?}", client.id(), client.transport(), info.process);
//!     }
//! }
//! daemon.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | this one | the connection, and what concerns the daemon as a whole |
//! | `server` | a server: its threads and limits |
//! | `client` | a server's client |
//! | `logging` | log outputs and filters |

mod client;
mod logging;
mod server;

use std::time::Duration;

pub use client::{Client, ClientInfo, UnixProcess};
pub use logging::{LogDestination, LogFilter, LogLevel, LogOutput};
pub use server::{ClientLimits, NewClientLimits, NewThreadPool, Server, ThreadPool};

use crate::connect;
use crate::environment::Environment;
use crate::error::Error;
use crate::limits::OPENING;
use crate::node::Version;
use crate::object::calls;
use crate::params::{Params, Value};
use crate::raw::admin::{Admin, CONNECT_CLOSE, ConnectOpenArgs};
use crate::raw::api::AdmConnectDaemonShutdownFlags;
use crate::rpc::{self, KeepaliveConfig};
use crate::transport::{self, Options};
use crate::uri::Uri;

/// A daemon, through its socket for administration.
///
/// It is cheap to clone, and clones share the connection, as do the handles found through it. It closes with the last of
/// them. When it has ended, open another one.
///
/// The protocol has no keepalive here: a daemon that hangs is noticed by [`deadline`](Builder::deadline) alone.
#[derive(Debug, Clone)]
pub struct Daemon {
    client: rpc::Client,
}

/// Opens a connection to a daemon's administration.
#[derive(Debug, Clone)]
#[must_use = "nothing happens before `open`"]
pub struct Builder {
    uri: String,
    environment: Environment,
    opening: Duration,
    deadline: Option<Duration>,
}

// === impl Builder ===

impl Builder {
    /// How long opening may take. Default: 30 s.
    pub fn open_within(mut self, opening: Duration) -> Self {
        self.opening = opening;
        self
    }

    /// The time in which each call must be answered. Default: none.
    pub fn deadline(mut self, deadline: impl Into<Option<Duration>>) -> Self {
        self.deadline = deadline.into();
        self
    }

    /// The surroundings in which the socket is looked for. Default: this process's.
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = environment;
        self
    }

    /// Opens it.
    ///
    /// # Errors
    /// The URI is wrong, or nobody answers there, or the daemon refuses us, or it takes too long.
    pub async fn open(self) -> Result<Daemon, Error> {
        let environment = self.environment.clone();
        let (uri, left) =
            connect::resolve(self.uri, environment, self.opening, Uri::resolve_admin).await?;
        let attempt = async {
            let options = Options {
                environment: self.environment,
                timeout: self.opening,
            };
            let socket = transport::connect_admin(&uri, &options).await?;
            let client = rpc::Client::over_unix(socket, KeepaliveConfig::default());
            let admin = Admin::new(client.clone());
            admin.connect_open(&ConnectOpenArgs { flags: 0 }).await?;
            client.set_farewell(CONNECT_CLOSE);
            Ok(client.with_deadline(self.deadline))
        };
        match tokio::time::timeout(left, attempt).await {
            Ok(client) => client.map(|client| Daemon { client }),
            Err(_) => Err(Error::OpeningTooSlow {
                uri: uri.to_string(),
                limit: self.opening,
            }),
        }
    }
}

// === impl Daemon ===

impl Daemon {
    /// Connects to a daemon by its name: `libvirtd:///system`, `virtqemud:///system`, `virtlogd:///session`;
    /// `?socket=/path` names the socket itself. An empty URI is `LIBVIRT_ADMIN_DEFAULT_URI`, `uri_default` of
    /// libvirt-admin.conf, or libvirtd's.
    ///
    /// # Errors
    /// The URI is wrong, or nobody answers there, or the daemon refuses us.
    pub async fn open(uri: &str) -> Result<Self, Error> {
        Self::builder(uri).open().await
    }

    /// Connects in another way than the default.
    pub fn builder(uri: &str) -> Builder {
        Builder {
            uri: uri.to_owned(),
            environment: Environment::of_process(),
            opening: OPENING,
            deadline: None,
        }
    }

    /// The same connection, on which each call must be answered within `deadline`; handles that are found through it
    /// inherit that.
    #[must_use]
    pub fn with_deadline(&self, deadline: impl Into<Option<Duration>>) -> Self {
        Self {
            client: self.client.with_deadline(deadline),
        }
    }

    /// Every procedure of the administration as it is.
    pub fn raw(&self) -> Admin {
        Admin::new(self.client.clone())
    }

    /// The connection under all this.
    pub fn client(&self) -> &rpc::Client {
        &self.client
    }

    /// Closes the connection for all who share it. What is not answered within a second fails.
    pub async fn close(self) {
        self.client.close().await;
    }

    /// Lets the daemon end by itself when it has had neither clients nor work for so long, in whole seconds and at least
    /// one; `None`: never. Since libvirt 8.6.
    ///
    /// # Errors
    /// What the daemon reports, or the end of the connection.
    pub async fn set_idle_timeout(&self, idle: Option<Duration>) -> Result<(), Error> {
        let seconds = idle.map_or(0, |idle| {
            // Zero means never, so a part of a second counts as a whole one.
            let up = u64::from(idle.subsec_nanos() > 0);
            u32::try_from(idle.as_secs().saturating_add(up)).unwrap_or(u32::MAX)
        });
        let args = crate::raw::admin::ConnectSetDaemonTimeoutArgs {
            timeout: seconds.max(u32::from(idle.is_some())),
            flags: 0,
        };
        self.raw().connect_set_daemon_timeout(&args).await
    }

    // For the macro `calls`.
    fn remote(&self) -> Result<Admin, Error> {
        Ok(self.raw())
    }

    fn connect(&self) -> &Self {
        self
    }
}

calls!(Daemon in admin {
    /// The daemon's version.
    version() -> Version = connect_get_lib_version() |found| Version::from_number(found.lib_ver);
    /// Its servers. A libvirtd has two: `libvirtd` for hypervisors, and `admin` for this.
    servers() -> Vec<Server>
        = connect_list_servers(ConnectListServersArgs { need_results: 1, flags: 0 })
        |list, daemon| list.servers.into_iter().map(|raw| Server::new(daemon, raw)).collect();
    /// The server of this name, or [`NoServer`](crate::raw::api::ErrorNumber::NoServer).
    server(name: &str) -> Server
        = connect_lookup_server(ConnectLookupServerArgs { name: name.to_owned(), flags: 0 })
        |found, daemon| Server::new(daemon, found.srv);
    /// Where the daemon writes its log. Since libvirt 3.
    log_outputs() -> Vec<LogOutput>
        = connect_get_logging_outputs(ConnectGetLoggingOutputsArgs { flags: 0 })
        |found| logging::read(&found.outputs)?;
    /// Has the daemon write its log there from now on; nowhere given: where it writes by default.
    set_log_outputs(outputs: &[LogOutput])
        = connect_set_logging_outputs(ConnectSetLoggingOutputsArgs {
            outputs: logging::write(outputs)?, flags: 0,
        });
    /// Which parts of the daemon log more, or less, than the outputs ask for.
    log_filters() -> Vec<LogFilter>
        = connect_get_logging_filters(ConnectGetLoggingFiltersArgs { flags: 0 })
        |found| logging::read(found.filters.as_deref().unwrap_or_default())?;
    /// Has these parts of the daemon log more or less from now on, and no others.
    set_log_filters(filters: &[LogFilter])
        = connect_set_logging_filters(ConnectSetLoggingFiltersArgs {
            filters: logging::write(filters)?, flags: 0,
        });
    /// Ends the daemon. Since libvirt 11.2.
    shutdown(flags: AdmConnectDaemonShutdownFlags)
        = connect_daemon_shutdown(ConnectDaemonShutdownArgs { flags: flags.bits() });
});

/// A number that the daemon always tells.
fn number(params: &Params, name: &'static str) -> Result<u32, Error> {
    match params.get(name) {
        Some(Value::UInt(value)) => Ok(*value),
        _ => Err(Error::MissingParameter { name }),
    }
}

/// Those of the numbers that are to be changed.
fn changes(numbers: &[(&str, Option<u32>)]) -> Vec<crate::raw::admin::TypedParam> {
    let given = numbers
        .iter()
        .filter_map(|(name, value)| Some(((*name).to_owned(), (*value)?.into())));
    given.collect::<Params>().to_admin()
}
