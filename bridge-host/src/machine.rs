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
//! number into the socket's path, and a stream's place has it, too.

use crate::place::Channel;

/// What a virtual machine does.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Machine {
    /// It does not run; why there is no channel, in a sentence's second half.
    Off(String),
    /// It runs, or nobody says otherwise. The channel's place.
    Runs(Channel),
    /// Its CPUs stand still.
    Paused(Channel),
}

impl Machine {
    /// The channel's place, if there is one.
    pub(crate) fn channel(&self) -> Option<&Channel> {
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
