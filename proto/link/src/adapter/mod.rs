//! The link on tokio: one task a link moves bytes between the port and the state machine; sessions are
//! `AsyncRead + AsyncWrite`.
//!
//! ```text
//!   Session ──read, write──▶ ┌───────────────┐ ◀──bytes, time── driver task ──▶ port or socket
//!   (HTTP/2)                 │ End, in a lock │ ──events──▶ GuestLink::accept, HostLink::session
//!                            └───────────────┘
//! ```
//!
//! The driver reads whether or not a session is being read: control records get through, and what the peer may send
//! meanwhile is bounded by its window.

mod driver;
mod guest;
mod host;
mod session;
mod shared;

pub use guest::GuestLink;
pub use host::{HostLink, LinkHandle, LinkStatus};
pub use session::Session;
pub use shared::LinkStats;
