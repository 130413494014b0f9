//! What the configurations of agent and bridge have in common: their files, and one sentence for each mistake in them.
//!
//! | module | what it does |
//! |---|---|
//! | `file` | reads a configuration file, TOML or YAML by its ending |
//! | `value` | checks a value while it is read, so that an error names its line |
//! | `words` | puts a deserializer's error into one sentence |
//! | `names` | finds the known key that a misspelt one is meant to be |
//! | `key` | reads a pre-shared key that nobody else has access to |
//! | `pem` | reads certificates and their keys (feature `tls`) |
//! | `access` | asks whether a path is a file that can be read, and says why not |
//! | `limits` | how much is read |

mod access;
mod file;
mod key;
mod limits;
mod names;
#[cfg(feature = "tls")]
mod pem;
mod value;
mod words;

pub use file::{FileError, Format, parse, read};
pub use key::{KeyFileError, check_private, read_key};
pub use limits::MAX_FILE;
pub use names::unknown_key;
#[cfg(feature = "tls")]
pub use pem::{TlsError, private_key, trusted};
pub use value::checked;
