//! The cure for a port that QEMU has used up.
//!
//! QEMU returns every buffer that a guest has handed over, but one: when a host leaves while QEMU holds a buffer that the
//! host's socket did not take whole, that buffer is dropped and never comes back (`discard_throttle_data` in
//! hw/char/virtio-serial-bus.c). A port has 128. When all of them are lost, whatever is written to it is refused as if
//! the queue were full, for ever; the host may come and go, and the port may be closed and opened. Only a reset of the
//! device gives them back, and what resets it from within is to take the driver off it and put it on again. That takes
//! some 30 ms and is as if all ports of the device were unplugged and plugged in again: so, unless told otherwise, only
//! a device that has no other port is treated so.
//!
//! Measured: half of the kills of a bridge in the midst of two bulk streams cost a buffer.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::limits::{REBIND_PAUSE, REBIND_TRIES};

/// When the driver may be taken off a device whose port is stuck for good, and put on again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rebind {
    /// If the device has no other port.
    #[default]
    Alone,
    /// However many ports it has: their programs see them go and come back.
    Always,
    /// Not at all: the port stays stuck until the guest restarts.
    Never,
}

/// Why a port could not be freed.
#[derive(Debug, thiserror::Error)]
pub enum RebindError {
    /// It may not be tried.
    #[error("rebind = \"never\" forbids to rebind its driver")]
    Forbidden,
    /// The device has other ports.
    #[error(
        "its device {device} also has {}: give the channel a virtio-serial controller of its own, or allow it with \
         rebind = \"always\"", .others.join(", ")
    )]
    NotAlone {
        /// The virtio device.
        device: String,
        /// Names of the other ports.
        others: Vec<String>,
    },
    /// sysfs does not tell whose it is.
    #[error("can't find its device below {path}: {error}")]
    Unknown {
        /// Where it was looked for.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// The kernel refuses.
    #[error("can't write {device} to {path}: {error}")]
    Write {
        /// The virtio device.
        device: String,
        /// The driver's file.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
}

/// A virtio device with the driver that it has.
#[derive(Debug, PartialEq, Eq)]
struct Device {
    name: String,
    driver: PathBuf,
    others: Vec<String>,
}

/// Takes the driver off the device of the port at `path` and puts it on again. The port must be closed; it comes back as
/// another node, perhaps of another name. Blocks for as long as the kernel takes.
///
/// # Errors
/// It may not, or it can't be done.
pub fn rebind(path: &Path, allowed: Rebind) -> Result<(), RebindError> {
    if allowed == Rebind::Never {
        return Err(RebindError::Forbidden);
    }
    let class = Path::new("/sys/class/virtio-ports");
    let Device {
        name,
        driver,
        others,
    } = Device::of(path, class)?;
    if !others.is_empty() && allowed == Rebind::Alone {
        return Err(RebindError::NotAlone {
            device: name,
            others,
        });
    }
    write(&driver.join("unbind"), &name)?;
    // Half of it would be worse than nothing.
    let mut tries = 1;
    while let Err(error) = write(&driver.join("bind"), &name) {
        if tries == REBIND_TRIES {
            return Err(error);
        }
        tries += 1;
        std::thread::sleep(REBIND_PAUSE);
    }
    Ok(())
}

fn write(path: &Path, device: &str) -> Result<(), RebindError> {
    fs::write(path, device).map_err(|error| RebindError::Write {
        device: device.to_owned(),
        path: path.to_owned(),
        error,
    })
}

impl Device {
    /// The device of the port whose node is `path`.
    fn of(path: &Path, class: &Path) -> Result<Self, RebindError> {
        let unknown = |path: &Path, error: io::Error| RebindError::Unknown {
            path: path.to_owned(),
            error,
        };
        let node = fs::canonicalize(path).map_err(|error| unknown(path, error))?;
        let port = class.join(node.file_name().unwrap_or_default());
        let resolve =
            |link: PathBuf| fs::canonicalize(&link).map_err(|error| unknown(&link, error));
        let device = resolve(port.join("device"))?;
        let driver = resolve(device.join("driver"))?;
        let mut others: Vec<_> = fs::read_dir(class)
            .map_err(|error| unknown(class, error))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|other| *other != port)
            .filter(|other| fs::canonicalize(other.join("device")).is_ok_and(|its| its == device))
            .map(|other| name_of(&other))
            .collect();
        others.sort();
        let name = device.file_name().unwrap_or_default();
        Ok(Self {
            name: name.to_string_lossy().into_owned(),
            driver,
            others,
        })
    }
}

/// The name of a port, or of its node if it has none.
fn name_of(port: &Path) -> String {
    let name = fs::read_to_string(port.join("name")).unwrap_or_default();
    match name.trim_end() {
        "" => port
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A sysfs with two devices, of which the first has two ports.
    fn sysfs() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        fs::create_dir_all(at("dev")).unwrap();
        fs::create_dir_all(at("drivers/virtio_console")).unwrap();
        for (port, device, name) in [
            ("vport0p1", "virtio0", "org.vbridge.agent.0"),
            ("vport0p2", "virtio0", "org.qemu.guest_agent.0"),
            ("vport0p3", "virtio0", ""),
            ("vport1p1", "virtio1", "org.example.0"),
        ] {
            fs::write(at("dev").join(port), "").unwrap();
            fs::create_dir_all(at("class").join(port)).unwrap();
            fs::write(at("class").join(port).join("name"), format!("{name}\n")).unwrap();
            fs::create_dir_all(at("devices").join(device)).unwrap();
            symlink(
                at("devices").join(device),
                at("class").join(port).join("device"),
            )
            .unwrap();
            let driver = at("devices").join(device).join("driver");
            if !driver.exists() {
                symlink(at("drivers/virtio_console"), driver).unwrap();
            }
        }
        symlink("vport0p1", at("dev/link")).unwrap();
        root
    }

    #[test]
    fn the_device_and_its_other_ports_are_found() {
        let root = sysfs();
        let of = |node: &str| {
            Device::of(
                &root.path().join("dev").join(node),
                &root.path().join("class"),
            )
        };
        let device = of("link").unwrap();
        assert_eq!(device.name, "virtio0");
        assert_eq!(device.others, ["org.qemu.guest_agent.0", "vport0p3"]);
        assert!(device.driver.ends_with("drivers/virtio_console"));
        let device = of("vport1p1").unwrap();
        assert_eq!((device.name.as_str(), device.others.len()), ("virtio1", 0));
        assert!(matches!(of("gone"), Err(RebindError::Unknown { .. })));
    }

    #[test]
    fn what_may_not_be_done_is_said_with_what_to_do() {
        let error = rebind(Path::new("/dev/vport0p1"), Rebind::Never).unwrap_err();
        assert!(error.to_string().contains("never"), "{error}");
        let error = RebindError::NotAlone {
            device: "virtio0".to_owned(),
            others: vec!["org.qemu.guest_agent.0".to_owned()],
        };
        assert_eq!(
            error.to_string(),
            "its device virtio0 also has org.qemu.guest_agent.0: give the channel a virtio-serial controller of its \
             own, or allow it with rebind = \"always\""
        );
    }
}
