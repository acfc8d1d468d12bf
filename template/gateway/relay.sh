#!/bin/sh
# Takes what arrives at its port to the VPN server. Under Compose that listens on this container's default gateway, the
# engine's host. `host.docker.internal` would not do: on Docker Desktop that is the computer, not the virtual machine.
# usage: relay.sh tcp|udp [check]
# environment, in a cluster: LISTEN_ADDRESS, LISTEN_PORT, SERVER_ADDRESS
set -eu
protocol=$1
address=${LISTEN_ADDRESS:-0.0.0.0}
port=${LISTEN_PORT:-1194}
server=${SERVER_ADDRESS:-$(ip -4 route show default | awk '{ print $3; exit }')}
server_port=11194

# In the kernel, because one socket in user space would mix up the answers to several peers.
rule() { iptables -t nat "$1" PREROUTING -p udp --dport "$port" -j DNAT --to-destination "$server:$server_port"; }
answer() { iptables -t nat "$1" POSTROUTING -p udp --dport "$server_port" -j MASQUERADE; }

case "$protocol ${2:-}" in
    "tcp ")
        # A buffer of 128 KiB and no delay: twice as fast as socat's defaults.
        exec socat -b131072 "TCP4-LISTEN:$port,bind=$address,fork,reuseaddr,nodelay" "TCP4:$server:$server_port,nodelay"
        ;;
    "tcp check")
        # The far end is what counts: the server must take a connection.
        socat -u OPEN:/dev/null "TCP4:$server:$server_port,connect-timeout=3"
        ;;
    "udp ")
        rule -A
        answer -A
        exec sleep infinity
        ;;
    "udp check")
        rule -C
        answer -C
        ;;
    *)
        echo "usage: relay.sh tcp|udp [check]" >&2
        exit 2
        ;;
esac
