//! A connection in the guest, and what its failure is called.

use std::{fmt, io, net::SocketAddr, os::fd::AsFd as _, sync::Arc};

use tokio::{
    net::{TcpStream, UdpSocket, UnixStream, unix},
    time::timeout,
};
use tonic::Status;

use super::{
    Aside, Tunnels,
    address::{Address, UnixPath},
};
use crate::{
    error::{self, Reason},
    files::path::by_descriptor,
    limits::TUNNEL_CONNECT_RETRY,
    policy::{self, AddressUse, Held, Site, Wanted},
};

/// A connection that stands.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Udp(UdpSocket),
    Unix(UnixStream),
}

/// A connection that could not be made.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// The name could not be looked up.
    LookUp(io::Error),
    /// Nobody answers at one of its addresses; of several it is the last.
    Tcp(SocketAddr, io::Error),
    /// Nobody answers at a path, or no socket can be made.
    Other(io::Error),
    /// This rule of the policy is against it.
    Refused(String),
}

impl Tunnels {
    /// Connects to an address, within the time that it may take.
    pub(crate) async fn connect(
        &self,
        address: &Address,
        rules: Arc<Held>,
    ) -> Result<Socket, Status> {
        let limit = self.limits.connect_timeout;
        match timeout(limit, self.reach(address, rules)).await {
            Ok(Ok(socket)) => Ok(socket),
            Ok(Err(error)) => Err(error.status(address)),
            Err(_) => Err(error::failure(
                Reason::ConnectFailed,
                format!("nobody answers at {address} in the guest within {limit:?}"),
            )),
        }
    }

    async fn reach(&self, address: &Address, rules: Arc<Held>) -> Result<Socket, ConnectError> {
        match address {
            Address::Tcp(host) => {
                let found = host.look_up(&self.aside).await;
                let found = found.map_err(ConnectError::LookUp)?;
                let wanted = |address| Wanted::Tcp(host.host(), address);
                let addresses = permitted(&rules, found, AddressUse::Connect, wanted)
                    .map_err(ConnectError::Refused)?;
                let mut failure = ConnectError::LookUp(io::ErrorKind::NotFound.into());
                for address in addresses {
                    match TcpStream::connect(address).await {
                        Ok(stream) => {
                            prompt(&stream);
                            return Ok(Socket::Tcp(stream));
                        }
                        Err(error) => failure = ConnectError::Tcp(address, error),
                    }
                }
                Err(failure)
            }
            Address::Udp(host) => {
                let found = host.look_up(&self.aside).await;
                let found = found.map_err(ConnectError::LookUp)?;
                let wanted = |address| Wanted::Udp(host.host(), address);
                let addresses = permitted(&rules, found, AddressUse::Connect, wanted)
                    .map_err(ConnectError::Refused)?;
                let mut failure = ConnectError::LookUp(io::ErrorKind::NotFound.into());
                for address in addresses {
                    match datagrams(address).await {
                        Ok(socket) => return Ok(Socket::Udp(socket)),
                        Err(error) => failure = ConnectError::Tcp(address, error),
                    }
                }
                Err(failure)
            }
            Address::Unix(path) => {
                let site = site(path, AddressUse::Connect, rules, &self.aside).await?;
                match unix(path, &site).await {
                    Ok(stream) => Ok(Socket::Unix(stream)),
                    Err(error) => Err(ConnectError::Other(error)),
                }
            }
        }
    }
}

/// Small pieces go out at once: what they wait for may be on the other side of them.
pub(crate) fn prompt(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
}

async fn datagrams(peer: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match peer {
        SocketAddr::V4(_) => ([0; 4], 0).into(),
        SocketAddr::V6(_) => ([0; 16], 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(peer).await?;
    Ok(socket)
}

/// Those of a name's addresses that the policy lets be used, or the rule that is against the last.
pub(super) fn permitted<'a>(
    rules: &Held,
    addresses: Vec<SocketAddr>,
    purpose: AddressUse,
    wanted: impl Fn(SocketAddr) -> Wanted<'a>,
) -> Result<Vec<SocketAddr>, String> {
    let (mut permitted, mut refused) = (Vec::new(), None);
    for address in addresses {
        match rules.site(wanted(address), purpose) {
            Ok(_) => permitted.push(address),
            Err(rule) => refused = Some(rule),
        }
    }
    match refused {
        Some(rule) if permitted.is_empty() => Err(rule),
        _ => Ok(permitted),
    }
}

/// Where the policy lets a Unix socket be.
pub(super) async fn site(
    path: &UnixPath,
    purpose: AddressUse,
    rules: Arc<Held>,
    aside: &Aside,
) -> Result<Site, ConnectError> {
    let found = match path.file() {
        None => rules.site(Wanted::Abstract(path.name()), purpose),
        Some(file) if !rules.knows_addresses() => rules.site(Wanted::File(&file), purpose),
        Some(file) => {
            let look = move || Ok(rules.site(Wanted::File(&file), purpose));
            aside.run(look).await.map_err(ConnectError::Other)?
        }
    };
    found.map_err(ConnectError::Refused)
}

async fn unix(path: &UnixPath, site: &Site) -> io::Result<UnixStream> {
    let path = match site {
        Site::AsWritten => path.to_system(),
        Site::At(path) => path.clone(),
        Site::Socket(socket) => by_descriptor(socket.as_fd()).into(),
    };
    loop {
        match UnixStream::connect(&path).await {
            // Its backlog is full. The time limit ends this.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(TUNNEL_CONNECT_RETRY).await;
            }
            connected => return connected,
        }
    }
}

// === impl Socket ===

impl Socket {
    /// The address at this end.
    pub(crate) fn local(&self) -> String {
        match self {
            Self::Tcp(stream) => text(stream.local_addr()),
            Self::Udp(socket) => text(socket.local_addr()),
            Self::Unix(stream) => stream
                .local_addr()
                .as_ref()
                .map(unix_text)
                .unwrap_or_default(),
        }
    }

    /// The address at the other end.
    pub(crate) fn peer(&self) -> String {
        match self {
            Self::Tcp(stream) => text(stream.peer_addr()),
            Self::Udp(socket) => text(socket.peer_addr()),
            Self::Unix(stream) => stream
                .peer_addr()
                .as_ref()
                .map(unix_text)
                .unwrap_or_default(),
        }
    }
}

/// A connection that is gone already has no address.
fn text(address: io::Result<impl fmt::Display>) -> String {
    address.map_or_else(|_| String::new(), |address| address.to_string())
}

/// A Unix socket's path, or its name with "@" in front, or nothing.
pub(crate) fn unix_text(address: &unix::SocketAddr) -> String {
    let name = address.as_abstract_name();
    match (address.as_pathname(), name) {
        (Some(path), _) => path.display().to_string(),
        (None, Some(name)) => format!("@{}", String::from_utf8_lossy(name)),
        (None, None) => String::new(),
    }
}

// === impl ConnectError ===

impl ConnectError {
    pub(super) fn status(&self, address: &Address) -> Status {
        let message = match self {
            Self::Refused(rule) => {
                return policy::refused(rule, &format!("a tunnel at {address}"));
            }
            Self::LookUp(error) => {
                format!("the guest can't look up the name in {address}: {error}")
            }
            Self::Tcp(tried, error) if tried.to_string() == address.to_string() => {
                format!("can't connect to {address} in the guest: {error}")
            }
            Self::Tcp(tried, error) => {
                format!("can't connect to {address} in the guest, which is {tried}: {error}")
            }
            Self::Other(error) => format!("can't connect to {address} in the guest: {error}"),
        };
        error::failure(self.reason(), message)
    }

    fn reason(&self) -> Reason {
        match self {
            Self::Other(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Reason::PermissionDenied
            }
            _ => Reason::ConnectFailed,
        }
    }
}
