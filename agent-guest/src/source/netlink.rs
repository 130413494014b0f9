//! Interfaces and routes, as the kernel tells them over rtnetlink(7).

use std::{collections::HashMap, net::IpAddr};

use futures_util::{Stream, TryStreamExt as _};
use rtnetlink::{
    Handle, IpVersion, RouteMessageBuilder, new_connection,
    packet_route::{
        AddressFamily,
        address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope},
        link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteScope, RouteType},
    },
};
use tokio::task::JoinHandle;
use vbridge_api::guest::v1::{InterfaceCounters, NetworkAddress, NetworkInterface, NetworkRoute};

use crate::limits::{MAX_INTERFACE_ADDRESSES, MAX_INTERFACES, MAX_ROUTES};

/// Where the kernel keeps what leads to itself; nobody who asks for routes means these.
const TABLE_LOCAL: u32 = 255;

/// The kernel can't be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetlinkError {
    /// There is no socket.
    #[error("can't open a netlink socket: {0}")]
    Socket(#[from] std::io::Error),
    /// The kernel has answered with an error, or not as it should.
    #[error("the kernel does not tell: {0}")]
    Kernel(#[from] rtnetlink::Error),
}

/// A socket, and the task that reads it.
struct Netlink {
    handle: Handle,
    task: JoinHandle<()>,
}

impl Netlink {
    fn open() -> Result<Self, NetlinkError> {
        let (connection, handle, _) = new_connection()?;
        let task = tokio::spawn(connection);
        Ok(Self { handle, task })
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The interfaces by index, [`MAX_INTERFACES`] at most, each with its addresses.
pub(crate) async fn interfaces() -> Result<Vec<NetworkInterface>, NetlinkError> {
    let netlink = Netlink::open()?;
    let links = netlink.handle.link().get().execute();
    let links = at_most(links, MAX_INTERFACES).await?;
    let mut interfaces: Vec<_> = links.iter().map(interface).collect();
    interfaces.sort_unstable_by_key(|interface| interface.index);

    let addresses = netlink.handle.address().get().execute();
    let addresses = at_most(addresses, MAX_INTERFACE_ADDRESSES).await?;
    let mut by_interface: HashMap<u32, Vec<NetworkAddress>> = HashMap::new();
    for message in &addresses {
        let list = by_interface.entry(message.header.index).or_default();
        list.extend(address(message));
    }
    for interface in &mut interfaces {
        interface.addresses = by_interface.remove(&interface.index).unwrap_or_default();
    }
    Ok(interfaces)
}

/// The routes in the kernel's order, [`MAX_ROUTES`] at most, and whether there are more. Without a table: all but the
/// local one's.
pub(crate) async fn routes(table: Option<u32>) -> Result<(Vec<NetworkRoute>, bool), NetlinkError> {
    let netlink = Netlink::open()?;
    let links = netlink.handle.link().get().execute();
    let names: HashMap<u32, String> = at_most(links, MAX_INTERFACES)
        .await?
        .iter()
        .map(|link| (link.header.index, interface(link).name))
        .collect();
    let mut routes = Vec::new();
    for version in [IpVersion::V4, IpVersion::V6] {
        let question = match version {
            IpVersion::V4 => RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
            IpVersion::V6 => RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
        };
        let mut answers = std::pin::pin!(netlink.handle.route().get(question).execute());
        while let Some(message) = answers.try_next().await? {
            let found = route(&message, &names);
            let wanted = match table {
                Some(table) => found.table == table,
                None => found.table != TABLE_LOCAL,
            };
            if !wanted {
                continue;
            }
            if routes.len() == MAX_ROUTES {
                return Ok((routes, true));
            }
            routes.push(found);
        }
    }
    Ok((routes, false))
}

async fn at_most<T>(
    answers: impl Stream<Item = Result<T, rtnetlink::Error>>,
    limit: usize,
) -> Result<Vec<T>, NetlinkError> {
    let mut answers = std::pin::pin!(answers);
    let mut list = Vec::new();
    while list.len() < limit
        && let Some(answer) = answers.try_next().await?
    {
        list.push(answer);
    }
    Ok(list)
}

fn interface(message: &LinkMessage) -> NetworkInterface {
    let flags = message.header.flags;
    let mut interface = NetworkInterface {
        index: message.header.index,
        up: flags.contains(LinkFlags::Up),
        running: flags.contains(LinkFlags::Running),
        loopback: flags.contains(LinkFlags::Loopback),
        ..NetworkInterface::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name.clone_from(name),
            // A loopback's is all zeros, which is none.
            LinkAttribute::Address(address) if address.iter().any(|byte| *byte != 0) => {
                interface.hardware_address = hardware_address(address);
            }
            LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
            LinkAttribute::OperState(state) => {
                interface.operational_state = state.to_string().to_lowercase();
            }
            LinkAttribute::Controller(index) => interface.master_index = *index,
            LinkAttribute::LinkInfo(infos) => {
                let kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
                interface.kind = kind.unwrap_or_default();
            }
            LinkAttribute::Stats64(stats) => {
                interface.counters = Some(InterfaceCounters {
                    received_bytes: stats.rx_bytes,
                    received_packets: stats.rx_packets,
                    receive_errors: stats.rx_errors,
                    receive_dropped: stats.rx_dropped,
                    sent_bytes: stats.tx_bytes,
                    sent_packets: stats.tx_packets,
                    send_errors: stats.tx_errors,
                    send_dropped: stats.tx_dropped,
                });
            }
            _ => {}
        }
    }
    interface
}

fn hardware_address(bytes: &[u8]) -> String {
    let octets: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    octets.join(":")
}

/// An address; none if the message has none.
fn address(message: &AddressMessage) -> Option<NetworkAddress> {
    let (mut local, mut peer, mut broadcast) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(address),
            AddressAttribute::Address(address) => peer = Some(address),
            AddressAttribute::Broadcast(address) => broadcast = Some(address.to_string()),
            _ => {}
        }
    }
    Some(NetworkAddress {
        // Over a point-to-point link ADDRESS is the other end's.
        address: local.or(peer)?.to_string(),
        prefix_length: message.header.prefix_len.into(),
        scope: match message.header.scope {
            AddressScope::Universe => "global".to_owned(),
            other => other.to_string(),
        },
        broadcast: broadcast.unwrap_or_default(),
        permanent: message.header.flags.contains(AddressHeaderFlags::Permanent),
    })
}

fn route(message: &RouteMessage, names: &HashMap<u32, String>) -> NetworkRoute {
    let header = &message.header;
    let is_v6 = header.address_family == AddressFamily::Inet6;
    let mut route = NetworkRoute {
        ip_version: if is_v6 { 6 } else { 4 },
        destination: if is_v6 { "::" } else { "0.0.0.0" }.to_owned(),
        destination_prefix_length: header.destination_prefix_length.into(),
        table: header.table.into(),
        protocol: header.protocol.to_string().to_lowercase(),
        scope: match header.scope {
            RouteScope::Universe => "global".to_owned(),
            other => other.to_string().to_lowercase(),
        },
        r#type: route_type(header.kind),
        ..NetworkRoute::default()
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => route.destination = text(address),
            RouteAttribute::Gateway(address) => route.gateway = text(address),
            RouteAttribute::PrefSource(address) => route.preferred_source = text(address),
            RouteAttribute::Oif(index) => route.interface_index = *index,
            RouteAttribute::Priority(metric) => route.metric = *metric,
            // The header has room for small numbers only.
            RouteAttribute::Table(table) => route.table = *table,
            // The first of several ways.
            RouteAttribute::MultiPath(hops) => {
                if let Some(hop) = hops.first() {
                    route.interface_index = hop.interface_index;
                    let gateway = hop.attributes.iter().find_map(|attribute| match attribute {
                        RouteAttribute::Gateway(address) => Some(text(address)),
                        _ => None,
                    });
                    route.gateway = gateway.unwrap_or_default();
                }
            }
            _ => {}
        }
    }
    if let Some(name) = names.get(&route.interface_index) {
        route.interface.clone_from(name);
    }
    route
}

/// As `ip route` names them.
fn route_type(kind: RouteType) -> String {
    format!("{kind:?}").to_lowercase()
}

fn text(address: &RouteAddress) -> String {
    match address {
        RouteAddress::Inet(address) => IpAddr::from(*address).to_string(),
        RouteAddress::Inet6(address) => IpAddr::from(*address).to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_loopback_is_an_interface_with_its_address() {
        let interfaces = interfaces().await.unwrap();
        let lo = interfaces.iter().find(|interface| interface.loopback);
        let lo = lo.expect("every Linux has one");
        assert_eq!((lo.name.as_str(), lo.hardware_address.as_str()), ("lo", ""));
        assert!(lo.counters.is_some() && lo.mtu > 0);
        if lo.up {
            let home = lo.addresses.iter().find(|it| it.address == "127.0.0.1");
            let home = home.expect("an up loopback has it");
            assert_eq!((home.prefix_length, home.scope.as_str()), (8, "host"));
            assert!(home.permanent);
        }
        assert!(interfaces.is_sorted_by_key(|interface| interface.index));
    }

    #[tokio::test]
    async fn the_local_table_is_told_only_to_those_who_ask_for_it() {
        let (all, truncated) = routes(None).await.unwrap();
        assert!(!truncated && all.iter().all(|route| route.table != TABLE_LOCAL));
        let (local, _) = routes(Some(TABLE_LOCAL)).await.unwrap();
        assert!(local.iter().all(|route| route.table == TABLE_LOCAL));
        let own = local.iter().find(|route| route.destination == "127.0.0.1");
        if let Some(own) = own {
            assert_eq!(
                (own.interface.as_str(), own.r#type.as_str()),
                ("lo", "local")
            );
            assert_eq!((own.ip_version, own.protocol.as_str()), (4, "kernel"));
        }
    }

    #[test]
    fn a_route_with_several_ways_shows_the_first() {
        use rtnetlink::packet_route::route::RouteNextHop;
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = 24;
        message.header.kind = RouteType::BlackHole;
        let mut hop = RouteNextHop::default();
        hop.interface_index = 3;
        let gateway = RouteAddress::Inet([192, 0, 2, 1].into());
        hop.attributes = vec![RouteAttribute::Gateway(gateway)];
        message.attributes = vec![
            RouteAttribute::Destination(RouteAddress::Inet([198, 51, 100, 0].into())),
            RouteAttribute::MultiPath(vec![hop]),
            RouteAttribute::Table(1000),
        ];
        let route = route(&message, &HashMap::from([(3, "eth0".to_owned())]));
        assert_eq!(route.destination, "198.51.100.0");
        assert_eq!(
            (
                route.gateway.as_str(),
                route.interface.as_str(),
                route.table
            ),
            ("192.0.2.1", "eth0", 1000)
        );
        assert_eq!(route.r#type, "blackhole");
    }
}
