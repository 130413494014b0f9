//! A connection to a hypervisor: opened, authenticated, and opened again when it breaks.
//!
//! ```text
//!                      the connection ends, no reconnect
//!   open ──▶ Up ─────────────────────────────────────────────▶ Ended
//!            ▲ │ the connection ends                             ▲
//!            │ ▼                                                 │ close
//!         Reconnecting ──── an attempt fails: a longer pause ──┐ │
//!            ▲  └──────────────────────────────────────────────┼─┘
//!            └─────────────────────────────────────────────────┘
//! ```
//!
//! Before a new connection counts as *Up*, every subscription has been registered on it.

mod backoff;
mod builder;
pub mod limits;
mod session;
mod states;
mod supervisor;

use std::fmt;
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;

pub use backoff::Backoff;
pub use builder::Builder;
pub(crate) use session::resolve;
pub use states::{ConnectState, States};

use crate::error::Error;
use crate::events::{Registrations, Topics};
use crate::raw::{
    self,
    remote::{CONNECT_OPEN, Remote},
};
use crate::rpc::{Client, ConnectionError};
use builder::Settings;
use states::{State, Status};

/// A connection to a hypervisor, through its libvirt daemon.
///
/// It is cheap to clone, and clones share it. Objects such as [`Domain`](crate::Domain) hold one, and stay usable when
/// it was opened anew.
#[derive(Clone)]
pub struct Connect {
    pub(crate) inner: Arc<Inner>,
    deadline: Option<Duration>,
}

pub(crate) struct Inner {
    settings: Settings,
    status: Status,
    registrations: Mutex<Registrations>,
    /// The URI as the daemon knows it.
    uri: String,
    /// Whether nobody can listen between here and the daemon, nor answer in its place, as the URI has it.
    private: bool,
}

// === impl Connect ===

impl Connect {
    /// Opens a connection with the defaults of [`Builder`]. An empty URI is the one of the environment.
    ///
    /// # Errors
    /// The URI is wrong, or nobody answers there, or the daemon refuses us.
    pub async fn open(uri: &str) -> Result<Self, Error> {
        Self::builder(uri).open().await
    }

    /// Opens a connection in another way than the default.
    pub fn builder(uri: &str) -> Builder {
        Builder::new(uri)
    }

    /// The same connection, on which each call must be answered within `deadline`; objects that are made through it
    /// inherit that.
    #[must_use]
    pub fn with_deadline(&self, deadline: impl Into<Option<Duration>>) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            deadline: deadline.into(),
        }
    }

    /// The URI as the daemon knows it.
    pub fn uri(&self) -> &str {
        &self.inner.uri
    }

    /// Whether it was opened for reading only.
    pub fn is_read_only(&self) -> bool {
        self.inner.settings.read_only
    }

    /// Whether nobody can listen to this connection: neither on the way to the daemon, nor between the daemon and its
    /// hypervisor. Where the URI lets anybody answer in the daemon's place (see
    /// [`Protection`](crate::transport::Protection)), somebody can.
    ///
    /// # Errors
    /// What the daemon reports, or the end of the connection.
    pub async fn is_secure(&self) -> Result<bool, Error> {
        // The daemon is asked for its part alone: it does not know how it was reached.
        let beyond = self.raw()?.connect_is_secure().await?.secure != 0;
        Ok(self.inner.private && beyond)
    }

    /// Every procedure of the protocol as it is.
    ///
    /// # Errors
    /// The connection is not up.
    pub fn raw(&self) -> Result<Remote, Error> {
        Ok(Remote::new(self.client()?))
    }

    /// Calls any procedure by its program's number and its own, also one that is newer than this crate. The arguments and
    /// what comes back are encoded as XDR (RFC 4506); without arguments there are no bytes.
    ///
    /// A stream that follows the procedure is aborted, and descriptors that come with the reply are closed:
    /// [`open_stream`](Client::open_stream) and [`call_with_fds`](Client::call_with_fds) of [`client`](Self::client) are
    /// for those.
    ///
    /// ```no_run
    /// # async fn example(connect: libvirt::Connect) -> Result<(), Box<dyn std::error::Error>> {
    /// use libvirt::raw::remote::REMOTE_PROGRAM;
    ///
    /// // Procedure 23 finds a domain by its name: a length, the bytes, and zeros up to a multiple of four.
    /// let found = connect.call_raw(REMOTE_PROGRAM, 23, b"\0\0\0\x03web\0".to_vec()).await?;
    /// // Its name comes back, then its UUID and its number.
    /// println!("the UUID is {:02x?}", &found[8..24]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What the daemon reports, such as [`NoSupport`](crate::raw::api::ErrorNumber::NoSupport) of a procedure that it does
    /// not have; the arguments are larger than a packet may be (32 MiB); the end of the connection.
    pub async fn call_raw(
        &self,
        program: u32,
        procedure: i32,
        arguments: Vec<u8>,
    ) -> Result<Bytes, Error> {
        let procedure = raw::procedure(program, procedure);
        self.client()?.call(&procedure, arguments).await
    }

    // For the macro `calls`, which sees a handle and a connection alike.
    pub(crate) fn remote(&self) -> Result<Remote, Error> {
        self.raw()
    }

    pub(crate) fn connect(&self) -> &Self {
        self
    }

    /// The connection under all this, as it is at the moment.
    ///
    /// # Errors
    /// The connection is not up.
    pub fn client(&self) -> Result<Client, Error> {
        match &*self.inner.status.current() {
            State::Up(topics) => Ok(topics.client().with_deadline(self.deadline)),
            State::Reconnecting { why, .. } | State::Ended(why) => Err(why.clone()),
        }
    }

    /// Whether it is up.
    pub fn state(&self) -> ConnectState {
        self.inner.status.current().public()
    }

    /// The states that it goes through, from the one that it is in now: none that follows is missed between two looks.
    pub fn states(&self) -> States {
        self.inner.status.watch()
    }

    /// Waits until the connection is up.
    ///
    /// # Errors
    /// It has ended for good.
    pub async fn ready(&self) -> Result<(), Error> {
        let mut watch = self.inner.status.subscribe();
        let settled = watch
            .wait_for(|state| !matches!(state, State::Reconnecting { .. }))
            .await;
        match settled.as_deref() {
            Ok(State::Ended(why)) => Err(why.clone()),
            // An error would mean that the sender is gone, and we hold it.
            Ok(State::Up(_) | State::Reconnecting { .. }) | Err(_) => Ok(()),
        }
    }

    /// Closes the connection for all who share it. What is not answered within a second fails. Streams that have
    /// connections of their own go on to their end.
    pub async fn close(&self) {
        let ended = State::Ended(Error::Connection(ConnectionError::ClosedHere));
        let before = self.inner.status.advance(ended);
        self.registrations().end();
        if let Some(State::Up(topics)) = before {
            topics.client().clone().close().await;
        }
    }

    /// A connection of its own to the same daemon, for one stream: so a reader that is behind holds up nobody else, here or
    /// at the other end of the stream.
    pub(crate) async fn for_stream(&self) -> Result<Remote, Error> {
        // Who has closed the connection, or waits for a new one, opens no stream.
        let shared = self.raw()?;
        if self.inner.settings.share_streams {
            return Ok(shared);
        }
        // From here on, so that no silence is missed.
        let silences = self.states().filter_map(|state| ready(silence(&state)));
        let open = session::open(&self.inner.settings, session::Purpose::Stream);
        let session = self.within(CONNECT_OPEN.name, open).await?;
        if shared.client().has_keepalive() {
            session.client.enable_keepalive_for_stream(silences);
        }
        Ok(Remote::new(session.client.with_deadline(self.deadline)))
    }

    /// What the daemon was asked for on the connection as it is at the moment.
    pub(crate) fn topics(&self) -> Result<Topics, Error> {
        match &*self.inner.status.current() {
            State::Up(topics) => Ok(topics.clone()),
            State::Reconnecting { why, .. } | State::Ended(why) => Err(why.clone()),
        }
    }

    /// Does what consists of several calls within the deadline of one.
    pub(crate) async fn within<T>(
        &self,
        procedure: &'static str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let Some(deadline) = self.deadline else {
            return work.await;
        };
        let late = Error::Deadline {
            procedure,
            deadline,
        };
        tokio::time::timeout(deadline, work)
            .await
            .unwrap_or(Err(late))
    }

    /// Why it is not up.
    pub(crate) fn why_ended(&self) -> Error {
        match &*self.inner.status.current() {
            State::Reconnecting { why, .. } | State::Ended(why) => why.clone(),
            State::Up(_) => Error::Connection(ConnectionError::ClosedHere),
        }
    }

    pub(crate) fn registrations(&self) -> MutexGuard<'_, Registrations> {
        self.inner.registrations()
    }

    /// One whose daemon is not there.
    #[cfg(test)]
    pub(crate) fn for_test() -> Self {
        let (ours, _) = tokio::io::duplex(1);
        let client = Client::over(ours, crate::rpc::KeepaliveConfig::default());
        Builder::new("test:///default").over(&client)
    }
}

/// Whether a connection's state is that its daemon was found silent.
fn silence(state: &ConnectState) -> Option<()> {
    let (ConnectState::Reconnecting { why, .. } | ConnectState::Ended(why)) = state else {
        return None;
    };
    matches!(
        why,
        Error::Connection(ConnectionError::Silent(_)) | Error::OpeningTooSlow { .. }
    )
    .then_some(())
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("uri", &self.inner.uri)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

// === impl Inner ===

impl Inner {
    fn registrations(&self) -> MutexGuard<'_, Registrations> {
        self.registrations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
