//! How long to wait before the next attempt.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Growing pauses between attempts to connect, each shortened at random by up to a half, so that the clients of a
/// restarted daemon do not come back all at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The pause after the first failure.
    pub first: Duration,
    /// The longest pause; each one is twice as long as the one before.
    pub most: Duration,
}

// === impl Backoff ===

impl Backoff {
    /// The pause after so many failures in a row, at least one.
    pub(crate) fn pause(&self, failures: u32) -> Duration {
        // 2^20 times any sensible pause is beyond any sensible limit.
        let factor = 1_u32 << failures.saturating_sub(1).min(20);
        let pause = self.first.saturating_mul(factor).min(self.most);
        // A hasher with fresh keys is a random number that needs no crate.
        let random = RandomState::new().hash_one(failures) % 512;
        pause - pause.mul_f64(random as f64 / 1024.0)
    }
}

impl Default for Backoff {
    /// From 100 ms to 10 s.
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            most: Duration::from_secs(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_vary_by_half() {
        let backoff = Backoff::default();
        for (failures, whole) in [
            (1, 100),
            (2, 200),
            (3, 400),
            (10, 10_000),
            (u32::MAX, 10_000),
        ] {
            for _ in 0..50 {
                let pause = backoff.pause(failures).as_millis();
                assert!((whole / 2..=whole).contains(&pause), "{failures}: {pause}");
            }
        }
    }
}
