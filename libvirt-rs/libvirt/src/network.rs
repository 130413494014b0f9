//! Virtual networks and their ports.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use crate::connect::Connect;
use crate::error::Error;
use crate::object::{calls, object, text};
use crate::params::Params;
use crate::raw::api::{
    ConnectListAllNetworksFlags, DomainModificationImpact, NetworkCreateFlags, NetworkDefineFlags,
    NetworkMetadataType, NetworkPortCreateFlags, NetworkUpdateCommand, NetworkUpdateFlags,
    NetworkUpdateSection, NetworkXmlFlags,
};
use crate::raw::remote::{ConnectSupportsFeatureArgs, NetworkDhcpLease, NetworkUpdateArgs};

object!(
    /// A virtual network.
    Network(NonnullNetwork)
);

object!(
    /// A port of a virtual network, to which a guest's card is tied.
    NetworkPort(NonnullNetworkPort)
);

/// An address that a virtual network's DHCP server has given out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DhcpLease {
    /// The host's interface.
    pub interface: String,
    /// When it expires; `None`: never.
    pub expires: Option<SystemTime>,
    /// The guest's hardware address.
    pub mac: Option<String>,
    /// The guest's identity association, for IPv6.
    pub iaid: Option<String>,
    /// The address; `None` if it is not one.
    pub address: Option<IpAddr>,
    /// The length of the network's prefix in bits.
    pub prefix: u32,
    /// The name that the guest gave.
    pub hostname: Option<String>,
    /// The identity that the guest gave: for IPv6 its DUID.
    pub client_id: Option<String>,
}

calls!(Connect {
    /// All networks that the flags select; without flags: all.
    networks(which: ConnectListAllNetworksFlags) -> Vec<Network>
        = connect_list_all_networks(ConnectListAllNetworksArgs { need_results: 1, flags: which.bits() })
        |list, connect| list.nets.into_iter().map(|raw| Network::new(connect, raw)).collect();
    /// The network of this name.
    network_by_name(name: &str) -> Network
        = network_lookup_by_name(NetworkLookupByNameArgs { name: name.to_owned() })
        |found, connect| Network::new(connect, found.net);
    /// The network of this UUID.
    network_by_uuid(uuid: Uuid) -> Network
        = network_lookup_by_uuid(NetworkLookupByUuidArgs { uuid: uuid.into_bytes() })
        |found, connect| Network::new(connect, found.net);
    /// Defines a network, or changes one that is defined.
    define_network(xml: &str) -> Network
        = network_define_xml(NetworkDefineXmlArgs { xml: xml.to_owned() })
        |defined, connect| Network::new(connect, defined.net);
    /// As [`define_network`](Self::define_network), with flags. Since libvirt 7.7.
    define_network_with(xml: &str, flags: NetworkDefineFlags) -> Network
        = network_define_xml_flags(NetworkDefineXmlFlagsArgs { xml: xml.to_owned(), flags: flags.bits() })
        |defined, connect| Network::new(connect, defined.net);
    /// Starts a network that is forgotten when it stops.
    create_network(xml: &str) -> Network
        = network_create_xml(NetworkCreateXmlArgs { xml: xml.to_owned() })
        |created, connect| Network::new(connect, created.net);
    /// As [`create_network`](Self::create_network), with flags. Since libvirt 7.8.
    create_network_with(xml: &str, flags: NetworkCreateFlags) -> Network
        = network_create_xml_flags(NetworkCreateXmlFlagsArgs { xml: xml.to_owned(), flags: flags.bits() })
        |created, connect| Network::new(connect, created.net);
});

impl Network {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.raw.name
    }

    /// Its UUID.
    pub fn uuid(&self) -> Uuid {
        Uuid::from_bytes(self.raw.uuid)
    }
}

calls!(Network [net] {
    /// Starts it.
    start() = network_create(NetworkCreateArgs {});
    /// Stops it.
    destroy() = network_destroy(NetworkDestroyArgs {});
    /// Forgets its definition.
    undefine() = network_undefine(NetworkUndefineArgs {});
    /// Its definition.
    xml(flags: NetworkXmlFlags) -> String
        = network_get_xml_desc(NetworkGetXmlDescArgs { flags: flags.bits() }) |found| found.xml;
    /// Whether it is started with the host.
    autostart() -> bool
        = network_get_autostart(NetworkGetAutostartArgs {}) |found| found.autostart != 0;
    /// Starts it with the host, or not.
    set_autostart(autostart: bool)
        = network_set_autostart(NetworkSetAutostartArgs { autostart: autostart.into() });
    /// The name of its bridge on the host.
    bridge_name() -> String
        = network_get_bridge_name(NetworkGetBridgeNameArgs {}) |found| found.name;
    /// Whether it runs.
    is_active() -> bool = network_is_active(NetworkIsActiveArgs {}) |found| found.active != 0;
    /// Whether it is defined.
    is_persistent() -> bool
        = network_is_persistent(NetworkIsPersistentArgs {}) |found| found.persistent != 0;
    /// The addresses that its DHCP server has given out, to all or to one hardware address.
    dhcp_leases(mac: Option<&str>) -> Vec<DhcpLease>
        = network_get_dhcp_leases(NetworkGetDhcpLeasesArgs { mac: text(mac), need_results: 1, flags: 0 })
        |found| found.leases.into_iter().map(DhcpLease::from).collect();
});

/// `VIR_DRV_FEATURE_NETWORK_UPDATE_HAS_CORRECT_ORDER`: the daemon takes command and section as the protocol names them.
const FEATURE_UPDATE_IN_ORDER: i32 = 16;

impl Network {
    /// Changes a part of it: the element of this number in its parent, or with -1 the one that fits.
    ///
    /// Older daemons take command and section the wrong way round. So each call asks first which kind it is.
    ///
    /// # Errors
    /// What the daemon reports, or the end of the connection.
    pub async fn update(
        &self,
        command: NetworkUpdateCommand,
        section: NetworkUpdateSection,
        parent: i32,
        xml: &str,
        flags: NetworkUpdateFlags,
    ) -> Result<(), Error> {
        // The answer holds for this connection: the one after a reconnect may be another daemon's.
        let remote = self.remote()?;
        let feature = ConnectSupportsFeatureArgs {
            feature: FEATURE_UPDATE_IN_ORDER,
        };
        let in_order = remote.connect_supports_feature(&feature).await?.supported != 0;
        let command = command.as_raw().cast_unsigned();
        let section = section.as_raw().cast_unsigned();
        let (command, section) = if in_order {
            (command, section)
        } else {
            (section, command)
        };
        remote
            .network_update(&NetworkUpdateArgs {
                net: self.raw.clone(),
                command,
                section,
                parent_index: parent,
                xml: xml.to_owned(),
                flags: flags.bits(),
            })
            .await
    }
}

calls!(Network [network] {
    /// All its ports.
    ports() -> Vec<NetworkPort>
        = network_list_all_ports(NetworkListAllPortsArgs { need_results: 1, flags: 0 })
        |list, connect| list.ports.into_iter().map(|raw| NetworkPort::new(connect, raw)).collect();
    /// The port of this UUID.
    port_by_uuid(uuid: Uuid) -> NetworkPort
        = network_port_lookup_by_uuid(NetworkPortLookupByUuidArgs { uuid: uuid.into_bytes() })
        |found, connect| NetworkPort::new(connect, found.port);
    /// Makes a port.
    create_port(xml: &str, flags: NetworkPortCreateFlags) -> NetworkPort
        = network_port_create_xml(NetworkPortCreateXmlArgs { xml: xml.to_owned(), flags: flags.bits() })
        |created, connect| NetworkPort::new(connect, created.port);
    /// Its title, description, or the metadata of one XML namespace. Since libvirt 9.7.
    metadata(kind: NetworkMetadataType, uri: Option<&str>, impact: DomainModificationImpact) -> String
        = network_get_metadata(NetworkGetMetadataArgs {
            r#type: kind.as_raw(), uri: text(uri), flags: impact.bits(),
        }) |found| found.metadata;
    /// Sets or, without `metadata`, removes its title, description, or the metadata of one XML namespace. Since libvirt 9.7.
    set_metadata(
        kind: NetworkMetadataType,
        metadata: Option<&str>,
        key: Option<&str>,
        uri: Option<&str>,
        impact: DomainModificationImpact,
    ) = network_set_metadata(NetworkSetMetadataArgs {
        r#type: kind.as_raw(), metadata: text(metadata), key: text(key), uri: text(uri), flags: impact.bits(),
    });
});

impl NetworkPort {
    /// Its UUID.
    pub fn uuid(&self) -> Uuid {
        Uuid::from_bytes(self.raw.uuid)
    }

    /// The network that it belongs to.
    pub fn network(&self) -> Network {
        Network::new(&self.connect, self.raw.net.clone())
    }
}

calls!(NetworkPort [port] {
    /// Its definition.
    xml() -> String = network_port_get_xml_desc(NetworkPortGetXmlDescArgs { flags: 0 }) |found| found.xml;
    /// Its limits.
    parameters() -> Params
        = network_port_get_parameters(NetworkPortGetParametersArgs { nparams: PORT_PARAMETERS, flags: 0 })
        |found| found.params.into();
    /// Sets its limits.
    set_parameters(params: &Params)
        = network_port_set_parameters(NetworkPortSetParametersArgs { params: params.to_raw(), flags: 0 });
    /// Removes it.
    delete() = network_port_delete(NetworkPortDeleteArgs { flags: 0 });
});

/// How many limits a port can have at most: what the protocol bounds them by.
const PORT_PARAMETERS: i32 = 16;

impl From<NetworkDhcpLease> for DhcpLease {
    fn from(raw: NetworkDhcpLease) -> Self {
        Self {
            interface: raw.iface,
            expires: u64::try_from(raw.expirytime)
                .ok()
                .filter(|&seconds| seconds > 0)
                .map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)),
            mac: raw.mac,
            iaid: raw.iaid,
            address: raw.ipaddr.parse().ok(),
            prefix: raw.prefix,
            hostname: raw.hostname,
            client_id: raw.clientid,
        }
    }
}
