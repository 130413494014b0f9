//! Sessions on a byte stream that has none.
//!
//! A virtio-serial channel has no connections: when either end crashes, half a message and stale bytes stay in its
//! queues, and nobody is told. This crate adds the one thing that is missing, the boundary between one session and
//! the next:
//!
//! - **From any state of both ends, with any bytes in the channel, one round trip opens a clean session.**
//! - **No byte of an old session ever reaches a new one.**
//!
//! ```text
//!     HTTP/2 client                                             HTTP/2 server
//!          │ bytes of one session                                    │
//!     ┌────▼─────┐        HELLO ──▶            ┌─────────┐      ┌────▼─────┐
//!     │ HostEnd  │◀──── Unix socket ── QEMU ───┤ channel ├─────▶│ GuestEnd │
//!     └──────────┘        ◀── WELCOME          └─────────┘ port └──────────┘
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`framing`] | layer one of the wire: markers between octets |
//! | `record` | layer two: control records between session bytes |
//! | `stream` | one session's counts and credit |
//! | [`HostEnd`], [`GuestEnd`] | the two ends as state machines: no I/O, no clock |
//! | [`HostLink`], [`GuestLink`], [`Session`] | the same on tokio (feature `tokio`) |
//! | `emulated` | a port that behaves like the real one (feature `emulated`) |
//!
//! The protocol as it goes over the wire is written down in `docs/link.md`.
//!
//! ```
//! use std::time::Instant;
//! use vbridge_link::{GuestConfig, GuestEnd, GuestEvent, HostConfig, HostEnd, HostEvent, Random};
//!
//! let now = Instant::now();
//! let mut host = HostEnd::new(HostConfig::default(), Random::system(), now);
//! let mut guest = GuestEnd::new(GuestConfig::default(), Random::system(), now);
//! host.handle_timeout(now); // HELLO
//! guest.handle_input(now, b"whatever an old session has left in the channel");
//! let mut opened = None;
//! while opened.is_none() {
//!     let bytes = host.transmit().to_vec();
//!     host.transmitted(bytes.len());
//!     guest.handle_input(now, &bytes);
//!     guest.handle_drained(now);
//!     let bytes = guest.transmit().to_vec();
//!     guest.transmitted(bytes.len());
//!     host.handle_input(now, &bytes);
//!     if let Some(HostEvent::Opened { id, .. }) = host.poll_event() {
//!         opened = Some(id);
//!     }
//! }
//! assert!(matches!(guest.poll_event(), Some(GuestEvent::Opened { id, .. }) if Some(id) == opened));
//! ```

#[cfg(feature = "tokio")]
mod adapter;
mod auth;
#[cfg(any(test, feature = "emulated"))]
pub mod emulated;
mod end;
pub mod framing;
mod guest;
mod host;
pub mod limits;
mod port;
mod random;
mod record;
mod stream;

#[cfg(feature = "tokio")]
pub use adapter::{GuestLink, HostLink, LinkHandle, LinkStats, LinkStatus, Session};
pub use auth::{Key, KeyError};
pub use end::EndReason;
pub use guest::{GuestConfig, GuestEnd, GuestEvent};
pub use host::{HostConfig, HostEnd, HostEvent};
pub use port::{Port, PortRead};
pub use random::Random;
pub use record::{BadRecord, RejectCode, SessionId, VERSION};
pub use stream::StreamError;
