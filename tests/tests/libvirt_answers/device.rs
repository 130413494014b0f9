//! The calls of the host's devices.

use super::{
    Call, calls,
    shape::{Show as _, each},
};

pub(super) fn calls() -> Vec<Call> {
    [&lists()[..], &devices()].concat()
}

fn lists() -> Vec<Call> {
    calls!(ask {
        node_num_of_devices(NodeNumOfDevicesArgs { cap: ask.get("cap")?, flags: ask.flags()? }) |found| found.num;
        node_list_devices(NodeListDevicesArgs {
            cap: ask.get("cap")?,
            maxnames: {
                let args = libvirt::raw::remote::NodeNumOfDevicesArgs { cap: ask.get("cap")?, flags: ask.flags()? };
                ask.remote.node_num_of_devices(&args).await?.num
            },
            flags: ask.flags()?,
        }) |found| found.names;
        connect_list_all_node_devices(ConnectListAllNodeDevicesArgs { need_results: 1, flags: ask.flags()? })
            |found| each(&found.devices);
        node_device_lookup_by_name(NodeDeviceLookupByNameArgs { name: ask.get("name")? }) |found| found.dev.show();
        node_device_lookup_scsi_host_by_wwn(NodeDeviceLookupScsiHostByWwnArgs {
            wwnn: ask.get("wwnn")?, wwpn: ask.get("wwpn")?, flags: ask.flags()?,
        }) |found| found.dev.show();
    })
    .to_vec()
}

fn devices() -> Vec<Call> {
    calls!(ask [name: ask.device().await?] {
        node_device_get_xml_desc(NodeDeviceGetXmlDescArgs { flags: ask.flags()? }) |found| found.xml;
        node_device_get_parent(NodeDeviceGetParentArgs {}) |found| found.parent_name;
        node_device_num_of_caps(NodeDeviceNumOfCapsArgs {}) |found| found.num;
        node_device_list_caps(NodeDeviceListCapsArgs {
            maxnames: {
                let args = libvirt::raw::remote::NodeDeviceNumOfCapsArgs { name: ask.device().await? };
                ask.remote.node_device_num_of_caps(&args).await?.num
            },
        }) |found| found.names;
        node_device_get_autostart(NodeDeviceGetAutostartArgs {}) |found| found.autostart;
        node_device_is_active(NodeDeviceIsActiveArgs {}) |found| found.active;
        node_device_is_persistent(NodeDeviceIsPersistentArgs {}) |found| found.persistent;
    })
    .to_vec()
}
