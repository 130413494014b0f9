#!/bin/sh
# An agent of a few lines: it reads a command a line from its virtio-serial port and answers each with one line.
#
#     lines_agent.sh /dev/virtio-ports/com.example.lines.0

port=${1:?the path of the port}

# Reading and writing need one descriptor: a port takes one opener. While no host is connected a read ends at once, and so
# does the loop.
exec 3<>"$port" || exit 1
while :; do
    while IFS= read -r command <&3; do
        case $command in
            ping) answer=pong ;;
            host) answer=$(uname -n) ;;
            uptime) read -r answer _ </proc/uptime ;;
            *) answer='unknown command' ;;
        esac
        printf '%s\n' "$answer" >&3
    done
    sleep 1
done
