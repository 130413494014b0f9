//! A libvirt client in pure Rust.

pub mod auth;
mod environment;
mod files;
pub mod transport;
pub mod uri;

pub use environment::Environment;
