//! Every limit of URIs and of the files that name them, with its reason and what happens at it.

/// Bytes of a URI. A longer one is refused: none that a person writes comes near, and the daemon takes 4 MiB at most.
pub const MAX_URI: usize = 16 * 1024;

/// Parameters of a URI. More are refused: libvirt knows 17, and a driver at the other end adds few.
pub const MAX_PARAMETERS: usize = 64;

/// Bytes of libvirt.conf: thousands of aliases fit. A longer one is refused.
pub const MAX_CONF: u64 = 1024 * 1024;
