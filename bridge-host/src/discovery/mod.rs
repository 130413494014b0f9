//! Where guests are found, and what becomes of them.
//!
//! ```text
//!   libvirt: events ──▶ one domain ──┐           ┌─ new: add ──▶ guests
//!            a review ─▶ all domains ┼──▶ known ─┼─ changed ───▶ the guest's machine
//!   a folder: inotify ─▶ its sockets ┘           └─ gone: remove
//! ```
//!
//! What is found is looked at anew whenever something happened to it; what the event was does not matter. So nothing
//! depends on the order of events or on having all of them.
//!
//! | module | what it follows |
//! |---|---|
//! | `attach` | nothing: it gives a domain the channel |
//! | `domain` | nothing: it reads a domain's XML |
//! | `libvirt` | the domains of a hypervisor |
//! | `sockets` | the sockets in a folder |

mod attach;
pub(crate) mod domain;
mod libvirt;
mod sockets;

pub use attach::{AttachError, Attached, Part, attach};
pub use sockets::{PatternError, SocketPattern};

use futures_util::future::BoxFuture;

use crate::{guests::Guests, hypervisor::Hypervisors};

/// The channel's name that agents look for.
pub const CHANNEL_NAME: &str = "org.vbridge.agent.0";

/// A place where guests are found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// Every domain of a hypervisor that has the channel.
    Libvirt {
        /// The connection's URI, like `qemu:///system`.
        uri: String,
        /// The channel's name, [`CHANNEL_NAME`] for our agent.
        channel: String,
        /// Whether a domain that has only qemu-guest-agent's channel is a guest, too.
        qemu_agent: bool,
    },
    /// Every socket in a folder whose name fits.
    Sockets(SocketPattern),
}

impl Source {
    /// What follows it for ever. A hypervisor becomes one of those that are known.
    pub(crate) fn follow(
        self,
        guests: Guests,
        hypervisors: &mut Hypervisors,
    ) -> BoxFuture<'static, ()> {
        match self {
            Self::Libvirt {
                uri,
                channel,
                qemu_agent,
            } => {
                let hypervisor = hypervisors.add(&uri);
                Box::pin(libvirt::follow(hypervisor, channel, qemu_agent, guests))
            }
            Self::Sockets(pattern) => Box::pin(sockets::follow(pattern, guests)),
        }
    }
}
