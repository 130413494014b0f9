//! The calls of networks and their ports, the host's interfaces, and network filters.

use serde_json::json;

use super::{
    Call, calls,
    shape::{Show as _, each, params},
};

pub(super) fn calls() -> Vec<Call> {
    [
        &lists()[..],
        &networks(),
        &ports(),
        &interfaces(),
        &filters(),
    ]
    .concat()
}

fn lists() -> Vec<Call> {
    calls!(ask {
        connect_num_of_networks() |found| found.num;
        connect_num_of_defined_networks() |found| found.num;
        connect_list_networks(ConnectListNetworksArgs {
            maxnames: ask.remote.connect_num_of_networks().await?.num,
        }) |found| found.names;
        connect_list_defined_networks(ConnectListDefinedNetworksArgs {
            maxnames: ask.remote.connect_num_of_defined_networks().await?.num,
        }) |found| found.names;
        connect_list_all_networks(ConnectListAllNetworksArgs { need_results: 1, flags: ask.flags()? })
            |found| each(&found.nets);
        network_lookup_by_name(NetworkLookupByNameArgs { name: ask.get("name")? }) |found| found.net.show();
        network_lookup_by_uuid(NetworkLookupByUuidArgs { uuid: ask.uuid("uuid")? }) |found| found.net.show();
    })
    .to_vec()
}

fn networks() -> Vec<Call> {
    calls!(ask [net: ask.network().await?] {
        network_get_xml_desc(NetworkGetXmlDescArgs { flags: ask.flags()? }) |found| found.xml;
        network_get_bridge_name(NetworkGetBridgeNameArgs {}) |found| found.name;
        network_get_autostart(NetworkGetAutostartArgs {}) |found| found.autostart;
        network_is_active(NetworkIsActiveArgs {}) |found| found.active;
        network_is_persistent(NetworkIsPersistentArgs {}) |found| found.persistent;
        network_get_dhcp_leases(NetworkGetDhcpLeasesArgs {
            mac: ask.get("mac")?, need_results: 1, flags: ask.flags()?,
        }) |found| found.leases.iter()
            .map(|it| json!({
                "iface": it.iface, "expirytime": it.expirytime, "type": it.r#type, "mac": it.mac, "iaid": it.iaid,
                "ipaddr": it.ipaddr, "prefix": it.prefix, "hostname": it.hostname, "clientid": it.clientid,
            }))
            .collect::<Vec<_>>();
    })
    .to_vec()
}

/// The wire names these procedures' network otherwise.
fn ports() -> Vec<Call> {
    let of_networks = calls!(ask [network: ask.network().await?] {
        network_get_metadata(NetworkGetMetadataArgs {
            r#type: ask.get("type")?, uri: ask.get("uri")?, flags: ask.flags()?,
        }) |found| found.metadata;
        network_list_all_ports(NetworkListAllPortsArgs { need_results: 1, flags: ask.flags()? })
            |found| each(&found.ports);
        network_port_lookup_by_uuid(NetworkPortLookupByUuidArgs { uuid: ask.uuid("uuid")? })
            |found| found.port.show();
    });
    let of_ports = calls!(ask [port: ask.port().await?] {
        network_port_get_xml_desc(NetworkPortGetXmlDescArgs { flags: ask.flags()? }) |found| found.xml;
        network_port_get_parameters[nparams](NetworkPortGetParametersArgs { nparams, flags: ask.flags()? })
            |found| params(found.params);
    });
    [&of_networks[..], &of_ports].concat()
}

fn interfaces() -> Vec<Call> {
    let lists = calls!(ask {
        connect_num_of_interfaces() |found| found.num;
        connect_num_of_defined_interfaces() |found| found.num;
        connect_list_interfaces(ConnectListInterfacesArgs {
            maxnames: ask.remote.connect_num_of_interfaces().await?.num,
        }) |found| found.names;
        connect_list_defined_interfaces(ConnectListDefinedInterfacesArgs {
            maxnames: ask.remote.connect_num_of_defined_interfaces().await?.num,
        }) |found| found.names;
        connect_list_all_interfaces(ConnectListAllInterfacesArgs { need_results: 1, flags: ask.flags()? })
            |found| each(&found.ifaces);
        interface_lookup_by_name(InterfaceLookupByNameArgs { name: ask.get("name")? }) |found| found.iface.show();
        interface_lookup_by_mac_string(InterfaceLookupByMacStringArgs { mac: ask.get("mac")? })
            |found| found.iface.show();
    });
    let of_interfaces = calls!(ask [iface: ask.interface().await?] {
        interface_get_xml_desc(InterfaceGetXmlDescArgs { flags: ask.flags()? }) |found| found.xml;
        interface_is_active(InterfaceIsActiveArgs {}) |found| found.active;
    });
    [&lists[..], &of_interfaces].concat()
}

fn filters() -> Vec<Call> {
    let lists = calls!(ask {
        connect_num_of_nwfilters() |found| found.num;
        connect_list_nwfilters(ConnectListNwfiltersArgs {
            maxnames: ask.remote.connect_num_of_nwfilters().await?.num,
        }) |found| found.names;
        connect_list_all_nwfilters(ConnectListAllNwfiltersArgs { need_results: 1, flags: ask.flags()? })
            |found| each(&found.filters);
        connect_list_all_nwfilter_bindings(ConnectListAllNwfilterBindingsArgs {
            need_results: 1, flags: ask.flags()?,
        }) |found| each(&found.bindings);
        nwfilter_lookup_by_name(NwfilterLookupByNameArgs { name: ask.get("name")? }) |found| found.nwfilter.show();
        nwfilter_lookup_by_uuid(NwfilterLookupByUuidArgs { uuid: ask.uuid("uuid")? }) |found| found.nwfilter.show();
        nwfilter_binding_lookup_by_port_dev(NwfilterBindingLookupByPortDevArgs { name: ask.get("name")? })
            |found| found.nwfilter.show();
    });
    let of_filters = calls!(ask [nwfilter: ask.filter().await?] {
        nwfilter_get_xml_desc(NwfilterGetXmlDescArgs { flags: ask.flags()? }) |found| found.xml;
    });
    let of_bindings = calls!(ask [nwfilter: ask.binding().await?] {
        nwfilter_binding_get_xml_desc(NwfilterBindingGetXmlDescArgs { flags: ask.flags()? }) |found| found.xml;
    });
    [&lists[..], &of_filters, &of_bindings].concat()
}
