"""The reference's table, how its calls find their objects, and how they show what they get."""

import hashlib
import json

import libvirt

# What a server sends at once at most.
CHUNK = 262120

# Calls by their names.
TABLE = {}


class Entry:
    def __init__(self, parameters, answer):
        # The parameters that have to be given, and the defaults of the others.
        self.required = [name for name, default in parameters if default is None]
        self.defaults = {name: json.loads(default) for name, default in parameters if default is not None}
        self.answer = answer


def reads(call, parameters="", needs=None):
    """Adds a call. `parameters` is "domain flags=0"; `needs` is a method that older bindings lack."""

    def add(answer):
        owner, _, method = (needs or "").partition(".")
        if not needs or hasattr(getattr(libvirt, owner), method):
            assert call not in TABLE, call
            words = [word.partition("=") for word in parameters.split()]
            TABLE[call] = Entry([(name, default or None) for name, _, default in words], answer)
        return answer

    return add


def simple(call, parameters, answer, needs=None):
    reads(call, parameters, needs)(answer)


# === How objects are found ===

FIND = {
    "domain": lambda c, a: c.lookupByName(a["domain"]),
    "network": lambda c, a: c.networkLookupByName(a["network"]),
    "port": lambda c, a: find("network", c, a).portLookupByUUIDString(a["port"]),
    "interface": lambda c, a: c.interfaceLookupByName(a["interface"]),
    "pool": lambda c, a: c.storagePoolLookupByName(a["pool"]),
    "volume": lambda c, a: find("pool", c, a).storageVolLookupByName(a["volume"]),
    "device": lambda c, a: c.nodeDeviceLookupByName(a["device"]),
    "secret": lambda c, a: c.secretLookupByUUIDString(a["secret"]),
    "filter": lambda c, a: c.nwfilterLookupByName(a["filter"]),
    "binding": lambda c, a: c.nwfilterBindingLookupByPortDev(a["binding"]),
    "snapshot": lambda c, a: find("domain", c, a).snapshotLookupByName(a["snapshot"]),
    "checkpoint": lambda c, a: find("domain", c, a).checkpointLookupByName(a["checkpoint"]),
}


def find(kind, connection, arguments):
    return FIND[kind](connection, arguments)


# === How values are shown ===


def show_domain(it):
    return {"name": it.name(), "uuid": it.UUIDString(), "id": it.ID()}


def show_network(it):
    return {"name": it.name(), "uuid": it.UUIDString()}


def show_network_port(it):
    return {"net": show_network(it.network()), "uuid": it.UUIDString()}


def show_interface(it):
    return {"name": it.name(), "mac": it.MACString()}


def show_pool(it):
    return {"name": it.name(), "uuid": it.UUIDString()}


def show_volume(it):
    # The C library keeps the pool's name in the handle and does not tell it without another call.
    return {"name": it.name(), "key": it.key()}


def show_device(it):
    return {"name": it.name()}


def show_secret(it):
    return {"uuid": it.UUIDString(), "usageType": it.usageType(), "usageID": it.usageID()}


def show_nwfilter(it):
    return {"name": it.name(), "uuid": it.UUIDString()}


def show_binding(it):
    return {"portdev": it.portDev(), "filtername": it.filterName()}


def show_snapshot(it):
    return {"name": it.getName(), "dom": show_domain(it.getDomain())}


def show_checkpoint(it):
    return {"name": it.getName(), "dom": show_domain(it.getDomain())}


def each(show, them):
    return [show(it) for it in them]


def fields(names, values):
    names = names.split()
    assert len(names) == len(values), (names, values)
    return dict(zip(names, values))


def bits(flags):
    """A CPU map as on the wire: the first CPU is the lowest bit of the first byte."""
    octets = bytearray((len(flags) + 7) // 8)
    for index, flag in enumerate(flags):
        octets[index // 8] |= bool(flag) << (index % 8)
    return octets.hex()


def received(stream):
    """Takes a stream to its end: its size and digest stand for it."""
    digest, size = hashlib.sha256(), 0
    while True:
        data = stream.recv(CHUNK)
        if not data:
            stream.finish()
            return {"size": size, "sha256": digest.hexdigest()}
        digest.update(data)
        size += len(data)
