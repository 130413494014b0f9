//! The handle on a connection: calls, and what the daemon sends unasked.

use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::config::Config;
use super::connection::{Abandoned, Reply};
use super::driver::Driver;
use super::error::ConnectionError;
use super::limits::{CALL_BUDGET, CALL_UNIT, DESCRIPTORS_MAX, PAYLOAD_MAX, SUBSCRIPTIONS};
use super::messages::Messages;
use super::procedure::Procedure;
use super::state::{Shared, Waiting};
use super::stream::RawStream;
use super::subscription::Subscription;
use super::wire::Wire;
use crate::error::Error;

/// A connection on which procedures are called, by any number of tasks at once.
///
/// Clones share the connection, which closes when the last of them and the last of its streams and subscriptions are
/// gone. Each clone has a deadline of its own.
///
/// Every future is cancel-safe: dropping it before the call has left takes the call back; dropping it later lets the
/// daemon finish, and its reply is thrown away.
#[derive(Clone)]
pub struct Client {
    pub(crate) handle: Arc<Handle>,
    deadline: Option<Duration>,
}

/// Keeps the connection open.
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
    carries_descriptors: bool,
}

/// A call that is on its way. Dropped before its reply, it is given up.
struct InFlight<'a> {
    shared: &'a Shared,
    serial: u32,
    answered: bool,
}

// === impl Client ===

impl Client {
    /// Runs a connection over a Unix socket, the only transport that carries file descriptors.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn over_unix(socket: UnixStream, config: impl Into<Config>) -> Self {
        Self::start(Wire::Unix(socket), config.into())
    }

    /// Runs a connection over a connected Unix socket of the standard library.
    ///
    /// # Errors
    /// The socket cannot be made non-blocking, or registered with the runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn over_std_unix(
        socket: StdUnixStream,
        config: impl Into<Config>,
    ) -> std::io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self::over_unix(UnixStream::from_std(socket)?, config))
    }

    /// Runs a connection over any stream of bytes.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn over<T>(stream: T, config: impl Into<Config>) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self::start(Wire::Bytes(Box::new(stream)), config.into())
    }

    fn start(wire: Wire, config: Config) -> Self {
        let carries_descriptors = wire.carries_descriptors();
        let shared = Arc::new(Shared::new(config));
        tokio::spawn(Driver::new(wire, Arc::clone(&shared)));
        Self {
            handle: Arc::new(Handle {
                shared,
                carries_descriptors,
            }),
            deadline: None,
        }
    }

    /// The same connection, on which each call fails with [`Error::Deadline`] unless it is answered within `deadline`.
    #[must_use]
    pub fn with_deadline(&self, deadline: impl Into<Option<Duration>>) -> Self {
        Self {
            handle: Arc::clone(&self.handle),
            deadline: deadline.into(),
        }
    }

    /// Calls a procedure with encoded arguments and gives the encoded result.
    ///
    /// # Errors
    /// The daemon answered with an error, the connection ended, the deadline passed, or `payload` is larger than a
    /// packet may be.
    pub async fn call(&self, procedure: &Procedure, payload: Vec<u8>) -> Result<Bytes, Error> {
        let reply = self.request(procedure, payload, Vec::new()).await?;
        Ok(reply.payload)
    }

    /// Calls a procedure whose call or reply carries file descriptors.
    ///
    /// # Errors
    /// As [`call`](Self::call); or the connection does not run over a Unix socket, or there are more than 32
    /// descriptors.
    pub async fn call_with_fds(
        &self,
        procedure: &Procedure,
        payload: Vec<u8>,
        fds: Vec<OwnedFd>,
    ) -> Result<(Bytes, Vec<OwnedFd>), Error> {
        if !self.handle.carries_descriptors {
            return Err(Error::DescriptorsNeedUnixSocket {
                procedure: procedure.name,
            });
        }
        if fds.len() > DESCRIPTORS_MAX {
            return Err(Error::TooManyDescriptors {
                procedure: procedure.name,
                given: fds.len(),
            });
        }
        let reply = self.request(procedure, payload, fds).await?;
        Ok((reply.payload, reply.descriptors))
    }

    /// Calls a procedure that is followed by a stream.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn open_stream(
        &self,
        procedure: &Procedure,
        payload: Vec<u8>,
    ) -> Result<(Bytes, RawStream), Error> {
        let procedure = Procedure {
            // The tables lack it for one procedure, and for those called by number.
            stream: procedure
                .stream
                .or(Some(super::procedure::StreamDirection::Both)),
            ..*procedure
        };
        self.within(&procedure, async {
            let (in_flight, reply) = self.send(&procedure, payload, Vec::new()).await?;
            let stream = RawStream::new(Arc::clone(&self.handle), in_flight.serial);
            let reply = in_flight.reply(reply).await?;
            Ok((reply.payload, stream))
        })
        .await
    }

    /// Receives what the daemon sends under some procedures from now on, in the order in which it does; at most `capacity`
    /// messages wait (`None`: 16,384), and of large ones fewer
    /// ([`MESSAGE_BYTES`](crate::rpc::limits::MESSAGE_BYTES)).
    ///
    /// Subscribe before you ask the daemon for its events, and none is missed.
    ///
    /// # Errors
    /// The connection has ended, or has 4,096 subscriptions already.
    pub fn subscribe(
        &self,
        procedures: &[Procedure],
        capacity: Option<usize>,
    ) -> Result<Messages, Error> {
        let mut state = self.handle.shared.lock();
        if let Some(why) = &state.ended {
            return Err(Error::Connection(why.clone()));
        }
        if state.subscriptions.len() >= SUBSCRIPTIONS {
            return Err(Error::TooManySubscriptions);
        }
        let id = state.next_subscription;
        state.next_subscription += 1;
        let subscription = Subscription::new(procedures, capacity);
        state.subscriptions.insert(id, subscription);
        Ok(Messages::new(Arc::clone(&self.handle), id))
    }

    /// Starts the pings. The daemon must have agreed to them (feature 10), for others break the connection.
    ///
    /// Not on a connection with a stream whose other end may stop reading, or that uploads over a slow line: the daemon
    /// then does not come to read the pings.
    pub fn enable_keepalive(&self) {
        let mut state = self.handle.shared.lock();
        state.connection.enable_keepalive(Instant::now().into_std());
        state.wake_driver();
    }

    /// Whether they were started, here or for this connection.
    pub(crate) fn has_keepalive(&self) -> bool {
        self.handle.shared.lock().connection.has_keepalive()
    }

    /// Starts the pings on a connection for one stream, whose daemon was not asked for its own; it is known from another
    /// connection that it answers ours. `silences` tells each time that another connection has found the daemon silent.
    pub(crate) fn enable_keepalive_for_stream(
        &self,
        silences: impl Stream<Item = ()> + Send + 'static,
    ) {
        {
            let mut state = self.handle.shared.lock();
            let now = Instant::now().into_std();
            state.connection.enable_keepalive_for_stream(now);
            state.wake_driver();
        }
        let shared = Arc::clone(&self.handle.shared);
        let suspecting = silences.for_each(move |()| {
            let mut state = shared.lock();
            state.connection.suspect(Instant::now().into_std());
            state.wake_driver();
            std::future::ready(())
        });
        let ended = self.watch_end();
        tokio::spawn(async move {
            tokio::select! {
                () = suspecting => {}
                _ = ended => {}
            }
        });
    }

    /// Says this, without arguments, to the daemon when the connection closes.
    pub(crate) fn set_farewell(&self, procedure: Procedure) {
        self.handle.shared.lock().farewell = Some(procedure);
    }

    /// Lets calls of these procedures pass those that wait for their turn: they end what such calls wait for.
    pub(crate) fn let_pass(&self, cancelling: &'static [Procedure]) {
        self.handle.shared.lock().connection.let_pass(cancelling);
    }

    /// Whether file descriptors can be sent and received.
    pub fn carries_descriptors(&self) -> bool {
        self.handle.carries_descriptors
    }

    /// Why the connection has ended, if it has.
    pub fn ended(&self) -> Option<ConnectionError> {
        self.handle.shared.lock().ended.clone()
    }

    /// Waits until the connection has ended, and says why.
    pub async fn wait_ended(&self) -> ConnectionError {
        self.watch_end().await
    }

    /// As [`wait_ended`](Self::wait_ended), without keeping the connection open.
    pub(crate) fn watch_end(&self) -> impl Future<Output = ConnectionError> + Send + use<> {
        let shared = Arc::clone(&self.handle.shared);
        async move {
            loop {
                // It hears of an end from here on, so none falls between the look and the wait.
                let over = shared.over.notified();
                let why = shared.lock().ended.clone();
                if let Some(why) = why {
                    return why;
                }
                over.await;
            }
        }
    }

    /// Closes the connection once what is queued has been sent. What is not answered within a second then fails.
    pub async fn close(self) {
        self.handle.shared.lock().close();
        self.watch_end().await;
    }

    /// Packets that belonged to no call or stream and were dropped, since the connection began. It stays zero with a
    /// daemon in order.
    pub fn ignored_packets(&self) -> u64 {
        self.handle.shared.lock().connection.ignored()
    }

    /// Calls and streams that have not come to their end, also those that nobody waits for any more.
    pub fn unfinished(&self) -> usize {
        self.handle.shared.lock().connection.unfinished()
    }

    async fn request(
        &self,
        procedure: &Procedure,
        payload: Vec<u8>,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Reply, Error> {
        self.within(procedure, async {
            let (in_flight, reply) = self.send(procedure, payload, descriptors).await?;
            // A stream that was not asked for is dropped with the reply, and thereby aborted.
            let _stream = procedure
                .stream
                .map(|_| RawStream::new(Arc::clone(&self.handle), in_flight.serial));
            in_flight.reply(reply).await
        })
        .await
    }

    async fn within<T>(
        &self,
        procedure: &Procedure,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let Some(deadline) = self.deadline else {
            return call.await;
        };
        tokio::time::timeout(deadline, call)
            .await
            .unwrap_or(Err(Error::Deadline {
                procedure: procedure.name,
                deadline,
            }))
    }

    /// Queues a call when the budget allows it.
    async fn send(
        &self,
        procedure: &Procedure,
        payload: Vec<u8>,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(InFlight<'_>, oneshot::Receiver<Result<Reply, Error>>), Error> {
        let room = if descriptors.is_empty() { 0 } else { 4 };
        if payload.len() > PAYLOAD_MAX - room {
            return Err(Error::TooLarge {
                procedure: procedure.name,
                size: payload.len(),
            });
        }
        let shared = &*self.handle.shared;
        let units = (1 + payload.len() / CALL_UNIT).min(CALL_BUDGET);
        let permit = Arc::clone(&shared.budget)
            // At most CALL_BUDGET.
            .acquire_many_owned(u32::try_from(units).unwrap_or(u32::MAX))
            .await;
        let mut state = shared.lock();
        let permit = match (permit, &state.ended) {
            (Ok(permit), None) => permit,
            (_, Some(why)) => return Err(Error::Connection(why.clone())),
            // It is closed a moment before the reason is noted.
            (Err(_), None) => return Err(Error::Connection(ConnectionError::ClosedByDaemon)),
        };
        let serial = state.connection.call(procedure, &payload, descriptors);
        if procedure.stream.is_some() {
            state.streams.entry(serial).or_default();
        }
        let (sender, receiver) = oneshot::channel();
        state.waiting.insert(
            serial,
            Waiting {
                reply: sender,
                _permit: permit,
            },
        );
        state.wake_driver();
        Ok((
            InFlight {
                shared,
                serial,
                answered: false,
            },
            receiver,
        ))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("deadline", &self.deadline)
            .field("ended", &self.ended())
            .finish_non_exhaustive()
    }
}

// === impl Handle ===

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.lock().close();
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

// === impl InFlight ===

impl InFlight<'_> {
    async fn reply(
        mut self,
        reply: oneshot::Receiver<Result<Reply, Error>>,
    ) -> Result<Reply, Error> {
        let reply = reply.await;
        self.answered = true;
        // The sender is dropped without an answer only together with the whole state.
        reply.unwrap_or(Err(Error::Connection(ConnectionError::ClosedHere)))
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        let mut state = self.shared.lock();
        state.streams.remove(&self.serial);
        if state.connection.abandon(self.serial) == Abandoned::Unsent {
            state.waiting.remove(&self.serial);
        }
    }
}
