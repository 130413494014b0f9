//! What the sources say together.

use std::{fmt::Write as _, path::PathBuf};

use agent_guest::{DEFAULT_CHANNEL, Rebind, Upstream};
use vbridge_settings::read_key;

use super::{CliError, Layer, Origin, Settings, policy};

/// What is logged unless told otherwise.
const DEFAULT_LOG: &str = "info";

/// The sources, the highest first.
pub(super) struct Layers(pub(super) Vec<(Origin, Layer)>);

/// What is in effect, and where it comes from.
pub(super) struct Effective {
    channel: (String, Origin),
    port: Option<(PathBuf, Origin)>,
    wait: Option<(bool, Origin)>,
    listen: Option<(PathBuf, Origin)>,
    key_file: Option<(PathBuf, Origin)>,
    call_key_file: Option<(PathBuf, Origin)>,
    rebind: Option<(Rebind, Origin)>,
    policy: Option<(policy::Source, Origin)>,
    log: (String, Origin),
    upstreams: Vec<Upstream>,
}

// === impl Layers ===

impl Layers {
    /// The values of the highest sources that have them.
    pub(super) fn effective(mut self) -> Result<Effective, CliError> {
        self.leave_one_place()?;
        let default = |value: &str| (value.to_owned(), Origin::Default);
        let channel = self.pick(|layer| layer.channel.as_ref());
        let log = self.pick(|layer| layer.log.as_ref());
        Ok(Effective {
            channel: channel.unwrap_or_else(|| default(DEFAULT_CHANNEL)),
            port: self.pick(|layer| layer.port.as_ref()),
            wait: self.pick(|layer| layer.wait.as_ref()),
            listen: self.pick(|layer| layer.listen.as_ref()),
            key_file: self.pick(|layer| layer.key_file.as_ref()),
            call_key_file: self.pick(|layer| layer.call_key_file.as_ref()),
            rebind: self.pick(|layer| layer.rebind.as_ref()),
            policy: self.pick(|layer| layer.policy.as_ref()),
            log: log.unwrap_or_else(|| default(DEFAULT_LOG)),
            upstreams: self
                .0
                .into_iter()
                .flat_map(|(_, layer)| layer.upstreams)
                .collect(),
        })
    }

    /// The place of the highest source that names one; no source may name two.
    fn leave_one_place(&mut self) -> Result<(), CliError> {
        let mut is_set = false;
        for (origin, layer) in &mut self.0 {
            if layer.port.is_some() && layer.listen.is_some() {
                return Err(CliError::TwoPlaces(*origin));
            }
            if is_set {
                layer.port = None;
                layer.listen = None;
            }
            is_set |= layer.port.is_some() || layer.listen.is_some();
        }
        Ok(())
    }

    /// The value of the highest source that has one.
    fn pick<T: Clone>(&self, value: impl Fn(&Layer) -> Option<&T>) -> Option<(T, Origin)> {
        self.0
            .iter()
            .find_map(|(origin, layer)| Some((value(layer)?.clone(), *origin)))
    }
}

// === impl Effective ===

impl Effective {
    /// A configuration file that says the same, for a person to read.
    pub(super) fn description(&self) -> String {
        let mut text = String::new();
        let mut line = |key: &str, value: String, origin: Origin| {
            // Writing to a string can't fail.
            let _ = writeln!(text, "{key} = {value} # {origin}");
        };
        line("channel", format!("{:?}", self.channel.0), self.channel.1);
        if let Some((path, origin)) = &self.port {
            line("port", format!("{path:?}"), *origin);
        }
        if let Some((path, origin)) = &self.listen {
            let place = format!("unix:{}", path.display());
            line("listen", format!("{place:?}"), *origin);
        } else {
            let default = (self.port.is_none(), Origin::Default);
            let (value, origin) = self.wait.unwrap_or(default);
            line("wait", value.to_string(), origin);
        }
        let files = [
            ("key_file", &self.key_file),
            ("call_key_file", &self.call_key_file),
        ];
        for (key, file) in files {
            if let Some((path, origin)) = file {
                line(key, format!("{path:?}"), *origin);
            }
        }
        if let Some((rebind, origin)) = self.rebind {
            let value = format!("{rebind:?}").to_ascii_lowercase();
            line("rebind", format!("{value:?}"), origin);
        }
        if let Some((policy, origin)) = &self.policy {
            line("policy", format!("{:?}", policy.to_string()), *origin);
        }
        line("log", format!("{:?}", self.log.0), self.log.1);
        for upstream in &self.upstreams {
            let services: Vec<_> = upstream.services().collect();
            // Writing to a string can't fail.
            let _ = writeln!(
                text,
                "\n[[upstream]] # {}\nname = {:?}\nservices = {services:?}\naddress = {:?}",
                Origin::File,
                upstream.name(),
                upstream.address().to_string(),
            );
        }
        text
    }

    /// The same for the program; the keys are read.
    pub(super) fn settings(self, warnings: Vec<String>) -> Result<Settings, CliError> {
        let key = |(path, _): (PathBuf, Origin)| {
            read_key(&path).map_err(|why| CliError::Key { path, why })
        };
        Ok(Settings {
            channel: self.channel.0,
            port: self.port.map(|(path, _)| path),
            wait: self.wait.map(|(wait, _)| wait),
            listen: self.listen.map(|(path, _)| path),
            key: self.key_file.map(key).transpose()?,
            call_key: self.call_key_file.map(key).transpose()?,
            rebind: self.rebind.map(|(rebind, _)| rebind).unwrap_or_default(),
            policy: self.policy.map(|(policy, _)| policy).unwrap_or_default(),
            // Checked when it was read.
            log: self.log.0.parse().unwrap_or_default(),
            upstreams: self.upstreams,
            warnings,
        })
    }
}
