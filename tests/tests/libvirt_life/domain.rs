//! A domain's life: from its definition to its end, with what is changed on the way.

use anyhow::{Context as _, Result, bail, ensure};
use libvirt::{
    Connect,
    domain::DomainInfo,
    events::{DomainEvent, MonitorEvent},
    raw::api::{
        ConnectGetAllDomainStatsFlags, ConnectListAllDomainsFlags, DomainDeviceModifyFlags,
        DomainMemoryStatTags, DomainMetadataType, DomainModificationImpact, DomainPausedReason,
        DomainRebootFlagValues, DomainShutdownFlagValues, DomainShutoffReason, DomainState,
        DomainStatsTypes, DomainVcpuFlags, DomainXmlFlags, ErrorNumber, VcpuState,
    },
};
use vbridge_tests::{
    fixture::story,
    libvirt::{daemon::Libvirtd, domain::Domain},
};

use crate::support::{
    DEFINE, DESTROY, Guest, QMP, Record, START, UNDEFINE, image, is, line, open, property, refused,
};

const HERE: DomainModificationImpact = DomainModificationImpact::CURRENT;

#[test]
fn a_domain_lives_from_its_definition_to_its_end() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = open(daemon).await?;
        let mut record = Record::of_domains(&connect).await?;
        let guest = Guest::define(&connect, Domain::builder("lasting")).await?;
        let domain = &guest.domain;
        record.tells(&["Defined Added"]).await?;
        is(daemon, "lasting", "shut off").await?;
        ensure!(domain.id().is_none() && !domain.is_active().await?);
        ensure!(domain.is_persistent().await? && domain.name() == "lasting");
        ensure!(domain.uuid().to_string() == guest.machine.uuid());
        ensure!(connect.domain_by_uuid(domain.uuid()).await? == *domain);

        domain.set_autostart(true).await?;
        ensure!(property(daemon, &["dominfo", "lasting"], "Autostart").await? == "enable");
        domain.set_autostart(false).await?;
        ensure!(!domain.autostart().await?);
        described(daemon, &guest, &mut record).await?;

        runs(daemon, domain, &mut record).await?;
        domain.destroy(DESTROY).await?;
        record
            .tells(&["Shutdown Host", "Stopped Destroyed"])
            .await?;
        let found = domain.state().await?;
        ensure!(found.state == DomainState::Shutoff, "{found:?}");
        ensure!(found.reason == DomainShutoffReason::Destroyed, "{found:?}");

        domain.rename("renamed").await?;
        record
            .tells(&["Undefined Renamed", "Defined Renamed"])
            .await?;
        ensure!(domain.refreshed().await?.name() == "renamed");
        is(daemon, "renamed", "shut off").await?;
        let old = connect.domain_by_name("lasting").await;
        refused(old, ErrorNumber::NoDomain)?;

        domain.undefine(UNDEFINE).await?;
        record.tells(&["Undefined Removed"]).await?;
        ensure!(line(daemon, &["list", "--all", "--name"]).await?.is_empty());
        refused(domain.state().await, ErrorNumber::NoDomain)?;
        record.ends(&connect).await?;
        connect.close().await;
        Ok(())
    }));
}

/// A domain that is started, stands still for a while, and goes on.
async fn runs(
    daemon: &Libvirtd,
    domain: &libvirt::Domain,
    record: &mut Record<DomainEvent>,
) -> Result<()> {
    let connect = domain.connect();
    domain.start(START).await?;
    record
        .tells(&["Resumed Unpaused", "Started Booted"])
        .await?;
    is(daemon, domain.name(), "running").await?;
    let running = domain.refreshed().await?;
    let id = running.id().context("it runs, and has no number")?;
    ensure!(line(daemon, &["domid", domain.name()]).await? == id.to_string());
    ensure!(connect.domain_by_id(id).await? == running);
    let again = domain.start(START).await;
    refused(again, ErrorNumber::OperationInvalid)?;

    domain.suspend().await?;
    record.tells(&["Suspended Paused"]).await?;
    let found = domain.state().await?;
    ensure!(found.state == DomainState::Paused, "{found:?}");
    ensure!(found.reason == DomainPausedReason::User, "{found:?}");
    is(daemon, domain.name(), "paused").await?;
    let paused = connect.domains(ConnectListAllDomainsFlags::PAUSED).await?;
    ensure!(paused == [running], "{paused:?}");
    domain.resume().await?;
    record.tells(&["Resumed Unpaused"]).await?;
    is(daemon, domain.name(), "running").await
}

/// Title and metadata of a domain that is shut off, and a definition that is changed.
async fn described(
    daemon: &Libvirtd,
    guest: &Guest,
    record: &mut Record<DomainEvent>,
) -> Result<()> {
    const NAMESPACE: &str = "http://vbridge.org/test/1";

    let domain = &guest.domain;
    let title = DomainMetadataType::Title;
    domain
        .set_metadata(title, Some("Of <all> kinds"), None, None, HERE)
        .await?;
    ensure!(line(daemon, &["desc", domain.name(), "--title"]).await? == "Of <all> kinds");
    let note = DomainMetadataType::Element;
    domain
        .set_metadata(
            note,
            Some("<note>kept</note>"),
            Some("t"),
            Some(NAMESPACE),
            HERE,
        )
        .await?;
    let found = domain.metadata(note, Some(NAMESPACE), HERE).await?;
    ensure!(found == "<note>kept</note>", "{found}");
    let shown = line(daemon, &["metadata", domain.name(), NAMESPACE]).await?;
    ensure!(shown == found, "{shown}");
    domain
        .set_metadata(note, None, None, Some(NAMESPACE), HERE)
        .await?;
    let gone = domain.metadata(note, Some(NAMESPACE), HERE).await;
    refused(gone, ErrorNumber::NoDomainMetadata)?;
    record
        .tells(&[
            "MetadataChange Title None",
            "MetadataChange Element Some(\"http://vbridge.org/test/1\")",
            "MetadataChange Element Some(\"http://vbridge.org/test/1\")",
        ])
        .await?;

    let xml = domain.xml(DomainXmlFlags::INACTIVE).await?;
    let more = xml.replace("<vcpu placement='static'>1<", "<vcpu placement='static'>2<");
    ensure!(more != xml, "{xml}");
    let changed = domain.redefine(&more, DEFINE).await?;
    ensure!(changed == *domain);
    record.tells(&["Defined Updated"]).await?;
    ensure!(property(daemon, &["dominfo", domain.name()], "CPU(s)").await? == "2");
    Ok(())
}

#[test]
fn a_running_domains_memory_and_cpus_are_counted_and_changed() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = open(daemon).await?;
        let machine = Domain::builder("counted").build().await?;
        let xml = machine.xml().replace("<vcpu>1<", "<vcpu current='1'>2<");
        let domain = connect.create_domain(&xml, START).await?;
        let info = domain.info().await?;
        let DomainInfo {
            max_memory,
            memory,
            vcpus,
            ..
        } = info;
        let whole = 192 * 1024;
        ensure!((max_memory, memory, vcpus) == (whole, whole, 1), "{info:?}");
        ensure!(
            info.state == DomainState::Running && info.cpu_time > 0,
            "{info:?}"
        );
        let stats = domain.memory_stats().await?;
        let of = |tag| {
            stats
                .iter()
                .find(|stat| stat.tag == tag)
                .map(|stat| stat.value)
        };
        ensure!(
            of(DomainMemoryStatTags::ActualBalloon) == Some(memory),
            "{stats:?}"
        );
        ensure!(of(DomainMemoryStatTags::Rss) > Some(0), "{stats:?}");

        domain.set_vcpu_count(2, DomainVcpuFlags::LIVE).await?;
        let count = ["vcpucount", "counted", "--live", "--active"];
        ensure!(line(daemon, &count).await? == "2");
        ensure!(domain.vcpu_count(DomainVcpuFlags::LIVE).await? == 2);
        let vcpus = domain.vcpus().await?;
        let hosts = connect.cpu_map().await?.online.len();
        ensure!(
            vcpus
                .iter()
                .all(|vcpu| vcpu.cpus.len() == hosts.div_ceil(8)),
            "{vcpus:?}"
        );
        let run = vcpus
            .iter()
            .map(|vcpu| (vcpu.number, vcpu.state == VcpuState::Running));
        ensure!(run.eq([(0, true), (1, true)]), "{vcpus:?}");
        let live = DomainModificationImpact::LIVE;
        domain.pin_vcpu(1, &[1], live).await?;
        let pins = domain.vcpu_pins(live).await?;
        let most = domain
            .vcpu_count(DomainVcpuFlags::LIVE | DomainVcpuFlags::MAXIMUM)
            .await?;
        ensure!(i32::try_from(pins.len())? == most, "{pins:?}");
        ensure!(pins[1][0] == 1 && pins[0] == vcpus[0].cpus, "{pins:?}");
        domain.pin_emulator(&[1], live).await?;
        ensure!(domain.emulator_pin(live).await?[0] == 1);

        let what = DomainStatsTypes::STATE | DomainStatsTypes::VCPU;
        let flags = ConnectGetAllDomainStatsFlags::empty();
        let all = connect.all_domain_stats(&[&domain], what, flags).await?;
        let [stats] = &all[..] else { bail!("{all:?}") };
        let number = |name| stats.values.number(name);
        ensure!(stats.domain.name() == "counted" && number("state.state") == Some(1));
        ensure!(number("vcpu.current") == Some(2), "{stats:?}");
        let query = r#"{"execute":"query-status"}"#;
        let status = domain.qemu_monitor_command(query, QMP).await?;
        ensure!(status.contains(r#""status":"running""#), "{status}");
        Ok(())
    }));
}

#[test]
fn a_running_domains_disks_are_resized_added_and_removed() {
    story(Libvirtd::builder().run(async |daemon| {
        const LIVE: DomainDeviceModifyFlags = DomainDeviceModifyFlags::LIVE;

        let connect = open(daemon).await?;
        let mut record = Record::of_domains(&connect).await?;
        let disk = image(daemon, "disk").await?;
        let stick = image(daemon, "stick").await?;
        let machine = Domain::builder("changed")
            .disk(disk.as_ref())
            .build()
            .await?;
        let domain = connect.create_domain(machine.xml(), START).await?;
        record
            .tells(&["Resumed Unpaused", "Started Booted"])
            .await?;
        ensure!(!domain.is_persistent().await?);
        let info = domain.block_info("vda").await?;
        ensure!(info.capacity == 64 << 20, "{info:?}");
        let shown = property(daemon, &["domblkinfo", "changed", "vda"], "Physical").await?;
        ensure!(info.physical.to_string() == shown, "{info:?}, but {shown}");
        domain.block_resize("vda", 96 << 20).await?;
        ensure!(domain.block_info("vda").await?.capacity == 96 << 20);
        refused(domain.block_info("vdz").await, ErrorNumber::InvalidArg)?;
        let counted = domain.block_stats("vda").await?;
        ensure!(counted.written_bytes == Some(0), "{counted:?}");

        let usb = format!(
            "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>\
             <source file='{stick}'/><target dev='sda' bus='usb'/></disk>"
        );
        domain.attach_device(&usb, LIVE).await?;
        record.tells(&["DeviceAdded usb-disk0"]).await?;
        let disks = daemon.virsh(&["domblklist", "changed"]).await?;
        ensure!(disks.contains(&stick), "{disks}");
        domain.detach_device(&usb, LIVE).await?;
        record.tells(&["DeviceRemoved usb-disk0"]).await?;
        let disks = daemon.virsh(&["domblklist", "changed"]).await?;
        ensure!(!disks.contains(&stick), "{disks}");

        domain.destroy(DESTROY).await?;
        record
            .tells(&["Shutdown Host", "Stopped Destroyed"])
            .await?;
        // Nobody had defined it.
        refused(domain.refreshed().await, ErrorNumber::NoDomain)?;
        record.ends(&connect).await
    }));
}

/// The busybox guest hears no power button, so QEMU's monitor shows that it was pressed, and the guest's own shell does
/// what another guest would do then.
#[test]
fn a_domain_that_is_asked_to_reboot_or_to_shut_down_does_so_when_its_guest_powers_off() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = open(daemon).await?;
        let mut record = Record::of_domains(&connect).await?;
        let guest = Guest::define(&connect, Domain::builder("asked")).await?;
        let domain = &guest.domain;
        let mut buttons = monitor(&connect, &guest, "POWERDOWN").await?;
        record.tells(&["Defined Added"]).await?;
        guest.boot(daemon, &mut record).await?;

        without_an_agent(domain).await?;
        let mut shell = guest.shell().await?;
        shell.send("reboot -f").await?;
        guest.machine.up(daemon, 2).await?;
        record.tells(&["Reboot"]).await?;
        pause(domain, &mut record).await?;

        domain
            .reboot(DomainRebootFlagValues::ACPI_POWER_BTN)
            .await?;
        buttons.tells(&["POWERDOWN of asked: None"]).await?;
        is(daemon, "asked", "running").await?;
        shell.send("poweroff -f").await?;
        guest.machine.up(daemon, 3).await?;
        record.tells(&["Reboot"]).await?;
        pause(domain, &mut record).await?;

        domain.reset().await?;
        guest.machine.up(daemon, 4).await?;
        record.tells(&["Reboot"]).await?;
        pause(domain, &mut record).await?;

        domain
            .shutdown(DomainShutdownFlagValues::ACPI_POWER_BTN)
            .await?;
        buttons.tells(&["POWERDOWN of asked: None"]).await?;
        shell.send("poweroff -f").await?;
        record
            .tells(&["Shutdown Guest", "Stopped Shutdown"])
            .await?;
        is(daemon, "asked", "shut off").await?;

        domain.undefine(UNDEFINE).await?;
        record.tells(&["Undefined Removed"]).await?;
        record.ends(&connect).await?;
        // The monitor's events come in the same order.
        buttons.is_silent()
    }));
}

/// Tells the restart before from the one that follows.
async fn pause(domain: &libvirt::Domain, record: &mut Record<DomainEvent>) -> Result<()> {
    domain.suspend().await?;
    domain.resume().await?;
    record
        .tells(&["Suspended Paused", "Resumed Unpaused"])
        .await
}

/// Other ways to ask than the power button.
async fn without_an_agent(domain: &libvirt::Domain) -> Result<()> {
    let agent = domain.shutdown(DomainShutdownFlagValues::GUEST_AGENT).await;
    let said = refused(agent, ErrorNumber::ArgumentUnsupported)?;
    ensure!(said.contains("agent"), "{said}");
    let agent = domain.reboot(DomainRebootFlagValues::GUEST_AGENT).await;
    refused(agent, ErrorNumber::ArgumentUnsupported)?;
    let ping = r#"{"execute":"guest-ping"}"#;
    let agent = domain.qemu_agent_command(ping, -1).await;
    refused(agent, ErrorNumber::ArgumentUnsupported)?;
    let signal = domain.reboot(DomainRebootFlagValues::SIGNAL).await;
    refused(signal, ErrorNumber::InvalidArg)?;
    Ok(())
}

async fn monitor(connect: &Connect, guest: &Guest, event: &str) -> Result<Record<MonitorEvent>> {
    let events = connect
        .monitor_events(Some(&guest.domain), Some(event), None)
        .await?;
    Ok(Record::new(events, |event| {
        format!(
            "{} of {}: {:?}",
            event.event,
            event.domain.name(),
            event.details
        )
    }))
}
