//! Channels of other agents, against a socket on which the test plays QEMU and the agent behind it.
//!
//! | module | what is tested |
//! |---|---|
//! | `agent` | nothing: the other end |
//! | `messages` | what is received and sent |
//! | `connections` | how they begin and end |
//! | `protocols` | requests and answers, handlers |
//! | `qga` | the QEMU guest agent |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod agent;
mod connections;
mod messages;
mod protocols;
mod qga;
