//! The agent's own gRPC services.
//!
//! | module | what it is |
//! |---|---|
//! | [`system`] | `vbridge.guest.v1.System` |
//! | [`accounts`] | `vbridge.guest.v1.Accounts` |
//! | [`events`] | `vbridge.guest.v1.Events` |
//! | [`exec`] | `vbridge.guest.v1.Exec` |
//! | [`files`] | `vbridge.guest.v1.Files` |
//! | [`hardware`] | `vbridge.guest.v1.Hardware` |
//! | [`metrics`] | `vbridge.guest.v1.Metrics` |
//! | [`network`] | `vbridge.guest.v1.Network` |
//! | [`power`] | `vbridge.guest.v1.Power` |
//! | [`storage`] | `vbridge.guest.v1.Storage` |
//! | [`time`] | `vbridge.guest.v1.Time` |
//! | [`tunnel`] | `vbridge.guest.v1.Tunnel` |
//! | [`units`] | `vbridge.guest.v1.Services` |
//! | [`sampler`] | the one reader of the kernel's counters behind `system` and `metrics` |
//! | [`snapshot`] | what it reads at one moment |
//! | [`health`] | `grpc.health.v1.Health` |
//! | [`hostname`] | another name for the guest, now and for its next boot |
//! | [`filesystems`] | sizes of file systems, some of which never answer |

pub(crate) mod accounts;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod files;
pub(crate) mod filesystems;
pub(crate) mod hardware;
pub(crate) mod health;
pub(crate) mod hostname;
pub(crate) mod metrics;
pub(crate) mod network;
pub(crate) mod power;
pub(crate) mod sampler;
pub(crate) mod snapshot;
pub(crate) mod storage;
pub(crate) mod system;
pub(crate) mod time;
pub(crate) mod tunnel;
pub(crate) mod units;

use tokio::time::timeout;
use tonic::{Status, Streaming};

use crate::{
    error::{self, Reason},
    limits::FIRST_MESSAGE,
};

/// The first message of a call, which says in this field what the call is about. Nobody is kept waiting for it for ever.
pub(crate) async fn first<Q>(
    messages: &mut Streaming<Q>,
    field: &str,
) -> Result<Option<Q>, Status> {
    match timeout(FIRST_MESSAGE, messages.message()).await {
        Ok(first) => first,
        Err(_) => Err(error::invalid_field(
            field,
            format!("must be in the first message, within {FIRST_MESSAGE:?}"),
        )),
    }
}

/// Does what may block on a thread where it may.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        // A panic, or the runtime ends.
        error::failure(Reason::Internal, format!("the agent failed: {error}"))
    })
}
