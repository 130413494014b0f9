//! A domain's memory in a file.

use super::Domain;
use crate::connect::Connect;
use crate::object::{calls, text};
use crate::params::Params;
use crate::raw::api::{
    DomainCoreDumpFlags, DomainCoreDumpFormat, DomainMemoryFlags, DomainSaveImageXmlFlags,
    DomainSaveRestoreFlags,
};

calls!(Connect {
    /// Lets a domain go on that was saved to a file of the hypervisor, with other XML if given.
    restore_domain(from: &str, xml: Option<&str>, flags: DomainSaveRestoreFlags)
        = domain_restore_flags(DomainRestoreFlagsArgs { from: from.to_owned(), dxml: text(xml), flags: flags.bits() });
    /// As [`restore_domain`](Self::restore_domain), by the parameters of `virDomainRestoreParams`. Since libvirt 8.4.
    restore_domain_with(params: &Params, flags: DomainSaveRestoreFlags)
        = domain_restore_params(DomainRestoreParamsArgs { params: params.to_raw(), flags: flags.bits() });
    /// The definition in a saved domain's file.
    saved_domain_xml(file: &str, flags: DomainSaveImageXmlFlags) -> String
        = domain_save_image_get_xml_desc(DomainSaveImageGetXmlDescArgs { file: file.to_owned(), flags: flags.bits() })
        |found| found.xml;
    /// Changes the definition in a saved domain's file.
    define_saved_domain_xml(file: &str, xml: &str, flags: DomainSaveRestoreFlags)
        = domain_save_image_define_xml(DomainSaveImageDefineXmlArgs {
            file: file.to_owned(), dxml: xml.to_owned(), flags: flags.bits(),
        });
});

calls!(Domain [dom] {
    /// Stops it and keeps its memory in a file of the hypervisor.
    save(to: &str, xml: Option<&str>, flags: DomainSaveRestoreFlags)
        = domain_save_flags(DomainSaveFlagsArgs { to: to.to_owned(), dxml: text(xml), flags: flags.bits() });
    /// As [`save`](Self::save), by the parameters of `virDomainSaveParams`. Since libvirt 8.4.
    save_with(params: &Params, flags: DomainSaveRestoreFlags)
        = domain_save_params(DomainSaveParamsArgs { params: params.to_raw(), flags: flags.bits() });
    /// Stops it and keeps its memory where the daemon likes; the next start lets it go on.
    managed_save(flags: DomainSaveRestoreFlags)
        = domain_managed_save(DomainManagedSaveArgs { flags: flags.bits() });
    /// Whether the daemon keeps its memory.
    has_managed_save() -> bool
        = domain_has_managed_save_image(DomainHasManagedSaveImageArgs { flags: 0 }) |found| found.result != 0;
    /// The definition with which the daemon keeps its memory. Since libvirt 3.7.
    managed_save_xml(flags: DomainSaveImageXmlFlags) -> String
        = domain_managed_save_get_xml_desc(DomainManagedSaveGetXmlDescArgs { flags: flags.bits() })
        |found| found.xml;
    /// Changes the definition with which the daemon keeps its memory. Since libvirt 3.7.
    define_managed_save_xml(xml: &str, flags: DomainSaveRestoreFlags)
        = domain_managed_save_define_xml(DomainManagedSaveDefineXmlArgs {
            dxml: Some(xml.to_owned()), flags: flags.bits(),
        });
    /// Forgets the memory that the daemon keeps.
    remove_managed_save() = domain_managed_save_remove(DomainManagedSaveRemoveArgs { flags: 0 });
    /// Writes the guest's memory to a file of the hypervisor, for debuggers.
    core_dump(to: &str, format: DomainCoreDumpFormat, flags: DomainCoreDumpFlags)
        = domain_core_dump_with_format(DomainCoreDumpWithFormatArgs {
            to: to.to_owned(), dumpformat: format.as_raw().cast_unsigned(), flags: flags.bits(),
        });
    /// Reads so many bytes of the guest's memory: at most 4 MiB. One flag must say whether the address is virtual, as the
    /// guest's first CPU sees it, or physical.
    memory_peek(address: u64, size: u32, flags: DomainMemoryFlags) -> Vec<u8>
        = domain_memory_peek(DomainMemoryPeekArgs { offset: address, size, flags: flags.bits() })
        |found| found.buffer;
});
