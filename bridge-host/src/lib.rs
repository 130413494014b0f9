//! The bridge: every guest's gRPC services on a local port.
//!
//! ```text
//!   gRPC clients ──HTTP/2──▶ front ──▶ routing ──▶ forward ──▶ guest ──HTTP/2 on the link──▶ agent
//!                              │          │                      ▲
//!                              └─ own services (vbridge.host.v1) ┤ states
//!                                                                │
//!   libvirt, a folder of sockets, a monitor ──▶ discovery ──▶ machine
//! ```
//!
//! | module | what it decides |
//! |---|---|
//! | `listener`, `connections` | who connects, over what, and who goes when there are too many |
//! | [`access`] | who may call what, and how often |
//! | `front` | what becomes of a request |
//! | `record`, `audit` | what is measured and written down of a call |
//! | `routing` | which guest a call is for |
//! | `forward` | how a call passes through |
//! | `guest` | whether a guest can be reached, and why not |
//! | `guests` | which guests there are |
//! | [`discovery`] | where guests are found, and what their machines do |
//! | `place` | where a guest's channel is, and how it is connected |
//! | `backlog` | which sockets have clients that wait for their turn |
//! | `machine`, `monitor` | whether a virtual machine runs, stands still, and where its channel is |
//! | `hypervisor` | how hypervisors are reached, and what is told of their domains |
//! | `domains` | what callers may ask of hypervisors and have done to domains |
//! | `service` | what the bridge says of itself |
//! | `inside` | how the bridge itself calls a guest |
//! | `json` | the same for curl, in JSON |
//! | `metrics` | what is measured, for Prometheus |
//! | [`config`] | what the operator wrote |
//! | [`channel`] | nothing: it talks to agents of other kinds, for programs that use this library |
//! | `qemu` | what a guest that has only the QEMU guest agent can do for a caller |
//! | [`retry`] | which failed requests a client sends again, and when |
//!
//! See [`Bridge`] for an example.

pub mod access;
mod address;
mod audit;
mod backlog;
mod bridge;
pub mod channel;
pub mod config;
mod connections;
pub mod discovery;
mod domains;
mod error;
mod forward;
mod front;
mod guest;
mod guests;
mod hypervisor;
mod inside;
mod json;
pub mod limits;
mod listener;
mod machine;
mod metrics;
mod monitor;
mod place;
mod qemu;
mod record;
pub mod retry;
mod routing;
mod service;

pub use address::{AddressError, ListenAddress};
pub use bridge::{BoundBridge, Bridge, BridgeBuilder, Control, check_name};
pub use error::{BridgeError, DOMAIN};
pub use forward::WAIT_HEADER;
pub use guest::{AgentKind, GuestSpec, LinkTls, LinkTlsFiles};
pub use listener::Socket;
pub use routing::{BRIDGE_NAME, GUEST_HEADER};
