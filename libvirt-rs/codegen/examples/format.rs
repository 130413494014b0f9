//! Puts interface files into the layout of [`libvirt_codegen::render`].
//!
//! ```text
//! cargo run -p libvirt-codegen --example format -- libvirt-rs/proto/remote.x libvirt-rs/proto/qemu.x
//! ```
//!
//! A file may use the types of those that stand before it.

use std::{env, error::Error, fs};

use libvirt_codegen::{Model, Options, parse_file, render};

fn main() -> Result<(), Box<dyn Error>> {
    let mut options = Options::libvirt();
    for path in env::args().skip(1) {
        let model = Model::new(&parse_file(&path)?, &options)?;
        fs::write(&path, render(&model))?;
        options = options.import(path, model);
    }
    Ok(())
}
