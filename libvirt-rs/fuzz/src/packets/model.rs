//! What may happen on a connection: the protocol once more, without queues and bytes.

use std::collections::HashMap;

use libvirt::rpc::fuzzing::Seen;
use libvirt::rpc::limits::{DESCRIPTORS_MAX, PACKET_MIN};

/// Keepalive's program.
pub(super) const KEEPALIVE: u32 = 0x6b65_6570;

/// The calls that are not at their end, and what has left.
#[derive(Debug, Default)]
pub(super) struct Model {
    calls: HashMap<u32, Call>,
    /// Of each call whose packet has not left: how many descriptors go with it. Also of one that was replied to already.
    queued: HashMap<u32, usize>,
    /// The streams of which a packet may still leave.
    sending: HashMap<u32, Sending>,
}

#[derive(Debug, Clone, Copy)]
struct Call {
    stream: bool,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Abandoned,
    Streaming,
    Finishing,
    Aborting,
}

/// What may leave for a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    /// Data, until it ends.
    Data,
    /// Data that was queued, and the end.
    DataAndEnd,
    /// That it is broken off, and nothing before that.
    Abort,
}

/// What a packet's head says.
struct Head {
    program: u32,
    kind: u32,
    serial: u32,
    status: u32,
}

const CALL: u32 = 0;
const MESSAGE: u32 = 2;
const STREAM: u32 = 3;
const CALL_WITH_DESCRIPTORS: u32 = 4;
const STREAM_HOLE: u32 = 6;
const ERROR: u32 = 1;
const CONTINUE: u32 = 2;

// === impl Model ===

impl Model {
    pub(super) fn unfinished(&self) -> usize {
        self.calls.len()
    }

    /// We have called.
    pub(super) fn called(&mut self, serial: u32, stream: bool, descriptors: usize) {
        let call = Call {
            stream,
            state: State::Waiting,
        };
        assert!(serial != 0, "zero is keepalive's");
        assert!(
            self.calls.insert(serial, call).is_none(),
            "{serial} is taken"
        );
        self.queued.insert(serial, descriptors);
    }

    /// A call was abandoned; `unsent` if it was taken back.
    pub(super) fn abandoned(&mut self, serial: u32, unsent: bool) {
        let waiting = matches!(self.calls.get(&serial), Some(call) if call.state == State::Waiting);
        let queued = waiting && self.queued.contains_key(&serial);
        assert_eq!(unsent, queued, "call {serial} is taken back");
        if unsent {
            self.calls.remove(&serial);
            self.queued.remove(&serial);
            return;
        }
        match self.state(serial) {
            Some(State::Waiting) => self.set(serial, State::Abandoned),
            Some(State::Streaming) => self.aborted(serial),
            None | Some(State::Abandoned | State::Finishing | State::Aborting) => {}
        }
    }

    /// Something was to be sent in a stream; `done` if it was queued.
    pub(super) fn sent_in_stream(&mut self, serial: u32, done: bool) {
        let open = self.state(serial) == Some(State::Streaming);
        assert_eq!(done, open, "stream {serial} takes data");
    }

    /// A stream was to be ended; `done` if the end was queued.
    pub(super) fn finished(&mut self, serial: u32, done: bool) {
        self.sent_in_stream(serial, done);
        if done {
            self.set(serial, State::Finishing);
            self.sending.insert(serial, Sending::DataAndEnd);
        }
    }

    /// A stream was to be broken off.
    pub(super) fn aborted(&mut self, serial: u32) {
        match self.state(serial) {
            Some(State::Streaming) => {
                self.set(serial, State::Aborting);
                self.sending.insert(serial, Sending::Abort);
            }
            // Its end is said already.
            Some(State::Finishing) => self.set(serial, State::Aborting),
            None | Some(State::Waiting | State::Abandoned | State::Aborting) => {}
        }
    }

    /// The daemon's packet has brought this.
    pub(super) fn seen(&mut self, seen: &Seen) {
        match seen {
            Seen::Message(message) => {
                assert_ne!(message.program, KEEPALIVE, "keepalive is no event");
            }
            Seen::Reply { serial, reply } => self.replied(*serial, reply.is_ok()),
            Seen::Data { serial, .. } => self.brings_data(*serial),
            Seen::Hole { serial, length } => {
                self.brings_data(*serial);
                assert!(i64::try_from(*length).is_ok(), "a hole of {length}");
            }
            Seen::StreamFailed { serial, .. } => {
                let state = self.state(*serial);
                assert!(
                    matches!(state, Some(State::Streaming | State::Finishing)),
                    "{serial} failed in {state:?}"
                );
                self.calls.remove(serial);
            }
            Seen::StreamClosed { serial } => {
                let state = self.state(*serial);
                assert!(
                    matches!(
                        state,
                        Some(State::Streaming | State::Finishing | State::Aborting)
                    ),
                    "{serial} closed in {state:?}"
                );
                self.calls.remove(serial);
            }
        }
        if let Seen::Reply {
            reply: Ok((_, descriptors)),
            ..
        } = seen
        {
            assert!(descriptors.len() <= DESCRIPTORS_MAX);
        }
    }

    fn replied(&mut self, serial: u32, good: bool) {
        let call = self.calls.get(&serial).copied();
        match call {
            Some(Call {
                stream: true,
                state: State::Waiting,
            }) if good => {
                self.set(serial, State::Streaming);
                self.sending.insert(serial, Sending::Data);
            }
            Some(Call {
                stream: true,
                state: State::Abandoned,
            }) if good => {
                self.set(serial, State::Aborting);
                self.sending.insert(serial, Sending::Abort);
            }
            Some(Call {
                state: State::Waiting | State::Abandoned,
                ..
            }) => drop(self.calls.remove(&serial)),
            _ => panic!("{serial} is replied to, which is {call:?}"),
        }
    }

    fn brings_data(&self, serial: u32) {
        let call = self.calls.get(&serial);
        let open = call.is_some_and(|call| match call.state {
            State::Streaming | State::Finishing => true,
            State::Waiting => call.stream,
            State::Abandoned | State::Aborting => false,
        });
        assert!(open, "data for {serial}, which is {call:?}");
    }

    /// A packet of ours has left, with so many descriptors.
    pub(super) fn transmitted(&mut self, packet: &[u8], descriptors: usize) {
        let head = Head::new(packet);
        let Head { kind, serial, .. } = head;
        match kind {
            CALL | CALL_WITH_DESCRIPTORS => {
                let expected = self.queued.remove(&serial);
                assert_eq!(expected, Some(descriptors), "call {serial}");
                assert_eq!(kind == CALL_WITH_DESCRIPTORS, descriptors > 0);
            }
            MESSAGE => {
                assert_eq!(
                    (head.program, serial, packet.len()),
                    (KEEPALIVE, 0, PACKET_MIN)
                );
            }
            STREAM | STREAM_HOLE => {
                assert!(
                    !self.queued.contains_key(&serial),
                    "{serial} was not called"
                );
                let sending = self.sending.get(&serial).copied();
                let ends = head.status != CONTINUE;
                let allowed = match sending {
                    Some(Sending::Data) => !ends,
                    Some(Sending::DataAndEnd) => head.status != ERROR,
                    Some(Sending::Abort) => head.status == ERROR,
                    None => false,
                };
                assert!(allowed, "{packet:x?} of stream {serial} in {sending:?}");
                if ends {
                    self.sending.remove(&serial);
                }
            }
            _ => panic!("a client sends no {packet:x?}"),
        }
    }

    fn state(&self, serial: u32) -> Option<State> {
        self.calls.get(&serial).map(|call| call.state)
    }

    fn set(&mut self, serial: u32, state: State) {
        if let Some(call) = self.calls.get_mut(&serial) {
            call.state = state;
        }
    }
}

// === impl Head ===

impl Head {
    /// Takes a packet's head apart, and looks at its length.
    fn new(packet: &[u8]) -> Self {
        let mut words = packet.chunks_exact(4).map(|word| {
            let mut number = [0; 4];
            number.copy_from_slice(word);
            u32::from_be_bytes(number)
        });
        let mut word = || words.next().unwrap_or_default();
        let length = word();
        assert_eq!(
            usize::try_from(length),
            Ok(packet.len()),
            "a packet's length"
        );
        assert!(packet.len() >= PACKET_MIN);
        let program = word();
        let (_version, _procedure) = (word(), word());
        Self {
            program,
            kind: word(),
            serial: word(),
            status: word(),
        }
    }
}
