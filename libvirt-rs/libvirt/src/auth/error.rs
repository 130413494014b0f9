//! Why a client could not authenticate.

use std::path::PathBuf;

use super::limits::{MAX_ITERATIONS, MAX_MESSAGE, MIN_ITERATIONS};

/// Why a client could not authenticate. The text says what failed, why, and what to do. No password is ever in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The daemon does not authenticate as the URI asks.
    #[error(
        "{host} does not offer what auth={asked} of the URI asks for, but {offered}: it is set up in another way, or \
         somebody else answers in its place; set auth_unix_rw, auth_tcp or auth_tls in its configuration, or leave \
         auth= out to take what it offers"
    )]
    NotOffered {
        /// The server.
        host: String,
        /// What the URI says.
        asked: String,
        /// What the server offers.
        offered: String,
    },
    /// The server offers nothing that this client knows.
    #[error(
        "{host} offers no way to authenticate that this client knows, but {offered}; \
         set `mech_list: scram-sha-256` in /etc/sasl2/libvirt.conf there, and connect by TLS, by ssh or by its Unix \
         socket, where libvirt takes a mechanism that does not encrypt by itself"
    )]
    NoMechanism {
        /// The server.
        host: String,
        /// What it offers, or `none at all`.
        offered: String,
    },
    /// The mechanism that the caller asks for is none of those that can be used.
    #[error(
        "can't authenticate with {mechanism} at {host}: {why}; offered are {offered}, so ask for one of them"
    )]
    Mechanism {
        /// The server.
        host: String,
        /// What is asked for.
        mechanism: String,
        /// What the server offers.
        offered: String,
        /// Why it can't be used.
        why: &'static str,
    },
    /// A password would have to go over a connection on which others can read it.
    #[error(
        "{host} takes the password in the clear only (PLAIN), and the connection is not encrypted as far as this client \
         knows; connect by TLS or ssh, or set `mech_list: scram-sha-256` in /etc/sasl2/libvirt.conf there"
    )]
    NotEncrypted {
        /// The server.
        host: String,
    },
    /// A password would have to go to a server that may be another than was meant.
    #[error(
        "{host} takes the password in the clear only (PLAIN), and the URI lets anybody answer in its place; \
         leave no_verify= and known_hosts_verify= out, or set `mech_list: scram-sha-256` in /etc/sasl2/libvirt.conf there"
    )]
    NotVerified {
        /// The server.
        host: String,
    },
    /// There is no user name, or no password.
    #[error(
        "{mechanism} at {host} needs a user name and a password, and there is no {missing}; give them with the \
         connection's options, or in a section [auth-{service}-{host}] of auth.conf"
    )]
    NoCredentials {
        /// The mechanism.
        mechanism: &'static str,
        /// The service, `libvirt`.
        service: String,
        /// The server.
        host: String,
        /// What is missing.
        missing: &'static str,
    },
    /// A user name or password that no mechanism can carry.
    #[error("the {0} holds a NUL character, which SASL can't carry")]
    Nul(&'static str),
    /// The server does not take the credentials.
    #[error(
        "{host} does not accept user and password ({said}); check both, and that the user is in its database"
    )]
    Rejected {
        /// The server.
        host: String,
        /// What it said.
        said: String,
    },
    /// The server did not show that it knows the password.
    #[error(
        "{host} did not prove that it knows the password of this user: somebody else may be answering in its place; \
         check the address, and connect by TLS or ssh"
    )]
    Impostor {
        /// The server.
        host: String,
    },
    /// The server asks for too little or too much hashing.
    #[error(
        "{host} asks for {asked} rounds of hashing, and from {MIN_ITERATIONS} to {MAX_ITERATIONS} are accepted; \
         set the password anew there with a sensible number"
    )]
    Iterations {
        /// The server.
        host: String,
        /// What it asks for.
        asked: u64,
    },
    /// A message of the server is too long.
    #[error("{host} sent a SASL message of {length} bytes, and at most {MAX_MESSAGE} are accepted")]
    TooLong {
        /// The server.
        host: String,
        /// How long it is.
        length: usize,
    },
    /// A message of the server's breaks the mechanism's rules.
    #[error("{host} broke the rules of {mechanism}: {why}; is it a libvirt daemon?")]
    Broken {
        /// The server.
        host: String,
        /// The mechanism.
        mechanism: &'static str,
        /// How.
        why: String,
    },
    /// auth.conf can't be used.
    #[error("can't use {path}{}: {why}", .line.map(|line| format!(", line {line}")).unwrap_or_default())]
    File {
        /// The file.
        path: PathBuf,
        /// The line, if that is known.
        line: Option<usize>,
        /// What is wrong.
        why: String,
    },
}
