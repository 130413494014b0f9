//! Where a channel is, whether it is connected, and how long anything on it may take.

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use libvirt::{Domain, raw::api::DomainXmlFlags};
use tokio::{
    net::UnixStream,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{
    ProtocolError, ProtocolHandler,
    connection::{Connection, Response},
};
use crate::{
    discovery::domain,
    limits::{
        CHANNEL_MESSAGE, CHANNEL_RECEIVE, CHANNEL_RETRY_FIRST, CHANNEL_RETRY_MAX, CHANNEL_SEND,
        CONNECT_TIMEOUT, HYPERVISOR_LOOK,
    },
};

/// A virtio-serial channel, by its name and the Unix socket that QEMU listens on.
///
/// It may be shared: one task may receive while another sends, and messages never mix. QEMU takes one client at a time; a second
/// one is not refused, but nothing comes or leaves.
///
/// Whatever is received may be dropped before it is ready, as by a time-out, and no byte is lost.
#[derive(Debug)]
pub struct VirtioChannel {
    name: String,
    path: PathBuf,
    /// As errors name it.
    shown: Arc<str>,
    settings: ChannelSettings,
    current: Mutex<Option<Arc<Connection>>>,
    /// Two connections at once would be in each other's way.
    connecting: tokio::sync::Mutex<()>,
}

/// Time-outs and limits of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelSettings {
    /// How long it may take to connect. Default: [`CONNECT_TIMEOUT`].
    pub connect_timeout: Duration,
    /// How long a message may take to leave. Default: [`CHANNEL_SEND`].
    pub send_timeout: Duration,
    /// How long a message may take to come. Default: [`CHANNEL_RECEIVE`].
    pub receive_timeout: Duration,
    /// The longest message in bytes, without its delimiter where it is received. Default: [`CHANNEL_MESSAGE`].
    pub max_message: usize,
    /// First wait before it is connected again; each further one doubles it. Default: [`CHANNEL_RETRY_FIRST`].
    pub retry_first: Duration,
    /// Longest of these waits. Default: [`CHANNEL_RETRY_MAX`].
    pub retry_max: Duration,
    /// How often it is tried. Default: `None`, until it succeeds.
    pub retry_attempts: Option<u32>,
}

impl Default for ChannelSettings {
    fn default() -> Self {
        Self {
            connect_timeout: CONNECT_TIMEOUT,
            send_timeout: CHANNEL_SEND,
            receive_timeout: CHANNEL_RECEIVE,
            max_message: CHANNEL_MESSAGE,
            retry_first: CHANNEL_RETRY_FIRST,
            retry_max: CHANNEL_RETRY_MAX,
            retry_attempts: None,
        }
    }
}

// === impl VirtioChannel ===

impl VirtioChannel {
    /// The channel of this name with this socket. It is not connected yet.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self::with_settings(name, path, ChannelSettings::default())
    }

    /// The same with other time-outs and limits.
    pub fn with_settings(
        name: impl Into<String>,
        path: impl Into<PathBuf>,
        settings: ChannelSettings,
    ) -> Self {
        let (name, path) = (name.into(), path.into());
        let at = path.to_string_lossy();
        let shown = format!("\"{}\" at {}", name.escape_debug(), at.escape_debug()).into();
        Self {
            name,
            path,
            shown,
            settings,
            current: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
        }
    }

    /// The channel of this name that a domain has as it runs. Each of its starts may give the channel another socket.
    ///
    /// # Errors
    /// It has none, does not run, or libvirt does not answer.
    pub async fn discover_from_domain(domain: &Domain, name: &str) -> Result<Self, ProtocolError> {
        Self::discover_with_settings(domain, name, ChannelSettings::default()).await
    }

    /// The same with other time-outs and limits.
    ///
    /// # Errors
    /// As [`VirtioChannel::discover_from_domain`].
    pub async fn discover_with_settings(
        domain: &Domain,
        name: &str,
        settings: ChannelSettings,
    ) -> Result<Self, ProtocolError> {
        let path = discover(domain, name).await?;
        Ok(Self::with_settings(name, path, settings))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its time-outs and limits.
    pub fn settings(&self) -> &ChannelSettings {
        &self.settings
    }

    /// Connects it, unless it is connected.
    ///
    /// # Errors
    /// Nobody listens on its socket, this user may not open it, or it takes too long.
    pub async fn connect(&self) -> Result<(), ProtocolError> {
        let _one_at_a_time = self.connecting.lock().await;
        if self.is_connected() {
            return Ok(());
        }
        let connected = timeout(
            self.settings.connect_timeout,
            UnixStream::connect(&self.path),
        );
        let connected = connected.await;
        let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let stream = connected.map_err(|source| ProtocolError::Connect {
            channel: self.shown.to_string(),
            source,
        })?;
        let limit = self.settings.max_message;
        let connection = Connection::new(Arc::clone(&self.shown), limit, stream);
        *self.current() = Some(Arc::new(connection));
        Ok(())
    }

    /// Connects it, and where that fails tries again after waits that double, as [`ChannelSettings`] says.
    ///
    /// # Errors
    /// The last try has failed.
    pub async fn connect_with_retry(&self) -> Result<(), ProtocolError> {
        let mut delay = self.settings.retry_first;
        let mut tries = 0_u32;
        loop {
            let Err(error) = self.connect().await else {
                return Ok(());
            };
            tries = tries.saturating_add(1);
            if self
                .settings
                .retry_attempts
                .is_some_and(|most| tries >= most)
            {
                return Err(error);
            }
            // Once: it may be so for days.
            match tries {
                1 => warn!("{error}; trying again"),
                _ => debug!(tries, "{error}"),
            }
            sleep(delay).await;
            delay = delay.saturating_mul(2).min(self.settings.retry_max);
        }
    }

    /// Ends the connection. What was received and not taken is dropped, and who waits on it gets
    /// [`ProtocolError::NotConnected`].
    pub fn disconnect(&self) {
        if let Some(connection) = self.current().take() {
            connection.end();
        }
    }

    /// Whether it is connected, and the other end has not closed it. Whether an agent listens in the guest can't be known.
    pub fn is_connected(&self) -> bool {
        self.current()
            .as_ref()
            .is_some_and(|current| current.is_open())
    }

    /// Sends bytes as one message, which leaves as a whole or not at all.
    ///
    /// # Errors
    /// It is not connected, there are more than the limit, or they do not leave in time. After [`ProtocolError::Timeout`] nothing
    /// was sent; after [`ProtocolError::HalfSent`], or when this future was dropped in the midst of it, the rest leaves before the next message.
    pub async fn send(&self, message: &[u8]) -> Result<(), ProtocolError> {
        let (connection, begun) = (self.connection()?, AtomicBool::new(false));
        let sends = connection.send(message, &begun);
        self.sending(&connection, &begun, sends).await
    }

    /// Sends text, as it is: without a line's end.
    ///
    /// # Errors
    /// As [`VirtioChannel::send`].
    pub async fn send_string(&self, text: &str) -> Result<(), ProtocolError> {
        self.send(text.as_bytes()).await
    }

    /// Waits until something has come, and takes all that is there.
    ///
    /// # Errors
    /// It is not connected, or the other end closes it, or nothing comes in time.
    pub async fn receive(&self) -> Result<Vec<u8>, ProtocolError> {
        let connection = self.connection()?;
        self.receiving(&connection, connection.available()).await
    }

    /// The same for text. Of a character that has not come as a whole nothing is taken.
    ///
    /// # Errors
    /// As [`VirtioChannel::receive`]; or it is no text, and what is none is dropped.
    pub async fn receive_string(&self) -> Result<String, ProtocolError> {
        let connection = self.connection()?;
        self.receiving(&connection, connection.text()).await
    }

    /// Waits for so many bytes.
    ///
    /// # Errors
    /// As [`VirtioChannel::receive`]; or they are more than the limit.
    pub async fn receive_exact(&self, count: usize) -> Result<Vec<u8>, ProtocolError> {
        let connection = self.connection()?;
        self.receiving(&connection, connection.exact(count)).await
    }

    /// Waits for a line, which comes without its end (`\n` or `\r\n`).
    ///
    /// # Errors
    /// As [`VirtioChannel::receive_until`]; or it is no text, and is dropped.
    pub async fn receive_line(&self) -> Result<String, ProtocolError> {
        let connection = self.connection()?;
        let line = self.receiving(&connection, connection.until(b'\n')).await?;
        let mut line = connection.string(line)?;
        if line.ends_with('\r') {
            line.pop();
        }
        Ok(line)
    }

    /// Waits for the bytes before this one, which is dropped.
    ///
    /// # Errors
    /// As [`VirtioChannel::receive`]; or they are more than the limit, and are dropped up to that byte before the next message is
    /// received.
    pub async fn receive_until(&self, delimiter: u8) -> Result<Vec<u8>, ProtocolError> {
        let connection = self.connection()?;
        self.receiving(&connection, connection.until(delimiter))
            .await
    }

    /// Drops everything up to this byte, however much that is.
    pub(super) async fn skip_past(&self, delimiter: u8) -> Result<(), ProtocolError> {
        let connection = self.connection()?;
        self.receiving(&connection, connection.skip_past(delimiter))
            .await
    }

    /// The next response, whatever it answers.
    pub(super) async fn response(&self, handler: &dyn ProtocolHandler) -> Response {
        let connection = self.connection()?;
        self.receiving(&connection, connection.next_response(handler))
            .await?
    }

    /// Sends a request, and waits for its response and not for that of an earlier one.
    pub(super) async fn request(&self, handler: &dyn ProtocolHandler, request: &[u8]) -> Response {
        let (connection, begun) = (self.connection()?, AtomicBool::new(false));
        let asks = connection.ask(request, &begun);
        self.sending(&connection, &begun, asks).await?;
        self.receiving(&connection, connection.answer(handler))
            .await?
    }

    /// Something has not happened in time.
    pub(super) fn late(&self, what: &'static str, after: Duration) -> ProtocolError {
        let channel = self.shown.to_string();
        ProtocolError::Timeout {
            channel,
            what,
            after,
        }
    }

    async fn sending(
        &self,
        connection: &Arc<Connection>,
        begun: &AtomicBool,
        sends: impl Future<Output = Result<(), ProtocolError>>,
    ) -> Result<(), ProtocolError> {
        let after = self.settings.send_timeout;
        let sent = self.limited(connection, after, sends).await;
        sent.unwrap_or_else(|| {
            let channel = self.shown.to_string();
            Err(match begun.load(Ordering::Relaxed) {
                true => ProtocolError::HalfSent { channel, after },
                false => self.late("the message has not left", after),
            })
        })
    }

    async fn receiving<T>(
        &self,
        connection: &Arc<Connection>,
        receives: impl Future<Output = Result<T, ProtocolError>>,
    ) -> Result<T, ProtocolError> {
        let after = self.settings.receive_timeout;
        let received = self.limited(connection, after, receives).await;
        received.unwrap_or_else(|| Err(self.late("no whole message has come", after)))
    }

    /// What the future makes, unless the connection ends or it takes too long (`None`).
    async fn limited<T>(
        &self,
        connection: &Arc<Connection>,
        after: Duration,
        future: impl Future<Output = Result<T, ProtocolError>>,
    ) -> Option<Result<T, ProtocolError>> {
        let done = tokio::select! {
            biased;
            () = connection.ended.cancelled() => Some(Err(self.not_connected())),
            done = timeout(after, future) => done.ok(),
        };
        // A socket that is of no use any more keeps others from the channel.
        let mut current = self.current();
        let is_over = |it: &mut Arc<Connection>| it.ended.is_cancelled();
        drop(current.take_if(is_over));
        done
    }

    fn connection(&self) -> Result<Arc<Connection>, ProtocolError> {
        self.current().clone().ok_or_else(|| self.not_connected())
    }

    fn not_connected(&self) -> ProtocolError {
        let channel = self.shown.to_string();
        ProtocolError::NotConnected { channel }
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Option<Arc<Connection>>> {
        // Nothing that can panic happens while it is locked.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The socket of a running domain's channel.
pub(super) async fn discover(domain: &Domain, name: &str) -> Result<PathBuf, ProtocolError> {
    let owner = || domain.name().to_owned();
    let xml = timeout(HYPERVISOR_LOOK, domain.xml(DomainXmlFlags::empty())).await;
    let xml = xml.map_err(|_| ProtocolError::NoXml {
        domain: owner(),
        after: HYPERVISOR_LOOK,
    })??;
    let found = domain::channel(&xml, name).map_err(|source| ProtocolError::Xml {
        domain: owner(),
        source,
    })?;
    let (domain, channel) = (owner(), name.to_owned());
    match found {
        domain::Channel::Socket(path) => Ok(path),
        domain::Channel::Absent => Err(ProtocolError::NoChannel { domain, channel }),
        domain::Channel::Defined => Err(ProtocolError::NoSocket { domain, channel }),
        domain::Channel::Other(kind) => Err(ProtocolError::OtherKind {
            domain,
            channel,
            kind,
        }),
    }
}
