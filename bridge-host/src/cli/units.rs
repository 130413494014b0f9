//! Sizes, times and shares: in words for people, as numbers and RFC 3339 for programs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// 9999-12-31T23:59:59Z, the last second that RFC 3339 can write.
const LAST_SECOND: u64 = 253_402_300_799;

/// A size: `480 MiB`.
pub(super) fn bytes(count: u64) -> String {
    #[allow(clippy::cast_precision_loss)] // For people: three digits are shown.
    bytes_of(count as f64)
}

/// A size that is the result of a division.
pub(super) fn bytes_of(count: f64) -> String {
    let mut value = count;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] {
        if value < 1023.5 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    match unit {
        "B" => format!("{value:.0} B"),
        _ if value < 99.95 => format!("{value:.1} {unit}"),
        _ => format!("{value:.0} {unit}"),
    }
}

/// A share of 100: `3.4 %`.
pub(super) fn percent(share: f64) -> String {
    format!("{share:.1} %")
}

/// `part` of `whole`: `25.0 %`; nothing of nothing is 0 %.
pub(super) fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return percent(0.0);
    }
    #[allow(clippy::cast_precision_loss)] // For people: one decimal is shown.
    percent(part as f64 * 100.0 / whole as f64)
}

/// A short time: `0.83 ms`.
pub(super) fn milliseconds(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1000.0)
}

/// A long time in whole seconds: `3days 4h 12m 5s`.
pub(super) fn long_time(duration: Duration) -> String {
    humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
}

/// A guest's duration, if it makes sense: one that is negative or not normal does not.
pub(super) fn duration(duration: Option<&prost_types::Duration>) -> Option<Duration> {
    let duration = duration?;
    let seconds = u64::try_from(duration.seconds).ok()?;
    let nanos = u32::try_from(duration.nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(seconds, nanos))
}

/// A guest's timestamp, if it makes sense: from 1970 to 9999.
pub(super) fn time(time: Option<&prost_types::Timestamp>) -> Option<SystemTime> {
    let time = time?;
    let seconds = u64::try_from(time.seconds)
        .ok()
        .filter(|seconds| *seconds <= LAST_SECOND)?;
    let nanos = u32::try_from(time.nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000)?;
    UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
}

/// RFC 3339 for people: whole seconds; empty if it makes no sense.
pub(super) fn date(timestamp: Option<&prost_types::Timestamp>) -> String {
    let text = |time| humantime::format_rfc3339_seconds(time).to_string();
    time(timestamp).map(text).unwrap_or_default()
}

/// The time of day, in UTC: `12:00:01`.
pub(super) fn clock(timestamp: Option<&prost_types::Timestamp>) -> String {
    // "2026-01-02T12:00:01Z"
    let date = date(timestamp);
    date.get(11..19).unwrap_or("--:--:--").to_owned()
}

/// RFC 3339 for programs: milliseconds; null if it makes no sense.
pub(super) fn json_time(timestamp: Option<&prost_types::Timestamp>) -> Value {
    let text = |time| humantime::format_rfc3339_millis(time).to_string();
    json!(time(timestamp).map(text))
}

/// Seconds for programs; null if it makes no sense.
pub(super) fn json_seconds(seconds: Option<&prost_types::Duration>) -> Value {
    json!(duration(seconds).map(|duration| duration.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use prost_types::{Duration as ProtoDuration, Timestamp};

    use super::*;

    #[test]
    fn sizes_have_three_digits_and_a_binary_unit() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (480 << 20, "480 MiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn a_share_of_nothing_is_no_division_by_zero() {
        assert_eq!(share(1, 0), "0.0 %");
        assert_eq!(share(1, 4), "25.0 %");
    }

    #[test]
    fn times_are_written_for_people_and_for_programs() {
        let time = Timestamp {
            seconds: 1_700_000_000,
            nanos: 250_000_000,
        };
        assert_eq!(date(Some(&time)), "2023-11-14T22:13:20Z");
        assert_eq!(clock(Some(&time)), "22:13:20");
        assert_eq!(json_time(Some(&time)), json!("2023-11-14T22:13:20.250Z"));
        assert_eq!(long_time(Duration::from_millis(3_725_400)), "1h 2m 5s");
        assert_eq!(milliseconds(Duration::from_micros(830)), "0.83 ms");
        let duration = ProtoDuration {
            seconds: 1,
            nanos: 500_000_000,
        };
        assert_eq!(json_seconds(Some(&duration)), json!(1.5));
    }

    #[test]
    fn times_that_make_no_sense_are_left_out() {
        for (seconds, nanos) in [
            (-1, 0),
            (i64::MAX, 0),
            (i64::MIN, i32::MIN),
            (0, -1),
            (0, i32::MAX),
        ] {
            let time = Timestamp { seconds, nanos };
            assert_eq!(date(Some(&time)), "");
            assert_eq!(clock(Some(&time)), "--:--:--");
            assert_eq!(json_time(Some(&time)), Value::Null);
        }
        for (seconds, nanos) in [(-1, 0), (i64::MIN, i32::MIN), (0, -1), (0, i32::MAX)] {
            assert_eq!(
                json_seconds(Some(&ProtoDuration { seconds, nanos })),
                Value::Null
            );
        }
        assert_eq!(json_time(None), Value::Null);
    }
}
