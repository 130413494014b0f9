//! The guest's clocks, as protobuf messages.

use std::time::Duration;

use prost_types::Timestamp;
use rustix::{
    io::Errno,
    time::{ClockId, Timespec, clock_gettime, clock_settime},
};

use super::Reader;

/// The end of the year 9999, in which protobuf's timestamps end.
const LAST_SECOND: i64 = 253_402_300_799;

const NANOS_PER_SECOND: i32 = 1_000_000_000;

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    timestamp(clock_gettime(ClockId::Realtime))
}

/// Time since boot, time spent suspended included.
pub(crate) fn uptime() -> prost_types::Duration {
    let since_boot = clock_gettime(ClockId::Boottime);
    prost_types::Duration {
        seconds: since_boot.tv_sec,
        nanos: nanos(since_boot),
    }
}

/// When the guest booted, by its own wall clock.
pub(crate) fn boot_time() -> Timestamp {
    let now = clock_gettime(ClockId::Realtime);
    let since_boot = clock_gettime(ClockId::Boottime);
    let mut boot = Timespec {
        tv_sec: now.tv_sec - since_boot.tv_sec,
        tv_nsec: now.tv_nsec - since_boot.tv_nsec,
    };
    if boot.tv_nsec < 0 {
        boot.tv_sec -= 1;
        boot.tv_nsec += 1_000_000_000;
    }
    timestamp(boot)
}

/// A duration that a caller sent; `None` if it is negative or not well-formed.
pub(crate) fn duration(message: &prost_types::Duration) -> Option<Duration> {
    let nanos = u32::try_from(message.nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(message.seconds).ok()?, nanos))
}

/// The hardware clock in whole seconds, taken as UTC; none where there is none.
pub(crate) fn hardware(reader: &mut Reader) -> Option<Timestamp> {
    let seconds = reader.line("sys/class/rtc/rtc0/since_epoch");
    Some(Timestamp {
        seconds: seconds.parse().ok()?,
        nanos: 0,
    })
}

/// Whether it is a time that a clock can show: from 1970 to 9999.
pub(crate) fn is_valid(time: &Timestamp) -> bool {
    (0..=LAST_SECOND).contains(&time.seconds) && (0..NANOS_PER_SECOND).contains(&time.nanos)
}

/// Sets the wall clock.
pub(crate) fn set(time: &Timestamp) -> Result<(), Errno> {
    let time = Timespec {
        tv_sec: time.seconds,
        tv_nsec: time.nanos.into(),
    };
    clock_settime(ClockId::Realtime, time)
}

/// The first less the second, both valid. As protobuf wants it, seconds and nanoseconds have the same sign.
pub(crate) fn difference(one: &Timestamp, other: &Timestamp) -> prost_types::Duration {
    let mut seconds = one.seconds - other.seconds;
    let mut nanos = one.nanos - other.nanos;
    if seconds > 0 && nanos < 0 {
        seconds -= 1;
        nanos += NANOS_PER_SECOND;
    } else if seconds < 0 && nanos > 0 {
        seconds += 1;
        nanos -= NANOS_PER_SECOND;
    }
    prost_types::Duration { seconds, nanos }
}

fn timestamp(time: Timespec) -> Timestamp {
    Timestamp {
        seconds: time.tv_sec,
        nanos: nanos(time),
    }
}

fn nanos(time: Timespec) -> i32 {
    // Below 10^9 by the kernel's contract.
    i32::try_from(time.tv_nsec).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_and_uptime_add_up_to_now() {
        let (boot, uptime, now) = (boot_time(), uptime(), now());
        assert!((0..1_000_000_000).contains(&boot.nanos));
        assert!((now.seconds - boot.seconds - uptime.seconds).abs() <= 1);
    }

    #[test]
    fn a_difference_has_one_sign() {
        let of = |one: (i64, i32), other: (i64, i32)| {
            let time = |(seconds, nanos)| Timestamp { seconds, nanos };
            let difference = difference(&time(one), &time(other));
            (difference.seconds, difference.nanos)
        };
        assert_eq!(of((5, 100), (3, 200)), (1, 999_999_900));
        assert_eq!(of((3, 200), (5, 100)), (-1, -999_999_900));
        assert_eq!(of((5, 100), (5, 200)), (0, -100));
        assert_eq!(of((5, 200), (4, 100)), (1, 100));
    }

    #[test]
    fn a_hardware_clock_is_read_where_there_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut reader = Reader::below(dir.path());
        assert_eq!(hardware(&mut reader), None);
        let clock = dir.path().join("sys/class/rtc/rtc0");
        std::fs::create_dir_all(&clock).unwrap();
        std::fs::write(clock.join("since_epoch"), "1700000000\n").unwrap();
        let seconds = hardware(&mut reader).map(|time| time.seconds);
        assert_eq!(seconds, Some(1_700_000_000));
    }

    #[test]
    fn durations_that_are_none_are_refused() {
        let of = |seconds, nanos| duration(&prost_types::Duration { seconds, nanos });
        assert_eq!(of(1, 500_000_000), Some(Duration::from_millis(1500)));
        assert_eq!(of(-1, 0), None);
        assert_eq!(of(0, -1), None);
        assert_eq!(of(1, 1_000_000_000), None);
    }
}
