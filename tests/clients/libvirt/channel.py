"""Measures the C library: a domain's channel as a stream of libvirt's (virDomainOpenChannel).

    channel.py URI DOMAIN sink BYTES      sends to org.vbridge.sink.0, whose peer answers with the count
    channel.py URI DOMAIN source BYTES    receives from org.vbridge.source.0
    channel.py URI DOMAIN echo COUNT      sends one byte to org.vbridge.raw.0 and waits for it, so many times

The guest has to be told the same number of bytes. One line of JSON says how long it took:

    {"bytes": 67108864, "seconds": 0.5, "per_second": 134217728.0}
    {"round_trips": 100, "seconds": 0.1, "median": 0.0007}
"""

import json
import statistics
import sys
import time

import libvirt

# What libvirt sends in one message.
CHUNK = 262120

PORTS = {"sink": "org.vbridge.sink.0", "source": "org.vbridge.source.0", "echo": "org.vbridge.raw.0"}


def receive(stream, count):
    data = bytearray()
    while len(data) < count:
        part = stream.recv(min(CHUNK, count - len(data)))
        if not part:
            raise EOFError(f"the channel ended after {len(data)} of {count} bytes")
        data += part
    return bytes(data)


def send(stream, data):
    data = memoryview(data)
    while data:
        data = data[stream.send(bytes(data[:CHUNK])) :]


def sink(stream, count):
    block = bytes(CHUNK)
    left = count
    while left:
        part = min(left, CHUNK)
        send(stream, block[:part])
        left -= part
    counted = int.from_bytes(receive(stream, 8), "little")
    if counted != count:
        raise ValueError(f"the guest has counted {counted} bytes of {count}")


def source(stream, count):
    left = count
    while left:
        part = min(left, CHUNK)
        left -= len(receive(stream, part))


def bulk(work, stream, count):
    started = time.perf_counter()
    work(stream, count)
    seconds = time.perf_counter() - started
    return {"bytes": count, "seconds": seconds, "per_second": count / seconds}


def echo(stream, count):
    times = []
    for index in range(count):
        octet = bytes([index % 256])
        started = time.perf_counter()
        send(stream, octet)
        if receive(stream, 1) != octet:
            raise ValueError(f"round trip {index} has brought another byte")
        times.append(time.perf_counter() - started)
    return {"round_trips": count, "seconds": sum(times), "median": statistics.median(times)}


def main():
    uri, name, kind, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    connection = libvirt.open(uri)
    stream = connection.newStream()
    connection.lookupByName(name).openChannel(PORTS[kind], stream)
    work = {"sink": lambda: bulk(sink, stream, count), "source": lambda: bulk(source, stream, count)}
    result = work.get(kind, lambda: echo(stream, count))()
    # A source goes on sending; nobody waits for its end.
    stream.abort()
    print(json.dumps(result))
    connection.close()


main()
