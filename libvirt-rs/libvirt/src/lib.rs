//! A libvirt client in pure Rust.
