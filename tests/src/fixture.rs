//! Bridge, local agent and guest, so that a test reads like the story that it tells.
//!
//! ```no_run
//! # async fn story() -> anyhow::Result<()> {
//! use vbridge_tests::fixture::{Bridge, Guest};
//!
//! let guest = Guest::boot(1).await?;
//! let mut bridge = Bridge::start([guest.seat("web")]).await?;
//! bridge.ready("web").await?;
//! bridge.kill9().await?;
//! bridge.start_again().await?;
//! guest.pause().await?;
//! # Ok(())
//! # }
//! ```

use std::{
    ffi::OsString,
    fs::File,
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::LazyLock,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;
use tokio::{net::UnixStream, process::Command, runtime::Runtime, sync::OnceCell, time::timeout};
use vbridge_api::host::v1::{
    GetGuestRequest, Guest as GuestMessage, GuestState, WatchGuestsRequest,
    bridge_client::BridgeClient, domains_client::DomainsClient,
};
use xtask::{
    image::Image,
    qemu::{Vm, VmBuilder},
};

use crate::{
    place::Place,
    process::{PATIENCE, Process},
    programs,
};

/// For a shell command in the guest: longer, and it hangs. They take milliseconds; under two bulk streams the console of an
/// emulated guest can get no turn for half a minute (seen once, on a machine that was building beside), since its every byte needs
/// the lock of QEMU that the streams' devices hold.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);

/// The agent's path in the guest.
const GUEST_AGENT: &str = "/bin/vbridge-test-agent";

/// Runs a test on the one runtime that all tests of a program share: what they share (a guest, say) lives on it.
pub fn story(test: impl Future<Output = Result<()>>) {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .expect("a runtime can be made")
    });
    if let Err(error) = RUNTIME.block_on(test) {
        panic!(
            "{}",
            error
                .chain()
                .map(|cause| format!("{cause}\n"))
                .collect::<String>()
        );
    }
}

/// Waits until `condition` holds, looking often.
///
/// # Errors
/// It does not hold within `limit`, or can't be told.
pub async fn eventually<F: Future<Output = Result<bool>>>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> F,
) -> Result<()> {
    let started = Instant::now();
    while !condition().await? {
        if started.elapsed() > limit {
            bail!("{what}: not within {limit:?}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// A guest as a bridge knows it.
#[derive(Debug, Clone)]
pub struct Seat {
    /// Its name.
    pub name: String,
    /// Its channel's socket.
    pub channel: PathBuf,
    /// A QEMU monitor for the bridge.
    pub monitor: Option<PathBuf>,
    /// The file with the pre-shared key.
    pub key_file: Option<PathBuf>,
}

impl Seat {
    /// A guest with a channel and nothing else.
    pub fn new(name: impl Into<String>, channel: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            channel: channel.into(),
            monitor: None,
            key_file: None,
        }
    }

    /// With a QEMU monitor.
    #[must_use]
    pub fn monitor(mut self, path: impl Into<PathBuf>) -> Self {
        self.monitor = Some(path.into());
        self
    }

    /// With a pre-shared key.
    #[must_use]
    pub fn key_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.key_file = Some(path.into());
        self
    }

    /// As `--guest` takes it.
    fn argument(&self) -> String {
        let mut text = format!("{}=unix:{}", self.name, self.channel.display());
        if let Some(monitor) = &self.monitor {
            text += &format!(",monitor=unix:{}", monitor.display());
        }
        if let Some(key) = &self.key_file {
            text += &format!(",key-file={}", key.display());
        }
        text
    }
}

/// A running `vbridge serve`.
#[derive(Debug)]
pub struct Bridge {
    command: Serve,
    process: Process,
    address: SocketAddr,
}

/// How it is started, but for its address.
#[derive(Debug)]
struct Serve {
    /// What comes before the program: how it gets to where it runs.
    way: Vec<OsString>,
    arguments: Vec<String>,
}

impl Bridge {
    /// Starts a bridge on a free port.
    ///
    /// # Errors
    /// It does not say where it listens.
    pub async fn start(seats: impl IntoIterator<Item = Seat>) -> Result<Self> {
        let seats = seats.into_iter();
        let arguments = seats.flat_map(|seat| ["--guest".to_owned(), seat.argument()]);
        Self::start_with(Vec::new(), arguments.collect()).await
    }

    /// Starts a bridge with these arguments, which may be a program's that runs it somewhere else.
    ///
    /// # Errors
    /// It does not say where it listens.
    pub async fn start_with(way: Vec<OsString>, arguments: Vec<String>) -> Result<Self> {
        let command = Serve { way, arguments };
        let (process, address) = command.run("127.0.0.1:0").await?;
        Ok(Self {
            command,
            process,
            address,
        })
    }

    /// Starts it again at the same address, after its end.
    ///
    /// # Errors
    /// It does not say where it listens.
    pub async fn start_again(&mut self) -> Result<()> {
        let (process, address) = self.command.run(&self.address.to_string()).await?;
        self.process = process;
        self.address = address;
        Ok(())
    }

    /// Ends it as a crash would.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn kill9(&mut self) -> Result<()> {
        self.process.kill9().await
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// It does not end, or not with status 0.
    pub async fn terminate(&mut self) -> Result<()> {
        let status = self.process.terminate().await?;
        if !status.success() {
            bail!("the bridge ended with {status}\n{}", self.process.log());
        }
        Ok(())
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What it has logged, the last lines of it.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Its open descriptors.
    ///
    /// # Errors
    /// It has ended.
    pub fn descriptors(&self) -> Result<usize> {
        Ok(self.process.descriptors()?)
    }

    /// Memory that it holds resident, in bytes.
    ///
    /// # Errors
    /// It has ended.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.process.resident_bytes()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A guest's services behind this bridge.
    pub fn place(&self, guest: &str) -> Place {
        Place::tcp(format!("{guest} behind the bridge"), self.address)
            .with_authority(format!("{guest}.localhost"))
    }

    /// The bridge's own service.
    ///
    /// # Errors
    /// It does not listen any more.
    pub async fn control(&self) -> Result<BridgeClient<tonic::transport::Channel>> {
        Ok(BridgeClient::new(self.own().channel().await?))
    }

    /// The bridge's service for the domains of its hypervisors.
    ///
    /// # Errors
    /// It does not listen any more.
    pub async fn domains(&self) -> Result<DomainsClient<tonic::transport::Channel>> {
        Ok(DomainsClient::new(self.own().channel().await?))
    }

    /// Where the bridge's own services are.
    fn own(&self) -> Place {
        Place::tcp("the bridge", self.address).with_authority(bridge_name())
    }

    /// What the bridge says of a guest.
    ///
    /// # Errors
    /// It has no such guest.
    pub async fn guest(&self, name: &str) -> Result<GuestMessage> {
        let answer = self
            .control()
            .await?
            .get_guest(GetGuestRequest {
                name: name.to_owned(),
            })
            .await?;
        answer.into_inner().guest.context("the answer has no guest")
    }

    /// Waits until a session with the guest is open.
    ///
    /// # Errors
    /// That takes longer than [`PATIENCE`].
    pub async fn ready(&self, name: &str) -> Result<()> {
        self.reaches(name, GuestState::Ready).await
    }

    /// Waits until the guest is in a state.
    ///
    /// # Errors
    /// That takes longer than [`PATIENCE`].
    pub async fn reaches(&self, name: &str, state: GuestState) -> Result<()> {
        let mut control = self.control().await?;
        let names = vec![name.to_owned()];
        let mut changes = control
            .watch_guests(WatchGuestsRequest { names })
            .await?
            .into_inner();
        let mut last = String::new();
        let reached = async {
            while let Some(change) = changes.message().await? {
                if let Some(guest) = change.guest.filter(|guest| guest.name == name) {
                    if guest.state() == state {
                        return Ok(());
                    }
                    last = format!("{:?}: {}", guest.state(), guest.reason);
                }
            }
            bail!("the bridge ended its stream of changes")
        };
        match timeout(PATIENCE, reached).await {
            Ok(reached) => reached,
            Err(_) => {
                bail!(
                    "{name} is not {state:?} within {PATIENCE:?} but {last}\n{}",
                    self.process.log()
                )
            }
        }
    }
}

/// The name by which the bridge itself is called.
fn bridge_name() -> &'static str {
    "bridge"
}

impl Serve {
    async fn run(&self, listen: &str) -> Result<(Process, SocketAddr)> {
        let program = programs::host().await?.bridge.clone().into_os_string();
        let mut words = self.way.iter().chain([&program]);
        let mut command = Command::new(words.next().unwrap_or(&program));
        command.args(words).args(["serve", "--listen", listen]);
        command.args(&self.arguments);
        let mut process = Process::spawn(command)?;
        let address = process.line("where it listens", listening).await?;
        Ok((process, address))
    }
}

/// `vbridge: listening on 127.0.0.1:7411`.
fn listening(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listening on ")?;
    rest.split_whitespace()
        .next()?
        .trim_start_matches("http://")
        .parse()
        .ok()
}

/// An agent on a Unix socket, which plays QEMU's part: no virtual machine.
#[derive(Debug)]
pub struct LocalAgent {
    process: Process,
    program: PathBuf,
    channel: PathBuf,
    arguments: Vec<String>,
    _directory: TempDir,
}

impl LocalAgent {
    /// Starts one.
    ///
    /// # Errors
    /// It does not listen.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// Starts one with further arguments.
    ///
    /// # Errors
    /// It does not listen.
    pub async fn start_with(arguments: &[&str]) -> Result<Self> {
        Self::run(&programs::host().await?.agent, arguments).await
    }

    /// Starts the agent that is shipped, without the tests' services, with further arguments.
    ///
    /// # Errors
    /// It does not listen.
    pub async fn shipped(arguments: &[&str]) -> Result<Self> {
        Self::run(programs::agent().await?, arguments).await
    }

    /// Starts the tests' service on the socket as any gRPC server, without agent and link.
    ///
    /// # Errors
    /// It does not listen.
    pub async fn direct() -> Result<Self> {
        Self::at("--direct", &programs::host().await?.agent, &[]).await
    }

    async fn run(program: &Path, arguments: &[&str]) -> Result<Self> {
        Self::at("--listen", program, arguments).await
    }

    async fn at(flag: &str, program: &Path, arguments: &[&str]) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("vb").tempdir()?;
        let channel = directory.path().join("agent");
        let mut all = vec![flag.to_owned(), format!("unix:{}", channel.display())];
        all.extend(arguments.iter().map(ToString::to_string));
        let process = listen(program, &all, &channel).await?;
        Ok(Self {
            process,
            program: program.to_owned(),
            channel,
            arguments: all,
            _directory: directory,
        })
    }

    /// Ends it as a crash would.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn kill9(&mut self) -> Result<()> {
        self.process.kill9().await
    }

    /// Starts it again on the same socket.
    ///
    /// # Errors
    /// It does not listen.
    pub async fn start_again(&mut self) -> Result<()> {
        self.process = listen(&self.program, &self.arguments, &self.channel).await?;
        Ok(())
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The socket.
    pub fn channel(&self) -> &Path {
        &self.channel
    }

    /// This agent as a bridge's guest.
    pub fn seat(&self, name: &str) -> Seat {
        Seat::new(name, &self.channel)
    }
}

async fn listen(program: &Path, arguments: &[String], channel: &Path) -> Result<Process> {
    let mut process = Process::start(program, arguments)?;
    let started = Instant::now();
    // Connecting would take the one place that the socket has; the kernel's table tells as much.
    while !is_listening(channel) {
        if !process.is_running() {
            bail!("the agent ended\n{}", process.log());
        }
        if started.elapsed() > PATIENCE {
            bail!(
                "the agent does not listen within {PATIENCE:?}\n{}",
                process.log()
            );
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(process)
}

/// Whether a socket that accepts connections (`SO_ACCEPTCON`, the flag 10000) is bound to the path.
fn is_listening(path: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let path = path.display().to_string();
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(3);
        fields.next() == Some("00010000") && line.ends_with(&path)
    })
}

/// Memory of a guest with systemd, in MiB: it takes 50 itself, and what tests want must not be scarce.
const SYSTEM_MEMORY: u32 = 512;

/// What a shell in the guest makes of it is the agent's process id.
#[derive(Debug, Clone, Copy)]
enum AgentPid {
    /// `/init` has written it down.
    Init,
    /// systemd tells it.
    Systemd,
}

/// A guest in QEMU, with an agent on its port: the test agent, or the real one where systemd starts it.
#[derive(Debug)]
pub struct Guest {
    vm: Vm,
    agent_pid: AgentPid,
    /// One guest at a time on this machine: two would only slow each other down.
    _turn: File,
}

impl Guest {
    /// Boots a guest, as soon as no other test program has one.
    ///
    /// # Errors
    /// It can't be built or booted.
    pub async fn boot(cpus: u32) -> Result<Self> {
        Self::boot_as(programs::image().await?, |vm| vm.cpus(cpus)).await
    }

    /// Boots a guest with another image, or with other hardware, as soon as no other test program has one.
    ///
    /// # Errors
    /// It can't be booted.
    pub async fn boot_as(
        image: &Image,
        configure: impl FnOnce(VmBuilder) -> VmBuilder,
    ) -> Result<Self> {
        let turn = turn().await?;
        let builder = Vm::builder().image(image).agent(GUEST_AGENT);
        Ok(Self {
            vm: configure(builder).boot().await?,
            agent_pid: AgentPid::Init,
            _turn: turn,
        })
    }

    /// Boots Debian with systemd, the agent and the QEMU guest agent in it as users install them.
    ///
    /// # Errors
    /// As [`Guest::boot`].
    pub async fn boot_system(cpus: u32) -> Result<Self> {
        let image = programs::system_image().await?;
        let turn = turn().await?;
        let builder = Vm::builder().cpus(cpus).memory_mib(SYSTEM_MEMORY);
        Ok(Self {
            vm: builder.image(image).boot().await?,
            agent_pid: AgentPid::Systemd,
            _turn: turn,
        })
    }

    /// The guest with one CPU that all tests of a program share. It ends with the program.
    ///
    /// # Errors
    /// As [`Guest::boot`].
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<Guest> = OnceCell::const_new();
        SHARED.get_or_try_init(|| Self::boot(1)).await
    }

    /// The virtual machine.
    pub fn vm(&self) -> &Vm {
        &self.vm
    }

    /// This guest as a bridge's guest.
    pub fn seat(&self, name: &str) -> Seat {
        Seat::new(name, self.vm.channel())
    }

    /// The channel's socket, connected as a stranger would. QEMU takes one client at a time.
    ///
    /// # Errors
    /// QEMU has ended.
    pub async fn intrude(&self) -> Result<UnixStream> {
        Ok(UnixStream::connect(self.vm.channel()).await?)
    }

    /// Runs a shell line in the guest, which must succeed.
    ///
    /// # Errors
    /// It does not.
    pub async fn exec(&self, line: &str) -> Result<String> {
        let output = self.vm.exec_ok(line, COMMAND_LIMIT).await;
        output.with_context(|| format!("the guest's console:\n{}", self.vm.console_tail()))
    }

    /// Kills the agent as a crash would, or sees that it is dead already. The guest starts it again.
    ///
    /// # Errors
    /// The guest does not answer.
    pub async fn kill_agent(&self) -> Result<()> {
        let pid = self.agent_pid.words();
        self.exec(&format!("kill -9 {pid} 2>/dev/null || true"))
            .await?;
        Ok(())
    }

    /// The agent's process id.
    ///
    /// # Errors
    /// The guest does not answer.
    pub async fn agent_pid(&self) -> Result<u32> {
        let pid = self.agent_pid.words();
        Ok(self.exec(&format!("echo {pid}")).await?.trim().parse()?)
    }

    /// The agent's open descriptors.
    ///
    /// # Errors
    /// The guest does not answer.
    pub async fn agent_fds(&self) -> Result<usize> {
        Ok(self
            .exec(&format!("ls /proc/{}/fd | wc -l", self.agent_pid.words()))
            .await?
            .trim()
            .parse()?)
    }

    /// Memory that the agent holds resident, in bytes.
    ///
    /// # Errors
    /// The guest does not answer.
    pub async fn agent_resident_bytes(&self) -> Result<u64> {
        self.agent_status_bytes("VmRSS").await
    }

    /// The most memory that the agent has held resident since [`Self::forget_agent_peak`], in bytes.
    ///
    /// # Errors
    /// The guest does not answer.
    pub async fn agent_peak_bytes(&self) -> Result<u64> {
        self.agent_status_bytes("VmHWM").await
    }

    /// Lets the agent's peak begin anew with what it holds now (proc_pid_clear_refs(5)).
    ///
    /// # Errors
    /// The guest does not answer.
    pub async fn forget_agent_peak(&self) -> Result<()> {
        self.exec(&format!(
            "echo 5 >/proc/{}/clear_refs",
            self.agent_pid.words()
        ))
        .await?;
        Ok(())
    }

    async fn agent_status_bytes(&self, field: &str) -> Result<u64> {
        let line = self
            .exec(&format!(
                "grep {field} /proc/{}/status",
                self.agent_pid.words()
            ))
            .await?;
        let kib = line.split_whitespace().nth(1);
        let kib: u64 = kib
            .with_context(|| format!("there is no {field}"))?
            .parse()?;
        Ok(kib * 1024)
    }

    /// Restarts the guest and waits until it is up again.
    ///
    /// # Errors
    /// It is not.
    pub async fn reboot(&self) -> Result<()> {
        self.vm.reboot().await?;
        self.vm.wait_boot().await
    }

    /// Stops the guest's CPUs.
    ///
    /// # Errors
    /// QEMU refuses.
    pub async fn pause(&self) -> Result<()> {
        self.vm.pause().await
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// QEMU refuses.
    pub async fn resume(&self) -> Result<()> {
        self.vm.resume().await
    }
}

impl AgentPid {
    fn words(self) -> &'static str {
        match self {
            Self::Init => "$(cat /run/agent.pid)",
            Self::Systemd => "$(systemctl show --value --property MainPID vbridge-agent)",
        }
    }
}

/// Waits for the machine's one place for a guest.
async fn turn() -> Result<File> {
    let path = xtask::workspace::target_dir().join("guest-test.lock");
    let locked = tokio::task::spawn_blocking(move || {
        let file =
            File::create(&path).with_context(|| format!("can't create {}", path.display()))?;
        file.lock()
            .with_context(|| format!("can't lock {}", path.display()))?;
        anyhow::Ok(file)
    });
    locked.await?
}
