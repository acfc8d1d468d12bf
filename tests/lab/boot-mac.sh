#!/bin/sh
# Boots the lab's Mac in a network namespace of its own: one network card on an office network that swallows
# whatever it is sent, so that an address which no VPN route covers times out, as it does on a real Mac.
# usage: boot-mac.sh COMMAND...
set -eu
ip link set lo up
ip link add en0 address 02:00:00:00:00:02 type veth peer name office
ip address add 198.51.100.2/24 dev en0
ip link set office up
ip link set en0 up
ip neighbour add 198.51.100.1 lladdr 02:00:00:00:00:01 dev en0
ip route add default via 198.51.100.1
exec "$@"
