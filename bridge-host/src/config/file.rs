//! The configuration file as serde sees it.

use std::path::PathBuf;

use serde::Deserialize;

use super::{
    Config, ConfigError, GuestEntry, MAX_LISTEN,
    access::{CallerForm, RuleForm, TlsForm},
    guest::AgentName,
    link::LinkForm,
    value::{ChannelName, Level, Name, SocketPath, Text},
};
use crate::{ListenAddress, discovery::SocketPattern};

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileForm {
    listen: Vec<Text<ListenAddress>>,
    guest: Vec<GuestForm>,
    libvirt: Vec<String>,
    channel: Option<Text<ChannelName>>,
    qemu_agent: Option<bool>,
    sockets: Vec<Text<SocketPattern>>,
    tls: Option<TlsForm>,
    link: Option<LinkForm>,
    caller: Vec<CallerForm>,
    rule: Vec<RuleForm>,
    audit: Option<PathBuf>,
    log: Option<Text<Level>>,
}

/// One guest of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GuestForm {
    name: Text<Name>,
    channel: Text<SocketPath>,
    monitor: Option<Text<SocketPath>>,
    listen: Option<Text<ListenAddress>>,
    key_file: Option<PathBuf>,
    tls_name: Option<String>,
    agent: Option<Text<AgentName>>,
}

impl FileForm {
    /// What the file says.
    pub(super) fn config(self) -> Result<Config, ConfigError> {
        if self.listen.len() > MAX_LISTEN {
            return Err(ConfigError::TooManyAddresses(self.listen.len()));
        }
        let mut config = Config {
            listen: self.listen.into_iter().map(|address| address.0).collect(),
            libvirt: self.libvirt,
            channel: self.channel.map(|name| name.0.0),
            qemu_agent: self.qemu_agent,
            link: self
                .link
                .map(LinkForm::settings)
                .transpose()?
                .unwrap_or_default(),
            sockets: self.sockets.into_iter().map(|pattern| pattern.0).collect(),
            tls: self.tls.map(Into::into),
            audit: self.audit,
            log: self.log.map(|level| level.0.0),
            ..Config::default()
        };
        for guest in self.guest {
            config.add_guest(guest.into())?;
        }
        for caller in self.caller {
            config.access.callers.push(caller.spec()?);
        }
        config.access.rules = self.rule.into_iter().map(Into::into).collect();
        Ok(config)
    }
}

impl From<GuestForm> for GuestEntry {
    fn from(form: GuestForm) -> Self {
        Self {
            name: form.name.0.0,
            channel: form.channel.0.0,
            monitor: form.monitor.map(|path| path.0.0),
            listen: form.listen.map(|address| address.0),
            key_file: form.key_file,
            tls_name: form.tls_name,
            agent: form.agent.map(|name| name.0.0).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tracing::level_filters::LevelFilter;

    use super::*;
    use crate::config::{Format, tests::assert_says};

    const TOML: &str = r#"
listen = ["127.0.0.1:7411", "unix:/run/vbridge/vbridge.sock"]
log = "debug"

[[guest]]
name = "web"
channel = "unix:/run/vms/web.sock"
monitor = "unix:/run/vms/web.qmp"
listen = "127.0.0.1:7500"
key_file = "/etc/vbridge/web.key"

[[guest]]
name = "db"
channel = "unix:/run/vms/db.sock"
"#;

    const YAML: &str = "
listen:
  - 127.0.0.1:7411
  - unix:/run/vbridge/vbridge.sock
log: debug
guest:
  - name: web
    channel: unix:/run/vms/web.sock
    monitor: unix:/run/vms/web.qmp
    listen: 127.0.0.1:7500
    key_file: /etc/vbridge/web.key
  - name: db
    channel: unix:/run/vms/db.sock
";

    fn toml(text: &str) -> Result<Config, String> {
        Config::parse(text, Format::Toml, Path::new("b.toml")).map_err(|error| error.to_string())
    }

    fn yaml(text: &str) -> Result<Config, String> {
        Config::parse(text, Format::Yaml, Path::new("b.yaml")).map_err(|error| error.to_string())
    }

    #[test]
    fn toml_and_yaml_say_the_same() {
        for config in [toml(TOML).unwrap(), yaml(YAML).unwrap()] {
            assert_eq!(config.listen.len(), 2);
            assert_eq!(config.log, Some(LevelFilter::DEBUG));
            assert_eq!(config.guests.len(), 2);
            let web = GuestEntry {
                name: "web".into(),
                channel: "/run/vms/web.sock".into(),
                monitor: Some("/run/vms/web.qmp".into()),
                listen: Some("127.0.0.1:7500".parse().unwrap()),
                key_file: Some("/etc/vbridge/web.key".into()),
                ..config.guests[1].clone()
            };
            assert_eq!(config.guests[0], web);
        }
    }

    #[test]
    fn places_where_guests_are_found_are_read_and_checked() {
        let text = r#"
libvirt = ["qemu:///system", "test:///default"]
channel = "org.example.0"
sockets = ["/run/others/*.sock"]
"#;
        let config = toml(text).unwrap();
        let uris = ["qemu:///system", "test:///default"];
        assert_eq!(config.libvirt, uris);
        assert_eq!(config.channel.as_deref(), Some("org.example.0"));
        assert_eq!(config.sockets, ["/run/others/*.sock".parse().unwrap()]);
        assert_says(
            toml("sockets = [\"a\"]"),
            &["line 1", "absolute", "/FOLDER/*.sock"],
        );
        assert_says(
            toml("channel = \"a b\""),
            &["line 1", "\"a b\"", "org.vbridge.agent.0"],
        );
    }

    #[test]
    fn an_empty_file_is_an_empty_configuration() {
        for config in [toml(""), yaml(""), yaml("# nothing\n")] {
            assert!(config.unwrap().guests.is_empty());
        }
    }

    #[test]
    fn the_example_that_is_delivered_is_valid() {
        let example = include_str!("../../dist/vbridge.toml");
        assert_eq!(toml(example).unwrap().guests.len(), 1);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
        let message = "b.toml, line 2: unknown key `lisen`: did you mean `listen`?";
        assert_eq!(toml("\nlisen = []\n").unwrap_err(), message);
        assert_says(
            toml(&TOML.replace("key_file", "key-file")),
            &["line 10", "`key-file`", "did you mean `key_file`?"],
        );
        assert_says(
            toml("colour = 1"),
            &[
                "line 1",
                "`colour`",
                "listen, guest, libvirt, channel, qemu_agent, sockets, tls, link, caller, rule, audit, log",
            ],
        );
        assert_says(
            yaml(&YAML.replace("monitor:", "monitr:")),
            &["b.yaml, line 9", "`monitr`", "did you mean `monitor`?"],
        );
    }

    #[test]
    fn a_bad_value_is_named_with_its_line() {
        let with = |from: &str, to: &str| toml(&TOML.replace(from, to));
        assert_says(with("\"web\"", "\"-web\""), &["line 6", "-web", "dash"]);
        assert_says(
            with("\"web\"", "\"Bridge\""),
            &["line 6", "the bridge's own"],
        );
        assert_says(with("\"web\"", "\"a b\""), &["line 6", "\"a b\""]);
        assert_says(
            with("127.0.0.1:7500", "localhost"),
            &["line 9", "\"localhost\"", "7411"],
        );
        assert_says(
            with("unix:/run/vms/web.sock", "/run/web"),
            &["line 7", "unix:PATH"],
        );
        assert_says(
            with("\"debug\"", "\"loud\""),
            &["line 3", "\"loud\"", "trace"],
        );
        assert_says(with("\"debug\"", "7"), &["line 3", "integer"]);
        assert_says(
            with("channel = \"unix:/run/vms/db.sock\"", ""),
            &["`channel` is missing"],
        );
        assert_says(with("[[guest]]", "[[guest"), &["line 5"]);
        assert_says(
            yaml(&YAML.replace("127.0.0.1:7500", "localhost")),
            &["line 10", "\"localhost\""],
        );
        assert_says(yaml("listen: [\n"), &["b.yaml, line"]);
    }

    #[test]
    fn two_guests_of_one_name_are_refused_in_any_letter_case() {
        assert_says(
            toml(&TOML.replace("\"db\"", "\"WEB\"")),
            &["two guests", "WEB"],
        );
    }

    #[test]
    fn a_file_that_can_not_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let read = |path: &Path| Config::read(path).map_err(|error| error.to_string());
        assert_says(
            read(&dir.path().join("no.toml")),
            &["no.toml", "no such file"],
        );
        let path = dir.path().join("vbridge.conf");
        std::fs::write(&path, "").unwrap();
        assert_says(read(&path), &["vbridge.conf", ".toml", ".yaml"]);
    }
}
