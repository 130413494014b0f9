//! Settings from the command line, the environment, the configuration file and the defaults, in this order.
//!
//! A place to serve on (`port` or `listen`) that one source names replaces the place of the sources below it, so that
//! `--listen` works on a machine whose file names a port.
//!
//! | module | what it is |
//! |---|---|
//! | [`flags`] | the command line |
//! | [`environment`] | the environment's variables |
//! | [`mod@file`], [`tables`] | the configuration file |
//! | [`layer`] | what one of these says, each value checked |
//! | [`effective`] | what they say together |
//! | [`policy`] | the file with the policy's rules |

mod effective;
mod environment;
mod file;
mod flags;
mod layer;
mod policy;
mod tables;
#[cfg(test)]
mod tests;

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use agent_guest::{Key, Rebind, Tls, TlsError, TlsFiles, Upstream, log::LogFile};
use tracing_subscriber::filter::Targets;
use vbridge_settings::{FileError, KeyFileError};

use effective::Layers;
use flags::Said;
use layer::{KEYS, Layer};
pub(crate) use policy::Source as PolicySource;

/// Read if it exists and no other file is named.
const DEFAULT_FILE: &str = "/etc/vbridge/agent.toml";

/// What the program is to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Serve.
    Run(Box<Settings>),
    /// Say something and exit.
    Print(String),
}

/// The effective configuration.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) channel: String,
    pub(crate) port: Option<PathBuf>,
    pub(crate) wait: Option<bool>,
    pub(crate) listen: Option<PathBuf>,
    pub(crate) key: Option<Key>,
    /// Certificates, and where they are read again.
    pub(crate) tls: Option<(Tls, TlsFiles)>,
    pub(crate) call_key: Option<Key>,
    pub(crate) rebind: Rebind,
    pub(crate) policy: policy::Source,
    pub(crate) log: Targets,
    pub(crate) log_file: Option<LogFile>,
    pub(crate) max_request_size: Option<usize>,
    pub(crate) request_timeout: Option<Duration>,
    pub(crate) upstreams: Vec<Upstream>,
    /// What is odd, but no reason not to run.
    pub(crate) warnings: Vec<String>,
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The command line can't be understood.
    #[error("{0} (try --help)")]
    Usage(String),
    /// A value is wrong.
    #[error("{origin}: {message}")]
    Value {
        /// Where it comes from: an option or a variable.
        origin: String,
        /// What is wrong with it.
        message: String,
    },
    /// The configuration file can't be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The key can't be used.
    #[error("can't use the key file {path}: {why}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is the matter with it.
        why: KeyFileError,
    },
    /// Certificates can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// TLS needs a certificate with its key.
    #[error("TLS needs both tls_certificate and tls_key; tls_host_ca comes in addition")]
    HalfTls,
    /// Two places from one source.
    #[error("{0} names a port and a socket to listen on: choose one")]
    TwoPlaces(Origin),
}

impl CliError {
    pub(crate) fn is_usage(&self) -> bool {
        matches!(self, Self::Usage(_))
            || matches!(self, Self::Value { origin, .. } if origin.starts_with("--"))
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    CommandLine,
    Environment,
    File,
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CommandLine => "command line",
            Self::Environment => "environment",
            Self::File => "file",
            Self::Default => "default",
        })
    }
}

/// Understands the command line and everything below it.
pub(crate) fn command(
    args: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Command, CliError> {
    command_with(args, environment, Path::new(DEFAULT_FILE))
}

fn command_with(
    args: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    default_file: &Path,
) -> Result<Command, CliError> {
    let flags = match flags::read(args)? {
        Said::Flags(flags) => *flags,
        Said::Ask(text) => return Ok(Command::Print(text)),
    };
    let environment = environment::read(environment)?;
    let config = flags.config.or(environment.config);
    let file = match &config {
        Some(path) => vbridge_settings::read(path)?,
        None => file::read_if_there(default_file)?,
    };
    let layers = Layers(vec![
        (Origin::CommandLine, flags.layer),
        (Origin::Environment, environment.layer),
        (Origin::File, file),
    ]);
    let effective = layers.effective()?;
    // Also what is only to be printed is checked as a whole.
    let description = effective.description();
    let settings = effective.settings(environment.warnings)?;
    Ok(match flags.check_config {
        true => Command::Print(description),
        false => Command::Run(Box::new(settings)),
    })
}
