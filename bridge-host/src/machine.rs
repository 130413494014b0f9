//! What is known of a guest's virtual machine without asking the guest.
//!
//! ```text
//!             starts, with a channel              pauses
//!     Off ─────────────────────────────▶ Runs ◀───────────▶ Paused
//!      ▲                                   │     goes on       │
//!      └───────────────────────────────────┴───────────────────┘
//!                               stops
//! ```
//!
//! Of a guest that the operator has named it *runs* for all that is known; its QEMU monitor, where one is given, tells pauses.
//! Of one that was found it is what the hypervisor says. Each running has a channel of its own: libvirt puts the domain's
//! number into the socket's path.

use std::path::{Path, PathBuf};

/// What a virtual machine does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Machine {
    /// It does not run; why there is no channel, in a sentence's second half.
    Off(String),
    /// It runs, or nobody says otherwise. The channel's socket.
    Runs(PathBuf),
    /// Its CPUs stand still.
    Paused(PathBuf),
}

impl Machine {
    /// The channel's socket, if there is one.
    pub(crate) fn channel(&self) -> Option<&Path> {
        match self {
            Self::Off(_) => None,
            Self::Runs(channel) | Self::Paused(channel) => Some(channel),
        }
    }

    pub(crate) fn is_paused(&self) -> bool {
        matches!(self, Self::Paused(_))
    }

    /// The same, going on or standing still.
    pub(crate) fn with_pause(self, paused: bool) -> Self {
        match self {
            Self::Off(why) => Self::Off(why),
            Self::Runs(channel) | Self::Paused(channel) if paused => Self::Paused(channel),
            Self::Runs(channel) | Self::Paused(channel) => Self::Runs(channel),
        }
    }
}
