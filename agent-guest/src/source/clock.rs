//! The guest's clocks, as protobuf messages.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// The wall clock.
pub(crate) fn now() -> prost_types::Timestamp {
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
pub(crate) fn boot_time() -> prost_types::Timestamp {
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

fn timestamp(time: Timespec) -> prost_types::Timestamp {
    prost_types::Timestamp {
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
    fn durations_that_are_none_are_refused() {
        let of = |seconds, nanos| duration(&prost_types::Duration { seconds, nanos });
        assert_eq!(of(1, 500_000_000), Some(Duration::from_millis(1500)));
        assert_eq!(of(-1, 0), None);
        assert_eq!(of(0, -1), None);
        assert_eq!(of(1, 1_000_000_000), None);
    }
}
