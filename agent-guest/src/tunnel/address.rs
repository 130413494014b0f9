//! Where a tunnel leads to: what a caller may name, and what a name stands for.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _},
    path::PathBuf,
};

use tonic::Status;
use vbridge_api::guest::v1::{self, TunnelAddress, tunnel_address};

use super::Aside;
use crate::{
    error::invalid_field,
    limits::{MAX_HOST, MAX_SOCKET_PATH, MAX_TUNNEL_ADDRESSES},
};

/// What an absent host and `localhost` stand for, in this order. No resolver is asked.
const LOOPBACK: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

/// An address in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(HostPort),
    Udp(HostPort),
    Unix(UnixPath),
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPort {
    /// Empty: this machine.
    host: String,
    port: u16,
}

/// The name of a Unix socket: a path, or with "@" in front one without file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnixPath(String);

/// What an address is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Reach,
    Listen,
}

impl Address {
    /// An address to connect to. `field` is where it stands in the request.
    pub(crate) fn to_reach(message: TunnelAddress, field: &str) -> Result<Self, Status> {
        Self::new(message, field, Use::Reach)
    }

    /// An address to listen on.
    pub(crate) fn to_listen(message: TunnelAddress, field: &str) -> Result<Self, Status> {
        match Self::new(message, field, Use::Listen)? {
            Self::Udp(_) => Err(invalid_field(
                format!("{field}.udp"),
                "a tunnel can't listen on UDP: give tcp or unix",
            )),
            address => Ok(address),
        }
    }

    fn new(message: TunnelAddress, field: &str, purpose: Use) -> Result<Self, Status> {
        use tunnel_address::Address as Message;
        match message.address {
            Some(Message::Tcp(tcp)) => {
                HostPort::new(tcp, &format!("{field}.tcp"), purpose).map(Self::Tcp)
            }
            Some(Message::Udp(udp)) => {
                HostPort::new(udp, &format!("{field}.udp"), purpose).map(Self::Udp)
            }
            Some(Message::Unix(path)) => {
                UnixPath::new(path, &format!("{field}.unix")).map(Self::Unix)
            }
            None => Err(invalid_field(field, "must be one of tcp, udp and unix")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Udp(address) => write!(f, "{address} (UDP)"),
            Self::Unix(path) => path.fmt(f),
        }
    }
}

// === impl HostPort ===

impl HostPort {
    fn new(message: v1::SocketAddress, field: &str, purpose: Use) -> Result<Self, Status> {
        let v1::SocketAddress { host, port } = message;
        if host.len() > MAX_HOST || host.chars().any(|c| c.is_control() || c.is_whitespace()) {
            let description = format!(
                "must be a name or an IP address of at most {MAX_HOST} bytes, without spaces and control characters"
            );
            return Err(invalid_field(format!("{field}.host"), description));
        }
        let least = match purpose {
            Use::Reach => 1,
            Use::Listen => 0,
        };
        match u16::try_from(port) {
            Ok(port) if port >= least => Ok(Self { host, port }),
            _ => Err(invalid_field(
                format!("{field}.port"),
                format!("must be {least} to 65535, and this is {port}"),
            )),
        }
    }

    /// What the caller calls the host; empty for this machine.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// What it stands for: [`MAX_TUNNEL_ADDRESSES`] at most, and at least one.
    pub(crate) async fn look_up(&self, aside: &Aside) -> io::Result<Vec<SocketAddr>> {
        let port = self.port;
        if self.host.is_empty() || self.host.eq_ignore_ascii_case("localhost") {
            return Ok(LOOPBACK.map(|ip| SocketAddr::new(ip, port)).to_vec());
        }
        if let Ok(ip) = self.host.parse() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let host = self.host.clone();
        let found = aside.run(move || {
            let found = (host.as_str(), port).to_socket_addrs()?;
            Ok(found.take(MAX_TUNNEL_ADDRESSES).collect::<Vec<_>>())
        });
        match found.await? {
            found if found.is_empty() => Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the name has no address",
            )),
            found => Ok(found),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port;
        match self.host.as_str() {
            "" => write!(f, "port {port}"),
            host if host.contains(':') => write!(f, "[{host}]:{port}"),
            host => write!(f, "{host}:{port}"),
        }
    }
}

// === impl UnixPath ===

impl UnixPath {
    fn new(path: String, field: &str) -> Result<Self, Status> {
        let wrong = |description: String| Err(invalid_field(field, description));
        if path.contains('\0') {
            return wrong("must not contain a NUL".into());
        }
        if path.len() > MAX_SOCKET_PATH {
            let len = path.len();
            return wrong(format!(
                "has {len} bytes, and a socket's path has at most {MAX_SOCKET_PATH}"
            ));
        }
        match path.chars().next() {
            Some('/') => Ok(Self(path)),
            Some('@') if path.len() > 1 => Ok(Self(path)),
            _ => wrong("must be an absolute path, or @ and a name".into()),
        }
    }

    /// As tokio takes it: a name without file begins with a NUL.
    pub(crate) fn to_system(&self) -> PathBuf {
        match self.0.strip_prefix('@') {
            Some(name) => PathBuf::from(format!("\0{name}")),
            None => PathBuf::from(&self.0),
        }
    }

    /// Its name, if it is one without file.
    pub(super) fn name(&self) -> &str {
        self.0.strip_prefix('@').unwrap_or_default()
    }

    /// Its file, if it is one that has a file.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        (!self.0.starts_with('@')).then(|| PathBuf::from(&self.0))
    }
}

impl fmt::Display for UnixPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    fn tcp(host: &str, port: u32) -> TunnelAddress {
        let host = host.to_owned();
        TunnelAddress {
            address: Some(tunnel_address::Address::Tcp(v1::SocketAddress {
                host,
                port,
            })),
        }
    }

    fn unix(path: &str) -> TunnelAddress {
        TunnelAddress {
            address: Some(tunnel_address::Address::Unix(path.into())),
        }
    }

    #[test]
    fn what_is_no_address_is_refused_by_the_name_of_its_field() {
        let long = format!("/{}", "x".repeat(MAX_SOCKET_PATH));
        let host = "h".repeat(MAX_HOST + 1);
        for (message, field) in [
            (TunnelAddress::default(), "connect"),
            (tcp("", 0), "connect.tcp.port"),
            (tcp("", 65_536), "connect.tcp.port"),
            (tcp(&host, 1), "connect.tcp.host"),
            (tcp("a\0b", 1), "connect.tcp.host"),
            (tcp("a b", 1), "connect.tcp.host"),
            (unix(""), "connect.unix"),
            (unix("@"), "connect.unix"),
            (unix("run/x"), "connect.unix"),
            (unix("/run/\0x"), "connect.unix"),
            (unix(&long), "connect.unix"),
        ] {
            let status = Address::to_reach(message, "connect").unwrap_err();
            let told = status.message().starts_with(&format!("{field}: "));
            assert!(told, "{}", status.message());
        }
    }

    #[test]
    fn the_longest_path_and_a_free_port_are_accepted() {
        let longest = format!("/{}", "x".repeat(MAX_SOCKET_PATH - 1));
        assert!(Address::to_reach(unix(&longest), "address").is_ok());
        assert!(Address::to_listen(tcp("", 0), "address").is_ok());
        let udp = TunnelAddress {
            address: Some(tunnel_address::Address::Udp(v1::SocketAddress::default())),
        };
        assert!(Address::to_listen(udp, "address").is_err());
    }

    #[test]
    fn an_address_is_shown_as_it_is_written() {
        for (message, text) in [
            (tcp("", 80), "port 80"),
            (tcp("db", 80), "db:80"),
            (tcp("::1", 80), "[::1]:80"),
            (unix("@x"), "@x"),
        ] {
            let address = Address::to_reach(message, "connect").unwrap();
            assert_eq!(address.to_string(), text);
        }
    }

    #[tokio::test]
    async fn this_machine_is_both_loopback_addresses_without_asking_a_resolver() {
        // No thread: whoever asked would wait for ever.
        let aside = Aside(Arc::new(Semaphore::new(0)));
        for (host, expected) in [
            ("", &["127.0.0.1:7", "[::1]:7"][..]),
            ("LocalHost", &["127.0.0.1:7", "[::1]:7"]),
            ("::1", &["[::1]:7"]),
            ("10.0.0.1", &["10.0.0.1:7"]),
        ] {
            let host = HostPort {
                host: host.into(),
                port: 7,
            };
            let found = host.look_up(&aside).await.unwrap();
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found, expected);
        }
    }
}
