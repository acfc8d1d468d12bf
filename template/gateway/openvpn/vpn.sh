#!/bin/sh
# The VPN server. network.sh has made the device that it opens, and the packet filter around it.
# usage: vpn.sh [check]
set -eu
status=/run/vpn/status # the server's main loop writes it, at first after ten seconds; the proxy's page shows it

if [ "${1:-}" = check ]; then
    grep -qE '^ *[0-9]+: [0-9A-F]+:04AA 0+:0000 0[A7] ' /proc/net/tcp /proc/net/udp # it listens at port 1194
    seconds=10
    [ -s "$status" ] || seconds=20 # the file is as old as this start of the server
    [ $(($(date +%s) - $(stat --format %Y "$status"))) -lt "$seconds" ]
    exit
fi

# The part of the subnet that it hands out is the device's own.
network=$(ip -4 -oneline route show dev d4m0 proto kernel | cut --delimiter=' ' --fields=1)
mask=255.255.255.$((256 - (1 << (32 - ${network#*/}))))

mkdir -p "${status%/*}"
(umask 022 && : > "$status") # the server would make it for root alone
# Without its device the server would run on, and serve nobody; its next start makes the device anew. It becomes nobody,
# whom root without CAP_KILL cannot end, but nobody can.
setpriv --reuid=65534 --regid=65534 --clear-groups \
    sh -c "ip monitor link dev d4m0 | { grep --quiet ^Deleted && kill $$; }" &
cd /etc/vpn/configs
exec openvpn --config /etc/vpn/server/server.conf --server "${network%/*}" "$mask" --ifconfig-noexec --route-noexec \
    --port 1194 --status "$status" 1 --status-version 3 --management /run/management unix
