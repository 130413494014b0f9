//! What the sources say together.

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use agent_guest::{DEFAULT_CHANNEL, Rebind, Tls, TlsFiles, Upstream, log::LogFile};
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
    tls_certificate: Option<(PathBuf, Origin)>,
    tls_key: Option<(PathBuf, Origin)>,
    tls_host_ca: Option<(PathBuf, Origin)>,
    call_key_file: Option<(PathBuf, Origin)>,
    rebind: Option<(Rebind, Origin)>,
    policy: Option<(policy::Source, Origin)>,
    log: (String, Origin),
    upstreams: Vec<Upstream>,
    max_request_size: Option<usize>,
    request_timeout: Option<Duration>,
    log_file: Option<LogFile>,
    warnings: Vec<String>,
}

// === impl Layers ===

impl Layers {
    /// The values of the highest sources that have them.
    pub(super) fn effective(mut self) -> Result<Effective, CliError> {
        self.leave_one_place()?;
        let default = |value: &str| (value.to_owned(), Origin::Default);
        let channel = self.pick(|layer| layer.channel.as_ref());
        let log = self.pick(|layer| layer.log.as_ref());
        let file = self.0.iter().find(|(origin, _)| *origin == Origin::File);
        let file = file.map_or_else(Layer::default, |(_, layer)| layer.clone());
        Ok(Effective {
            channel: channel.unwrap_or_else(|| default(DEFAULT_CHANNEL)),
            port: self.pick(|layer| layer.port.as_ref()),
            wait: self.pick(|layer| layer.wait.as_ref()),
            listen: self.pick(|layer| layer.listen.as_ref()),
            key_file: self.pick(|layer| layer.key_file.as_ref()),
            tls_certificate: self.pick(|layer| layer.tls_certificate.as_ref()),
            tls_key: self.pick(|layer| layer.tls_key.as_ref()),
            tls_host_ca: self.pick(|layer| layer.tls_host_ca.as_ref()),
            call_key_file: self.pick(|layer| layer.call_key_file.as_ref()),
            rebind: self.pick(|layer| layer.rebind.as_ref()),
            policy: self.pick(|layer| layer.policy.as_ref()),
            log: log.unwrap_or_else(|| default(DEFAULT_LOG)),
            max_request_size: file.max_request_size,
            request_timeout: file.request_timeout,
            log_file: file.log_file,
            upstreams: file.upstreams,
            warnings: file.warnings,
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
        for (key, value) in [
            ("key_file", &self.key_file),
            ("call_key_file", &self.call_key_file),
            ("tls_certificate", &self.tls_certificate),
            ("tls_key", &self.tls_key),
            ("tls_host_ca", &self.tls_host_ca),
        ] {
            if let Some((path, origin)) = value {
                line(key, format!("{path:?}"), *origin);
            }
        }
        if let Some((rebind, origin)) = self.rebind {
            let value = format!("{rebind:?}").to_ascii_lowercase();
            line("rebind", format!("{value:?}"), origin);
        }
        if let Some((policy, origin)) = &self.policy
            && policy.lists().is_none()
        {
            line("policy", format!("{:?}", policy.to_string()), *origin);
        }
        line("log", format!("{:?}", self.log.0), self.log.1);
        self.describe_tables(&mut text);
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

    /// What only the file's tables can say.
    fn describe_tables(&self, text: &mut String) {
        let server = [
            self.max_request_size
                .map(|size| format!("max_request_size = {size}")),
            self.request_timeout
                .map(|time| format!("request_timeout = {}", time.as_secs_f64())),
        ];
        let lists = self.policy.as_ref().and_then(|(policy, _)| policy.lists());
        let security = [
            lists.map(|lists| format!("allowed_commands = {:?}", lists.programs())),
            lists
                .and_then(policy::Lists::folders)
                .map(|folders| format!("allowed_paths = {folders:?}")),
        ];
        let file = self.log_file.as_ref();
        let logging = [
            file.map(|file| format!("file = {:?}", file.path)),
            file.map(|file| format!("max_size = {}", file.max_size)),
            file.map(|file| format!("backup_count = {}", file.backups)),
        ];
        let tables: [(&str, &[Option<String>]); 3] = [
            ("server", &server),
            ("security", &security),
            ("logging", &logging),
        ];
        for (name, lines) in tables {
            let lines: Vec<_> = lines.iter().flatten().map(String::as_str).collect();
            if !lines.is_empty() {
                // Writing to a string can't fail.
                let _ = writeln!(text, "\n[{name}] # {}\n{}", Origin::File, lines.join("\n"));
            }
        }
    }

    /// The same for the program; the keys are read.
    pub(super) fn settings(self, mut warnings: Vec<String>) -> Result<Settings, CliError> {
        warnings.extend(self.warnings);
        let key = |(path, _): (PathBuf, Origin)| {
            read_key(&path).map_err(|why| CliError::Key { path, why })
        };
        let path = |value: Option<(PathBuf, Origin)>| value.map(|(path, _)| path);
        let tls = match (path(self.tls_certificate), path(self.tls_key)) {
            (Some(certificate), Some(key)) => Some(TlsFiles {
                certificate,
                key,
                host_ca: path(self.tls_host_ca),
            }),
            (None, None) if self.tls_host_ca.is_none() => None,
            _ => return Err(CliError::HalfTls),
        };
        let tls = match tls {
            None => None,
            Some(files) => Some((Tls::read(&files)?, files)),
        };
        Ok(Settings {
            tls,
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
            log_file: self.log_file,
            max_request_size: self.max_request_size,
            request_timeout: self.request_timeout,
            upstreams: self.upstreams,
            warnings,
        })
    }
}
