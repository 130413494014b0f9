//! The tables, in both formats, and what is wrong in them.

use std::path::Path;

use vbridge_settings::{Format, parse};

use super::*;

/// The first design's own file, as it stands.
const SEED: &str = "\
# guest_config.yaml
device:
  path: /dev/virtio-ports/test.vserial.0
  buffer_size: 65536

server:
  max_request_size: 10MB
  request_timeout: 60

security:
  enable_auth: false
  allowed_commands: []  # 空表示使用默认白名单
  allowed_paths:
    - /tmp/
    - /var/log/
    - /home/

logging:
  level: INFO
  file: /var/log/virtio-rpc-guest.log
  max_size: 10MB
  backup_count: 5
";

fn yaml(text: &str) -> Result<Layer, String> {
    parse(text, Format::Yaml, Path::new("a.yaml")).map_err(|error| error.to_string())
}

fn toml(text: &str) -> Result<Layer, String> {
    parse(text, Format::Toml, Path::new("a.toml")).map_err(|error| error.to_string())
}

#[test]
fn the_first_designs_file_is_read_as_it_stands() {
    let layer = yaml(SEED).unwrap();
    assert_eq!(layer.port, Some("/dev/virtio-ports/test.vserial.0".into()));
    assert_eq!(layer.max_request_size, Some(10 << 20));
    assert_eq!(layer.request_timeout, Some(Duration::from_secs(60)));
    assert_eq!(layer.log.as_deref(), Some("info"));
    let file = LogFile {
        path: "/var/log/virtio-rpc-guest.log".into(),
        max_size: 10 << 20,
        backups: 5,
    };
    assert_eq!(layer.log_file, Some(file));
    assert_eq!(layer.call_key_file, None);
    let lists = layer.policy.as_ref().unwrap().lists().unwrap();
    assert_eq!(lists.programs(), <[String; 0]>::default());
    assert_eq!(lists.folders().unwrap(), ["/tmp/", "/var/log/", "/home/"]);
    assert_eq!(layer.warnings.len(), 1, "{:?}", layer.warnings);
    assert!(layer.warnings[0].contains("buffer_size"));
}

#[test]
fn both_formats_say_the_same_in_tables_as_well() {
    let text = "[device]\npath = \"/dev/x\"\n[server]\nmax_request_size = \"64 kb\"\nrequest_timeout = 0.5\n\
        [security]\nenable_auth = true\nauth_key_file = \"/k\"\n[logging]\nlevel = \"warning\"\nfile = \"/l\"\n";
    let same = "device: {path: /dev/x}\nserver: {max_request_size: 65536, request_timeout: 0.5}\n\
        security: {enable_auth: true, auth_key_file: /k}\nlogging: {level: Warning, file: /l}\n";
    let layer = toml(text).unwrap();
    assert_eq!(Ok(&layer), yaml(same).as_ref());
    assert_eq!(layer.call_key_file, Some("/k".into()));
    assert_eq!(layer.request_timeout, Some(Duration::from_millis(500)));
    assert_eq!((layer.log.as_deref(), layer.policy), (Some("warn"), None));
    assert_eq!(yaml("server: {}\nlogging: {}\n"), Ok(Layer::default()));
}

#[test]
fn levels_have_pythons_names_in_any_case() {
    for (level, filter) in [
        ("DEBUG", "debug"),
        ("info", "info"),
        ("Warning", "warn"),
        ("ERROR", "error"),
        ("critical", "error"),
    ] {
        let layer = yaml(&format!("logging: {{level: {level}}}\n")).unwrap();
        assert_eq!(layer.log.as_deref(), Some(filter));
    }
}

#[test]
fn lists_of_commands_make_the_policy_restricted() {
    let layer = yaml("security: {allowed_commands: []}\n").unwrap();
    let rules = layer.policy.unwrap().rules().unwrap();
    assert_eq!(Ok(rules), agent_guest::Rules::of_lists(&[], None));
    let layer = yaml("security: {enable_auth: false}\n").unwrap();
    assert_eq!(layer.policy, None);
}

#[test]
fn an_unknown_key_of_a_table_is_named_with_its_line_and_the_nearest() {
    for (error, name) in [
        (toml("\n[server]\nrequest_timout = 60\n"), "a.toml"),
        (yaml("\nserver:\n  request_timout: 60\n"), "a.yaml"),
    ] {
        let expected = format!(
            "{name}, line 3: unknown key `request_timout`: did you mean `request_timeout`?"
        );
        assert_eq!(error, Err(expected));
    }
    let error = yaml("sever:\n  request_timeout: 60\n").unwrap_err();
    assert!(
        error.ends_with("line 1: unknown key `sever`: did you mean `server`?"),
        "{error}"
    );
}

#[test]
fn a_wrong_value_of_a_table_is_one_sentence_with_its_line() {
    for (text, words) in [
        ("device:\n  buffer_size: 0\n", "at least 1"),
        (
            "device:\n  buffer_size: many\n",
            "\"many\" is not a number of bytes",
        ),
        ("device:\n  path: ''\n", "must not be empty"),
        ("device: /dev/x\n", "invalid type"),
        (
            "server:\n  max_request_size: 10TB\n",
            "\"10TB\" is not a number of bytes",
        ),
        (
            "server:\n  max_request_size: -1\n",
            "-1 is not a number of bytes",
        ),
        ("server:\n  max_request_size: 1KB\n", "at least 16384 bytes"),
        (
            "server:\n  max_request_size: 99999999999GB\n",
            "is not a number of bytes",
        ),
        (
            "server:\n  request_timeout: 0\n",
            "0 is not a number of seconds",
        ),
        (
            "server:\n  request_timeout: 1000000\n",
            "is not a number of seconds",
        ),
        (
            "server:\n  request_timeout: .nan\n",
            "is not a number of seconds",
        ),
        (
            "server:\n  request_timeout: 60s\n",
            "is not a number of seconds",
        ),
        ("security:\n  enable_auth: true\n", "auth_key_file"),
        ("security:\n  enable_auth: maybe\n", "invalid type"),
        ("security:\n  allowed_paths: []\n", "allowed_paths is empty"),
        ("security:\n  allowed_paths: [/root/]\n", "closed to hosts"),
        (
            "security:\n  allowed_commands: [./x]\n",
            "\"./x\" is no program",
        ),
        (
            "logging:\n  level: LOUD\n",
            "\"LOUD\" is none of DEBUG, INFO",
        ),
        ("logging:\n  max_size: 1KB\n", "max_size must be"),
        ("logging:\n  backup_count: 101\n", "100 is the most"),
        ("logging:\n  backup_count: -1\n", "-1"),
    ] {
        let error = yaml(text).unwrap_err();
        assert!(
            error.contains(words) && error.contains(", line "),
            "{error}"
        );
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn what_a_key_and_a_table_both_set_is_refused_in_either_order() {
    for (key, table, name) in [
        ("port: /dev/a", "device: {path: /dev/b}", "device.path"),
        (
            "policy: observe",
            "security: {allowed_commands: []}",
            "security",
        ),
        ("log: info", "logging: {level: INFO}", "logging.level"),
        (
            "call_key_file: /a",
            "security: {enable_auth: true, auth_key_file: /b}",
            "security.auth_key_file",
        ),
    ] {
        let both = format!(
            "`{}` and `{name}` of this file",
            key.split(':').next().unwrap()
        );
        for text in [format!("{key}\n{table}\n"), format!("{table}\n{key}\n")] {
            let error = yaml(&text).unwrap_err();
            assert!(error.contains(&both) && error.contains("line 2"), "{error}");
        }
    }
    assert!(yaml("policy: observe\nsecurity: {enable_auth: false}\n").is_ok());
}

#[test]
fn a_key_that_is_not_used_is_told() {
    let layer = yaml("security: {enable_auth: false, auth_key_file: /k}\n").unwrap();
    assert_eq!(layer.call_key_file, None);
    assert!(
        layer.warnings[0].contains("auth_key_file"),
        "{:?}",
        layer.warnings
    );
}
