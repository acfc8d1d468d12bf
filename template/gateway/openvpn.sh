#!/bin/sh
# The VPN server. Under Compose it listens on one address only: the engine's own on the relay's bridge.
# usage: openvpn.sh [check]
# environment, in a cluster: LISTEN_ADDRESS; OWN_NETWORK, yes in an ordinary pod; POD_NAME; REPLICAS, how many share
#   VPN_SUBNET, a /24
set -eu
bridge=d4m-relay
port=11194 # not the published port: on plain Linux both are ports of one machine
status=/run/status # the server's main loop writes it every second

if [ "${1:-}" = check ]; then
    ip link show dev d4m0 > /dev/null
    [ $(($(date +%s) - $(stat --format %Y "$status"))) -lt 10 ]
    exit
fi

address=${LISTEN_ADDRESS:-$(ip -4 -brief address show dev "$bridge" | awk '{ sub("/.*", "", $3); print $3 }')}
if [ -z "$address" ]; then
    echo "the bridge $bridge has no address: is the network \"relay\" there?" >&2
    exit 1
fi
# In a pod's own network firewall.sh sees to it.
if [ "${OWN_NETWORK:-no}" = no ] && [ "$(cat /proc/sys/net/ipv4/ip_forward)" != 1 ]; then
    echo "this machine forwards no IPv4 (net.ipv4.ip_forward is 0), so clients would reach nothing: set it to 1." >&2
    exit 1
fi
if ! (: <> /dev/net/tun) 2> /dev/null; then
    echo "this machine gives containers no /dev/net/tun: its kernel has none, or its container runtime or SELinux denies it." >&2
    exit 1
fi

# The third of four replicas, devkit-2, hands out the third quarter of the subnet.
size=256
while [ $((256 / size)) -lt "${REPLICAS:-1}" ]; do size=$((size / 2)); done
if [ "$size" -lt 256 ]; then
    number=${POD_NAME##*-}
    set -- --server "${VPN_SUBNET%.*}.$((number * size))" "255.255.255.$((256 - size))"
fi

cd /etc/openvpn/configs
exec openvpn --config /etc/openvpn/server/server.conf "$@" \
    --local "$address" --port "$port" --status "$status" 1 --management /run/management unix
