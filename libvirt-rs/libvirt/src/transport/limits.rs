//! Every limit of connecting, with its reason and what happens at it.

use std::time::Duration;

/// Time that the whole of connecting may take where the caller names none. Then the attempt is given up.
///
/// A lost SYN is repeated after 1, 3, 7 and 15 seconds: the last of these can still be answered, and TLS can follow.
pub const CONNECT: Duration = Duration::from_secs(30);

/// Time that one address of a host has to answer; at its end it is given up.
pub const ADDRESS: Duration = Duration::from_secs(20);

/// Time for which an address is tried alone. Then the next is tried beside it (RFC 8305, section 5).
pub const ADDRESS_HEAD_START: Duration = Duration::from_millis(250);

/// Addresses of one host that are tried. More are left out: they are no more likely to answer.
pub const MAX_ADDRESSES: usize = 16;

/// Time for which a TCP peer may leave unacknowledged what it was sent, and for which a connection may be idle before the
/// kernel asks whether the peer is there. Then the connection breaks. As long as keepalive's pings take by default.
pub const SILENCE: Duration = Duration::from_secs(30);

/// Time of silence after which ssh asks its server whether it is there, and the questions that may stay without an answer:
/// together as long as [`SILENCE`], after which ssh ends, and the connection with it.
pub const SSH_ALIVE: (Duration, u32) = (Duration::from_secs(10), 3);

/// Time between two attempts at a socket whose queue of connections is full, until the time for connecting is over.
pub const BACKLOG_RETRY: Duration = Duration::from_millis(20);

/// Bytes of a file with certificates, a key or revoked certificates. A longer one is refused: it is another file.
pub const MAX_PEM: u64 = 4 * 1024 * 1024;

/// Bytes of what a program such as ssh has complained about that are kept: its last words.
pub const MAX_COMPLAINT: usize = 4 * 1024;

/// Time that a program has to end once it has closed its output; its complaint and exit status come with the end.
/// After it, what has come until then is all that is told.
pub const LAST_WORDS: Duration = Duration::from_secs(2);

/// Bytes of a path, program or URI that goes to the far host's shell. A longer one is refused.
pub const MAX_REMOTE_WORD: usize = 4 * 1024;
