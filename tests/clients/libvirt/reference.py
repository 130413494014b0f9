"""libvirt's C library, asked call by call: what another client's answers are compared with.

    reference.py URI

One question a line on standard input, one answer a line on standard output, both JSON:

    {"call": "domain_get_info", "args": {"domain": "guest"}}
    {"ok": {"state": 1, "maxMem": 196608, "memory": 196608, "nrVirtCpu": 1, "cpuTime": 2000000000}}
    {"error": {"code": 42, "domain": 10, "message": "Domain not found"}}

A call is named as its procedure on the wire, without the prefix and in lower case; only such as read are here. An
answer with one field is that field alone, one with several is an object with the fields' names on the wire. Bytes are
hexadecimal, typed parameters are {name: value}, a handle is an object of its fields ({"name", "uuid", "id"} for a
domain). Where the binding loses something, the entry says so; an error with code 1 in domain 0 is one that the binding
may have lost.

The call "binding" answers with the version of the library's Python binding, which decides what there is to call, and the
call "table" with every call, the parameters that it needs, and the defaults of the others. A parameter that
names an object ("domain", "network", …) is looked up first, so a wrong name gives the look-up's error.
"""

import importlib.metadata
import json
import sys

import libvirt

# These add their calls to the table.
import reference_domain  # noqa: F401
import reference_host  # noqa: F401
from reference_entries import FIND, TABLE, find


def answer(connection, question):
    call, given = question["call"], question.get("args", {})
    if call == "binding":
        return {"ok": importlib.metadata.version("libvirt-python")}
    if call == "table":
        table = {name: {"required": entry.required, "defaults": entry.defaults} for name, entry in TABLE.items()}
        return {"ok": table}
    entry = TABLE[call]
    arguments = {**entry.defaults, **given}
    if arguments.keys() != {*entry.required, *entry.defaults}:
        raise TypeError(f"{call} takes {entry.required} and {list(entry.defaults)}, not {list(given)}")
    libvirt.virResetLastError()
    try:
        found = {name: find(name, connection, arguments) for name in arguments if name in FIND}
        value = entry.answer(connection, **{**arguments, **found})
    except libvirt.libvirtError as error:
        return refusal(error.get_error_code(), error.get_error_domain(), error.get_error_message())
    # Some methods of the binding answer an error with None, and raise nothing.
    error = libvirt.virGetLastError() if value is None else None
    return refusal(*error[:3]) if error else {"ok": value}


def refusal(code, domain, message):
    return {"error": {"code": code, "domain": domain, "message": message}}


def main():
    # It would print every error on standard error.
    libvirt.registerErrorHandler(lambda *_: None, None)
    try:
        connection = libvirt.open(sys.argv[1])
    except libvirt.libvirtError as error:
        sys.exit(f"{sys.argv[1]}: {error}")
    for line in sys.stdin:
        try:
            text = json.dumps(answer(connection, json.loads(line)))
        # Whatever else goes wrong is a mistake of ours, not an answer of libvirt's.
        except Exception as error:
            text = json.dumps({"failure": f"{type(error).__name__}: {error}"})
        print(text, flush=True)
    connection.close()


main()
