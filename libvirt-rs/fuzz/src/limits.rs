//! How much memory the targets allow, and why. One byte more than an input may have is a panic that says how much was
//! used.

/// What libFuzzer's process may have in all, thirty times what it takes. An allocation beyond it fails at once, and the
/// input that asked for it is kept; libFuzzer's own limit on allocations works with a sanitizer only, and its limit on
/// resident memory looks once a second.
pub const ADDRESS_SPACE: u64 = 1 << 30;

/// What a target may use whatever the input: its own tables, and what the client keeps for short inputs.
pub const BASE: usize = 256 * 1024;

/// For each byte of a payload: an absent value takes four bytes on the wire and up to 48 in memory, and a list that
/// grows has its old and its new room at once. The encoding that is compared comes on top.
pub const DECODED: usize = 64;

/// For lists within lists: each level is given up to a quarter of a megabyte before its first element has come
/// ([`MAX_RESERVED`](libvirt_xdr::limits::MAX_RESERVED)), and libvirt's types have five levels.
pub const RESERVED: usize = 5 * libvirt_xdr::limits::MAX_RESERVED;

/// For each byte that is written on a connection's two sides: the connection has it once, or twice while a buffer grows,
/// and so have the target's wire and its model.
pub const MOVED: usize = 12;

/// For each step of a story: what a call or a packet takes in tables and queues, the connection's and the model's.
pub const STEP: usize = 1024;

/// For each byte of an interface file: its syntax tree, its model and the code, with the tokens of the code's.
pub const PARSED: usize = 16 * 1024;
