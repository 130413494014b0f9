"""The numbers of libvirt's API as its C library has them: one line of JSON with the library's version.

    {"version": 9000000, "numbers": {"VIR_DOMAIN_RUNNING": 1, …}}
"""

import json

import libvirt
import libvirt_qemu

# What the binding has made of the header files. Its own names begin in other ways.
PREFIX = "VIR_"


def main():
    numbers = {}
    for module in (libvirt, libvirt_qemu):
        for name, value in vars(module).items():
            if name.startswith(PREFIX) and isinstance(value, int):
                numbers[name] = value
    print(json.dumps({"version": libvirt.getVersion(), "numbers": numbers}))


main()
