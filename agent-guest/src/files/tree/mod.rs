//! Whole trees as tar archives: packed and unpacked while they pass, without ever being there as a whole.
//!
//! | module | what it is |
//! |---|---|
//! | [`header`] | what an archive says of an entry: ustar's header, and pax's for what does not fit (POSIX pax(1)) |
//! | [`extension`] | what extended headers say, read |
//! | [`pull`] | from a directory to the bytes of an archive |
//! | [`parse`] | from the bytes of an archive to entries |
//! | [`push`] | from entries to files |

mod extension;
pub(crate) mod header;
pub(crate) mod parse;
pub(crate) mod pull;
pub(crate) mod push;

use vbridge_api::guest::v1::TreeSummary;

use super::failure::shown;
use crate::limits::MAX_TREE_SKIPPED;

/// The size of a tar archive's blocks.
const BLOCK: usize = 512;

/// What has to follow so many bytes to fill their last block.
fn padding(size: u64) -> usize {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    (BLOCK - over) % BLOCK
}

/// Notes what is left out.
fn skip(summary: &mut TreeSummary, path: &[u8], why: &str) {
    summary.skipped_count += 1;
    if summary.skipped.len() < MAX_TREE_SKIPPED {
        summary.skipped.push(format!("{}: {why}", shown(path)));
    }
}
