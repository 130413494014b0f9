//! The guest's image: Debian's cloud kernel, and an initramfs of its virtio modules, busybox, our
//! `/init` and our binaries. Or the same kernel with a whole Debian on a disk.
//!
//! ```text
//!              ┌─ initramfs: busybox, /init, the agent in /bin             the usual guest: up within two seconds
//!    kernel ───┤
//!              └─ initramfs: busybox, /init, /system ──► disk: Debian      the agent as a user installs it: systemd, udev
//! ```
//!
//! Everything is kept below `target/guest`. A file lock makes building safe for processes that run at
//! the same time; each file appears whole, by a rename.

mod initramfs;
mod kernel;
mod system;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

pub(crate) use initramfs::{find_busybox, overlay};

use crate::{build, limits, workspace};

/// What a user installs beside the agent's binary: files of `agent-guest/dist`, and where they go.
const AGENT_FILES: [(&str, &str); 3] = [
    (
        "vbridge-agent.service",
        "/etc/systemd/system/vbridge-agent.service",
    ),
    (
        "99-vbridge-agent.rules",
        "/etc/udev/rules.d/99-vbridge-agent.rules",
    ),
    ("agent.toml", "/etc/vbridge/agent.toml"),
];

/// A kernel and an initramfs, ready to boot; perhaps with a disk.
#[derive(Debug, Clone)]
pub struct Image {
    kernel: PathBuf,
    kernel_package: String,
    initramfs: PathBuf,
    disk: Option<PathBuf>,
}

/// Collects what goes into an [`Image`].
#[derive(Debug, Clone, Default)]
pub struct ImageBuilder {
    files: Vec<GuestFile>,
    system: bool,
}

/// A file of the host, and what it is in the guest.
#[derive(Debug, Clone)]
struct GuestFile {
    guest: String,
    host: PathBuf,
    executable: bool,
}

// === impl Image ===

impl Image {
    /// An image with nothing of ours in it; add binaries.
    pub fn builder() -> ImageBuilder {
        ImageBuilder::default()
    }

    /// The usual image: builds the agent and puts it at `/bin/vbridge-agent`.
    ///
    /// # Errors
    /// The agent can't be built, or the image can't.
    pub fn standard() -> Result<Self> {
        let mut builder = Self::builder();
        for (binary, path) in build::guest(&[build::AGENT])? {
            builder = builder.binary(format!("/bin/{}", binary.name), path);
        }
        builder.build()
    }

    /// Debian with systemd, and the agent in it as the README says that users install it.
    ///
    /// # Errors
    /// The agent can't be built, or the image can't.
    pub fn system() -> Result<Self> {
        let mut builder = Self::builder().on_disk();
        for (binary, path) in build::guest(&[build::AGENT])? {
            builder = builder.binary(format!("/usr/bin/{}", binary.name), path);
        }
        let dist = workspace::root().join("agent-guest/dist");
        for (file, path) in AGENT_FILES {
            builder = builder.file(path, dist.join(file));
        }
        builder.build()
    }

    /// The kernel: an uncompressed ELF file where possible, which saves the guest the decompression.
    pub fn kernel(&self) -> &Path {
        &self.kernel
    }

    /// Debian's package and version of the kernel.
    pub fn kernel_package(&self) -> &str {
        &self.kernel_package
    }

    /// The initramfs, a newc archive, not compressed: under software emulation copying is much faster
    /// than decompressing.
    pub fn initramfs(&self) -> &Path {
        &self.initramfs
    }

    /// The disk with the guest's system, if it has one. Not to be written to: others boot it, too.
    pub fn disk(&self) -> Option<&Path> {
        self.disk.as_deref()
    }

    /// Where in the initramfs the guest's files are.
    pub(crate) fn files_root(&self) -> &'static str {
        match self.disk {
            Some(_) => initramfs::SYSTEM,
            None => "",
        }
    }
}

/// Forgets the cached choice of kernel: the next image takes the newest that apt offers.
///
/// # Errors
/// The cache can't be written.
pub fn forget_kernel() -> Result<()> {
    let cache = cache_dir()?;
    let _lock = workspace::lock(&cache.join("lock"))?;
    kernel::forget(&cache)
}

/// Whether an image can be built without apt.
pub(crate) fn kernel_is_cached() -> bool {
    cache_dir().is_ok_and(|cache| kernel::is_cached(&cache))
}

// === impl ImageBuilder ===

impl ImageBuilder {
    /// Adds an executable file of the host, under its absolute path in the guest.
    #[must_use]
    pub fn binary(mut self, guest: impl Into<String>, host: impl Into<PathBuf>) -> Self {
        self.files.push(GuestFile {
            guest: guest.into(),
            host: host.into(),
            executable: true,
        });
        self
    }

    /// Adds a file that is not executable.
    #[must_use]
    pub fn file(mut self, guest: impl Into<String>, host: impl Into<PathBuf>) -> Self {
        self.files.push(GuestFile {
            guest: guest.into(),
            host: host.into(),
            executable: false,
        });
        self
    }

    /// Debian with systemd on a disk, instead of busybox in memory. Default: busybox.
    #[must_use]
    pub fn on_disk(mut self) -> Self {
        self.system = true;
        self
    }

    /// Builds the image, or finds it in the cache if no input has changed.
    ///
    /// Blocks, for a second or for a download; a disk takes minutes. In async code use `spawn_blocking`.
    ///
    /// # Errors
    /// No kernel package can be found or downloaded, busybox-static is not installed, a binary can't be
    /// read, or the cache can't be written. A disk that is not in the cache can't be built, as by who is not root.
    pub fn build(self) -> Result<Image> {
        let cache = cache_dir()?;
        let _lock = workspace::lock(&cache.join("lock"))?;
        let kernel = kernel::cached_or_downloaded(&cache)?;
        let contents = initramfs::Contents {
            kernel: &kernel,
            files: &self.files,
            system: self.system,
        };
        let initramfs = initramfs::cached_or_built(&cache, &contents)?;
        prune(
            &cache,
            initramfs::FILE_PREFIX,
            &initramfs,
            limits::INITRAMFS_KEPT,
        );
        let disk = match self.system {
            true => Some(system::cached_or_built(&cache)?),
            false => None,
        };
        if let Some(disk) = &disk {
            prune(&cache, system::FILE_PREFIX, disk, limits::SYSTEM_DISKS_KEPT);
        }
        Ok(Image {
            kernel: kernel.file,
            kernel_package: kernel.package,
            initramfs,
            disk,
        })
    }
}

fn cache_dir() -> Result<PathBuf> {
    let cache = workspace::target_dir().join("guest");
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    Ok(cache)
}

/// Removes old files of a kind. Best effort: a file left over costs some megabytes.
fn prune(cache: &Path, prefix: &str, current: &Path, kept: usize) {
    let Ok(entries) = fs::read_dir(cache) else {
        return;
    };
    let mut files: Vec<(SystemTime, PathBuf)> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .filter(|entry| entry.path() != current)
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    files.sort();
    let excess = (files.len() + 1).saturating_sub(kept);
    for (_, path) in files.into_iter().take(excess) {
        let _ = fs::remove_file(path);
    }
}
