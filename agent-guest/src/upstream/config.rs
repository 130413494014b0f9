//! What an embedder or the configuration says of an upstream.

use std::{fmt, net::SocketAddr, path::PathBuf};

use crate::limits::{MAX_SOCKET_PATH, MAX_UPSTREAM_NAME, MAX_UPSTREAM_SERVICES};

/// A gRPC server in the guest, on a socket that only the guest reaches, to which calls of some services are passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    name: String,
    services: Vec<Pattern>,
    address: Address,
}

/// Why something is no upstream.
#[derive(Debug, thiserror::Error)]
#[error("upstream {}: {message}", .name.escape_debug())]
pub struct UpstreamError {
    name: String,
    message: String,
}

/// Which services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// This one.
    Service(String),
    /// All whose names begin so; it ends with a dot.
    Prefix(String),
}

/// Where an upstream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

// === impl Upstream ===

impl Upstream {
    /// A server of these services: `package.Service`, or `package.*` for all whose names begin with `package.`. The address
    /// is `unix:PATH`, or an IP address of the loopback interface and a port (`127.0.0.1:50051`).
    ///
    /// # Errors
    /// One of these is no such thing; the message says which.
    pub fn new(
        name: impl Into<String>,
        services: impl IntoIterator<Item = impl AsRef<str>>,
        address: &str,
    ) -> Result<Self, UpstreamError> {
        let name = name.into();
        let error = |message| UpstreamError {
            name: name.chars().take(MAX_UPSTREAM_NAME).collect(),
            message,
        };
        check_name(&name).map_err(error)?;
        let services = services.into_iter().take(MAX_UPSTREAM_SERVICES + 1);
        let services: Vec<_> = services
            .map(|service| Pattern::parse(service.as_ref()))
            .collect::<Result<_, _>>()
            .map_err(error)?;
        if services.is_empty() {
            return Err(error("names no service".to_owned()));
        }
        if services.len() > MAX_UPSTREAM_SERVICES {
            let message = format!("has more than {MAX_UPSTREAM_SERVICES} services: use package.*");
            return Err(error(message));
        }
        Ok(Self {
            address: Address::parse(address).map_err(error)?,
            services,
            name,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its services, as they were given.
    pub fn services(&self) -> impl Iterator<Item = String> {
        self.services.iter().map(Pattern::to_string)
    }

    /// Its address, as it was given.
    pub fn address(&self) -> impl fmt::Display {
        &self.address
    }

    pub(super) fn place(&self) -> &Address {
        &self.address
    }

    pub(crate) fn patterns(&self) -> &[Pattern] {
        &self.services
    }

    /// How much of a service's name one of its patterns has; the most decides between upstreams.
    pub(super) fn matches(&self, service: &str) -> Option<usize> {
        let matching = self
            .services
            .iter()
            .filter(|pattern| pattern.matches(service));
        matching.map(Pattern::weight).max()
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let is_plain = |it: char| it.is_ascii_alphanumeric() || "._-".contains(it);
    match name {
        "" => Err("a name must not be empty".to_owned()),
        name if name.len() > MAX_UPSTREAM_NAME || !name.chars().all(is_plain) => Err(format!(
            "a name has at most {MAX_UPSTREAM_NAME} letters, digits, dots, dashes and underscores"
        )),
        _ => Ok(()),
    }
}

// === impl Pattern ===

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        let (name, is_prefix) = match text.strip_suffix(".*") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let is_word = |word: &str| {
            let mut all = word.bytes();
            all.next()
                .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
                && all.all(|it| it.is_ascii_alphanumeric() || it == b'_')
        };
        if !name.split('.').all(is_word) {
            return Err(format!(
                "{text:?} is no service: write package.Service, or package.* for all of a package"
            ));
        }
        Ok(match is_prefix {
            true => Self::Prefix(format!("{name}.")),
            false => Self::Service(name.to_owned()),
        })
    }

    pub(crate) fn matches(&self, service: &str) -> bool {
        match self {
            Self::Service(name) => name == service,
            Self::Prefix(prefix) => service.starts_with(prefix.as_str()),
        }
    }

    fn weight(&self) -> usize {
        match self {
            // One that is named goes before one that begins so.
            Self::Service(_) => usize::MAX,
            Self::Prefix(prefix) => prefix.len(),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => f.write_str(name),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

// === impl Address ===

impl Address {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.starts_with('/') && path.len() <= MAX_SOCKET_PATH {
                true => Ok(Self::Unix(path.into())),
                false => Err(format!(
                    "{text:?} must have an absolute path of at most {MAX_SOCKET_PATH} bytes"
                )),
            };
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => Ok(Self::Tcp(address)),
            Ok(_) => Err(format!(
                "{text:?} is not the guest's own: an upstream is on 127.0.0.1 or [::1]"
            )),
            Err(_) => Err(format!(
                "{text:?} is no address: write unix:PATH, 127.0.0.1:PORT or [::1]:PORT"
            )),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_exact_pattern_decides() {
        let upstream = Upstream::new("a", ["org.example.*", "org.other.One"], "[::1]:1").unwrap();
        assert_eq!(
            upstream.matches("org.example.sub.Service"),
            Some("org.example.".len())
        );
        assert_eq!(upstream.matches("org.other.One"), Some(usize::MAX));
        for other in ["org.example", "org.examples.X", "org.other.OneMore", ""] {
            assert_eq!(upstream.matches(other), None, "{other}");
        }
        let texts: Vec<_> = upstream.services().collect();
        assert_eq!(texts, ["org.example.*", "org.other.One"]);
        assert_eq!(upstream.address().to_string(), "[::1]:1");
    }

    #[test]
    fn what_is_no_upstream_is_told_in_a_sentence() {
        for (name, service, address, words) in [
            ("", "a.B", "unix:/x", "must not be empty"),
            ("a b", "a.B", "unix:/x", "letters, digits"),
            ("a", "*", "unix:/x", "package.*"),
            ("a", "a..B", "unix:/x", "package.Service"),
            ("a", "a.B/C", "unix:/x", "package.Service"),
            ("a", "a.B", "unix:x", "absolute"),
            ("a", "a.B", "10.0.0.1:5", "127.0.0.1"),
            ("a", "a.B", "localhost:5", "127.0.0.1:PORT"),
        ] {
            let error = Upstream::new(name, [service], address)
                .unwrap_err()
                .to_string();
            assert!(
                error.starts_with("upstream ") && error.contains(words),
                "{error}"
            );
        }
        let none: [&str; 0] = [];
        assert!(Upstream::new("a", none, "unix:/x").is_err());
    }
}
