//! The state machine for the fuzz targets, which are a crate of their own. No part of the library's interface.

use std::os::fd::OwnedFd;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::config::Config;
use super::connection::{Abandoned, Connection, Event, Message};
use super::error::{ConnectionError, ProtocolError};
use super::keepalive::KeepaliveConfig;
use super::limits::READ;
use super::procedure::Procedure;

/// A connection and what it has received.
#[derive(Debug)]
pub struct Core {
    connection: Connection,
    input: BytesMut,
}

/// What a packet has brought: the connection's own events.
#[derive(Debug)]
pub enum Seen {
    Reply {
        serial: u32,
        /// The result and its descriptors, or the error.
        reply: Result<(Bytes, Vec<OwnedFd>), Bytes>,
    },
    Message(Message),
    Data {
        serial: u32,
        bytes: Bytes,
    },
    Hole {
        serial: u32,
        length: u64,
    },
    StreamClosed {
        serial: u32,
    },
    StreamFailed {
        serial: u32,
        error: Bytes,
    },
}

// === impl Core ===

impl Core {
    pub fn new(keepalive: KeepaliveConfig) -> Self {
        Self {
            // The model lets every call go.
            connection: Connection::new(Config {
                keepalive,
                calls_at_once: usize::MAX,
            }),
            input: BytesMut::new(),
        }
    }

    pub fn call(&mut self, of: &Procedure, payload: &[u8], descriptors: Vec<OwnedFd>) -> u32 {
        self.connection.call(of, payload, descriptors)
    }

    /// Whether the call had not been sent.
    pub fn abandon(&mut self, serial: u32) -> bool {
        self.connection.abandon(serial) == Abandoned::Unsent
    }

    pub fn send_data(&mut self, serial: u32, data: &[u8]) -> bool {
        self.connection.send_data(serial, data)
    }

    pub fn send_hole(&mut self, serial: u32, length: i64) -> bool {
        self.connection.send_hole(serial, length)
    }

    pub fn finish_stream(&mut self, serial: u32) -> bool {
        self.connection.finish_stream(serial)
    }

    pub fn abort_stream(&mut self, serial: u32) {
        self.connection.abort_stream(serial);
    }

    /// The next packet to send, and the descriptors that follow it.
    pub fn poll_transmit(&mut self) -> Option<(Bytes, Vec<OwnedFd>)> {
        let transmit = self.connection.poll_transmit()?;
        Some((transmit.bytes, transmit.descriptors))
    }

    pub fn handle_descriptor(&mut self, descriptor: OwnedFd) -> Result<(), ProtocolError> {
        self.connection.handle_descriptor(descriptor)
    }

    /// Bytes have come; there is room for them by the driver's rule.
    pub fn receive(&mut self, bytes: &[u8]) {
        for bytes in bytes.chunks(READ) {
            if self.input.capacity() - self.input.len() < bytes.len() {
                let missing = self.connection.missing(&self.input);
                self.input.reserve(missing.clamp(bytes.len(), READ));
            }
            self.input.extend_from_slice(bytes);
        }
    }

    pub fn handle_input(&mut self, now: Instant) -> Result<Option<Seen>, ProtocolError> {
        self.connection.handle_received(now);
        let event = self.connection.handle_input(&mut self.input)?;
        Ok(event.map(Seen::from))
    }

    pub fn enable_keepalive(&mut self, now: Instant) {
        self.connection.enable_keepalive(now);
    }

    pub fn pause(&mut self, now: Instant) {
        self.connection.pause(now);
    }

    pub fn resume(&mut self, now: Instant) {
        self.connection.resume(now);
    }

    pub fn timeout(&self) -> Option<Instant> {
        self.connection.timeout()
    }

    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), ConnectionError> {
        self.connection.handle_timeout(now)
    }

    pub fn unfinished(&self) -> usize {
        self.connection.unfinished()
    }

    pub fn ignored(&self) -> u64 {
        self.connection.ignored()
    }
}

// === impl Seen ===

impl From<Event> for Seen {
    fn from(event: Event) -> Self {
        match event {
            Event::Reply { serial, reply } => Self::Reply {
                serial,
                reply: reply.map(|reply| (reply.payload, reply.descriptors)),
            },
            Event::Message(message) => Self::Message(message),
            Event::Data { serial, bytes } => Self::Data { serial, bytes },
            Event::Hole { serial, length } => Self::Hole { serial, length },
            Event::StreamClosed { serial } => Self::StreamClosed { serial },
            Event::StreamFailed { serial, error } => Self::StreamFailed { serial, error },
        }
    }
}
