//! CPUs and blocks of memory in `/sys/devices/system`, and the switches that the kernel has for them
//! (Documentation/ABI/testing/sysfs-devices-system-cpu and sysfs-devices-memory in Linux).

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use vbridge_api::guest::v1::{Cpu, MemoryBlock};

use crate::limits::{MAX_CPUS, MAX_MEMORY_BLOCKS};

/// The kernel's folder of them.
#[derive(Debug, Clone)]
pub(crate) struct Hardware {
    root: PathBuf,
}

/// A switch that the kernel has not turned.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SwitchError {
    /// There is no such thing.
    #[error("there is no {0}")]
    Missing(String),
    /// The kernel has no switch for it.
    #[error("{0} can't be switched off")]
    Fixed(String),
    /// The kernel refuses.
    #[error("the kernel refuses to switch {what}: {error}{}", hint(.error))]
    Refused {
        /// What it is about.
        what: String,
        /// What the kernel said.
        error: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ResourceBusy => {
            " (it is in use; one CPU and the kernel's own memory must stay)"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            " (the agent must run as root, with /sys writable)"
        }
        _ => "",
    }
}

impl Hardware {
    pub(crate) fn new() -> Self {
        Self::below("/")
    }

    pub(crate) fn below(root: impl AsRef<Path>) -> Self {
        Self {
            root: root.as_ref().join("sys/devices/system"),
        }
    }

    /// The CPUs by number, [`MAX_CPUS`] at most.
    pub(crate) fn cpus(&self) -> Vec<Cpu> {
        let ids = self.ids("cpu", MAX_CPUS).into_iter();
        ids.filter_map(|id| {
            let id = u32::try_from(id).ok()?;
            // Without a switch it is on for good.
            let switch = fs::read_to_string(self.cpu_switch(id)).ok();
            Some(Cpu {
                id,
                online: switch.as_deref().is_none_or(|state| state.trim() == "1"),
                can_offline: switch.is_some(),
            })
        })
        .collect()
    }

    /// Switches a CPU on or off. It may take the kernel a while.
    pub(crate) fn set_cpu(&self, id: u32, online: bool) -> Result<(), SwitchError> {
        let what = format!("CPU {id}");
        let switch = self.cpu_switch(id);
        if !switch.exists() {
            let is_there = switch.parent().is_some_and(Path::exists);
            return match (is_there, online) {
                (true, true) => Ok(()),
                (true, false) => Err(SwitchError::Fixed(what)),
                (false, _) => Err(SwitchError::Missing(what)),
            };
        }
        turn(&switch, if online { "1" } else { "0" }, what)
    }

    fn cpu_switch(&self, id: u32) -> PathBuf {
        self.root.join(format!("cpu/cpu{id}/online"))
    }

    /// The size of a block of memory in bytes; none if the kernel does not tell of blocks.
    pub(crate) fn memory_block_bytes(&self) -> Option<u64> {
        let size = fs::read_to_string(self.root.join("memory/block_size_bytes")).ok()?;
        u64::from_str_radix(size.trim(), 16).ok()
    }

    /// The blocks of memory by number, [`MAX_MEMORY_BLOCKS`] at most.
    pub(crate) fn memory_blocks(&self) -> Vec<MemoryBlock> {
        let ids = self.ids("memory", MAX_MEMORY_BLOCKS).into_iter();
        ids.filter_map(|id| {
            let folder = self.memory_block(id);
            let state = fs::read_to_string(folder.join("state")).ok()?;
            // Kernels before 5.x knew which could go; later ones say 1 to all.
            let removable = fs::read_to_string(folder.join("removable"));
            Some(MemoryBlock {
                id,
                online: state.trim() == "online",
                can_offline: removable.is_ok_and(|removable| removable.trim() == "1"),
            })
        })
        .collect()
    }

    /// Switches a block of memory on or off. It may take the kernel a while to empty it.
    pub(crate) fn set_memory_block(&self, id: u64, online: bool) -> Result<(), SwitchError> {
        let what = format!("memory block {id}");
        let switch = self.memory_block(id).join("state");
        match fs::read_to_string(&switch) {
            Err(_) => Err(SwitchError::Missing(what)),
            // The kernel calls what is so already an invalid argument.
            Ok(state) if (state.trim() == "online") == online => Ok(()),
            Ok(_) => turn(&switch, if online { "online" } else { "offline" }, what),
        }
    }

    fn memory_block(&self, id: u64) -> PathBuf {
        self.root.join(format!("memory/memory{id}"))
    }

    /// Numbers of the folders `KINDn` in the folder of a kind, in order.
    fn ids(&self, kind: &str, most: usize) -> Vec<u64> {
        let Ok(entries) = fs::read_dir(self.root.join(kind)) else {
            return Vec::new();
        };
        let mut ids: Vec<u64> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.strip_prefix(kind)?.parse().ok())
            .collect();
        ids.sort_unstable();
        ids.truncate(most);
        ids
    }
}

fn turn(switch: &Path, to: &str, what: String) -> Result<(), SwitchError> {
    fs::write(switch, to).map_err(|error| SwitchError::Refused { what, error })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with three CPUs, the first without a switch, and two blocks of memory.
    fn machine() -> (tempfile::TempDir, Hardware) {
        let dir = tempfile::tempdir().unwrap();
        let system = dir.path().join("sys/devices/system");
        let put = |path: &str, text: &str| {
            let path = system.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("cpu/cpu0/topology", "");
        put("cpu/cpu10/online", "1\n");
        put("cpu/cpu2/online", "0\n");
        put("cpu/cpufreq/policy", "");
        put("memory/block_size_bytes", "8000000\n");
        put("memory/memory0/state", "online\n");
        put("memory/memory32/state", "offline\n");
        put("memory/memory32/removable", "1\n");
        let hardware = Hardware::below(dir.path());
        (dir, hardware)
    }

    #[test]
    fn cpus_are_listed_by_number_and_the_first_stays_on() {
        let (_dir, hardware) = machine();
        let cpus: Vec<_> = hardware
            .cpus()
            .iter()
            .map(|cpu| (cpu.id, cpu.online, cpu.can_offline))
            .collect();
        assert_eq!(cpus, [(0, true, false), (2, false, true), (10, true, true)]);
    }

    #[test]
    fn a_cpu_is_switched_and_what_can_not_be_is_named() {
        let (_dir, hardware) = machine();
        hardware.set_cpu(2, true).unwrap();
        hardware.set_cpu(10, false).unwrap();
        hardware.set_cpu(0, true).unwrap();
        let online: Vec<_> = hardware.cpus().iter().map(|cpu| cpu.online).collect();
        assert_eq!(online, [true, true, false]);
        let error = |id, online| hardware.set_cpu(id, online).unwrap_err().to_string();
        assert_eq!(error(0, false), "CPU 0 can't be switched off");
        assert_eq!(error(7, true), "there is no CPU 7");
    }

    #[test]
    fn memory_is_listed_and_switched_in_blocks() {
        let (_dir, hardware) = machine();
        assert_eq!(hardware.memory_block_bytes(), Some(128 * 1024 * 1024));
        let blocks = || -> Vec<_> {
            let blocks = hardware.memory_blocks().into_iter();
            blocks
                .map(|block| (block.id, block.online, block.can_offline))
                .collect()
        };
        assert_eq!(blocks(), [(0, true, false), (32, false, true)]);
        hardware.set_memory_block(32, true).unwrap();
        hardware.set_memory_block(0, true).unwrap();
        assert_eq!(blocks(), [(0, true, false), (32, true, true)]);
        let error = hardware.set_memory_block(1, true).unwrap_err();
        assert_eq!(error.to_string(), "there is no memory block 1");
    }

    #[test]
    fn a_kernel_without_blocks_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let hardware = Hardware::below(dir.path());
        assert_eq!(hardware.memory_block_bytes(), None);
        assert!(hardware.memory_blocks().is_empty() && hardware.cpus().is_empty());
    }
}
