//! What a hostile daemon, or a broken interface file, can do to the libvirt client.
//!
//! A target takes any bytes, and panics when the client does not keep what it promises:
//!
//! | target | input | promises |
//! |---|---|---|
//! | [`decode`] | a type's number and a payload in XDR | no panic; a value has one encoding; little memory |
//! | [`packets`] | a story of calls, streams and what the daemon sends, cut anywhere | no panic; what happens is what a plain model of the protocol says; the cuts change nothing; memory for what came |
//! | [`parse`] | an interface file | no panic; what is rendered is read back; what is generated is Rust; bounded memory |
//!
//! `cargo xtask fuzz` runs them under libFuzzer, which looks for inputs that reach new code. The inputs below `seeds` are
//! where it begins: packets that a libvirt daemon has sent, interface files, and whatever has found a mistake once. The
//! ordinary tests run the seeds, too.

pub mod decode;
pub mod limits;
pub mod memory;
pub mod packets;
pub mod parse;
mod rust;
pub mod seeds;
