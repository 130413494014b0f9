//! Why a URI can't be used.

use std::path::PathBuf;

use super::limits::{MAX_PARAMETERS, MAX_URI};

/// Why a URI can't be used. The text says what is wrong and what would be right.
///
/// It never repeats what stands before an `@`, which may be a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is too long.
    #[error("the URI has {0} bytes, and at most {MAX_URI} are read")]
    TooLong(usize),
    /// It holds a space or a control character.
    #[error(
        "the URI holds the character {character:?} at byte {at}; write it in percent-encoding, like %20 for a space"
    )]
    Character {
        /// The character.
        character: char,
        /// Where it stands.
        at: usize,
    },
    /// It has no scheme.
    #[error("`{0}` is no URI, for no driver stands before a `:`; one looks like qemu:///system")]
    NoScheme(String),
    /// Its scheme holds what no scheme may.
    #[error("`{0}` is no driver; it begins with a letter, and letters, digits, `-` and `.` follow")]
    Driver(String),
    /// It lacks the two slashes before the host.
    #[error("`//` is missing after `{scheme}:`; write {scheme}:///{path}")]
    NoAuthority {
        /// What stands before the `:`.
        scheme: String,
        /// The path that is likely meant.
        path: String,
    },
    /// Nobody knows its transport.
    #[error("`{0}` is no transport; known are unix, tcp, tls, ssh, libssh, libssh2 and ext")]
    Transport(String),
    /// A Unix socket on another host.
    #[error(
        "a Unix socket is on this host, so {driver}+unix takes no host, and `{host}` is one; \
         write {driver}+unix:///…, or {driver}+ssh://{host}/… to reach a socket there"
    )]
    UnixWithHost {
        /// The driver.
        driver: String,
        /// The host.
        host: String,
    },
    /// Its host holds what no host may.
    #[error(
        "`{0}` is no host: a name of letters, digits, `-`, `.`, `_`, `~` and `+` that does not begin with `-`, \
         an IPv4 address, or an IPv6 address in brackets"
    )]
    Host(String),
    /// A user or a port without a host.
    #[error("the URI has {0}, but no host; write it as //user@host:port/")]
    NoHost(&'static str),
    /// It holds a password.
    #[error(
        "the URI holds a password before the `@`, where logs and process lists show it; \
         leave `:` and password out and put it into auth.conf"
    )]
    Password,
    /// Its port is none.
    #[error(
        "`{0}` is no port; it is a number from 1 to 65535, or is left out together with its `:`"
    )]
    Port(String),
    /// A percent-encoding that is none.
    #[error(
        "the {part} of the URI holds a `%` that no two hexadecimal digits follow; write %25 for the `%` itself"
    )]
    Percent {
        /// Where.
        part: &'static str,
    },
    /// A percent-encoding of something that is not text.
    #[error("the {part} of the URI is not UTF-8 text, or holds a NUL, once its %xx are decoded")]
    Text {
        /// Where.
        part: &'static str,
    },
    /// It has a fragment.
    #[error("a `#` has no meaning in a URI of libvirt's; write %23 if it belongs to a value")]
    Fragment,
    /// It has too many parameters.
    #[error("the URI has more than {MAX_PARAMETERS} parameters")]
    TooManyParameters,
    /// A parameter stands there twice.
    #[error("the parameter `{0}` is given twice; leave one of them out")]
    Twice(String),
    /// A parameter has a value that it can't have.
    #[error("the parameter {name}={value} is not understood; {expected}")]
    Parameter {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// The file with the default and the aliases can't be used.
    #[error("can't use {path}{}: {why}", .line.map(|line| format!(", line {line}")).unwrap_or_default())]
    Configuration {
        /// The file.
        path: PathBuf,
        /// The line, if that is known.
        line: Option<usize>,
        /// What is wrong.
        why: String,
    },
}
