//! How much memory the targets allow, and why. One byte more is a panic that says how much was used.

/// What a target may use whatever the input: its own tables, and what the client keeps for short inputs.
pub const BASE: usize = 256 * 1024;

/// For each byte of a payload: an absent value takes four bytes on the wire and up to 48 in memory, and a list that
/// grows has its old and its new room at once. The encoding that is compared comes on top.
pub const DECODED: usize = 64;

/// For lists within lists: each level is given up to a quarter of a megabyte before its first element has come
/// ([`MAX_RESERVED`](libvirt_xdr::limits::MAX_RESERVED)), and libvirt's types have five levels.
pub const RESERVED: usize = 5 * libvirt_xdr::limits::MAX_RESERVED;

/// For each byte that a connection was sent or has to send, among them the packets' heads and the story itself.
pub const RECEIVED: usize = 8;

/// For each byte of an interface file: its syntax tree, its model and the code, with the tokens of the code's.
pub const PARSED: usize = 16 * 1024;
