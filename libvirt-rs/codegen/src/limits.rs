//! Every limit of the generator, with its reason and what happens at it.

/// Bytes of an interface file. The largest known one, libvirt's `remote_protocol.x`, has a quarter of a megabyte. A
/// longer file is refused before it is read into tokens.
pub const MAX_SOURCE: usize = 4 * 1024 * 1024;

/// Bodies within bodies, parentheses within parentheses and signs before signs. The parser calls itself for each of
/// them; what is deeper is refused at the token that goes too deep.
pub const MAX_NESTING: usize = 16;

/// Numbers and names in one expression. Each makes the expression's tree one step deeper, and a tree is evaluated and
/// dropped recursively; a longer expression is refused.
pub const MAX_TERMS: usize = 64;

/// Constants that are defined by constants that come later in the file. Each takes a step of recursion; definitions in
/// order take none. A longer chain is refused.
pub const MAX_FORWARD_CONSTANTS: usize = 64;

/// Typedefs of typedefs. The codec of a typedef is spelt out wherever it is used, one step of recursion for each; a
/// longer chain is refused.
pub const MAX_TYPEDEF_CHAIN: usize = 32;

/// Elements of an array of fixed length: such an array lies within its struct, on the stack while it is decoded. libvirt's
/// longest has 32. A longer one is refused.
pub const MAX_FIXED_LENGTH: i64 = 65_536;

/// Elements of an array of fixed length for which Rust's library has `Default`. A struct with a longer one has none.
pub const MAX_DEFAULT_LENGTH: i64 = 32;

/// Types that an error names of those that contain one another in a circle; of a longer one, the first.
pub const MAX_CIRCLE: usize = 8;

/// Characters that an error quotes of a line; of a longer one, it quotes those around the place.
pub const MAX_QUOTE: usize = 100;
