//! For build scripts: from files to files.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use crate::{error::Error, generate::generate, model::Model, options::Options, parser::parse_file};

/// An interface file and what to make of it.
#[derive(Debug, Clone)]
pub struct Input {
    path: PathBuf,
    module: String,
    options: Options,
}

impl Input {
    /// A file, the module that its code is for, and the options. The imports are added by [`compile`].
    pub fn new(path: impl Into<PathBuf>, module: impl Into<String>, options: Options) -> Self {
        Self {
            path: path.into(),
            module: module.into(),
            options,
        }
    }
}

/// Generates the code of some files from a build script: `proto/remote.x` becomes `remote.rs` in `OUT_DIR`. Each file
/// may use the types and constants of those before it. Cargo is told to run the script again when one of them changes.
///
/// ```no_run
/// use libvirt_codegen::{Input, Options, compile};
///
/// fn main() -> Result<(), libvirt_codegen::Error> {
///     compile(&[
///         Input::new("../proto/remote.x", "crate::raw::remote", Options::libvirt()),
///         Input::new("../proto/qemu.x", "crate::raw::qemu", Options::libvirt()),
///         Input::new("../proto/api.x", "crate::api", Options::libvirt().wire(false)),
///     ])
/// }
/// ```
///
/// # Errors
/// A file can't be read or written, or something in it is wrong.
pub fn compile(inputs: &[Input]) -> Result<(), Error> {
    let out = env::var_os("OUT_DIR").ok_or(Error::NoOutDir)?;
    for input in inputs {
        println!("cargo:rerun-if-changed={}", input.path.display());
    }
    compile_to(inputs, Path::new(&out))
}

/// As [`compile`], into a directory of one's choice, and without a word to Cargo.
///
/// # Errors
/// As [`compile`].
pub fn compile_to(inputs: &[Input], directory: &Path) -> Result<(), Error> {
    let mut known: Vec<(&Input, Model)> = Vec::with_capacity(inputs.len());
    for input in inputs {
        let imports = known.iter();
        let options = imports.fold(input.options.clone(), |options, (other, model)| {
            options.import_as(&other.module, model.clone(), other.options.wire)
        });
        let model = Model::new(&parse_file(&input.path)?, &options)?;
        let code = generate(&model, &options)?;
        let stem = input.path.file_stem().unwrap_or(input.path.as_os_str());
        let path = directory.join(stem).with_extension("rs");
        fs::write(&path, code).map_err(|source| Error::Write { path, source })?;
        known.push((input, model));
    }
    Ok(())
}
