//! The initramfs: a newc archive of busybox, kernel modules, `/init` and our binaries.
//!
//! For a system on a disk it holds what is to be put there before that starts, below [`SYSTEM`].

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use cpio::newc::{self, Builder};

use super::GuestFile;
use super::kernel::Kernel;
use crate::command;

/// How the names of cached initramfs files begin.
pub(super) const FILE_PREFIX: &str = "initramfs-";

const INIT: &str = include_str!("../../guest/init");

/// Executes the host's commands, in either guest.
const SERVE: &str = include_str!("../../guest/serve");
const SERVE_PATH: &str = "usr/lib/vbridge-guest/serve";

/// Starts it where systemd is, in which such a link enables it.
const SERVE_UNIT: &str = include_str!("../../guest/system/vbridge-guest-serve.service");
const SERVE_UNIT_PATH: &str = "usr/lib/systemd/system/vbridge-guest-serve.service";
const SERVE_WANTED: &str = "etc/systemd/system/multi-user.target.wants/vbridge-guest-serve.service";

/// The folder that `/init` copies to the disk.
pub(super) const SYSTEM: &str = "/system";

const OS_RELEASE: &str = "\
ID=vbridge-guest
NAME=\"vbridge test guest\"
PRETTY_NAME=\"vbridge test guest (busybox)\"
VERSION_ID=1
";

/// Directories that `/init` and programs expect.
const DIRECTORIES: [&str; 11] = [
    "bin",
    "dev",
    "etc",
    "lib/modules",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "usr",
    "var/log",
];

/// Busybox's commands are all in `/bin`; scripts may look for them elsewhere.
const LINKS: [(&str, &str); 4] = [
    ("sbin", "bin"),
    ("usr/bin", "../bin"),
    ("usr/sbin", "../bin"),
    ("var/run", "../run"),
];

// File types and permissions (stat(2)).
const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const REGULAR: u32 = 0o100_644;
const SYMLINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// What goes into an initramfs.
pub(super) struct Contents<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) files: &'a [GuestFile],
    /// Whether it starts a system on a disk.
    pub(super) system: bool,
}

/// The initramfs for these inputs: from the cache, or built.
pub(super) fn cached_or_built(cache: &Path, contents: &Contents<'_>) -> Result<PathBuf> {
    let busybox = find_busybox()?;
    let key = key(&busybox, contents)?;
    let path = cache.join(format!("{FILE_PREFIX}{key:016x}.cpio"));
    if path.exists() {
        return Ok(path);
    }
    let mut temporary = tempfile::NamedTempFile::new_in(cache)
        .with_context(|| format!("cannot create a file in {}", cache.display()))?;
    write(temporary.as_file_mut(), &busybox, contents)
        .with_context(|| format!("cannot write {}", path.display()))?;
    temporary
        .persist(&path)
        .with_context(|| format!("cannot create {}", path.display()))?;
    Ok(path)
}

/// An archive of a few regular files: the kernel unpacks it after the initramfs to which it is appended.
pub(crate) fn overlay(files: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut archive = Archive::new(Vec::new());
    for (path, data) in files {
        archive.file(path, REGULAR, data)?;
    }
    archive.finish()
}

/// What the contents depend on. A binary that was rebuilt has another time or size.
fn key(busybox: &Path, contents: &Contents<'_>) -> Result<u64> {
    let kernel = contents.kernel;
    let mut hasher = DefaultHasher::new();
    (INIT, SERVE, SERVE_UNIT, OS_RELEASE).hash(&mut hasher);
    (&kernel.package, &kernel.modules, contents.system).hash(&mut hasher);
    for file in contents.files {
        (&file.guest, file.executable).hash(&mut hasher);
    }
    let files = contents.files.iter().map(|file| file.host.as_path());
    for host in files.chain([busybox]) {
        let meta = fs::metadata(host).with_context(|| format!("cannot read {}", host.display()))?;
        (host, meta.len(), meta.modified()?).hash(&mut hasher);
    }
    Ok(hasher.finish())
}

fn write(file: &mut File, busybox: &Path, contents: &Contents<'_>) -> Result<()> {
    let mut archive = Archive::new(BufWriter::new(file));
    for path in DIRECTORIES {
        archive.parents(path)?;
        archive.directory(path)?;
    }
    for (path, target) in LINKS {
        archive.entry(path, SYMLINK, target.as_bytes())?;
    }
    // The kernel opens the console before `/init` can mount a devtmpfs.
    archive.device("dev/console", 5, 1)?;
    archive.device("dev/null", 1, 3)?;
    archive.entry("init", EXECUTABLE, INIT.as_bytes())?;
    archive.entry("etc/os-release", REGULAR, OS_RELEASE.as_bytes())?;
    archive.entry("etc/passwd", REGULAR, b"root::0:0:root:/root:/bin/sh\n")?;
    archive.entry("etc/group", REGULAR, b"root:x:0:\n")?;
    archive.entry("bin/busybox", EXECUTABLE, &read(busybox)?)?;
    for applet in command::capture_text(Command::new(busybox).arg("--list"))?.lines() {
        // Debian's list has the name of the program itself.
        if applet != "busybox" {
            archive.entry(&format!("bin/{applet}"), SYMLINK, b"busybox")?;
        }
    }
    let kernel = contents.kernel;
    let prefix = match contents.system {
        true => {
            archive.modules("lib/modules", &kernel.disk_modules)?;
            write_system(&mut archive, kernel)?;
            SYSTEM
        }
        false => {
            archive.modules("lib/modules", &kernel.modules)?;
            ""
        }
    };
    archive.file(
        &format!("{prefix}/{SERVE_PATH}"),
        EXECUTABLE,
        SERVE.as_bytes(),
    )?;
    for file in contents.files {
        let mode = if file.executable { EXECUTABLE } else { REGULAR };
        archive.file(&format!("{prefix}{}", file.guest), mode, &read(&file.host)?)?;
    }
    archive.finish()?.flush()?;
    Ok(())
}

/// What the system on the disk needs of us beside the files of the image.
fn write_system<W: Write>(archive: &mut Archive<W>, kernel: &Kernel) -> Result<()> {
    if !kernel.system_modules.is_empty() {
        let folder = format!("system/usr/lib/modules/{}", kernel.release);
        archive.parents(&format!("{folder}/"))?;
        archive.modules(&folder, &kernel.system_modules)?;
    }
    let unit = format!("{SYSTEM}/{SERVE_UNIT_PATH}");
    archive.file(&unit, REGULAR, SERVE_UNIT.as_bytes())?;
    let target = format!("/{SERVE_UNIT_PATH}");
    archive.file(
        &format!("{SYSTEM}/{SERVE_WANTED}"),
        SYMLINK,
        target.as_bytes(),
    )
}

/// Debian's statically linked busybox.
pub(crate) fn find_busybox() -> Result<PathBuf> {
    let path = command::find_program("busybox")
        .ok_or_else(|| anyhow!("busybox is not installed: run `cargo xtask tools`"))?;
    if !is_static(&path)? {
        bail!(
            "{} is linked dynamically: install the package busybox-static",
            path.display()
        );
    }
    Ok(path)
}

/// A program that needs a dynamic linker names it among its first bytes.
fn is_static(program: &Path) -> Result<bool> {
    let data = read(program)?;
    let head = &data[..data.len().min(4096)];
    Ok(!head.windows(6).any(|bytes| bytes == b"/ld-li"))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn guest_path(path: &str) -> Result<&str> {
    match path.strip_prefix('/') {
        Some(relative) if !relative.is_empty() && !relative.ends_with('/') => Ok(relative),
        _ => bail!("`{path}` is not the absolute path of a file in the guest"),
    }
}

/// Writes entries with distinct inode numbers, each directory once.
struct Archive<W: Write> {
    out: W,
    inode: u32,
    directories: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    fn new(out: W) -> Self {
        Self {
            out,
            inode: 0,
            directories: BTreeSet::new(),
        }
    }

    fn entry(&mut self, path: &str, mode: u32, data: &[u8]) -> Result<()> {
        let size = u32::try_from(data.len()).with_context(|| format!("{path} exceeds 4 GiB"))?;
        let builder = self.builder(path, mode);
        let mut writer = builder.write(&mut self.out, size);
        writer.write_all(data)?;
        writer.finish()?;
        Ok(())
    }

    /// An entry by its absolute path in the guest, behind the directories that lead to it.
    fn file(&mut self, path: &str, mode: u32, data: &[u8]) -> Result<()> {
        let path = guest_path(path)?;
        self.parents(path)?;
        self.entry(path, mode, data)
    }

    /// Modules in a directory that is there, in the order of loading.
    fn modules(&mut self, directory: &str, modules: &[PathBuf]) -> Result<()> {
        for module in modules {
            let name = module.file_name().unwrap_or_default().to_string_lossy();
            self.entry(&format!("{directory}/{name}"), REGULAR, &read(module)?)?;
        }
        Ok(())
    }

    fn device(&mut self, path: &str, major: u32, minor: u32) -> Result<()> {
        let builder = self
            .builder(path, CHARACTER_DEVICE)
            .rdev_major(major)
            .rdev_minor(minor);
        builder.write(&mut self.out, 0).finish()?;
        Ok(())
    }

    fn directory(&mut self, path: &str) -> Result<()> {
        // `/dev` of an overlay must not replace a link such as `/sbin`: paths there are ours to choose.
        if self.directories.insert(path.to_owned()) {
            self.entry(path, DIRECTORY, b"")?;
        }
        Ok(())
    }

    fn parents(&mut self, path: &str) -> Result<()> {
        for (end, _) in path.match_indices('/') {
            self.directory(&path[..end])?;
        }
        Ok(())
    }

    fn builder(&mut self, path: &str, mode: u32) -> Builder {
        self.inode += 1;
        Builder::new(path).ino(self.inode).mode(mode).nlink(1)
    }

    fn finish(self) -> Result<W> {
        Ok(newc::trailer(self.out)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_holds_its_files_behind_their_directories() {
        let files = [
            ("/etc/a/one".to_owned(), b"1".to_vec()),
            ("/etc/a/two".to_owned(), b"22".to_vec()),
        ];
        let mut rest = &overlay(&files).unwrap()[..];
        let mut seen = Vec::new();
        loop {
            let reader = newc::Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            seen.push((reader.entry().name().to_owned(), reader.entry().file_size()));
            rest = reader.finish().unwrap();
        }
        let expected = [("etc", 0), ("etc/a", 0), ("etc/a/one", 1), ("etc/a/two", 2)];
        assert_eq!(seen, expected.map(|(name, size)| (name.to_owned(), size)));
    }

    #[test]
    fn a_path_in_the_guest_is_absolute() {
        assert!(overlay(&[("etc/one".to_owned(), Vec::new())]).is_err());
        assert!(overlay(&[("/".to_owned(), Vec::new())]).is_err());
    }

    #[test]
    fn the_scripts_parse() {
        let setup = include_str!("../../guest/system/setup");
        for script in [INIT, SERVE, setup] {
            let status = Command::new("sh")
                .args(["-n", "-c", script])
                .status()
                .unwrap();
            assert!(status.success(), "{script}");
        }
    }
}
