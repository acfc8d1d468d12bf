#!/bin/sh
# Boots the lab's Mac in network and mount namespaces of its own: one network card on an office network that swallows
# whatever it is sent, so that an address which no VPN route covers times out, as it does on a real Mac; and an /etc, a
# home, and whatever else update-ca-certificates writes (Java's by way of dpkg) of its own, which are this machine's until
# something is changed there.
# usage: boot-mac.sh FOLDER COMMAND...
set -eu
folder=$1
shift
for place in /etc /usr/local/share/ca-certificates /var/lib/ca-certificates-java /var/lib/dpkg \
    "$(getent passwd "$(id -u)" | cut --delimiter=: --fields=6)"; do
    if [ ! -d "$place" ]; then continue; fi
    mkdir -p "$folder/changes$place" "$folder/work$place"
    mount -t overlay mac -o "lowerdir=$place,upperdir=$folder/changes$place,workdir=$folder/work$place" "$place"
done
ip link set lo up
ip link add en0 address 02:00:00:00:00:02 type veth peer name office
ip address add 198.51.100.2/24 dev en0
ip link set office up
ip link set en0 up
ip neighbour add 198.51.100.1 lladdr 02:00:00:00:00:01 dev en0
ip route add default via 198.51.100.1
exec "$@"
