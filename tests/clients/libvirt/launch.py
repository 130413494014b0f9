"""Opens a libvirtd's sockets and becomes that libvirtd, as systemd would start it (sd_listen_fds(3)).

    launch.py '{"unix": {"NAME": ["PATH", MODE]}, "tcp": {"NAME": PORT}}' PROGRAM ARGUMENT...

It runs in the daemon's mount and process namespaces but in the host's network, where it opens the TCP sockets; the
daemon then enters the network of the namespace's first process. Ports are on the loopback device; 0 is any free one.
One line of JSON on standard output tells the ports. Since the sockets take connections from then on, a client may
connect before the daemon is up.
"""

import fcntl
import json
import os
import socket
import sys

# sd_listen_fds(3): the first descriptor that is passed.
FIRST = 3

# Above every descriptor that is passed, so that none is overwritten before it is moved.
SPARE = 100

# As many connections as libvirtd's default for those that wait.
BACKLOG = 1000


def unix_socket(path, mode):
    # A daemon that was killed has left its sockets.
    if os.path.exists(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    os.chmod(path, mode)
    return listener


def tcp_socket(port):
    listener = socket.socket(socket.AF_INET)
    # The port of a daemon that was restarted has connections that are not forgotten yet.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    return listener


def main():
    wanted = json.loads(sys.argv[1])
    program = sys.argv[2:]
    listeners, ports = {}, {}
    for name, (path, mode) in wanted["unix"].items():
        listeners[name] = unix_socket(path, mode)
    for name, port in wanted["tcp"].items():
        listeners[name] = tcp_socket(port)
        ports[name] = listeners[name].getsockname()[1]
    for listener in listeners.values():
        listener.listen(BACKLOG)

    spare = [fcntl.fcntl(listener, fcntl.F_DUPFD_CLOEXEC, SPARE) for listener in listeners.values()]
    print(json.dumps(ports), flush=True)
    # The reader of our standard output needs no more than that line.
    os.dup2(2, 1)
    for index, descriptor in enumerate(spare):
        os.dup2(descriptor, FIRST + index, inheritable=True)
    os.environ["LISTEN_PID"] = str(os.getpid())
    os.environ["LISTEN_FDS"] = str(len(spare))
    os.environ["LISTEN_FDNAMES"] = ":".join(listeners)
    os.execvp("nsenter", ["nsenter", "--net=/proc/1/ns/net", "--", *program])


main()
