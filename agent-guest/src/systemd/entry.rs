//! An entry of the journal, as `journalctl --output=json` writes it.
//!
//! Any program in the guest may write to the journal, so a field holds whatever it likes. It is text, an array of bytes where
//! that is not UTF-8, null where it is large, or an array of all of these where the entry has it several times
//! (systemd's JOURNAL_EXPORT_FORMATS). Such a value never costs more than its line, and is cut off at a limit.

use std::fmt;

use prost_types::Timestamp;
use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, SeqAccess, Visitor},
};
use vbridge_api::guest::v1::LogEntry;

use super::cut;
use crate::limits::{MAX_LOG_FIELD, MAX_LOG_MESSAGE};

/// Fields that are read. journalctl is told to write these alone; those with two underscores it always writes.
pub(super) const FIELDS: &str =
    "MESSAGE,PRIORITY,SYSLOG_IDENTIFIER,SYSLOG_PID,UNIT,_COMM,_HOSTNAME,_PID,_SYSTEMD_UNIT";

/// The severity of an entry that has none: "informational".
const INFO: u32 = 6;

/// The worst number of a severity: "debug".
const DEBUG: u32 = 7;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Fields {
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    time: Field,
    #[serde(rename = "__CURSOR")]
    cursor: Field,
    #[serde(rename = "MESSAGE")]
    message: Field,
    #[serde(rename = "PRIORITY")]
    priority: Field,
    #[serde(rename = "SYSLOG_IDENTIFIER")]
    identifier: Field,
    #[serde(rename = "SYSLOG_PID")]
    claimed_pid: Field,
    #[serde(rename = "UNIT")]
    about: Field,
    #[serde(rename = "_COMM")]
    command: Field,
    #[serde(rename = "_HOSTNAME")]
    hostname: Field,
    #[serde(rename = "_PID")]
    pid: Field,
    #[serde(rename = "_SYSTEMD_UNIT")]
    unit: Field,
}

/// A field's value; of several the first.
#[derive(Debug, Default, PartialEq, Eq)]
enum Field {
    #[default]
    Absent,
    Text(String),
    /// One of an array of bytes.
    Byte(u8),
}

/// Reads a line; none if it is no entry.
pub(super) fn parse(line: &[u8]) -> Option<LogEntry> {
    let line = String::from_utf8_lossy(line);
    // serde would take an array's values for the fields in their order.
    if !line.starts_with('{') {
        return None;
    }
    let fields: Fields = serde_json::from_str(&line).ok()?;
    let pid = fields.pid.number();
    // What is said of a unit by the first process is of that unit; anybody else may claim anything.
    let unit = match fields.about {
        Field::Text(unit) if pid == Some(1) => Field::Text(unit),
        _ => fields.unit,
    };
    let identifier = match fields.identifier {
        Field::Absent => fields.command,
        identifier => identifier,
    };
    let pid = pid.or_else(|| fields.claimed_pid.number());
    Some(LogEntry {
        time: fields.time.number().and_then(time),
        unit: unit.text(MAX_LOG_FIELD),
        identifier: identifier.text(MAX_LOG_FIELD),
        pid: pid.and_then(|pid| pid.try_into().ok()).unwrap_or_default(),
        priority: fields.priority.number().map_or(INFO, |it| {
            u32::try_from(it).map_or(DEBUG, |it| it.min(DEBUG))
        }),
        message: fields.message.text(MAX_LOG_MESSAGE),
        // One that is cut off is worth nothing.
        cursor: fields.cursor.text(usize::MAX),
        hostname: fields.hostname.text(MAX_LOG_FIELD),
    })
}

fn time(microseconds: u64) -> Option<Timestamp> {
    Some(Timestamp {
        seconds: i64::try_from(microseconds / 1_000_000).ok()?,
        nanos: i32::try_from(microseconds % 1_000_000 * 1000).ok()?,
    })
}

// === impl Field ===

impl Field {
    fn text(self, limit: usize) -> String {
        match self {
            Self::Text(text) => cut(text, limit),
            Self::Absent | Self::Byte(_) => String::new(),
        }
    }

    fn number(&self) -> Option<u64> {
        match self {
            Self::Text(text) => text.parse().ok(),
            Self::Absent | Self::Byte(_) => None,
        }
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor)
    }
}

struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field of the journal")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Field, E> {
        Ok(Field::Text(text.to_owned()))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Field, E> {
        Ok(Field::Absent)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Field, E> {
        Ok(u8::try_from(number).map_or(Field::Absent, Field::Byte))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Field, E> {
        Ok(Field::Absent)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Field, E> {
        Ok(Field::Absent)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Field, E> {
        Ok(Field::Absent)
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Field, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::Absent)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Field, A::Error> {
        let mut bytes = Vec::new();
        let mut first = None;
        while let Some(value) = values.next_element()? {
            match value {
                Field::Byte(byte) => bytes.push(byte),
                Field::Text(text) => {
                    first.get_or_insert(text);
                }
                Field::Absent => {}
            }
        }
        Ok(match first {
            Some(text) => Field::Text(text),
            None if bytes.is_empty() => Field::Absent,
            None => Field::Text(String::from_utf8_lossy(&bytes).into_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(json: &str) -> Option<String> {
        let line = format!(r#"{{"MESSAGE":{json}}}"#);
        parse(line.as_bytes()).map(|entry| entry.message)
    }

    #[test]
    fn an_entry_has_its_fields() {
        let line = br#"{"__CURSOR":"s=1;i=2","__REALTIME_TIMESTAMP":"1500000","PRIORITY":"3","_PID":"42",
            "SYSLOG_IDENTIFIER":"nginx","_COMM":"x","_SYSTEMD_UNIT":"nginx.service","_HOSTNAME":"web","MESSAGE":"hi","OTHER":{"a":[1]}}"#;
        let entry = parse(line).unwrap();
        let expected = LogEntry {
            time: Some(Timestamp {
                seconds: 1,
                nanos: 500_000_000,
            }),
            unit: "nginx.service".to_owned(),
            identifier: "nginx".to_owned(),
            pid: 42,
            priority: 3,
            message: "hi".to_owned(),
            cursor: "s=1;i=2".to_owned(),
            hostname: "web".to_owned(),
        };
        assert_eq!(entry, expected);
    }

    #[test]
    fn a_message_may_be_bytes_or_nothing_or_there_several_times() {
        for (json, expected) in [
            (r#""text""#, "text"),
            ("null", ""),
            ("[104,105]", "hi"),
            ("[104,255,105]", "h\u{fffd}i"),
            (r#"["first","second"]"#, "first"),
            ("[[104,105],null]", "hi"),
            ("[null,null]", ""),
            ("[]", ""),
            ("[104,999,-1,1.5,105]", "hi"),
            ("true", ""),
            ("-7", ""),
            (r#"{"a":{"b":[1,2]}}"#, ""),
            (r#""\u0000\u001b[2J""#, "\0\u{1b}[2J"),
        ] {
            assert_eq!(message(json).as_deref(), Some(expected), "{json}");
        }
    }

    #[test]
    fn what_is_no_entry_is_none_and_bad_utf8_is_replaced() {
        for line in ["", "{", "[]", "7", "-- No entries --", r#"{"MESSAGE":"x"#] {
            assert!(parse(line.as_bytes()).is_none(), "{line}");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(message(&deep), None);
        let entry = parse(b"{\"MESSAGE\":\"a\xffb\"}").unwrap();
        assert_eq!(entry.message, "a\u{fffd}b");
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let long = "ü".repeat(MAX_LOG_MESSAGE);
        let cut = message(&format!("\"x{long}\"")).unwrap();
        assert_eq!(cut.len(), MAX_LOG_MESSAGE - 1);
    }

    #[test]
    fn only_the_first_process_speaks_of_other_units() {
        let unit = |pid: u32| {
            let line =
                format!(r#"{{"_PID":"{pid}","UNIT":"a.service","_SYSTEMD_UNIT":"b.service"}}"#);
            parse(line.as_bytes()).unwrap().unit
        };
        assert_eq!(
            (unit(1).as_str(), unit(2).as_str()),
            ("a.service", "b.service")
        );
    }

    #[test]
    fn a_severity_that_is_none_is_informational() {
        let of = |json: &str| {
            let line = format!(r#"{{"PRIORITY":{json}}}"#);
            parse(line.as_bytes()).unwrap().priority
        };
        assert_eq!(
            [
                of(r#""0""#),
                of(r#""x""#),
                of(r#""99999999999""#),
                of("null")
            ],
            [0, 6, 7, 6]
        );
    }
}
