//! A client of a server.

use std::time::{Duration, SystemTime};

use super::Daemon;
use crate::code::Code;
use crate::error::Error;
use crate::object::calls;
use crate::params::{Params, Value};
use crate::raw::admin::{Admin, NonnullClient};
use crate::raw::api::ClientTransport;

/// A client of a server.
#[derive(Debug, Clone)]
pub struct Client {
    daemon: Daemon,
    raw: NonnullClient,
}

/// Who a client is, as far as the daemon knows.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientInfo {
    /// Whether it may only read.
    pub read_only: bool,
    /// Its address and port, over TCP and TLS.
    pub address: Option<String>,
    /// The process, over a Unix socket.
    pub process: Option<UnixProcess>,
    /// Its name for SASL.
    pub sasl_user: Option<String>,
    /// The distinguished name in its certificate.
    pub x509_name: Option<String>,
    /// Its SELinux context.
    pub selinux_context: Option<String>,
    /// All of this as the daemon says it, and whatever a later one says beside it.
    pub params: Params,
}

/// A process on the daemon's host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixProcess {
    /// Its number.
    pub id: u32,
    /// The number of its user.
    pub user_id: u32,
    /// The name of its user.
    pub user: String,
    /// The number of its group.
    pub group_id: u32,
    /// The name of its group.
    pub group: String,
}

// === impl Client ===

impl Client {
    pub(super) fn new(daemon: &Daemon, raw: NonnullClient) -> Self {
        Self {
            daemon: daemon.clone(),
            raw,
        }
    }

    /// Its number, which no other client of the server gets.
    pub fn id(&self) -> u64 {
        self.raw.id
    }

    /// When it connected, by the daemon's clock.
    pub fn connected_at(&self) -> SystemTime {
        let seconds = u64::try_from(self.raw.timestamp).unwrap_or(0);
        // A time beyond what a clock can show is no time.
        SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_secs(seconds))
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// How it is connected.
    pub fn transport(&self) -> Code<ClientTransport> {
        Code::new(self.raw.transport.cast_signed())
    }

    /// The name of the server whose client it is.
    pub fn server(&self) -> &str {
        &self.raw.srv.name
    }

    // For the macro `calls`.
    fn remote(&self) -> Result<Admin, Error> {
        Ok(self.daemon.raw())
    }
}

calls!(Client in admin [clnt] {
    /// Who it is.
    info() -> ClientInfo = client_get_info(ClientGetInfoArgs { flags: 0 })
        |found| ClientInfo::read(found.params.into());
    /// Closes its connection.
    close() = client_close(ClientCloseArgs { flags: 0 });
});

impl PartialEq for Client {
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}

// === impl ClientInfo ===

impl ClientInfo {
    fn read(params: Params) -> Self {
        let text = |name| params.text(name).map(ToOwned::to_owned);
        Self {
            read_only: matches!(params.get("readonly"), Some(Value::Boolean(true))),
            address: text("sock_addr"),
            process: UnixProcess::read(&params),
            sasl_user: text("sasl_user_name"),
            x509_name: text("x509_dname"),
            selinux_context: text("selinux_context"),
            params,
        }
    }
}

// === impl UnixProcess ===

impl UnixProcess {
    fn read(params: &Params) -> Option<Self> {
        // libvirt sends these as numbers with a sign, which users and groups do not have.
        let number = |name| match params.get(name)? {
            Value::Int(number) => Some(number.cast_unsigned()),
            _ => None,
        };
        let text = |name| params.text(name).map(ToOwned::to_owned);
        Some(Self {
            id: number("unix_process_id")?,
            user_id: number("unix_user_id")?,
            user: text("unix_user_name")?,
            group_id: number("unix_group_id")?,
            group: text("unix_group_name")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_what_its_transport_lets_the_daemon_know() {
        let unix = Params::new()
            .with("readonly", true)
            .with("unix_user_id", -2)
            .with("unix_user_name", "nobody")
            .with("unix_group_id", 7)
            .with("unix_group_name", "seven")
            .with("unix_process_id", 4711);
        let info = ClientInfo::read(unix);
        let process = info.process.unwrap();
        assert!(info.read_only && info.address.is_none());
        assert_eq!((process.id, process.user_id), (4711, u32::MAX - 1));
        let tcp = Params::new()
            .with("readonly", false)
            .with("sock_addr", "127.0.0.1:5")
            .with("sasl_user_name", "tester")
            .with("later", "news");
        let info = ClientInfo::read(tcp);
        assert_eq!((info.read_only, info.process), (false, None));
        assert_eq!(info.address.as_deref(), Some("127.0.0.1:5"));
        assert_eq!(info.sasl_user.as_deref(), Some("tester"));
        assert_eq!(info.params.text("later"), Some("news"));
    }
}
