//! A guest in QEMU: booted, commanded, paused, reset.
//!
//! ```text
//!            ┌─────────────── QEMU ────────────────┐
//!  channel ──┤ virtserialport org.vbridge.agent.0  │
//!      raw ──┤ virtserialport org.vbridge.raw.0    │
//!      qga ──┤ virtserialport org.qemu.guest_agent.0 if there is a disk
//!  monitor ──┤ QMP, for whoever tests it           │
//!      qmp ──┤ QMP, ours                           │
//!    shell ──┤ ttyS1: commands for the guest       │
//!  console ◄─┤ ttyS0 on standard output            │
//!            └─────────────────────────────────────┘
//! ```
//!
//! All sockets are in one directory below the system's temporary directory, removed with the [`Vm`].

mod accelerator;
mod builder;
mod console;
mod process;
mod qmp;
mod shell;
mod socket;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Mutex;

pub use accelerator::Accelerator;
pub use builder::VmBuilder;
pub use shell::{ExitStatus, Output};

use crate::limits::QUIT_DEADLINE;
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

/// The port of the QEMU guest agent.
pub const QGA_PORT: &str = "org.qemu.guest_agent.0";

/// QEMU's program.
pub const PROGRAM: &str = "qemu-system-x86_64";

// Names of the sockets: short, for `sun_path`.
const AGENT: &str = "agent";
const RAW: &str = "raw";
const QGA: &str = "qga";
const QMP: &str = "qmp";
const MONITOR: &str = "mon";
const SHELL: &str = "sh";

/// A running guest. Dropping it kills QEMU; so does the death of this process.
#[derive(Debug)]
pub struct Vm {
    // First, and so dropped first: QEMU is gone before its directory is.
    process: Process,
    directory: TempDir,
    accelerator: Accelerator,
    console: Console,
    qmp: Mutex<Qmp>,
    shell: Shell,
    /// Boots that the guest should have reached, for [`Vm::wait_boot`].
    boots_expected: Mutex<u64>,
    boot_time: Duration,
    boot_deadline: Duration,
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

    /// The socket of the QEMU guest agent's port, if the image has a disk: one client at a time.
    pub fn qga_channel(&self) -> PathBuf {
        self.directory.path().join(QGA)
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

    /// Waits until the guest is up after a [`Vm::reset`], [`Vm::reboot`] or [`Vm::expect_boot`].
    ///
    /// # Errors
    /// QEMU ended, or the guest is not up within the time for a boot; the error quotes the console.
    pub async fn wait_boot(&self) -> Result<()> {
        let expected = *self.boots_expected.lock().await;
        self.console.wait_boots(expected, self.boot_deadline).await
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

    /// Waits until QEMU has ended, however long that takes.
    pub async fn ended(&self) {
        self.console.ended().await;
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

    /// Says that something else is about to restart the guest, for [`Vm::wait_boot`] to wait for that.
    pub async fn expect_boot(&self) {
        *self.boots_expected.lock().await = self.console.boots() + 1;
    }
}
