//! A domain that goes back: to a snapshot, or to where it was saved.

use std::slice;

use anyhow::ensure;
use libvirt::raw::api::{
    DomainSaveImageXmlFlags, DomainSaveRestoreFlags, DomainSnapshotCreateFlags,
    DomainSnapshotDeleteFlags, DomainSnapshotListFlags, DomainSnapshotRevertFlags, ErrorNumber,
};
use vbridge_tests::{
    fixture::story,
    libvirt::{daemon::Libvirtd, domain::Domain},
};

use crate::support::{
    DESTROY, Guest, Record, START, UNDEFINE, image, is, line, open, property, refused,
};

/// What a save tells.
const SAVED: [&str; 3] = [
    "Suspended Paused",
    "JobCompleted Some(Save)",
    "Stopped Saved",
];

#[test]
fn a_domain_is_set_back_to_a_snapshot_with_its_memory() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = open(daemon).await?;
        let mut record = Record::of_domains(&connect).await?;
        let disk = image(daemon, "back").await?;
        let guest = Guest::define(&connect, Domain::builder("back").disk(disk.as_ref())).await?;
        let domain = &guest.domain;
        record.tells(&["Defined Added"]).await?;
        guest.boot(daemon, &mut record).await?;

        guest.run("echo before >/run/story").await?;
        let create = async |name: &str| {
            let xml = format!("<domainsnapshot><name>{name}</name></domainsnapshot>");
            domain
                .create_snapshot(&xml, DomainSnapshotCreateFlags::empty())
                .await
        };
        let first = create("first").await?;
        record
            .tells(&["Suspended Paused", "Resumed Unpaused"])
            .await?;
        guest.run("echo after >/run/story").await?;
        let second = create("second").await?;
        record
            .tells(&["Suspended Paused", "Resumed Unpaused"])
            .await?;
        let names = line(daemon, &["snapshot-list", "back", "--name"]).await?;
        ensure!(names.split_whitespace().eq(["first", "second"]), "{names}");
        let roots = domain.snapshots(DomainSnapshotListFlags::ROOTS).await?;
        ensure!(roots == [first.clone()], "{roots:?}");
        ensure!(
            first.children(DomainSnapshotListFlags::empty()).await? == slice::from_ref(&second)
        );
        ensure!(second.parent().await? == first && second.is_current().await?);
        ensure!(domain.current_snapshot().await? == second);

        first.revert(DomainSnapshotRevertFlags::empty()).await?;
        record
            .tells(&[
                "Stopped FromSnapshot",
                "Started FromSnapshot",
                "Resumed FromSnapshot",
                "Defined FromSnapshot",
            ])
            .await?;
        ensure!(line(daemon, &["snapshot-current", "back", "--name"]).await? == "first");
        let told = guest.run("cat /run/story").await?;
        ensure!(told == "before\n", "the guest remembers {told:?}");

        second.delete(DomainSnapshotDeleteFlags::empty()).await?;
        let gone = domain.snapshot_by_name("second").await;
        refused(gone, ErrorNumber::NoDomainSnapshot)?;
        domain.destroy(DESTROY).await?;
        let kept = domain.undefine(UNDEFINE).await;
        refused(kept, ErrorNumber::OperationInvalid)?;
        first.delete(DomainSnapshotDeleteFlags::empty()).await?;
        let left = domain.snapshots(DomainSnapshotListFlags::empty()).await?;
        ensure!(left.is_empty(), "{left:?}");
        domain.undefine(UNDEFINE).await?;
        record
            .tells(&["Shutdown Host", "Stopped Destroyed", "Undefined Removed"])
            .await?;
        record.ends(&connect).await
    }));
}

#[test]
fn a_saved_domain_goes_on_where_it_was() {
    story(Libvirtd::builder().run(async |daemon| {
        const FILE: &str = "/var/lib/libvirt/qemu/saved";
        let flags = DomainSaveRestoreFlags::empty();
        let connect = open(daemon).await?;
        let mut record = Record::of_domains(&connect).await?;
        let guest = Guest::define(&connect, Domain::builder("saved")).await?;
        let domain = &guest.domain;
        record.tells(&["Defined Added"]).await?;
        guest.boot(daemon, &mut record).await?;
        guest.run("echo 1 >/run/story").await?;

        domain.save(FILE, None, flags).await?;
        record.tells(&SAVED).await?;
        is(daemon, "saved", "shut off").await?;
        ensure!(daemon.path(FILE).exists());
        let xml = connect
            .saved_domain_xml(FILE, DomainSaveImageXmlFlags::empty())
            .await?;
        ensure!(xml.contains(guest.machine.uuid()), "{xml}");
        connect.restore_domain(FILE, None, flags).await?;
        record
            .tells(&["Started Restored", "Resumed FromSnapshot"])
            .await?;
        guest
            .run("test $(cat /run/story) = 1 && echo 2 >/run/story")
            .await?;

        domain.managed_save(DomainSaveRestoreFlags::PAUSED).await?;
        record.tells(&SAVED).await?;
        ensure!(domain.has_managed_save().await?);
        ensure!(property(daemon, &["dominfo", "saved"], "Managed save").await? == "yes");
        domain.start(START).await?;
        record
            .tells(&["Started Restored", "Suspended Restored"])
            .await?;
        is(daemon, "saved", "paused").await?;
        domain.resume().await?;
        record.tells(&["Resumed Unpaused"]).await?;
        ensure!(guest.run("cat /run/story").await? == "2\n");
        ensure!(guest.machine.boots(daemon) == 1, "it has booted again");

        domain.managed_save(flags).await?;
        record.tells(&SAVED).await?;
        domain.remove_managed_save().await?;
        ensure!(!domain.has_managed_save().await?);
        domain.undefine(UNDEFINE).await?;
        record.tells(&["Undefined Removed"]).await?;
        record.ends(&connect).await
    }));
}
