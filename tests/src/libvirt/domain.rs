//! Real QEMU domains: their XML, and how to see that their guest is up.
//!
//! The guest is the one of all our tests: Debian's cloud kernel, busybox, the test agent. Any client may define and
//! start it; what is here knows nothing but the XML.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use sha2::Digest as _;
use tokio::sync::OnceCell;
use xtask::{
    build::{self, RAW, TEST_AGENT},
    image::Image,
    qemu::{AGENT_PORT, PROGRAM, RAW_PORT},
};

use super::{client::virsh, daemon::Libvirtd, limits::BOOT};
use crate::fixture::eventually;

/// A port whose peer in the guest takes [`DomainBuilder::bytes`] bytes and answers with their count: eight octets,
/// least significant first.
pub const SINK_PORT: &str = "org.vbridge.sink.0";

/// A port whose peer in the guest sends [`DomainBuilder::bytes`] bytes.
pub const SOURCE_PORT: &str = "org.vbridge.source.0";

/// What the guest's first process prints when everything has been started.
const UP: &str = "vbridge-guest: up";

/// The agent's place in the guest.
const GUEST_PROGRAM: &str = "/bin/vbridge-libvirt-guest";

/// As for the guests that we start ourselves: a panic shows as a boot that does not end.
const KERNEL_ARGUMENTS: &str =
    "console=ttyS0 loglevel=4 printk.devkmsg=on panic=-1 tsc=reliable vbridge.agent=";

/// Settings of a [`Domain`].
#[derive(Debug, Clone)]
pub struct DomainBuilder {
    name: String,
    memory_mib: u32,
    cpus: u32,
    bytes: u64,
    agent_port: String,
    elements: Vec<String>,
    devices: Vec<String>,
}

/// A domain that may be defined.
#[derive(Debug, Clone)]
pub struct Domain {
    name: String,
    uuid: String,
    xml: String,
}

// === impl DomainBuilder ===

impl DomainBuilder {
    /// The guest's memory. Default: 192 MiB.
    #[must_use]
    pub fn memory_mib(mut self, mebibytes: u32) -> Self {
        self.memory_mib = mebibytes;
        self
    }

    /// Virtual CPUs. Default: 1.
    #[must_use]
    pub fn cpus(mut self, count: u32) -> Self {
        self.cpus = count;
        self
    }

    /// What the peers of [`SINK_PORT`] and [`SOURCE_PORT`] take and send at once. Default: 64 MiB.
    #[must_use]
    pub fn bytes(mut self, count: u64) -> Self {
        self.bytes = count;
        self
    }

    /// The name of the channel that is the agent's elsewhere.
    #[must_use]
    pub fn agent_port(mut self, name: &str) -> Self {
        name.clone_into(&mut self.agent_port);
        self
    }

    /// A qcow2 image, as the daemon finds it, as the disk `vda`.
    #[must_use]
    pub fn disk(self, path: &Path) -> Self {
        let path = escaped(&path.display().to_string());
        self.device(format!(
            "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{path}'/>\
             <target dev='vda' bus='virtio'/></disk>"
        ))
    }

    /// A network card on one of libvirt's networks. Its device beside the daemon is `tap0`, so one domain of a daemon
    /// may have it.
    #[must_use]
    pub fn network(self, name: &str, filter: Option<&str>) -> Self {
        let filter =
            filter.map_or_else(String::new, |name| format!("<filterref filter='{name}'/>"));
        self.device(format!(
            "<interface type='network'><source network='{name}'/><target dev='tap0'/>\
             <model type='virtio'/>{filter}</interface>"
        ))
    }

    /// An element below `<devices>`. May be given more than once.
    #[must_use]
    pub fn device(mut self, xml: impl Into<String>) -> Self {
        self.devices.push(xml.into());
        self
    }

    /// An element below `<domain>`. May be given more than once.
    #[must_use]
    pub fn element(mut self, xml: impl Into<String>) -> Self {
        self.elements.push(xml.into());
        self
    }

    /// Builds the guest's image if need be, and writes the XML.
    ///
    /// # Errors
    /// The image can't be built.
    pub async fn build(self) -> Result<Domain> {
        let image = image().await?;
        let emulator = xtask::command::find_program(PROGRAM)
            .context("QEMU is missing: run `cargo xtask test`, which installs it")?;
        let uuid = uuid(&self.name);
        let xml = self.xml(&uuid, image.kernel(), image.initramfs(), &emulator);
        Ok(Domain {
            name: self.name,
            uuid,
            xml,
        })
    }

    fn xml(&self, uuid: &str, kernel: &Path, initramfs: &Path, emulator: &Path) -> String {
        let file = |path: &Path| escaped(&path.display().to_string());
        let (name, bytes) = (escaped(&self.name), self.bytes);
        // The agent has a controller of its own, as the README advises.
        let channels = [
            (self.agent_port.as_str(), 0, 1),
            (RAW_PORT, 1, 1),
            (SINK_PORT, 1, 2),
            (SOURCE_PORT, 1, 3),
        ];
        let mut devices = String::new();
        for (port, controller, number) in channels {
            let _ = write!(
                devices,
                "<channel type='unix'><target type='virtio' name='{port}'/>\
                 <address type='virtio-serial' controller='{controller}' bus='0' port='{number}'/></channel>"
            );
        }
        devices.extend(self.devices.iter().map(String::as_str));
        let elements = self.elements.concat();
        format!(
            "<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{memory}</memory>
  <vcpu>{cpus}</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initramfs}</initrd>
    <cmdline>{KERNEL_ARGUMENTS}{GUEST_PROGRAM} vbridge.bytes={bytes}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='maximum'/>
  <on_reboot>restart</on_reboot>
  {elements}
  <devices>
    <emulator>{emulator}</emulator>
    <controller type='virtio-serial' index='0' ports='2'/>
    <controller type='virtio-serial' index='1' ports='4'/>
    <serial type='pty'><log file='{console}' append='on'/><target port='0'/></serial>
    <serial type='null'><target port='1'/></serial>
    <console type='pty'><target type='serial' port='0'/></console>
    {devices}
    <memballoon model='virtio'/>
  </devices>
</domain>
",
            memory = self.memory_mib,
            cpus = self.cpus,
            kernel = file(kernel),
            initramfs = file(initramfs),
            emulator = file(emulator),
            console = escaped(&console(&self.name)),
        )
    }
}

// === impl Domain ===

impl Domain {
    /// A domain with the test guest, a console and the channels of our tests.
    pub fn builder(name: &str) -> DomainBuilder {
        DomainBuilder {
            name: name.to_owned(),
            memory_mib: 192,
            cpus: 1,
            bytes: 64 * 1024 * 1024,
            agent_port: AGENT_PORT.to_owned(),
            elements: Vec::new(),
            devices: Vec::new(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its UUID, which follows from its name.
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// What libvirt takes to define or create it.
    pub fn xml(&self) -> &str {
        &self.xml
    }

    /// Defines it with virsh.
    ///
    /// # Errors
    /// virsh fails.
    pub async fn define(&self, daemon: &Libvirtd) -> Result<()> {
        self.give("define", daemon).await
    }

    /// Creates it with virsh: it runs, and is gone when it ends.
    ///
    /// # Errors
    /// virsh fails.
    pub async fn create(&self, daemon: &Libvirtd) -> Result<()> {
        self.give("create", daemon).await
    }

    async fn give(&self, command: &str, daemon: &Libvirtd) -> Result<()> {
        let path = daemon.folder().join(format!("domain-{}.xml", self.name));
        std::fs::write(&path, &self.xml)?;
        daemon
            .virsh(&[command, &path.display().to_string()])
            .await?;
        Ok(())
    }

    /// How often the guest has come up on this daemon.
    pub fn boots(&self, daemon: &Libvirtd) -> usize {
        self.console(daemon).matches(UP).count()
    }

    /// Everything that the guest has written to its console on this daemon, over all its starts.
    pub fn console(&self, daemon: &Libvirtd) -> String {
        let text = std::fs::read(daemon.path(console(&self.name))).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Waits until the guest has come up so many times.
    ///
    /// # Errors
    /// It has not within [`BOOT`]; the error has its console.
    pub async fn up(&self, daemon: &Libvirtd, boots: usize) -> Result<()> {
        let up = async || Ok(self.boots(daemon) >= boots);
        eventually("the guest's boot", BOOT, up)
            .await
            .with_context(|| format!("the console:\n{}", self.console(daemon)))
    }

    /// The socket of a channel of the running domain, as the host finds it.
    ///
    /// # Errors
    /// The domain does not run, or has no such channel.
    pub async fn channel(&self, daemon: &Libvirtd, port: &str) -> Result<PathBuf> {
        let xml = virsh(&daemon.uri("qemu"), &["dumpxml", &self.name])
            .await?
            .ok()?;
        let channels = xml.split("<channel ").skip(1);
        let channel = channels
            .filter_map(|rest| rest.split("</channel>").next())
            .find(|channel| channel.contains(&format!("name='{port}'")))
            .with_context(|| format!("{} has no channel {port}", self.name))?;
        let (_, path) = channel
            .split_once("path='")
            .context("the channel has no path")?;
        let (path, _) = path.split_once('\'').context("the path has no end")?;
        ensure!(path.starts_with('/'), "{path} is no path");
        Ok(daemon.path(path))
    }
}

/// The guest's console, as the daemon finds it.
fn console(name: &str) -> String {
    format!("/var/log/libvirt/console-{name}.log")
}

/// The image of all domains.
async fn image() -> Result<&'static Image> {
    static IMAGE: OnceCell<Image> = OnceCell::const_new();
    IMAGE
        .get_or_try_init(|| async {
            tokio::task::spawn_blocking(|| {
                let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/libvirt/guest.sh");
                let mut image = Image::builder().binary(GUEST_PROGRAM, script);
                for (binary, path) in build::guest_for_tests(&[TEST_AGENT, RAW])? {
                    image = image.binary(format!("/bin/{}", binary.name), path);
                }
                image.build()
            })
            .await?
        })
        .await
}

/// A UUID that follows from a name: version 8, which leaves the other bits to us (RFC 9562).
fn uuid(name: &str) -> String {
    let digest = sha2::Sha256::digest(name.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}

/// Text for an attribute or between tags.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('\'', "&apos;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_always_has_the_same_uuid_and_another_name_another() {
        assert_eq!(uuid("guest"), uuid("guest"));
        assert_ne!(uuid("guest"), uuid("other"));
        let lengths: Vec<usize> = uuid("guest").split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
    }

    #[test]
    fn a_path_with_an_apostrophe_stays_one_attribute() {
        assert_eq!(escaped("it's <&>"), "it&apos;s &lt;&amp;>");
    }
}
