//! The configuration file: TOML or YAML, by its ending.
//!
//! ```toml
//! listen = ["127.0.0.1:7411", "unix:/run/vbridge/vbridge.sock"]
//! log = "info"
//!
//! [[guest]]
//! name = "web"
//! channel = "unix:/run/vms/web.sock"
//! monitor = "unix:/run/vms/web.qmp"
//! listen = "127.0.0.1:7500"
//! key_file = "/etc/vbridge/web.key"
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | `file` | the file as serde sees it |
//! | `guest` | a guest, from the file or from the command line |
//! | `value` | names, sockets and log levels, checked while they are read |

mod file;
mod guest;
mod value;

use std::path::{Path, PathBuf};

use tracing::level_filters::LevelFilter;
use vbridge_settings::{FileError, KeyFileError};

use crate::{BridgeBuilder, BridgeError, ListenAddress};
use file::FileForm;

pub use guest::GuestEntry;
pub use vbridge_settings::Format;

/// Guests that one bridge takes: each costs two descriptors and some memory, and a longer list is most likely the
/// work of a script gone wrong. More is an error.
pub const MAX_GUESTS: usize = 4096;

/// Addresses on which all guests are offered. A host has a handful; more is an error.
pub const MAX_LISTEN: usize = 64;

/// Where the bridge listens if nobody says: this machine only.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7411";

/// What the operator wrote.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Where all guests are offered.
    pub listen: Vec<ListenAddress>,
    /// The guests, in the order of the file.
    pub guests: Vec<GuestEntry>,
    /// How much is logged.
    pub log: Option<LevelFilter>,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// It can't be read, is too long, has another ending, or something in it is wrong.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        vbridge_settings::read::<FileForm>(path)?.config()
    }

    /// Reads a text as if it were the file `path`, which errors name.
    ///
    /// # Errors
    /// Something in it is wrong.
    pub fn parse(text: &str, format: Format, path: &Path) -> Result<Self, ConfigError> {
        vbridge_settings::parse::<FileForm>(text, format, path)?.config()
    }

    /// Adds a guest.
    ///
    /// # Errors
    /// There is one of that name already, in any letter case, or there are too many.
    pub fn add_guest(&mut self, guest: GuestEntry) -> Result<(), ConfigError> {
        let is_same = |other: &GuestEntry| other.name.eq_ignore_ascii_case(&guest.name);
        if self.guests.iter().any(is_same) {
            return Err(BridgeError::DuplicateGuest(guest.name).into());
        }
        if self.guests.len() >= MAX_GUESTS {
            return Err(ConfigError::TooManyGuests);
        }
        self.guests.push(guest);
        Ok(())
    }

    /// Describes the bridge; reads the guests' keys. Without an address it listens on [`DEFAULT_LISTEN`].
    ///
    /// # Errors
    /// There is no guest, or a key can't be used.
    pub fn bridge(&self) -> Result<BridgeBuilder, ConfigError> {
        if self.guests.is_empty() {
            return Err(ConfigError::NoGuests);
        }
        let mut builder = crate::Bridge::builder();
        if self.listen.is_empty() {
            // The constant is an address: a test below reads it.
            let address = DEFAULT_LISTEN.parse().unwrap_or_else(|_| unreachable!());
            builder = builder.listen(address);
        }
        for address in &self.listen {
            builder = builder.listen(address.clone());
        }
        for guest in &self.guests {
            builder = builder.guest(guest.spec()?);
        }
        Ok(builder)
    }
}

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file can't be read, or something in it is wrong.
    #[error(transparent)]
    File(#[from] FileError),
    /// A guest's key can't be used.
    #[error("can't use the key {path} of guest \"{guest}\": {why}")]
    Key {
        /// The guest.
        guest: String,
        /// The file.
        path: PathBuf,
        /// What is the matter with it.
        why: KeyFileError,
    },
    /// No guest at all.
    #[error("no guest is named; give one with --guest NAME=unix:PATH, or in the file of --config")]
    NoGuests,
    /// More guests than a bridge takes.
    #[error(
        "there are more than {MAX_GUESTS} guests, which is the limit of one bridge; run several bridges"
    )]
    TooManyGuests,
    /// More addresses than a bridge takes.
    #[error("there are {0} addresses to listen on, and the limit is {MAX_LISTEN}")]
    TooManyAddresses(usize),
    /// What the bridge itself objects to.
    #[error(transparent)]
    Bridge(#[from] BridgeError),
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn assert_says(result: Result<impl std::fmt::Debug, String>, words: &[&str]) {
        let error = result.unwrap_err();
        for word in words {
            assert!(error.contains(word), "\"{error}\" does not say \"{word}\"");
        }
        assert_eq!(error.lines().count(), 1, "{error}");
    }

    #[test]
    fn more_guests_or_addresses_than_the_limit_are_refused() {
        let mut config = Config::default();
        let guest = |i: usize| format!("g{i}=unix:/g{i}").parse().unwrap();
        for i in 0..MAX_GUESTS {
            config.add_guest(guest(i)).unwrap();
        }
        let error = config.add_guest(guest(MAX_GUESTS)).unwrap_err().to_string();
        assert!(error.contains("4096"), "{error}");
        let many = vec!["\"127.0.0.1:0\""; MAX_LISTEN + 1].join(",");
        let text = format!("listen = [{many}]");
        let result = Config::parse(&text, Format::Toml, Path::new("b.toml"));
        assert_says(result.map_err(|error| error.to_string()), &["65", "64"]);
    }

    #[test]
    fn without_a_guest_the_error_says_how_to_name_one() {
        let error = Config::default().bridge().unwrap_err().to_string();
        assert!(error.contains("--guest NAME=unix:PATH"), "{error}");
    }

    #[test]
    fn without_an_address_the_bridge_listens_on_the_default_one() {
        assert!(DEFAULT_LISTEN.parse::<ListenAddress>().is_ok());
        let mut config = Config::default();
        config
            .add_guest("web=unix:/nowhere/web.sock".parse().unwrap())
            .unwrap();
        assert!(config.bridge().unwrap().build().is_ok());
    }
}
