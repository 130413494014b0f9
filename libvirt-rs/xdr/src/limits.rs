//! Every limit of this crate, with its reason and what happens at it.

/// Levels of optional values, lists and enums with fields within each other. A value that goes deeper is refused, in
/// both directions.
///
/// Types that contain themselves are decoded by recursion, so the sender's data decides how much stack is used. Every
/// such type goes through one of the three at each turn: a linked list spends one level an entry. No type of libvirt
/// contains itself, and none goes deeper than five. 128 levels of a small struct take less than 256 KiB of stack in a
/// build without optimisation; threads have 2 MiB.
pub const MAX_DEPTH: usize = 128;

/// Memory, in bytes, that a list is given before its first element has been decoded. A longer list grows while its
/// elements arrive.
///
/// Four bytes on the wire may stand for an element of any size in memory: a list may announce as many elements as the
/// input has room for, and must not get memory for them on its word alone.
pub const MAX_RESERVED: usize = 256 * 1024;

/// Steps from the value to the field at fault that an error names. Of a longer path it names the last ones.
pub const MAX_PATH: usize = 16;
