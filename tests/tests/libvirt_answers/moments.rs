//! The calls of snapshots and checkpoints.

use super::{
    Call, calls,
    shape::{Show as _, each},
};

pub(super) fn calls() -> Vec<Call> {
    [&of_domains()[..], &snapshots(), &checkpoints(), &children()].concat()
}

fn of_domains() -> Vec<Call> {
    calls!(ask [dom: ask.domain().await?] {
        domain_snapshot_num(DomainSnapshotNumArgs { flags: ask.flags()? }) |found| found.num;
        domain_list_all_snapshots(DomainListAllSnapshotsArgs { need_results: 1, flags: ask.flags()? })
            |found| each(&found.snapshots);
        domain_snapshot_lookup_by_name(DomainSnapshotLookupByNameArgs { name: ask.get("name")?, flags: ask.flags()? })
            |found| found.snap.show();
        domain_has_current_snapshot(DomainHasCurrentSnapshotArgs { flags: ask.flags()? }) |found| found.result;
        domain_snapshot_current(DomainSnapshotCurrentArgs { flags: ask.flags()? }) |found| found.snap.show();
        domain_snapshot_list_names(DomainSnapshotListNamesArgs {
            maxnames: {
                let args = libvirt::raw::remote::DomainSnapshotNumArgs {
                    dom: ask.domain().await?, flags: ask.flags()?,
                };
                ask.remote.domain_snapshot_num(&args).await?.num
            },
            flags: ask.flags()?,
        }) |found| found.names;
        domain_list_all_checkpoints(DomainListAllCheckpointsArgs { need_results: 1, flags: ask.flags()? })
            |found| each(&found.checkpoints);
        domain_checkpoint_lookup_by_name(DomainCheckpointLookupByNameArgs {
            name: ask.get("name")?, flags: ask.flags()?,
        }) |found| found.checkpoint.show();
    })
    .to_vec()
}

fn snapshots() -> Vec<Call> {
    calls!(ask [snap: ask.snapshot().await?] {
        domain_snapshot_get_xml_desc(DomainSnapshotGetXmlDescArgs { flags: ask.flags()? }) |found| found.xml;
        domain_snapshot_get_parent(DomainSnapshotGetParentArgs { flags: ask.flags()? }) |found| found.snap.show();
        domain_snapshot_is_current(DomainSnapshotIsCurrentArgs { flags: ask.flags()? }) |found| found.current;
        domain_snapshot_has_metadata(DomainSnapshotHasMetadataArgs { flags: ask.flags()? }) |found| found.metadata;
        domain_snapshot_num_children(DomainSnapshotNumChildrenArgs { flags: ask.flags()? }) |found| found.num;
        domain_snapshot_list_children_names(DomainSnapshotListChildrenNamesArgs {
            maxnames: {
                let args = libvirt::raw::remote::DomainSnapshotNumChildrenArgs {
                    snap: ask.snapshot().await?, flags: ask.flags()?,
                };
                ask.remote.domain_snapshot_num_children(&args).await?.num
            },
            flags: ask.flags()?,
        }) |found| found.names;
    })
    .to_vec()
}

fn checkpoints() -> Vec<Call> {
    calls!(ask [checkpoint: ask.checkpoint().await?] {
        domain_checkpoint_get_xml_desc(DomainCheckpointGetXmlDescArgs { flags: ask.flags()? }) |found| found.xml;
        domain_checkpoint_get_parent(DomainCheckpointGetParentArgs { flags: ask.flags()? })
            |found| found.parent.show();
        domain_checkpoint_list_all_children(DomainCheckpointListAllChildrenArgs {
            need_results: 1, flags: ask.flags()?,
        }) |found| each(&found.checkpoints);
    })
    .to_vec()
}

/// The wire names this procedure's snapshot otherwise.
fn children() -> Vec<Call> {
    calls!(ask [snapshot: ask.snapshot().await?] {
        domain_snapshot_list_all_children(DomainSnapshotListAllChildrenArgs {
            need_results: 1, flags: ask.flags()?,
        }) |found| each(&found.snapshots);
    })
    .to_vec()
}
