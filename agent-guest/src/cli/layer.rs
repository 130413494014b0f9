//! What one source says, each value checked.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use agent_guest::{Rebind, Upstream, log::LogFile};
use tracing_subscriber::filter::Targets;
use vbridge_settings::unknown_key;

use super::policy;

/// What one source says; everything is optional.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Layer {
    pub(super) channel: Option<String>,
    pub(super) port: Option<PathBuf>,
    pub(super) wait: Option<bool>,
    pub(super) listen: Option<PathBuf>,
    pub(super) key_file: Option<PathBuf>,
    pub(super) tls_certificate: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    pub(super) tls_host_ca: Option<PathBuf>,
    pub(super) call_key_file: Option<PathBuf>,
    pub(super) rebind: Option<Rebind>,
    pub(super) policy: Option<policy::Source>,
    pub(super) log: Option<String>,
    /// From here on only a file has these.
    pub(super) upstreams: Vec<Upstream>,
    pub(super) max_request_size: Option<usize>,
    pub(super) request_timeout: Option<Duration>,
    pub(super) log_file: Option<LogFile>,
    /// What is odd in it.
    pub(super) warnings: Vec<String>,
    /// Keys that a table has set, with the name that they have there.
    from_tables: BTreeMap<&'static str, &'static str>,
}

/// The keys that every source knows.
pub(super) const KEYS: [&str; 12] = [
    "channel",
    "port",
    "wait",
    "listen",
    "key_file",
    "tls_certificate",
    "tls_key",
    "tls_host_ca",
    "call_key_file",
    "rebind",
    "policy",
    "log",
];

impl Layer {
    /// Says that a table sets this key, under a name of its own.
    pub(super) fn claim(&mut self, key: &'static str, name: &'static str) -> Result<(), String> {
        let is_set = match key {
            "port" => self.port.is_some(),
            "call_key_file" => self.call_key_file.is_some(),
            "policy" => self.policy.is_some(),
            "log" => self.log.is_some(),
            _ => false,
        };
        if is_set {
            return Err(twice(key, name));
        }
        self.from_tables.insert(key, name);
        Ok(())
    }

    /// Takes a value as text.
    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        if let Some(name) = self.from_tables.get(key) {
            return Err(twice(key, name));
        }
        match key {
            "channel" => self.channel = Some(check_channel(value)?),
            "port" => self.port = Some(check_path(value)?),
            "wait" => self.wait = Some(check_bool(value)?),
            "listen" => self.listen = Some(check_listen(value)?),
            "key_file" => self.key_file = Some(check_path(value)?),
            "tls_certificate" => self.tls_certificate = Some(check_path(value)?),
            "tls_key" => self.tls_key = Some(check_path(value)?),
            "tls_host_ca" => self.tls_host_ca = Some(check_path(value)?),
            "call_key_file" => self.call_key_file = Some(check_path(value)?),
            "rebind" => self.rebind = Some(check_rebind(value)?),
            "policy" => self.policy = Some(policy::Source::parse(value)?),
            "log" => self.log = Some(check_log(value)?),
            unknown => return Err(unknown_key(unknown, &KEYS)),
        }
        Ok(())
    }
}

/// What is said of a key that the same file has in a table as well.
fn twice(key: &str, name: &str) -> String {
    format!("`{key}` and `{name}` of this file set the same: keep one of them")
}

fn check_channel(value: &str) -> Result<String, String> {
    if value.is_empty() || value.contains('/') {
        return Err(format!(
            "{value:?} is no channel name: it must not be empty or contain a slash"
        ));
    }
    Ok(value.to_owned())
}

pub(super) fn check_path(value: &str) -> Result<PathBuf, String> {
    if value.is_empty() {
        return Err("a path must not be empty".to_owned());
    }
    Ok(value.into())
}

fn check_bool(value: &str) -> Result<bool, String> {
    match value {
        "true" | "yes" | "1" => Ok(true),
        "false" | "no" | "0" => Ok(false),
        other => Err(format!("{other:?} is neither true nor false")),
    }
}

fn check_listen(value: &str) -> Result<PathBuf, String> {
    match value.strip_prefix("unix:") {
        Some(path) if !path.is_empty() => Ok(path.into()),
        _ => Err(format!("{value:?} is not of the form unix:PATH")),
    }
}

fn check_rebind(value: &str) -> Result<Rebind, String> {
    match value {
        "alone" => Ok(Rebind::Alone),
        "always" => Ok(Rebind::Always),
        "never" => Ok(Rebind::Never),
        other => Err(format!("{other:?} is not alone, always or never")),
    }
}

fn check_log(value: &str) -> Result<String, String> {
    match value.parse::<Targets>() {
        Ok(_) => Ok(value.to_owned()),
        Err(_) => Err(format!(
            "{value:?} is no log filter: error, warn, info, debug, trace, or target=level,..."
        )),
    }
}
