//! What `vbridge forward` and `vbridge connect` take: addresses, and pairs of them, written as for `ssh -L`.
//!
//! ```text
//! forward = [ "udp:" | "tcp:" ] listen ":" target
//! listen  = path | [ bind ":" ] port
//! target  = path | [ host ":" ] port
//! path    = what has a "/" in it, or begins with "@" (a socket without file); without ":"
//! bind    = name | IPv4 address | "[" IPv6 address "]" | "*"
//! ```
//!
//! The first piece is a port if it is a number: `8080:db:80` is port 8080 here and port 80 of db there.

use std::{fmt, str::FromStr};

use vbridge_api::guest::v1::{SocketAddress, TunnelAddress, tunnel_address};

/// Why a text is none of these.
type Wrong = String;

/// One end of a connection: where to listen, or where to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    Tcp(HostPort),
    Udp(HostPort),
    Unix(String),
}

/// A port, and a host if one is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostPort {
    pub(super) host: Option<String>,
    pub(super) port: u16,
}

/// Somewhere to listen, and where what comes there is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Forward {
    pub(super) listen: Endpoint,
    pub(super) target: Endpoint,
}

/// Where to connect in a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target(pub(super) Endpoint);

impl FromStr for Forward {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        parse_forward(text).map_err(|why| {
            format!(
                "\"{}\": {why}; write it like 8080:80, 127.0.0.1:8080:localhost:80, ./here.sock:/run/there.sock or udp:5353:53",
                text.escape_debug()
            )
        })
    }
}

impl FromStr for Target {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let target = pieces(text).and_then(|pieces| target(&pieces, false));
        target.map(Self).map_err(|why| {
            format!(
                "\"{}\": {why}; write it like 22, db:5432 or /run/guest.sock",
                text.escape_debug()
            )
        })
    }
}

fn parse_forward(text: &str) -> Result<Forward, Wrong> {
    let (is_udp, rest) = match text.split_once(':') {
        Some(("udp", rest)) => (true, rest),
        Some(("tcp", rest)) => (false, rest),
        _ => (false, text),
    };
    let pieces = pieces(rest)?;
    let first = pieces.first().copied().unwrap_or_default();
    let used = match first {
        Piece::Word(path) if is_path(path) => 1,
        Piece::Word(port) if is_number(port) => 1,
        _ => 2,
    };
    let (here, there) = pieces.split_at_checked(used).unwrap_or((&pieces, &[]));
    if there.is_empty() {
        return Err("it must say where to listen and where to connect".into());
    }
    Ok(Forward {
        listen: listen(here, is_udp)?,
        target: target(there, is_udp)?,
    })
}

/// What stands between two colons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece<'a> {
    Word(&'a str),
    /// It stood in brackets.
    Ipv6(&'a str),
}

impl Default for Piece<'_> {
    fn default() -> Self {
        Self::Word("")
    }
}

fn pieces(text: &str) -> Result<Vec<Piece<'_>>, Wrong> {
    let mut pieces = Vec::new();
    let mut rest = text;
    loop {
        let (piece, behind) = match rest.strip_prefix('[') {
            Some(inside) => {
                let (address, behind) = inside
                    .split_once(']')
                    .ok_or("a bracket is open and none closes it")?;
                if address.parse::<std::net::Ipv6Addr>().is_err() {
                    return Err("only an IPv6 address stands in brackets".into());
                }
                (Piece::Ipv6(address), behind)
            }
            None => {
                let end = rest.find(':').unwrap_or(rest.len());
                (Piece::Word(&rest[..end]), &rest[end..])
            }
        };
        pieces.push(piece);
        match behind.strip_prefix(':') {
            Some(more) => rest = more,
            None if behind.is_empty() => return Ok(pieces),
            None => return Err("behind a bracket stands a colon".into()),
        }
    }
}

fn listen(pieces: &[Piece<'_>], is_udp: bool) -> Result<Endpoint, Wrong> {
    endpoint(pieces, is_udp, 0, "where to listen")
}

fn target(pieces: &[Piece<'_>], is_udp: bool) -> Result<Endpoint, Wrong> {
    match endpoint(pieces, is_udp, 1, "where to connect")? {
        Endpoint::Tcp(HostPort { host, .. }) | Endpoint::Udp(HostPort { host, .. })
            if host.as_deref() == Some("*") =>
        {
            Err("* is every address, and a connection needs one".into())
        }
        target => Ok(target),
    }
}

fn endpoint(
    pieces: &[Piece<'_>],
    is_udp: bool,
    least_port: u16,
    what: &str,
) -> Result<Endpoint, Wrong> {
    let (host, port_text) = match *pieces {
        [Piece::Word(path)] if is_path(path) => {
            return match path {
                _ if is_udp => Err("UDP has ports and no paths".into()),
                "@" => Err("behind @ stands a name".into()),
                _ => Ok(Endpoint::Unix(path.to_owned())),
            };
        }
        [Piece::Word(port)] => (None, port),
        [Piece::Word(""), Piece::Word(_)] => {
            return Err(
                "the host is empty; leave its colon out, or write * for every address".into(),
            );
        }
        [Piece::Word(host), Piece::Word(_)] if is_path(host) => {
            return Err("nothing belongs to a path but the path".into());
        }
        [Piece::Word(host) | Piece::Ipv6(host), Piece::Word(port)] => (Some(host.to_owned()), port),
        [Piece::Ipv6(_)] => return Err("an address alone is not enough: name a port".into()),
        _ => return Err(format!("it has too many parts for {what}")),
    };
    if let Some(host) = &host
        && host.chars().any(|c| c.is_whitespace() || c.is_control())
    {
        return Err("a host has no spaces and no control characters".into());
    }
    let port = port_text
        .parse::<u16>()
        .ok()
        .filter(|port| is_number(port_text) && *port >= least_port);
    let Some(port) = port else {
        return Err(format!(
            "\"{}\" is not a port, which is {least_port} to 65535",
            port_text.escape_debug()
        ));
    };
    let address = HostPort { host, port };
    Ok(match is_udp {
        true => Endpoint::Udp(address),
        false => Endpoint::Tcp(address),
    })
}

fn is_path(text: &str) -> bool {
    text.contains('/') || text.starts_with('@')
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

// === impl Endpoint ===

impl Endpoint {
    /// As the agent takes it. `*` is every address there, too.
    pub(super) fn to_guest(&self) -> TunnelAddress {
        let socket = |HostPort { host, port }: &HostPort| SocketAddress {
            host: match host.as_deref() {
                None => String::new(),
                Some("*") => "::".to_owned(),
                Some(host) => host.to_owned(),
            },
            port: u32::from(*port),
        };
        let address = match self {
            Self::Tcp(tcp) => tunnel_address::Address::Tcp(socket(tcp)),
            Self::Udp(udp) => tunnel_address::Address::Udp(socket(udp)),
            Self::Unix(path) => tunnel_address::Address::Unix(path.clone()),
        };
        TunnelAddress {
            address: Some(address),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Udp(address) if address.host.is_none() => write!(f, "UDP {address}"),
            Self::Udp(address) => write!(f, "udp:{address}"),
            Self::Unix(path) => f.write_str(path),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port;
        match self.host.as_deref() {
            None => write!(f, "port {port}"),
            Some(host) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Some(host) => write!(f, "{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Endpoint {
        let host = (!host.is_empty()).then(|| host.to_owned());
        Endpoint::Tcp(HostPort { host, port })
    }

    fn udp(host: &str, port: u16) -> Endpoint {
        let host = (!host.is_empty()).then(|| host.to_owned());
        Endpoint::Udp(HostPort { host, port })
    }

    fn unix(path: &str) -> Endpoint {
        Endpoint::Unix(path.to_owned())
    }

    #[test]
    fn a_forward_is_read_as_ssh_reads_it() {
        for (text, listen, target) in [
            ("8080:80", tcp("", 8080), tcp("", 80)),
            ("0:80", tcp("", 0), tcp("", 80)),
            ("8080:db:80", tcp("", 8080), tcp("db", 80)),
            ("8080:10.0.0.1:80", tcp("", 8080), tcp("10.0.0.1", 80)),
            ("8080:[::1]:80", tcp("", 8080), tcp("::1", 80)),
            ("127.0.0.1:8080:80", tcp("127.0.0.1", 8080), tcp("", 80)),
            ("localhost:8080:80", tcp("localhost", 8080), tcp("", 80)),
            ("*:8080:db:80", tcp("*", 8080), tcp("db", 80)),
            ("[::1]:8080:[::2]:80", tcp("::1", 8080), tcp("::2", 80)),
            (
                "127.0.0.1:8080:localhost:80",
                tcp("127.0.0.1", 8080),
                tcp("localhost", 80),
            ),
            ("8080:/run/x.sock", tcp("", 8080), unix("/run/x.sock")),
            ("h:1:/run/x.sock", tcp("h", 1), unix("/run/x.sock")),
            (
                "./l.sock:/run/g.sock",
                unix("./l.sock"),
                unix("/run/g.sock"),
            ),
            ("./l.sock:80", unix("./l.sock"), tcp("", 80)),
            ("/l.sock:db:80", unix("/l.sock"), tcp("db", 80)),
            ("@l:@g", unix("@l"), unix("@g")),
            ("tcp:1:2", tcp("", 1), tcp("", 2)),
            ("udp:5353:53", udp("", 5353), udp("", 53)),
            ("udp:*:5353:ns:53", udp("*", 5353), udp("ns", 53)),
        ] {
            let read: Forward = text.parse().unwrap();
            assert_eq!(read, Forward { listen, target }, "{text}");
        }
    }

    #[test]
    fn what_is_no_forward_is_refused_with_the_reason() {
        for (text, words) in [
            ("", "where to listen and where to connect"),
            ("8080", "where to listen and where to connect"),
            ("db:80", "where to listen and where to connect"),
            ("/run/x.sock", "where to listen and where to connect"),
            ("8080:", "\"\" is not a port"),
            ("8080:0", "1 to 65535"),
            ("65536:80", "0 to 65535"),
            ("8080:65536", "1 to 65535"),
            ("8080:db", "\"db\" is not a port"),
            ("8080:db:http", "\"http\" is not a port"),
            ("8080:+80", "\"+80\" is not a port"),
            (":8080:80", "the host is empty"),
            ("8080::80", "the host is empty"),
            ("8080:*:80", "every address"),
            ("1:a:2:3", "too many parts for where to connect"),
            ("::1:8080:80", "the host is empty"),
            ("[::1:8080:80", "none closes it"),
            ("[db]:8080:80", "only an IPv6 address"),
            ("[::1]8080:80", "behind a bracket stands a colon"),
            ("8080:[::1]", "name a port"),
            ("8080:/run/x.sock:80", "nothing belongs to a path"),
            ("8080:a b:80", "no spaces"),
            ("8080:@", "behind @"),
            ("udp:53:/run/x.sock", "no paths"),
            ("udp:53", "where to listen and where to connect"),
        ] {
            let error = text.parse::<Forward>().unwrap_err();
            assert!(error.contains(words), "{error} does not say {words}");
            assert!(error.contains("8080:80"), "{error}");
        }
    }

    #[test]
    fn a_target_is_a_port_or_more() {
        for (text, target) in [
            ("22", tcp("", 22)),
            ("db:5432", tcp("db", 5432)),
            ("[::1]:22", tcp("::1", 22)),
            ("/run/x.sock", unix("/run/x.sock")),
            ("@x", unix("@x")),
        ] {
            assert_eq!(text.parse(), Ok(Target(target)), "{text}");
        }
        for text in ["", "0", "ssh", ":22", "a:b:22", "*:22", "[::1]", "65536"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_end_is_shown_as_it_is_written() {
        for (endpoint, text) in [
            (tcp("", 80), "port 80"),
            (udp("", 53), "UDP port 53"),
            (tcp("::1", 80), "[::1]:80"),
            (udp("ns", 53), "udp:ns:53"),
            (unix("./x"), "./x"),
        ] {
            assert_eq!(endpoint.to_string(), text);
        }
    }
}
