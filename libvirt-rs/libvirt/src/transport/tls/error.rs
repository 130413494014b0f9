//! Why TLS failed, one sentence for each way.

use std::{path::PathBuf, time::Duration};

/// Why TLS failed. The text says what, with which file or host, and what to do.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no certificate of an authority.
    #[error(
        "TLS needs the certificate of the authority that has signed the server's, and there is no {}; \
         put it there, name its directory with pkipath=, or do without TLS over ssh", either(.looked))]
    NoAuthority {
        /// Where it was looked for.
        looked: Vec<PathBuf>,
    },
    /// A file can't be used.
    #[error("can't use {path} for TLS: {why}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not, and what to do.
        why: String,
    },
    /// The URI has a `tls_priority`.
    #[error(
        "tls_priority={0} is in the language of GnuTLS, which this client does not speak; leave it out: \
         TLS 1.3 and 1.2 are offered, with nothing weak among their ciphers"
    )]
    Priority(String),
    /// The host can't stand in a certificate.
    #[error(
        "`{0}` is a name that no certificate can hold; name the host by a DNS name or an address"
    )]
    Name(String),
    /// The server's certificate is of an authority that is not trusted.
    #[error(
        "the certificate of {host} is not signed by an authority in {authority}; \
         put the certificate of the one that has signed it there, or name its directory with pkipath="
    )]
    UnknownAuthority {
        /// The host.
        host: String,
        /// The file with the trusted authorities.
        authority: PathBuf,
    },
    /// The server's certificate is for other hosts.
    #[error(
        "the certificate of the server is not for {host}, but for {}; \
         use such a name in the URI, or make a certificate with {host} as subjectAltName", .names.join(", "))]
    WrongName {
        /// The host, as the URI has it.
        host: String,
        /// What the certificate is for.
        names: Vec<String>,
    },
    /// The server's certificate is for no host.
    #[error(
        "the certificate of {host} names no host as subjectAltName, and a common name (CN) does not count as one \
         (RFC 9525); make one with `dns_name` or `ip_address` in certtool's template"
    )]
    NoName {
        /// The host.
        host: String,
    },
    /// The server's certificate is not valid any more.
    #[error(
        "the certificate of {host} has expired{}; make a new one on the server, or correct this host's clock",
        ago(.since))]
    Expired {
        /// The host.
        host: String,
        /// Since when.
        since: Option<Duration>,
    },
    /// The server's certificate is not valid yet.
    #[error(
        "the certificate of {host} is not valid yet; correct the clock of this host or of the one that made it"
    )]
    NotValidYet {
        /// The host.
        host: String,
    },
    /// The server's certificate was revoked, or that of an authority between it and the trusted one.
    #[error(
        "the certificate of {host}, or of an authority that vouches for it, is revoked by {list}; make a new one on the \
         server"
    )]
    Revoked {
        /// The host.
        host: String,
        /// The file that says so.
        list: PathBuf,
    },
    /// Something else is wrong with the server's certificate.
    #[error("the certificate of {host} can't be used: {why}; make a new one on the server")]
    Certificate {
        /// The host.
        host: String,
        /// What is wrong.
        why: String,
    },
    /// The server wants a certificate of this client.
    #[error(
        "{host} wants a certificate of this client, and none was presented: {why}; put certificate and key there, \
         signed by the authority that the server trusts"
    )]
    NoClientCertificate {
        /// The host.
        host: String,
        /// Why none was.
        why: String,
    },
    /// The server does not take this client's certificate.
    #[error(
        "{host} does not accept this client's certificate {certificate}{said}: it may have expired, be signed by an \
         authority that the server does not trust, or not be in its tls_allowed_dn_list; the server's log says which"
    )]
    Refused {
        /// The host.
        host: String,
        /// The file with the certificate.
        certificate: PathBuf,
        /// What the server said, in brackets, if anything.
        said: String,
    },
    /// The server said something else than that it accepts this client.
    #[error(
        "{host} answered the TLS handshake with byte {byte:#04x} where libvirt says 0x01; is it a libvirt daemon?"
    )]
    Verdict {
        /// The host.
        host: String,
        /// What it said.
        byte: u8,
    },
    /// The handshake failed.
    #[error(
        "the TLS handshake with {host} failed: {why}; check that the port is the daemon's for TLS, commonly 16514"
    )]
    Handshake {
        /// The host.
        host: String,
        /// Why.
        why: String,
    },
}

fn either(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(" nor ")
}

fn ago(since: &Option<Duration>) -> String {
    let Some(since) = since else {
        return String::new();
    };
    match since.as_secs() / 3600 {
        0 => " within the last hour".to_owned(),
        hours @ 1..48 => format!(" {hours} hours ago"),
        hours => format!(" {} days ago", hours / 24),
    }
}
