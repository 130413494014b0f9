//! Whether the wall clock is set: the kernel cancels a timer that waits for a time of day (timerfd_create(2)).

use std::{io, os::fd::OwnedFd};

use rustix::{
    io::{Errno, read},
    time::{
        ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec,
        clock_gettime, timerfd_create, timerfd_settime,
    },
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::{limits::CLOCK_NOISE, port::async_fd};

/// A time of day that does not come: the year 2200.
const NEVER: i64 = 7_258_118_400;

/// Sees the clock being set.
#[derive(Debug)]
pub(crate) struct Watch {
    timer: AsyncFd<OwnedFd>,
    offset: i128,
}

impl Watch {
    /// Sees it from now on. Must run within a runtime.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Realtime, flags)?;
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let never = Itimerspec {
            it_interval: zero,
            it_value: Timespec {
                tv_sec: NEVER,
                tv_nsec: 0,
            },
        };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        timerfd_settime(&timer, flags, &never)?;
        Ok(Self {
            timer: async_fd(timer, Interest::READABLE)?,
            offset: offset(),
        })
    }

    /// Waits until it is set, and says by how many nanoseconds it went forward.
    pub(crate) async fn set(&mut self) -> io::Result<i64> {
        loop {
            let mut ready = self.timer.readable().await?;
            let mut ticks = [0; 8];
            match read(self.timer.get_ref(), &mut ticks) {
                Err(Errno::AGAIN) => {
                    ready.clear_ready();
                    continue;
                }
                // The clock was set beyond NEVER, where no timer waits any more.
                Ok(_) => return Err(io::Error::other("its time is out of bounds")),
                Err(Errno::CANCELED) => {}
                Err(error) => return Err(error.into()),
            }
            let now = offset();
            let set = now - std::mem::replace(&mut self.offset, now);
            // Waking from sleep cancels it, too.
            if set.unsigned_abs() >= CLOCK_NOISE.as_nanos() {
                return Ok(i64::try_from(set).unwrap_or(i64::MAX));
            }
        }
    }
}

/// What the wall clock is ahead of the time since boot, which nobody sets, in nanoseconds.
fn offset() -> i128 {
    let of = |time: Timespec| i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
    of(clock_gettime(ClockId::Realtime)) - of(clock_gettime(ClockId::Boottime))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_clock_that_nobody_sets_is_not_told() {
        let mut watch = Watch::new().unwrap();
        let waited = tokio::time::timeout(Duration::from_millis(20), watch.set()).await;
        assert!(waited.is_err(), "{waited:?}");
        let drift = offset() - watch.offset;
        assert!(drift.unsigned_abs() < CLOCK_NOISE.as_nanos(), "{drift}");
    }
}
