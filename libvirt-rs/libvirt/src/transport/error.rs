//! Why no transport to the daemon came about.

use std::{fmt, io, path::PathBuf, time::Duration};

use super::tls;

/// Why no transport to the daemon came about. The text says what failed, on what, why, and what to do.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No daemon has its socket where it is looked for.
    #[error("no libvirt daemon is running here: there is no {}; {remedy}", list(.tried))]
    NoSocket {
        /// Where it was looked for.
        tried: Vec<PathBuf>,
        /// What to start.
        remedy: String,
    },
    /// A socket is there, but does not take the connection.
    #[error("can't connect to {path}: {why}")]
    Unix {
        /// The socket.
        path: PathBuf,
        /// The kind of failure.
        kind: io::ErrorKind,
        /// Why, and what to do.
        why: String,
    },
    /// A host has no address.
    #[error(
        "can't find an address of {host}: {why}; check the name, or write the address into the URI"
    )]
    Resolve {
        /// The host.
        host: String,
        /// Why not.
        why: String,
    },
    /// A host does not take the connection.
    #[error("can't connect to {host}, port {port}: {why}; {remedy}")]
    Tcp {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// The kind of failure, of the address that failed last.
        kind: io::ErrorKind,
        /// What each address said.
        why: String,
        /// What to look at.
        remedy: &'static str,
    },
    /// TLS failed.
    #[error("{0}")]
    Tls(Box<tls::Error>),
    /// A program can't be started.
    #[error("can't start {program}: {why}; install it, or name another with command= in the URI")]
    Start {
        /// The program.
        program: String,
        /// Why not.
        why: String,
    },
    /// A program has ended before the daemon said anything.
    #[error(transparent)]
    Ended(Ended),
    /// The URI asks for what its transport can't do.
    #[error("{what} {why}; {remedy}")]
    Unsupported {
        /// What it asks for.
        what: String,
        /// Why that can't be.
        why: &'static str,
        /// What to write instead.
        remedy: String,
    },
    /// It took too long.
    #[error(
        "gave up after {limit:?} while {doing} {peer}; check that it is reachable, or allow more time"
    )]
    Timeout {
        /// What was under way.
        doing: &'static str,
        /// With whom.
        peer: String,
        /// The time that all of it was given.
        limit: Duration,
    },
}

impl From<tls::Error> for Error {
    fn from(error: tls::Error) -> Self {
        Self::Tls(Box::new(error))
    }
}

/// A program such as ssh has ended before the daemon behind it said anything.
///
/// The stream gives it as the inner error of the [`io::Error`] that ends it, for a program that starts well may still
/// fail later:
///
/// ```
/// fn why(error: &std::io::Error) -> Option<&libvirt::transport::Ended> {
///     error.get_ref()?.downcast_ref()
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ended {
    /// The program and where it was to connect, like `ssh to host`.
    pub program: String,
    /// How it ended, like `exit status: 255`, if that came to be known.
    pub status: Option<String>,
    /// The last of what it wrote to its standard error.
    pub complaint: String,
}

impl std::error::Error for Ended {}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ended before the daemon answered", self.program)?;
        if let Some(status) = &self.status {
            write!(f, " ({status})")?;
        }
        if self.complaint.is_empty() {
            return f.write_str(" and did not say why; run it by hand to see");
        }
        // One sentence on one line, whatever the program writes.
        let lines = self.complaint.lines().map(str::trim);
        let said: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
        write!(f, " and said: {}", said.join("; "))
    }
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(" and no ")
}
