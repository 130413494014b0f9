//! Memory: what each input may have, and what the process may.

use std::io;
use std::sync::{Mutex, PoisonError};

use peak_alloc::PeakAlloc;
use rustix::process::{Resource, Rlimit};

use crate::limits::ADDRESS_SPACE;

/// Counts what is asked for, used or not: a reservation on a lying length's word may never become resident memory.
#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The count is of the whole process, so only one may measure.
static MEASURING: Mutex<()> = Mutex::new(());

/// Has the kernel refuse this process more than [`ADDRESS_SPACE`], from now on.
///
/// # Errors
/// The kernel does not take the limit.
pub fn confine() -> io::Result<()> {
    let limit = Rlimit {
        current: Some(ADDRESS_SPACE),
        maximum: Some(ADDRESS_SPACE),
    };
    Ok(rustix::process::setrlimit(Resource::As, limit)?)
}

/// Runs something, and says how many bytes it had at a time at most. Other threads should be quiet.
pub(crate) fn used<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let _alone = MEASURING.lock().unwrap_or_else(PoisonError::into_inner);
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    let result = run();
    (result, ALLOCATOR.peak_usage().saturating_sub(before))
}

/// Runs something that may have so many bytes at a time.
#[track_caller]
pub(crate) fn bounded<T>(limit: usize, run: impl FnOnce() -> T) -> T {
    let (result, used) = used(run);
    assert!(
        used <= limit,
        "{used} bytes of memory were used, {limit} are allowed"
    );
    result
}
