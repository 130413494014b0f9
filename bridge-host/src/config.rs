//! The configuration file: TOML or YAML, by its ending.
//!
//! ```toml
//! listen = ["127.0.0.1:7411", "unix:/run/vbridge/vbridge.sock"]
//! log = "info"
//!
//! [[guest]]
//! name = "web"
//! channel = "unix:/run/vms/web.sock"
//! monitor = "unix:/run/vms/web.qmp"
//! listen = "127.0.0.1:7500"
//! key_file = "/etc/vbridge/web.key"
//! ```
//!
//! Every value is checked while it is read, so that an error names its line.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read as _},
    marker::PhantomData,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, de::Visitor};
use tracing::level_filters::LevelFilter;
use vbridge_link::{Key, KeyError};

use crate::{BridgeBuilder, BridgeError, GuestSpec, ListenAddress, check_name};

/// Guests that one bridge takes: each costs two descriptors and some memory, and a longer list is most likely the
/// work of a script gone wrong. More is an error.
pub const MAX_GUESTS: usize = 4096;

/// Addresses on which all guests are offered. A host has a handful; more is an error.
pub const MAX_LISTEN: usize = 64;

/// Bytes of a configuration file: [`MAX_GUESTS`] guests with long paths fit. A longer one is refused unread.
pub const MAX_FILE: u64 = 1024 * 1024;

/// Where the bridge listens if nobody says: this machine only.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7411";

/// What the operator wrote.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Where all guests are offered.
    pub listen: Vec<ListenAddress>,
    /// The guests, in the order of the file.
    pub guests: Vec<GuestEntry>,
    /// How much is logged.
    pub log: Option<LevelFilter>,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// It can't be read, is too long, has another ending, or something in it is wrong.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let failed = |why: String| ConfigError::Read {
            path: path.to_owned(),
            why,
        };
        let metadata = fs::metadata(path).map_err(|error| failed(read_text(&error)))?;
        if !metadata.is_file() {
            return Err(failed(format!("it is {}, not a file", kind(&metadata))));
        }
        let format = Format::of(path)?;
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
            .map_err(|error| failed(read_text(&error)))?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(failed(format!("it is longer than {MAX_FILE} bytes")));
        }
        let text = String::from_utf8(bytes).map_err(|_| failed("it is not UTF-8 text".into()))?;
        Self::parse(&text, format, path)
    }

    /// Reads a text as if it were the file `path`, which errors name.
    ///
    /// # Errors
    /// Something in it is wrong.
    pub fn parse(text: &str, format: Format, path: &Path) -> Result<Self, ConfigError> {
        let form = match format {
            Format::Toml => toml::from_str(text).map_err(|error| {
                let line = error.span().map(|span| line_of(text, span.start));
                (line, error.message().to_owned())
            }),
            Format::Yaml => serde_norway::from_str::<Option<FileForm>>(text)
                .map(Option::unwrap_or_default)
                .map_err(|error| yaml_text(&error)),
        };
        let form: FileForm = form.map_err(|(line, message)| ConfigError::Content {
            path: path.to_owned(),
            line: line
                .map(|line| format!(", line {line}"))
                .unwrap_or_default(),
            message: reword(&message),
        })?;
        let mut config = Self {
            log: form.log.map(|level| level.0.0),
            ..Self::default()
        };
        config.listen = form.listen.into_iter().map(|address| address.0).collect();
        if config.listen.len() > MAX_LISTEN {
            return Err(ConfigError::TooManyAddresses(config.listen.len()));
        }
        for guest in form.guest {
            config.add_guest(guest.into())?;
        }
        Ok(config)
    }

    /// Adds a guest.
    ///
    /// # Errors
    /// There is one of that name already, in any letter case, or there are too many.
    pub fn add_guest(&mut self, guest: GuestEntry) -> Result<(), ConfigError> {
        let is_same = |other: &GuestEntry| other.name.eq_ignore_ascii_case(&guest.name);
        if self.guests.iter().any(is_same) {
            return Err(BridgeError::DuplicateGuest(guest.name).into());
        }
        if self.guests.len() >= MAX_GUESTS {
            return Err(ConfigError::TooManyGuests);
        }
        self.guests.push(guest);
        Ok(())
    }

    /// Describes the bridge; reads the guests' keys. Without an address it listens on [`DEFAULT_LISTEN`].
    ///
    /// # Errors
    /// There is no guest, or a key can't be used.
    pub fn bridge(&self) -> Result<BridgeBuilder, ConfigError> {
        if self.guests.is_empty() {
            return Err(ConfigError::NoGuests);
        }
        let mut builder = crate::Bridge::builder();
        if self.listen.is_empty() {
            // The constant is an address: a test below reads it.
            let address = DEFAULT_LISTEN.parse().unwrap_or_else(|_| unreachable!());
            builder = builder.listen(address);
        }
        for address in &self.listen {
            builder = builder.listen(address.clone());
        }
        for guest in &self.guests {
            builder = builder.guest(guest.spec()?);
        }
        Ok(builder)
    }
}

/// A guest as the operator wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestEntry {
    /// What calls route by.
    pub name: String,
    /// The Unix socket of its virtio-serial channel.
    pub channel: PathBuf,
    /// A QEMU monitor (QMP) socket for the bridge alone: it tells pauses at once.
    pub monitor: Option<PathBuf>,
    /// A listen address of its own.
    pub listen: Option<ListenAddress>,
    /// A file with the key that its agent must prove.
    pub key_file: Option<PathBuf>,
}

impl GuestEntry {
    /// The guest as the bridge takes it, with its key read.
    ///
    /// # Errors
    /// The key can't be read, or others than its owner may read it.
    pub fn spec(&self) -> Result<GuestSpec, ConfigError> {
        let mut spec = GuestSpec::new(self.name.clone(), self.channel.clone());
        spec.monitor.clone_from(&self.monitor);
        spec.listen.clone_from(&self.listen);
        if let Some(path) = &self.key_file {
            let key = read_key(path).map_err(|why| ConfigError::Key {
                guest: self.name.clone(),
                path: path.clone(),
                why,
            })?;
            spec.key = Some(key);
        }
        Ok(spec)
    }
}

/// In `NAME=unix:PATH[,monitor=unix:PATH][,listen=ADDRESS][,key-file=PATH]`, a comma that belongs to a path is written
/// twice, as QEMU does.
impl FromStr for GuestEntry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "write NAME=unix:PATH, like web=unix:/run/vms/web.sock";
        let mut parts = split_options(text).into_iter();
        let first = parts.next().unwrap_or_default();
        let Some((name, channel)) = first.split_once('=') else {
            return Err(format!("the guest's channel is missing; {FORM}"));
        };
        let mut guest = Self {
            name: name.parse::<Name>()?.0,
            channel: channel.parse::<SocketPath>()?.0,
            monitor: None,
            listen: None,
            key_file: None,
        };
        for part in parts {
            let (option, value) = part.split_once('=').unwrap_or((&part, ""));
            let is_twice = match option {
                "monitor" => guest
                    .monitor
                    .replace(value.parse::<SocketPath>()?.0)
                    .is_some(),
                "listen" => {
                    let address = value.parse().map_err(|error| format!("{error}"));
                    guest.listen.replace(address?).is_some()
                }
                "key-file" if value.is_empty() => return Err("key-file needs a path".into()),
                "key-file" => guest.key_file.replace(value.into()).is_some(),
                other => {
                    let other = other.escape_debug();
                    return Err(format!(
                        "\"{other}\" is no option of a guest; there are monitor=unix:PATH, listen=ADDRESS and \
                         key-file=PATH, and a comma in a path is written twice"
                    ));
                }
            };
            if is_twice {
                return Err(format!(
                    "{option} is given twice for guest \"{}\"",
                    guest.name
                ));
            }
        }
        Ok(guest)
    }
}

/// How a configuration file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `.toml`
    Toml,
    /// `.yaml`, `.yml`
    Yaml,
}

impl Format {
    /// By the ending of a path.
    ///
    /// # Errors
    /// The ending is another, or there is none.
    pub fn of(path: &Path) -> Result<Self, ConfigError> {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("toml") => Ok(Self::Toml),
            Some("yaml" | "yml") => Ok(Self::Yaml),
            _ => Err(ConfigError::Ending(path.to_owned())),
        }
    }
}

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file can't be read.
    #[error("can't read the configuration file {path}: {why}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What is the matter with it.
        why: String,
    },
    /// The file's ending tells no format.
    #[error("the ending of {path} does not tell its format; name it .toml, .yaml or .yml", path = .0.display())]
    Ending(PathBuf),
    /// Something in the file is wrong.
    #[error("{path}{line}: {message}", path = .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Where in it: `, line 3`, or nothing.
        line: String,
        /// What is wrong.
        message: String,
    },
    /// A guest's key can't be used.
    #[error("can't use the key {path} of guest \"{guest}\": {why}", path = .path.display())]
    Key {
        /// The guest.
        guest: String,
        /// The file.
        path: PathBuf,
        /// What is the matter with it.
        why: String,
    },
    /// No guest at all.
    #[error("no guest is named; give one with --guest NAME=unix:PATH, or in the file of --config")]
    NoGuests,
    /// More guests than a bridge takes.
    #[error(
        "there are more than {MAX_GUESTS} guests, which is the limit of one bridge; run several bridges"
    )]
    TooManyGuests,
    /// More addresses than a bridge takes.
    #[error("there are {0} addresses to listen on, and the limit is {MAX_LISTEN}")]
    TooManyAddresses(usize),
    /// What the bridge itself objects to.
    #[error(transparent)]
    Bridge(#[from] BridgeError),
}

/// The file as serde sees it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileForm {
    listen: Vec<Text<ListenAddress>>,
    guest: Vec<GuestForm>,
    log: Option<Text<Level>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GuestForm {
    name: Text<Name>,
    channel: Text<SocketPath>,
    monitor: Option<Text<SocketPath>>,
    listen: Option<Text<ListenAddress>>,
    key_file: Option<PathBuf>,
}

impl From<GuestForm> for GuestEntry {
    fn from(form: GuestForm) -> Self {
        Self {
            name: form.name.0.0,
            channel: form.channel.0.0,
            monitor: form.monitor.map(|path| path.0.0),
            listen: form.listen.map(|address| address.0),
            key_file: form.key_file,
        }
    }
}

/// A value that is written as a string.
#[derive(Debug)]
struct Text<T>(T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor(PhantomData))
    }
}

/// Parses inside of the deserializer, so that an error has the line of the value and not of the block around it.
struct TextVisitor<T>(PhantomData<T>);

impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for TextVisitor<T> {
    type Value = Text<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Text<T>, E> {
        text.parse().map(Text).map_err(E::custom)
    }
}

#[derive(Debug)]
struct Name(String);

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        check_name(text).map_err(|error| error.to_string())?;
        Ok(Self(text.to_owned()))
    }
}

#[derive(Debug)]
struct SocketPath(PathBuf);

impl FromStr for SocketPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) if !path.is_empty() => Ok(Self(path.into())),
            _ => Err(format!(
                "\"{}\" is not a Unix socket; write unix:PATH, like unix:/run/vms/web.sock",
                text.escape_debug()
            )),
        }
    }
}

#[derive(Debug)]
struct Level(LevelFilter);

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| {
            format!(
                "\"{}\" is not a log level; there are off, error, warn, info, debug and trace",
                text.escape_debug()
            )
        })
    }
}

/// Splits at single commas; two commas stand for one that belongs to the text.
fn split_options(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == ',' && chars.next_if_eq(&',').is_none() {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts
}

fn read_key(path: &Path) -> Result<Key, String> {
    let metadata = fs::metadata(path).map_err(|error| read_text(&error))?;
    if !metadata.is_file() {
        return Err(format!("it is {}, not a file", kind(&metadata)));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(format!(
            "others than its owner have access to it; run `chmod 600 {}`",
            path.display()
        ));
    }
    Key::read(path).map_err(|error| match error {
        KeyError::Io(error) => read_text(&error),
        KeyError::Length(_) => error.to_string(),
    })
}

fn kind(metadata: &fs::Metadata) -> &'static str {
    if metadata.is_dir() {
        "a directory"
    } else {
        "a device, pipe or socket"
    }
}

/// An `io::Error` of reading in words.
fn read_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".into(),
        io::ErrorKind::PermissionDenied => {
            "permission denied; let the bridge's user read it".into()
        }
        _ => error.to_string(),
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    before.filter(|byte| **byte == b'\n').count() + 1
}

/// Where and what, of serde_norway's "what at line L column C".
fn yaml_text(error: &serde_norway::Error) -> (Option<usize>, String) {
    let text = error.to_string();
    let Some(place) = error.location() else {
        return (None, text);
    };
    let suffix = format!(" at line {} column {}", place.line(), place.column());
    (Some(place.line()), text.replace(&suffix, ""))
}

/// serde's words in ours. Where they are others than expected, they stay as they are.
fn reword(message: &str) -> String {
    if let Some((_, rest)) = message.split_once("unknown field `")
        && let Some((unknown, rest)) = rest.split_once('`')
    {
        // "expected one of `listen`, `guest`": what is between backticks.
        let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
        let advice = match nearest(unknown, &known) {
            Some(key) => format!("did you mean \"{key}\"?"),
            None => format!("the keys here are {}", known.join(", ")),
        };
        return format!("there is no key \"{}\"; {advice}", unknown.escape_debug());
    }
    if let Some((_, rest)) = message.split_once("missing field `")
        && let Some((missing, _)) = rest.split_once('`')
    {
        return format!("the key \"{missing}\" is missing here");
    }
    let lines: Vec<&str> = message.lines().map(str::trim).collect();
    lines.join(", ")
}

/// The known key that a misspelt one is most likely meant to be.
fn nearest<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    let normal = unknown.to_ascii_lowercase().replace('-', "_");
    let candidates = known.iter().map(|key| (distance(&normal, key), *key));
    let (changes, key) = candidates.min()?;
    // More than a third of the letters: another word.
    (changes <= key.len().div_ceil(3)).then_some(key)
}

/// Letters to insert, remove or replace (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    // A key as long as a file is nobody's misspelling.
    let a: Vec<char> = a.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn assert_says(result: Result<impl std::fmt::Debug, String>, words: &[&str]) {
        let error = result.unwrap_err();
        for word in words {
            assert!(error.contains(word), "\"{error}\" does not say \"{word}\"");
        }
        assert_eq!(error.lines().count(), 1, "{error}");
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
            };
            assert_eq!(config.guests[0], web);
        }
    }

    #[test]
    fn an_empty_file_is_an_empty_configuration() {
        for config in [toml(""), yaml(""), yaml("# nothing\n")] {
            assert!(config.unwrap().guests.is_empty());
        }
    }

    #[test]
    fn the_example_that_is_delivered_is_valid() {
        let example = include_str!("../dist/vbridge.toml");
        assert_eq!(toml(example).unwrap().guests.len(), 1);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
        let message = "b.toml, line 2: there is no key \"lisen\"; did you mean \"listen\"?";
        assert_eq!(toml("\nlisen = []\n").unwrap_err(), message);
        assert_says(
            toml(&TOML.replace("key_file", "key-file")),
            &["line 10", "\"key-file\"", "did you mean \"key_file\"?"],
        );
        assert_says(
            toml("colour = 1"),
            &["line 1", "\"colour\"", "listen, guest, log"],
        );
        assert_says(
            yaml(&YAML.replace("monitor:", "monitr:")),
            &["b.yaml, line 9", "\"monitr\"", "did you mean \"monitor\"?"],
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
            &["\"channel\" is missing"],
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
    fn more_guests_or_addresses_than_the_limit_are_refused() {
        let mut config = Config::default();
        let guest = |i: usize| format!("g{i}=unix:/g{i}").parse().unwrap();
        for i in 0..MAX_GUESTS {
            config.add_guest(guest(i)).unwrap();
        }
        let error = config.add_guest(guest(MAX_GUESTS)).unwrap_err().to_string();
        assert!(error.contains("4096"), "{error}");
        let many = vec!["\"127.0.0.1:0\""; MAX_LISTEN + 1].join(",");
        assert_says(toml(&format!("listen = [{many}]")), &["65", "64"]);
    }

    #[test]
    fn a_file_is_refused_if_it_is_missing_a_directory_too_long_or_of_another_format() {
        let dir = tempfile::tempdir().unwrap();
        let read = |path: &Path| Config::read(path).map_err(|error| error.to_string());
        assert_says(
            read(&dir.path().join("no.toml")),
            &["no.toml", "no such file"],
        );
        assert_says(read(dir.path()), &["a directory"]);
        let path = dir.path().join("vbridge.conf");
        fs::write(&path, "").unwrap();
        assert_says(read(&path), &["vbridge.conf", ".toml", ".yaml"]);
        let path = dir.path().join("long.toml");
        fs::write(&path, "#".repeat(1024 * 1024 + 1)).unwrap();
        assert_says(read(&path), &["longer than 1048576"]);
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert_says(read(&path), &["UTF-8"]);
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let mut guest: GuestEntry = "web=unix:/web.sock".parse().unwrap();
        guest.key_file = Some(path.clone());
        let spec = |guest: &GuestEntry| guest.spec().map_err(|error| error.to_string());
        assert_says(spec(&guest), &["\"web\"", "no such file"]);
        fs::write(&path, "0123456789abcdef0123456789abcdef\n").unwrap();
        for mode in [0o644, 0o640, 0o604] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_says(spec(&guest), &["chmod 600"]);
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(spec(&guest).unwrap().key.is_some());
        fs::write(&path, "short").unwrap();
        assert_says(spec(&guest), &["has 5"]);
        guest.key_file = Some(dir.path().to_owned());
        assert_says(spec(&guest), &["a directory"]);
    }

    #[test]
    fn a_guest_flag_is_read_with_all_its_options() {
        let guest: GuestEntry =
            "web=unix:/run/a,,b.sock,monitor=unix:/m,listen=[::1]:7500,key-file=/k=1"
                .parse()
                .unwrap();
        let expected = GuestEntry {
            name: "web".into(),
            channel: "/run/a,b.sock".into(),
            monitor: Some("/m".into()),
            listen: Some("[::1]:7500".parse().unwrap()),
            key_file: Some("/k=1".into()),
        };
        assert_eq!(guest, expected);
    }

    #[test]
    fn a_bad_guest_flag_says_what_is_wrong_with_it() {
        for (flag, word) in [
            ("", "NAME=unix:PATH"),
            ("web", "NAME=unix:PATH"),
            ("web=/run/web.sock", "unix:PATH"),
            ("web=unix:", "unix:PATH"),
            (".web=unix:/a", "dot"),
            ("=unix:/a", "1 to 253"),
            ("bridge=unix:/a", "the bridge's own"),
            ("web=unix:/a,b", "a comma in a path is written twice"),
            ("web=unix:/a,listen=x", "127.0.0.1:7411"),
            ("web=unix:/a,key-file=", "needs a path"),
            ("web=unix:/a,monitor=unix:/b,monitor=unix:/c", "twice"),
        ] {
            assert_says(flag.parse::<GuestEntry>(), &[word]);
        }
    }

    #[test]
    fn without_a_guest_the_error_says_how_to_name_one() {
        let error = Config::default().bridge().unwrap_err().to_string();
        assert!(error.contains("--guest NAME=unix:PATH"), "{error}");
    }

    #[test]
    fn without_an_address_the_bridge_listens_on_the_default_one() {
        assert!(DEFAULT_LISTEN.parse::<ListenAddress>().is_ok());
        let mut config = Config::default();
        config
            .add_guest("web=unix:/nowhere/web.sock".parse().unwrap())
            .unwrap();
        assert!(config.bridge().unwrap().build().is_ok());
    }
}
