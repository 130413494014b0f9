//! The gRPC contract of vbridge.
//!
//! | module | protobuf package | who serves it |
//! |---|---|---|
//! | [`guest::v1`] | `vbridge.guest.v1` | the agent in the guest |
//! | [`host::v1`] | `vbridge.host.v1` | the bridge on the hypervisor |
//! | [`json`] | none: which methods the endpoints of the API in JSON stand for | the bridge |
//!
//! The code is generated at build time from the `.proto` files beside `Cargo.toml`, whose comments are the
//! reference for every field and its unit. [`DESCRIPTOR_SET`] is the same contract as data: hand it to a reflection
//! service, or write it to a file for clients in other languages.
//!
//! ```
//! use prost::Message as _;
//!
//! let set = prost_types::FileDescriptorSet::decode(vbridge_api::DESCRIPTOR_SET)?;
//! assert!(set.file.iter().any(|file| file.package() == "vbridge.guest.v1"));
//! # Ok::<(), prost::DecodeError>(())
//! ```

pub mod json;

/// The encoded `google.protobuf.FileDescriptorSet` of every `.proto` file of this crate and of what they import.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/vbridge.binpb"));

/// Services that run in the guest.
pub mod guest {
    /// Version 1: package `vbridge.guest.v1`.
    #[allow(
        missing_docs,
        clippy::all,
        clippy::pedantic,
        unreachable_pub,
        rustdoc::all
    )]
    pub mod v1 {
        tonic::include_proto!("vbridge.guest.v1");
    }
}

/// Services that run in the bridge on the host.
pub mod host {
    /// Version 1: package `vbridge.host.v1`.
    #[allow(
        missing_docs,
        clippy::all,
        clippy::pedantic,
        unreachable_pub,
        rustdoc::all
    )]
    pub mod v1 {
        tonic::include_proto!("vbridge.host.v1");
    }
}
