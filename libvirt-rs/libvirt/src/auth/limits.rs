//! Every limit of authenticating, with its reason and what happens at it.

/// Bytes of one message of a SASL exchange, as libvirt's protocol bounds them. A longer one from the server ends the
/// exchange.
pub const MAX_MESSAGE: usize = 65_536;

/// Bytes for which a message of this client's is given room at once. A longer one moves as it grows, and where it was
/// the password may be left in memory.
pub const ROOM: usize = 4096;

/// Names in a server's list of mechanisms that are looked at; what follows is not. There are fewer in all the world.
pub const MAX_OFFERED: usize = 64;

/// Letters of such a name: those that are registered have 20 at most (RFC 4422), and others a few more. A longer one is
/// passed over.
pub const MAX_NAME: usize = 64;

/// Rounds of hashing that a server may ask for at least (RFC 5802 and RFC 7677, section 5.1 and 4). With fewer, who
/// plays the server could guess at the password from one exchange, so the exchange ends.
pub const MIN_ITERATIONS: u32 = 4096;

/// Rounds of hashing that a server may ask for at most: more than anybody recommends today, and a second or two of
/// work. With more the exchange ends, for a server could keep this client busy for hours.
pub const MAX_ITERATIONS: u32 = 2_000_000;

/// Bytes of auth.conf. A longer one is refused: thousands of hosts fit.
pub const MAX_FILE: u64 = 1024 * 1024;
