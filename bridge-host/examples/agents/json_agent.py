#!/usr/bin/env python3
"""An agent that takes {"data": COMMAND} and answers {"result": TEXT} or {"error": TEXT}, a line each.

    json_agent.py /dev/virtio-ports/com.example.json.0

It runs no commands of the host's making: what it can do is the table below.
"""

import json
import platform
import sys
import time

LONGEST = 64 * 1024

COMMANDS = {
    "ping": lambda _: "pong",
    "host": lambda _: platform.node(),
    "upper": lambda text: text.upper(),
}


def answer(line):
    try:
        command, _, argument = json.loads(line)["data"].partition(" ")
        return {"result": COMMANDS[command](argument)}
    except KeyError as missing:
        return {"error": f"unknown: {missing}"}
    except (ValueError, TypeError, AttributeError) as error:
        return {"error": f"no request: {error}"}


def send(port, data):
    # A port takes no more than 32 KiB at once, and less where the host is slow.
    while data:
        data = data[port.write(data) or 0 :]


def main():
    # One descriptor for both directions: a port takes one opener.
    with open(sys.argv[1], "r+b", buffering=0) as port:
        received = b""
        while True:
            some = port.read(4096)
            if not some:
                # No host is connected. What it had begun to say is over.
                received = b""
                time.sleep(1)
                continue
            received += some
            *lines, received = received.split(b"\n")
            for line in lines:
                send(port, json.dumps(answer(line)).encode() + b"\n")
            if len(received) > LONGEST:
                received = b""


if __name__ == "__main__":
    main()
