//! A point in a domain's life since which changes to its disks are known.

use super::Domain;
use crate::object::{calls, object};
use crate::raw::api::{
    DomainCheckpointCreateFlags, DomainCheckpointDeleteFlags, DomainCheckpointListFlags,
    DomainCheckpointXmlFlags,
};

object!(
    /// A point in a domain's life since which changes to its disks are known.
    DomainCheckpoint(NonnullDomainCheckpoint)
);

calls!(Domain [dom] {
    /// Makes a checkpoint.
    create_checkpoint(xml: &str, flags: DomainCheckpointCreateFlags) -> DomainCheckpoint
        = domain_checkpoint_create_xml(DomainCheckpointCreateXmlArgs { xml_desc: xml.to_owned(), flags: flags.bits() })
        |created, connect| DomainCheckpoint::new(connect, created.checkpoint);
    /// All its checkpoints that the flags select; without flags: all.
    checkpoints(which: DomainCheckpointListFlags) -> Vec<DomainCheckpoint>
        = domain_list_all_checkpoints(DomainListAllCheckpointsArgs { need_results: 1, flags: which.bits() })
        |list, connect| list.checkpoints.into_iter().map(|raw| DomainCheckpoint::new(connect, raw)).collect();
    /// The checkpoint of this name.
    checkpoint_by_name(name: &str) -> DomainCheckpoint
        = domain_checkpoint_lookup_by_name(DomainCheckpointLookupByNameArgs { name: name.to_owned(), flags: 0 })
        |found, connect| DomainCheckpoint::new(connect, found.checkpoint);
});

impl DomainCheckpoint {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.raw.name
    }

    /// The domain that it belongs to.
    pub fn domain(&self) -> Domain {
        Domain::new(&self.connect, self.raw.dom.clone())
    }
}

calls!(DomainCheckpoint [checkpoint] {
    /// Its definition.
    xml(flags: DomainCheckpointXmlFlags) -> String
        = domain_checkpoint_get_xml_desc(DomainCheckpointGetXmlDescArgs { flags: flags.bits() }) |found| found.xml;
    /// The checkpoint that it is based on.
    parent() -> DomainCheckpoint
        = domain_checkpoint_get_parent(DomainCheckpointGetParentArgs { flags: 0 })
        |found, connect| DomainCheckpoint::new(connect, found.parent);
    /// Deletes it.
    delete(flags: DomainCheckpointDeleteFlags)
        = domain_checkpoint_delete(DomainCheckpointDeleteArgs { flags: flags.bits() });
    /// The checkpoints that are based on it.
    children(which: DomainCheckpointListFlags) -> Vec<DomainCheckpoint>
        = domain_checkpoint_list_all_children(DomainCheckpointListAllChildrenArgs { need_results: 1, flags: which.bits() })
        |list, connect| list.checkpoints.into_iter().map(|raw| DomainCheckpoint::new(connect, raw)).collect();
});
