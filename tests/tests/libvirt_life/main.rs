//! The life of every kind of object, through the Rust client on a private libvirtd: with real QEMU domains, and with the
//! test driver for what a host must be made for.
//!
//! What a call does is looked up with virsh, and what the daemon tells of it is compared event by event: nothing may be
//! missing, nothing may come beside it. So each record of events is closed by a mark, an object that comes and goes.
//!
//! | file | whose life |
//! |---|---|
//! | `domain` | domains: definition, running, devices, restarts |
//! | `past` | domains that go back: to a snapshot, or to where they were saved |
//! | `tuning` | domains of the test driver, whose limits are set |
//! | `jobs` | domains whose disks are copied, backed up and limited |
//! | `guest` | what flows in and out of one: console, channel, screen |
//! | `network` | networks, filters on a card, the host's interfaces and devices |
//! | `storage` | pools, volumes, secrets |
//! | `descriptors` | file descriptors that travel with calls and replies |
//! | `places` | sockets, wherever a daemon may have one |
//! | `trouble` | guests that hang, callers that go, daemons that die |

mod descriptors;
mod domain;
mod guest;
mod jobs;
mod network;
mod past;
mod places;
mod storage;
mod support;
mod trouble;
mod tuning;
