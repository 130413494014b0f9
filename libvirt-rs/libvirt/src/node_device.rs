//! The hypervisor's devices.

use crate::connect::Connect;
use crate::object::{calls, object, text};
use crate::raw::api::{
    ConnectListAllNodeDeviceFlags, NodeDeviceCreateXmlFlags, NodeDeviceDefineXmlFlags,
    NodeDeviceUpdateFlags, NodeDeviceXmlFlags,
};

object!(
    /// A device of the hypervisor, such as a disk, a PCI function or a mediated device.
    NodeDevice(NonnullNodeDevice)
);

calls!(Connect {
    /// All devices that the flags select; without flags: all.
    node_devices(which: ConnectListAllNodeDeviceFlags) -> Vec<NodeDevice>
        = connect_list_all_node_devices(ConnectListAllNodeDevicesArgs { need_results: 1, flags: which.bits() })
        |list, connect| list.devices.into_iter().map(|raw| NodeDevice::new(connect, raw)).collect();
    /// The device of this name.
    node_device_by_name(name: &str) -> NodeDevice
        = node_device_lookup_by_name(NodeDeviceLookupByNameArgs { name: name.to_owned() })
        |found, connect| NodeDevice::new(connect, found.dev);
    /// The SCSI host with these world-wide names.
    node_device_by_wwn(node: &str, port: &str) -> NodeDevice
        = node_device_lookup_scsi_host_by_wwn(NodeDeviceLookupScsiHostByWwnArgs {
            wwnn: node.to_owned(), wwpn: port.to_owned(), flags: 0,
        }) |found, connect| NodeDevice::new(connect, found.dev);
    /// Makes a device that is forgotten when it goes.
    create_node_device(xml: &str, flags: NodeDeviceCreateXmlFlags) -> NodeDevice
        = node_device_create_xml(NodeDeviceCreateXmlArgs { xml_desc: xml.to_owned(), flags: flags.bits() })
        |created, connect| NodeDevice::new(connect, created.dev);
    /// Defines a device, such as a mediated one.
    define_node_device(xml: &str, flags: NodeDeviceDefineXmlFlags) -> NodeDevice
        = node_device_define_xml(NodeDeviceDefineXmlArgs { xml_desc: xml.to_owned(), flags: flags.bits() })
        |defined, connect| NodeDevice::new(connect, defined.dev);
});

impl NodeDevice {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.raw.name
    }
}

// The protocol names the device by its bare name here, and so do these calls.
calls!(NodeDevice [name] {
    /// Its description.
    xml(flags: NodeDeviceXmlFlags) -> String
        = node_device_get_xml_desc(NodeDeviceGetXmlDescArgs { flags: flags.bits() }) |found| found.xml;
    /// The name of the device that it hangs on.
    parent() -> Option<String>
        = node_device_get_parent(NodeDeviceGetParentArgs {}) |found| found.parent_name;
    /// What it can do, in libvirt's names.
    capabilities() -> Vec<String>
        = node_device_list_caps(NodeDeviceListCapsArgs { maxnames: CAPABILITIES }) |found| found.names;
    /// Takes it from its driver on the host, so that a guest can have it.
    detach(driver: Option<&str>)
        = node_device_detach_flags(NodeDeviceDetachFlagsArgs { driver_name: text(driver), flags: 0 });
    /// Gives it back to its driver on the host.
    reattach() = node_device_re_attach(NodeDeviceReAttachArgs {});
    /// Resets it.
    reset() = node_device_reset(NodeDeviceResetArgs {});
    /// Removes it.
    destroy() = node_device_destroy(NodeDeviceDestroyArgs {});
    /// Makes a defined device.
    start() = node_device_create(NodeDeviceCreateArgs { flags: 0 });
    /// Forgets its definition.
    undefine() = node_device_undefine(NodeDeviceUndefineArgs { flags: 0 });
    /// Changes it. Since libvirt 10.1.
    update(xml: &str, flags: NodeDeviceUpdateFlags)
        = node_device_update(NodeDeviceUpdateArgs { xml_desc: xml.to_owned(), flags: flags.bits() });
    /// Whether it is made with the host.
    autostart() -> bool
        = node_device_get_autostart(NodeDeviceGetAutostartArgs {}) |found| found.autostart != 0;
    /// Makes it with the host, or not.
    set_autostart(autostart: bool)
        = node_device_set_autostart(NodeDeviceSetAutostartArgs { autostart: autostart.into() });
    /// Whether it is there.
    is_active() -> bool = node_device_is_active(NodeDeviceIsActiveArgs {}) |found| found.active != 0;
    /// Whether it is defined.
    is_persistent() -> bool
        = node_device_is_persistent(NodeDeviceIsPersistentArgs {}) |found| found.persistent != 0;
});

/// More capabilities than a device has: there are about twenty kinds.
const CAPABILITIES: i32 = 1_024;

impl From<crate::raw::remote::NonnullNodeDevice> for String {
    fn from(device: crate::raw::remote::NonnullNodeDevice) -> Self {
        device.name
    }
}
