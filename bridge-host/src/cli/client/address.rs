//! Where a bridge is.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use bridge_host::config::DEFAULT_LISTEN;
use serde::{Deserialize, Deserializer};
use vbridge_settings::checked;

use super::super::proof::host_of;

/// Where libvirt has the sockets of guests' channels, on every distribution.
const CHANNELS: &str = "/libvirt/qemu/channel/";

/// Where a bridge is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BridgeAddress {
    Tcp(String),
    /// With TLS.
    Https(String),
    Unix(PathBuf),
}

// === impl BridgeAddress ===

impl BridgeAddress {
    /// The bridge's socket. A guest's channel is none: whoever connected there would take it away from the bridge.
    pub(super) fn socket(path: &str) -> Result<Self, String> {
        let shown = path.escape_debug();
        if !Path::new(path).is_absolute() {
            return Err(format!(
                "\"{shown}\" is not an absolute path; write the one of the bridge's socket, like /run/vbridge/vbridge.sock"
            ));
        }
        if path.contains(CHANNELS) {
            return Err(format!(
                "{shown} is a guest's channel, which takes one client at a time, and the bridge holds it; write the bridge's own socket here, like /run/vbridge/vbridge.sock, and the guest's name after the command"
            ));
        }
        Ok(Self::Unix(path.into()))
    }

    /// Whether nobody but the bridge's machine sees what is sent there.
    pub(super) fn keeps_secrets(&self) -> bool {
        let Self::Tcp(authority) = self else {
            return true;
        };
        let host = host_of(authority);
        let is_loopback = |host: &str| host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        host == "localhost" || is_loopback(host)
    }
}

impl FromStr for BridgeAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || {
            format!(
                "\"{}\" is not a bridge's address; write HOST:PORT like {DEFAULT_LISTEN}, https://HOST:PORT, or unix:PATH",
                text.escape_debug()
            )
        };
        if let Some(rest) = text.strip_prefix("https://") {
            return match rest.trim_end_matches('/').parse()? {
                Self::Tcp(authority) => Ok(Self::Https(authority)),
                _ => Err(error()),
            };
        }
        match text.strip_prefix("unix:") {
            Some("") => Err(error()),
            // On the command line a path from here on is as good.
            Some(path) if !path.contains(CHANNELS) => Ok(Self::Unix(path.into())),
            Some(path) => Self::socket(path),
            None => {
                let is_authority = text.parse::<http::uri::Authority>().is_ok_and(|authority| {
                    !authority.host().is_empty()
                        && authority.port_u16().is_some_and(|port| port != 0)
                        && !text.contains('@')
                });
                is_authority
                    .then(|| Self::Tcp(text.to_owned()))
                    .ok_or_else(error)
            }
        }
    }
}

impl<'de> Deserialize<'de> for BridgeAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        checked(deserializer, str::parse)
    }
}

impl fmt::Display for BridgeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => f.write_str(authority),
            Self::Https(authority) => write!(f, "https://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_sent_where_nobody_reads_along() {
        for (text, keeps) in [
            ("127.0.0.1:7411", true),
            ("[::1]:7411", true),
            ("localhost:7411", true),
            ("unix:/run/vbridge.sock", true),
            ("https://hv1.example:7411", true),
            ("hv1.example:7411", false),
            ("192.0.2.1:7411", false),
        ] {
            let address: BridgeAddress = text.parse().unwrap();
            assert_eq!(address.keeps_secrets(), keeps, "{text}");
        }
    }

    #[test]
    fn a_bridge_is_a_host_with_a_port_or_a_socket() {
        for text in [
            "127.0.0.1:7411",
            "[::1]:7411",
            "localhost:80",
            "https://hv1.example:7411",
            "unix:/run/vbridge.sock",
            "unix:vbridge.sock",
        ] {
            assert_eq!(text.parse::<BridgeAddress>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "7411",
            ":7411",
            "localhost",
            "localhost:0",
            "http://a:1",
            "https://a",
            "https://unix:/x",
            "a:99999",
            "a@b:1",
            "unix:",
        ] {
            let error = text.parse::<BridgeAddress>().unwrap_err();
            assert!(error.contains("unix:PATH"), "{error}");
        }
    }

    #[test]
    fn a_guests_channel_is_no_bridge_and_it_is_said_what_to_write() {
        let channel =
            "/var/lib/libvirt/qemu/channel/target/domain-26-UCypher-newtest1/test.vserial.0";
        let of_option = format!("unix:{channel}").parse::<BridgeAddress>();
        for error in [of_option, BridgeAddress::socket(channel)] {
            let error = error.unwrap_err();
            for words in [channel, "the bridge holds it", "/run/vbridge/vbridge.sock"] {
                assert!(error.contains(words), "{error}");
            }
        }
        assert!(BridgeAddress::socket("bridge.sock").is_err());
    }
}
