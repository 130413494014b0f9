//! Many callers at once, callers that go without a word, and files that are larger than anybody's memory should be.
//!
//! Each part does its work through whatever bridge it is given, and checks all that can be seen from outside.

mod abandon;
mod busy;
mod transfer;
mod watchers;

pub use abandon::{Abandoned, Traces};
pub use busy::busy;
pub use transfer::{Check, download, upload};
pub use watchers::Watchers;
