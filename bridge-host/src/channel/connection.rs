//! One connection of a channel: whole messages in and out, whenever the caller gives up.
//!
//! What was received stays in the buffer until a whole message is taken out of it, so a receive that is dropped loses nothing.

use std::{
    io,
    sync::{Arc, atomic::AtomicBool},
};

use bytes::{Buf as _, BufMut as _, BytesMut};
use rustix::net::{RecvFlags, recv};
use tokio::{
    io::AsyncReadExt as _,
    net::{UnixStream, unix::OwnedReadHalf},
    sync::Mutex,
};
use tokio_util::sync::CancellationToken;

use super::{ProtocolError, ProtocolHandler, writer::Writer};
use crate::limits::CHANNEL_BUFFER;

/// Room that is made before each read.
const READ_AT_LEAST: usize = 4096;

#[derive(Debug)]
pub(super) struct Connection {
    /// The channel, as errors name it.
    channel: Arc<str>,
    /// The longest message.
    limit: usize,
    reader: Mutex<Reader>,
    writer: Mutex<Writer>,
    exchange: Mutex<Exchange>,
    /// Cancelled when it has ended, for whatever reason. Who waits on it learns so.
    pub(super) ended: CancellationToken,
}

#[derive(Debug)]
struct Reader {
    half: OwnedReadHalf,
    buffer: BytesMut,
    /// What comes is dropped up to this byte.
    skips: Option<u8>,
}

/// Requests, and the responses that are still to come.
#[derive(Debug, Default)]
struct Exchange {
    /// Responses to come. All but the last answer requests whose callers have given up.
    owed: u64,
    /// Messages that had left when a request began of which it is not known whether it has.
    asking: Option<u64>,
}

/// One response: decoded, or why it can't be.
pub(super) type Response = Result<Vec<u8>, ProtocolError>;

// === impl Connection ===

impl Connection {
    pub(super) fn new(channel: Arc<str>, limit: usize, stream: UnixStream) -> Self {
        let (reads, writes) = stream.into_split();
        Self {
            channel,
            limit,
            reader: Mutex::new(Reader {
                half: reads,
                buffer: BytesMut::with_capacity(CHANNEL_BUFFER),
                skips: None,
            }),
            writer: Mutex::new(Writer::new(writes)),
            exchange: Mutex::default(),
            ended: CancellationToken::new(),
        }
    }

    /// Whether something may still come of it.
    pub(super) fn is_open(&self) -> bool {
        if self.ended.is_cancelled() {
            return false;
        }
        // Who reads at the moment learns of the end itself.
        let Ok(reader) = self.reader.try_lock() else {
            return true;
        };
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let next = recv(reader.half.as_ref(), &mut [0_u8][..], flags);
        !reader.buffer.is_empty() || !matches!(next, Ok((_, 0)))
    }

    /// Sends a message behind whatever is left of an earlier one. `begun` tells who gives up whether its beginning has left.
    pub(super) async fn send(
        &self,
        message: &[u8],
        begun: &AtomicBool,
    ) -> Result<(), ProtocolError> {
        if message.len() > self.limit {
            return Err(self.too_large("the message"));
        }
        let mut writer = self.writer.lock().await;
        let sent = writer.send(message, begun).await;
        sent.map_err(|error| self.broken(error))
    }

    /// Whatever is there.
    pub(super) async fn available(&self) -> Result<Vec<u8>, ProtocolError> {
        let mut reader = self.reader.lock().await;
        self.skip(&mut reader).await?;
        while reader.buffer.is_empty() {
            self.fill(&mut reader).await?;
        }
        let count = reader.buffer.len().min(self.limit);
        Ok(reader.take(count))
    }

    /// Whatever is there of text: the first bytes of a character wait for the others.
    pub(super) async fn text(&self) -> Result<String, ProtocolError> {
        let mut reader = self.reader.lock().await;
        self.skip(&mut reader).await?;
        loop {
            // Room for a character at least: more must not come while one is waited for.
            let most = self.limit.max(char::MAX.len_utf8());
            let there = &reader.buffer[..reader.buffer.len().min(most)];
            let (good, bad) = match std::str::from_utf8(there) {
                Ok(text) => (text.len(), None),
                Err(error) => (error.valid_up_to(), error.error_len()),
            };
            match (good, bad) {
                (0, None) => self.fill(&mut reader).await?,
                (0, Some(bad)) => {
                    reader.buffer.advance(bad);
                    return Err(self.not_text());
                }
                (good, _) => return self.string(reader.take(good)),
            }
        }
    }

    /// So many bytes.
    pub(super) async fn exact(&self, count: usize) -> Result<Vec<u8>, ProtocolError> {
        if count > self.limit {
            return Err(self.too_large("what is asked for"));
        }
        let mut reader = self.reader.lock().await;
        self.skip(&mut reader).await?;
        while reader.buffer.len() < count {
            self.fill(&mut reader).await?;
        }
        Ok(reader.take(count))
    }

    /// The bytes before this one, which is dropped.
    pub(super) async fn until(&self, delimiter: u8) -> Result<Vec<u8>, ProtocolError> {
        let mut reader = self.reader.lock().await;
        let count = self.find(&mut reader, delimiter).await?;
        let message = reader.take(count);
        reader.buffer.advance(1);
        Ok(message)
    }

    /// Drops everything up to this byte, and it.
    pub(super) async fn skip_past(&self, delimiter: u8) -> Result<(), ProtocolError> {
        let mut reader = self.reader.lock().await;
        reader.skips = Some(delimiter);
        self.skip(&mut reader).await
    }

    /// One response. What could not be decoded has been dropped all the same.
    pub(super) async fn response(
        &self,
        handler: &dyn ProtocolHandler,
    ) -> Result<Response, ProtocolError> {
        let mut reader = self.reader.lock().await;
        let (count, end) = match handler.delimiter() {
            Some(delimiter) => match self.find(&mut reader, delimiter).await {
                Ok(count) => (count, 1),
                Err(error @ ProtocolError::TooLarge { .. }) => return Ok(Err(error)),
                Err(error) => return Err(error),
            },
            None => (self.frame(&mut reader, handler).await?, 0),
        };
        // It stays in the buffer meanwhile, for the case that this is dropped.
        let decoded = handler.decode_response(&reader.buffer[..count]).await;
        reader.consume(count + end);
        Ok(decoded)
    }

    /// Sends a request, whose response [`Connection::answer`] waits for.
    pub(super) async fn ask(
        &self,
        request: &[u8],
        begun: &AtomicBool,
    ) -> Result<(), ProtocolError> {
        let mut exchange = self.exchange.lock().await;
        self.settle(&mut exchange).await;
        exchange.asking = Some(self.writer.lock().await.begun());
        let sent = self.send(request, begun).await;
        self.settle(&mut exchange).await;
        sent
    }

    /// The response to the last request. Those to earlier ones, which come first, are dropped.
    pub(super) async fn answer(
        &self,
        handler: &dyn ProtocolHandler,
    ) -> Result<Response, ProtocolError> {
        loop {
            let response = self.next_response(handler).await?;
            if self.exchange.lock().await.owed == 0 {
                return Ok(response);
            }
        }
    }

    /// The next response, whatever it answers.
    pub(super) async fn next_response(
        &self,
        handler: &dyn ProtocolHandler,
    ) -> Result<Response, ProtocolError> {
        // Before, so that nothing is waited for between taking and counting it.
        let mut exchange = self.exchange.lock().await;
        self.settle(&mut exchange).await;
        let response = self.response(handler).await?;
        exchange.owed = exchange.owed.saturating_sub(1);
        Ok(response)
    }

    /// Finds out whether a request has left whose caller may have given up.
    async fn settle(&self, exchange: &mut Exchange) {
        if let Some(before) = exchange.asking {
            let begun = self.writer.lock().await.begun();
            exchange.asking = None;
            exchange.owed += begun - before;
        }
    }

    /// How many bytes come before the delimiter.
    async fn find(&self, reader: &mut Reader, delimiter: u8) -> Result<usize, ProtocolError> {
        self.skip(reader).await?;
        let mut searched = 0;
        loop {
            let found = position(&reader.buffer[searched..], delimiter);
            let found = found.map(|at| searched + at);
            searched = reader.buffer.len();
            match found {
                Some(at) if at <= self.limit => return Ok(at),
                None if searched <= self.limit => self.fill(reader).await?,
                _ => {
                    reader.skips = Some(delimiter);
                    return Err(self.too_large("the message that came"));
                }
            }
        }
    }

    /// How many bytes the handler's first response has, all of which are there.
    async fn frame(
        &self,
        reader: &mut Reader,
        handler: &dyn ProtocolHandler,
    ) -> Result<usize, ProtocolError> {
        self.skip(reader).await?;
        loop {
            let there = reader.buffer.len().min(self.limit);
            let length = match there {
                0 => None,
                _ => {
                    let found = handler.frame(&reader.buffer[..there]);
                    found.inspect_err(|_| self.end())?
                }
            };
            match length {
                Some(0) => {
                    self.end();
                    let why = format!(
                        "the handler \"{}\" finds a response of no bytes",
                        handler.name()
                    );
                    return Err(ProtocolError::ParseError(why));
                }
                Some(length) if length <= there => return Ok(length),
                Some(length) if length <= self.limit => self.fill(reader).await?,
                None if there < self.limit => self.fill(reader).await?,
                _ => {
                    self.end();
                    return Err(self.too_large("the message that came"));
                }
            }
        }
    }

    async fn skip(&self, reader: &mut Reader) -> Result<(), ProtocolError> {
        while let Some(delimiter) = reader.skips {
            match position(&reader.buffer, delimiter) {
                Some(at) => {
                    reader.buffer.advance(at + 1);
                    reader.skips = None;
                }
                None => {
                    reader.buffer.clear();
                    self.fill(reader).await?;
                }
            }
        }
        Ok(())
    }

    /// Waits for more.
    async fn fill(&self, reader: &mut Reader) -> Result<(), ProtocolError> {
        reader.buffer.reserve(READ_AT_LEAST);
        let mut room = (&mut reader.buffer).limit(CHANNEL_BUFFER);
        match reader.half.read_buf(&mut room).await {
            Ok(0) => {
                self.end();
                Err(ProtocolError::Closed {
                    channel: self.channel.to_string(),
                    dropped: reader.buffer.len(),
                })
            }
            Ok(_) => Ok(()),
            Err(error) => Err(self.broken(error)),
        }
    }

    pub(super) fn end(&self) {
        self.ended.cancel();
    }

    fn broken(&self, source: io::Error) -> ProtocolError {
        self.end();
        let channel = self.channel.to_string();
        ProtocolError::Io { channel, source }
    }

    fn too_large(&self, what: &'static str) -> ProtocolError {
        ProtocolError::TooLarge {
            channel: self.channel.to_string(),
            what,
            limit: self.limit,
        }
    }

    fn not_text(&self) -> ProtocolError {
        let channel = self.channel.to_string();
        ProtocolError::NotText { channel }
    }

    pub(super) fn string(&self, bytes: Vec<u8>) -> Result<String, ProtocolError> {
        String::from_utf8(bytes).map_err(|_| self.not_text())
    }
}

fn position(bytes: &[u8], wanted: u8) -> Option<usize> {
    bytes.iter().position(|byte| *byte == wanted)
}

// === impl Reader ===

impl Reader {
    /// The first bytes, which must be there.
    fn take(&mut self, count: usize) -> Vec<u8> {
        let taken = self.buffer[..count].to_vec();
        self.consume(count);
        taken
    }

    fn consume(&mut self, count: usize) {
        self.buffer.advance(count);
        // A large message does not cost its memory for ever.
        if self.buffer.is_empty() && self.buffer.capacity() > 2 * CHANNEL_BUFFER {
            self.buffer = BytesMut::with_capacity(CHANNEL_BUFFER);
        }
    }
}
