//! Values that are written as strings, in the file or on the command line.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Deserializer};
use tracing::level_filters::LevelFilter;
use vbridge_settings::checked;

use crate::check_name;

/// What is written as a string in the file; checked while it is read, so that an error names its line.
#[derive(Debug)]
pub(super) struct Text<T>(pub(super) T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        checked(deserializer, |text| text.parse().map(Self))
    }
}

/// What a guest may be called.
#[derive(Debug)]
pub(super) struct Name(pub(super) String);

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        check_name(text).map_err(|error| error.to_string())?;
        Ok(Self(text.to_owned()))
    }
}

/// A Unix socket, written `unix:PATH`.
#[derive(Debug)]
pub(super) struct SocketPath(pub(super) PathBuf);

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

/// What a virtio-serial port may be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelName(pub String);

impl FromStr for ChannelName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        /// What QEMU takes for a device's name.
        const MAX: usize = 255;
        let is_name = |text: &str| text.chars().all(|c| c.is_ascii_graphic() && c != '/');
        match !text.is_empty() && text.len() <= MAX && is_name(text) {
            true => Ok(Self(text.to_owned())),
            false => Err(format!(
                "\"{}\" is no name of a channel; write one like {}",
                text.escape_debug(),
                crate::discovery::CHANNEL_NAME
            )),
        }
    }
}

/// How much is logged.
#[derive(Debug)]
pub(super) struct Level(pub(super) LevelFilter);

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
