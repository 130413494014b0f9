//! Every limit of the link, with its reason and what happens at it.

use std::time::Duration;

/// Payload of one control record. A longer one is a bad record. Room for a greeting, small enough for a fixed buffer.
pub const MAX_PAYLOAD: usize = 1024;

/// Software names and reasons inside control records, in bytes. A longer one is cut by its sender.
pub const MAX_TEXT: usize = 256;

/// Session bytes that wait for the port. More is not accepted from the writer until the port has taken some.
///
/// The kernel takes 32 KiB with one `write` on a virtio port; a larger block is split there.
pub const MAX_BLOCK: usize = 32 * 1024;

/// Session bytes that a peer may have on their way or unread at this end, by default.
///
/// It bounds what a small call waits for behind a bulk transfer: the queues of kernel and QEMU would take megabytes.
pub const DEFAULT_WINDOW: u32 = 256 * 1024;

/// The smallest window that a greeting may announce; a smaller one is refused. Below it nothing moves at speed.
pub const MIN_WINDOW: u32 = 16 * 1024;

/// The largest window that is used; a larger announcement counts as this.
pub const MAX_WINDOW: u32 = 16 * 1024 * 1024;

/// A receiver acknowledges when it has taken this part of its window since the last acknowledgement.
pub const ACK_DIVISOR: u32 = 2;

/// First wait for an answer to HELLO. Each further one doubles it.
pub const HELLO_RETRY_FIRST: Duration = Duration::from_millis(250);

/// Longest wait for an answer to HELLO: an absent guest costs a few bytes a minute.
pub const HELLO_RETRY_MAX: Duration = Duration::from_secs(30);

/// Shortest time between two HELLOs. It bounds what a guest that floods READY can provoke, and gives a WELCOME that is
/// already on its way behind a READY the time to arrive.
pub const HELLO_SPACING: Duration = Duration::from_millis(50);

/// HELLOs that may be sent out of turn because a caller waits, until the guest says something. Then the back-off
/// alone decides, so that the socket of an absent guest does not fill.
pub const MAX_NUDGES: u32 = 64;

/// First wait after a refusal. Each further one doubles it, up to [`HELLO_RETRY_MAX`].
pub const REFUSED_RETRY_FIRST: Duration = Duration::from_secs(1);

/// Shortest time between two questions that ride along with calls. Each costs the guest an answer of its own, as much
/// as a small call's: so it is a small part of what a busy guest does.
pub const QUESTION_SPACING: Duration = Duration::from_millis(50);

/// Silence from the guest after which the host asks for a sign of life.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Time that the guest has to answer before it counts as silent; it is asked again as often.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// A guest that has been silent for so long, without being known to be paused, has lost its session.
pub const SILENCE_LIMIT: Duration = Duration::from_secs(30);

/// First time for which a guest ignores greetings after one that failed to authenticate. Each further one doubles it.
pub const AUTH_DELAY_FIRST: Duration = Duration::from_millis(200);

/// Longest time for which a guest ignores greetings after failed authentication.
pub const AUTH_DELAY_MAX: Duration = Duration::from_secs(10);

/// A key shorter than this is refused: 128 bits of randomness need 16 bytes.
pub const MIN_KEY: usize = 16;

/// A key longer than this is refused: it is most likely the wrong file.
pub const MAX_KEY: usize = 4096;

/// Shortest time between two READYs that answer bytes of a session that the guest does not have.
pub const READY_SPACING: Duration = Duration::from_millis(100);

/// Answers to a peer's control records that may wait for the port. Over that the peer has lost its session: it asks
/// faster than it reads.
pub const MAX_CONTROL_BACKLOG: usize = 16 * 1024;

/// A port that has taken nothing of a greeting's answer for so long is stuck: the host is there, it greets, and whatever
/// was queued for hosts before it is long gone.
pub const STUCK_AFTER: Duration = Duration::from_millis(500);

/// Idle buffers above this are given back.
pub const IDLE_BUFFER: usize = 4 * 1024;

/// Session ids that a guest remembers, to know recordings of greetings. Older ones could come again; with a key they
/// fail all the same.
pub const REMEMBERED_SESSIONS: usize = 64;
