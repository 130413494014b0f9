//! Connections to a daemon that says what a script tells it to: what it is sent, and what is made of its answers.
//!
//! | file | what |
//! |---|---|
//! | `script` | the daemon |
//! | `auth` | who this client says it is, and to whom |
//! | `cpus` | what a domain's CPUs do |
//! | `domain` | calls about domains, and what they could be given of the host |
//! | `events` | subscriptions to every kind of event that there is, and what is made of the events |
//! | `network` | calls about networks |

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod auth;
mod cpus;
mod domain;
mod events;
mod network;
mod script;
