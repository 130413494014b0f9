//! The parameters of a URI: those for this end, and the rest, which goes to the daemon.

use std::{fmt, path::PathBuf};

use super::Error;

/// One as it is written, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) value: String,
}

impl Parameter {
    /// Whether it is for the daemon's driver.
    pub(super) fn is_forwarded(&self) -> bool {
        known(&self.name).is_none()
    }
}

/// Which socket a local connection takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// The driver's own daemon if its socket is there, else libvirtd's.
    #[default]
    Auto,
    /// libvirtd's, or that of virtproxyd in its place.
    Legacy,
    /// The driver's own.
    Direct,
}

/// What carries the bytes on from the host that ssh has reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Proxy {
    /// `virt-ssh-helper` if the host has it, else `nc`.
    #[default]
    Auto,
    /// `virt-ssh-helper`, which finds the socket by itself.
    Native,
    /// `nc -U`.
    Netcat,
}

/// What is to be done about a host whose key ssh does not know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KnownHosts {
    /// What ssh's own configuration says: commonly, ask.
    #[default]
    Normal,
    /// Take a new key and remember it; refuse one that has changed.
    Auto,
    /// Take any key.
    Ignore,
}

/// How to authenticate. A daemon that offers something else is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Auth {
    /// Not at all.
    None,
    /// By SASL, with this mechanism if one is named.
    Sasl(Option<String>),
    /// By polkit.
    Polkit,
}

/// As the URI has it.
impl fmt::Display for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Sasl(None) => f.write_str("sasl"),
            Self::Sasl(Some(mechanism)) => write!(f, "sasl.{}", mechanism.to_ascii_lowercase()),
            Self::Polkit => f.write_str("polkit"),
        }
    }
}

/// What the parameters for this end say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) name: Option<String>,
    pub(crate) command: Option<String>,
    pub(crate) socket: Option<PathBuf>,
    pub(crate) auth: Option<Auth>,
    /// How ssh is to authenticate: libssh's list, which ssh's own configuration takes the place of here.
    pub(crate) sshauth: Option<String>,
    pub(crate) netcat: Option<String>,
    pub(crate) keyfile: Option<String>,
    pub(crate) pkipath: Option<PathBuf>,
    pub(crate) known_hosts: Option<String>,
    pub(crate) known_hosts_verify: KnownHosts,
    pub(crate) tls_priority: Option<String>,
    pub(crate) mode: Mode,
    pub(crate) proxy: Proxy,
    pub(crate) no_verify: bool,
    pub(crate) no_tty: bool,
    pub(crate) authfile: Option<PathBuf>,
}

/// Those for this end. `no_sanity` is libvirt's leave to skip its own check of its certificates, which here the
/// handshake does.
const KNOWN: [&str; 17] = [
    "name",
    "command",
    "socket",
    "auth",
    "sshauth",
    "netcat",
    "keyfile",
    "pkipath",
    "known_hosts",
    "known_hosts_verify",
    "tls_priority",
    "mode",
    "proxy",
    "no_sanity",
    "no_verify",
    "no_tty",
    "authfile",
];

/// The name as it is here, if the parameter is for this end. Their case does not matter.
pub(super) fn known(name: &str) -> Option<&'static str> {
    KNOWN
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(name))
}

impl Settings {
    /// Reads those that are for this end.
    pub(super) fn of(parameters: &[Parameter]) -> Result<Self, Error> {
        let mut settings = Self::default();
        let mut seen = Vec::new();
        for Parameter { name, value } in parameters {
            let Some(name) = known(name) else { continue };
            if seen.contains(&name) {
                return Err(Error::Twice(name.to_owned()));
            }
            seen.push(name);
            settings.set(name, value)?;
        }
        Ok(settings)
    }

    fn set(&mut self, name: &'static str, value: &str) -> Result<(), Error> {
        let wrong = |expected| Error::Parameter {
            name,
            value: value.to_owned(),
            expected,
        };
        // An empty name is a name: the daemon finds out what it drives.
        if value.is_empty() && name != "name" {
            return Err(wrong("give it a value, or leave it out"));
        }
        let text = || Some(value.to_owned());
        let path = || {
            let path = PathBuf::from(value);
            let expected = "it is a path that begins with `/`";
            path.is_absolute()
                .then_some(Some(path))
                .ok_or(wrong(expected))
        };
        let yes = || match value.parse::<i32>() {
            Ok(number) => Ok(number != 0),
            Err(_) => Err(wrong("it is 1 for yes or 0 for no")),
        };
        match name {
            "name" => self.name = text(),
            "command" => self.command = text(),
            "socket" => self.socket = path()?,
            "auth" => self.auth = Some(auth(value).ok_or(wrong(AUTH))?),
            "sshauth" => self.sshauth = text(),
            "netcat" => self.netcat = text(),
            "keyfile" => self.keyfile = text(),
            "pkipath" => self.pkipath = path()?,
            "known_hosts" => self.known_hosts = text(),
            "known_hosts_verify" => {
                let found = choice(value, ["normal", "auto", "ignore"], KNOWN_HOSTS);
                self.known_hosts_verify = found.ok_or(wrong("it is normal, auto or ignore"))?;
            }
            "tls_priority" => self.tls_priority = text(),
            "mode" => {
                let found = choice(value, ["auto", "legacy", "direct"], MODES);
                self.mode = found.ok_or(wrong("it is auto, legacy or direct"))?;
            }
            "proxy" => {
                let found = choice(value, ["auto", "native", "netcat"], PROXIES);
                self.proxy = found.ok_or(wrong("it is auto, native or netcat"))?;
            }
            "no_verify" => self.no_verify = yes()?,
            "no_tty" => self.no_tty = yes()?,
            "authfile" => self.authfile = path()?,
            // no_sanity: see KNOWN.
            _ => drop(yes()?),
        }
        Ok(())
    }
}

const MODES: [Mode; 3] = [Mode::Auto, Mode::Legacy, Mode::Direct];
const PROXIES: [Proxy; 3] = [Proxy::Auto, Proxy::Native, Proxy::Netcat];
const KNOWN_HOSTS: [KnownHosts; 3] = [KnownHosts::Normal, KnownHosts::Auto, KnownHosts::Ignore];

/// What stands where the value does among the names.
fn choice<T: Copy>(value: &str, names: [&str; 3], of: [T; 3]) -> Option<T> {
    let at = names.iter().position(|name| *name == value)?;
    Some(of[at])
}

const AUTH: &str = "it is none, polkit, sasl, or sasl. and a mechanism like sasl.scram-sha-256";

fn auth(value: &str) -> Option<Auth> {
    let value = value.to_ascii_lowercase();
    match value.as_str() {
        "none" => Some(Auth::None),
        "polkit" => Some(Auth::Polkit),
        "sasl" => Some(Auth::Sasl(None)),
        _ => {
            let mechanism = value.strip_prefix("sasl.")?;
            (!mechanism.is_empty()).then(|| Auth::Sasl(Some(mechanism.to_ascii_uppercase())))
        }
    }
}
