//! Compiles the service's .proto file; protox does without protoc.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["jobs.proto"], ["proto"])?;
    // For reflection.
    let out = PathBuf::from(env::var("OUT_DIR")?).join("jobs.binpb");
    fs::write(out, descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(false)
        .compile_fds(descriptors)?;
    Ok(())
}
