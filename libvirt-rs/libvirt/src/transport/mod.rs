//! Transports: how bytes reach the daemon that a URI names.
//!
//! ```text
//!             ┌ unix ──────── socket of this host
//!             ├ tcp ───────── socket of a host, in the clear
//!  connect ───┤ tls ───────── the same within TLS
//!             ├ ssh ───────── child process `ssh` ─── virt-ssh-helper or nc ─── socket of a host
//!             └ ext ───────── child process of the user's
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | `unix`, `admin` | choose the socket of this host |
//! | `tcp` | finds the host's addresses, and one of them that answers |
//! | [`tls`] | certificates, the handshake, and one sentence for each way in which it fails |
//! | `ssh`, `shell` | what `ssh` is told, and what the far shell is told |
//! | `process` | a child process as a stream |
//! | [`limits`] | how long and how much |

mod admin;
mod deadline;
mod error;
mod io;
pub mod limits;
mod process;
mod shell;
mod ssh;
mod tcp;
#[cfg(test)]
mod tests;
pub mod tls;
mod unix;

use std::time::Duration;

use deadline::Deadline;
pub use error::{Ended, Error};
pub use io::Io;
pub use process::ProcessStream;
use tokio::net::UnixStream;

use crate::{
    Environment, files,
    uri::{self, Uri},
};

/// How to connect.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Time that the whole of connecting may take. [`limits::CONNECT`] by default.
    pub timeout: Duration,
    /// The process around the library. This process's own by default.
    pub environment: Environment,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            timeout: limits::CONNECT,
            environment: Environment::of_process(),
        }
    }
}

/// What carries the bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A socket of this host.
    Unix,
    /// TCP without encryption.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// ssh.
    Ssh,
    /// A program of the user's (`ext`).
    Command,
}

/// What a transport keeps from others.
///
/// | transport | encrypted | verified |
/// |---|---|---|
/// | Unix socket | yes | yes |
/// | TCP | no | no |
/// | TLS | yes | by its certificate, unless the URI says `no_verify` |
/// | ssh | yes | by its key, unless the URI says `no_verify` or `known_hosts_verify=` `ignore` or `auto` |
/// | `ext` | no | no |
///
/// A Unix socket does not leave the host, and only who may write to its folder can listen there. With `auto` ssh takes a
/// key that is new, and does not tell that it was; what else its own configuration allows is the user's wish. Of a program
/// of the user's (`ext`) nothing is known; but what `command=` puts in ssh's place is given ssh's arguments, and counts as
/// ssh.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Protection {
    /// Whether nobody who listens on the way can read what passes.
    pub encrypted: bool,
    /// Whether the other end is known to be the one that the URI names. If not, it may be somebody else on the way, who
    /// reads and changes all that passes, encrypted or not.
    pub verified: bool,
}

impl Protection {
    /// What the URI's transport gives.
    fn of(uri: &Uri) -> Self {
        let settings = uri.settings();
        let (encrypted, verified) = match uri.transport() {
            uri::Transport::Unix => (true, true),
            uri::Transport::Tls => (true, !settings.no_verify),
            uri::Transport::Ssh | uri::Transport::LibSsh | uri::Transport::LibSsh2 => {
                let asks = settings.known_hosts_verify == uri::KnownHosts::Normal;
                (true, asks && !settings.no_verify)
            }
            uri::Transport::Tcp | uri::Transport::Ext => (false, false),
        };
        Self {
            encrypted,
            verified,
        }
    }

    /// Whether nobody but the daemon can read or change what passes: then a password may be sent.
    #[must_use]
    pub fn is_private(self) -> bool {
        self.encrypted && self.verified
    }
}

/// A transport that stands.
#[derive(Debug)]
#[non_exhaustive]
pub struct Connected {
    /// The stream of bytes.
    pub io: Io,
    /// What it is.
    pub kind: Kind,
    /// What it keeps from others.
    pub protection: Protection,
    /// The other end, for people: the path of a socket, host and port, or program and host.
    pub peer: String,
}

impl Connected {
    fn new(uri: &Uri, io: Io, kind: Kind, peer: String) -> Self {
        let protection = Protection::of(uri);
        Self {
            io,
            kind,
            protection,
            peer,
        }
    }
}

/// Connects to the daemon that a URI names, as far as to a stream on which it can be spoken to.
///
/// `read_only` chooses the socket for readers where there is one of its own; elsewhere the daemon must be told when
/// the connection is opened.
///
/// Files named by URI and environment are read when they are needed, on a thread of the runtime's for blocking work and
/// within the timeout: a file system that has died holds nobody else up.
///
/// # Errors
/// No transport came about. With ssh and other programs more may fail later, when they are on their way, for only the
/// daemon's first word shows that they have got there: then the stream's first read or write says so, with [`Ended`]
/// inside. The time for that is the caller's to bound.
///
/// # Cancellation
/// Dropping the future ends the attempt and leaves nothing behind, neither sockets nor processes.
pub async fn connect(uri: &Uri, options: &Options, read_only: bool) -> Result<Connected, Error> {
    if uri.transport() != uri::Transport::Unix {
        local_only(uri)?;
    }
    let (kind, command) = match uri.transport() {
        uri::Transport::Unix => return to_socket(uri, options, read_only).await,
        uri::Transport::Tcp | uri::Transport::Tls => return to_host(uri, options).await,
        uri::Transport::Ssh | uri::Transport::LibSsh | uri::Transport::LibSsh2 => (
            Kind::Ssh,
            ssh::command(uri, &options.environment, read_only)?,
        ),
        uri::Transport::Ext => (Kind::Command, ssh::external(uri)?),
    };
    let peer = command.title.clone();
    let io = Io::Process(Box::new(command.start()?));
    Ok(Connected::new(uri, io, kind, peer))
}

/// Connects to the administration of a daemon of this host.
pub(crate) async fn connect_admin(uri: &Uri, options: &Options) -> Result<UnixStream, Error> {
    let path = admin::socket(uri, &options.environment)?;
    let deadline = Deadline::new(options.timeout, path.display().to_string());
    unix::connect(path, &deadline).await
}

/// A socket of this host.
async fn to_socket(uri: &Uri, options: &Options, read_only: bool) -> Result<Connected, Error> {
    let looking = Deadline::new(options.timeout, uri.to_string());
    let (of, environment) = (uri.clone(), options.environment.clone());
    let look = files::aside(move || unix::socket(&of, &environment, read_only));
    let path = looking.within("looking for the socket of", look).await??;
    let peer = path.display().to_string();
    let deadline = looking.with(peer.clone());
    let io = Io::Unix(unix::connect(path, &deadline).await?);
    Ok(Connected::new(uri, io, Kind::Unix, peer))
}

/// TCP, and TLS over it.
async fn to_host(uri: &Uri, options: &Options) -> Result<Connected, Error> {
    // Both have a port of their own, so the default is never reached.
    let (host, port) = (uri.host_or_localhost(), uri.port().unwrap_or_default());
    let peer = address(host, port);
    let deadline = Deadline::new(options.timeout, peer.clone());
    if uri.transport() == uri::Transport::Tcp {
        let io = Io::Tcp(tcp::connect(host, port, &deadline).await?);
        return Ok(Connected::new(uri, io, Kind::Tcp, peer));
    }
    // What is wrong here is told before anybody is spoken to.
    let (of, environment) = (uri.clone(), options.environment.clone());
    let read = files::aside(move || tls::Client::new(&of, &environment));
    let client = deadline
        .within("reading the certificates for", read)
        .await??;
    let stream = tcp::connect(host, port, &deadline).await?;
    let io = Io::Tls(Box::new(client.open(stream, &deadline).await?));
    Ok(Connected::new(uri, io, Kind::Tls, peer))
}

/// Refuses what only a local connection can do.
fn local_only(uri: &Uri) -> Result<(), Error> {
    if uri.settings().mode == uri::Mode::Direct {
        return Err(Error::Unsupported {
            what: "mode=direct".to_owned(),
            why: "names a socket of this host, and the transport reaches another",
            remedy: "leave mode= out, or use a local URI".to_owned(),
        });
    }
    Ok(())
}

/// Host and port as one word.
fn address(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}
