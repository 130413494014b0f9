//! Debian's cloud kernel: found with apt, downloaded, unpacked, and kept.
//!
//! The package is the newest real `linux-image-*-cloud-amd64`. Its kernel is a bzImage, which would
//! decompress itself inside the guest; where we can, we take out the ELF kernel that QEMU boots
//! directly (PVH). Of the modules only those that the guest needs are kept, in the order of loading.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use ruzstd::decoding::StreamingDecoder;

use crate::command;

/// What the guest needs from the kernel. What these depend on comes with them; what is built into the
/// kernel is no module.
const MODULES: [&str; 2] = ["virtio_pci", "virtio_console"];

/// What it needs to start a system on a disk.
const DISK_MODULES: [&str; 3] = ["virtio_pci", "virtio_blk", "ext4"];

/// What that system's udev loads.
const SYSTEM_MODULES: [&str; 2] = ["virtio_console", "virtio_net"];

/// Changes when the layout of a cached kernel does, so that no old one is used.
const LAYOUT: &str = "kernel2";

// What is in the folder of a cached kernel.
const FILE: &str = "kernel";
const RELEASE: &str = "release";
const MODULES_FOLDER: &str = "modules";
const DISK_FOLDER: &str = "disk";
const SYSTEM_FOLDER: &str = "system";

/// A kernel in the cache.
pub(super) struct Kernel {
    /// The file to boot.
    pub(super) file: PathBuf,
    /// `PACKAGE_VERSION`.
    pub(super) package: String,
    /// What `uname -r` says.
    pub(super) release: String,
    /// Modules, each behind those that it depends on.
    pub(super) modules: Vec<PathBuf>,
    /// The same for a system on a disk, to find that.
    pub(super) disk_modules: Vec<PathBuf>,
    /// Modules for the system itself.
    pub(super) system_modules: Vec<PathBuf>,
}

/// The kernel chosen earlier, or the newest that apt offers.
pub(super) fn cached_or_downloaded(cache: &Path) -> Result<Kernel> {
    if let Some(kernel) = chosen(cache) {
        return Ok(kernel);
    }
    let (name, version) = newest_package()?;
    let package = format!("{name}_{version}");
    if open(cache, &package).is_err() {
        download(cache, &name, &package)
            .with_context(|| format!("cannot prepare the guest's kernel from {name} {version}"))?;
    }
    let choice = choice(cache);
    fs::write(&choice, &package).with_context(|| format!("cannot write {}", choice.display()))?;
    open(cache, &package)
}

/// Whether a kernel was chosen earlier and is there.
pub(super) fn is_cached(cache: &Path) -> bool {
    chosen(cache).is_some()
}

/// Forgets the choice made earlier.
pub(super) fn forget(cache: &Path) -> Result<()> {
    let choice = choice(cache);
    match fs::remove_file(&choice) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", choice.display()))
        }
        _ => Ok(()),
    }
}

/// The file that names the kernel chosen.
fn choice(cache: &Path) -> PathBuf {
    cache.join(format!("{LAYOUT}.current"))
}

fn chosen(cache: &Path) -> Option<Kernel> {
    let package = fs::read_to_string(choice(cache)).ok()?;
    open(cache, &package).ok()
}

fn directory(cache: &Path, package: &str) -> PathBuf {
    cache.join(format!("{LAYOUT}-{package}"))
}

fn open(cache: &Path, package: &str) -> Result<Kernel> {
    let directory = directory(cache, package);
    Ok(Kernel {
        file: directory.join(FILE),
        package: package.to_owned(),
        release: fs::read_to_string(directory.join(RELEASE))?,
        modules: files(&directory.join(MODULES_FOLDER))?,
        disk_modules: files(&directory.join(DISK_FOLDER))?,
        system_modules: files(&directory.join(SYSTEM_FOLDER))?,
    })
}

/// The files of a folder by their names, which begin with their order.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = fs::read_dir(directory)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

fn newest_package() -> Result<(String, String)> {
    let found = command::capture_text(Command::new("apt-cache").args([
        "search",
        "--names-only",
        "^linux-image-[0-9].*-cloud-amd64(-unsigned)?$",
    ]))
    .context("the guest's kernel is a Debian package: this needs Debian or Ubuntu with apt")?;
    let names: Vec<&str> = found
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    if names.is_empty() {
        bail!(
            "apt knows no package linux-image-*-cloud-amd64: run `apt-get update`; on a system other \
             than Debian amd64 add Debian's archive to apt's sources"
        );
    }
    let shown = command::capture_text(
        Command::new("apt-cache")
            .arg("show")
            .arg("--no-all-versions")
            .args(names),
    )?;
    let mut newest: Option<(String, String)> = None;
    for stanza in shown.split("\n\n") {
        // Packages such as linux-image-6.12-cloud-amd64 hold no kernel, they only depend on one.
        let (Some(name), Some(version), Some(size)) = (
            field(stanza, "Package"),
            field(stanza, "Version"),
            field(stanza, "Installed-Size"),
        ) else {
            continue;
        };
        if size.parse::<u64>().is_ok_and(|kibibytes| kibibytes < 1024) {
            continue;
        }
        // The signed and the unsigned package hold the same kernel: the first one seen serves.
        let newer = match &newest {
            None => true,
            Some((_, best)) => is_newer(version, best)?,
        };
        if newer {
            newest = Some((name.to_owned(), version.to_owned()));
        }
    }
    newest
        .ok_or_else(|| anyhow!("apt lists cloud kernels but describes none: run `apt-get update`"))
}

fn field<'a>(stanza: &'a str, name: &str) -> Option<&'a str> {
    stanza
        .lines()
        .find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

fn is_newer(version: &str, than: &str) -> Result<bool> {
    let status = Command::new("dpkg")
        .args(["--compare-versions", version, "gt", than])
        .status()
        .context("cannot run `dpkg --compare-versions`")?;
    Ok(status.success())
}

/// Unpacks a package into the cache.
fn download(cache: &Path, name: &str, package: &str) -> Result<()> {
    let staging = tempfile::TempDir::new_in(cache)?;
    let mut fetch = Command::new("apt-get");
    fetch
        .args(["download", "--quiet", name])
        .current_dir(staging.path());
    if rustix::process::geteuid().is_root() {
        // Else apt warns that its own user can't write here.
        fetch.args(["-o", "APT::Sandbox::User=root"]);
    }
    command::capture(&mut fetch)?;
    let deb = find(staging.path(), &|file| file.ends_with(".deb"))
        .pop()
        .ok_or_else(|| anyhow!("`apt-get download {name}` left no package"))?;
    let tree = staging.path().join("tree");
    command::capture(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&tree))?;

    let ready = staging.path().join("ready");
    fs::create_dir(&ready)?;
    fs::write(ready.join(FILE), bootable(&tree)?)?;
    fs::write(ready.join(RELEASE), release(&tree)?)?;
    for (folder, wanted) in [
        (MODULES_FOLDER, &MODULES[..]),
        (DISK_FOLDER, &DISK_MODULES[..]),
        (SYSTEM_FOLDER, &SYSTEM_MODULES[..]),
    ] {
        let folder = ready.join(folder);
        fs::create_dir(&folder)?;
        for (order, (name, data)) in modules(&tree, wanted)?.into_iter().enumerate() {
            fs::write(folder.join(format!("{order:02}-{name}.ko")), data)?;
        }
    }
    let target = directory(cache, package);
    if target.exists() {
        fs::remove_dir_all(&target)?;
    }
    fs::rename(&ready, &target)?;
    Ok(())
}

/// The kernel in the form that boots fastest.
fn bootable(tree: &Path) -> Result<Vec<u8>> {
    let vmlinuz = find(&tree.join("boot"), &|file| file.starts_with("vmlinuz-"))
        .pop()
        .ok_or_else(|| anyhow!("the package holds no boot/vmlinuz-*"))?;
    let bz_image = fs::read(&vmlinuz)?;
    let pvh = find(&tree.join("boot"), &|file| file.starts_with("config-"))
        .pop()
        .and_then(|config| fs::read_to_string(config).ok())
        .is_some_and(|config| config.lines().any(|line| line == "CONFIG_PVH=y"));
    // A kernel that is compressed in a way that we can't undo boots as well, half a second later.
    Ok(if pvh {
        elf_kernel(&bz_image).unwrap_or(bz_image)
    } else {
        bz_image
    })
}

/// The ELF kernel inside a bzImage with a zstd payload (Linux: Documentation/arch/x86/boot.rst).
fn elf_kernel(bz_image: &[u8]) -> Option<Vec<u8>> {
    let word = |at: usize| {
        let bytes = bz_image.get(at..at + 4)?;
        usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    if bz_image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let setup_sectors = match bz_image.get(0x1f1)? {
        0 => 4,
        count => usize::from(*count),
    };
    let start = ((setup_sectors + 1) * 512).checked_add(word(0x248)?)?;
    let payload = bz_image.get(start..start.checked_add(word(0x24c)?)?)?;
    let mut kernel = Vec::new();
    StreamingDecoder::new(payload)
        .ok()?
        .read_to_end(&mut kernel)
        .ok()?;
    kernel.starts_with(b"\x7fELF").then_some(kernel)
}

/// The kernel's release, which names the folder of its modules.
fn release(tree: &Path) -> Result<String> {
    let list = find(tree, &|file| file == "modules.builtin")
        .pop()
        .ok_or_else(|| anyhow!("the package holds no modules.builtin"))?;
    let folder = list.parent().and_then(Path::file_name).unwrap_or_default();
    Ok(folder.to_string_lossy().into_owned())
}

/// The modules wanted with what they depend on, in the order of loading.
fn modules(tree: &Path, wanted: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
    let files: BTreeMap<String, PathBuf> = find(tree, &|file| file.contains(".ko"))
        .into_iter()
        .map(|path| (module_name(&path), path))
        .collect();
    let built_in: Vec<String> = find(tree, &|file| file == "modules.builtin")
        .iter()
        .filter_map(|list| fs::read_to_string(list).ok())
        .flat_map(|list| {
            list.lines()
                .map(|line| module_name(Path::new(line)))
                .collect::<Vec<_>>()
        })
        .collect();
    let mut ordered = Vec::new();
    for name in wanted {
        if !built_in.iter().any(|known| known == name) {
            add_module(name, &files, &mut ordered)?;
        }
    }
    Ok(ordered)
}

/// Adds a module behind its dependencies. These form no cycle: depmod refuses one.
fn add_module(
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    ordered: &mut Vec<(String, Vec<u8>)>,
) -> Result<()> {
    if ordered.iter().any(|(known, _)| known == name) {
        return Ok(());
    }
    let path = files
        .get(name)
        .ok_or_else(|| anyhow!("the package holds no module {name}"))?;
    let data = decompressed(path)?;
    for dependency in dependencies(&data) {
        add_module(&dependency, files, ordered)?;
    }
    ordered.push((name.to_owned(), data));
    Ok(())
}

/// `…/virtio-rng.ko.xz` is the module `virtio_rng`.
fn module_name(path: &Path) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    file.split('.').next().unwrap_or_default().replace('-', "_")
}

/// The `depends=` line of the module's `.modinfo` section, a list of NUL-terminated strings.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|bytes| bytes == KEY) else {
        return Vec::new();
    };
    let list = module[at + KEY.len()..]
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default();
    let list = String::from_utf8_lossy(list);
    list.split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

fn decompressed(module: &Path) -> Result<Vec<u8>> {
    let name = module.to_string_lossy();
    if name.ends_with(".xz") {
        command::capture(Command::new("busybox").args(["unxz", "-c"]).arg(module))
    } else if name.ends_with(".zst") {
        let mut data = Vec::new();
        StreamingDecoder::new(&fs::read(module)?[..])
            .map_err(|error| anyhow!("cannot decompress {name}: {error}"))?
            .read_to_end(&mut data)?;
        Ok(data)
    } else {
        Ok(fs::read(module)?)
    }
}

/// All files below a directory whose name passes; none if the directory can't be read.
fn find(directory: &Path, passes: &dyn Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(kind) if kind.is_file() && passes(&entry.file_name().to_string_lossy()) => {
                    found.push(entry.path());
                }
                _ => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_names_what_it_depends_on() {
        let module = b"\x7fELF..\0license=GPL\0depends=virtio,virtio-ring\0retpoline=Y\0";
        assert_eq!(dependencies(module), ["virtio", "virtio_ring"]);
        assert_eq!(dependencies(b"\0depends=\0name=x\0"), [""; 0]);
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let stanza = "Package: linux-image\nInstalled-Size: 12\nVersion: 6.1.2-1\n";
        assert_eq!(field(stanza, "Version"), Some("6.1.2-1"));
        assert_eq!(field(stanza, "Size"), None);
    }

    #[test]
    fn what_is_no_kernel_is_left_alone() {
        assert_eq!(elf_kernel(b"MZ"), None);
        assert_eq!(elf_kernel(&[0; 4096]), None);
    }
}
