//! The agent's own gRPC services.
//!
//! | module | what it is |
//! |---|---|
//! | [`system`] | `vbridge.guest.v1.System` |
//! | [`metrics`] | `vbridge.guest.v1.Metrics` |
//! | [`sampler`] | the one reader of the kernel's counters behind both |
//! | [`snapshot`] | what it reads at one moment |
//! | [`health`] | `grpc.health.v1.Health` |
//! | [`filesystems`] | sizes of file systems, some of which never answer |

pub(crate) mod filesystems;
pub(crate) mod health;
pub(crate) mod metrics;
pub(crate) mod sampler;
pub(crate) mod snapshot;
pub(crate) mod system;
