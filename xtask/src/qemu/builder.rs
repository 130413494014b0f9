//! What a guest is to be, QEMU's command line for it, and its first boot.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use tempfile::TempDir;
use tokio::sync::Mutex;

use super::console::{self, Console};
use super::process::Process;
use super::qmp::Qmp;
use super::shell::Shell;
use super::{
    AGENT, AGENT_PORT, AGENT_PORT_ID, Accelerator, MONITOR, QGA, QGA_PORT, QMP, RAW, RAW_PORT,
    SHELL, Vm,
};
use crate::image::{self, Image};
use crate::limits::{BOOT_DEADLINE, SOCKET_PATH_MAX, SYSTEM_BOOT_DEADLINE};

/// The kernel's arguments that we always give. A panic restarts the guest at once, and so shows up as a
/// boot that never ends with the panic on the console.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 loglevel=4 printk.devkmsg=on panic=-1 tsc=reliable";

/// And those for a system on a disk. What it does without only makes it slower.
const DISK_KERNEL_ARGUMENTS: &str = "vbridge.disk=/dev/vda audit=0 mitigations=off";

/// A network interface of such a system, on a network of which nothing leads further.
const NETWORK: [&str; 4] = [
    "-netdev",
    "user,id=network,restrict=on",
    "-device",
    "virtio-net-pci,netdev=network,romfile=",
];

/// Settings of a [`Vm`].
#[derive(Debug, Clone)]
pub struct VmBuilder {
    cpus: u32,
    memory_mib: u32,
    image: Option<Image>,
    append: Vec<String>,
    agent_args: Vec<String>,
    agent_env: Vec<String>,
    files: Vec<(String, Vec<u8>)>,
    qemu_args: Vec<String>,
    boot_deadline: Option<Duration>,
}

struct Started {
    // First, and so dropped first, as in `Vm`.
    process: Process,
    directory: TempDir,
    accelerator: Accelerator,
    since: Instant,
    boot_deadline: Duration,
}

// === impl VmBuilder ===

impl Default for VmBuilder {
    fn default() -> Self {
        Self {
            cpus: 1,
            memory_mib: 256,
            image: None,
            append: Vec::new(),
            agent_args: Vec::new(),
            agent_env: Vec::new(),
            files: Vec::new(),
            qemu_args: Vec::new(),
            boot_deadline: None,
        }
    }
}

impl VmBuilder {
    /// Virtual CPUs. Default: 1.
    #[must_use]
    pub fn cpus(mut self, count: u32) -> Self {
        self.cpus = count;
        self
    }

    /// The guest's memory in MiB. Default: 256.
    #[must_use]
    pub fn memory_mib(mut self, mebibytes: u32) -> Self {
        self.memory_mib = mebibytes;
        self
    }

    /// What to boot. Default: [`Image::standard`], which builds the agent if need be.
    #[must_use]
    pub fn image(mut self, image: &Image) -> Self {
        self.image = Some(image.clone());
        self
    }

    /// The program that the guest keeps running, by its path in the guest, or `none`. Default:
    /// `/bin/vbridge-agent`.
    #[must_use]
    pub fn agent(self, path: &str) -> Self {
        self.append(format!("vbridge.agent={path}"))
    }

    /// An argument of the agent. May be given more than once.
    #[must_use]
    pub fn agent_arg(mut self, argument: impl Into<String>) -> Self {
        self.agent_args.push(argument.into());
        self
    }

    /// A variable of the agent's environment. May be given more than once.
    #[must_use]
    pub fn agent_env(mut self, name: &str, value: &str) -> Self {
        self.agent_env.push(format!("{name}={value}"));
        self
    }

    /// A file for this guest, by its absolute path there, not executable. May be given more than once.
    #[must_use]
    pub fn file(mut self, guest: impl Into<String>, data: impl Into<Vec<u8>>) -> Self {
        self.files.push((guest.into(), data.into()));
        self
    }

    /// A word or more for the kernel's command line. May be given more than once.
    #[must_use]
    pub fn append(mut self, arguments: impl Into<String>) -> Self {
        self.append.push(arguments.into());
        self
    }

    /// An argument for QEMU. May be given more than once.
    #[must_use]
    pub fn qemu_arg(mut self, argument: impl Into<String>) -> Self {
        self.qemu_args.push(argument.into());
        self
    }

    /// How long a boot may take. Default: [`BOOT_DEADLINE`], or [`SYSTEM_BOOT_DEADLINE`] if the image has a disk.
    #[must_use]
    pub fn boot_deadline(mut self, deadline: Duration) -> Self {
        self.boot_deadline = Some(deadline);
        self
    }

    /// Starts QEMU and waits until the guest says that it is up.
    ///
    /// # Errors
    /// The image can't be built, QEMU is not installed or ends, or the guest is not up in time; then the
    /// error quotes the console.
    pub async fn boot(self) -> Result<Vm> {
        let started = tokio::task::spawn_blocking(move || self.start());
        let Started {
            directory,
            accelerator,
            mut process,
            since,
            boot_deadline,
        } = started
            .await
            .context("the task that starts QEMU panicked")??;
        let dir = directory.path();
        let console = Console::watch(process.take_console()?, dir)?;
        let connect = async {
            Ok((
                Qmp::connect(&dir.join(QMP)).await?,
                Shell::connect(&dir.join(SHELL)).await?,
            ))
        };
        let connected = tokio::select! {
            connected = connect => connected,
            () = console.interrupted() => Err(anyhow!("it ended")),
        };
        let (qmp, shell) =
            connected.map_err(|error| error.context(console.explain("QEMU did not start")))?;
        console.wait_boots(1, boot_deadline).await?;
        Ok(Vm {
            accelerator,
            console,
            qmp: Mutex::new(qmp),
            shell,
            boots_expected: Mutex::new(1),
            boot_time: since.elapsed(),
            boot_deadline,
            process,
            directory,
        })
    }

    /// The blocking part of booting.
    fn start(self) -> Result<Started> {
        let image = match &self.image {
            Some(image) => image.clone(),
            None => Image::standard()?,
        };
        // `vbvm` and a random suffix: every byte counts in a socket's path.
        let directory = tempfile::Builder::new()
            .prefix("vbvm")
            .tempdir()
            .context("cannot create a directory for the guest's sockets")?;
        let dir = directory.path();
        check_path_length(dir)?;
        let initramfs = self.initramfs(&image, dir)?;
        let accelerator = Accelerator::detect();
        let arguments = self.arguments(&image, &initramfs, accelerator, dir);
        let since = Instant::now();
        let process = Process::start(&arguments, &dir.join(console::QEMU_LOG), dir)?;
        Ok(Started {
            directory,
            accelerator,
            process,
            since,
            boot_deadline: self.boot_deadline.unwrap_or(match image.disk() {
                Some(_) => SYSTEM_BOOT_DEADLINE,
                None => BOOT_DEADLINE,
            }),
        })
    }

    /// The image's initramfs, or a copy of it with this guest's files behind.
    fn initramfs(&self, image: &Image, dir: &Path) -> Result<PathBuf> {
        let mut files = self.files.clone();
        for (path, lines) in [
            ("/etc/vbridge-guest/agent.args", &self.agent_args),
            ("/etc/vbridge-guest/agent.env", &self.agent_env),
        ] {
            if let Some(line) = lines.iter().find(|line| line.contains('\n')) {
                bail!("an argument or variable of the agent can't hold a line break: {line:?}");
            }
            if !lines.is_empty() && image.disk().is_some() {
                bail!("the agent of a guest with a disk is started by its unit: give it a file");
            }
            if !lines.is_empty() {
                files.push((path.to_owned(), (lines.join("\n") + "\n").into_bytes()));
            }
        }
        for (path, _) in &mut files {
            path.insert_str(0, image.files_root());
        }
        if files.is_empty() {
            return Ok(image.initramfs().to_owned());
        }
        let mut archive = fs::read(image.initramfs())
            .with_context(|| format!("cannot read {}", image.initramfs().display()))?;
        // The kernel expects each archive of several at a multiple of four bytes.
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend(image::overlay(&files)?);
        let path = dir.join("initramfs");
        fs::write(&path, archive).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    fn arguments(
        &self,
        image: &Image,
        initramfs: &Path,
        accelerator: Accelerator,
        dir: &Path,
    ) -> Vec<String> {
        let mut kernel_arguments = vec![KERNEL_ARGUMENTS.to_owned()];
        if image.disk().is_some() {
            kernel_arguments.push(DISK_KERNEL_ARGUMENTS.to_owned());
        }
        kernel_arguments.extend(self.append.iter().cloned());
        let log = dir.join(console::CONSOLE_LOG);
        let stdio = format!(
            "stdio,id=console,signal=off,logfile={},logappend=off",
            log.display()
        );
        let mut arguments = words(&["-nodefaults", "-no-user-config", "-nographic"]);
        arguments.extend(words(&["-display", "none", "-M", "q35", "-cpu", "max"]));
        arguments.extend(words(&["-accel", accelerator.name()]));
        let (cpus, memory) = (self.cpus.to_string(), self.memory_mib.to_string());
        arguments.extend(words(&["-smp", &cpus, "-m", &memory]));
        arguments.extend(words(&["-kernel", &image.kernel().display().to_string()]));
        arguments.extend(words(&["-initrd", &initramfs.display().to_string()]));
        arguments.extend(words(&["-append", &kernel_arguments.join(" ")]));
        arguments.extend(words(&["-chardev", &stdio, "-serial", "chardev:console"]));
        arguments.extend(socket("shell", SHELL, dir));
        arguments.extend(words(&["-serial", "chardev:shell"]));
        for (id, name) in [("qmp", QMP), ("monitor", MONITOR)] {
            arguments.extend(socket(id, name, dir));
            arguments.extend(words(&["-mon", &format!("chardev={id},mode=control")]));
        }
        arguments.extend(port(AGENT_PORT_ID, AGENT_PORT, AGENT, dir));
        arguments.extend(port("raw0", RAW_PORT, RAW, dir));
        if let Some(path) = image.disk() {
            arguments.extend(port("qga0", QGA_PORT, QGA, dir));
            arguments.extend(disk(path));
            arguments.extend(words(&NETWORK));
        }
        arguments.extend(self.qemu_args.iter().cloned());
        arguments
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A socket on which QEMU listens.
fn socket(id: &str, name: &str, dir: &Path) -> Vec<String> {
    let path = dir.join(name);
    let socket = format!("socket,id={id},path={},server=on,wait=off", path.display());
    words(&["-chardev", &socket])
}

/// A virtio-serial port and its socket.
///
/// Each has a controller of its own, as the README advises: the agent may rebind its driver, and with so few queues
/// (port 0 is reserved) each gets an interrupt of its own, where one interrupt for the 64 queues of a default
/// controller makes the guest look at all of them.
fn port(id: &str, name: &str, file: &str, dir: &Path) -> Vec<String> {
    let chardev = format!("{id}-socket");
    let controller = format!("virtio-serial-pci,id={id}-bus,max_ports=2");
    let port = format!("virtserialport,chardev={chardev},name={name},id={id},bus={id}-bus.0");
    let mut arguments = socket(&chardev, file, dir);
    arguments.extend(words(&["-device", &controller, "-device", &port]));
    arguments
}

/// The disk of the guest's system. What the guest writes goes to a temporary file, which ends with QEMU.
fn disk(path: &Path) -> Vec<String> {
    // A comma in a value is written twice.
    let path = path.display().to_string().replace(',', ",,");
    let drive = format!("if=none,id=disk,format=raw,snapshot=on,file={path}");
    let device = "virtio-blk-pci,drive=disk,serial=vbridge-disk";
    words(&["-drive", &drive, "-device", device])
}

fn check_path_length(dir: &Path) -> Result<()> {
    let longest = dir.join(AGENT);
    let length = longest.as_os_str().len();
    if length > SOCKET_PATH_MAX {
        bail!(
            "{} has {length} bytes, a Unix socket's path at most {SOCKET_PATH_MAX}: set TMPDIR to a shorter path",
            longest.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_directory_is_refused_with_advice() {
        let error = check_path_length(Path::new(&"/x".repeat(60))).unwrap_err();
        assert!(error.to_string().contains("TMPDIR"), "{error}");
    }
}
