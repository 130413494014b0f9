//! One connection as a state machine: packets in, packets out, no I/O and no clock.
//!
//! A call lives in the table under its serial:
//!
//! ```text
//!                         ┌───────────── error reply ──────────────────────┐
//!   call ──▶ Waiting ─────┼── reply, no stream ────────────────────────────┼──▶ gone
//!              │          └── reply, stream ──▶ Streaming ── error ────────┤
//!              │ abandon                          │     │                  │
//!              ▼                           finish │     │ abort            │
//!          Abandoned ── reply, no stream ─────────┼─────┼──────────────────┤
//!              │                                  ▼     ▼                  │
//!              │                           Finishing   Aborting            │
//!              │ reply, stream                    │ ▲   │ confirmation     │
//!              └──────────── abort ───────────────│─┴──▶└──────────────────┤
//!                                                 └──── confirmation ──────┘
//! ```
//!
//! - *Abandoned*: nobody waits for the reply any more. The serial stays taken until the reply has come, for the
//!   protocol has no way to take a call back. A call that is still in our own queue is taken out of it instead.
//! - *Aborting*: whatever the daemon sent before it saw the abort is dropped.
//! - Only so many calls are with the daemon at a time ([`Config::calls_at_once`]); the others wait here, in order, until a
//!   reply has come. Abandoned ones count until then. A call that ends what others do passes them, one at a time.
//! - The daemon answers a call and serves its stream in two threads. So data, and even a stream's end, may come before the
//!   reply: such a call then waits as one without a stream.
//! - A packet's kind is looked at before its serial: libvirt numbers its events 1, like the first call.
//! - A reply to an unknown serial (a second reply, for one) is counted and dropped, as libvirt's own client does.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::config::Config;
use super::error::{ConnectionError, ProtocolError};
use super::header::{Header, Kind, Packet, Status};
use super::keepalive::{self, Due, Keepalive};
use super::limits::{DESCRIPTORS_WAITING, PIECE};
use super::procedure::Procedure;

/// The client's end of a connection.
#[derive(Debug)]
pub(crate) struct Connection {
    calls: HashMap<u32, Call>,
    next_serial: u32,
    outgoing: VecDeque<Transmit>,
    /// Calls that wait until the daemon has answered others.
    held: VecDeque<Transmit>,
    /// Procedures that end what other calls do, which they must not wait for.
    cancelling: &'static [Procedure],
    /// Calls of these that wait until the one before them was answered.
    held_cancelling: VecDeque<Transmit>,
    /// The one of these that is in `outgoing` or sent, and not answered.
    cancelling_now: Option<u32>,
    /// Calls in `outgoing` or sent, and not answered.
    under_way: usize,
    calls_at_once: usize,
    /// A packet whose descriptors have not all come, and how many carrier bytes are missing.
    incomplete: Option<(Packet, usize)>,
    descriptors: VecDeque<OwnedFd>,
    keepalive: Keepalive,
    ignored: u64,
}

#[derive(Debug)]
struct Call {
    program: u32,
    version: u32,
    procedure: i32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting { stream: bool },
    Abandoned { stream: bool },
    Streaming,
    Finishing,
    Aborting,
}

/// A packet to be sent.
#[derive(Debug)]
pub(crate) struct Transmit {
    /// The packet.
    pub(crate) bytes: Bytes,
    /// Descriptors that follow it, each with one carrier byte.
    pub(crate) descriptors: Vec<OwnedFd>,
    /// The call that it opens, while it can still be taken back.
    opens: Option<u32>,
    /// It is a question of keepalive's.
    asks: bool,
    /// The stream that it belongs to, and its share of what that stream may have waiting.
    pub(crate) stream: Option<(u32, usize)>,
}

/// What a packet has brought.
#[derive(Debug)]
pub(crate) enum Event {
    /// The reply to a call; after an error reply to a call with a stream, there is none.
    Reply {
        serial: u32,
        /// The encoded result, or the encoded error.
        reply: Result<Reply, Bytes>,
    },
    /// The daemon sent something unasked.
    Message(Message),
    /// Data of a stream. Without bytes: the daemon has no more.
    Data { serial: u32, bytes: Bytes },
    /// A hole of so many bytes in a stream.
    Hole { serial: u32, length: u64 },
    /// The end of a stream was confirmed.
    StreamClosed { serial: u32 },
    /// A stream has failed, with an encoded error.
    StreamFailed { serial: u32, error: Bytes },
}

/// A good reply.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) payload: Bytes,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// What a daemon sends unasked: an event.
#[derive(Debug, Clone)]
pub struct Message {
    /// The program that it belongs to.
    pub program: u32,
    /// The procedure, which says how the payload is to be read.
    pub procedure: i32,
    /// The event in XDR.
    pub payload: Bytes,
}

/// What became of an abandoned call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Abandoned {
    /// It was never sent, and its serial is free.
    Unsent,
    /// The daemon has it.
    Sent,
}

// === impl Connection ===

impl Connection {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            calls: HashMap::new(),
            next_serial: 1,
            outgoing: VecDeque::new(),
            held: VecDeque::new(),
            cancelling: &[],
            held_cancelling: VecDeque::new(),
            cancelling_now: None,
            under_way: 0,
            calls_at_once: config.calls_at_once.max(1),
            incomplete: None,
            descriptors: VecDeque::new(),
            keepalive: Keepalive::new(config.keepalive),
            ignored: 0,
        }
    }

    /// Queues a call and gives its serial. The caller has checked the payload and the descriptors against their
    /// limits, and bounds how many calls there are.
    pub(crate) fn call(
        &mut self,
        procedure: &Procedure,
        payload: &[u8],
        descriptors: Vec<OwnedFd>,
    ) -> u32 {
        let serial = self.free_serial();
        let header = Header {
            program: procedure.program,
            version: procedure.version,
            procedure: procedure.number,
            kind: if descriptors.is_empty() {
                Kind::Call
            } else {
                Kind::CallWithDescriptors
            },
            serial,
            status: Status::Ok,
        };
        self.calls.insert(
            serial,
            Call {
                program: procedure.program,
                version: procedure.version,
                procedure: procedure.number,
                state: State::Waiting {
                    stream: procedure.stream.is_some(),
                },
            },
        );
        let transmit = Transmit {
            bytes: header.packet(descriptors.len(), payload),
            descriptors,
            opens: Some(serial),
            asks: false,
            stream: None,
        };
        if self.cancelling.contains(procedure) {
            self.held_cancelling.push_back(transmit);
        } else {
            self.held.push_back(transmit);
        }
        self.release();
        serial
    }

    /// Calls of these procedures do not wait for others, only for each other. The daemon then has one call more than it
    /// has otherwise, and so still no more than it takes: [`Config::calls_at_once`] is one less.
    pub(crate) fn let_pass(&mut self, cancelling: &'static [Procedure]) {
        self.cancelling = cancelling;
    }

    /// Queues a call whose reply nobody needs, past those that are held back.
    pub(crate) fn call_past_others(&mut self, procedure: &Procedure) {
        let serial = self.call(procedure, &[], Vec::new());
        if let Some(at) = position(&self.held, serial)
            && let Some(transmit) = self.held.remove(at)
        {
            self.let_go(transmit);
        }
    }

    /// Lets calls go that were held back, while there is room for them.
    fn release(&mut self) {
        if self.cancelling_now.is_none()
            && let Some(transmit) = self.held_cancelling.pop_front()
        {
            self.cancelling_now = transmit.opens;
            self.let_go(transmit);
        }
        while self.under_way < self.calls_at_once
            && let Some(transmit) = self.held.pop_front()
        {
            self.let_go(transmit);
        }
    }

    fn let_go(&mut self, transmit: Transmit) {
        self.under_way += 1;
        self.outgoing.push_back(transmit);
    }

    /// A call is answered, or was taken back.
    fn answered(&mut self, serial: u32) {
        self.cancelling_now.take_if(|now| *now == serial);
        self.under_way = self.under_way.saturating_sub(1);
        self.release();
    }

    /// Nobody waits for this call's reply, or uses its stream, any more.
    pub(crate) fn abandon(&mut self, serial: u32) -> Abandoned {
        let Some(call) = self.calls.get_mut(&serial) else {
            return Abandoned::Sent;
        };
        match call.state {
            State::Waiting { stream } => {
                for queue in [&mut self.held, &mut self.held_cancelling] {
                    if let Some(at) = position(queue, serial) {
                        queue.remove(at);
                        self.calls.remove(&serial);
                        return Abandoned::Unsent;
                    }
                }
                if let Some(at) = position(&self.outgoing, serial) {
                    self.outgoing.remove(at);
                    self.calls.remove(&serial);
                    self.answered(serial);
                    return Abandoned::Unsent;
                }
                call.state = State::Abandoned { stream };
            }
            State::Streaming => self.abort_stream(serial),
            State::Abandoned { .. } | State::Finishing | State::Aborting => {}
        }
        Abandoned::Sent
    }

    /// Queues data of a stream; false if the stream is not open.
    pub(crate) fn send_data(&mut self, serial: u32, data: &[u8]) -> bool {
        self.send_in_stream(serial, Kind::Stream, data)
    }

    /// Queues a hole of a stream; false if the stream is not open.
    pub(crate) fn send_hole(&mut self, serial: u32, length: i64) -> bool {
        // virNetStreamHole: hyper length, unsigned flags, of which there are none.
        let mut payload = [0; 12];
        payload[..8].copy_from_slice(&length.to_be_bytes());
        self.send_in_stream(serial, Kind::StreamHole, &payload)
    }

    /// Says that no more data follows; [`Event::StreamClosed`] confirms it. False if the stream is not open.
    pub(crate) fn finish_stream(&mut self, serial: u32) -> bool {
        self.end_stream(serial, State::Finishing, Status::Ok)
    }

    /// Ends a stream at once: what it still has in the queue is not sent, what still comes is dropped.
    pub(crate) fn abort_stream(&mut self, serial: u32) {
        match self.calls.get(&serial).map(|call| call.state) {
            Some(State::Streaming) => {
                self.outgoing
                    .retain(|transmit| transmit.stream.is_none_or(|(of, _)| of != serial));
                self.end_stream(serial, State::Aborting, Status::Error);
            }
            // The daemon forgets a stream when it sees its end: a second end would belong to none.
            Some(State::Finishing) => self.set(serial, State::Aborting),
            None | Some(State::Waiting { .. } | State::Abandoned { .. } | State::Aborting) => {}
        }
    }

    /// The next packet to send.
    pub(crate) fn poll_transmit(&mut self) -> Option<Transmit> {
        let transmit = self.outgoing.pop_front()?;
        if transmit.asks {
            self.keepalive.asks();
        } else if transmit.stream.is_some() {
            self.keepalive.streams();
        }
        Some(transmit)
    }

    /// A descriptor has come. Its carrier byte is, or will be, in the input.
    pub(crate) fn handle_descriptor(&mut self, descriptor: OwnedFd) -> Result<(), ProtocolError> {
        if self.descriptors.len() >= DESCRIPTORS_WAITING {
            return Err(ProtocolError::DescriptorsUnannounced);
        }
        self.descriptors.push_back(descriptor);
        Ok(())
    }

    /// Some bytes have come, be it of a packet that is not complete yet.
    pub(crate) fn handle_received(&mut self, now: Instant) {
        self.keepalive.received(now);
    }

    /// Takes packets off `input` until one says something, or none is complete.
    pub(crate) fn handle_input(
        &mut self,
        input: &mut BytesMut,
    ) -> Result<Option<Event>, ProtocolError> {
        while let Some((packet, descriptors)) = self.next_packet(input)? {
            if let Some(event) = self.dispatch(packet, descriptors)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// How many bytes of input would complete the next packet.
    pub(crate) fn missing(&self, input: &BytesMut) -> usize {
        match &self.incomplete {
            Some((_, carriers)) => *carriers,
            None => Packet::missing(input),
        }
    }

    /// The daemon has agreed to keepalive.
    pub(crate) fn enable_keepalive(&mut self, now: Instant) {
        self.keepalive.enable(now);
    }

    /// The daemon answers pings, as it has told another connection, and this one is for one stream.
    pub(crate) fn enable_keepalive_for_stream(&mut self, now: Instant) {
        self.keepalive.enable_for_stream(now);
    }

    /// Whether the daemon has agreed to keepalive.
    pub(crate) fn has_keepalive(&self) -> bool {
        self.keepalive.is_enabled()
    }

    /// Another connection has found the daemon silent.
    pub(crate) fn suspect(&mut self, now: Instant) {
        self.keepalive.suspect(now);
    }

    /// No input is read from now on.
    pub(crate) fn pause(&mut self, now: Instant) {
        self.keepalive.pause(now);
    }

    /// Input is read again.
    pub(crate) fn resume(&mut self, now: Instant) {
        self.keepalive.resume(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        self.keepalive.timeout()
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<(), ConnectionError> {
        match self.keepalive.due(now) {
            Due::Nothing => {}
            Due::Ping => self.send_keepalive(keepalive::PING),
            Due::Pong => self.send_keepalive(keepalive::PONG),
            Due::Dead(silence) => return Err(ConnectionError::Silent(silence)),
        }
        Ok(())
    }

    /// Nothing is sent or received any more: what waited for that goes, and with it the memory and the descriptors that it
    /// held, which their other ends may wait to see closed.
    pub(crate) fn end(&mut self) {
        self.calls.clear();
        self.outgoing.clear();
        self.held.clear();
        self.held_cancelling.clear();
        self.cancelling_now = None;
        self.under_way = 0;
        self.incomplete = None;
        self.descriptors.clear();
    }

    /// Packets that belonged to nothing and were dropped.
    pub(crate) fn ignored(&self) -> u64 {
        self.ignored
    }

    /// Calls and streams that are not at their end.
    pub(crate) fn unfinished(&self) -> usize {
        self.calls.len()
    }

    fn free_serial(&mut self) -> u32 {
        // Zero is keepalive's. The table is bounded far below 2^32, so this ends.
        loop {
            let serial = self.next_serial;
            self.next_serial = self.next_serial.wrapping_add(1).max(1);
            if !self.calls.contains_key(&serial) {
                return serial;
            }
        }
    }

    /// The next packet with all its descriptors.
    fn next_packet(
        &mut self,
        input: &mut BytesMut,
    ) -> Result<Option<(Packet, Vec<OwnedFd>)>, ProtocolError> {
        let (packet, mut carriers) = match self.incomplete.take() {
            Some(incomplete) => incomplete,
            None => match Packet::take(input)? {
                Some(packet) => {
                    let carriers = packet.descriptors;
                    (packet, carriers)
                }
                None => return Ok(None),
            },
        };
        let here = carriers.min(input.len());
        let _ = input.split_to(here);
        carriers -= here;
        if carriers > 0 {
            self.incomplete = Some((packet, carriers));
            return Ok(None);
        }
        // The kernel hands a descriptor over with its carrier byte, never after it.
        if self.descriptors.len() < packet.descriptors {
            return Err(ProtocolError::DescriptorsMissing);
        }
        let descriptors = self.descriptors.drain(..packet.descriptors).collect();
        Ok(Some((packet, descriptors)))
    }

    fn dispatch(
        &mut self,
        packet: Packet,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Option<Event>, ProtocolError> {
        match packet.header.kind {
            Kind::Call | Kind::CallWithDescriptors => Err(ProtocolError::Call),
            Kind::Message if packet.header.program == keepalive::PROGRAM => {
                match packet.header.procedure {
                    keepalive::PING => self.send_keepalive(keepalive::PONG),
                    keepalive::PONG => self.keepalive.answered(),
                    _ => {}
                }
                Ok(None)
            }
            Kind::Message => Ok(Some(Event::Message(Message {
                program: packet.header.program,
                procedure: packet.header.procedure,
                payload: packet.payload,
            }))),
            Kind::Reply | Kind::ReplyWithDescriptors => Ok(self.reply(packet, descriptors)),
            Kind::Stream => {
                self.keepalive.flows();
                Ok(self.stream_packet(packet))
            }
            Kind::StreamHole => {
                self.keepalive.flows();
                self.hole(&packet)
            }
        }
    }

    fn reply(&mut self, packet: Packet, descriptors: Vec<OwnedFd>) -> Option<Event> {
        let serial = packet.header.serial;
        let good = packet.header.status != Status::Error;
        let state = self.known(&packet.header);
        let (Some(State::Waiting { stream }) | Some(State::Abandoned { stream })) = state else {
            if !good {
                // A hole is refused by a reply, and the stream is then forgotten.
                return self.stream_failed(serial, state, packet.payload);
            }
            self.ignored += 1;
            return None;
        };
        self.answered(serial);
        if stream && good {
            self.set(serial, State::Streaming);
            if matches!(state, Some(State::Abandoned { .. })) {
                self.abort_stream(serial);
            }
        } else {
            self.calls.remove(&serial);
        }
        Some(Event::Reply {
            serial,
            reply: if good {
                Ok(Reply {
                    payload: packet.payload,
                    descriptors,
                })
            } else {
                Err(packet.payload)
            },
        })
    }

    fn stream_packet(&mut self, packet: Packet) -> Option<Event> {
        let serial = packet.header.serial;
        match (self.known(&packet.header), packet.header.status) {
            // The daemon's worker answers the call while its event loop may send the first data: either can be first.
            (
                Some(State::Streaming | State::Finishing | State::Waiting { stream: true }),
                Status::Continue,
            ) => Some(Event::Data {
                serial,
                bytes: packet.payload,
            }),
            (state, Status::Error) => self.stream_failed(serial, state, packet.payload),
            (Some(State::Streaming | State::Finishing), Status::Ok) => {
                self.calls.remove(&serial);
                Some(Event::StreamClosed { serial })
            }
            // Sent before the daemon saw the abort.
            (Some(State::Aborting | State::Abandoned { stream: true }), Status::Continue) => None,
            (Some(State::Aborting), Status::Ok) => {
                self.calls.remove(&serial);
                Some(Event::StreamClosed { serial })
            }
            (None | Some(State::Waiting { .. } | State::Abandoned { .. }), _) => {
                self.ignored += 1;
                None
            }
        }
    }

    /// The daemon has ended a stream with an error, and knows it no more.
    fn stream_failed(&mut self, serial: u32, state: Option<State>, error: Bytes) -> Option<Event> {
        match state {
            Some(State::Streaming | State::Finishing) => {
                self.calls.remove(&serial);
            }
            Some(State::Aborting) => {
                self.calls.remove(&serial);
                return Some(Event::StreamClosed { serial });
            }
            Some(State::Waiting { stream: true }) => {
                self.set(serial, State::Waiting { stream: false });
            }
            Some(State::Abandoned { stream: true }) => {
                self.set(serial, State::Abandoned { stream: false });
            }
            None | Some(State::Waiting { .. } | State::Abandoned { .. }) => {
                self.ignored += 1;
                return None;
            }
        }
        Some(Event::StreamFailed { serial, error })
    }

    fn hole(&mut self, packet: &Packet) -> Result<Option<Event>, ProtocolError> {
        let serial = packet.header.serial;
        match self.known(&packet.header) {
            Some(State::Streaming | State::Finishing | State::Waiting { stream: true }) => {}
            Some(State::Aborting | State::Abandoned { stream: true }) => return Ok(None),
            _ => {
                self.ignored += 1;
                return Ok(None);
            }
        }
        let length = match packet.payload.first_chunk::<8>() {
            Some(length) if packet.payload.len() == 12 => i64::from_be_bytes(*length),
            _ => return Err(ProtocolError::Hole),
        };
        let length = u64::try_from(length).map_err(|_| ProtocolError::Hole)?;
        Ok(Some(Event::Hole { serial, length }))
    }

    /// The state of the call that a packet belongs to.
    fn known(&self, header: &Header) -> Option<State> {
        self.calls
            .get(&header.serial)
            .filter(|call| call.program == header.program && call.version == header.version)
            .map(|call| call.state)
    }

    fn set(&mut self, serial: u32, state: State) {
        if let Some(call) = self.calls.get_mut(&serial) {
            call.state = state;
        }
    }

    fn send_in_stream(&mut self, serial: u32, kind: Kind, payload: &[u8]) -> bool {
        let Some(call) = self
            .calls
            .get(&serial)
            .filter(|call| call.state == State::Streaming)
        else {
            return false;
        };
        let bytes = call
            .header(serial, kind, Status::Continue)
            .packet(0, payload);
        self.push_stream(serial, bytes, weight(payload.len()));
        true
    }

    fn end_stream(&mut self, serial: u32, state: State, status: Status) -> bool {
        let Some(call) = self
            .calls
            .get_mut(&serial)
            .filter(|call| call.state == State::Streaming)
        else {
            return false;
        };
        call.state = state;
        let bytes = call.header(serial, Kind::Stream, status).packet(0, &[]);
        self.push_stream(serial, bytes, 0);
        true
    }

    fn push_stream(&mut self, serial: u32, bytes: Bytes, share: usize) {
        self.outgoing.push_back(Transmit {
            bytes,
            descriptors: Vec::new(),
            opens: None,
            asks: false,
            stream: Some((serial, share)),
        });
    }

    fn send_keepalive(&mut self, procedure: i32) {
        let header = Header {
            program: keepalive::PROGRAM,
            version: keepalive::VERSION,
            procedure,
            kind: Kind::Message,
            serial: 0,
            status: Status::Ok,
        };
        let bytes = header.packet(0, &[]);
        // One that is still queued says it as well; so the queue stays bounded when nothing can be written.
        if self.outgoing.iter().any(|queued| queued.bytes == bytes) {
            return;
        }
        self.outgoing.push_front(Transmit {
            bytes,
            descriptors: Vec::new(),
            opens: None,
            asks: procedure == keepalive::PING,
            stream: None,
        });
    }
}

/// Where a call waits to be sent.
fn position(queue: &VecDeque<Transmit>, serial: u32) -> Option<usize> {
    queue
        .iter()
        .position(|transmit| transmit.opens == Some(serial))
}

/// What so many bytes weigh in a queue, so that a flood of tiny pieces is bounded as well.
pub(crate) fn weight(bytes: usize) -> usize {
    bytes.max(PIECE)
}

// === impl Call ===

impl Call {
    fn header(&self, serial: u32, kind: Kind, status: Status) -> Header {
        Header {
            program: self.program,
            version: self.version,
            procedure: self.procedure,
            kind,
            serial,
            status,
        }
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
