//! The inputs that are kept with the targets: those that the client takes, and those that it refuses.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Runs a target with the seeds of one folder, `decode/taken` for one, and says how many there were.
///
/// # Errors
/// The folder or a file can't be read.
pub fn replay(folder: &str, run: impl Fn(&[u8])) -> io::Result<usize> {
    let files = files(folder)?;
    for file in &files {
        // A panic's message does not say which input it was.
        eprintln!("{}", file.display());
        run(&fs::read(file)?);
    }
    Ok(files.len())
}

/// The files of a folder, by name.
fn files(folder: &str) -> io::Result<Vec<PathBuf>> {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let mut files = fs::read_dir(seeds.join(folder))?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}
