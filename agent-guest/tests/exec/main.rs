//! Commands in the guest, through the whole agent: socket, link, HTTP/2, service, real processes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "../common/mod.rs"]
mod common;

mod attach;
mod end;
mod run;
mod start;
mod support;
mod terminal;
