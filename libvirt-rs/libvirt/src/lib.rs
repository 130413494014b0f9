//! A libvirt client in pure Rust.
mod error;
pub mod rpc;
pub use error::{Error, RemoteError};
