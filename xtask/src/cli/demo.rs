//! `cargo xtask demo`: a guest, the bridge, and calls through them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use rustix::process::{Pid, Signal};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time;
use xtask::build::{self, Binary, Profile};
use xtask::limits::{CLIENT_DEADLINE, DEMO_METRICS, PROGRAM_END_DEADLINE, PROGRAM_START_DEADLINE};
use xtask::qemu::Vm;
use xtask::tools;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// End after the show, rather than at Ctrl-C.
    #[arg(long)]
    once: bool,
}

/// What the guest is called.
const GUEST: &str = "demo";

/// What the bridge prints before each of its addresses.
const LISTENING: &str = "listening on ";

/// The bridge's arguments. With the guest's monitor it sees that the guest is paused or restarts.
fn serve_arguments(channel: &Path, monitor: Option<&Path>) -> Vec<String> {
    let mut guest = format!("{GUEST}=unix:{}", channel.display());
    if let Some(monitor) = monitor {
        guest.push_str(&format!(",monitor=unix:{}", monitor.display()));
    }
    ["serve", "--guest", &guest, "--listen", "127.0.0.1:0"]
        .map(str::to_owned)
        .to_vec()
}

/// The arguments of a command line client of the bridge.
fn client_arguments(bridge: SocketAddr, words: &[&str]) -> Vec<String> {
    let mut arguments: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    arguments.extend(["--bridge".to_owned(), bridge.to_string()]);
    arguments
}

pub(super) async fn run(options: Options) -> Result<()> {
    tokio::select! {
        shown = show(options) => shown,
        // What runs is ended by being dropped.
        interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot wait for Ctrl-C"),
    }
}

async fn show(options: Options) -> Result<()> {
    say("building the bridge");
    let vbridge = built(Profile::Dev, build::BRIDGE).await?;
    let guest = Guest::start().await?;
    let mut bridge = Program::start(
        "bridge",
        &vbridge,
        &serve_arguments(guest.channel(), guest.monitor().as_deref()),
    )?;
    let address = bridge.address().await?;

    println!("\nThe bridge listens on {address}. Try:\n");
    let grpcurl = grpcurl();
    println!("    {grpcurl} -plaintext {address} list");
    println!("    {grpcurl} -plaintext {address} describe vbridge.guest.v1.System");
    println!("    {grpcurl} -plaintext {address} vbridge.guest.v1.System/Ping");
    println!(
        "    {grpcurl} -plaintext -authority {GUEST} {address} vbridge.guest.v1.System/GetInfo"
    );
    println!(
        "    {grpcurl} -plaintext -authority {GUEST} {address} vbridge.guest.v1.Metrics/Watch"
    );

    client(
        &vbridge,
        &client_arguments(address, &["ping", GUEST, "--wait", "10s"]),
    )
    .await?;
    client(&vbridge, &client_arguments(address, &["info", GUEST])).await?;
    watch(
        &vbridge,
        &client_arguments(address, &["metrics", GUEST, "--watch"]),
    )
    .await?;

    if !options.once {
        println!("\nThe guest and the bridge run until Ctrl-C.");
        bridge.ended().await?;
    }
    bridge.stop().await?;
    guest.stop().await
}

/// Whoever is at the other end of the channel.
enum Guest {
    Vm {
        vm: Box<Vm>,
        channel: PathBuf,
    },
    /// The agent on this machine, which plays QEMU's part of the socket as well.
    Host {
        agent: Box<Program>,
        channel: PathBuf,
        _directory: TempDir,
    },
}

impl Guest {
    async fn start() -> Result<Self> {
        if tools::qemu_is_installed() {
            say("building the agent and booting a guest");
            let vm = Vm::builder().boot().await?;
            println!("{}", super::vm::summary(&vm));
            let channel = vm.channel();
            return Ok(Self::Vm {
                vm: Box::new(vm),
                channel,
            });
        }
        println!(
            "QEMU is not installed (`cargo xtask tools` installs it): the agent runs on this machine \
             instead of in a guest, on the embedded port."
        );
        let agent = built(Profile::Dev, build::AGENT).await?;
        let directory = tempfile::Builder::new().prefix("vbdemo").tempdir()?;
        let channel = directory.path().join("agent");
        let listen = format!("unix:{}", channel.display());
        let agent = Program::start("agent", &agent, &["--listen".to_owned(), listen])?;
        Ok(Self::Host {
            agent: Box::new(agent),
            channel,
            _directory: directory,
        })
    }

    fn channel(&self) -> &Path {
        match self {
            Self::Vm { channel, .. } | Self::Host { channel, .. } => channel,
        }
    }

    fn monitor(&self) -> Option<PathBuf> {
        match self {
            Self::Vm { vm, .. } => Some(vm.monitor()),
            Self::Host { .. } => None,
        }
    }

    async fn stop(self) -> Result<()> {
        match self {
            Self::Vm { vm, .. } => vm.shutdown().await,
            Self::Host { agent, .. } => agent.stop().await,
        }
    }
}

/// A program that runs beside the show; its output is shown with its name before each line.
struct Program {
    name: &'static str,
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
}

impl Program {
    fn start(name: &'static str, program: &Path, arguments: &[String]) -> Result<Self> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C on the terminal is for us; we end it in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        // A few log lines that are taken up at once, or dropped with the receiver: it needs no bound.
        let (sender, lines) = mpsc::unbounded_channel();
        if let Some(stdout) = child.stdout.take() {
            tokio::spawn(relay(name, stdout, sender.clone()));
        }
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(relay(name, stderr, sender));
        }
        Ok(Self { name, child, lines })
    }

    /// The first TCP address that it says it listens on.
    async fn address(&mut self) -> Result<SocketAddr> {
        let found = async {
            while let Some(line) = self.lines.recv().await {
                if let Some(address) = listening_address(&line) {
                    return Ok(address);
                }
            }
            Err(anyhow!("the {} ended before it listened", self.name))
        };
        let found = time::timeout(PROGRAM_START_DEADLINE, found).await;
        let late = |_| {
            anyhow!(
                "the {} did not say `{LISTENING}…` within {PROGRAM_START_DEADLINE:?}",
                self.name
            )
        };
        let address = found.map_err(late)??;
        self.lines.close();
        Ok(address)
    }

    /// Waits for it to end, which it should not.
    async fn ended(&mut self) -> Result<()> {
        let status = self.child.wait().await?;
        bail!("the {} ended: {status}", self.name)
    }

    async fn stop(mut self) -> Result<()> {
        let Some(pid) = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
        else {
            return Ok(());
        };
        rustix::process::kill_process(pid, Signal::TERM)?;
        match time::timeout(PROGRAM_END_DEADLINE, self.child.wait()).await {
            Ok(ended) => ended
                .map(drop)
                .with_context(|| format!("cannot wait for the {}", self.name)),
            Err(_) => bail!(
                "the {} did not end within {PROGRAM_END_DEADLINE:?} of SIGTERM",
                self.name
            ),
        }
    }
}

async fn relay(
    name: &'static str,
    output: impl AsyncRead + Unpin,
    lines: mpsc::UnboundedSender<String>,
) {
    let mut output = BufReader::new(output).lines();
    while let Ok(Some(line)) = output.next_line().await {
        println!("{name}: {line}");
        // Nobody may want to know any more.
        let _ = lines.send(line);
    }
}

fn listening_address(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(LISTENING)?;
    let word = rest.split_whitespace().next()?;
    word.trim_start_matches("http://")
        .trim_end_matches([',', ';', '.', '/'])
        .parse()
        .ok()
}

/// Runs a client to its end.
async fn client(vbridge: &Path, arguments: &[String]) -> Result<()> {
    print_command(arguments);
    let mut child = Command::new(vbridge)
        .args(arguments)
        .kill_on_drop(true)
        .spawn()?;
    let late = |_| {
        anyhow!(
            "`vbridge {}` did not end within {CLIENT_DEADLINE:?}",
            arguments.join(" ")
        )
    };
    let status = time::timeout(CLIENT_DEADLINE, child.wait())
        .await
        .map_err(late)??;
    if !status.success() {
        bail!("`vbridge {}` failed: {status}", arguments.join(" "));
    }
    Ok(())
}

/// Runs a client that has no end of its own, for a while.
async fn watch(vbridge: &Path, arguments: &[String]) -> Result<()> {
    print_command(arguments);
    let mut child = Command::new(vbridge)
        .args(arguments)
        .kill_on_drop(true)
        .spawn()?;
    match time::timeout(DEMO_METRICS, child.wait()).await {
        Ok(status) => bail!(
            "`vbridge {}` ended by itself: {}",
            arguments.join(" "),
            status?
        ),
        Err(_) => Ok(child.kill().await?),
    }
}

fn print_command(arguments: &[String]) {
    println!("\n$ vbridge {}", arguments.join(" "));
}

/// grpcurl as a person would type it: from `PATH`, or ours if it is installed.
fn grpcurl() -> String {
    let ours = tools::grpcurl();
    if xtask::command::find_program("grpcurl").is_none() && ours.exists() {
        return ours.display().to_string();
    }
    "grpcurl".to_owned()
}

async fn built(profile: Profile, binary: Binary) -> Result<PathBuf> {
    let built = tokio::task::spawn_blocking(move || build::host(profile, &[binary]));
    let built = built.await.context("the task that builds panicked")??;
    let (_, path) = built.into_iter().next().context("cargo built nothing")?;
    Ok(path)
}

fn say(what: &str) {
    eprintln!("xtask: {what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bridges_address_is_found_in_a_log_line() {
        let address = Some(([127, 0, 0, 1], 7411).into());
        assert_eq!(
            listening_address("INFO listening on 127.0.0.1:7411"),
            address
        );
        assert_eq!(
            listening_address("listening on http://127.0.0.1:7411/ for all"),
            address
        );
        assert_eq!(listening_address("listening on unix:/tmp/x"), None);
    }
}
