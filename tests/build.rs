//! Compiles the exercise service with protox, so that no protoc is needed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const PROTOS: &[&str] = &["vbridge/test/v1/exercise.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("proto");
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, [&root])?;
    let out = PathBuf::from(env::var("OUT_DIR")?).join("exercise.binpb");
    fs::write(out, descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Bulk data is not copied where it is only passed on.
        .bytes(".vbridge.test.v1")
        .compile_fds(descriptors)?;
    Ok(())
}
