//! Which device is the port, and what to say when there is none.
//!
//! The order: the configured path, or else the link that udev makes (`/dev/virtio-ports/NAME`), the name that the driver
//! knows (`/sys/class/virtio-ports/*/name`, which needs no udev), and at last the only nameless `/dev/vport*` there is.
//! A port that has another name is never taken: it belongs to somebody.

use std::{
    fs, io,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

use super::{DevicePort, watch::DeviceWatch};
use crate::limits::{FIND_RETRY_FIRST, FIND_RETRY_MAX, FIND_RETRY_MIN};

/// Finds and opens the agent's port.
#[derive(Debug, Clone)]
pub struct Finder {
    channel: String,
    path: Option<PathBuf>,
    wait: bool,
    /// `/`, but for tests.
    root: PathBuf,
}

/// Why there is no port.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The configured path does not exist.
    #[error(
        "the port {0} does not exist: is the virtio_console module loaded, and does the domain have the channel?"
    )]
    Missing(PathBuf),
    /// The path is something else.
    #[error(
        "{path} is {what}, and a port is a character device such as /dev/virtio-ports/{channel}"
    )]
    WrongKind {
        /// Where.
        path: PathBuf,
        /// What it is, with article.
        what: &'static str,
        /// The channel that was looked for.
        channel: String,
    },
    /// It may not be opened.
    #[error(
        "no permission to open the port {0}: run the agent as root, or give its user the device by a udev rule"
    )]
    Permission(PathBuf),
    /// Another program has it open.
    #[error("the port {0} is busy: another program has it open, perhaps a second agent")]
    Busy(PathBuf),
    /// It can't be opened for another reason.
    #[error("can't open the port {path}: {error}")]
    Open {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// The driver is not there.
    #[error(
        "no virtio-serial driver for the channel {0}: load the module virtio_console, and check that the domain has a \
         virtio-serial controller"
    )]
    NoDriver(String),
    /// The driver is there, and has no port.
    #[error(
        "the virtual machine has no virtio-serial port: add a channel with the target name {0} to the domain \
         (<channel type='unix'><target type='virtio' name='{0}'/></channel>)"
    )]
    NoPort(String),
    /// There are ports, all with other names.
    #[error("the virtual machine has no port named {channel}, only {}: rename one in the domain, or set the channel name", .others.join(", "))]
    OtherPorts {
        /// The channel that was looked for.
        channel: String,
        /// The names that exist.
        others: Vec<String>,
    },
    /// Several ports could be meant.
    #[error("no port is named {channel}, and several have no name ({}): set the path of the right one", list(.candidates))]
    Ambiguous {
        /// The channel that was looked for.
        channel: String,
        /// The devices that could be meant.
        candidates: Vec<PathBuf>,
    },
}

impl FindError {
    /// Whether waiting can't help: a directory does not become a port.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::WrongKind { .. })
    }
}

impl Finder {
    /// Looks for the port of `channel`, and waits for it.
    pub fn new(channel: impl Into<String>) -> Self {
        Self {
            channel: channel.into(),
            path: None,
            wait: true,
            root: PathBuf::from("/"),
        }
    }

    /// Opens this path instead of looking for one, and does not wait for it.
    #[must_use]
    pub fn path(mut self, path: impl Into<PathBuf>) -> Self {
        self.path = Some(path.into());
        self.wait = false;
        self
    }

    /// Whether [`open`](Self::open) waits until the port is there.
    #[must_use]
    pub fn wait(mut self, wait: bool) -> Self {
        self.wait = wait;
        self
    }

    #[cfg(test)]
    fn root(mut self, root: &Path) -> Self {
        self.root = root.to_owned();
        self
    }

    /// Opens the port; says on the way what it waits for, each reason once.
    ///
    /// # Errors
    /// The reason why there is no port, if it does not wait or waiting can't help.
    pub async fn open(&self) -> Result<(DevicePort, PathBuf), FindError> {
        let mut pause = FIND_RETRY_FIRST;
        let mut said = String::new();
        loop {
            // Made before looking, so that what appears in between is not missed.
            let watch = DeviceWatch::new([
                self.at("dev").as_path(),
                self.at("dev/virtio-ports").as_path(),
            ]);
            let error = match self.try_open() {
                Ok(found) => return Ok(found),
                Err(error) if error.is_final() || !self.wait => return Err(error),
                Err(error) => error.to_string(),
            };
            if error != said {
                tracing::warn!("waiting for the port: {error}");
                said = error;
            }
            tokio::time::sleep(FIND_RETRY_MIN).await;
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(FIND_RETRY_MAX),
                () = watch.changed() => {}
            }
        }
    }

    /// Opens the port if it is there now.
    ///
    /// # Errors
    /// The reason why it is not.
    pub fn try_open(&self) -> Result<(DevicePort, PathBuf), FindError> {
        let path = self.find()?;
        match DevicePort::open(&path) {
            Ok(port) => Ok((port, path)),
            Err(error) => Err(self.explain(path, error)),
        }
    }

    fn explain(&self, path: PathBuf, error: io::Error) -> FindError {
        match error.kind() {
            io::ErrorKind::NotFound => FindError::Missing(path),
            io::ErrorKind::PermissionDenied => FindError::Permission(path),
            io::ErrorKind::ResourceBusy => FindError::Busy(path),
            io::ErrorKind::InvalidInput => FindError::WrongKind {
                what: kind_of(&path),
                path,
                channel: self.channel.clone(),
            },
            _ => FindError::Open { path, error },
        }
    }

    /// The path to open.
    fn find(&self) -> Result<PathBuf, FindError> {
        if let Some(path) = &self.path {
            return Ok(path.clone());
        }
        // Made by udev; not there in an initramfs.
        let link = self.at("dev/virtio-ports").join(&self.channel);
        if is_char_device(&link) {
            return Ok(link);
        }
        let class = self.at("sys/class/virtio-ports");
        let mut nameless = Vec::new();
        let mut others = Vec::new();
        for (device, name) in ports(&class) {
            let node = self.at("dev").join(&device);
            match name {
                Some(name) if name == self.channel => return Ok(node),
                Some(name) => others.push(name),
                None if is_char_device(&node) => nameless.push(node),
                None => {}
            }
        }
        let class_exists = class.is_dir();
        if !class_exists {
            // Without sysfs no names are known.
            nameless = vports(&self.at("dev"));
        }
        let channel = self.channel.clone();
        match nameless.len() {
            1 => Ok(nameless.remove(0)),
            0 if !others.is_empty() => Err(FindError::OtherPorts { channel, others }),
            0 if class_exists => Err(FindError::NoPort(channel)),
            0 => Err(FindError::NoDriver(channel)),
            _ => Err(FindError::Ambiguous {
                channel,
                candidates: nameless,
            }),
        }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }
}

/// The driver's ports, in order, with their names.
fn ports(class: &Path) -> Vec<(String, Option<String>)> {
    let mut ports: Vec<_> = names(class)
        .map(|device| {
            let name = fs::read_to_string(class.join(&device).join("name")).unwrap_or_default();
            let name = name.trim_end();
            (device, (!name.is_empty()).then(|| name.to_owned()))
        })
        .collect();
    ports.sort();
    ports
}

/// The device nodes that look like ports, in order.
fn vports(dev: &Path) -> Vec<PathBuf> {
    let mut nodes: Vec<_> = names(dev)
        .filter(|name| name.starts_with("vport"))
        .map(|name| dev.join(name))
        .filter(|node| is_char_device(node))
        .collect();
    nodes.sort();
    nodes
}

fn names(directory: &Path) -> impl Iterator<Item = String> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

fn is_char_device(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_char_device())
}

fn kind_of(path: &Path) -> &'static str {
    let Ok(metadata) = fs::metadata(path) else {
        return "gone";
    };
    let kind = metadata.file_type();
    if kind.is_dir() {
        "a directory"
    } else if kind.is_file() {
        "a regular file"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_block_device() {
        "a block device"
    } else {
        "a character device that can't be polled"
    }
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(", ")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const CHANNEL: &str = "org.vbridge.agent.0";

    /// A root directory with device nodes, for which /dev/null stands in: it is a character device.
    struct Root(tempfile::TempDir);

    impl Root {
        fn new() -> Self {
            let root = Self(tempfile::tempdir().unwrap());
            fs::create_dir(root.0.path().join("dev")).unwrap();
            root
        }

        fn node(&self, name: &str) -> PathBuf {
            let path = self.0.path().join("dev").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink("/dev/null", &path).unwrap();
            path
        }

        fn port(&self, device: &str, name: Option<&str>) -> PathBuf {
            let class = self.class().join(device);
            fs::create_dir_all(&class).unwrap();
            if let Some(name) = name {
                fs::write(class.join("name"), format!("{name}\n")).unwrap();
            }
            self.node(device)
        }

        fn class(&self) -> PathBuf {
            self.0.path().join("sys/class/virtio-ports")
        }

        fn find(&self) -> Result<PathBuf, FindError> {
            Finder::new(CHANNEL).root(self.0.path()).find()
        }
    }

    #[test]
    fn the_link_of_udev_comes_first() {
        let root = Root::new();
        root.port("vport0p1", Some(CHANNEL));
        let link = root.node("virtio-ports/org.vbridge.agent.0");
        assert_eq!(root.find().unwrap(), link);
    }

    #[test]
    fn without_udev_the_name_in_sysfs_tells() {
        let root = Root::new();
        root.port("vport0p1", Some("org.qemu.guest_agent.0"));
        let ours = root.port("vport1p2", Some(CHANNEL));
        assert_eq!(root.find().unwrap(), ours);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_not_taken() {
        let root = Root::new();
        fs::create_dir_all(root.0.path().join("dev/virtio-ports")).unwrap();
        symlink(
            "../vport9p9",
            root.0.path().join("dev/virtio-ports").join(CHANNEL),
        )
        .unwrap();
        let ours = root.port("vport0p1", Some(CHANNEL));
        assert_eq!(root.find().unwrap(), ours);
    }

    #[test]
    fn a_single_nameless_port_is_taken_but_never_one_with_another_name() {
        let root = Root::new();
        root.port("vport0p1", Some("org.qemu.guest_agent.0"));
        let error = root.find().unwrap_err();
        assert!(
            matches!(&error, FindError::OtherPorts { others, .. } if others == &["org.qemu.guest_agent.0"])
        );
        assert!(error.to_string().contains("only org.qemu.guest_agent.0"));
        let nameless = root.port("vport0p2", None);
        assert_eq!(root.find().unwrap(), nameless);
        root.port("vport0p3", Some(""));
        assert!(
            matches!(root.find().unwrap_err(), FindError::Ambiguous { candidates, .. } if candidates.len() == 2)
        );
    }

    #[test]
    fn without_sysfs_a_single_vport_is_taken() {
        let root = Root::new();
        assert!(matches!(root.find().unwrap_err(), FindError::NoDriver(_)));
        fs::write(root.0.path().join("dev/vport7p7"), "a file").unwrap();
        assert!(matches!(root.find().unwrap_err(), FindError::NoDriver(_)));
        let node = root.node("vport0p1");
        assert_eq!(root.find().unwrap(), node);
    }

    #[test]
    fn a_driver_without_ports_asks_for_a_channel() {
        let root = Root::new();
        fs::create_dir_all(root.class()).unwrap();
        let error = root.find().unwrap_err();
        assert!(matches!(error, FindError::NoPort(_)));
        assert!(
            error.to_string().contains("name='org.vbridge.agent.0'"),
            "{error}"
        );
    }

    #[test]
    fn what_the_kernel_says_is_explained() {
        let finder = Finder::new(CHANNEL);
        let text = |error: rustix::io::Errno| {
            finder
                .explain("/dev/vport0p1".into(), error.into())
                .to_string()
        };
        assert!(
            text(rustix::io::Errno::ACCESS)
                .starts_with("no permission to open the port /dev/vport0p1: ")
        );
        assert!(text(rustix::io::Errno::BUSY).contains("another program has it open"));
        assert!(text(rustix::io::Errno::NOENT).contains("virtio_console"));
        assert!(text(rustix::io::Errno::NXIO).starts_with("can't open the port /dev/vport0p1: "));
    }

    #[tokio::test]
    async fn a_directory_is_refused_even_by_one_who_waits() {
        let dir = tempfile::tempdir().unwrap();
        let error = Finder::new(CHANNEL)
            .path(dir.path())
            .wait(true)
            .open()
            .await
            .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("is a directory, and a port is a character device"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_missing_path_is_an_error_for_one_who_does_not_wait() {
        let error = Finder::new(CHANNEL)
            .path("/nonexistent/port")
            .open()
            .await
            .unwrap_err();
        assert!(matches!(error, FindError::Missing(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_waits_sees_the_final_reason_when_it_appears() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("port");
        let finder = Finder::new(CHANNEL).path(&path).wait(true).root(dir.path());
        let open = tokio::spawn(async move { finder.open().await.map(|_| ()) });
        tokio::time::sleep(FIND_RETRY_MAX).await;
        assert!(!open.is_finished());
        fs::write(&path, "no device").unwrap();
        let error = open.await.unwrap().unwrap_err();
        assert!(error.to_string().contains("is a regular file"), "{error}");
    }
}
