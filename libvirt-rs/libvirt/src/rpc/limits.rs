//! What bounds the RPC layer, why, and what happens there.

use std::time::Duration;

/// Bytes of a packet's length word.
pub const LENGTH: usize = 4;
/// Bytes of a packet's header: six words (`virNetMessageHeader`).
pub const HEADER: usize = 24;
/// The smallest value that a length word can have: itself and a header. Less is a protocol error.
pub const PACKET_MIN: usize = LENGTH + HEADER;
/// The largest value of a length word: libvirt's `VIR_NET_MESSAGE_MAX` counts what follows the word. A peer that
/// says more has lost its place, and the connection ends before a byte is stored for it.
pub const PACKET_MAX: usize = LENGTH + 33_554_432;
/// The largest payload of one packet. A call with more is refused before it is sent.
pub const PAYLOAD_MAX: usize = PACKET_MAX - PACKET_MIN;
/// Descriptors that one packet may carry (`VIR_NET_MESSAGE_NUM_FDS_MAX`). More is refused when sent and a
/// protocol error when received.
pub const DESCRIPTORS_MAX: usize = 32;

/// The most bytes in one stream packet that we send: what libvirt's own client sends, which every daemon takes.
pub const STREAM_CHUNK: usize = 262_120;
/// The bytes of a stream that wait for its reader. Beyond it nothing more is read from the connection until
/// somebody reads (the protocol has no other way to slow the daemon down), so what is held for a stream is at
/// most this and one packet.
pub const STREAM_RECEIVED: usize = 1 << 20;
/// The bytes of a stream that wait to be written to the socket. Beyond it the writer waits.
pub const STREAM_SENDING: usize = 1 << 20;

/// What a piece of a stream weighs at least where it waits, so that a flood of tiny pieces is bounded as well: about what
/// it takes beside its bytes.
pub const PIECE: usize = 128;
/// The bytes of a stream that may come before the reply that opens it, which another thread of the daemon sends. There is
/// no reader yet, so more than that ends the connection.
pub const STREAM_EARLY: usize = 32 << 20;

/// Calls that the daemon has at a time, unless the caller says otherwise: one less than it allows a client by default
/// (`max_client_requests`). Further ones wait here.
pub const CALLS_AT_ONCE: usize = 4;
/// What one unit of a connection's budget stands for: calls are weighed by their size.
pub const CALL_UNIT: usize = 16 * 1024;
/// The units that all unanswered calls of a connection may have together: 4,096 small calls, or 64 MiB of
/// arguments. Further calls wait for a reply to one of them.
pub const CALL_BUDGET: usize = 4_096;

/// The bytes that one read takes from the socket: a full stream packet of the daemon's at once.
pub const READ: usize = 256 * 1024;
/// The bytes that are gathered for one write.
pub const WRITE: usize = 256 * 1024;
/// The descriptors that may arrive before the packet that they belong to has been read. The daemon sends them
/// after it, so more than two packets' worth is a protocol error.
pub const DESCRIPTORS_WAITING: usize = 2 * DESCRIPTORS_MAX;

/// Events that wait for one subscriber, unless it asks for another number. At the limit the oldest makes room, and
/// the subscriber is told how many it has missed.
pub const MESSAGES: usize = 16_384;
/// The bytes of the events that wait for one subscriber, whatever number it asks for: as many as the largest packet has, so
/// that a daemon that sends large ones can't fill the memory by their number. At the limit the oldest make room and are
/// counted as missed, as at [`MESSAGES`]; the newest event is kept in any case. A small one counts as [`PIECE`] bytes.
pub const MESSAGE_BYTES: usize = PACKET_MAX;
/// Subscriptions on one connection. One more is refused.
pub const SUBSCRIPTIONS: usize = 4_096;

/// How often an idle connection is pinged, unless the caller says otherwise; libvirt's own default.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// The pings that may stay unanswered before the connection is given up; libvirt's own default.
pub const KEEPALIVE_COUNT: u32 = 5;
/// The longest time between two answers that are given unasked, where questions cannot be read: libvirt's own default of what
/// a daemon waits before it asks. How long this side waits says nothing of how patient the daemon is.
pub const PONG_INTERVAL: Duration = Duration::from_secs(5);
/// The shortest and the longest time between pings; what is beyond is taken for these.
pub const KEEPALIVE_RANGE: (Duration, Duration) =
    (Duration::from_millis(1), Duration::from_secs(24 * 60 * 60));
/// How long a connection that is being closed waits for the daemon's last answers, a confirmation that a stream was
/// aborted for one. Then it closes without.
pub const CLOSING: Duration = Duration::from_secs(1);
