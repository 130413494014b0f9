//! The guest's image: Debian's cloud kernel, and an initramfs of its virtio modules, busybox, our
//! `/init` and our binaries.
//!
//! Everything is kept below `target/guest`. A file lock makes building safe for processes that run at
//! the same time; each file appears whole, by a rename.

mod initramfs;
mod kernel;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

pub(crate) use initramfs::{find_busybox, overlay};

use crate::{build, limits, workspace};

/// A kernel and an initramfs, ready to boot.
#[derive(Debug, Clone)]
pub struct Image {
    kernel: PathBuf,
    kernel_package: String,
    initramfs: PathBuf,
}

/// Collects what goes into an [`Image`].
#[derive(Debug, Clone, Default)]
pub struct ImageBuilder {
    files: Vec<(String, PathBuf)>,
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
        self.files.push((guest.into(), host.into()));
        self
    }

    /// Builds the image, or finds it in the cache if no input has changed.
    ///
    /// Blocks, for a second or for a download; in async code use `spawn_blocking`.
    ///
    /// # Errors
    /// No kernel package can be found or downloaded, busybox-static is not installed, a binary can't be
    /// read, or the cache can't be written.
    pub fn build(self) -> Result<Image> {
        let cache = cache_dir()?;
        let _lock = workspace::lock(&cache.join("lock"))?;
        let kernel = kernel::cached_or_downloaded(&cache)?;
        let initramfs = initramfs::cached_or_built(&cache, &kernel, &self.files)?;
        prune(&cache, &initramfs);
        Ok(Image {
            kernel: kernel.file,
            kernel_package: kernel.package,
            initramfs,
        })
    }
}

fn cache_dir() -> Result<PathBuf> {
    let cache = workspace::target_dir().join("guest");
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    Ok(cache)
}

/// Removes old initramfs files. Best effort: a file left over costs a few megabytes.
fn prune(cache: &Path, current: &Path) {
    let Ok(entries) = fs::read_dir(cache) else {
        return;
    };
    let mut files: Vec<(SystemTime, PathBuf)> = entries
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with(initramfs::FILE_PREFIX)
        })
        .filter(|entry| entry.path() != current)
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    files.sort();
    let excess = (files.len() + 1).saturating_sub(limits::INITRAMFS_KEPT);
    for (_, path) in files.into_iter().take(excess) {
        let _ = fs::remove_file(path);
    }
}
