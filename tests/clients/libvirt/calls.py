"""Measures the C library: so many calls, one after another.

    calls.py URI CALL COUNT        CALL: lib_version, domains, capabilities, info, xml

`info` and `xml` ask the connection's first domain. One line of JSON says how long it took:

    {"calls": 1000, "seconds": 0.05, "per_second": 20000.0}
"""

import json
import sys
import time

import libvirt

# What is called, with the connection and its first domain.
CALLS = {
    "lib_version": lambda connection, _: connection.getLibVersion,
    "domains": lambda connection, _: connection.listAllDomains,
    "capabilities": lambda connection, _: connection.getCapabilities,
    "info": lambda _, domain: domain.info,
    "xml": lambda _, domain: domain.XMLDesc,
}


def main():
    uri, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    connection = libvirt.open(uri)
    domains = connection.listAllDomains()
    call = CALLS[name](connection, domains[0] if domains else None)
    # The first call may find something that later ones have.
    call()
    started = time.perf_counter()
    for _ in range(count):
        call()
    seconds = time.perf_counter() - started
    print(json.dumps({"calls": count, "seconds": seconds, "per_second": count / seconds}))
    connection.close()


main()
