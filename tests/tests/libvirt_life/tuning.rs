//! Domains of the test driver, whose limits and ties are set: what was set is told by the getter and by virsh.

use std::time::Duration;

use anyhow::{Result, ensure};
use libvirt::{
    Connect, Domain, Params, Value,
    raw::api::{
        DomainCheckpointCreateFlags, DomainCheckpointDeleteFlags, DomainCheckpointListFlags,
        DomainCoreDumpFlags, DomainCoreDumpFormat, DomainLifecycle, DomainLifecycleAction,
        DomainMemoryModFlags, DomainModificationImpact, DomainSaveImageXmlFlags,
        DomainSaveRestoreFlags, DomainSetTimeFlags, DomainSetUserPasswordFlags, DomainState,
        ErrorNumber, NetworkCreateFlags, NetworkDefineFlags,
    },
};
use vbridge_tests::{
    fixture::story,
    libvirt::{client::virsh, daemon::Libvirtd, limits::CLIENT},
};

use crate::support::{DESTROY, refused};

const LIVE: DomainModificationImpact = DomainModificationImpact::LIVE;
const CONFIG: DomainModificationImpact = DomainModificationImpact::CONFIG;

/// A connection to the test driver, and its domain that always runs: two CPUs, a disk `vda`, a card `testnet0`.
async fn ready(daemon: &Libvirtd) -> Result<(Connect, Domain)> {
    let builder = Connect::builder(&daemon.uri("test")).deadline(CLIENT);
    let connect = builder.open().await?;
    let domain = connect.domain_by_name("test").await?;
    Ok((connect, domain))
}

/// That virsh, given these words, says this.
async fn says(daemon: &Libvirtd, words: &str, expected: &str) -> Result<()> {
    let words: Vec<&str> = words.split(' ').collect();
    let said = virsh(&daemon.uri("test"), &words).await?.ok()?;
    ensure!(said.contains(expected), "no {expected} in {said}");
    Ok(())
}

#[test]
fn a_domains_memory_and_cpus_are_as_they_were_set() {
    story(Libvirtd::builder().run(async |daemon| {
        let (_connect, domain) = ready(daemon).await?;
        domain
            .set_memory(1 << 20, DomainMemoryModFlags::LIVE)
            .await?;
        ensure!(domain.info().await?.memory == 1 << 20);
        says(
            daemon,
            "dumpxml test",
            "<currentMemory unit='KiB'>1048576</",
        )
        .await?;
        let maximum = DomainMemoryModFlags::MAXIMUM | DomainMemoryModFlags::CONFIG;
        domain.set_memory(4 << 20, maximum).await?;
        says(
            daemon,
            "dumpxml test --inactive",
            "<memory unit='KiB'>4194304</",
        )
        .await?;
        domain
            .set_memory_stats_period(7, DomainMemoryModFlags::LIVE)
            .await?;
        says(daemon, "dumpxml test", "<stats period='7'/>").await?;

        let here = DomainModificationImpact::CURRENT;
        domain.pin_vcpu(1, &[0b11], here).await?;
        says(daemon, "dumpxml test", "<vcpupin vcpu='1' cpuset='0-1'/>").await?;
        domain.pin_emulator(&[0b100], LIVE).await?;
        says(daemon, "dumpxml test", "<emulatorpin cpuset='2'/>").await?;

        domain.add_iothread(3, LIVE).await?;
        domain.pin_iothread(3, &[0b10], LIVE).await?;
        let threads = domain.iothreads(LIVE).await?;
        ensure!(threads.len() == 1 && threads[0].id == 3, "{threads:?}");
        ensure!(threads[0].cpus[0] == 0b10, "{threads:?}");
        says(daemon, "dumpxml test", "<iothread id='3'").await?;
        domain.delete_iothread(3, LIVE).await?;
        ensure!(domain.iothreads(LIVE).await?.is_empty());
        let missing = domain.delete_iothread(3, LIVE).await;
        refused(missing, ErrorNumber::InvalidArg)?;
        Ok(())
    }));
}

#[test]
fn a_domains_limits_are_as_they_were_set() {
    story(Libvirtd::builder().run(async |daemon| {
        let (_connect, domain) = ready(daemon).await?;
        let limits = Params::new()
            .with("hard_limit", 10_000_u64)
            .with("soft_limit", 9_000_u64);
        domain.set_memory_parameters(&limits, LIVE).await?;
        let found = domain.memory_parameters(LIVE).await?;
        ensure!(found.number("hard_limit") == Some(10_000), "{found:?}");
        says(daemon, "dumpxml test", "<soft_limit unit='KiB'>9000</").await?;

        let weight = Params::new().with("weight", 500_u32);
        domain.set_blkio_parameters(&weight, LIVE).await?;
        let found = domain.blkio_parameters(LIVE).await?;
        ensure!(found.number("weight") == Some(500), "{found:?}");
        says(daemon, "dumpxml test", "<weight>500</weight>").await?;

        let nodes = Params::new()
            .with("numa_nodeset", "0")
            .with("numa_mode", 0_i32);
        domain.set_numa_parameters(&nodes, CONFIG).await?;
        let found = domain.numa_parameters(CONFIG).await?;
        ensure!(found.text("numa_nodeset") == Some("0"), "{found:?}");
        says(daemon, "dumpxml test --inactive", "nodeset='0'").await?;

        let card = Params::new()
            .with("inbound.average", 1_000_u32)
            .with("inbound.peak", 2_000_u32);
        domain
            .set_interface_parameters("testnet0", &card, LIVE)
            .await?;
        let found = domain.interface_parameters("testnet0", LIVE).await?;
        ensure!(found.number("inbound.peak") == Some(2_000), "{found:?}");
        says(
            daemon,
            "dumpxml test",
            "<inbound average='1000' peak='2000'",
        )
        .await?;

        let disk = Params::new()
            .with("total_bytes_sec", 1_u64 << 20)
            .with("total_bytes_sec_max", 2_u64 << 20);
        domain.set_block_io_tune("vda", &disk, LIVE).await?;
        let found = domain.block_io_tune("vda", LIVE).await?;
        ensure!(
            found.number("total_bytes_sec_max") == Some(2 << 20),
            "{found:?}"
        );
        says(
            daemon,
            "dumpxml test",
            "<total_bytes_sec>1048576</total_bytes_sec>",
        )
        .await?;

        let counters = Params::new().with("cmt", true);
        domain.set_perf_events(&counters, LIVE).await?;
        let found = domain.perf_events(LIVE).await?;
        ensure!(found.get("cmt") == Some(&Value::Boolean(true)), "{found:?}");
        // This driver takes a weight and forgets it, but it looks at what it is given.
        let shares = Params::new().with("weight", 70_u32);
        domain
            .set_scheduler_parameters(&shares, DomainModificationImpact::CURRENT)
            .await?;
        let text = Params::new().with("weight", "seventy");
        let wrong = domain
            .set_scheduler_parameters(&text, DomainModificationImpact::CURRENT)
            .await;
        refused(wrong, ErrorNumber::InvalidArg)?;
        Ok(())
    }));
}

#[test]
fn what_a_guest_is_told_reaches_it() {
    story(Libvirtd::builder().run(async |daemon| {
        let (_connect, domain) = ready(daemon).await?;
        domain
            .set_lifecycle_action(
                DomainLifecycle::Crash,
                DomainLifecycleAction::Preserve,
                LIVE,
            )
            .await?;
        says(daemon, "dumpxml test", "<on_crash>preserve</").await?;
        let time = Duration::new(1_000, 7);
        domain.set_time(time, DomainSetTimeFlags::empty()).await?;
        ensure!(domain.time().await? == time, "{:?}", domain.time().await?);
        let password = DomainSetUserPasswordFlags::empty();
        domain.set_user_password("root", "secret", password).await?;

        let core = daemon.folder().join("core");
        let inside = daemon.path_inside(&core).display().to_string();
        let none = DomainCoreDumpFlags::empty();
        domain
            .core_dump(&inside, DomainCoreDumpFormat::Raw, none)
            .await?;
        ensure!(std::fs::metadata(&core)?.len() > 0);

        domain.destroy(DESTROY).await?;
        let stopped = domain.set_user_password("root", "secret", password).await;
        refused(stopped, ErrorNumber::OperationInvalid)?;
        Ok(())
    }));
}

#[test]
fn a_saved_domains_definition_is_changed_before_it_goes_on() {
    story(Libvirtd::builder().run(async |daemon| {
        let (connect, domain) = ready(daemon).await?;
        let none = DomainSaveRestoreFlags::empty();
        let file = daemon.path_inside(daemon.folder().join("saved"));
        let file = file.display().to_string();
        domain.save(&file, None, none).await?;
        let before = DomainSaveImageXmlFlags::empty();
        let xml = connect.saved_domain_xml(&file, before).await?;
        let changed = xml.replace("<on_crash>destroy<", "<on_crash>restart<");
        ensure!(changed != xml, "{xml}");
        connect
            .define_saved_domain_xml(&file, &changed, none)
            .await?;
        let now = connect.saved_domain_xml(&file, before).await?;
        ensure!(now.contains("<on_crash>restart<"), "{now}");
        connect.restore_domain(&file, None, none).await?;
        ensure!(domain.state().await?.state == DomainState::Running);
        says(daemon, "dumpxml test", "<on_crash>restart</").await
    }));
}

#[test]
fn a_checkpoint_has_a_parent_and_can_be_deleted() {
    story(Libvirtd::builder().run(async |daemon| {
        let (_connect, domain) = ready(daemon).await?;
        let create = async |name: &str| {
            let xml = format!("<domaincheckpoint><name>{name}</name></domaincheckpoint>");
            domain
                .create_checkpoint(&xml, DomainCheckpointCreateFlags::empty())
                .await
        };
        let first = create("first").await?;
        let second = create("second").await?;
        says(daemon, "checkpoint-list test --name", "second").await?;
        ensure!(second.parent().await? == first && second.name() == "second");
        let none = DomainCheckpointListFlags::empty();
        ensure!(first.children(none).await? == std::slice::from_ref(&second));
        first.delete(DomainCheckpointDeleteFlags::empty()).await?;
        ensure!(domain.checkpoints(none).await? == [second]);
        let gone = domain.checkpoint_by_name("first").await;
        refused(gone, ErrorNumber::NoDomainCheckpoint)?;
        Ok(())
    }));
}

#[test]
fn a_network_is_defined_and_created_with_flags() {
    story(Libvirtd::builder().run(async |daemon| {
        let (connect, _) = ready(daemon).await?;
        let xml =
            |name: &str| format!("<network><name>{name}</name><bridge name='{name}'/></network>");
        let flags = NetworkDefineFlags::VALIDATE;
        let kept = connect.define_network_with(&xml("kept"), flags).await?;
        ensure!(kept.is_persistent().await? && !kept.is_active().await?);
        says(daemon, "net-info kept", "kept").await?;
        let passing = connect
            .create_network_with(&xml("passing"), NetworkCreateFlags::VALIDATE)
            .await?;
        ensure!(!passing.is_persistent().await? && passing.is_active().await?);
        let wrong = "<network><name>wrong</name><nonsense/></network>";
        let told = connect.define_network_with(wrong, flags).await;
        refused(told, ErrorNumber::XmlInvalidSchema)?;
        Ok(())
    }));
}
