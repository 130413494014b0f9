//! The file with a client's settings: TOML or YAML, by its ending.
//!
//! ```yaml
//! bridge: https://hv1.example:7411
//! ca: /etc/vbridge/ca.pem
//! token_file: /home/ann/.vbridge-token
//! call_key_file: /home/ann/.vbridge-key
//! timeout: 30
//! retries: 3
//! ```
//!
//! Or with the tables of the design of the RPC over virtio-serial (its `host_config.yaml`), where `connection.socket_path` is the
//! bridge's socket:
//!
//! ```yaml
//! connection: { socket_path: /run/vbridge/vbridge.sock, connect_timeout: 5, read_timeout: 30, write_timeout: 30 }
//! retry: { max_retries: 3, retry_interval: 1, backoff_factor: 2 }
//! logging: { level: INFO }
//! ```
//!
//! The first file that is there counts, and no other: the one that is named, `client.toml` and `client.yaml` in the user's
//! `~/.config/vbridge`, and `/etc/vbridge/client.yaml`. Options and the environment go before it.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer, de::IgnoredAny};
use vbridge_settings::checked;

use super::{
    super::{failure::Failure, proof::Proof},
    address::BridgeAddress,
    scalar::{Factor, Level, Pause, Time, Times},
};

/// The file for all users of the machine.
const OF_ALL: &str = "/etc/vbridge/client.yaml";

/// Files of one user, in the folder of settings.
const OF_USER: [&str; 2] = ["vbridge/client.toml", "vbridge/client.yaml"];

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ClientFile {
    bridge: Option<BridgeAddress>,
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    token_file: Option<PathBuf>,
    call_key_file: Option<PathBuf>,
    timeout: Option<Time>,
    connect_timeout: Option<Time>,
    retries: Option<Times>,
    connection: Connection,
    pub(super) retry: Retry,
    pub(super) logging: Logging,
    /// Which file it is.
    #[serde(skip)]
    path: PathBuf,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Connection {
    socket_path: Option<SocketPath>,
    connect_timeout: Option<Time>,
    read_timeout: Option<Time>,
    write_timeout: Option<Time>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Retry {
    max_retries: Option<Times>,
    pub(super) retry_interval: Option<Pause>,
    pub(super) backoff_factor: Option<Factor>,
}

/// A command writes to standard error, and to no file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Logging {
    pub(super) level: Option<Level>,
    file: Option<IgnoredAny>,
    max_size: Option<IgnoredAny>,
    backup_count: Option<IgnoredAny>,
}

/// The bridge's socket.
#[derive(Debug)]
struct SocketPath(BridgeAddress);

impl<'de> Deserialize<'de> for SocketPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        checked(deserializer, |text| {
            let path = text.strip_prefix("unix:").unwrap_or(text);
            BridgeAddress::socket(path).map(Self)
        })
    }
}

// === impl ClientFile ===

impl ClientFile {
    /// Reads the file that is named, or else the first that is there. With an empty name none is read.
    pub(super) fn find(named: Option<&OsStr>) -> Result<Self, Failure> {
        let found = match named {
            Some(name) if name.is_empty() => None,
            Some(name) => Some(PathBuf::from(name)),
            None => places(|name| env::var_os(name).map(PathBuf::from))
                .into_iter()
                .find(|path| path.exists()),
        };
        found.map_or_else(|| Ok(Self::default()), |path| Self::read(&path))
    }

    fn read(path: &Path) -> Result<Self, Failure> {
        let file = vbridge_settings::read::<Self>(path);
        let file = file.map_err(|error| Failure::new(error.to_string()))?;
        Ok(Self {
            path: path.to_owned(),
            ..file
        })
    }

    /// Where the bridge is.
    pub(super) fn bridge(&self) -> Result<Option<BridgeAddress>, Failure> {
        let socket = self.connection.socket_path.as_ref().map(|path| &path.0);
        let names = ["bridge", "connection.socket_path"];
        Ok(self.one(self.bridge.as_ref(), socket, names)?.cloned())
    }

    /// How long an answer may take.
    pub(super) fn timeout(&self) -> Result<Option<Time>, Failure> {
        let names = ["timeout", "connection.read_timeout"];
        self.one(self.timeout, self.connection.read_timeout, names)
    }

    /// How long it may take to connect.
    pub(super) fn connect_timeout(&self) -> Result<Option<Time>, Failure> {
        let names = ["connect_timeout", "connection.connect_timeout"];
        self.one(self.connect_timeout, self.connection.connect_timeout, names)
    }

    /// How long the bridge may take nothing of what is written.
    pub(super) fn write_timeout(&self) -> Option<Time> {
        self.connection.write_timeout
    }

    /// How many retries there are.
    pub(super) fn retries(&self) -> Result<Option<Times>, Failure> {
        let names = ["retries", "retry.max_retries"];
        self.one(self.retries, self.retry.max_retries, names)
    }

    /// What the bridge and the guest are shown.
    pub(super) fn proof(&self) -> Proof {
        Proof {
            ca: self.ca.clone(),
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            token_file: self.token_file.clone(),
            call_key_file: self.call_key_file.clone(),
        }
    }

    /// What is there and has no effect, in one sentence.
    pub(super) fn warning(&self) -> Option<String> {
        let Logging {
            file,
            max_size,
            backup_count,
            ..
        } = &self.logging;
        let all = [
            ("file", file),
            ("max_size", max_size),
            ("backup_count", backup_count),
        ];
        let there: Vec<&str> = all
            .iter()
            .filter_map(|(name, value)| value.is_some().then_some(*name))
            .collect();
        (!there.is_empty()).then(|| {
            format!(
                "{}: a command writes to standard error and to no file, so that {} under logging has no effect; take it out, or send standard error where you want it",
                self.path.display(),
                there.join(", ")
            )
        })
    }

    fn one<T>(
        &self,
        ours: Option<T>,
        other: Option<T>,
        names: [&str; 2],
    ) -> Result<Option<T>, Failure> {
        match (ours, other) {
            (Some(_), Some(_)) => Err(Failure::new(format!(
                "{}: `{}` and `{}` say the same: leave one of them out",
                self.path.display(),
                names[0],
                names[1]
            ))),
            (ours, other) => Ok(ours.or(other)),
        }
    }
}

/// Where a file may be, in the order in which they are looked for.
fn places(variable: impl Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    let folder = variable("XDG_CONFIG_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| Some(variable("HOME")?.join(".config")));
    let of_user = folder
        .into_iter()
        .flat_map(|folder| OF_USER.map(|name| folder.join(name)));
    of_user.chain([OF_ALL.into()]).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vbridge_settings::{Format, parse};

    use super::*;

    /// The design's `host_config.yaml`, but for the path.
    const DESIGN: &str = "\
# host_config.yaml
connection:
  socket_path: /run/vbridge/vbridge.sock
  connect_timeout: 5
  read_timeout: 30
  write_timeout: 30

retry:
  max_retries: 3
  retry_interval: 1
  backoff_factor: 2

logging:
  level: INFO
  file: /var/log/virtio-rpc-host.log
  max_size: 10MB
  backup_count: 5
";

    fn yaml(text: &str) -> Result<ClientFile, String> {
        let path = Path::new("client.yaml");
        parse(text, Format::Yaml, path).map_err(|error| error.to_string())
    }

    #[test]
    fn the_designs_file_is_taken_as_it_stands() {
        let file = yaml(DESIGN).unwrap();
        let seconds = |seconds| Some(Time(Duration::from_secs(seconds)));
        let socket = "unix:/run/vbridge/vbridge.sock".parse().unwrap();
        assert_eq!(file.bridge().unwrap(), Some(socket));
        assert_eq!(file.connect_timeout().unwrap(), seconds(5));
        assert_eq!(file.timeout().unwrap(), seconds(30));
        assert_eq!(file.write_timeout(), seconds(30));
        assert_eq!(file.retries().unwrap(), Some(Times(3)));
        let interval = Pause(Duration::from_secs(1));
        assert_eq!(file.retry.retry_interval, Some(interval));
        assert_eq!(file.retry.backoff_factor, Some(Factor(2.0)));
        assert_eq!(file.logging.level, Some(Level(true)));
        let warning = file.warning().unwrap();
        assert!(
            warning.contains("file, max_size, backup_count"),
            "{warning}"
        );
    }

    #[test]
    fn ours_is_flat_and_times_may_be_words() {
        let text = "bridge = \"hv1:7411\"\ntimeout = \"1m\"\nconnect_timeout = 0.5\nretries = 0\n\
                    ca = \"/ca\"\ncertificate = \"/c\"\nkey = \"/k\"\ntoken_file = \"/t\"\ncall_key_file = \"/s\"\n";
        let file: ClientFile = parse(text, Format::Toml, Path::new("client.toml")).unwrap();
        assert_eq!(file.bridge().unwrap().unwrap().to_string(), "hv1:7411");
        assert_eq!(file.timeout().unwrap(), Some(Time(Duration::from_secs(60))));
        let half = Time(Duration::from_millis(500));
        assert_eq!(file.connect_timeout().unwrap(), Some(half));
        assert_eq!(file.retries().unwrap(), Some(Times(0)));
        assert_eq!(file.proof().call_key_file, Some("/s".into()));
        assert_eq!(file.warning(), None);
    }

    #[test]
    fn the_example_that_is_delivered_is_what_holds_without_it() {
        let file = yaml(include_str!("../../../dist/client.yaml")).unwrap();
        let seconds = |seconds| Some(Time(Duration::from_secs(seconds)));
        assert_eq!(file.timeout().unwrap(), seconds(10));
        assert_eq!(file.connect_timeout().unwrap(), seconds(5));
        assert_eq!(file.retries().unwrap(), Some(Times(3)));
        assert_eq!(file.warning(), None);
    }

    #[test]
    fn a_wrong_key_or_value_is_named_with_its_line() {
        for (from, to, line, words) in [
            (
                "read_timeout",
                "red_timeout",
                5,
                "did you mean `read_timeout`?",
            ),
            (
                "backoff_factor",
                "backof_factor",
                11,
                "did you mean `backoff_factor`?",
            ),
            ("logging", "loging", 13, "did you mean `logging`?"),
            (
                "connect_timeout: 5",
                "connect_timeout: soon",
                4,
                "no length of time",
            ),
            (
                "connect_timeout: 5",
                "connect_timeout: 0",
                4,
                "more than nothing",
            ),
            (
                "connect_timeout: 5",
                "connect_timeout: -1",
                4,
                "no length of time",
            ),
            ("max_retries: 3", "max_retries: 1000", 9, "from 0 to 100"),
            ("max_retries: 3", "max_retries: 1.5", 9, "from 0 to 100"),
            (
                "backoff_factor: 2",
                "backoff_factor: 0.5",
                11,
                "from 1 to 100",
            ),
            (
                "level: INFO",
                "level: LOUD",
                14,
                "\"LOUD\" is not a log level",
            ),
            (
                "/run/vbridge/vbridge.sock",
                "vbridge.sock",
                3,
                "not an absolute path",
            ),
            (
                "/run/vbridge/vbridge.sock",
                "/var/lib/libvirt/qemu/channel/target/domain-26-UCypher-newtest1/test.vserial.0",
                3,
                "the bridge holds it",
            ),
        ] {
            let error = yaml(&DESIGN.replace(from, to)).unwrap_err();
            let place = format!("client.yaml, line {line}: ");
            assert!(
                error.starts_with(&place) && error.contains(words),
                "{error}"
            );
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn what_is_said_twice_is_refused() {
        for (text, names) in [
            ("timeout: 5\n", ["timeout", "connection.read_timeout"]),
            ("bridge: a:1\n", ["bridge", "connection.socket_path"]),
            ("retries: 1\n", ["retries", "retry.max_retries"]),
        ] {
            let file = yaml(&format!("{text}{DESIGN}")).unwrap();
            let failures = [
                file.timeout().err(),
                file.bridge().err(),
                file.retries().err(),
            ];
            let said = failures.iter().flatten().filter_map(Failure::sentence);
            let said: Vec<&str> = said.collect();
            assert!(
                said.len() == 1 && names.iter().all(|name| said[0].contains(name)),
                "{said:?}"
            );
        }
    }

    #[test]
    fn a_users_own_file_goes_before_the_machines() {
        let home = |name: &str| (name == "HOME").then(|| "/home/ann".into());
        let paths = [
            "/home/ann/.config/vbridge/client.toml",
            "/home/ann/.config/vbridge/client.yaml",
            "/etc/vbridge/client.yaml",
        ];
        assert_eq!(places(home), paths.map(PathBuf::from));
        assert_eq!(places(|_| None), [PathBuf::from(OF_ALL)]);
        let named = Some("/nowhere/client.yaml".as_ref());
        let failure = ClientFile::find(named).unwrap_err();
        assert!(
            failure.sentence().unwrap().contains("no such file"),
            "{failure:?}"
        );
        assert!(ClientFile::find(Some("".as_ref())).is_ok());
    }
}
