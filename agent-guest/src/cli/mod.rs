//! Settings from the command line, the environment, the configuration file and the defaults, in this order.
//!
//! A place to serve on (`port` or `listen`) that one source names replaces the place of the sources below it, so that
//! `--listen` works on a machine whose file names a port.

mod file;
mod policy;

use std::{
    ffi::OsString,
    fmt::{self, Write as _},
    path::{Path, PathBuf},
};

pub(crate) use policy::Source as PolicySource;

use agent_guest::{DEFAULT_CHANNEL, Key, Rebind, Upstream};
use clap::Parser as _;
use tracing_subscriber::filter::Targets;
use vbridge_settings::{FileError, KeyFileError, read_key, unknown_key};

/// Read if it exists and no other file is named.
const DEFAULT_FILE: &str = "/etc/vbridge/agent.toml";

/// What the environment's variables begin with.
const PREFIX: &str = "VBRIDGE_AGENT_";

/// What is logged unless told otherwise.
const DEFAULT_LOG: &str = "info";

/// The agent of vbridge: serves gRPC on the guest's virtio-serial port.
///
/// Every option but --check-config can be set by an environment variable (VBRIDGE_AGENT_PORT for --port), and those
/// about serving in the configuration file.
#[derive(Debug, clap::Parser)]
#[command(name = "vbridge-agent", version, disable_help_subcommand = true)]
struct Args {
    /// Name of the virtio-serial channel [default: org.vbridge.agent.0]
    #[arg(long, value_name = "NAME")]
    channel: Option<String>,

    /// The port's device, instead of looking for the channel's
    #[arg(long, value_name = "PATH")]
    port: Option<String>,

    /// Wait for a port that is not there yet [default: true; with --port: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    wait: Option<String>,

    /// Listen on a Unix socket as QEMU would, instead of opening a port: for machines without a VM
    #[arg(long, value_name = "unix:PATH")]
    listen: Option<String>,

    /// Serve only hosts that know this pre-shared key
    #[arg(long, value_name = "PATH")]
    key_file: Option<String>,

    /// Free a port that is stuck by rebinding its driver: alone (if its device has no other port), always, never [default:
    /// alone]
    #[arg(long, value_name = "WHEN")]
    rebind: Option<String>,

    /// What hosts may do: full, observe, or the path of a file with rules [default: full]
    #[arg(long, value_name = "POLICY")]
    policy: Option<String>,

    /// What to log to stderr: error, warn, info, debug, trace, or target=level,... [default: info]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,

    /// Configuration file, TOML or YAML by its ending [default: /etc/vbridge/agent.toml, if it exists]
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,

    /// Print the effective configuration, or what is wrong with it, and exit
    #[arg(long)]
    check_config: bool,
}

/// What the program is to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Serve.
    Run(Settings),
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
    pub(crate) rebind: Rebind,
    pub(crate) policy: policy::Source,
    pub(crate) log: Targets,
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

/// What one source says; everything is optional.
#[derive(Debug, Default, Clone, PartialEq)]
struct Layer {
    channel: Option<String>,
    port: Option<PathBuf>,
    wait: Option<bool>,
    listen: Option<PathBuf>,
    key_file: Option<PathBuf>,
    rebind: Option<Rebind>,
    policy: Option<policy::Source>,
    log: Option<String>,
    /// Only a file has these.
    upstreams: Vec<Upstream>,
}

/// The keys that every source knows.
const KEYS: [&str; 8] = [
    "channel", "port", "wait", "listen", "key_file", "rebind", "policy", "log",
];

impl Layer {
    /// Takes a value as text.
    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "channel" => self.channel = Some(check_channel(value)?),
            "port" => self.port = Some(check_path(value)?),
            "wait" => self.wait = Some(check_bool(value)?),
            "listen" => self.listen = Some(check_listen(value)?),
            "key_file" => self.key_file = Some(check_path(value)?),
            "rebind" => self.rebind = Some(check_rebind(value)?),
            "policy" => self.policy = Some(policy::Source::parse(value)?),
            "log" => self.log = Some(check_log(value)?),
            unknown => return Err(unknown_key(unknown, &KEYS)),
        }
        Ok(())
    }
}

fn check_channel(value: &str) -> Result<String, String> {
    if value.is_empty() || value.contains('/') {
        return Err(format!(
            "{value:?} is no channel name: it must not be empty or contain a slash"
        ));
    }
    Ok(value.to_owned())
}

fn check_path(value: &str) -> Result<PathBuf, String> {
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
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) if error.use_stderr() => return Err(CliError::Usage(first_line(&error))),
        // Help and version are errors to clap.
        Err(text) => return Ok(Command::Print(text.to_string())),
    };
    let mut environment = read_environment(environment)?;
    let config = args.config.clone().or(environment.config.take());
    let file = match &config {
        Some(path) => vbridge_settings::read(path)?,
        None => file::read_if_there(default_file)?,
    };
    let check = args.check_config;
    let layers = Layers {
        layers: vec![
            (Origin::CommandLine, flags(args)?),
            (Origin::Environment, environment.layer),
            (Origin::File, file),
        ],
    };
    let (settings, description) = layers.merge(environment.warnings)?;
    if check {
        return Ok(Command::Print(description));
    }
    Ok(Command::Run(settings))
}

/// clap's messages are several lines, of which the first says what is wrong.
fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

fn flags(args: Args) -> Result<Layer, CliError> {
    let mut layer = Layer::default();
    let values = [
        args.channel,
        args.port,
        args.wait,
        args.listen,
        args.key_file,
        args.rebind,
        args.policy,
        args.log,
    ];
    for (key, value) in KEYS.into_iter().zip(values) {
        if let Some(value) = value {
            layer.set(key, &value).map_err(|message| CliError::Value {
                origin: format!("--{}", key.replace('_', "-")),
                message,
            })?;
        }
    }
    Ok(layer)
}

fn key(path: PathBuf) -> Result<Key, CliError> {
    read_key(&path).map_err(|why| CliError::Key { path, why })
}

#[derive(Default)]
struct Environment {
    layer: Layer,
    config: Option<PathBuf>,
    warnings: Vec<String>,
}

fn read_environment(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Environment, CliError> {
    let mut environment = Environment::default();
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
            continue;
        };
        let key = name[PREFIX.len()..].to_ascii_lowercase();
        if key == "config" {
            environment.config = Some(value.into());
            continue;
        }
        // The variable may be another program's: no reason not to run.
        if !KEYS.contains(&key.as_str()) {
            environment.warnings.push(format!(
                "{name} in the environment is ignored: {}",
                unknown_key(&key, &KEYS)
            ));
            continue;
        }
        let set = match value.to_str() {
            Some(value) => environment.layer.set(&key, value),
            None => Err("is not UTF-8 text".to_owned()),
        };
        set.map_err(|message| CliError::Value {
            origin: name.to_owned(),
            message,
        })?;
    }
    Ok(environment)
}

/// The sources, the highest first.
struct Layers {
    layers: Vec<(Origin, Layer)>,
}

impl Layers {
    /// The value of the highest source that has one.
    fn pick<T: Clone>(&self, value: impl Fn(&Layer) -> Option<&T>) -> Option<(T, Origin)> {
        self.layers
            .iter()
            .find_map(|(origin, layer)| Some((value(layer)?.clone(), *origin)))
    }

    /// The settings, and the same for a person to read.
    fn merge(mut self, warnings: Vec<String>) -> Result<(Settings, String), CliError> {
        let mut is_set = false;
        for (origin, layer) in &mut self.layers {
            if layer.port.is_some() && layer.listen.is_some() {
                return Err(CliError::TwoPlaces(*origin));
            }
            if is_set {
                layer.port = None;
                layer.listen = None;
            }
            is_set |= layer.port.is_some() || layer.listen.is_some();
        }
        let channel = self.pick(|layer| layer.channel.as_ref());
        let port = self.pick(|layer| layer.port.as_ref());
        let wait = self.pick(|layer| layer.wait.as_ref());
        let listen = self.pick(|layer| layer.listen.as_ref());
        let key_file = self.pick(|layer| layer.key_file.as_ref());
        let rebind = self.pick(|layer| layer.rebind.as_ref());
        let policy = self.pick(|layer| layer.policy.as_ref());
        let log = self.pick(|layer| layer.log.as_ref());

        let (channel, channel_origin) =
            channel.unwrap_or((DEFAULT_CHANNEL.to_owned(), Origin::Default));
        let (log, log_origin) = log.unwrap_or((DEFAULT_LOG.to_owned(), Origin::Default));
        let mut text = String::new();
        let mut line = |key: &str, value: String, origin: Origin| {
            // Writing to a string can't fail.
            let _ = writeln!(text, "{key} = {value} # {origin}");
        };
        line("channel", format!("{channel:?}"), channel_origin);
        if let Some((path, origin)) = &port {
            line("port", format!("{path:?}"), *origin);
        }
        if let Some((path, origin)) = &listen {
            line(
                "listen",
                format!("{:?}", format!("unix:{}", path.display())),
                *origin,
            );
        } else {
            let (value, origin) = wait.unwrap_or((port.is_none(), Origin::Default));
            line("wait", value.to_string(), origin);
        }
        if let Some((path, origin)) = &key_file {
            line("key_file", format!("{path:?}"), *origin);
        }
        if let Some((rebind, origin)) = rebind {
            let value = format!("{rebind:?}").to_ascii_lowercase();
            line("rebind", format!("{value:?}"), origin);
        }
        if let Some((policy, origin)) = &policy {
            line("policy", format!("{:?}", policy.to_string()), *origin);
        }
        line("log", format!("{log:?}"), log_origin);
        let layers = self.layers.iter_mut();
        let upstreams: Vec<_> = layers
            .flat_map(|(_, layer)| std::mem::take(&mut layer.upstreams))
            .collect();
        for upstream in &upstreams {
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

        let settings = Settings {
            channel,
            port: port.map(|(path, _)| path),
            wait: wait.map(|(wait, _)| wait),
            listen: listen.map(|(path, _)| path),
            key: key_file.map(|(path, _)| key(path)).transpose()?,
            rebind: rebind.map(|(rebind, _)| rebind).unwrap_or_default(),
            policy: policy.map(|(policy, _)| policy).unwrap_or_default(),
            // Checked when it was read.
            log: log.parse().unwrap_or_default(),
            upstreams,
            warnings,
        };
        Ok((settings, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str], environment: &[(&str, &str)]) -> Result<Command, CliError> {
        command_with(
            ["vbridge-agent"].iter().chain(args).map(OsString::from),
            environment
                .iter()
                .map(|(name, value)| (name.into(), value.into())),
            Path::new("/nonexistent/agent.toml"),
        )
    }

    fn settings(args: &[&str], environment: &[(&str, &str)]) -> Settings {
        match run(args, environment).unwrap() {
            Command::Run(settings) => settings,
            Command::Print(text) => panic!("{text}"),
        }
    }

    fn file(text: &str) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, text).unwrap();
        (dir, path.to_str().unwrap().to_owned())
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let (_dir, path) = file("channel = \"file\"\nlog = \"warn\"\nport = \"/dev/file\"\n");
        let file_only = settings(&["--config", &path], &[]);
        assert_eq!(file_only.channel, "file");
        assert_eq!(file_only.port, Some("/dev/file".into()));
        let environment = [
            ("VBRIDGE_AGENT_CHANNEL", "environment"),
            ("VBRIDGE_AGENT_CONFIG", &path),
        ];
        assert_eq!(settings(&[], &environment).channel, "environment");
        assert_eq!(
            settings(&["--channel", "flag"], &environment).channel,
            "flag"
        );
    }

    #[test]
    fn a_place_replaces_the_place_below_it() {
        let (_dir, path) = file("port = \"/dev/file\"\n");
        let settings = settings(
            &["--config", &path, "--listen", "unix:/run/agent.sock"],
            &[],
        );
        assert_eq!(
            (settings.port, settings.listen),
            (None, Some("/run/agent.sock".into()))
        );
        let error = run(&["--port", "/dev/a", "--listen", "unix:/b"], &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "command line names a port and a socket to listen on: choose one"
        );
    }

    #[test]
    fn wait_is_a_flag_with_an_optional_value() {
        assert_eq!(settings(&[], &[]).wait, None);
        assert_eq!(settings(&["--wait"], &[]).wait, Some(true));
        assert_eq!(settings(&["--wait=false"], &[]).wait, Some(false));
        assert_eq!(
            settings(&["--wait"], &[("VBRIDGE_AGENT_WAIT", "no")]).wait,
            Some(true)
        );
        assert_eq!(
            settings(&[], &[("VBRIDGE_AGENT_WAIT", "no")]).wait,
            Some(false)
        );
    }

    #[test]
    fn the_effective_configuration_is_printed_with_its_origins() {
        let (_dir, path) = file("log = \"warn\"\n");
        let Command::Print(text) = run(
            &[
                "--check-config",
                "--config",
                &path,
                "--port",
                "/dev/vport0p1",
            ],
            &[("VBRIDGE_AGENT_CHANNEL", "org.example.0")],
        )
        .unwrap() else {
            panic!("it runs");
        };
        assert_eq!(
            text,
            "channel = \"org.example.0\" # environment\nport = \"/dev/vport0p1\" # command line\n\
             wait = false # default\nlog = \"warn\" # file\n"
        );
        // It is a configuration file itself.
        let (_dir, path) = file(&text);
        assert_eq!(
            settings(&["--config", &path], &[]).port,
            Some("/dev/vport0p1".into())
        );
    }

    #[test]
    fn upstreams_are_printed_as_the_file_has_them() {
        let upstream = "\n[[upstream]] # file\nname = \"a\"\nservices = [\"org.a.*\"]\naddress = \"127.0.0.1:5\"\n";
        let (_dir, path) = file(upstream);
        let arguments = ["--check-config", "--config", &path];
        let Command::Print(text) = run(&arguments, &[]).unwrap() else {
            panic!("it runs");
        };
        assert!(text.ends_with(upstream), "{text}");
        let (_dir, path) = file(&text);
        assert_eq!(settings(&["--config", &path], &[]).upstreams.len(), 1);
    }

    #[test]
    fn wrong_values_name_where_they_come_from() {
        let text = |args: &[&str], environment: &[(&str, &str)]| {
            run(args, environment).unwrap_err().to_string()
        };
        assert_eq!(
            text(&["--listen", "/run/x"], &[]),
            "--listen: \"/run/x\" is not of the form unix:PATH"
        );
        assert_eq!(
            text(&["--log", "loud=very"], &[]).split(": ").next(),
            Some("--log")
        );
        assert_eq!(
            text(&[], &[("VBRIDGE_AGENT_WAIT", "maybe")]),
            "VBRIDGE_AGENT_WAIT: \"maybe\" is neither true nor false"
        );
        assert_eq!(
            text(&["--chanel", "x"], &[]),
            "unexpected argument '--chanel' found (try --help)"
        );
        assert!(run(&["--chanel", "x"], &[]).unwrap_err().is_usage());
    }

    #[test]
    fn an_unknown_variable_is_no_reason_not_to_run() {
        let settings = settings(&[], &[("VBRIDGE_AGENT_CHANEL", "x"), ("OTHER", "y")]);
        assert_eq!(settings.warnings.len(), 1);
        assert!(
            settings.warnings[0].contains("did you mean `channel`"),
            "{:?}",
            settings.warnings
        );
    }

    #[test]
    fn help_and_version_are_no_errors() {
        for flag in ["--help", "--version"] {
            assert!(
                matches!(run(&[flag], &[]), Ok(Command::Print(text)) if text.contains("vbridge-agent"))
            );
        }
    }
}
