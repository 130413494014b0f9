//! Generates Rust from interface files, as a build script would: into a directory, to be read.
//!
//! ```text
//! cargo run -p libvirt-codegen --example generate -- target/generated
//! ```

use std::{env, error::Error, fs, path::Path};

use libvirt_codegen::{Input, Options, compile_to};

fn main() -> Result<(), Box<dyn Error>> {
    let out = env::args_os()
        .nth(1)
        .ok_or("name a directory to write to")?;
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let input = |name: &str, options| {
        let module = format!("crate::raw::{name}");
        Input::new(proto.join(name).with_extension("x"), module, options)
    };
    fs::create_dir_all(&out)?;
    compile_to(
        &[
            input("virnet", Options::libvirt()),
            input("keepalive", Options::libvirt().client(false)),
            input("remote", Options::libvirt()),
            input("qemu", Options::libvirt()),
            input("lxc", Options::libvirt()),
            input("admin", Options::libvirt()),
            input("api", Options::libvirt().wire(false)),
        ],
        Path::new(&out),
    )?;
    Ok(())
}
