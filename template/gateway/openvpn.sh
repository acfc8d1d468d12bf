#!/bin/sh
# The VPN server, listening on one address only: the engine's own on the relay's bridge.
# usage: openvpn.sh [check]
set -eu
bridge=d4m-relay
port=11194 # not the published port: on plain Linux both are ports of one machine
status=/run/status # the server's main loop writes it every second

if [ "${1:-}" = check ]; then
    ip link show dev d4m0 > /dev/null
    [ $(($(date +%s) - $(stat --format %Y "$status"))) -lt 10 ]
    exit
fi

address=$(ip -4 -brief address show dev "$bridge" | awk '{ sub("/.*", "", $3); print $3 }')
if [ -z "$address" ]; then
    echo "the bridge $bridge has no address: is the network \"relay\" there?" >&2
    exit 1
fi

cd /etc/openvpn/configs
exec openvpn --config /etc/openvpn/server/server.conf \
    --local "$address" --port "$port" --status "$status" 1 --management /run/management unix
