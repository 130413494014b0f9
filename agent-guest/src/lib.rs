//! The vbridge guest agent: gRPC services on a virtio-serial port.
//!
//! ```text
//!    /dev/virtio-ports/org.vbridge.agent.0                          (port: device, listen)
//!        │ bytes without boundaries
//!    the link: one session after another                            (vbridge-link, serve)
//!        │ HTTP/2, within TLS where that is wanted                    (tls)
//!    calls, those that are signed if they must be, and that the policy lets in (sessions, router, call_auth, gate, policy,
//!        │                                                           places, deadline)
//!        │
//!    System, Metrics, Exec, …, health, reflection, and what you add (services, exec, discovery)
//!        │
//!    /proc, /sys, system calls                                      (source)
//!    sockets                                                        (tunnel)
//!    gRPC servers of the guest's own                                (upstream)
//!    D-Bus, journalctl                                              (systemd)
//! ```
//!
//! The program `vbridge-agent` is this library with a command line. A program of your own embeds it, and serves its own
//! gRPC services to the host through the same channel:
//!
//! ```no_run
//! # async fn example<S: agent_guest::GrpcService>(my_service: S) -> Result<(), Box<dyn std::error::Error>> {
//! use agent_guest::Agent;
//!
//! let agent = Agent::builder().add_service(my_service).build()?;
//! agent.run(std::future::pending()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Every limit is in [`limits`], every reason that a caller may see in [`error`].

mod agent;
mod call_auth;
mod deadline;
mod discovery;
pub mod emulation;
pub mod error;
mod events;
mod exec;
mod files;
mod gate;
pub mod limits;
#[cfg(feature = "cli")]
pub mod log;
mod places;
mod policy;
pub mod port;
mod request;
mod router;
mod serve;
mod services;
mod sessions;
mod source;
mod standstill;
mod systemd;
#[cfg(feature = "tls")]
mod tls;
mod tunnel;
mod upstream;

pub use agent::{Agent, AgentBuilder, BuildError, DEFAULT_CHANNEL, RunError};
pub use discovery::DescriptorError;
pub use policy::{
    Access, AddressRule, AddressUse, CommandRule, Limit, PathRule, Policy, PolicyError, Profile,
    Rule, Rules,
};
pub use port::Rebind;
pub use router::GrpcService;
pub use standstill::Standstill;
pub use systemd::SystemdPlaces;
#[cfg(feature = "tls")]
pub use tls::{Tls, TlsError, TlsFiles};
pub use tunnel::TunnelLimits;
pub use upstream::{Upstream, UpstreamError};
pub use vbridge_link::{Key, KeyError};
