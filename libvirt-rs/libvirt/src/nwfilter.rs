//! Filters of guests' network traffic, and what they are bound to.

use uuid::Uuid;

use crate::connect::Connect;
use crate::object::{calls, object};
use crate::raw::api::{NwFilterBindingCreateFlags, NwFilterDefineFlags};

object!(
    /// A filter of network traffic.
    NwFilter(NonnullNwfilter)
);

object!(
    /// A filter on a guest's card.
    NwFilterBinding(NonnullNwfilterBinding)
);

calls!(Connect {
    /// All filters.
    nwfilters() -> Vec<NwFilter>
        = connect_list_all_nwfilters(ConnectListAllNwfiltersArgs { need_results: 1, flags: 0 })
        |list, connect| list.filters.into_iter().map(|raw| NwFilter::new(connect, raw)).collect();
    /// The filter of this name.
    nwfilter_by_name(name: &str) -> NwFilter
        = nwfilter_lookup_by_name(NwfilterLookupByNameArgs { name: name.to_owned() })
        |found, connect| NwFilter::new(connect, found.nwfilter);
    /// The filter of this UUID.
    nwfilter_by_uuid(uuid: Uuid) -> NwFilter
        = nwfilter_lookup_by_uuid(NwfilterLookupByUuidArgs { uuid: uuid.into_bytes() })
        |found, connect| NwFilter::new(connect, found.nwfilter);
    /// Defines a filter, or changes one.
    define_nwfilter(xml: &str) -> NwFilter
        = nwfilter_define_xml(NwfilterDefineXmlArgs { xml: xml.to_owned() })
        |defined, connect| NwFilter::new(connect, defined.nwfilter);
    /// As [`define_nwfilter`](Self::define_nwfilter), with flags. Since libvirt 7.7.
    define_nwfilter_with(xml: &str, flags: NwFilterDefineFlags) -> NwFilter
        = nwfilter_define_xml_flags(NwfilterDefineXmlFlagsArgs { xml: xml.to_owned(), flags: flags.bits() })
        |defined, connect| NwFilter::new(connect, defined.nwfilter);
    /// All bindings.
    nwfilter_bindings() -> Vec<NwFilterBinding>
        = connect_list_all_nwfilter_bindings(ConnectListAllNwfilterBindingsArgs { need_results: 1, flags: 0 })
        |list, connect| list.bindings.into_iter().map(|raw| NwFilterBinding::new(connect, raw)).collect();
    /// The binding of this card, by its device on the host.
    nwfilter_binding_by_port(device: &str) -> NwFilterBinding
        = nwfilter_binding_lookup_by_port_dev(NwfilterBindingLookupByPortDevArgs { name: device.to_owned() })
        |found, connect| NwFilterBinding::new(connect, found.nwfilter);
    /// Binds a filter to a card.
    create_nwfilter_binding(xml: &str, flags: NwFilterBindingCreateFlags) -> NwFilterBinding
        = nwfilter_binding_create_xml(NwfilterBindingCreateXmlArgs { xml: xml.to_owned(), flags: flags.bits() })
        |created, connect| NwFilterBinding::new(connect, created.nwfilter);
});

impl NwFilter {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.raw.name
    }

    /// Its UUID.
    pub fn uuid(&self) -> Uuid {
        Uuid::from_bytes(self.raw.uuid)
    }
}

calls!(NwFilter [nwfilter] {
    /// Its definition.
    xml() -> String = nwfilter_get_xml_desc(NwfilterGetXmlDescArgs { flags: 0 }) |found| found.xml;
    /// Forgets it.
    undefine() = nwfilter_undefine(NwfilterUndefineArgs {});
});

impl NwFilterBinding {
    /// The card's device on the host.
    pub fn port(&self) -> &str {
        &self.raw.portdev
    }

    /// The filter's name.
    pub fn filter_name(&self) -> &str {
        &self.raw.filtername
    }
}

calls!(NwFilterBinding [nwfilter] {
    /// Its definition.
    xml() -> String = nwfilter_binding_get_xml_desc(NwfilterBindingGetXmlDescArgs { flags: 0 }) |found| found.xml;
    /// Removes it.
    delete() = nwfilter_binding_delete(NwfilterBindingDeleteArgs {});
});
