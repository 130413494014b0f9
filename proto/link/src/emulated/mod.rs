//! A port that behaves like the real one, for tests and for machines without a virtual machine.
//!
//! [`EmulatedChannel`] is the model: a virtio-serial channel from the host's Unix socket to the guest's character
//! device, with the semantics of QEMU and of Linux's driver (the table below). Nothing in it moves by itself, so that
//! a simulation decides what happens when. [`channel`] puts it on tokio, where everything moves at once.
//!
//! | event | guest→host in flight | host→guest in flight | who is told |
//! |---|---|---|---|
//! | host client closes | discarded | stays, and is read before the 0 | the guest, when the notice arrives |
//! | host reconnects fast | lost | precedes the new client's bytes | nobody, if the notices are lost |
//! | guest closes the port | still delivered | discarded; later bytes reach the next opener | nobody |
//! | guest reboots | partly delivered | what QEMU has not moved reaches the next opener | nobody |
//! | VM paused | held | held | nobody |

mod model;
#[cfg(feature = "tokio")]
mod ports;

pub use model::{Behaviour, ClientId, EmulatedChannel, GuestRead, GuestWrite, HostRead};
#[cfg(feature = "tokio")]
pub use ports::{EmulatedClient, EmulatedPort, EmulatedSocket, channel};
