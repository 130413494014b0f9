//! End-to-end tests of vbridge: the framework in which they are written, and what runs in the test guest.
//!
//! | module | what it is |
//! |---|---|
//! | [`exercise`] | a gRPC service that does everything a service can do, on demand |
//! | [`content`] | bytes that can be told from a seed and a position |
//! | [`process`] | our programs as processes: started, killed, counted |
//! | [`place`] | where a service is: directly over TCP, or behind a bridge |
//! | [`fixture`] | bridge, local agent and guest, so that a test reads like its story |
//! | [`raw`] | gRPC on a bare HTTP/2 connection: every frame's order and every reset's code |
//! | [`programs`] | where our programs are |
//! | [`suite`] | tests that share a guest or a bridge |
//! | [`matrix`] | every kind of call, told as a transcript that can be compared |
//! | [`chaos`] | bulk streams and pings that go on while things are killed |
//! | [`snapshot`] | a guest's state, saved and gone back to |
//! | [`outside`] | programs that are not ours: grpcurl, Python |
//! | [`between`] | what stands between a command and the bridge, and counts |
//! | [`terminal`] | a terminal of a program's own |
//! | [`cli`] | `vbridge` as people call it |
//! | [`clients`] | grpcurl, Python and Node |
//! | [`load`] | many callers at once, callers that go, and large files |
//! | [`qga`] | the QEMU guest agent, to compare with |
//! | [`libvirt`] | a private libvirtd, real domains on it, and the C library to compare with |
//!
//! The tests stand in `tests/`. Those that need our guest have `guest` in their file's name; `libvirt_*` need a private
//! libvirtd, many of them with QEMU's domains; the others run against an agent on a Unix socket, in seconds.

// The tests' own code stops at the first thing that is not as expected, and says what it was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]

pub mod between;
pub mod chaos;
pub mod cli;
pub mod clients;
pub mod content;
pub mod exercise;
pub mod fixture;
pub mod libvirt;
pub mod load;
pub mod matrix;
pub mod outside;
pub mod place;
pub mod process;
pub mod programs;
pub mod qga;
pub mod raw;
pub mod snapshot;
pub mod suite;
pub mod terminal;
