#!/bin/sh
# The VPN server. network.sh has made the device that it opens, and the packet filter around it.
# usage: vpn.sh          serve
#        vpn.sh check    succeed if it serves; exit code 3 if it is there and says nothing
set -eu
status=/run/vpn/status # the proxy's page shows it; where nobody is connected, it is written every ten seconds
management=/run/management

if [ "${1:-}" = check ]; then
    said=$(echo state | nc -N -w 3 -U "$management")
    case $said in
        *,CONNECTED,*) exit 0 ;; # that is what a server calls it that listens
        '') exit 3 ;;
        *) exit 1 ;;
    esac
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
    --port 1194 --status "$status" 1 --status-version 3 --management "$management" unix
