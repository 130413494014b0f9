//! Addresses that tunnels lead to, or listen at.
//!
//! An IP address is looked at after the name was looked up, so that no name leads past a rule about addresses. A name's
//! pattern is about what the caller wrote: whoever answers for that name decides where it leads. A Unix socket is where its
//! file lies: the directory is compared as what it is, and the file must be a socket and no link.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, FileType, Mode, OFlags};

use super::{PolicyError, pattern::matches};

/// What a tunnel does at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressUse {
    /// It connects to it.
    Connect,
    /// It listens there.
    Listen,
}

/// Allows or refuses addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressRule {
    pub(super) name: String,
    pub(super) allow: bool,
    addresses: Vec<Pattern>,
    only: Option<AddressUse>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    /// Everything of every kind.
    Any,
    Tcp(Host, Ports),
    Udp(Host, Ports),
    /// A directory, and a pattern for a socket's name in it.
    File(PathBuf, String),
    /// A socket without a file, by the pattern of its name.
    Abstract(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Any,
    Loopback,
    /// A network, by an address and the number of bits that count.
    Network(IpAddr, u32),
    /// What the caller calls it.
    Name(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ports(u16, u16);

/// An address as it is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wanted<'a> {
    /// What the caller called it, and one of the addresses that this stands for.
    Tcp(&'a str, SocketAddr),
    /// The same.
    Udp(&'a str, SocketAddr),
    /// A path.
    File(&'a Path),
    /// A name without file.
    Abstract(&'a str),
}

/// Where an address is that a rule is about.
#[derive(Debug)]
pub(crate) enum Site {
    /// Where the caller says.
    AsWritten,
    /// At this path, which no caller has had a hand in.
    At(PathBuf),
    /// This very socket.
    Socket(OwnedFd),
}

// === impl AddressRule ===

impl AddressRule {
    /// Lets tunnels use these: `tcp:HOST:PORT`, `udp:HOST:PORT`, `unix:/DIRECTORY/NAME`, `unix:@NAME` or `*`.
    ///
    /// # Errors
    /// One is none.
    pub fn allow(
        name: impl Into<String>,
        addresses: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Self, PolicyError> {
        let addresses = addresses.into_iter().map(|it| Pattern::parse(it.as_ref()));
        Ok(Self {
            name: name.into(),
            allow: true,
            addresses: addresses.collect::<Result<_, _>>()?,
            only: None,
        })
    }

    /// Refuses these.
    ///
    /// # Errors
    /// One is none.
    pub fn deny(
        name: impl Into<String>,
        addresses: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Self, PolicyError> {
        Ok(Self {
            allow: false,
            ..Self::allow(name, addresses)?
        })
    }

    /// Only of tunnels that do this there. Default: of all.
    #[must_use]
    pub fn only(mut self, only: AddressUse) -> Self {
        self.only = Some(only);
        self
    }

    pub(super) fn is_for(&self, purpose: AddressUse) -> bool {
        self.only.is_none_or(|only| only == purpose)
    }
}

/// The first rule that is about an address, and where that is. Looks at the guest's files for a path.
pub(super) fn find<'a>(
    rules: &'a [AddressRule],
    wanted: Wanted<'_>,
    purpose: AddressUse,
) -> Option<(&'a AddressRule, Site)> {
    if rules.is_empty() {
        return None;
    }
    // Who refuses sees through a link at the end, and who allows takes none.
    let real = match wanted {
        Wanted::File(path) => path.canonicalize().ok(),
        _ => None,
    };
    rules.iter().find_map(|rule| {
        let wanted = match &real {
            Some(path) if !rule.allow => Wanted::File(path),
            _ => wanted,
        };
        let mut addresses = rule.addresses.iter().filter(|_| rule.is_for(purpose));
        let site = addresses.find_map(|it| it.matches(wanted, purpose))?;
        Some((rule, site))
    })
}

// === impl Pattern ===

impl Pattern {
    fn parse(text: &str) -> Result<Self, PolicyError> {
        let wrong = || {
            PolicyError::new(format!(
                "{text:?} is no address: write tcp:HOST:PORT, udp:HOST:PORT, unix:/DIRECTORY/NAME, unix:@NAME or *"
            ))
        };
        if text == "*" {
            return Ok(Self::Any);
        }
        let (kind, rest) = text.split_once(':').ok_or_else(wrong)?;
        if kind == "unix" {
            return match (rest.strip_prefix('@'), rest.rsplit_once('/')) {
                (Some(name), _) if !name.is_empty() => Ok(Self::Abstract(name.to_owned())),
                (None, Some((folder, name))) if rest.starts_with('/') => {
                    match folder.contains('*') || matches!(name, "" | "." | "..") {
                        true => Err(wrong()),
                        false => Ok(Self::File(Path::new("/").join(folder), name.to_owned())),
                    }
                }
                _ => Err(wrong()),
            };
        }
        let (host, ports) = rest.rsplit_once(':').ok_or_else(wrong)?;
        let host = Host::parse(host).ok_or_else(wrong)?;
        let ports = Ports::parse(ports).ok_or_else(wrong)?;
        match kind {
            "tcp" => Ok(Self::Tcp(host, ports)),
            "udp" => Ok(Self::Udp(host, ports)),
            _ => Err(wrong()),
        }
    }

    fn matches(&self, wanted: Wanted<'_>, purpose: AddressUse) -> Option<Site> {
        let is_it = match (self, wanted) {
            (Self::Any, _) => true,
            (Self::Tcp(host, ports), Wanted::Tcp(name, address))
            | (Self::Udp(host, ports), Wanted::Udp(name, address)) => {
                ports.hold(address.port()) && host.matches(name, address.ip(), purpose)
            }
            (Self::File(folder, pattern), Wanted::File(path)) => {
                return socket_in(folder, pattern, path, purpose);
            }
            (Self::Abstract(pattern), Wanted::Abstract(name)) => matches(pattern, name),
            _ => false,
        };
        is_it.then_some(Site::AsWritten)
    }
}

/// Where `path` leads to, if that is in the very directory, and there a socket, or nothing if one is to be made.
fn socket_in(folder: &Path, pattern: &str, path: &Path, purpose: AddressUse) -> Option<Site> {
    let name = path.file_name()?.to_str()?;
    let identity = |path: &Path| fs::metadata(path).map(|it| (it.dev(), it.ino())).ok();
    if !matches(pattern, name) || identity(folder)? != identity(path.parent()?)? {
        return None;
    }
    let own = folder.join(name);
    match purpose {
        AddressUse::Connect => {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let found = rustix::fs::openat(CWD, &own, flags, Mode::empty()).ok()?;
            let stat = rustix::fs::fstat(&found).ok()?;
            let file_type = FileType::from_raw_mode(stat.st_mode);
            (file_type == FileType::Socket).then_some(Site::Socket(found))
        }
        // Nothing is followed or replaced where a socket is made.
        AddressUse::Listen => Some(Site::At(own)),
    }
}

// === impl Host ===

impl Host {
    fn parse(text: &str) -> Option<Self> {
        let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        let text = bare.unwrap_or(text);
        match text {
            "*" => return Some(Self::Any),
            "localhost" => return Some(Self::Loopback),
            _ => {}
        }
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().ok()?)),
            None => (text, None),
        };
        if let Ok(address) = address.parse::<IpAddr>() {
            let most = if address.is_ipv4() { 32 } else { 128 };
            let bits = bits.unwrap_or(most);
            return (bits <= most).then_some(Self::Network(address, bits));
        }
        // What looks like an address must be one: as a name nobody would be called so.
        let is_name = |it: char| it.is_ascii_alphanumeric() || matches!(it, '.' | '-' | '_' | '*');
        let has_letter = text.contains(|it: char| it.is_ascii_alphabetic());
        (bits.is_none() && has_letter && text.chars().all(is_name))
            .then(|| Self::Name(text.to_ascii_lowercase()))
    }

    fn matches(&self, name: &str, address: IpAddr, purpose: AddressUse) -> bool {
        let address = match (address.to_canonical(), purpose) {
            // Who connects to "no address" reaches this machine; who listens there listens everywhere.
            (IpAddr::V4(Ipv4Addr::UNSPECIFIED), AddressUse::Connect) => Ipv4Addr::LOCALHOST.into(),
            (IpAddr::V6(Ipv6Addr::UNSPECIFIED), AddressUse::Connect) => Ipv6Addr::LOCALHOST.into(),
            (address, _) => address,
        };
        match self {
            Self::Any => true,
            Self::Loopback => address.is_loopback(),
            Self::Network(network, bits) => is_in(*network, *bits, address),
            Self::Name(pattern) => matches(pattern, &name.to_ascii_lowercase()),
        }
    }
}

fn is_in(network: IpAddr, bits: u32, address: IpAddr) -> bool {
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            network.to_bits() & mask == address.to_bits() & mask
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            network.to_bits() & mask == address.to_bits() & mask
        }
        _ => false,
    }
}

// === impl Ports ===

impl Ports {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self(0, u16::MAX));
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let ports = Self(first.parse().ok()?, last.parse().ok()?);
        (ports.0 <= ports.1).then_some(ports)
    }

    fn hold(self, port: u16) -> bool {
        (self.0..=self.1).contains(&port)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::symlink, net::UnixListener};

    use super::*;

    fn allowed(pattern: &str, wanted: Wanted<'_>) -> bool {
        let rules = [AddressRule::allow("rule", [pattern]).unwrap()];
        find(&rules, wanted, AddressUse::Connect).is_some()
    }

    #[test]
    fn an_address_is_what_a_name_stands_for() {
        for (pattern, name, address, expected) in [
            ("tcp:127.0.0.1:80", "x", "127.0.0.1:80", true),
            ("tcp:127.0.0.1:80", "", "127.0.0.1:81", false),
            ("tcp:127.0.0.0/8:1-90", "x", "127.9.9.9:80", true),
            ("tcp:127.0.0.1:80", "x", "[::ffff:127.0.0.1]:80", true),
            ("tcp:127.0.0.1:80", "0.0.0.0", "0.0.0.0:80", true),
            ("tcp:localhost:*", "evil.test", "[::1]:80", true),
            ("tcp:localhost:*", "localhost", "10.0.0.1:80", false),
            ("tcp:[fd00::]/8:*", "", "[fd12::1]:1", false),
            ("tcp:fd00::/8:*", "", "[fd12::1]:1", true),
            ("tcp:0.0.0.0/0:*", "", "10.0.0.1:1", true),
            ("tcp:0.0.0.0/0:*", "", "[fd12::1]:1", false),
            ("tcp:*.test:80", "A.Test", "10.0.0.1:80", true),
            ("tcp:*.test:80", "test.evil", "10.0.0.1:80", false),
            ("udp:*:*", "x", "10.0.0.1:80", false),
            ("*", "x", "10.0.0.1:80", true),
        ] {
            if Pattern::parse(pattern).is_err() {
                assert!(!expected, "{pattern}");
                continue;
            }
            let wanted = Wanted::Tcp(name, address.parse().unwrap());
            assert_eq!(allowed(pattern, wanted), expected, "{pattern} {address}");
        }
        let wanted = Wanted::Udp("", "10.0.0.1:53".parse().unwrap());
        assert!(allowed("udp:10.0.0.0/24:53", wanted));
        assert!(!allowed("tcp:*:*", wanted));
        let rules = [AddressRule::allow("rule", ["tcp:localhost:*"]).unwrap()];
        let everywhere = Wanted::Tcp("", "0.0.0.0:80".parse().unwrap());
        assert!(find(&rules, everywhere, AddressUse::Connect).is_some());
        assert!(find(&rules, everywhere, AddressUse::Listen).is_none());
    }

    #[test]
    fn a_socket_is_where_its_file_lies() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("run")).unwrap();
        let _listener = UnixListener::bind(at("run/app.sock")).unwrap();
        let _secret = UnixListener::bind(at("secret.sock")).unwrap();
        fs::write(at("run/file.sock"), "").unwrap();
        symlink(at("secret.sock"), at("run/link.sock")).unwrap();
        symlink(at("run"), at("way")).unwrap();
        symlink(dir.path(), at("run/out")).unwrap();
        let pattern = format!("unix:{}/*.sock", at("run").display());
        for (name, expected) in [
            ("run/app.sock", true),
            ("way/app.sock", true),
            ("run/link.sock", false),
            ("run/file.sock", false),
            ("run/none.sock", false),
            ("secret.sock", false),
            ("run/../secret.sock", false),
            ("run/out/secret.sock", false),
        ] {
            assert_eq!(
                allowed(&pattern, Wanted::File(&at(name))),
                expected,
                "{name}"
            );
        }
        assert!(allowed("unix:@app-*", Wanted::Abstract("app-1")));
        assert!(!allowed("unix:@app-*", Wanted::Abstract("web")));
        assert!(!allowed(&pattern, Wanted::Abstract("app.sock")));
        let rules = [AddressRule::allow("rule", [&pattern]).unwrap()];
        let listen =
            |name: &str| find(&rules, Wanted::File(&at(name)), AddressUse::Listen).is_some();
        assert!(listen("run/new.sock") && !listen("new.sock"));
        let deny = [
            AddressRule::deny("rule", [format!("unix:{}", at("secret.sock").display())]).unwrap(),
        ];
        let link = at("run/link.sock");
        assert!(
            find(&deny, Wanted::File(&link), AddressUse::Connect).is_some(),
            "a link hides nothing"
        );
    }

    #[test]
    fn what_is_no_address_is_told() {
        for wrong in [
            "",
            "tcp",
            "tcp:80",
            "tcp::80",
            "tcp:a b:80",
            "tcp:10.0.0.*:80",
            "tcp:1.2.3.4/33:1",
            "tcp:x:80000",
            "tcp:x:9-1",
            "sctp:x:1",
            "unix:x",
            "unix:/",
            "unix:/*/x",
            "unix:@",
            "tcp:1.2.3:1",
        ] {
            let error = AddressRule::allow("rule", [wrong]).unwrap_err();
            assert!(error.to_string().contains("no address"), "{wrong}: {error}");
        }
    }
}
