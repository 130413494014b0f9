//! Signals that the agent was started to ignore, as a shell without job control does with SIGINT and SIGQUIT of what it puts into the
//! background.
//!
//! What is started inherits that, and then does not end with Ctrl-C; even a shell can't trap such a signal. The kernel sets back
//! only what is caught, so these are caught, by a handler that does nothing: to the agent that is the same.

use std::sync::Once;

use tokio::signal::unix::{SignalKind, signal};

use crate::source::Reader;

/// Rust ignores SIGPIPE in every program, and sets it back in what it starts.
const PIPE: u32 = 13;

/// Catches what is ignored, the first time that it is called. Within a runtime.
pub(super) fn catch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mut reader = Reader::new();
        // Without /proc it stays as it is.
        let status = reader.read("proc/self/status").unwrap_or_default();
        for number in of(&status).filter(|number| *number != PIPE) {
            // Some can't be caught; those can't be ignored either.
            let kind = SignalKind::from_raw(number.cast_signed());
            if let Err(error) = signal(kind) {
                tracing::debug!("signal {number} stays ignored in what is started: {error}");
            }
        }
    });
}

/// The numbers of the standard signals that are ignored, from a process's status.
fn of(status: &str) -> impl Iterator<Item = u32> {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default();
    (1..=31).filter(move |number| mask & (1 << (number - 1)) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_tells_which_signals_are_ignored() {
        let status =
            "SigBlk:\t0000000000000001\nSigIgn:\t0000000200001006\nSigCgt:\t00000000000000ff\n";
        assert_eq!(of(status).collect::<Vec<_>>(), [2, 3, 13]);
        assert_eq!(of("").count(), 0);
        assert_eq!(of("SigIgn:\tmany\n").count(), 0);
    }
}
