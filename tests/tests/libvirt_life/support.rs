//! What the stories have in common: a connection, a guest that takes commands, and the events' lines.

use std::{
    fmt::Debug,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::FutureExt as _;
use libvirt::{
    Connect, Domain, Error, Events, Notice,
    events::{DomainEvent, DomainEventId, DomainEventKind, LifecycleEvent},
    raw::api::{
        DomainConsoleFlags, DomainCreateFlags, DomainDefineFlags, DomainDestroyFlagsValues,
        DomainQemuMonitorCommandFlags, DomainUndefineFlagsValues, ErrorNumber,
    },
    rpc::{Chunk, RawStream},
};
use tokio::time::timeout;
use vbridge_tests::libvirt::{
    daemon::Libvirtd,
    domain::{self, DomainBuilder},
    limits::CLIENT,
};

/// What most calls are given: nothing special.
pub(crate) const START: DomainCreateFlags = DomainCreateFlags::empty();
pub(crate) const PAUSED: DomainCreateFlags = DomainCreateFlags::START_PAUSED;
pub(crate) const DEFINE: DomainDefineFlags = DomainDefineFlags::empty();
pub(crate) const DESTROY: DomainDestroyFlagsValues = DomainDestroyFlagsValues::empty();
pub(crate) const UNDEFINE: DomainUndefineFlagsValues = DomainUndefineFlagsValues::empty();
pub(crate) const QMP: DomainQemuMonitorCommandFlags = DomainQemuMonitorCommandFlags::DEFAULT;

/// Where images are, as the daemon finds it.
pub(crate) const IMAGES: &str = "/var/lib/libvirt/images";

/// The line of a restart.
const REBOOT: &str = "Reboot";

/// A domain that comes and goes where a story ends.
const MARK: &str = "mark";

/// For what follows events that were not expected.
const AFTERMATH: Duration = Duration::from_secs(1);

/// The second serial port as our domains have it, and as one has it whose guest takes commands there.
const NO_SHELL: &str = "<serial type='null'><target port='1'/>";
const SHELL: &str = "<serial type='pty'><target port='1'/>";

/// That port's alias.
const SHELL_ALIAS: &str = "serial1";

/// A connection to the daemon's QEMU driver on which no call waits for ever.
pub(crate) async fn open(daemon: &Libvirtd) -> Result<Connect> {
    let builder = Connect::builder(&daemon.uri("qemu")).deadline(CLIENT);
    Ok(builder.open().await?)
}

/// The daemon's refusal, if it is this one.
pub(crate) fn refused<T: Debug>(result: Result<T, Error>, kind: ErrorNumber) -> Result<String> {
    match result {
        Ok(value) => bail!("it succeeded with {value:?}, and should have been refused: {kind:?}"),
        Err(error) if error.is(kind) => Ok(error.to_string()),
        Err(error) => bail!("it failed with `{error}` ({error:?}), not with {kind:?}"),
    }
}

/// What virsh says in one line.
pub(crate) async fn line(daemon: &Libvirtd, arguments: &[&str]) -> Result<String> {
    Ok(daemon.virsh(arguments).await?.trim().to_owned())
}

/// The value of a line `NAME: VALUE`, as virsh shows an object's properties.
pub(crate) async fn property(daemon: &Libvirtd, arguments: &[&str], name: &str) -> Result<String> {
    let shown = daemon.virsh(arguments).await?;
    let mut lines = shown.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines
        .find(|(of, _)| of.trim() == name)
        .with_context(|| format!("no {name} in {shown}"))?;
    Ok(value.trim().to_owned())
}

/// That virsh shows a domain in this state.
pub(crate) async fn is(daemon: &Libvirtd, name: &str, state: &str) -> Result<()> {
    let found = line(daemon, &["domstate", name]).await?;
    ensure!(found == state, "{name} is {found}, and not {state}");
    Ok(())
}

// === A guest ===

/// A domain whose guest takes commands.
pub(crate) struct Guest {
    /// Its XML, and the harness's ways to look at it.
    pub(crate) machine: domain::Domain,
    /// What the client has of it.
    pub(crate) domain: Domain,
}

/// A guest's shell, on its second serial port.
pub(crate) struct Shell {
    stream: RawStream,
    received: Vec<u8>,
}

impl Guest {
    /// Defines it through the client.
    pub(crate) async fn define(connect: &Connect, builder: DomainBuilder) -> Result<Self> {
        let machine = builder.build().await?;
        let xml = with_shell(machine.xml())?;
        let domain = connect.define_domain(&xml, DEFINE).await?;
        Ok(Self { machine, domain })
    }

    /// Starts it, and waits until it is up.
    pub(crate) async fn boot(
        &self,
        daemon: &Libvirtd,
        record: &mut Record<DomainEvent>,
    ) -> Result<()> {
        self.domain.start(START).await?;
        record
            .tells(&["Resumed Unpaused", "Started Booted"])
            .await?;
        self.machine.up(daemon, 1).await
    }

    /// What a command writes in the guest, if it succeeds.
    pub(crate) async fn run(&self, command: &str) -> Result<String> {
        self.shell().await?.run(command).await
    }

    /// Opens its shell; a stream that had it ends.
    pub(crate) async fn shell(&self) -> Result<Shell> {
        let stream = self
            .domain
            .open_console(Some(SHELL_ALIAS), DomainConsoleFlags::FORCE)
            .await?;
        Ok(Shell {
            stream,
            received: Vec::new(),
        })
    }
}

/// The XML of a domain whose guest takes commands.
fn with_shell(xml: &str) -> Result<String> {
    ensure!(xml.contains(NO_SHELL), "no second serial port in {xml}");
    Ok(xml.replace(NO_SHELL, SHELL))
}

impl Shell {
    async fn run(&mut self, command: &str) -> Result<String> {
        let ran = timeout(CLIENT, self.exchange(command)).await;
        let ran = ran.with_context(|| format!("no answer within {CLIENT:?}"));
        ran.and_then(|answer| answer)
            .with_context(|| format!("`{command}` in the guest"))
    }

    async fn exchange(&mut self, command: &str) -> Result<String> {
        let nonce = self.send(command).await?;
        let head = format!("\n\x01vbx {nonce} ");
        loop {
            if let Some((status, output)) = answer(&self.received, &head)? {
                self.received.clear();
                ensure!(status == "0", "status {status}: {output}");
                return Ok(output);
            }
            self.receive().await?;
        }
    }

    /// Gives a command whose answer does not come, since it ends the guest. QEMU may not have read it yet: it does so
    /// only as long as the stream is open.
    pub(crate) async fn send(&mut self, command: &str) -> Result<String> {
        static COMMANDS: AtomicU32 = AtomicU32::new(0);

        // The guest takes backslashes for escapes.
        ensure!(
            !command.contains(['\\', '\n']),
            "a plain line, not {command:?}"
        );
        let nonce = format!("{:016x}", COMMANDS.fetch_add(1, Ordering::Relaxed));
        let line = format!("\nvbx {nonce} {} 65536 {command}\n", CLIENT.as_secs());
        self.stream.send(line.as_bytes()).await?;
        Ok(nonce)
    }

    async fn receive(&mut self) -> Result<()> {
        match self.stream.chunk().await? {
            Some(Chunk::Data(data)) => self.received.extend(data),
            Some(chunk) => bail!("a console has no {chunk:?}"),
            None => bail!("the console has ended"),
        }
        Ok(())
    }
}

/// Status and output behind the head of an answer, once all of it is there: `STATUS SIZE SENT`, and SENT bytes.
fn answer(received: &[u8], head: &str) -> Result<Option<(String, String)>> {
    let text = String::from_utf8_lossy(received);
    let answer = text.split_once(head).map(|(_, answer)| answer);
    let Some((numbers, output)) = answer.and_then(|answer| answer.split_once('\n')) else {
        return Ok(None);
    };
    let numbers: Vec<&str> = numbers.split(' ').collect();
    let [status, _, sent] = numbers[..] else {
        bail!("an answer begins with {numbers:?}");
    };
    let output = output.get(..sent.parse()?);
    Ok(output.map(|output| (status.to_owned(), output.to_owned())))
}

/// Makes a qcow2 image in the daemon's folder of images, and gives its path there.
pub(crate) async fn image(daemon: &Libvirtd, name: &str) -> Result<String> {
    std::fs::create_dir_all(daemon.path(IMAGES))?;
    let path = format!("{IMAGES}/{name}.qcow2");
    let create = ["create", "-q", "-f", "qcow2", &path, "64M"];
    daemon.within("qemu-img", &create).await?.ok()?;
    Ok(path)
}

// === Events ===

/// What a subscription has told, each event as a line.
pub(crate) struct Record<T> {
    events: Events<T>,
    line: fn(&T) -> String,
    last: String,
}

impl Record<DomainEvent> {
    /// All that happens to all domains, but for QEMU's passes over the memory, whose number is its own affair.
    pub(crate) async fn of_domains(connect: &Connect) -> Result<Self> {
        let mut kinds = connect.supported_domain_events().await?;
        kinds.retain(|kind| *kind != DomainEventId::MigrationIteration);
        let events = connect.domain_events(&kinds, None, None).await?;
        Ok(Self::new(events, domain_line))
    }

    /// That nothing was told but what was expected, to the story's end: a domain marks it.
    pub(crate) async fn ends(self, connect: &Connect) -> Result<()> {
        let xml = format!(
            "<domain type='qemu'><name>{MARK}</name><memory>8192</memory>\
             <os><type arch='x86_64'>hvm</type></os></domain>"
        );
        let mark = async {
            let domain = connect.define_domain(&xml, DEFINE).await?;
            Ok(domain.undefine(UNDEFINE).await?)
        };
        self.ends_with(mark, &["mark: Defined Added", "mark: Undefined Removed"])
            .await
    }
}

impl<T: Debug> Record<T> {
    pub(crate) fn new(events: Events<T>, line: fn(&T) -> String) -> Self {
        Self {
            events,
            line,
            last: String::new(),
        }
    }

    /// Waits until the daemon has told as much as is expected, and compares.
    pub(crate) async fn tells(&mut self, expected: &[&str]) -> Result<()> {
        let mut told = Vec::new();
        while told.len() < expected.len() {
            match timeout(CLIENT, self.next()).await {
                Ok(event) => told.push(event.with_context(|| format!("told were {told:#?}"))?),
                Err(_) => break,
            }
        }
        if told != expected {
            // What comes now tells whether something was missing or too much.
            while let Ok(Ok(event)) = timeout(AFTERMATH, self.next()).await {
                told.push(event);
            }
            bail!("told were {told:#?}, and not {expected:#?}");
        }
        Ok(())
    }

    /// That nothing was told but what was expected, up to what `mark` does, and nothing waits behind that.
    pub(crate) async fn ends_with(
        mut self,
        mark: impl Future<Output = Result<()>>,
        told: &[&str],
    ) -> Result<()> {
        mark.await?;
        self.tells(told).await.context("at the end")?;
        self.is_silent()
    }

    /// That nothing waits.
    pub(crate) fn is_silent(&mut self) -> Result<()> {
        match self.next().now_or_never() {
            None => Ok(()),
            Some(more) => bail!("told was {:?} as well", more?),
        }
    }

    async fn next(&mut self) -> Result<String> {
        loop {
            let line = match self.events.next().await {
                Some(Ok(Notice::Event(event))) => (self.line)(&event),
                Some(Ok(notice)) => format!("{notice:?}"),
                Some(Err(error)) => return Err(error.into()),
                None => bail!("the events have ended"),
            };
            // The firmware resets the machine a few times more until it begins anew.
            if line != REBOOT || self.last != REBOOT {
                self.last.clone_from(&line);
                return Ok(line);
            }
        }
    }
}

/// A domain's event, without the domain's name unless it is the [`MARK`].
fn domain_line(event: &DomainEvent) -> String {
    let line = kind_line(&event.kind);
    match event.domain.name() {
        MARK => format!("{MARK}: {line}"),
        _ => line,
    }
}

fn kind_line(kind: &DomainEventKind) -> String {
    match kind {
        DomainEventKind::Lifecycle { event } => lifecycle(*event),
        DomainEventKind::MetadataChange {
            metadata,
            namespace,
        } => format!("MetadataChange {metadata} {namespace:?}"),
        DomainEventKind::Graphics { phase, .. } => format!("Graphics {phase}"),
        DomainEventKind::DeviceAdded { device } => format!("DeviceAdded {device}"),
        DomainEventKind::DeviceRemoved { device } => format!("DeviceRemoved {device}"),
        DomainEventKind::JobCompleted { operation, .. } => format!("JobCompleted {operation:?}"),
        DomainEventKind::Reboot => REBOOT.to_owned(),
        kind => format!("{kind:?}"),
    }
}

fn lifecycle(event: LifecycleEvent) -> String {
    // An event or a reason without a name is none that these stories know.
    event.to_string().replace(['(', ')'], "")
}
