//! The daemon's process: its sockets, its start, and its first answer.
//!
//! The sockets are opened for it, as systemd would: so a TCP port is free for certain and on the host's loopback device,
//! while the daemon and its networks are in a namespace.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    process::Stdio,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    process::Child,
    time::timeout,
};
use xtask::tools;

use crate::{
    fixture::eventually,
    libvirt::{
        cell::{self, Cell, Network},
        limits::{FREEZE, LOG_LINES, START},
        program,
    },
};

/// Sockets by the name that systemd's units have, their file below `/run/libvirt`, and whether all may connect.
pub(super) const UNIX_SOCKETS: [(&str, &str, u32); 3] = [
    ("libvirtd.socket", "libvirt-sock", 0o600),
    ("libvirtd-ro.socket", "libvirt-sock-ro", 0o666),
    ("libvirtd-admin.socket", "libvirt-admin-sock", 0o600),
];

pub(super) const TCP_SOCKET: &str = "libvirtd-tcp.socket";
pub(super) const TLS_SOCKET: &str = "libvirtd-tls.socket";

/// The call AUTH_LIST (procedure 66 of the remote program, version 1) with serial 0: seven words, the first the length.
/// Every daemon answers it, to anybody.
const AUTH_LIST: [u32; 7] = [28, 0x2000_8086, 1, 66, 0, 0, 0];

/// Our paths below the cell's folder.
pub(super) const CONFIGURATION: &str = "etc/libvirtd.conf";
pub(super) const LOG: &str = "log/libvirtd.log";
const COMPLAINTS: &str = "log/libvirtd.err";
pub(super) const SASL: &str = "etc/sasl2";

/// TCP ports by their sockets' names.
pub(super) type Ports = BTreeMap<String, u16>;

/// The daemon's process.
#[derive(Debug)]
pub(super) struct Daemon {
    /// nsenter, which ends with the daemon and as the daemon does.
    pub(super) child: Child,
    pub(super) pid: u32,
}

// === impl Daemon ===

impl Daemon {
    /// Sends it a signal.
    pub(super) fn signal(&mut self, signal: Signal) -> Result<()> {
        self.running()?;
        send(self.pid, signal)
    }

    /// Stops it where it is, and waits until none of its threads runs any more.
    pub(super) async fn freeze(&mut self) -> Result<()> {
        self.signal(Signal::STOP)?;
        // nsenter stops when its child does. A sign to go on that came before would be lost.
        let pids = [self.pid, self.running()?];
        let stand_still = async || Ok(pids.iter().all(|pid| is_stopped(*pid)));
        eventually("the daemon's standstill", FREEZE, stand_still).await
    }

    /// Lets it go on.
    ///
    /// nsenter does it, which lets its child go on once it goes on itself. Were the daemon told by us as well, nsenter's
    /// own sign could come late: after the daemon's next standstill, and end it.
    pub(super) async fn thaw(&mut self) -> Result<()> {
        let nsenter = self.running()?;
        send(nsenter, Signal::CONT)?;
        let pids = [self.pid, nsenter];
        let go_on = async || Ok(!pids.iter().any(|pid| is_stopped(*pid)));
        eventually("the daemon's going on", FREEZE, go_on).await
    }

    /// nsenter's process id. Until nsenter has been waited for, neither id can be another process's.
    fn running(&mut self) -> Result<u32> {
        ensure!(
            self.child.try_wait()?.is_none(),
            "libvirtd has ended already"
        );
        self.child.id().context("libvirtd has ended already")
    }
}

fn send(process: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
    let pid = pid.context("no process id")?;
    rustix::process::kill_process(pid, signal)
        .with_context(|| format!("can't send {signal:?} to process {process}"))
}

/// Whether all threads of a process are stopped: the field behind the name in proc_pid_stat(5) is `T`.
fn is_stopped(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return false;
    };
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(')')
            .is_some_and(|(_, fields)| fields.trim_start().starts_with('T'))
    })
}

/// Starts the daemon and waits until it answers.
pub(super) async fn launch(cell: &Cell, ports: &Ports) -> Result<(Daemon, Ports)> {
    let launched = async {
        let (mut daemon, ports) = spawn(cell, ports).await?;
        tokio::select! {
            answered = answers(cell) => answered?,
            status = daemon.child.wait() => bail!("it ended with {}", status?),
        }
        anyhow::Ok((daemon, ports))
    };
    let launched = match timeout(START, launched).await {
        Ok(launched) => launched,
        Err(_) => Err(anyhow!("no answer within {START:?}")),
    };
    launched.map_err(|error| error.context(format!("libvirtd does not start:\n{}", log(cell))))
}

async fn spawn(cell: &Cell, ports: &Ports) -> Result<(Daemon, Ports)> {
    let libvirtd = xtask::command::find_program("libvirtd")
        .context("libvirtd is missing: run `cargo xtask test`, which installs it")?;
    let sockets: serde_json::Map<String, Value> = UNIX_SOCKETS
        .iter()
        .map(|(name, file, mode)| {
            let path = format!("/run/libvirt/{file}");
            ((*name).to_owned(), json!([path, mode]))
        })
        .collect();
    let python = tools::system_python().display().to_string();
    let mut command = cell.command(Network::Hosts, &python);
    command
        .arg(program("launch.py"))
        .arg(json!({"unix": sockets, "tcp": ports}).to_string())
        .arg(libvirtd)
        .args(["--config", &inside(cell, CONFIGURATION)])
        .args(["--pid-file", "/run/libvirtd.pid"])
        .env("SASL_CONF_PATH", inside(cell, SASL))
        // dnsmasq, iptables and others are not where users look.
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(cell.folder().join(COMPLAINTS))?)
        // The cell ends what is in it. nsenter is outside, and stands still with a daemon that does.
        .kill_on_drop(true);
    let mut child = command.spawn().context("can't start nsenter")?;
    let stdout = child.stdout.take().context("it has no output")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).await?;
    let ports = serde_json::from_str(&line).context("its sockets can't be opened")?;
    let pid = child.id().and_then(cell::child_of);
    let pid = pid.context("it has ended already")?;
    Ok((Daemon { child, pid }, ports))
}

/// Makes a call that every daemon answers.
async fn answers(cell: &Cell) -> Result<()> {
    let (_, file, _) = UNIX_SOCKETS[0];
    let path = cell.folder().join("run/libvirt").join(file);
    let mut socket = UnixStream::connect(&path)
        .await
        .with_context(|| format!("can't connect {}", path.display()))?;
    socket
        .write_all(&AUTH_LIST.map(u32::to_be_bytes).concat())
        .await?;
    let length = socket
        .read_u32()
        .await
        .context("it closes the connection")?;
    ensure!(length >= AUTH_LIST[0], "it answers with {length} bytes");
    Ok(())
}

/// What the daemon has complained of, the last lines of it.
pub(super) fn log(cell: &Cell) -> String {
    let read = |file: &str| fs::read(cell.folder().join(file)).unwrap_or_default();
    let text = [read(COMPLAINTS), read(LOG)].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

/// One of our paths as the daemon sees it.
pub(super) fn inside(cell: &Cell, path: &str) -> String {
    let path = cell.inside(&cell.folder().join(path));
    path.display().to_string()
}
