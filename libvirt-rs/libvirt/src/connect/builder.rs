//! What a connection may be told before it is opened.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::limits::OPENING;
use super::session;
use super::states::{State, Status};
use super::{Backoff, Connect, Inner, supervisor};
use crate::auth::Credentials;
use crate::environment::Environment;
use crate::error::Error;
use crate::events::{Registrations, Topics};
use crate::rpc::KeepaliveConfig;
use crate::rpc::limits::CALLS_AT_ONCE;
use crate::transport;
use crate::uri::Uri;

/// Opens a connection.
#[derive(Debug, Clone)]
#[must_use = "nothing happens before `open`"]
pub struct Builder {
    uri: String,
    settings: Settings,
}

#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// The parsed URI; the builder's text until `open`.
    pub(super) uri: Uri,
    pub(super) transport: transport::Options,
    pub(super) read_only: bool,
    pub(super) opening: Duration,
    pub(super) deadline: Option<Duration>,
    pub(super) keepalive: Option<KeepaliveConfig>,
    pub(super) calls_at_once: usize,
    pub(super) reconnect: Option<Backoff>,
    pub(super) credentials: Option<Credentials>,
    pub(super) share_streams: bool,
}

// === impl Builder ===

impl Builder {
    pub(super) fn new(uri: &str) -> Self {
        Self {
            uri: uri.to_owned(),
            settings: Settings {
                uri: Uri::default(),
                transport: transport::Options::default(),
                read_only: false,
                opening: OPENING,
                deadline: None,
                keepalive: Some(KeepaliveConfig::default()),
                calls_at_once: CALLS_AT_ONCE,
                reconnect: None,
                credentials: None,
                share_streams: false,
            },
        }
    }

    /// Allows only what reads. Default: all that the daemon allows us.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.settings.read_only = read_only;
        self
    }

    /// How long opening may take, with authentication. Default: 30 s.
    pub fn open_within(mut self, opening: Duration) -> Self {
        self.settings.opening = opening;
        self
    }

    /// The time in which each call must be answered; see [`Connect::with_deadline`]. Default: none, since some calls
    /// (a migration, a save) may take hours.
    pub fn deadline(mut self, deadline: impl Into<Option<Duration>>) -> Self {
        self.settings.deadline = deadline.into();
        self
    }

    /// How an idle connection is watched; `None`: not at all. Default: a ping after each 5 s of silence, and the end
    /// after five of them without an answer.
    ///
    /// A stream's own connection is watched in the same way, but while its daemon may wait for a guest that does not read, or
    /// megabytes are on their way over a slow line, silence proves nothing there. Then it ends when this connection has
    /// found the daemon silent as well, or when the socket or ssh says that the other side is gone.
    pub fn keepalive(mut self, keepalive: impl Into<Option<KeepaliveConfig>>) -> Self {
        self.settings.keepalive = keepalive.into();
        self
    }

    /// How many calls the daemon has at a time; further ones wait here, in order. Default: 4, one less than a daemon allows
    /// a client unless its configuration says otherwise (`max_client_requests`). The one is for
    /// [`abort_job`](crate::Domain::abort_job), which does not wait.
    ///
    /// A daemon reads nothing from a client that has reached its limit, not even the answers to its own pings, so that
    /// slow calls beyond it end the connection. Raise this together with the daemon's limit.
    pub fn calls_at_once(mut self, calls: usize) -> Self {
        self.settings.calls_at_once = calls;
        self
    }

    /// Opens the connection again whenever it breaks. Default: it ends.
    ///
    /// The first opening is tried once.
    pub fn reconnect(mut self, backoff: impl Into<Option<Backoff>>) -> Self {
        self.settings.reconnect = backoff.into();
        self
    }

    /// The surroundings in which sockets, certificates and credentials are looked for. Default: this process's.
    pub fn environment(mut self, environment: Environment) -> Self {
        self.settings.transport.environment = environment;
        self
    }

    /// A name and a password for SASL. Default: libvirt's file of credentials (`auth.conf`).
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.settings.credentials = Some(credentials);
        self
    }

    /// Lets streams share the connection. Default: each has one of its own.
    ///
    /// Sharing saves a connection per stream, which over ssh is an ssh; but a stream that is not read then holds up
    /// all other calls. So does one whose other end does not read: the daemon then reads nothing more from this connection,
    /// not even the answers to its own pings, and after half a minute (its default) **both ends give the connection up**. The
    /// same goes for an upload over a line so slow that a ping waits that long behind it. Share for downloads, and for what is
    /// surely read at once.
    pub fn share_streams(mut self, share: bool) -> Self {
        self.settings.share_streams = share;
        self
    }

    /// Opens it.
    ///
    /// # Errors
    /// The URI is wrong, or nobody answers there, or the daemon refuses us, or it takes too long.
    pub async fn open(self) -> Result<Connect, Error> {
        let mut settings = self.settings;
        let session = session::open_first(self.uri, &mut settings).await?;
        let deadline = settings.deadline;
        let status = Status::new(State::Up(Topics::new(&session.client)));
        let inner = Arc::new(Inner {
            settings,
            status,
            registrations: Mutex::new(Registrations::default()),
            uri: session.uri,
            private: session.private,
        });
        let ended = session.client.watch_end();
        drop(session.client);
        tokio::spawn(supervisor::run(Arc::downgrade(&inner), ended));
        Ok(Connect { inner, deadline })
    }

    /// A connection that stands, and is never opened again.
    #[cfg(test)]
    pub(super) fn over(self, client: &crate::rpc::Client) -> Connect {
        let deadline = self.settings.deadline;
        let inner = Inner {
            settings: self.settings,
            status: Status::new(State::Up(Topics::new(client))),
            registrations: Mutex::new(Registrations::default()),
            uri: self.uri,
            private: true,
        };
        let inner = Arc::new(inner);
        Connect { inner, deadline }
    }
}
