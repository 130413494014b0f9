//! `vbridge serve`: runs the bridge.

use std::{ffi::OsString, io::Write as _, path::PathBuf};

use bridge_host::{
    Control, ListenAddress,
    config::{ChannelName, Config, GuestEntry, MAX_LISTEN},
    discovery::SocketPattern,
};
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, level_filters::LevelFilter, warn};
use tracing_subscriber::EnvFilter;

use super::{failure::Failure, say, service};

/// Addresses to listen on, with commas between them.
const LISTEN_VARIABLE: &str = "VBRIDGE_LISTEN";

/// The configuration file.
const CONFIG_VARIABLE: &str = "VBRIDGE_CONFIG";

/// What is logged, as tracing-subscriber's filter: `info,bridge_host=debug`.
const LOG_VARIABLE: &str = "VBRIDGE_LOG";

/// What a shell reports for a program that a second Ctrl-C has ended.
const INTERRUPTED: i32 = 130;

/// Flags go before environment variables, these before the file, and the file before defaults. Guests of flags, and places
/// where guests are found, are added to those of the file.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "Environment:
  VBRIDGE_LISTEN  addresses to listen on, with commas between them
  VBRIDGE_CONFIG  the configuration file
  VBRIDGE_LOG     what is logged: error, warn, info, debug, trace, or a filter like info,bridge_host=debug

Sockets that a service manager hands over (systemd's socket activation) are listened on instead of all addresses for all guests.
SIGHUP has the file read again: callers, rules and certificates change, and the audit log is opened anew.

Flags go before the environment, the environment before the file. What --guest, --libvirt and --sockets say is added to the file's.")]
pub(super) struct Options {
    /// A guest: `NAME=unix:PATH[,monitor=unix:PATH][,listen=ADDR][,key-file=PATH][,tls-name=NAME][,agent=qemu]`; may be given again
    #[arg(long = "guest", value_name = "GUEST")]
    guests: Vec<GuestEntry>,
    /// Find guests here: every domain of this libvirt URI that has the channel; may be given again
    #[arg(long, value_name = "URI")]
    libvirt: Vec<String>,
    /// The channel's name that makes a domain a guest [default: org.vbridge.agent.0]
    #[arg(long, value_name = "NAME")]
    channel: Option<ChannelName>,
    /// Find guests here: every socket like /FOLDER/*.sock, where the star is the guest's name; may be given again
    #[arg(long, value_name = "PATTERN")]
    sockets: Vec<SocketPattern>,
    /// Offer all guests on this address: IP:PORT or unix:PATH; may be given again [default: 127.0.0.1:7411]
    #[arg(long, value_name = "ADDR")]
    listen: Vec<ListenAddress>,
    /// The configuration file: TOML or YAML by its ending
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration, say what is wrong with it, and end
    #[arg(long)]
    check_config: bool,
}

/// Takes as many descriptors as the system allows: every guest and every client needs one, and the usual soft limit of
/// 1,024 is made for programs that use `select`.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // If it is refused, fewer guests fit, and connecting them says so.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Runs the bridge until SIGTERM or SIGINT.
pub(super) async fn run(options: Options) -> Result<(), Failure> {
    raise_descriptor_limit();
    let check_only = options.check_config;
    let config = gather(options.clone(), |name| std::env::var_os(name))?;
    let filter = filter(config.log, std::env::var_os(LOG_VARIABLE))?;
    let guests = config.guests.len();
    let sources = config.libvirt.len() + config.sockets.len();
    let mut bridge = config.bridge()?;
    for socket in service::sockets()? {
        bridge = bridge.socket(socket);
    }
    let bridge = bridge.build()?;
    if check_only {
        let mut text = format!(
            "the configuration is good; it has {guests} guest{}",
            plural(guests)
        );
        if sources > 0 {
            text += &format!(" and {sources} place{} to find more", plural(sources));
        }
        say(&text);
        return Ok(());
    }
    log(filter);
    // Before the first line is out: whoever reads it may send a signal at once.
    let stop = Stop::new()?;
    let hangups = listen_for(SignalKind::hangup())?;
    let bound = bridge.bind().await?;
    for address in bound.addresses() {
        say(&format!("listening on {address}"));
    }
    for (name, address) in bound.guest_addresses() {
        say(&format!("guest {name} on {address}"));
    }
    let reloading = tokio::spawn(reload(hangups, options, config, bound.control()));
    let watchdog = tokio::spawn(service::watchdog());
    let stopped = async {
        stop.wait().await;
        service::stopping();
    };
    service::ready();
    let served = bound.serve(stopped).await;
    reloading.abort();
    watchdog.abort();
    Ok(served?)
}

/// Reads the configuration again at each SIGHUP: callers, rules and certificates change, and the audit log is opened anew.
async fn reload(mut hangups: Signal, options: Options, mut before: Config, control: Control) {
    while hangups.recv().await.is_some() {
        let done = service::reloading();
        let again = gather(options.clone(), |name| std::env::var_os(name));
        let reloaded = again
            .map_err(|failure| failure.sentence().unwrap_or_default().to_owned())
            .and_then(|config| {
                control
                    .reload(&config.access, config.tls.as_ref())
                    .map_err(|error| error.to_string())
                    .map(|()| config)
            });
        match reloaded {
            Ok(config) => {
                if let Err(error) = control.reload_link(config.link.tls.as_ref()) {
                    warn!("the links' certificates stay as they were: {error}");
                }
                let rest = |config: &Config| Config {
                    access: Default::default(),
                    tls: None,
                    ..config.clone()
                };
                if rest(&config) == rest(&before) {
                    info!("the configuration was read again");
                } else {
                    warn!(
                        "the configuration was read again; what is new in it besides callers, rules and certificates needs a restart"
                    );
                }
                before.access = config.access;
                before.tls = config.tls;
            }
            Err(why) => warn!("everything stays as it was: {why}"),
        }
        drop(done);
    }
}

/// What flags, environment and file say together.
fn gather(
    options: Options,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Config, Failure> {
    let variable = |name| environment(name).filter(|value| !value.is_empty());
    let path = options
        .config
        .or_else(|| variable(CONFIG_VARIABLE).map(PathBuf::from));
    let mut config = match path {
        Some(path) => Config::read(&path)?,
        None => Config::default(),
    };
    if !options.listen.is_empty() {
        config.listen = options.listen;
    } else if let Some(value) = variable(LISTEN_VARIABLE) {
        config.listen = listen_variable(&value)?;
    }
    if config.listen.len() > MAX_LISTEN {
        return Err(bridge_host::config::ConfigError::TooManyAddresses(config.listen.len()).into());
    }
    for guest in options.guests {
        config.add_guest(guest)?;
    }
    config.libvirt.extend(options.libvirt);
    config.sockets.extend(options.sockets);
    if let Some(ChannelName(name)) = options.channel {
        config.channel = Some(name);
    }
    Ok(config)
}

fn listen_variable(value: &OsString) -> Result<Vec<ListenAddress>, Failure> {
    let text = value
        .to_str()
        .ok_or_else(|| Failure::new(format!("{LISTEN_VARIABLE} is not UTF-8 text")))?;
    let addresses = text.split(',').map(|address| address.trim().parse());
    addresses
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::new(format!("in {LISTEN_VARIABLE}, {error}")))
}

/// The variable goes before the file; without either, what an operator wants in a quiet week.
fn filter(level: Option<LevelFilter>, variable: Option<OsString>) -> Result<EnvFilter, Failure> {
    match variable.filter(|value| !value.is_empty()) {
        Some(value) => EnvFilter::try_new(value.to_string_lossy()).map_err(|error| {
            Failure::new(format!(
                "{LOG_VARIABLE} is not a filter ({error}); write a level like debug, or info,bridge_host=debug"
            ))
        }),
        None => Ok(EnvFilter::new(level.unwrap_or(LevelFilter::INFO).to_string())),
    }
}

fn log(filter: EnvFilter) {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // The build has no colours; this keeps it so if a dependency brings them.
        .with_ansi(false)
        .with_target(false)
        .log_internal_errors(false);
    // The journal has its own clock.
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        subscriber.without_time().init();
    } else {
        subscriber.init();
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// The signals that end the bridge.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

fn listen_for(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::new(format!("can't wait for signals: {error}")))
}

impl Stop {
    fn new() -> Result<Self, Failure> {
        Ok(Self {
            terminate: listen_for(SignalKind::terminate())?,
            interrupt: listen_for(SignalKind::interrupt())?,
        })
    }

    async fn either(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Done at the first signal. A second one means that calls under way are not to be waited for.
    async fn wait(mut self) {
        self.either().await;
        tokio::spawn(async move {
            self.either().await;
            let _ = std::io::stderr().flush();
            std::process::exit(INTERRUPTED);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_environment(_: &str) -> Option<OsString> {
        None
    }

    fn addresses(config: &Config) -> Vec<String> {
        config.listen.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn flags_go_before_the_environment_and_this_before_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vbridge.toml");
        std::fs::write(
            &path,
            "listen = [\"127.0.0.1:1\"]\n[[guest]]\nname = \"a\"\nchannel = \"unix:/a\"",
        )
        .unwrap();
        let environment = |name: &str| match name {
            LISTEN_VARIABLE => Some("127.0.0.1:2, unix:/x".into()),
            CONFIG_VARIABLE => Some(path.clone().into()),
            _ => None,
        };
        let options = |listen: &[&str]| Options {
            listen: listen.iter().map(|text| text.parse().unwrap()).collect(),
            guests: vec!["b=unix:/b".parse().unwrap()],
            ..Options::default()
        };
        let config = gather(options(&["127.0.0.1:3"]), environment).unwrap();
        assert_eq!(addresses(&config), ["127.0.0.1:3"]);
        assert_eq!(config.guests.len(), 2);
        let config = gather(options(&[]), environment).unwrap();
        assert_eq!(addresses(&config), ["127.0.0.1:2", "unix:/x"]);
        let from_file = Options {
            config: Some(path.clone()),
            ..Options::default()
        };
        let config = gather(from_file, no_environment).unwrap();
        assert_eq!(addresses(&config), ["127.0.0.1:1"]);
    }

    #[test]
    fn a_guest_of_a_flag_must_not_have_the_name_of_another() {
        let guests = vec!["a=unix:/a".parse().unwrap(), "A=unix:/b".parse().unwrap()];
        let failure = gather(
            Options {
                guests,
                ..Options::default()
            },
            no_environment,
        )
        .unwrap_err();
        assert!(
            failure.sentence().unwrap().contains("two guests"),
            "{failure:?}"
        );
    }

    #[test]
    fn a_variable_that_is_no_address_is_named() {
        let environment = |name: &str| (name == LISTEN_VARIABLE).then(|| "127.0.0.1:2,here".into());
        let failure = gather(Options::default(), environment).unwrap_err();
        let sentence = failure.sentence().unwrap();
        assert!(
            sentence.contains(LISTEN_VARIABLE) && sentence.contains("\"here\""),
            "{sentence}"
        );
    }

    #[test]
    fn the_log_level_is_the_variables_or_the_files_or_info() {
        let text = |level, variable: Option<&str>| {
            filter(level, variable.map(Into::into)).map(|f| f.to_string())
        };
        assert_eq!(text(None, None).unwrap(), "info");
        assert_eq!(text(Some(LevelFilter::WARN), None).unwrap(), "warn");
        assert_eq!(
            text(Some(LevelFilter::WARN), Some("debug")).unwrap(),
            "debug"
        );
        assert!(
            text(None, Some("a=b=c"))
                .unwrap_err()
                .sentence()
                .unwrap()
                .contains(LOG_VARIABLE)
        );
    }
}
