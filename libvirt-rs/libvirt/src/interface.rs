//! The hypervisor's network interfaces, as far as libvirt manages them.

use crate::connect::Connect;
use crate::object::{calls, object};
use crate::raw::api::{ConnectListAllInterfacesFlags, InterfaceDefineFlags, InterfaceXmlFlags};

object!(
    /// A network interface of the hypervisor.
    Interface(NonnullInterface)
);

calls!(Connect {
    /// All interfaces that the flags select; without flags: all.
    interfaces(which: ConnectListAllInterfacesFlags) -> Vec<Interface>
        = connect_list_all_interfaces(ConnectListAllInterfacesArgs { need_results: 1, flags: which.bits() })
        |list, connect| list.ifaces.into_iter().map(|raw| Interface::new(connect, raw)).collect();
    /// The interface of this name.
    interface_by_name(name: &str) -> Interface
        = interface_lookup_by_name(InterfaceLookupByNameArgs { name: name.to_owned() })
        |found, connect| Interface::new(connect, found.iface);
    /// The interface with this hardware address.
    interface_by_mac(mac: &str) -> Interface
        = interface_lookup_by_mac_string(InterfaceLookupByMacStringArgs { mac: mac.to_owned() })
        |found, connect| Interface::new(connect, found.iface);
    /// Defines an interface, or changes one.
    define_interface(xml: &str, flags: InterfaceDefineFlags) -> Interface
        = interface_define_xml(InterfaceDefineXmlArgs { xml: xml.to_owned(), flags: flags.bits() })
        |defined, connect| Interface::new(connect, defined.iface);
    /// Marks a point to which changes to interfaces can be taken back.
    begin_interface_change() = interface_change_begin(InterfaceChangeBeginArgs { flags: 0 });
    /// Keeps the changes since that point.
    commit_interface_change() = interface_change_commit(InterfaceChangeCommitArgs { flags: 0 });
    /// Takes the changes since that point back.
    rollback_interface_change() = interface_change_rollback(InterfaceChangeRollbackArgs { flags: 0 });
});

impl Interface {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.raw.name
    }

    /// Its hardware address.
    pub fn mac(&self) -> &str {
        &self.raw.mac
    }
}

calls!(Interface [iface] {
    /// Its definition.
    xml(flags: InterfaceXmlFlags) -> String
        = interface_get_xml_desc(InterfaceGetXmlDescArgs { flags: flags.bits() }) |found| found.xml;
    /// Brings it up.
    start() = interface_create(InterfaceCreateArgs { flags: 0 });
    /// Takes it down.
    destroy() = interface_destroy(InterfaceDestroyArgs { flags: 0 });
    /// Forgets its definition.
    undefine() = interface_undefine(InterfaceUndefineArgs {});
    /// Whether it is up.
    is_active() -> bool = interface_is_active(InterfaceIsActiveArgs {}) |found| found.active != 0;
});
