//! The configuration file's tables: what the first design of a guest's server had in its own file, read as it stands.
//!
//! | table | key | what it sets |
//! |---|---|---|
//! | `device` | `path` | `port` |
//! | | `buffer_size` | nothing: the link bounds its own buffers, and a warning says so |
//! | `server` | `max_request_size` | the largest request message of the agent's own services |
//! | | `request_timeout` | how many seconds a call without streams may take |
//! | `security` | `enable_auth`, `auth_key_file` | `call_key_file` |
//! | | `allowed_commands`, `allowed_paths` | `policy`: the profile `restricted`, with these lists |
//! | `logging` | `level` | `log`, by Python's names |
//! | | `file`, `max_size`, `backup_count` | a log file, which is rotated |
//!
//! What a table and a key of the file both set is refused. Sizes are bytes, or have `KB`, `MB` or `GB` behind them, of 1024 each.

use std::{fmt, marker::PhantomData, path::PathBuf, time::Duration};

use agent_guest::{
    limits::{
        DEFAULT_LOG_BACKUPS, DEFAULT_LOG_SIZE, MAX_LOG_BACKUPS, MAX_LOG_SIZE, MAX_REQUEST_TIMEOUT,
        MAX_SMALL_REQUEST, MIN_LOG_SIZE,
    },
    log::LogFile,
};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};
use vbridge_settings::checked;

use super::{
    layer::{Layer, check_path},
    policy,
};

/// The tables' names.
pub(super) const TABLES: [&str; 4] = ["device", "server", "security", "logging"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Device {
    #[serde(default, deserialize_with = "path")]
    path: Option<PathBuf>,
    #[serde(default)]
    buffer_size: Option<Size>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Server {
    #[serde(default)]
    max_request_size: Option<Size>,
    #[serde(default)]
    request_timeout: Option<Seconds>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Security {
    #[serde(default)]
    enable_auth: bool,
    #[serde(default, deserialize_with = "path")]
    auth_key_file: Option<PathBuf>,
    #[serde(default)]
    allowed_commands: Option<Vec<String>>,
    #[serde(default)]
    allowed_paths: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Logging {
    #[serde(default, deserialize_with = "level")]
    level: Option<String>,
    #[serde(default, deserialize_with = "path")]
    file: Option<PathBuf>,
    #[serde(default)]
    max_size: Option<Size>,
    #[serde(default)]
    backup_count: Option<u64>,
}

/// Puts what a table says where it belongs.
pub(super) fn read<'de, D: Deserializer<'de>>(
    name: &'static str,
    layer: &mut Layer,
    deserializer: D,
) -> Result<(), D::Error> {
    deserializer.deserialize_map(Table { name, layer })
}

/// A table; what is wrong with it as a whole is refused here, so that the error has its line.
struct Table<'a> {
    name: &'static str,
    layer: &'a mut Layer,
}

impl<'de> Visitor<'de> for Table<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the keys of `{}`", self.name)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let Self { name, layer } = self;
        let map = MapAccessDeserializer::new(map);
        let done = match name {
            "device" => Device::deserialize(map)?.set(layer),
            "server" => Server::deserialize(map)?.set(layer),
            "security" => Security::deserialize(map)?.set(layer),
            _ => Logging::deserialize(map)?.set(layer),
        };
        done.map_err(|message| A::Error::custom(format!("{name}: {message}")))
    }
}

impl Device {
    fn set(self, layer: &mut Layer) -> Result<(), String> {
        if let Some(path) = self.path {
            layer.claim("port", "device.path")?;
            layer.port = Some(path);
        }
        if let Some(Size(size)) = self.buffer_size {
            if size == 0 {
                return Err("buffer_size must be at least 1".to_owned());
            }
            layer.warnings.push(
                "device.buffer_size in the configuration file has no effect: the link bounds its own buffers"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

impl Server {
    fn set(self, layer: &mut Layer) -> Result<(), String> {
        if let Some(Size(size)) = self.max_request_size {
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            if size < MAX_SMALL_REQUEST {
                return Err(format!(
                    "max_request_size must be at least {MAX_SMALL_REQUEST} bytes, which the smallest requests may have"
                ));
            }
            layer.max_request_size = Some(size);
        }
        layer.request_timeout = self.request_timeout.map(|Seconds(time)| time);
        Ok(())
    }
}

impl Security {
    fn set(self, layer: &mut Layer) -> Result<(), String> {
        match (self.enable_auth, self.auth_key_file) {
            (true, Some(path)) => {
                layer.claim("call_key_file", "security.auth_key_file")?;
                layer.call_key_file = Some(path);
            }
            (true, None) => {
                return Err(
                    "enable_auth needs a key: name its file as auth_key_file beside it".to_owned(),
                );
            }
            (false, Some(_)) => layer.warnings.push(
                "security.auth_key_file in the configuration file has no effect while enable_auth is false"
                    .to_owned(),
            ),
            (false, None) => {}
        }
        if self.allowed_commands.is_some() || self.allowed_paths.is_some() {
            layer.claim("policy", "security")?;
            let programs = self.allowed_commands.unwrap_or_default();
            let lists = policy::Lists::new(programs, self.allowed_paths)?;
            layer.policy = Some(policy::Source::Lists(Box::new(lists)));
        }
        Ok(())
    }
}

impl Logging {
    fn set(self, layer: &mut Layer) -> Result<(), String> {
        if let Some(level) = self.level {
            layer.claim("log", "logging.level")?;
            layer.log = Some(level);
        }
        let size = self.max_size.map_or(DEFAULT_LOG_SIZE, |Size(size)| size);
        if !(MIN_LOG_SIZE..=MAX_LOG_SIZE).contains(&size) {
            return Err(format!(
                "max_size must be {MIN_LOG_SIZE} to {MAX_LOG_SIZE} bytes, and this is {size}"
            ));
        }
        let backups = self.backup_count.unwrap_or(DEFAULT_LOG_BACKUPS);
        if backups > MAX_LOG_BACKUPS {
            return Err(format!(
                "backup_count is {backups}, and {MAX_LOG_BACKUPS} is the most"
            ));
        }
        layer.log_file = self.file.map(|path| LogFile {
            path,
            max_size: size,
            backups,
        });
        Ok(())
    }
}

fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    checked(deserializer, check_path).map(Some)
}

/// Python's names of levels, as the filter has them. It has none above an error.
fn level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let level = checked(deserializer, |text| {
        match text.to_ascii_uppercase().as_str() {
            "DEBUG" => Ok("debug"),
            "INFO" => Ok("info"),
            "WARNING" | "WARN" => Ok("warn"),
            "ERROR" | "CRITICAL" | "FATAL" => Ok("error"),
            _ => Err(format!(
                "{text:?} is none of DEBUG, INFO, WARNING, ERROR, CRITICAL"
            )),
        }
    })?;
    Ok(Some(level.to_owned()))
}

/// A number of bytes, or a text such as `10MB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size(u64);

/// A number of seconds, perhaps with a fraction.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Seconds(Duration);

/// What is made of a number or of a text.
trait Quantity: Sized {
    const EXPECTED: &'static str;

    fn of_number(number: f64) -> Option<Self>;

    fn of_whole(number: u64) -> Option<Self>;

    fn of_text(text: &str) -> Option<Self>;
}

impl Quantity for Size {
    const EXPECTED: &'static str = "a number of bytes, such as 65536, \"64KB\" or \"10MB\"";

    fn of_number(_: f64) -> Option<Self> {
        None
    }

    fn of_whole(number: u64) -> Option<Self> {
        Some(Self(number))
    }

    fn of_text(text: &str) -> Option<Self> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, unit) = text.split_at_checked(digits)?;
        let factor: u64 = match unit.trim_start().to_ascii_uppercase().as_str() {
            "" | "B" => 1,
            "K" | "KB" | "KIB" => 1 << 10,
            "M" | "MB" | "MIB" => 1 << 20,
            "G" | "GB" | "GIB" => 1 << 30,
            _ => return None,
        };
        digits.parse::<u64>().ok()?.checked_mul(factor).map(Self)
    }
}

impl Quantity for Seconds {
    const EXPECTED: &'static str = "a number of seconds above 0 and at most a week";

    fn of_number(number: f64) -> Option<Self> {
        let time = Duration::try_from_secs_f64(number).ok()?;
        (time > Duration::ZERO && time <= MAX_REQUEST_TIMEOUT).then_some(Self(time))
    }

    fn of_whole(number: u64) -> Option<Self> {
        let time = Duration::from_secs(number);
        (time > Duration::ZERO && time <= MAX_REQUEST_TIMEOUT).then_some(Self(time))
    }

    fn of_text(_: &str) -> Option<Self> {
        None
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reading(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reading(PhantomData))
    }
}

struct Reading<Q>(PhantomData<Q>);

impl<Q: Quantity> Visitor<'_> for Reading<Q> {
    type Value = Q;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Q::EXPECTED)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Q, E> {
        Q::of_whole(number).ok_or_else(|| wrong::<Q, E>(&number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Q, E> {
        let whole = u64::try_from(number).ok();
        whole
            .and_then(Q::of_whole)
            .ok_or_else(|| wrong::<Q, E>(&number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Q, E> {
        Q::of_number(number).ok_or_else(|| wrong::<Q, E>(&number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Q, E> {
        Q::of_text(text).ok_or_else(|| wrong::<Q, E>(&format_args!("{text:?}")))
    }
}

fn wrong<Q: Quantity, E: Error>(value: &dyn fmt::Display) -> E {
    E::custom(format!("{value} is not {}", Q::EXPECTED))
}

#[cfg(test)]
mod tests;
