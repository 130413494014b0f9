//! Connections to a daemon that says what a script tells it to: what it is sent, and what is made of its answers.
//!
//! | file | what |
//! |---|---|
//! | `script` | the daemon |
//! | `auth` | who this client says it is, and to whom |
//! | `network` | calls about networks |

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod auth;
mod network;
mod script;
