//! `Network`: interfaces and routes. The agent tells no numbers of interfaces, no states and no scopes.

use std::{net::IpAddr, sync::Arc};

use serde::Deserialize;
use serde_json::Value;
use tonic::Status;
use vbridge_api::guest::v1 as api;

use super::{
    agent::{Agent, text},
    failure::Failure,
    refusal::cannot_field,
};

/// Interfaces, as `network.proto` promises.
const MAX_INTERFACES: usize = 1024;

/// Addresses of one interface. The rest is left out.
const MAX_ADDRESSES: usize = 1024;

/// Routes, as `network.proto` promises.
const MAX_ROUTES: usize = 8192;

/// The kernel's word for a state that is not known.
const UNKNOWN: &str = "unknown";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Interface {
    name: String,
    #[serde(default)]
    hardware_address: String,
    #[serde(default)]
    ip_addresses: Vec<Address>,
    statistics: Option<Statistics>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Address {
    ip_address: String,
    prefix: u32,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Statistics {
    rx_bytes: u64,
    rx_packets: u64,
    rx_errs: u64,
    rx_dropped: u64,
    tx_bytes: u64,
    tx_packets: u64,
    tx_errs: u64,
    tx_dropped: u64,
}

pub(super) async fn list_interfaces(
    agent: Arc<Agent>,
    _: api::NetworkListInterfacesRequest,
) -> Result<api::NetworkListInterfacesResponse, Status> {
    let interfaces: Vec<Interface> = agent
        .ask("guest-network-get-interfaces", Value::Null)
        .await?;
    let interfaces = interfaces.into_iter().take(MAX_INTERFACES);
    Ok(api::NetworkListInterfacesResponse {
        interfaces: interfaces.map(interface).collect(),
    })
}

fn interface(interface: Interface) -> api::NetworkInterface {
    let is_loopback = |address: &Address| {
        let address = address.ip_address.parse();
        address.is_ok_and(|address: IpAddr| address.is_loopback())
    };
    let loopback = interface.ip_addresses.iter().any(is_loopback);
    let addresses = interface.ip_addresses.into_iter().take(MAX_ADDRESSES);
    api::NetworkInterface {
        name: text(interface.name),
        hardware_address: text(interface.hardware_address),
        addresses: addresses
            .map(|address| api::NetworkAddress {
                address: text(address.ip_address),
                prefix_length: address.prefix,
                ..api::NetworkAddress::default()
            })
            .collect(),
        operational_state: UNKNOWN.to_owned(),
        counters: interface.statistics.as_ref().map(counters),
        loopback,
        ..api::NetworkInterface::default()
    }
}

fn counters(counted: &Statistics) -> api::InterfaceCounters {
    api::InterfaceCounters {
        received_bytes: counted.rx_bytes,
        received_packets: counted.rx_packets,
        receive_errors: counted.rx_errs,
        receive_dropped: counted.rx_dropped,
        sent_bytes: counted.tx_bytes,
        sent_packets: counted.tx_packets,
        send_errors: counted.tx_errs,
        send_dropped: counted.tx_dropped,
    }
}

#[derive(Debug, Deserialize)]
struct Route {
    #[serde(default)]
    iface: String,
    destination: String,
    #[serde(default)]
    metric: i64,
    /// Of IPv4.
    gateway: Option<String>,
    mask: Option<String>,
    /// Of IPv6.
    nexthop: Option<String>,
    desprefixlen: Option<String>,
    version: u32,
}

pub(super) async fn list_routes(
    agent: Arc<Agent>,
    request: api::NetworkListRoutesRequest,
) -> Result<api::NetworkListRoutesResponse, Status> {
    if request.table.is_some() {
        return Err(cannot_field("table", "does not tell the tables of routes"));
    }
    let command = "guest-network-get-route";
    let routes: Vec<Route> = agent.ask(command, Value::Null).await?;
    let truncated = routes.len() > MAX_ROUTES;
    let routes = routes.into_iter().take(MAX_ROUTES).map(route);
    let routes: Result<_, _> = routes.collect();
    Ok(api::NetworkListRoutesResponse {
        routes: routes.map_err(|why| Failure::garbled(command, &why))?,
        truncated,
    })
}

fn route(route: Route) -> Result<api::NetworkRoute, String> {
    // An address of zeros is none.
    let hop = route.gateway.or(route.nexthop).unwrap_or_default();
    let is_none = |hop: &str| hop.parse().is_ok_and(|hop: IpAddr| hop.is_unspecified());
    let prefix = match (route.mask, route.desprefixlen) {
        (_, Some(length)) => length.parse().ok().filter(|length| *length <= 128),
        (Some(mask), None) => mask.parse().ok().and_then(prefix_length),
        (None, None) => None,
    };
    let prefix = prefix.ok_or_else(|| "a route has neither a mask nor a length".to_owned())?;
    if !matches!(route.version, 4 | 6) {
        return Err(format!("a route is of IP version {}", route.version));
    }
    Ok(api::NetworkRoute {
        ip_version: route.version,
        destination: text(route.destination),
        destination_prefix_length: prefix,
        gateway: match is_none(&hop) {
            true => String::new(),
            false => text(hop),
        },
        interface: text(route.iface),
        // The kernel's are unsigned, and the agent prints them as they come.
        metric: u32::try_from(route.metric & i64::from(u32::MAX)).unwrap_or_default(),
        ..api::NetworkRoute::default()
    })
}

/// The length of a mask; nothing if it has holes.
fn prefix_length(mask: std::net::Ipv4Addr) -> Option<u32> {
    let bits = mask.to_bits();
    let length = bits.leading_ones();
    (length == bits.count_ones()).then_some(length)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tonic::Code;
    use vbridge_api::guest::v1::network_client::NetworkClient;

    use super::*;
    use crate::qemu::script::Script;

    async fn interfaces(answer: Value) -> Result<Vec<api::NetworkInterface>, Status> {
        let script = Script::fixed([("guest-network-get-interfaces", answer)]);
        let mut client = NetworkClient::new(script.serve());
        let request = api::NetworkListInterfacesRequest {};
        let answer = client.list_interfaces(request).await?;
        Ok(answer.into_inner().interfaces)
    }

    #[tokio::test]
    async fn interfaces_come_with_addresses_and_counters() {
        let counters = json!({
            "rx-bytes": u64::MAX, "rx-packets": 2, "rx-errs": 3, "rx-dropped": 4,
            "tx-bytes": 5, "tx-packets": 6, "tx-errs": 7, "tx-dropped": 8
        });
        let answer = json!([
            { "name": "lo", "ip-addresses": [{ "ip-address": "::1", "ip-address-type": "ipv6", "prefix": 128 }] },
            { "name": "eth0", "hardware-address": "52:54:00:00:00:01", "statistics": counters }
        ]);
        let interfaces = interfaces(answer).await.unwrap();
        assert!(interfaces[0].loopback && interfaces[0].counters.is_none());
        assert_eq!(interfaces[0].addresses[0].prefix_length, 128);
        assert_eq!(interfaces[1].hardware_address, "52:54:00:00:00:01");
        let counters = interfaces[1].counters.unwrap();
        assert_eq!(
            (counters.received_bytes, counters.send_dropped),
            (u64::MAX, 8)
        );
        assert_eq!(interfaces[1].operational_state, UNKNOWN);
    }

    #[tokio::test]
    async fn strange_interfaces_are_one_clear_error_or_are_cut_off() {
        for answer in [
            json!({}),
            json!([{}]),
            json!([{ "name": 1 }]),
            json!([{ "name": "a", "ip-addresses": [{ "ip-address": "x", "prefix": -1 }] }]),
            json!([{ "name": "a", "statistics": { "rx-bytes": 1e300 } }]),
            json!("\u{1b}[2J"),
        ] {
            let status = interfaces(answer).await.unwrap_err();
            assert_eq!(status.code(), Code::Internal);
            assert!(!status.message().chars().any(char::is_control), "{status}");
        }
        let many = vec![json!({ "name": "\u{1b}[2J", "ip-addresses": [] }); MAX_INTERFACES + 5];
        let many = interfaces(Value::Array(many)).await.unwrap();
        assert_eq!(many.len(), MAX_INTERFACES);
        assert_eq!(
            many[0].name, "\u{1b}[2J",
            "what is data is passed on as it is"
        );
    }

    async fn routes(answer: Value, table: Option<u32>) -> Result<Vec<api::NetworkRoute>, Status> {
        let script = Script::fixed([("guest-network-get-route", answer)]);
        let mut client = NetworkClient::new(script.serve());
        let answer = client.list_routes(api::NetworkListRoutesRequest { table });
        Ok(answer.await?.into_inner().routes)
    }

    #[tokio::test]
    async fn routes_of_both_versions_have_a_length_and_a_next_hop() {
        let answer = json!([
            { "iface": "eth0", "destination": "0.0.0.0", "metric": 100, "gateway": "192.0.2.1", "mask": "0.0.0.0", "version": 4 },
            { "iface": "eth0", "destination": "192.0.2.0", "metric": 0, "gateway": "0.0.0.0", "mask": "255.255.255.0", "version": 4 },
            { "iface": "lo", "destination": "::1", "metric": -1, "nexthop": "::", "desprefixlen": "128", "version": 6 }
        ]);
        let routes = routes(answer, None).await.unwrap();
        let told: Vec<_> = routes
            .iter()
            .map(|route| {
                (
                    route.destination_prefix_length,
                    route.gateway.as_str(),
                    route.metric,
                )
            })
            .collect();
        assert_eq!(
            told,
            [(0, "192.0.2.1", 100), (24, "", 0), (128, "", u32::MAX)]
        );
    }

    #[tokio::test]
    async fn a_table_is_refused_and_so_is_what_is_no_route() {
        let status = routes(json!([]), Some(254)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
        for wrong in [
            json!({ "destination": "0.0.0.0", "version": 4 }),
            json!({ "destination": "0.0.0.0", "mask": "255.0.255.0", "version": 4 }),
            json!({ "destination": "::", "desprefixlen": "129", "version": 6 }),
            json!({ "destination": "::", "desprefixlen": "0", "version": 5 }),
        ] {
            let status = routes(json!([wrong]), None).await.unwrap_err();
            assert_eq!(status.code(), Code::Internal);
        }
    }
}
