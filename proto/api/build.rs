//! Compiles the `.proto` files with protox, so that no protoc is needed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const PROTOS: &[&str] = &[
    "vbridge/guest/v1/accounts.proto",
    "vbridge/guest/v1/events.proto",
    "vbridge/guest/v1/exec.proto",
    "vbridge/guest/v1/files.proto",
    "vbridge/guest/v1/hardware.proto",
    "vbridge/guest/v1/metrics.proto",
    "vbridge/guest/v1/network.proto",
    "vbridge/guest/v1/power.proto",
    "vbridge/guest/v1/services.proto",
    "vbridge/guest/v1/storage.proto",
    "vbridge/guest/v1/system.proto",
    "vbridge/guest/v1/time.proto",
    "vbridge/guest/v1/tunnel.proto",
    "vbridge/host/v1/bridge.proto",
    "vbridge/host/v1/domains.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    println!("cargo:rerun-if-changed=vbridge");
    let descriptors = protox::compile(PROTOS, [&root])?;
    // The descriptor set keeps comments: `grpcurl describe` shows them.
    let out = PathBuf::from(env::var("OUT_DIR")?).join("vbridge.binpb");
    fs::write(out, descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(env::var_os("CARGO_FEATURE_CLIENT").is_some())
        .build_server(env::var_os("CARGO_FEATURE_SERVER").is_some())
        .compile_fds(descriptors)?;
    Ok(())
}
