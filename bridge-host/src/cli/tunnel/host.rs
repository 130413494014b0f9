//! Sockets at this end.

use std::{
    future::Future,
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream};

use super::{
    Answer, Broken, Call, Request,
    spec::{Endpoint, HostPort},
};

/// Where it is listened on if nothing else is said: for this machine alone.
const LOOPBACK: &str = "127.0.0.1";

/// Both loopback addresses, for connecting.
const LOOPBACKS: [&str; 2] = [LOOPBACK, "::1"];

/// Every address: IPv6 takes IPv4 along, where it is there.
const EVERY: [&str; 2] = ["::", "0.0.0.0"];

/// A socket that is listened on.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
    Udp(UdpSocket),
}

/// A connection.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Removes a socket's file.
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may be gone already; there is nobody left to tell.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Listens, and says where: a port 0 has become a real one.
pub(super) async fn listen(
    endpoint: &Endpoint,
) -> Result<(Listener, String, Option<SocketFile>), String> {
    let failed = |error: io::Error| format!("can't listen on {endpoint}: {}", listen_text(&error));
    match endpoint {
        Endpoint::Tcp(address) => {
            let hosts = listen_hosts(address);
            let listener = first(&hosts, |host| TcpListener::bind((host, address.port)));
            let listener = listener.await.map_err(failed)?;
            let local = listener.local_addr().map_err(failed)?.to_string();
            Ok((Listener::Tcp(listener), local, None))
        }
        Endpoint::Udp(address) => {
            let hosts = listen_hosts(address);
            let socket = first(&hosts, |host| UdpSocket::bind((host, address.port)));
            let socket = socket.await.map_err(failed)?;
            let local = format!("udp:{}", socket.local_addr().map_err(failed)?);
            Ok((Listener::Udp(socket), local, None))
        }
        Endpoint::Unix(path) => {
            let listener = UnixListener::bind(system_path(path)).map_err(failed)?;
            let file = match path.starts_with('@') {
                true => None,
                false => {
                    let file = SocketFile(path.into());
                    // Whoever may connect reaches into the guest: the owner alone.
                    restrict(Path::new(path)).map_err(failed)?;
                    Some(file)
                }
            };
            Ok((Listener::Unix(listener), path.clone(), file))
        }
    }
}

/// Connects. UDP has no connections.
pub(super) async fn connect(endpoint: &Endpoint) -> io::Result<Stream> {
    match endpoint {
        Endpoint::Tcp(HostPort { host, port }) => {
            let hosts: &[&str] = match host.as_deref() {
                None => &LOOPBACKS,
                Some(host) => &[host],
            };
            let stream = first(hosts, |host| TcpStream::connect((host, *port))).await?;
            prompt(&stream);
            Ok(Stream::Tcp(stream))
        }
        Endpoint::Unix(path) => Ok(Stream::Unix(UnixStream::connect(system_path(path)).await?)),
        Endpoint::Udp(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Tries one host after the other.
async fn first<'a, T, F: Future<Output = io::Result<T>>>(
    hosts: &[&'a str],
    attempt: impl Fn(&'a str) -> F,
) -> io::Result<T> {
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for host in hosts {
        match attempt(host).await {
            Ok(done) => return Ok(done),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn listen_hosts(address: &HostPort) -> Vec<&str> {
    match address.host.as_deref() {
        None => vec![LOOPBACK],
        Some("*") => EVERY.to_vec(),
        Some(host) => vec![host],
    }
}

/// A name without file begins with a NUL.
fn system_path(path: &str) -> PathBuf {
    match path.strip_prefix('@') {
        Some(name) => format!("\0{name}").into(),
        None => path.into(),
    }
}

fn restrict(path: &Path) -> io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}

/// Small pieces go out at once. Refused, they go out late.
fn prompt(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
}

fn listen_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "somebody listens there already (or has left a socket's file behind); choose another address, or end that program".into()
        }
        io::ErrorKind::PermissionDenied => "permission denied; choose another address".into(),
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address".into(),
        io::ErrorKind::NotFound => "the directory does not exist; create it first".into(),
        _ => error.to_string(),
    }
}

impl Listener {
    /// The next connection. There is none of UDP.
    pub(super) async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                prompt(&stream);
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(listener) => Ok(Stream::Unix(listener.accept().await?.0)),
            Self::Udp(_) => std::future::pending().await,
        }
    }
}

impl Stream {
    /// Joins it to one in the guest. What is broken off there is reset here.
    pub(super) async fn join<Q: Request, A: Answer>(self, call: Call<Q, A>) -> Result<(), Broken> {
        match self {
            Self::Tcp(mut stream) => {
                let (read, write) = stream.split();
                let ended = call.relay(read, write).await;
                if ended.is_err() {
                    // Refused, it is closed.
                    let _ = stream.set_zero_linger();
                }
                ended
            }
            Self::Unix(mut stream) => {
                let (read, write) = stream.split();
                call.relay(read, write).await
            }
        }
    }

    /// Resets it: nobody answers in the guest.
    pub(super) fn refuse(self) {
        if let Self::Tcp(stream) = &self {
            let _ = stream.set_zero_linger();
        }
    }
}
