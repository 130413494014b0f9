"""The reference's calls of the connection, the host and everything but domains."""

import ctypes
import urllib.parse

import libvirt
from reference_entries import (
    bits,
    each,
    fields,
    reads,
    received,
    show_binding,
    show_device,
    show_domain,
    show_interface,
    show_network,
    show_network_port,
    show_nwfilter,
    show_pool,
    show_secret,
    show_volume,
    simple,
)

# === What the binding lacks ===


def uri_of_daemon(uri):
    """The C library tells the URI that it was given, and only asks the daemon for one where it was given none. So what
    the daemon is not told is taken off: how the bytes get there."""
    parts = urllib.parse.urlsplit(uri)
    driver = parts.scheme.partition("+")[0]
    return urllib.parse.urlunsplit((driver, "", parts.path, "", "")).replace(":/", ":///", 1)


def supports_feature(connection, feature):
    """A function of the C library that it keeps to itself and its daemons (libvirt_private), so the binding has none."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    function = ctypes.CDLL("libvirt.so.0").virConnectSupportsFeature
    function.restype, function.argtypes = ctypes.c_int, [ctypes.c_void_p, ctypes.c_int]
    supported = function(pointer(connection._o, b"virConnectPtr"), feature)
    if supported < 0:
        raise libvirt.libvirtError("virConnectSupportsFeature() failed")
    return supported


# === Connection and node ===

simple("connect_get_type", "", lambda c: c.getType())
simple("connect_get_version", "", lambda c: c.getVersion())
simple("connect_get_lib_version", "", lambda c: c.getLibVersion())
simple("connect_get_hostname", "", lambda c: c.getHostname())
simple("connect_get_uri", "", lambda c: uri_of_daemon(c.getURI()))
# 4: the driver lets its daemon migrate domains to another one by itself, which QEMU's does and the test driver's does not.
simple("connect_supports_feature", "feature=4", supports_feature)
simple("connect_get_max_vcpus", "type=null", lambda c, type: c.getMaxVcpus(type))
simple("connect_get_capabilities", "", lambda c: c.getCapabilities())
simple("connect_get_sysinfo", "flags=0", lambda c, flags: c.getSysinfo(flags))
simple("connect_is_secure", "", lambda c: c.isSecure())
simple("connect_compare_cpu", "xml flags=0", lambda c, xml, flags: c.compareCPU(xml, flags))
simple("connect_baseline_cpu", "xmls flags=0", lambda c, xmls, flags: c.baselineCPU(xmls, flags))
simple(
    "connect_get_cpu_model_names",
    'arch="x86_64" flags=0',
    lambda c, arch, flags: c.getCPUModelNames(arch, flags),
)
simple(
    "connect_get_domain_capabilities",
    "emulator=null arch=null machine=null virttype=null flags=0",
    lambda c, emulator, arch, machine, virttype, flags: c.getDomainCapabilities(
        emulator, arch, machine, virttype, flags
    ),
)
simple(
    "connect_compare_hypervisor_cpu",
    "xml emulator=null arch=null machine=null virttype=null flags=0",
    lambda c, xml, emulator, arch, machine, virttype, flags: c.compareHypervisorCPU(
        emulator, arch, machine, virttype, xml, flags
    ),
)
simple(
    "connect_baseline_hypervisor_cpu",
    "xmls emulator=null arch=null machine=null virttype=null flags=0",
    lambda c, xmls, emulator, arch, machine, virttype, flags: c.baselineHypervisorCPU(
        emulator, arch, machine, virttype, xmls, flags
    ),
)
simple(
    "connect_domain_xml_from_native",
    "format config flags=0",
    lambda c, format, config, flags: c.domainXMLFromNative(format, config, flags),
)
simple(
    "connect_domain_xml_to_native",
    "format xml flags=0",
    lambda c, format, xml, flags: c.domainXMLToNative(format, xml, flags),
)
simple(
    "connect_find_storage_pool_sources",
    'type="dir" spec=null flags=0',
    lambda c, type, spec, flags: c.findStoragePoolSources(type, spec, flags),
)
simple(
    "connect_get_storage_pool_capabilities",
    "flags=0",
    lambda c, flags: c.getStoragePoolCapabilities(flags),
)
simple(
    "connect_get_all_domain_stats",
    "stats=0 flags=0",
    lambda c, stats, flags: [
        {"dom": show_domain(dom), "params": params} for dom, params in c.getAllDomainStats(stats, flags)
    ],
)


@reads("node_get_info")
def node_get_info(c):
    # The binding has shortened the memory from KiB to MiB.
    return fields("model memory_mib cpus mhz nodes sockets cores threads", c.getInfo())


@reads("node_get_cpu_map", "flags=0")
def node_get_cpu_map(c, flags):
    count, cpus, online = c.getCPUMap(flags)
    return {"cpumap": bits(cpus), "online": online, "ret": count}


@reads("node_get_free_pages", "pages=[4] start_cell=0 cell_count=1 flags=0")
def node_get_free_pages(c, pages, start_cell, cell_count, flags):
    cells = c.getFreePages(pages, start_cell, cell_count, flags)
    return [count for cell in sorted(cells) for _, count in sorted(cells[cell].items())]


simple("node_get_free_memory", "", lambda c: c.getFreeMemory())
simple(
    "node_get_cells_free_memory",
    "start_cell=0 max_cells=1",
    lambda c, start_cell, max_cells: c.getCellsFreeMemory(start_cell, max_cells),
)
simple("node_get_security_model", "", lambda c: fields("model doi", c.getSecurityModel()))
simple("node_get_cpu_stats", "cpu=-1 flags=0", lambda c, cpu, flags: c.getCPUStats(cpu, flags))
simple("node_get_memory_stats", "cell=-1 flags=0", lambda c, cell, flags: c.getMemoryStats(cell, flags))
simple("node_get_memory_parameters", "flags=0", lambda c, flags: c.getMemoryParameters(flags))
simple("node_get_sev_info", "flags=0", lambda c, flags: c.getSEVInfo(flags))

# === Networks and their ports ===

simple("connect_num_of_networks", "", lambda c: c.numOfNetworks())
simple("connect_num_of_defined_networks", "", lambda c: c.numOfDefinedNetworks())
simple("connect_list_networks", "", lambda c: c.listNetworks())
simple("connect_list_defined_networks", "", lambda c: c.listDefinedNetworks())
simple("connect_list_all_networks", "flags=0", lambda c, flags: each(show_network, c.listAllNetworks(flags)))
simple("network_lookup_by_name", "name", lambda c, name: show_network(c.networkLookupByName(name)))
simple("network_lookup_by_uuid", "uuid", lambda c, uuid: show_network(c.networkLookupByUUIDString(uuid)))
simple("network_get_xml_desc", "network flags=0", lambda c, network, flags: network.XMLDesc(flags))
simple("network_get_bridge_name", "network", lambda c, network: network.bridgeName())
simple("network_get_autostart", "network", lambda c, network: network.autostart())
simple("network_is_active", "network", lambda c, network: network.isActive())
simple("network_is_persistent", "network", lambda c, network: network.isPersistent())
simple(
    "network_get_dhcp_leases",
    "network mac=null flags=0",
    lambda c, network, mac, flags: network.DHCPLeases(mac, flags),
)
simple(
    "network_get_metadata",
    "network type uri=null flags=0",
    lambda c, network, type, uri, flags: network.metadata(type, uri, flags),
    needs="virNetwork.metadata",
)
simple(
    "network_list_all_ports",
    "network flags=0",
    lambda c, network, flags: each(show_network_port, network.listAllPorts(flags)),
)
simple(
    "network_port_lookup_by_uuid",
    "network uuid",
    lambda c, network, uuid: show_network_port(network.portLookupByUUIDString(uuid)),
)
simple("network_port_get_xml_desc", "network port flags=0", lambda c, network, port, flags: port.XMLDesc(flags))
simple(
    "network_port_get_parameters", "network port flags=0", lambda c, network, port, flags: port.parameters(flags)
)

# === Interfaces of the host ===

simple("connect_num_of_interfaces", "", lambda c: c.numOfInterfaces())
simple("connect_num_of_defined_interfaces", "", lambda c: c.numOfDefinedInterfaces())
simple("connect_list_interfaces", "", lambda c: c.listInterfaces())
simple("connect_list_defined_interfaces", "", lambda c: c.listDefinedInterfaces())
simple("connect_list_all_interfaces", "flags=0", lambda c, flags: each(show_interface, c.listAllInterfaces(flags)))
simple("interface_lookup_by_name", "name", lambda c, name: show_interface(c.interfaceLookupByName(name)))
simple("interface_lookup_by_mac_string", "mac", lambda c, mac: show_interface(c.interfaceLookupByMACString(mac)))
simple("interface_get_xml_desc", "interface flags=0", lambda c, interface, flags: interface.XMLDesc(flags))
simple("interface_is_active", "interface", lambda c, interface: interface.isActive())

# === Storage ===

simple("connect_num_of_storage_pools", "", lambda c: c.numOfStoragePools())
simple("connect_num_of_defined_storage_pools", "", lambda c: c.numOfDefinedStoragePools())
simple("connect_list_storage_pools", "", lambda c: c.listStoragePools())
simple("connect_list_defined_storage_pools", "", lambda c: c.listDefinedStoragePools())
simple("connect_list_all_storage_pools", "flags=0", lambda c, flags: each(show_pool, c.listAllStoragePools(flags)))
simple("storage_pool_lookup_by_name", "name", lambda c, name: show_pool(c.storagePoolLookupByName(name)))
simple("storage_pool_lookup_by_uuid", "uuid", lambda c, uuid: show_pool(c.storagePoolLookupByUUIDString(uuid)))
simple(
    "storage_pool_lookup_by_target_path", "path", lambda c, path: show_pool(c.storagePoolLookupByTargetPath(path))
)


@reads("storage_pool_lookup_by_volume", "pool volume")
def storage_pool_lookup_by_volume(c, pool, volume):
    return show_pool(volume.storagePoolLookupByVolume())


simple(
    "storage_pool_get_info",
    "pool",
    lambda c, pool: fields("state capacity allocation available", pool.info()),
)
simple("storage_pool_get_xml_desc", "pool flags=0", lambda c, pool, flags: pool.XMLDesc(flags))
simple("storage_pool_get_autostart", "pool", lambda c, pool: pool.autostart())
simple("storage_pool_is_active", "pool", lambda c, pool: pool.isActive())
simple("storage_pool_is_persistent", "pool", lambda c, pool: pool.isPersistent())
simple("storage_pool_num_of_volumes", "pool", lambda c, pool: pool.numOfVolumes())
simple("storage_pool_list_volumes", "pool", lambda c, pool: pool.listVolumes())
simple(
    "storage_pool_list_all_volumes", "pool flags=0", lambda c, pool, flags: each(show_volume, pool.listAllVolumes(flags))
)
simple(
    "storage_vol_lookup_by_name", "pool name", lambda c, pool, name: show_volume(pool.storageVolLookupByName(name))
)
simple("storage_vol_lookup_by_key", "key", lambda c, key: show_volume(c.storageVolLookupByKey(key)))
simple("storage_vol_lookup_by_path", "path", lambda c, path: show_volume(c.storageVolLookupByPath(path)))
simple(
    "storage_vol_get_info",
    "pool volume",
    lambda c, pool, volume: fields("type capacity allocation", volume.info()),
)
simple(
    "storage_vol_get_info_flags",
    "pool volume flags=0",
    lambda c, pool, volume, flags: fields("type capacity allocation", volume.infoFlags(flags)),
)
simple("storage_vol_get_xml_desc", "pool volume flags=0", lambda c, pool, volume, flags: volume.XMLDesc(flags))
simple("storage_vol_get_path", "pool volume", lambda c, pool, volume: volume.path())


@reads("storage_vol_download", "pool volume offset=0 length=0 flags=0")
def storage_vol_download(c, pool, volume, offset, length, flags):
    stream = c.newStream()
    volume.download(stream, offset, length, flags)
    return received(stream)


# === Node devices ===

simple("node_num_of_devices", "cap=null flags=0", lambda c, cap, flags: c.numOfDevices(cap, flags))
simple("node_list_devices", "cap=null flags=0", lambda c, cap, flags: c.listDevices(cap, flags))
simple("connect_list_all_node_devices", "flags=0", lambda c, flags: each(show_device, c.listAllDevices(flags)))
simple("node_device_lookup_by_name", "name", lambda c, name: show_device(c.nodeDeviceLookupByName(name)))
simple(
    "node_device_lookup_scsi_host_by_wwn",
    'wwnn="2000000012341234" wwpn="1000000012341234" flags=0',
    lambda c, wwnn, wwpn, flags: show_device(c.nodeDeviceLookupSCSIHostByWWN(wwnn, wwpn, flags)),
)
simple("node_device_get_xml_desc", "device flags=0", lambda c, device, flags: device.XMLDesc(flags))
simple("node_device_get_parent", "device", lambda c, device: device.parent())
simple("node_device_num_of_caps", "device", lambda c, device: device.numOfCaps())
simple("node_device_list_caps", "device", lambda c, device: device.listCaps())
simple("node_device_get_autostart", "device", lambda c, device: device.autostart())
simple("node_device_is_active", "device", lambda c, device: device.isActive())
simple("node_device_is_persistent", "device", lambda c, device: device.isPersistent())

# === Secrets ===

simple("connect_num_of_secrets", "", lambda c: c.numOfSecrets())
simple("connect_list_secrets", "", lambda c: c.listSecrets())
simple("connect_list_all_secrets", "flags=0", lambda c, flags: each(show_secret, c.listAllSecrets(flags)))
simple("secret_lookup_by_uuid", "uuid", lambda c, uuid: show_secret(c.secretLookupByUUIDString(uuid)))
simple("secret_lookup_by_usage", "type id", lambda c, type, id: show_secret(c.secretLookupByUsage(type, id)))
simple("secret_get_xml_desc", "secret flags=0", lambda c, secret, flags: secret.XMLDesc(flags))
simple("secret_get_value", "secret flags=0", lambda c, secret, flags: secret.value(flags).hex())

# === Network filters ===

simple("connect_num_of_nwfilters", "", lambda c: c.numOfNWFilters())
simple("connect_list_nwfilters", "", lambda c: c.listNWFilters())
simple("connect_list_all_nwfilters", "flags=0", lambda c, flags: each(show_nwfilter, c.listAllNWFilters(flags)))
simple("nwfilter_lookup_by_name", "name", lambda c, name: show_nwfilter(c.nwfilterLookupByName(name)))
simple("nwfilter_lookup_by_uuid", "uuid", lambda c, uuid: show_nwfilter(c.nwfilterLookupByUUIDString(uuid)))
simple("nwfilter_get_xml_desc", "filter flags=0", lambda c, filter, flags: filter.XMLDesc(flags))
simple(
    "connect_list_all_nwfilter_bindings",
    "flags=0",
    lambda c, flags: each(show_binding, c.listAllNWFilterBindings(flags)),
)
simple(
    "nwfilter_binding_lookup_by_port_dev", "name", lambda c, name: show_binding(c.nwfilterBindingLookupByPortDev(name))
)
simple("nwfilter_binding_get_xml_desc", "binding flags=0", lambda c, binding, flags: binding.XMLDesc(flags))
