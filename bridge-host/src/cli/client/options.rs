//! How a command is told which bridge and which guest are meant, and how patient it is to be.
//!
//! Options go before the environment, this before the [file](super::file), and the file before what is usual.

use std::{ffi::OsString, sync::Arc, time::Duration};

use bridge_host::{
    check_name,
    config::DEFAULT_LISTEN,
    limits::{CLIENT_ANSWER, CLIENT_CONNECT, CLIENT_RETRY_MAX},
    retry::{Backoff, Policy},
};
use clap::Args;
use vbridge_link::Key;

use super::{
    super::{duration, failure::Failure, output::Output, proof::Proof, say},
    address::BridgeAddress,
    connect::Limits,
    file::ClientFile,
    scalar::{Factor, Level, Pause, Time, Times, retries},
};

/// How a command reaches a bridge.
#[derive(Debug, Args)]
pub(super) struct BridgeOptions {
    /// The running bridge: HOST:PORT, https://HOST:PORT or unix:PATH [default: 127.0.0.1:7411]
    #[arg(long, value_name = "ADDR", env = "VBRIDGE_ADDRESS")]
    bridge: Option<BridgeAddress>,
    #[command(flatten)]
    proof: Proof,
    /// How long to wait for an answer [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,
    /// How long to wait for a connection to the bridge [default: 5s, or --timeout if that is less]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    connect_timeout: Option<Duration>,
    /// How often to try again what the network has failed, if it does no harm to do it twice [default: 3]
    #[arg(long, value_name = "N", env = "VBRIDGE_RETRIES", value_parser = retries)]
    retries: Option<u32>,
    /// A file with these settings, TOML or YAML by its ending; with an empty name none is read
    #[arg(long, value_name = "FILE", env = "VBRIDGE_CLIENT_CONFIG")]
    client_config: Option<OsString>,
}

/// What every command takes that shows an answer.
#[derive(Debug, Args)]
pub(in crate::cli) struct ClientOptions {
    #[command(flatten)]
    pub(super) bridge: BridgeOptions,
    /// How to write the answer: for people, or as an object (streams: one on each line) for programs
    #[arg(long, value_enum, default_value = "table")]
    pub(in crate::cli) output: Output,
}

/// Which guest is meant.
#[derive(Debug, Args)]
pub(in crate::cli) struct GuestOptions {
    /// The guest; needed only if the bridge has several
    #[arg(value_name = "NAME", value_parser = guest_name)]
    pub(super) name: Option<String>,
    /// How long to wait for a guest that is not there yet, before the answer's time begins
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) wait: Option<Duration>,
    #[command(flatten)]
    pub(in crate::cli) client: ClientOptions,
}

/// Which guest is meant, where other words follow its name.
#[derive(Debug, Args)]
pub(in crate::cli) struct NamedGuestOptions {
    /// The guest
    #[arg(value_name = "NAME", value_parser = guest_name)]
    pub(super) name: String,
    /// How long to wait for a guest that is not there yet, before the answer's time begins
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) wait: Option<Duration>,
    #[command(flatten)]
    pub(super) bridge: BridgeOptions,
}

fn guest_name(text: &str) -> Result<String, String> {
    check_name(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

/// What options, environment and file say together.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) bridge: BridgeAddress,
    pub(super) proof: Proof,
    /// With what calls are signed.
    pub(super) call_key: Option<Arc<Key>>,
    /// How long an answer may take.
    pub(super) answer: Duration,
    pub(super) limits: Limits,
    pub(super) policy: Policy,
    /// Whether each new attempt is told.
    pub(super) tells: bool,
}

// === impl BridgeOptions ===

impl BridgeOptions {
    /// Reads the file, if there is one, and the key for calls.
    pub(super) fn settings(&self) -> Result<Settings, Failure> {
        let file = ClientFile::find(self.client_config.as_deref())?;
        let tells = file.logging.level.is_none_or(|Level(tells)| tells);
        if let Some(warning) = file.warning().filter(|_| tells) {
            warn_once(&warning);
        }
        let bridge = match self
            .bridge
            .clone()
            .map_or_else(|| file.bridge(), |ours| Ok(Some(ours)))?
        {
            Some(bridge) => bridge,
            None => DEFAULT_LISTEN.parse().map_err(Failure::new)?,
        };
        let time = |ours: Option<Duration>, files: Option<Time>| ours.or(files.map(|time| time.0));
        let answer = time(self.timeout, file.timeout()?).unwrap_or(CLIENT_ANSWER);
        let connect = time(self.connect_timeout, file.connect_timeout()?);
        let retries = self.retries.or(file.retries()?.map(|Times(times)| times));
        let proof = self.proof.or(file.proof())?;
        Ok(Settings {
            bridge,
            call_key: proof.call_key()?,
            proof,
            answer,
            limits: Limits {
                connect: connect.unwrap_or(CLIENT_CONNECT.min(answer)),
                write: time(None, file.write_timeout()),
            },
            policy: policy(
                retries,
                file.retry.retry_interval,
                file.retry.backoff_factor,
            ),
            tells,
        })
    }
}

/// The usual table, with other numbers for the network; nothing is tried again more often than that.
fn policy(retries: Option<u32>, interval: Option<Pause>, factor: Option<Factor>) -> Policy {
    /// The table's own numbers.
    const TIMES: u32 = 3;
    const INTERVAL: Pause = Pause(Duration::from_secs(1));
    const FACTOR: Factor = Factor(2.0);
    let times = retries.unwrap_or(TIMES);
    let Pause(interval) = interval.unwrap_or(INTERVAL);
    let Factor(factor) = factor.unwrap_or(FACTOR);
    let usual = Policy::default();
    Policy {
        network: Backoff::growing(times, interval, factor).at_most(CLIENT_RETRY_MAX),
        timeout: usual.timeout.times_at_most(times),
        internal: usual.internal.times_at_most(times),
    }
}

/// A command may connect several times, and is told once.
fn warn_once(warning: &str) {
    static TOLD: std::sync::Once = std::sync::Once::new();
    TOLD.call_once(|| say(warning));
}

#[cfg(test)]
mod tests {
    use std::fs;

    use bridge_host::retry::Failed;
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        bridge: BridgeOptions,
    }

    fn settings(words: &[&str]) -> Settings {
        let words = std::iter::once(&"vbridge").chain(words);
        Cli::try_parse_from(words)
            .unwrap()
            .bridge
            .settings()
            .unwrap()
    }

    fn delays(policy: Policy, failed: Failed) -> Vec<f64> {
        let mut attempts = policy.attempts();
        std::iter::from_fn(|| attempts.after(failed))
            .map(|delay| delay.as_secs_f64())
            .collect()
    }

    #[test]
    fn without_a_word_it_is_as_the_table_has_it() {
        let settings = settings(&["--client-config", ""]);
        assert_eq!(settings.bridge.to_string(), DEFAULT_LISTEN);
        assert_eq!(
            settings.policy.network,
            Backoff::doubling(3, Duration::from_secs(1)).at_most(CLIENT_RETRY_MAX)
        );
        assert_eq!(settings.policy.timeout, Policy::default().timeout);
        assert_eq!(
            (settings.answer, settings.limits.connect),
            (CLIENT_ANSWER, CLIENT_CONNECT)
        );
        assert!(settings.tells && settings.call_key.is_none());
    }

    #[test]
    fn options_go_before_the_file_and_the_file_before_what_is_usual() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("client.yaml");
        let text = "bridge: hv1:7411\ntimeout: 30\nlogging: {level: ERROR}\n\
                    retry: {max_retries: 4, retry_interval: 200ms, backoff_factor: 3}\nconnection: {write_timeout: 7}\n";
        fs::write(&path, text).unwrap();
        let file = ["--client-config", path.to_str().unwrap()];
        let of_file = settings(&file);
        assert_eq!(of_file.bridge.to_string(), "hv1:7411");
        assert_eq!(of_file.answer, Duration::from_secs(30));
        assert_eq!(of_file.limits.write, Some(Duration::from_secs(7)));
        assert!(!of_file.tells);
        let network = delays(of_file.policy, Failed::Network);
        assert_eq!(network.len(), 4);
        assert!((network[3] - 5.4).abs() < 1e-6, "{network:?}");
        assert_eq!(delays(of_file.policy, Failed::Timeout), [5.0, 5.0]);

        let words = ["--bridge", "hv2:7411", "--timeout", "2s", "--retries", "1"];
        let of_options = settings(&[&file[..], &words].concat());
        assert_eq!(of_options.bridge.to_string(), "hv2:7411");
        assert_eq!(of_options.answer, Duration::from_secs(2));
        // Nobody waits longer for a connection than for an answer, unless it is said.
        assert_eq!(of_options.limits.connect, Duration::from_secs(2));
        assert_eq!(delays(of_options.policy, Failed::Network), [0.2]);
        assert_eq!(delays(of_options.policy, Failed::Timeout), [5.0]);
        let never = settings(&["--client-config", "", "--retries", "0"]).policy;
        for failed in [Failed::Network, Failed::Timeout, Failed::Internal] {
            assert_eq!(delays(never, failed), [0.0; 0]);
        }
    }
}
