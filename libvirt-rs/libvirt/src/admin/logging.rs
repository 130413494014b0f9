//! What a daemon logs, and where: libvirt's texts, such as `3:stderr 1:file:/var/log/libvirt/libvirtd.log`.

use std::fmt;
use std::str::FromStr;

use crate::code::{Code, Enumeration};
use crate::error::Error;

/// How much a message matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum LogLevel {
    /// What only developers want to know.
    Debug = 1,
    /// What may be good to know.
    Info = 2,
    /// What may be wrong.
    Warning = 3,
    /// What is wrong.
    Error = 4,
}

/// Where messages go that matter at least so much.
///
/// Its text is libvirt's: `1:file:/var/log/debug.log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOutput {
    /// How much a message must matter.
    pub level: Code<LogLevel>,
    /// Where it goes.
    pub to: LogDestination,
}

/// Where messages go.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogDestination {
    /// The daemon's standard error.
    Stderr,
    /// systemd's journal.
    Journald,
    /// syslog, under this name.
    Syslog(String),
    /// The file of this path.
    File(String),
    /// Something else, in libvirt's words.
    Other(String),
}

/// Parts of the daemon, of which messages are logged that matter at least so much, whatever the outputs say.
///
/// Its text is libvirt's: `1:qemu.qemu_monitor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter {
    /// How much a message must matter.
    pub level: Code<LogLevel>,
    /// What the parts' names contain, such as `qemu` or `util.object`; a `*` in it stands for anything.
    pub part: String,
}

/// The settings in a text.
pub(super) fn read<T: FromStr<Err = Error>>(text: &str) -> Result<Vec<T>, Error> {
    text.split_ascii_whitespace().map(str::parse).collect()
}

/// Settings as a text; none of them is no text.
pub(super) fn write<T: fmt::Display>(settings: &[T]) -> Result<Option<String>, Error> {
    let texts: Vec<_> = settings.iter().map(ToString::to_string).collect();
    for text in &texts {
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(wrong(text, "a space would end it"));
        }
        if text.ends_with(':') {
            return Err(wrong(text, "something is missing at its end"));
        }
    }
    Ok((!texts.is_empty()).then(|| texts.join(" ")))
}

fn wrong(text: &str, why: &'static str) -> Error {
    let text = text.to_owned();
    Error::LogSetting { text, why }
}

fn level(text: &str) -> Result<(Code<LogLevel>, &str), Error> {
    let (level, rest) = text.split_once(':').unwrap_or((text, ""));
    match (level.parse(), rest) {
        (Ok(level), rest) if !rest.is_empty() => Ok((Code::new(level), rest)),
        _ => Err(wrong(
            text,
            "it is a level and what that applies to, like 1:qemu",
        )),
    }
}

// === impl LogLevel ===

impl Enumeration for LogLevel {
    fn from_raw(raw: i32) -> Option<Self> {
        [Self::Debug, Self::Info, Self::Warning, Self::Error]
            .into_iter()
            .find(|level| level.as_raw() == raw)
    }

    fn as_raw(self) -> i32 {
        self as i32
    }
}

// === impl LogOutput ===

impl FromStr for LogOutput {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (level, to) = level(text)?;
        let to = match to.split_once(':').unwrap_or((to, "")) {
            ("stderr", "") => LogDestination::Stderr,
            ("journald", "") => LogDestination::Journald,
            ("syslog", name) => LogDestination::Syslog(name.to_owned()),
            ("file", path) => LogDestination::File(path.to_owned()),
            _ => LogDestination::Other(to.to_owned()),
        };
        Ok(Self { level, to })
    }
}

impl fmt::Display for LogOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.level.raw())?;
        match &self.to {
            LogDestination::Stderr => f.write_str("stderr"),
            LogDestination::Journald => f.write_str("journald"),
            LogDestination::Syslog(name) => write!(f, "syslog:{name}"),
            LogDestination::File(path) => write!(f, "file:{path}"),
            LogDestination::Other(other) => f.write_str(other),
        }
    }
}

// === impl LogFilter ===

impl FromStr for LogFilter {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (level, pattern) = level(text)?;
        // The daemon puts a `*` before and behind what it is given, and tells it with them.
        let part = pattern
            .strip_prefix('*')
            .and_then(|rest| rest.strip_suffix('*'));
        let part = part.filter(|part| !part.is_empty()).unwrap_or(pattern);
        Ok(Self {
            level,
            part: part.to_owned(),
        })
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.level.raw(), self.part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_read_and_written_as_libvirt_has_them() {
        let text = "3:stderr 2:syslog:libvirtd 1:file:/var/log/a:b 4:journald 9:later:x";
        let outputs: Vec<LogOutput> = read(text).unwrap();
        let destinations: Vec<_> = outputs.iter().map(|output| output.to.clone()).collect();
        assert_eq!(
            destinations,
            [
                LogDestination::Stderr,
                LogDestination::Syslog("libvirtd".to_owned()),
                LogDestination::File("/var/log/a:b".to_owned()),
                LogDestination::Journald,
                LogDestination::Other("later:x".to_owned()),
            ]
        );
        assert_eq!(outputs[0].level, LogLevel::Warning);
        assert_eq!(outputs[4].level.known(), None);
        assert_eq!(write(&outputs).unwrap().as_deref(), Some(text));
    }

    #[test]
    fn filters_are_read_and_written_as_libvirt_has_them() {
        let text = "1:qemu.qemu_monitor 4:util.object";
        let filters: Vec<LogFilter> = read(text).unwrap();
        assert_eq!(filters[0].level, LogLevel::Debug);
        assert_eq!(filters[1].part, "util.object");
        assert_eq!(write(&filters).unwrap().as_deref(), Some(text));
        let told: Vec<LogFilter> = read("1:*qemu* 2:* 2:** 2:*a").unwrap();
        let parts: Vec<_> = told.iter().map(|filter| filter.part.as_str()).collect();
        assert_eq!(parts, ["qemu", "*", "**", "*a"]);
        assert!(read::<LogFilter>("").unwrap().is_empty());
        assert_eq!(write::<LogFilter>(&[]).unwrap(), None);
    }

    #[test]
    fn what_libvirt_would_read_as_something_else_is_refused() {
        let output = |path: &str| LogOutput {
            level: LogLevel::Info.into(),
            to: LogDestination::File(path.to_owned()),
        };
        for path in ["/a b", "/a\n1:file:/etc/passwd", ""] {
            let error = write(&[output(path)]).unwrap_err();
            assert!(matches!(error, Error::LogSetting { .. }), "{error}");
        }
        for text in ["qemu", "1:", "x:qemu", ":", "1"] {
            assert!(read::<LogFilter>(text).is_err(), "{text}");
        }
    }
}
