//! A point in a domain's life to which it can be set back.

use super::Domain;
use crate::object::{calls, object};
use crate::raw::api::{
    DomainSnapshotCreateFlags, DomainSnapshotDeleteFlags, DomainSnapshotListFlags,
    DomainSnapshotRevertFlags, DomainSnapshotXmlFlags,
};

object!(
    /// A point in a domain's life to which it can be set back.
    DomainSnapshot(NonnullDomainSnapshot)
);

calls!(Domain [dom] {
    /// Makes a snapshot.
    create_snapshot(xml: &str, flags: DomainSnapshotCreateFlags) -> DomainSnapshot
        = domain_snapshot_create_xml(DomainSnapshotCreateXmlArgs { xml_desc: xml.to_owned(), flags: flags.bits() })
        |created, connect| DomainSnapshot::new(connect, created.snap);
    /// All its snapshots that the flags select; without flags: all.
    snapshots(which: DomainSnapshotListFlags) -> Vec<DomainSnapshot>
        = domain_list_all_snapshots(DomainListAllSnapshotsArgs { need_results: 1, flags: which.bits() })
        |list, connect| list.snapshots.into_iter().map(|raw| DomainSnapshot::new(connect, raw)).collect();
    /// The snapshot of this name.
    snapshot_by_name(name: &str) -> DomainSnapshot
        = domain_snapshot_lookup_by_name(DomainSnapshotLookupByNameArgs { name: name.to_owned(), flags: 0 })
        |found, connect| DomainSnapshot::new(connect, found.snap);
    /// The snapshot that it is based on.
    current_snapshot() -> DomainSnapshot
        = domain_snapshot_current(DomainSnapshotCurrentArgs { flags: 0 })
        |found, connect| DomainSnapshot::new(connect, found.snap);
    /// Whether it is based on a snapshot.
    has_current_snapshot() -> bool
        = domain_has_current_snapshot(DomainHasCurrentSnapshotArgs { flags: 0 }) |found| found.result != 0;
});

impl DomainSnapshot {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.raw.name
    }

    /// The domain that it belongs to.
    pub fn domain(&self) -> Domain {
        Domain::new(&self.connect, self.raw.dom.clone())
    }
}

calls!(DomainSnapshot [snap] {
    /// Its definition.
    xml(flags: DomainSnapshotXmlFlags) -> String
        = domain_snapshot_get_xml_desc(DomainSnapshotGetXmlDescArgs { flags: flags.bits() }) |found| found.xml;
    /// The snapshot that it is based on.
    parent() -> DomainSnapshot
        = domain_snapshot_get_parent(DomainSnapshotGetParentArgs { flags: 0 })
        |found, connect| DomainSnapshot::new(connect, found.snap);
    /// Deletes it.
    delete(flags: DomainSnapshotDeleteFlags)
        = domain_snapshot_delete(DomainSnapshotDeleteArgs { flags: flags.bits() });
    /// Sets the domain back to it.
    revert(flags: DomainSnapshotRevertFlags)
        = domain_revert_to_snapshot(DomainRevertToSnapshotArgs { flags: flags.bits() });
    /// Whether the domain is based on it.
    is_current() -> bool
        = domain_snapshot_is_current(DomainSnapshotIsCurrentArgs { flags: 0 }) |found| found.current != 0;
    /// Whether the daemon knows more of it than its name.
    has_metadata() -> bool
        = domain_snapshot_has_metadata(DomainSnapshotHasMetadataArgs { flags: 0 }) |found| found.metadata != 0;
});

calls!(DomainSnapshot [snapshot] {
    /// The snapshots that are based on it.
    children(which: DomainSnapshotListFlags) -> Vec<DomainSnapshot>
        = domain_snapshot_list_all_children(DomainSnapshotListAllChildrenArgs { need_results: 1, flags: which.bits() })
        |list, connect| list.snapshots.into_iter().map(|raw| DomainSnapshot::new(connect, raw)).collect();
});
