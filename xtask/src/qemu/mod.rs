//! A guest in QEMU: booted, commanded, paused, reset.
//!
//! ```text
//!            ┌─────────────── QEMU ────────────────┐
//!  channel ──┤ virtserialport org.vbridge.agent.0  │
//!      raw ──┤ virtserialport org.vbridge.raw.0    │
//!  monitor ──┤ QMP, for whoever tests it           │
//!      qmp ──┤ QMP, ours                           │
//!    shell ──┤ ttyS1: commands for the guest       │
//!  console ◄─┤ ttyS0 on standard output            │
//!            └─────────────────────────────────────┘
//! ```
//!
//! All sockets are in one directory below the system's temporary directory, removed with the [`Vm`].

mod console;
mod process;
mod qmp;
mod shell;
mod socket;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Mutex;

pub use shell::{ExitStatus, Output};

use crate::image::{self, Image};
use crate::limits::{BOOT_DEADLINE, QUIT_DEADLINE, SOCKET_PATH_MAX};
use console::Console;
use process::Process;
use qmp::Qmp;
use shell::Shell;

/// The channel's name: what the agent looks for.
pub const AGENT_PORT: &str = "org.vbridge.agent.0";

/// The device's id of the agent's port: what `VSERPORT_CHANGE` names in QMP.
pub const AGENT_PORT_ID: &str = "vbridge0";

/// The second port, with no protocol on it: for measuring what the channel itself can do.
pub const RAW_PORT: &str = "org.vbridge.raw.0";

/// QEMU's program.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// The kernel's arguments that we always give. A panic restarts the guest at once, and so shows up as a
/// boot that never ends with the panic on the console.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 loglevel=4 printk.devkmsg=on panic=-1 tsc=reliable";

/// A running guest. Dropping it kills QEMU; so does the death of this process.
#[derive(Debug)]
pub struct Vm {
    directory: TempDir,
    accelerator: Accelerator,
    console: Console,
    qmp: Mutex<Qmp>,
    shell: Shell,
    /// Boots that the guest should have reached, for [`Vm::wait_boot`].
    boots_expected: Mutex<u64>,
    boot_time: Duration,
    // Last: QEMU is gone before its directory is.
    process: Process,
}

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
    boot_deadline: Duration,
}

/// How QEMU executes the guest's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// In hardware.
    Kvm,
    /// By translation, in software.
    Tcg,
}

// === impl Accelerator ===

impl Accelerator {
    /// KVM where it works: the CPU must have the extensions, since a machine may have a `/dev/kvm` that
    /// opens and fails later, and we must be allowed to open the device.
    pub fn detect() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let opens = || {
            fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open("/dev/kvm")
                .is_ok()
        };
        if has_virtualisation(&cpuinfo) && opens() {
            Self::Kvm
        } else {
            Self::Tcg
        }
    }

    /// QEMU's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

fn has_virtualisation(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .any(|line| {
            line.split_whitespace()
                .any(|flag| flag == "vmx" || flag == "svm")
        })
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
            boot_deadline: BOOT_DEADLINE,
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

    /// How long the first boot may take. Default: [`BOOT_DEADLINE`].
    #[must_use]
    pub fn boot_deadline(mut self, deadline: Duration) -> Self {
        self.boot_deadline = deadline;
        self
    }

    /// Starts QEMU and waits until the guest says that it is up.
    ///
    /// # Errors
    /// The image can't be built, QEMU is not installed or ends, or the guest is not up in time; then the
    /// error quotes the console.
    pub async fn boot(self) -> Result<Vm> {
        let deadline = self.boot_deadline;
        let started = tokio::task::spawn_blocking(move || self.start());
        let Started {
            directory,
            accelerator,
            mut process,
            since,
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
        console.wait_boots(1, deadline).await?;
        Ok(Vm {
            accelerator,
            console,
            qmp: Mutex::new(qmp),
            shell,
            boots_expected: Mutex::new(1),
            boot_time: since.elapsed(),
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
        // `vb` and a random suffix: every byte counts in a socket's path.
        let directory = tempfile::Builder::new()
            .prefix("vb")
            .tempdir()
            .context("cannot create a directory for the guest's sockets")?;
        let dir = directory.path();
        check_path_length(dir)?;
        let initramfs = self.initramfs(&image, dir)?;
        let accelerator = Accelerator::detect();
        let arguments = self.arguments(&image, &initramfs, accelerator, dir);
        let since = Instant::now();
        let process = Process::start(&arguments, &dir.join(console::QEMU_LOG))?;
        Ok(Started {
            directory,
            accelerator,
            process,
            since,
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
            if !lines.is_empty() {
                files.push((path.to_owned(), (lines.join("\n") + "\n").into_bytes()));
            }
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
        kernel_arguments.extend(self.append.iter().cloned());
        let socket = |id: &str, name: &str| {
            format!(
                "socket,id={id},path={},server=on,wait=off",
                dir.join(name).display()
            )
        };
        let port = |chardev: &str, name: &str, id: &str| {
            format!("virtserialport,chardev={chardev},name={name},id={id}")
        };
        let mut arguments: Vec<String> = Vec::new();
        let mut add =
            |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));
        add(&[
            "-nodefaults",
            "-no-user-config",
            "-nographic",
            "-display",
            "none",
        ]);
        add(&["-M", "q35", "-accel", accelerator.name(), "-cpu", "max"]);
        add(&[
            "-smp",
            &self.cpus.to_string(),
            "-m",
            &self.memory_mib.to_string(),
        ]);
        add(&["-kernel", &image.kernel().display().to_string()]);
        add(&["-initrd", &initramfs.display().to_string()]);
        add(&["-append", &kernel_arguments.join(" ")]);
        let log = dir.join(console::CONSOLE_LOG);
        let stdio = format!(
            "stdio,id=console,signal=off,logfile={},logappend=off",
            log.display()
        );
        add(&["-chardev", &stdio, "-serial", "chardev:console"]);
        add(&[
            "-chardev",
            &socket("shell", SHELL),
            "-serial",
            "chardev:shell",
        ]);
        add(&["-device", "virtio-serial-pci"]);
        add(&["-chardev", &socket("agent", AGENT)]);
        add(&["-device", &port("agent", AGENT_PORT, AGENT_PORT_ID)]);
        add(&[
            "-chardev",
            &socket("raw", RAW),
            "-device",
            &port("raw", RAW_PORT, "raw0"),
        ]);
        add(&[
            "-chardev",
            &socket("qmp", QMP),
            "-mon",
            "chardev=qmp,mode=control",
        ]);
        add(&[
            "-chardev",
            &socket("monitor", MONITOR),
            "-mon",
            "chardev=monitor,mode=control",
        ]);
        arguments.extend(self.qemu_args.iter().cloned());
        arguments
    }
}

struct Started {
    directory: TempDir,
    accelerator: Accelerator,
    process: Process,
    since: Instant,
}

// === impl Vm ===

impl Vm {
    /// A guest with one CPU, 256 MiB, and the agent.
    pub fn builder() -> VmBuilder {
        VmBuilder::default()
    }

    /// The socket of the agent's port.
    pub fn channel(&self) -> PathBuf {
        self.directory.path().join(AGENT)
    }

    /// The socket of the raw port; in the guest `/dev/virtio-ports/org.vbridge.raw.0`.
    pub fn raw_channel(&self) -> PathBuf {
        self.directory.path().join(RAW)
    }

    /// A QMP socket that nobody uses: for the bridge, or for a look around. One client at a time.
    pub fn monitor(&self) -> PathBuf {
        self.directory.path().join(MONITOR)
    }

    /// The console's log, since QEMU's start.
    pub fn console_log(&self) -> PathBuf {
        self.directory.path().join(console::CONSOLE_LOG)
    }

    /// The last lines of the console.
    pub fn console_tail(&self) -> String {
        self.console.tail()
    }

    /// QEMU's process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// How the guest's code is executed.
    pub fn accelerator(&self) -> Accelerator {
        self.accelerator
    }

    /// From QEMU's start until the guest was up.
    pub fn boot_time(&self) -> Duration {
        self.boot_time
    }

    /// How often the guest has come up so far: 1 after [`VmBuilder::boot`].
    pub fn boots(&self) -> u64 {
        self.console.boots()
    }

    /// Whether QEMU still runs.
    pub fn is_running(&self) -> bool {
        !self.console.has_ended()
    }

    /// Sends a QMP command, such as `{"execute": "query-status"}`, and returns what is in `return`.
    ///
    /// # Errors
    /// QEMU answers with an error or not at all.
    pub async fn qmp(&self, command: Value) -> Result<Value> {
        let mut qmp = self.qmp.lock().await;
        qmp.execute(&command)
            .await
            .map_err(|error| match self.console.has_ended() {
                true => error.context(self.console.explain("QEMU has ended")),
                false => error,
            })
    }

    /// Stops the guest's CPUs.
    ///
    /// # Errors
    /// As [`Vm::qmp`].
    pub async fn pause(&self) -> Result<()> {
        self.qmp(json!({"execute": "stop"})).await?;
        Ok(())
    }

    /// Lets a paused guest go on.
    ///
    /// # Errors
    /// As [`Vm::qmp`].
    pub async fn resume(&self) -> Result<()> {
        self.qmp(json!({"execute": "cont"})).await?;
        Ok(())
    }

    /// Presses the reset button. [`Vm::wait_boot`] tells when the guest is up again.
    ///
    /// # Errors
    /// As [`Vm::qmp`].
    pub async fn reset(&self) -> Result<()> {
        self.expect_boot().await;
        self.qmp(json!({"execute": "system_reset"})).await?;
        Ok(())
    }

    /// Lets the guest's kernel restart it (`reboot -f`). [`Vm::wait_boot`] tells when it is up again.
    ///
    /// # Errors
    /// The command can't be sent.
    pub async fn reboot(&self) -> Result<()> {
        self.expect_boot().await;
        self.shell.send_only("reboot -f").await
    }

    /// Waits until the guest is up after a [`Vm::reset`] or [`Vm::reboot`].
    ///
    /// # Errors
    /// QEMU ended, or the guest is not up within [`BOOT_DEADLINE`]; the error quotes the console.
    pub async fn wait_boot(&self) -> Result<()> {
        let expected = *self.boots_expected.lock().await;
        self.console.wait_boots(expected, BOOT_DEADLINE).await
    }

    /// Runs a shell line in the guest as root, with nothing on its standard input. What it writes to
    /// either output is returned; a time-out kills it, and what it started.
    ///
    /// Commands of concurrent callers run one after another. A process that the line leaves in the
    /// background lives on, unless the line timed out.
    ///
    /// # Errors
    /// The guest does not answer (paused, or not up), the line is too long, or the time-out passed. A
    /// command that fails is no error here: see [`Output::status`].
    pub async fn exec(&self, line: &str, timeout: Duration) -> Result<Output> {
        self.shell.exec(line, timeout, &self.console).await
    }

    /// As [`Vm::exec`], for lines that must succeed. Returns the output as text.
    ///
    /// # Errors
    /// As [`Vm::exec`], and if the line's status is not 0.
    pub async fn exec_ok(&self, line: &str, timeout: Duration) -> Result<String> {
        let output = self.exec(line, timeout).await?;
        let text = output.stdout_lossy();
        if !output.success() {
            bail!(
                "`{line}` in the guest ended with {}: {}",
                output.status,
                text.trim()
            );
        }
        Ok(text)
    }

    /// Waits until QEMU has ended, as after `poweroff -f` in the guest.
    ///
    /// # Errors
    /// It still runs when the time-out has passed.
    pub async fn wait_end(&self, timeout: Duration) -> Result<()> {
        self.console.wait_end(timeout).await
    }

    /// Ends QEMU and waits for that. Dropping the [`Vm`] does it less politely.
    ///
    /// # Errors
    /// QEMU had to be killed.
    pub async fn shutdown(self) -> Result<()> {
        if self.console.has_ended() {
            return Ok(());
        }
        // QEMU may close the monitor before it has answered; its end is what counts.
        let asked = self.qmp(json!({"execute": "quit"})).await;
        self.console
            .wait_end(QUIT_DEADLINE)
            .await
            .map_err(|error| {
                asked
                    .err()
                    .unwrap_or_else(|| anyhow!("it ignored `quit`"))
                    .context(error)
            })
            .context("QEMU was killed")
    }

    async fn expect_boot(&self) {
        *self.boots_expected.lock().await = self.console.boots() + 1;
    }
}

// Names of the sockets: short, for `sun_path`.
const AGENT: &str = "agent";
const RAW: &str = "raw";
const QMP: &str = "qmp";
const MONITOR: &str = "mon";
const SHELL: &str = "sh";

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
    fn kvm_needs_the_processors_extension_as_a_whole_word() {
        assert!(has_virtualisation(
            "model name\t: x\nflags\t\t: fpu vmx sse\n"
        ));
        assert!(has_virtualisation("flags\t\t: svm\n"));
        assert!(!has_virtualisation(
            "flags\t\t: fpu svm_lock\nvmx flags\t: vnmi\n"
        ));
    }

    #[test]
    fn a_long_directory_is_refused_with_advice() {
        let error = check_path_length(Path::new(&"/x".repeat(60))).unwrap_err();
        assert!(error.to_string().contains("TMPDIR"), "{error}");
    }
}
