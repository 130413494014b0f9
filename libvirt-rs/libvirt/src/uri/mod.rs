//! URIs of connections: `driver[+transport]://[user@][host][:port]/[path][?parameters]`.
//!
//! | module | what it does |
//! |---|---|
//! | `parse` | takes a URI apart |
//! | `parameters` | knows the parameters, and which of them are for this end |
//! | `configuration` | the URI of a connection that names none, and aliases: libvirt.conf and libvirt-admin.conf |
//! | [`limits`] | how much is read |

mod configuration;
mod error;
pub mod limits;
mod parameters;
mod parse;
#[cfg(test)]
mod tests;

use std::{fmt, str::FromStr};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

pub use error::Error;
pub use parameters::{Auth, KnownHosts, Mode, Proxy};
use parameters::{Parameter, Settings};

/// How the bytes reach the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Transport {
    /// A socket of this host.
    Unix,
    /// TCP without encryption.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// The program `ssh`.
    Ssh,
    /// In libvirt, ssh by the library libssh. Here it is the program `ssh`.
    LibSsh,
    /// In libvirt, ssh by the library libssh2. Here it is the program `ssh`.
    LibSsh2,
    /// A program of the user's.
    Ext,
}

impl Transport {
    const ALL: [Self; 7] = [
        Self::Unix,
        Self::Tcp,
        Self::Tls,
        Self::Ssh,
        Self::LibSsh,
        Self::LibSsh2,
        Self::Ext,
    ];

    /// Its name in a URI.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unix => "unix",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Ssh => "ssh",
            Self::LibSsh => "libssh",
            Self::LibSsh2 => "libssh2",
            Self::Ext => "ext",
        }
    }

    /// The port of a URI that names none, where libvirt has one: 16509 for TCP and 16514 for TLS.
    #[must_use]
    pub fn default_port(self) -> Option<u16> {
        match self {
            Self::Tcp => Some(16_509),
            Self::Tls => Some(16_514),
            _ => None,
        }
    }
}

/// What a connection is made to.
///
/// The empty URI leaves it to the local daemon to find out what it drives.
///
/// ```
/// use libvirt::uri::{Transport, Uri};
///
/// let uri = Uri::parse("qemu+tcp://[2001:db8::1]:4000/system?no_tty=1&project=blue")?;
/// assert_eq!(uri.transport(), Transport::Tcp);
/// assert_eq!((uri.host(), uri.port()), (Some("2001:db8::1"), Some(4000)));
/// // What is for this end stays at this end.
/// assert_eq!(uri.name_for_server(), "qemu:///system?project=blue");
/// # Ok::<_, libvirt::uri::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uri {
    /// Empty in the empty URI, and there alone.
    driver: String,
    /// As it is written; none is written more often than not.
    transport: Option<Transport>,
    user: Option<String>,
    /// Without brackets.
    host: Option<String>,
    port: Option<u16>,
    /// Decoded. It is empty or begins with a slash.
    path: String,
    /// All of them, in their order.
    parameters: Vec<Parameter>,
    /// What those say that are for this end.
    settings: Settings,
}

impl Uri {
    /// Takes a URI apart. An empty text is the empty URI.
    ///
    /// # Errors
    /// Something in it is wrong.
    pub fn parse(text: &str) -> Result<Self, Error> {
        parse::uri(text)
    }

    /// Whether it names nothing, so that the daemon finds out what it drives.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.driver.is_empty()
    }

    /// The driver, like `qemu`, in lower case. Empty in the empty URI. `remote` leaves it to the daemon.
    #[must_use]
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// The transport: the one that is written, else TLS to a host, else a Unix socket.
    #[must_use]
    pub fn transport(&self) -> Transport {
        match (self.transport, &self.host) {
            (Some(transport), _) => transport,
            (None, Some(_)) => Transport::Tls,
            (None, None) => Transport::Unix,
        }
    }

    /// The user at the host.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The host: a name, or an address without brackets.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// The host, or `localhost` where none is written, as libvirt has it.
    #[must_use]
    pub fn host_or_localhost(&self) -> &str {
        self.host().unwrap_or("localhost")
    }

    /// The port: the one that is written, else the transport's own if it has one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port.or_else(|| self.transport().default_port())
    }

    /// The path, decoded: `/system`, `/session`, or what else the driver makes of it.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The parameters that this end makes use of.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A parameter other than this one, if there is any.
    pub(crate) fn parameter_beside(&self, known: &str) -> Option<&str> {
        let names = self.parameters.iter().map(|each| each.name.as_str());
        names
            .into_iter()
            .find(|name| !name.eq_ignore_ascii_case(known))
    }

    /// How to authenticate, from `auth=`; a daemon that does not offer it is refused. `None`: as the daemon offers.
    #[must_use]
    pub fn auth(&self) -> Option<&Auth> {
        self.settings.auth.as_ref()
    }

    /// What the daemon is told to open: the argument of CONNECT_OPEN.
    ///
    /// It is the URI without transport, user, host, port and the parameters for this end, or what `name=` says. An
    /// empty one leaves it to the daemon; so does the driver `remote`.
    #[must_use]
    pub fn name_for_server(&self) -> String {
        if let Some(name) = &self.settings.name {
            return name.clone();
        }
        if self.is_empty() || self.driver == "remote" {
            return String::new();
        }
        let forwarded = self.parameters.iter().filter(|each| each.is_forwarded());
        let mut name = format!("{}://{}", self.driver, encoded(&self.path, PATH));
        // Writing to a string does not fail.
        let _ = write_query(&mut name, forwarded);
        name
    }
}

impl FromStr for Uri {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return Ok(());
        }
        f.write_str(&self.driver)?;
        if let Some(transport) = self.transport {
            write!(f, "+{}", transport.name())?;
        }
        f.write_str("://")?;
        if let Some(user) = &self.user {
            write!(f, "{}@", encoded(user, COMPONENT))?;
        }
        match &self.host {
            Some(host) if host.contains(':') => write!(f, "[{}]", encoded(host, ADDRESS))?,
            Some(host) => f.write_str(host)?,
            None => {}
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write!(f, "{}", encoded(&self.path, PATH))?;
        write_query(f, self.parameters.iter())
    }
}

fn write_query<'a>(
    to: &mut dyn fmt::Write,
    parameters: impl Iterator<Item = &'a Parameter>,
) -> fmt::Result {
    for (index, parameter) in parameters.enumerate() {
        to.write_char(if index == 0 { '?' } else { '&' })?;
        let name = encoded(&parameter.name, VALUE);
        write!(to, "{name}={}", encoded(&parameter.value, VALUE))?;
    }
    Ok(())
}

fn encoded<'a>(text: &'a str, set: &'static AsciiSet) -> percent_encoding::PercentEncode<'a> {
    utf8_percent_encode(text, set)
}

/// What needs encoding anywhere: all but RFC 3986's unreserved characters.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

const PATH: &AsciiSet = &COMPONENT
    .remove(b'/')
    .remove(b':')
    .remove(b'@')
    .remove(b'+')
    .remove(b',')
    .remove(b'=');

const VALUE: &AsciiSet = &COMPONENT
    .remove(b'/')
    .remove(b':')
    .remove(b'@')
    .remove(b',');

/// An IPv6 address, perhaps with a zone behind a `%`.
const ADDRESS: &AsciiSet = &COMPONENT.remove(b':');
