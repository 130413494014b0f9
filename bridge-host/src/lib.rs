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
//! | `front` | who connects, how many, with which limits |
//! | `routing` | which guest a call is for |
//! | `forward` | how a call passes through |
//! | `guest` | whether a guest can be reached, and why not |
//! | `guests` | which guests there are |
//! | [`discovery`] | where guests are found, and what their machines do |
//! | `machine`, `monitor` | whether a virtual machine runs, stands still, and where its channel is |
//! | `service` | what the bridge says of itself |
//! | `inside` | how the bridge itself calls a guest |
//! | `json` | the same for curl, in JSON |
//! | `metrics` | what is measured, for Prometheus |
//! | [`config`] | what the operator wrote |
//! | [`retry`] | which failed requests a client sends again, and when |
//!
//! See [`Bridge`] for an example.

mod address;
mod bridge;
pub mod config;
pub mod discovery;
mod error;
mod forward;
mod front;
mod guest;
mod guests;
mod inside;
mod json;
pub mod limits;
mod machine;
mod metrics;
mod monitor;
pub mod retry;
mod routing;
mod service;

pub use address::{AddressError, ListenAddress};
pub use bridge::{BoundBridge, Bridge, BridgeBuilder, check_name};
pub use error::{BridgeError, DOMAIN};
pub use forward::WAIT_HEADER;
pub use guest::GuestSpec;
pub use routing::{BRIDGE_NAME, GUEST_HEADER};
