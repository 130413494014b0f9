//! What a connection's users and its driver share: one lock over the protocol's state and those who wait on it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use super::config::Config;
use super::connection::{Connection, Event, Reply, weight};
use super::error::{ConnectionError, ProtocolError};
use super::limits::{CALL_BUDGET, PIECE, STREAM_EARLY, STREAM_RECEIVED};
use super::procedure::Procedure;
use super::subscription::Subscription;
use crate::error::{Error, RemoteError};

#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// What unanswered calls may weigh together; closed when the connection ends.
    pub(crate) budget: Arc<Semaphore>,
    /// Tells those who wait for the end.
    pub(crate) over: Notify,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) connection: Connection,
    pub(crate) waiting: HashMap<u32, Waiting>,
    pub(crate) streams: HashMap<u32, StreamState>,
    pub(crate) subscriptions: HashMap<u64, Subscription>,
    pub(crate) next_subscription: u64,
    /// Why the connection is over.
    pub(crate) ended: Option<ConnectionError>,
    /// Its users have left; what is queued is still sent, and answered if that does not take long.
    pub(crate) closing: bool,
    /// What is said to the daemon before the connection closes.
    pub(crate) farewell: Option<Procedure>,
    pub(crate) driver: Option<Waker>,
}

/// Somebody waits for a reply, or did: the budget's permit is held until the reply has come.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) reply: oneshot::Sender<Result<Reply, Error>>,
    pub(crate) _permit: OwnedSemaphorePermit,
}

/// The two directions of a stream.
#[derive(Debug, Default)]
pub(crate) struct StreamState {
    /// The reply that opens it has come.
    pub(crate) answered: bool,
    pub(crate) received: VecDeque<Chunk>,
    /// What `received` weighs.
    pub(crate) held: usize,
    /// The daemon has no more data, or none is wanted: what comes now is thrown away.
    pub(crate) eof: bool,
    /// The stream is over: confirmed, or failed.
    pub(crate) over: Option<Result<(), Error>>,
    /// The bytes that were written and have not left.
    pub(crate) sending: usize,
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
}

/// A piece of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// Bytes.
    Data(Bytes),
    /// So many bytes that are zero and were not sent.
    Hole(u64),
}

// === impl Shared ===

impl Shared {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            state: Mutex::new(State {
                connection: Connection::new(config),
                waiting: HashMap::new(),
                streams: HashMap::new(),
                subscriptions: HashMap::new(),
                next_subscription: 0,
                ended: None,
                closing: false,
                farewell: None,
                driver: None,
            }),
            over: Notify::new(),
            budget: Arc::new(Semaphore::new(CALL_BUDGET)),
        }
    }

    /// The state. A panic under the lock, of which there should be none, leaves it as usable as before: every change
    /// is complete when a method of `State` returns.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection is over: everybody who waits on it learns why.
    pub(crate) fn end(&self, why: ConnectionError) {
        self.lock().end(why);
        self.budget.close();
        self.over.notify_waiters();
    }
}

// === impl State ===

impl State {
    /// The driver has something to send, or to do.
    pub(crate) fn wake_driver(&self) {
        if let Some(driver) = &self.driver {
            driver.wake_by_ref();
        }
    }

    /// Its users have left: what is queued is sent, and then the connection ends.
    pub(crate) fn close(&mut self) {
        if let Some(farewell) = self.farewell.take() {
            self.connection.call_past_others(&farewell);
        }
        self.closing = true;
        self.wake_driver();
    }

    /// Whether a stream's reader is so far behind that nothing more must be read. What comes after the stream's end is not
    /// kept, so that reader holds nothing up.
    pub(crate) fn is_full(&self) -> bool {
        self.streams
            .values()
            // Without its reply nobody could read it; behind its end nothing more comes.
            .any(|stream| stream.answered && !stream.eof && stream.held >= STREAM_RECEIVED)
    }

    /// Hands an event to the one that it is for.
    ///
    /// # Errors
    /// The daemon sends more than there is room for.
    pub(crate) fn deliver(&mut self, event: Event) -> Result<(), ProtocolError> {
        match event {
            Event::Reply { serial, reply } => {
                let reply = reply.map_err(|error| RemoteError::decode(&error));
                if reply.is_err() {
                    self.streams.remove(&serial);
                } else if let Some(stream) = self.streams.get_mut(&serial) {
                    stream.answered = true;
                }
                if let Some(waiting) = self.waiting.remove(&serial) {
                    // Nobody waits any more: then descriptors in the reply are closed here.
                    let _ = waiting.reply.send(reply);
                }
            }
            Event::Message(mut message) => {
                // What was read at once lies in one block, and a small event must not keep it alive.
                message.payload = Bytes::copy_from_slice(&message.payload);
                for subscription in self.subscriptions.values_mut() {
                    subscription.offer(&message);
                }
            }
            Event::Data { serial, bytes } => {
                if let Some(stream) = self.streams.get_mut(&serial) {
                    return stream.receive(bytes);
                }
            }
            Event::Hole { serial, length } => {
                // One of no length would look like the end.
                if let Some(stream) = self.streams.get_mut(&serial).filter(|_| length > 0) {
                    return stream.push(Chunk::Hole(length));
                }
            }
            Event::StreamClosed { serial } => self.stream_over(serial, Ok(())),
            Event::StreamFailed { serial, error } => {
                self.stream_over(serial, Err(RemoteError::decode(&error)));
            }
        }
        Ok(())
    }

    /// So many bytes of a stream have left.
    pub(crate) fn sent(&mut self, serial: u32, bytes: usize) {
        if let Some(stream) = self.streams.get_mut(&serial) {
            stream.sending = stream.sending.saturating_sub(bytes);
            wake(&mut stream.writer);
        }
    }

    fn stream_over(&mut self, serial: u32, result: Result<(), Error>) {
        if let Some(stream) = self.streams.get_mut(&serial) {
            stream.end(result);
        }
    }

    fn end(&mut self, why: ConnectionError) {
        if self.ended.is_some() {
            return;
        }
        self.connection.end();
        for (_, waiting) in self.waiting.drain() {
            let _ = waiting.reply.send(Err(Error::Connection(why.clone())));
        }
        for stream in self.streams.values_mut() {
            stream.end(Err(Error::Connection(why.clone())));
        }
        for subscription in self.subscriptions.values_mut() {
            wake(&mut subscription.waker);
        }
        self.ended = Some(why);
    }
}

/// Pieces below this size are copied out of the block that they were read into, so that they do not keep it alive.
const COPIED: usize = 4096;

// === impl Chunk ===

impl Chunk {
    /// What it weighs in its reader's queue.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Data(bytes) => weight(bytes.len()),
            Self::Hole(_) => PIECE,
        }
    }
}

// === impl StreamState ===

impl StreamState {
    fn receive(&mut self, bytes: Bytes) -> Result<(), ProtocolError> {
        if bytes.is_empty() {
            self.eof = true;
            wake(&mut self.reader);
            return Ok(());
        }
        let bytes = if bytes.len() < COPIED {
            Bytes::copy_from_slice(&bytes)
        } else {
            bytes
        };
        self.push(Chunk::Data(bytes))
    }

    fn push(&mut self, chunk: Chunk) -> Result<(), ProtocolError> {
        // What comes behind the end, or when the reader has finished, nobody wants.
        if self.eof {
            return Ok(());
        }
        self.held += chunk.weight();
        if !self.answered && self.held > STREAM_EARLY {
            return Err(ProtocolError::StreamTooEarly);
        }
        self.received.push_back(chunk);
        wake(&mut self.reader);
        Ok(())
    }

    pub(crate) fn end(&mut self, result: Result<(), Error>) {
        if self.over.is_none() {
            self.over = Some(result);
        }
        self.sending = 0;
        wake(&mut self.reader);
        wake(&mut self.writer);
    }
}

pub(crate) fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}
