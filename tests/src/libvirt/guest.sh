#!/bin/sh
# What the guest of a libvirt domain runs in the agent's place: the test agent, and beside it the peers of the ports that
# carry no protocol. Each peer begins anew when it has done its work, for the next host that opens the channel.
#
#   org.vbridge.raw.0      returns what it reads
#   org.vbridge.sink.0     takes as many bytes as the kernel's command line says, then answers with the count
#   org.vbridge.source.0   sends as many

bytes=$(sed -n 's/.*vbridge.bytes=\([0-9]*\).*/\1/p' /proc/cmdline)

peer() {
    name=$1
    shift
    for port in /sys/class/virtio-ports/*; do
        read -r found <"$port/name" && [ "$found" = "$name" ] || continue
        while :; do
            vbridge-raw "/dev/${port##*/}" "$@"
            # It ends at once only if the port is gone.
            usleep 10000
        done
    done
}

# The agent may be started again: the peers are not.
if mkdir /run/peers 2>/dev/null; then
    peer org.vbridge.raw.0 echo &
    peer org.vbridge.sink.0 sink "${bytes:-1}" &
    peer org.vbridge.source.0 source "${bytes:-1}" &
fi
exec vbridge-test-agent
