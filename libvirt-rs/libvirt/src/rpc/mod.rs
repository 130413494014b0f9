//! libvirt's RPC: calls that overlap, events, streams and keepalive on one connection.
//!
//! ```text
//!   Client ── call ──┐                        ┌── RawStream   Messages
//!   Client ── call ──┤                        │      ▲            ▲
//!                    ▼                        ▼      │            │
//!            ┌───────────────── state (one lock) ──────────────────────┐
//!            │ Connection: serials, states, keepalive; no I/O, no clock │
//!            └───────▲──────────────────────────────────────┬──────────┘
//!                    │ packets                              │ packets, descriptors
//!            ┌───────┴───────── driver (one task) ──────────▼──────────┐
//!            │ wire: Unix socket, TCP, TLS, ssh                        │
//!            └─────────────────────────────────────────────────────────┘
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | `header` | a packet's layout |
//! | `connection` | the protocol as a state machine, with its drawing |
//! | `config` | what a connection may be told when it begins |
//! | `keepalive` | whether the daemon still lives |
//! | `state` | what users and driver share |
//! | `subscription` | the messages that wait for one subscriber |
//! | `driver`, `wire` | the thin part that does I/O |
//! | `client`, `stream`, `split`, `messages` | what users hold |
//! | [`limits`] | what bounds all this |

mod client;
mod config;
mod connection;
mod driver;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod header;
mod keepalive;
pub mod limits;
mod messages;
mod procedure;
mod split;
mod state;
mod stream;
mod subscription;
mod wire;

pub use client::Client;
pub use config::Config;
pub use connection::Message;
pub use error::{ConnectionError, ProtocolError};
pub use keepalive::KeepaliveConfig;
pub use messages::{Interruption, Messages};
pub use procedure::{Fds, Priority, Procedure, StreamDirection};
pub use split::{OwnedReadHalf, OwnedWriteHalf};
pub use state::Chunk;
pub use stream::RawStream;
