//! The configuration file: TOML or YAML, by its ending.
//!
//! ```toml
//! listen = ["127.0.0.1:7411", "unix:/run/vbridge/vbridge.sock"]
//! log = "info"
//! libvirt = ["qemu:///system"]
//! sockets = ["/run/others/*.sock"]
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
//! | `access` | callers, rules and certificates |
//! | `link` | what links prove and encrypt with |
//! | `value` | names, sockets and log levels, checked while they are read |

mod access;
mod file;
mod guest;
mod link;
mod value;

use std::path::{Path, PathBuf};

use libvirt::uri::Uri;
use tracing::level_filters::LevelFilter;
use vbridge_settings::{FileError, KeyFileError};

use crate::{
    BridgeBuilder, BridgeError, LinkTls, ListenAddress,
    access::{AccessSpec, TlsFiles},
    discovery::{CHANNEL_NAME, SocketPattern, Source},
    limits::MAX_GUESTS,
};
use file::FileForm;

pub use guest::GuestEntry;
pub use link::LinkSettings;
pub use value::ChannelName;
pub use vbridge_settings::Format;

/// Addresses on which all guests are offered. A host has a handful; more is an error.
pub const MAX_LISTEN: usize = 64;

/// Hypervisors and patterns of sockets where guests are found. More is an error.
pub const MAX_SOURCES: usize = 256;

/// Where the bridge listens if nobody says: this machine only.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7411";

/// What the operator wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// Where all guests are offered.
    pub listen: Vec<ListenAddress>,
    /// The guests, in the order of the file.
    pub guests: Vec<GuestEntry>,
    /// Hypervisors whose domains are guests, by their URIs: on this host, or on others.
    pub libvirt: Vec<String>,
    /// Whether domains that have only qemu-guest-agent's channel are guests, too. Default: yes.
    pub qemu_agent: Option<bool>,
    /// What holds for the links to all guests.
    pub link: LinkSettings,
    /// The name of the channel that makes a domain a guest. Default: [`CHANNEL_NAME`].
    pub channel: Option<String>,
    /// Folders whose sockets are guests.
    pub sockets: Vec<SocketPattern>,
    /// Who may call what.
    pub access: AccessSpec,
    /// Where the certificates are for TCP connections.
    pub tls: Option<TlsFiles>,
    /// Where calls are written down.
    pub audit: Option<PathBuf>,
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
            return Err(BridgeError::TooManyGuests.into());
        }
        self.guests.push(guest);
        Ok(())
    }

    /// Describes the bridge; reads the guests' keys. Without an address it listens on [`DEFAULT_LISTEN`].
    ///
    /// # Errors
    /// There is no guest and nowhere to find one, or too many places; a key can't be used.
    pub fn bridge(&self) -> Result<BridgeBuilder, ConfigError> {
        match self.libvirt.len() + self.sockets.len() {
            0 if self.guests.is_empty() => return Err(ConfigError::NoGuests),
            sources if sources > MAX_SOURCES => return Err(ConfigError::TooManySources(sources)),
            _ => {}
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
        let tls = self.link.tls.as_ref().map(LinkTls::read).transpose();
        let tls = tls.map_err(BridgeError::from)?;
        for guest in &self.guests {
            builder = builder.guest(self.link.guest(guest, tls.as_ref())?);
        }
        if let Some(key) = self.link.key()? {
            builder = builder.link_key(key);
        }
        if let Some(tls) = tls {
            builder = builder.link_tls(tls);
        }
        builder = builder.access(self.access.clone());
        if let Some(tls) = &self.tls {
            builder = builder.tls(tls.clone());
        }
        if let Some(audit) = &self.audit {
            builder = builder.audit(audit);
        }
        let channel = self.channel.as_deref().unwrap_or(CHANNEL_NAME);
        let mut sources = Vec::new();
        for uri in &self.libvirt {
            check_uri(uri)?;
            sources.push(Source::Libvirt {
                uri: uri.clone(),
                channel: channel.to_owned(),
                qemu_agent: self.qemu_agent.unwrap_or(true),
            });
        }
        sources.extend(self.sockets.iter().cloned().map(Source::Sockets));
        for (index, source) in sources.iter().enumerate() {
            // The file's and a flag's may be the same.
            if !sources[..index].contains(source) {
                builder = builder.source(source.clone());
            }
        }
        Ok(builder)
    }
}

/// Whether libvirt could make something of it.
fn check_uri(uri: &str) -> Result<(), ConfigError> {
    let error = |why: libvirt::uri::Error| ConfigError::Libvirt {
        uri: uri.escape_debug().to_string(),
        why: why.to_string(),
    };
    Uri::parse(uri).map(drop).map_err(error)
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
    /// The key of all guests can't be used.
    #[error("can't use the key {path} of [link]: {why}")]
    LinkKey {
        /// The file.
        path: PathBuf,
        /// What is the matter with it.
        why: KeyFileError,
    },
    /// The settings of the links contradict each other.
    #[error("in [link], {0}")]
    Link(&'static str),
    /// A caller's token can't be read.
    #[error("can't use the token {path} of caller \"{caller}\": {why}")]
    Token {
        /// The caller.
        caller: String,
        /// The file.
        path: PathBuf,
        /// What is the matter with it.
        why: String,
    },
    /// No guest at all, and nowhere to find one.
    #[error(
        "no guest is named; give one with --guest NAME=unix:PATH, find them with --libvirt URI or --sockets /FOLDER/*.sock, or say so in the file of --config"
    )]
    NoGuests,
    /// More hypervisors and patterns than a bridge takes.
    #[error("guests are to be found in {0} places, and the limit is {MAX_SOURCES}")]
    TooManySources(usize),
    /// More addresses than a bridge takes.
    #[error("there are {0} addresses to listen on, and the limit is {MAX_LISTEN}")]
    TooManyAddresses(usize),
    /// A hypervisor can't be asked for guests.
    #[error("guests can't be found at \"{uri}\": {why}")]
    Libvirt {
        /// The URI.
        uri: String,
        /// What is the matter with it.
        why: String,
    },
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
    fn a_place_where_guests_are_found_is_enough_and_too_many_are_refused() {
        let mut config = Config {
            libvirt: vec!["qemu:///system".to_owned()],
            ..Config::default()
        };
        assert!(config.bridge().is_ok());
        for uri in [
            "qemu+ssh://root@far/system",
            "qemu+tls://far/system",
            "qemu+tcp://far/system",
        ] {
            config.libvirt = vec![uri.to_owned()];
            assert!(config.bridge().is_ok(), "{uri}");
        }
        for (uri, what) in [("no uri", "no uri"), ("qemu+pigeon://far/system", "pigeon")] {
            let config = Config {
                libvirt: vec![uri.to_owned()],
                ..Config::default()
            };
            let error = config.bridge().unwrap_err().to_string();
            assert!(
                error.contains(what) && error.lines().count() == 1,
                "{error}"
            );
        }
        config.sockets = vec!["/run/vms/*.sock".parse().unwrap(); MAX_SOURCES];
        let error = config.bridge().unwrap_err().to_string();
        assert!(error.contains("257") && error.contains("256"), "{error}");
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
