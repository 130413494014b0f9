//! Values of the file that are numbers or words: times, how often, how much is told.

use std::{fmt, time::Duration};

use bridge_host::limits::MAX_RETRIES;
use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

use super::super::MAX_DURATION;

/// A length of time: seconds, or words like `500ms`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Time(pub(super) Duration);

/// The same, where none at all makes sense, too.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pause(pub(super) Duration);

/// How many retries.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Times(pub(super) u32);

/// How much longer each pause is than the one before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Factor(pub(super) f64);

/// Whether what is no error is told, too.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Level(pub(super) bool);

/// What stands in the file.
#[derive(Clone, Copy)]
enum Scalar<'a> {
    Number(f64),
    Text(&'a str),
}

fn time(scalar: Scalar<'_>) -> Result<Duration, String> {
    let time = match scalar {
        Scalar::Number(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Scalar::Text(text) => humantime::parse_duration(text).ok(),
    };
    match time {
        Some(time) if time <= MAX_DURATION => Ok(time),
        _ => {
            Err("it is no length of time up to 30 days; write seconds, or words like 500ms".into())
        }
    }
}

/// The largest factor: with it the second pause is the longest already.
const MAX_FACTOR: f64 = 100.0;

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        scalar(deserializer, |scalar| match time(scalar)? {
            Duration::ZERO => Err("it must be more than nothing".into()),
            time => Ok(Self(time)),
        })
    }
}

impl<'de> Deserialize<'de> for Pause {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        scalar(deserializer, |scalar| time(scalar).map(Self))
    }
}

impl<'de> Deserialize<'de> for Times {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        scalar(deserializer, |scalar| match scalar {
            Scalar::Number(number) => retries(&number.to_string()).map(Self),
            Scalar::Text(text) => retries(text).map(Self),
        })
    }
}

impl<'de> Deserialize<'de> for Factor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        scalar(deserializer, |scalar| match scalar {
            Scalar::Number(factor) if (1.0..=MAX_FACTOR).contains(&factor) => Ok(Self(factor)),
            _ => Err(format!("it must be a number from 1 to {MAX_FACTOR}")),
        })
    }
}

impl<'de> Deserialize<'de> for Level {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        scalar(deserializer, |scalar| {
            let Scalar::Text(text) = scalar else {
                return Err("a log level is a word, like info".into());
            };
            match text.to_ascii_lowercase().as_str() {
                "off" | "critical" | "fatal" | "error" => Ok(Self(false)),
                "warning" | "warn" | "info" | "debug" | "trace" => Ok(Self(true)),
                _ => Err(format!(
                    "\"{}\" is not a log level; there are off, error, warning, info, debug and trace",
                    text.escape_debug()
                )),
            }
        })
    }
}

/// How many retries, in the file or on the command line.
pub(super) fn retries(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| *number <= MAX_RETRIES);
    number.ok_or_else(|| format!("it must be a whole number from 0 to {MAX_RETRIES}"))
}

/// Reads a number or words, and checks them inside of the deserializer, so that an error has the value's own line.
fn scalar<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    check: impl FnOnce(Scalar<'_>) -> Result<T, String>,
) -> Result<T, D::Error> {
    deserializer.deserialize_any(Checked(check))
}

struct Checked<F>(F);

impl<T, F: FnOnce(Scalar<'_>) -> Result<T, String>> Visitor<'_> for Checked<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or words")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        #[allow(clippy::cast_precision_loss)] // All that makes sense here is far smaller.
        self.visit_f64(number as f64)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        #[allow(clippy::cast_precision_loss)] // Likewise.
        self.visit_f64(number as f64)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        (self.0)(Scalar::Number(number)).map_err(E::custom)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.0)(Scalar::Text(text)).map_err(E::custom)
    }
}
