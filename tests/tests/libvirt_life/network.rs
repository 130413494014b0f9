//! The lives of networks and filters, and what the host has: interfaces and devices.

use std::{collections::BTreeSet, slice, time::SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use libvirt::{
    Connect, Interface, Network, NodeDevice,
    events::{NetworkEvent, NetworkEventKind},
    raw::api::{
        ConnectListAllInterfacesFlags, ConnectListAllNetworksFlags, ConnectListAllNodeDeviceFlags,
        DomainInterfaceAddressesSource, ErrorNumber, InterfaceDefineFlags, InterfaceXmlFlags,
        NetworkUpdateCommand, NetworkUpdateFlags, NetworkUpdateSection, NetworkXmlFlags,
        NodeDeviceXmlFlags,
    },
};
use vbridge_tests::{
    fixture::{eventually, story},
    libvirt::{client::virsh, daemon::Libvirtd, domain::Domain, limits::CLIENT},
};

use crate::support::{DESTROY, PAUSED, Record, line, open, refused};

const NETWORK: &str = "<network><name>lan</name><bridge name='virbr7'/>\
     <ip address='192.168.150.1' netmask='255.255.255.0'>\
     <dhcp><range start='192.168.150.2' end='192.168.150.9'/></dhcp></ip></network>";

/// A host that DHCP gives a certain address.
const HOST: &str = "<host mac='52:54:00:00:00:07' name='seven' ip='192.168.150.77'/>";
const MAC: &str = "52:54:00:00:00:07";
const ADDRESS: &str = "192.168.150.77";

/// Lets everything pass but what claims another Ethernet address.
const FILTER: &str = "<filter name='quiet' chain='root'>\
     <rule action='drop' direction='out' priority='500'><mac match='no' srcmacaddr='$MAC'/></rule></filter>";

fn network_line(event: &NetworkEvent) -> String {
    match &event.kind {
        NetworkEventKind::Lifecycle { event: kind, .. } => {
            format!("{kind} {}", event.object.name())
        }
        kind => format!("{kind:?} {}", event.object.name()),
    }
}

async fn record(connect: &Connect) -> Result<Record<NetworkEvent>> {
    let kinds = connect.supported_network_events().await?;
    let events = connect.network_events(&kinds, None, None).await?;
    Ok(Record::new(events, network_line))
}

#[test]
fn a_network_lives_from_its_definition_to_its_end() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = open(daemon).await?;
        let mut record = record(&connect).await?;
        let network = connect.define_network(NETWORK).await?;
        record.tells(&["Defined lan"]).await?;
        ensure!(network.is_persistent().await? && !network.is_active().await?);
        ensure!(network.bridge_name().await? == "virbr7");
        ensure!(connect.network_by_uuid(network.uuid()).await? == network);
        network.set_autostart(true).await?;
        let list = ["net-list", "--all", "--autostart", "--name"];
        ensure!(line(daemon, &list).await? == "lan" && network.autostart().await?);

        network.start().await?;
        record.tells(&["Started lan"]).await?;
        let links = daemon.within("ip", &["-o", "link"]).await?.ok()?;
        ensure!(links.contains("virbr7"), "{links}");
        let flags = ConnectListAllNetworksFlags::ACTIVE;
        ensure!(connect.networks(flags).await? == slice::from_ref(&network));
        refused(network.start().await, ErrorNumber::OperationInvalid)?;

        updated(daemon, &network).await?;

        network.destroy().await?;
        record.tells(&["Stopped lan"]).await?;
        let links = daemon.within("ip", &["-o", "link"]).await?.ok()?;
        ensure!(!links.contains("virbr7"), "{links}");
        network.undefine().await?;
        record.tells(&["Undefined lan"]).await?;
        refused(connect.network_by_name("lan").await, ErrorNumber::NoNetwork)?;

        let passing = connect.create_network(NETWORK).await?;
        ensure!(!passing.is_persistent().await? && passing.is_active().await?);
        passing.destroy().await?;
        record.tells(&["Started lan", "Stopped lan"]).await?;
        refused(passing.ports().await, ErrorNumber::NoNetwork)?;
        let mark = async {
            let network = connect.define_network("<network><name>mark</name></network>");
            Ok(network.await?.undefine().await?)
        };
        let told = ["Defined mark", "Undefined mark"];
        record.ends_with(mark, &told).await
    }));
}

/// A host gets a name and an address of its own while the network runs.
async fn updated(daemon: &Libvirtd, network: &Network) -> Result<()> {
    let both = NetworkUpdateFlags::AFFECT_LIVE | NetworkUpdateFlags::AFFECT_CONFIG;
    let host = NetworkUpdateSection::IpDhcpHost;
    let add = NetworkUpdateCommand::AddLast;
    network.update(add, host, -1, HOST, both).await?;
    for flags in [NetworkXmlFlags::empty(), NetworkXmlFlags::INACTIVE] {
        let xml = network.xml(flags).await?;
        ensure!(xml.contains(ADDRESS), "{flags:?}: {xml}");
    }
    let shown = line(daemon, &["net-dumpxml", "lan"]).await?;
    ensure!(shown.contains("name='seven'"), "{shown}");
    leased(daemon, network).await?;
    let remove = NetworkUpdateCommand::Delete;
    network.update(remove, host, -1, HOST, both).await?;
    let xml = network.xml(NetworkXmlFlags::empty()).await?;
    ensure!(!xml.contains("seven"), "{xml}");
    Ok(())
}

/// The host asks for its address: a pair of cards and busybox's DHCP client stand for it.
async fn leased(daemon: &Libvirtd, network: &Network) -> Result<()> {
    ensure!(network.dhcp_leases(None).await?.is_empty());
    for command in [
        "link add host type veth peer name guest".to_owned(),
        format!("link set guest address {MAC}"),
        "link set host master virbr7 up".to_owned(),
        "link set guest up".to_owned(),
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        daemon.within("ip", &words).await?.ok()?;
    }
    // In the foreground, ten times a second apart at most, until there is a lease.
    let ask = "udhcpc -i guest -f -q -n -t 10 -T 1 -s /bin/true";
    let ask: Vec<&str> = ask.split(' ').collect();
    daemon.within("busybox", &ask).await?.ok()?;

    // The client has its answer before dnsmasq has told libvirt's helper of it.
    let is_told = async || Ok(!network.dhcp_leases(Some(MAC)).await?.is_empty());
    eventually("the lease", CLIENT, is_told).await?;
    let leases = network.dhcp_leases(Some(MAC)).await?;
    let [lease] = &leases[..] else {
        bail!("{leases:?}")
    };
    ensure!(lease.address == Some(ADDRESS.parse()?), "{lease:?}");
    ensure!(
        (lease.prefix, lease.interface.as_str()) == (24, "virbr7"),
        "{lease:?}"
    );
    ensure!(lease.mac.as_deref() == Some(MAC), "{lease:?}");
    ensure!(lease.hostname.as_deref() == Some("seven"), "{lease:?}");
    ensure!(lease.expires > Some(SystemTime::now()), "{lease:?}");
    let shown = line(daemon, &["net-dhcp-leases", "lan"]).await?;
    ensure!(shown.contains(&format!("{ADDRESS}/24")), "{shown}");
    ensure!(network.dhcp_leases(None).await? == leases);
    let other = network.dhcp_leases(Some("52:54:00:00:00:08")).await?;
    ensure!(other.is_empty(), "{other:?}");
    Ok(())
}

/// The rules of filters on cards.
async fn rules(daemon: &Libvirtd) -> Result<String> {
    daemon.within("ebtables", &["-t", "nat", "-L"]).await?.ok()
}

#[test]
fn a_filter_is_bound_to_a_guests_card_on_a_network() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = open(daemon).await?;
        let network = connect.create_network(NETWORK).await?;
        let filter = connect.define_nwfilter(FILTER).await?;
        ensure!(connect.nwfilters().await? == slice::from_ref(&filter));
        ensure!(connect.nwfilter_by_name("quiet").await? == filter);
        ensure!(connect.nwfilter_by_uuid(filter.uuid()).await? == filter);
        ensure!(line(daemon, &["nwfilter-list"]).await?.contains("quiet"));
        ensure!(filter.xml().await?.contains("$MAC"));
        ensure!(connect.nwfilter_bindings().await?.is_empty());

        let wired = Domain::builder("wired").network("lan", Some("quiet"));
        let machine = wired.build().await?;
        let domain = connect.create_domain(machine.xml(), PAUSED).await?;
        plugged_in(&network, &domain).await?;
        let bindings = connect.nwfilter_bindings().await?;
        let [binding] = &bindings[..] else {
            bail!("{bindings:?}")
        };
        ensure!((binding.port(), binding.filter_name()) == ("tap0", "quiet"));
        ensure!(connect.nwfilter_binding_by_port("tap0").await? == *binding);
        ensure!(binding.xml().await?.contains(machine.uuid()));
        let shown = line(daemon, &["nwfilter-binding-list"]).await?;
        ensure!(shown.contains("tap0"), "{shown}");
        ensure!(rules(daemon).await?.contains("tap0"));
        refused(filter.undefine().await, ErrorNumber::OperationInvalid)?;

        binding.delete().await?;
        ensure!(!rules(daemon).await?.contains("tap0"));
        domain.destroy(DESTROY).await?;
        ensure!(network.ports().await?.is_empty());
        filter.undefine().await?;
        let gone = connect.nwfilter_by_name("quiet").await;
        refused(gone, ErrorNumber::NoNwfilter)?;
        Ok(())
    }));
}

/// A domain's only card, and the port of the network that it is on.
async fn plugged_in(network: &Network, domain: &libvirt::Domain) -> Result<()> {
    let ports = network.ports().await?;
    let [port] = &ports[..] else {
        bail!("{ports:?}")
    };
    ensure!(port.network() == *network);
    ensure!(network.port_by_uuid(port.uuid()).await? == *port);
    let uuid = domain.uuid().to_string();
    ensure!(port.xml().await?.contains(&uuid));
    let stats = domain.interface_stats("tap0").await?;
    ensure!(stats.received_packets.is_some(), "{stats:?}");
    ensure!(stats.send_errors == Some(0), "{stats:?}");
    let leases = DomainInterfaceAddressesSource::Lease;
    let addresses = domain.interface_addresses(leases).await?;
    ensure!(addresses.is_empty(), "{addresses:?}");
    Ok(())
}

/// No udev has told the daemon of devices, so there are few.
#[test]
fn the_hosts_devices_are_shown() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = open(daemon).await?;
        let flags = ConnectListAllNodeDeviceFlags::empty();
        let devices = connect.node_devices(flags).await?;
        let names: BTreeSet<&str> = devices.iter().map(NodeDevice::name).collect();
        let shown = line(daemon, &["nodedev-list"]).await?;
        let expected: BTreeSet<&str> = shown.split_whitespace().collect();
        ensure!(names == expected, "{names:?}, but virsh has {expected:?}");
        let computer = connect.node_device_by_name("computer").await?;
        ensure!(computer.capabilities().await? == ["system"]);
        ensure!(computer.parent().await?.is_none() && computer.is_active().await?);
        let xml = computer.xml(NodeDeviceXmlFlags::empty()).await?;
        let shown = line(daemon, &["nodedev-dumpxml", "computer"]).await?;
        ensure!(xml.trim() == shown, "{xml}, but virsh has {shown}");
        let none = connect.node_device_by_name("nothing").await;
        refused(none, ErrorNumber::NoNodeDevice)?;
        Ok(())
    }));
}

/// Whether interfaces can be changed depends on how libvirt was built: with netcf, or to look only.
#[test]
fn the_hosts_interfaces_are_shown_and_none_is_made_of_nothing() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = open(daemon).await?;
        let flags = ConnectListAllInterfacesFlags::empty();
        let interfaces = connect.interfaces(flags).await?;
        let names = interfaces.iter().map(Interface::name);
        let shown = line(daemon, &["iface-list", "--all"]).await?;
        let expected = shown
            .lines()
            .filter_map(|line| line.split_whitespace().next());
        ensure!(names.eq(expected), "{interfaces:?}, but virsh has {shown}");
        // Each one that there is: with netcf the loopback device may not be among them.
        for each in &interfaces {
            ensure!(connect.interface_by_name(each.name()).await? == *each);
            let xml = each.xml(InterfaceXmlFlags::empty()).await?;
            let shown = line(daemon, &["iface-dumpxml", each.name()]).await?;
            ensure!(xml.trim() == shown, "{xml}, but virsh has {shown}");
        }
        let none = connect.interface_by_name("nothing").await;
        refused(none, ErrorNumber::NoInterface)?;

        let nothing = "<interface/>";
        let defined = connect
            .define_interface(nothing, InterfaceDefineFlags::empty())
            .await;
        let error = defined.err().context("an interface of nothing")?;
        let said = error.remote().context("it is the daemon's")?;
        let file = daemon.folder().join("nothing.xml");
        std::fs::write(&file, nothing)?;
        let define = ["iface-define", &file.display().to_string()];
        let shown = virsh(&daemon.uri("qemu"), &define).await?.refusal()?;
        ensure!(
            shown.contains(&said.message),
            "{error}, but virsh has {shown}"
        );
        if said.is(ErrorNumber::NoSupport) {
            for each in &interfaces {
                refused(each.destroy().await, ErrorNumber::NoSupport)?;
            }
            let begun = connect.begin_interface_change().await;
            refused(begun, ErrorNumber::NoSupport)?;
        } else {
            ensure!(said.is(ErrorNumber::XmlError), "{error}");
        }
        Ok(())
    }));
}

/// The test driver has interfaces in memory, and all that can be done with them.
#[test]
fn an_interface_lives_from_its_definition_to_its_end_and_changes_are_taken_back() {
    const CARD: &str = "<interface type='ethernet' name='eth7'><start mode='none'/>\
         <mac address='aa:bb:cc:dd:ee:07'/><mtu size='1492'/></interface>";

    story(Libvirtd::builder().run(async |daemon| {
        let connect = Connect::open(&daemon.uri("test")).await?;
        let define = || connect.define_interface(CARD, InterfaceDefineFlags::empty());
        let listed = async |flags| -> Result<Vec<String>> {
            let listed = connect.interfaces(flags).await?;
            let mut names: Vec<_> = listed.iter().map(|it| it.name().to_owned()).collect();
            names.sort();
            Ok(names)
        };
        let (active, inactive) = (
            ConnectListAllInterfacesFlags::ACTIVE,
            ConnectListAllInterfacesFlags::INACTIVE,
        );
        connect.begin_interface_change().await?;
        let card = define().await?;
        ensure!((card.name(), card.mac()) == ("eth7", "aa:bb:cc:dd:ee:07"));
        ensure!(connect.interface_by_mac(card.mac()).await? == card);
        ensure!(listed(inactive).await? == ["eth7"] && !card.is_active().await?);
        let xml = card.xml(InterfaceXmlFlags::empty()).await?;
        ensure!(xml.contains("<mtu size='1492'/>"), "{xml}");
        card.start().await?;
        ensure!(listed(active).await? == ["eth1", "eth7"] && card.is_active().await?);
        refused(card.start().await, ErrorNumber::OperationInvalid)?;
        connect.commit_interface_change().await?;

        connect.begin_interface_change().await?;
        let twice = connect.begin_interface_change().await;
        refused(twice, ErrorNumber::OperationInvalid)?;
        card.destroy().await?;
        card.undefine().await?;
        refused(card.is_active().await, ErrorNumber::NoInterface)?;
        ensure!(listed(active).await? == ["eth1"]);
        connect.rollback_interface_change().await?;
        // The driver remembers what there was, and not what was up.
        let all = ConnectListAllInterfacesFlags::empty();
        ensure!(listed(all).await? == ["eth1", "eth7"]);
        let nothing = connect.rollback_interface_change().await;
        refused(nothing, ErrorNumber::OperationInvalid)?;
        Ok(())
    }));
}
