//! Every limit of reading settings, with its reason.

/// Bytes of a configuration file: thousands of guests with long paths fit. A longer one is refused.
pub const MAX_FILE: u64 = 1024 * 1024;

/// Letters of an unknown key that are compared with the known ones: a longer one is nobody's misspelling. The rest is
/// not looked at.
pub(crate) const MAX_NAME: usize = 64;

/// A file with certificates or a key, in bytes. A longer one is refused.
#[cfg(feature = "tls")]
pub(crate) const MAX_PEM: u64 = 1024 * 1024;
