//! The command line.

use std::{ffi::OsString, path::PathBuf};

use clap::Parser as _;

use super::{CliError, KEYS, Layer};

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

    /// Serve only calls that are signed with this pre-shared key
    #[arg(long, value_name = "PATH")]
    call_key_file: Option<String>,

    /// Free a port that is stuck by rebinding its driver: alone (if its device has no other port), always, never [default:
    /// alone]
    #[arg(long, value_name = "WHEN")]
    rebind: Option<String>,

    /// What hosts may do: full, observe, restricted, or the path of a file with rules [default: full]
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

/// What the command line is about.
pub(super) enum Said {
    Flags(Box<Flags>),
    /// It asks for this text, and nothing else: help, the version.
    Ask(String),
}

/// What is to be done, and how.
pub(super) struct Flags {
    pub(super) layer: Layer,
    pub(super) config: Option<PathBuf>,
    pub(super) check_config: bool,
}

/// Understands it.
pub(super) fn read(args: impl IntoIterator<Item = OsString>) -> Result<Said, CliError> {
    let mut args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) if error.use_stderr() => return Err(CliError::Usage(first_line(&error))),
        // Help and version are errors to clap.
        Err(text) => return Ok(Said::Ask(text.to_string())),
    };
    Ok(Said::Flags(Box::new(Flags {
        config: args.config.take(),
        check_config: args.check_config,
        layer: layer(args)?,
    })))
}

/// clap's messages are several lines, of which the first says what is wrong.
fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

fn layer(args: Args) -> Result<Layer, CliError> {
    let mut layer = Layer::default();
    let values = [
        args.channel,
        args.port,
        args.wait,
        args.listen,
        args.key_file,
        args.call_key_file,
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
