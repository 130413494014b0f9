//! What is done to a running domain's disks: jobs, backups, limits, thresholds, and a disc that is changed; with the
//! events that come of it.

use anyhow::{Context as _, Result, ensure};
use libvirt::{
    Connect, Params,
    events::{DomainEvent, DomainEventId, DomainEventKind},
    raw::api::{
        DomainBackupBeginFlags, DomainBlockCommitFlags, DomainBlockCopyFlags,
        DomainBlockJobAbortFlags, DomainBlockJobInfoFlags, DomainBlockJobSetSpeedFlags,
        DomainBlockJobType, DomainBlockPullFlags, DomainCheckpointListFlags,
        DomainDeviceModifyFlags, DomainModificationImpact, DomainQemuMonitorCommandFlags,
        DomainSnapshotCreateFlags,
    },
};
use vbridge_tests::{
    fixture::story,
    libvirt::{daemon::Libvirtd, domain::Domain},
};

use crate::support::{DEFINE, DESTROY, IMAGES, PAUSED, Record, image, open};

const LIVE: DomainModificationImpact = DomainModificationImpact::LIVE;

async fn record(connect: &Connect, kinds: &[DomainEventId]) -> Result<Record<DomainEvent>> {
    let events = connect.domain_events(kinds, None, None).await?;
    Ok(Record::new(events, |event| match &event.kind {
        DomainEventKind::JobCompleted { operation, .. } => format!("JobCompleted {operation:?}"),
        DomainEventKind::Tunable { params } => format!(
            "Tunable {:?} {:?}",
            params.text("blkdeviotune.disk"),
            params.number("blkdeviotune.total_bytes_sec")
        ),
        DomainEventKind::BlockJob { path, job, status } => {
            format!("BlockJob {path} {job} {status}")
        }
        DomainEventKind::BlockJob2 {
            target,
            job,
            status,
        } => format!("BlockJob2 {target} {job} {status}"),
        DomainEventKind::TrayChange { device, reason } => format!("TrayChange {device} {reason}"),
        DomainEventKind::BlockThreshold {
            device, threshold, ..
        } => format!("BlockThreshold {device} {threshold}"),
        kind => format!("{kind:?}"),
    }))
}

/// An image upon another one.
async fn overlay(daemon: &Libvirtd, name: &str, base: &str) -> Result<String> {
    let path = format!("{IMAGES}/{name}.qcow2");
    let create = [
        "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, &path,
    ];
    daemon.within("qemu-img", &create).await?.ok()?;
    Ok(path)
}

/// A domain with a disk and an empty drive, which stands still: jobs don't need its guest.
async fn still(connect: &Connect, name: &str, disk: &str) -> Result<libvirt::Domain> {
    let machine = Domain::builder(name)
        .disk(disk.as_ref())
        .device("<disk type='file' device='cdrom'><target dev='sda' bus='sata'/></disk>")
        .build()
        .await?;
    let domain = connect.define_domain(machine.xml(), DEFINE).await?;
    domain.start(PAUSED).await?;
    Ok(domain)
}

#[test]
fn jobs_on_a_disk_tell_when_they_are_ready_and_when_they_are_done() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = open(daemon).await?;
        let base = image(daemon, "base").await?;
        let top = overlay(daemon, "top", &base).await?;
        let domain = still(&connect, "worked", &top).await?;
        let kinds = [DomainEventId::BlockJob, DomainEventId::BlockJob2];
        let mut record = record(&connect, &kinds).await?;

        domain
            .block_pull("vda", 0, DomainBlockPullFlags::empty())
            .await?;
        record
            .tells(&[
                &format!("BlockJob {top} Pull Completed"),
                "BlockJob2 vda Pull Completed",
            ])
            .await?;
        let chain = daemon.within("qemu-img", &["info", "-U", &top]).await?.ok()?;
        ensure!(!chain.contains("backing file:"), "{chain}");

        let upon = format!("{IMAGES}/upon.qcow2");
        let xml = format!(
            "<domainsnapshot><disks><disk name='vda'><source file='{upon}'/></disk></disks></domainsnapshot>"
        );
        let flags = DomainSnapshotCreateFlags::DISK_ONLY | DomainSnapshotCreateFlags::NO_METADATA;
        domain.create_snapshot(&xml, flags).await?;
        domain
            .block_commit("vda", None, None, 0, DomainBlockCommitFlags::ACTIVE)
            .await?;
        record
            .tells(&[
                &format!("BlockJob {upon} ActiveCommit Ready"),
                "BlockJob2 vda ActiveCommit Ready",
            ])
            .await?;
        domain
            .abort_block_job("vda", DomainBlockJobAbortFlags::PIVOT)
            .await?;
        record
            .tells(&[
                &format!("BlockJob {top} ActiveCommit Completed"),
                "BlockJob2 vda ActiveCommit Completed",
            ])
            .await?;

        let copy = format!("{IMAGES}/copy.qcow2");
        let to = format!("<disk type='file'><source file='{copy}'/><driver type='qcow2'/></disk>");
        domain
            .block_copy("vda", &to, &Params::new(), DomainBlockCopyFlags::TRANSIENT_JOB)
            .await?;
        record
            .tells(&[
                &format!("BlockJob {top} Copy Ready"),
                "BlockJob2 vda Copy Ready",
            ])
            .await?;
        domain
            .set_block_job_speed("vda", 3, DomainBlockJobSetSpeedFlags::empty())
            .await?;
        let job = domain
            .block_job("vda", DomainBlockJobInfoFlags::empty())
            .await?;
        let job = job.context("the job has ended")?;
        ensure!(job.kind == DomainBlockJobType::Copy, "{job:?}");
        ensure!(job.bandwidth == 3, "{job:?}");
        domain
            .abort_block_job("vda", DomainBlockJobAbortFlags::empty())
            .await?;
        record
            .tells(&[
                &format!("BlockJob {top} Copy Canceled"),
                "BlockJob2 vda Copy Canceled",
            ])
            .await
    }));
}

#[test]
fn a_backup_with_a_checkpoint_tells_when_it_is_done() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = open(daemon).await?;
        let disk = image(daemon, "kept").await?;
        let domain = still(&connect, "kept", &disk).await?;
        let mut record = record(&connect, &[DomainEventId::JobCompleted]).await?;
        let target = format!("{IMAGES}/backup.qcow2");
        let xml = format!(
            "<domainbackup mode='push'><disks><disk name='vda' type='file'><target file='{target}'/>\
             <driver type='qcow2'/></disk><disk name='sda' backup='no'/></disks></domainbackup>"
        );
        let checkpoint = "<domaincheckpoint><name>since</name></domaincheckpoint>";
        domain
            .begin_backup(&xml, Some(checkpoint), DomainBackupBeginFlags::empty())
            .await?;
        record.tells(&["JobCompleted Some(Backup)"]).await?;
        ensure!(daemon.path(&target).exists());
        let found = domain
            .checkpoints(DomainCheckpointListFlags::empty())
            .await?;
        ensure!(found.len() == 1 && found[0].name() == "since", "{found:?}");
        Ok(domain.destroy(DESTROY).await?)
    }));
}

#[test]
fn a_disks_limits_and_threshold_and_a_drives_disc_are_told_of_as_they_change() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = open(daemon).await?;
        let disk = image(daemon, "limited").await?;
        let disc = image(daemon, "disc").await?;
        let domain = still(&connect, "limited", &disk).await?;
        let kinds = [
            DomainEventId::Tunable,
            DomainEventId::TrayChange,
            DomainEventId::BlockThreshold,
        ];
        let mut record = record(&connect, &kinds).await?;

        let limit = Params::new().with("total_bytes_sec", 5_u64 << 20);
        domain.set_block_io_tune("vda", &limit, LIVE).await?;
        record
            .tells(&["Tunable Some(\"vda\") Some(5242880)"])
            .await?;
        let found = domain.block_io_tune("vda", LIVE).await?;
        ensure!(found.number("total_bytes_sec") == Some(5 << 20), "{found:?}");

        let drive = format!(
            "<disk type='file' device='cdrom'><driver name='qemu' type='qcow2'/><source file='{disc}'/>\
             <target dev='sda' bus='sata'/></disk>"
        );
        domain
            .update_device(&drive, DomainDeviceModifyFlags::LIVE)
            .await?;
        record
            .tells(&["TrayChange sata0-0-0 Open", "TrayChange sata0-0-0 Close"])
            .await?;
        let disks = daemon.virsh(&["domblklist", "limited"]).await?;
        ensure!(disks.contains(&disc), "{disks}");
        domain.set_block_threshold("vda", 1 << 20).await?;
        // QEMU's own tool writes as the guest would: two MiB, from the beginning on.
        let write = r#"qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend "write 0 2M""#;
        domain
            .qemu_monitor_command(write, DomainQemuMonitorCommandFlags::HMP)
            .await?;
        record.tells(&["BlockThreshold vda 1048576"]).await
    }));
}
