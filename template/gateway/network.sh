#!/bin/sh
# Prepares the network namespace that the VPN server runs in, a container's or a pod's own: first the packet filter, then
# the device d4m0. Then it becomes COMMAND, which can change neither: the server holds no NET_ADMIN.
#
# What clients send goes to the chosen routes and nowhere else, whatever the engine's packet filter says; and nobody can
# open a connection to a client, or to the server except at its port; nor can what runs beside the server.
#
# usage: network.sh [COMMAND...]
#        network.sh redirect          keep bringing to the proxy what has no web server itself, as the file WANTED says,
#                                     and put back what is wiped of the packet filter
#        network.sh redirect check    succeed if that is so
#        network.sh missing           print what the namespace should have, and has not
# environment: VPN_PROTOCOL, tcp or udp; VPN_SUBNET, a CIDR; ROUTES, CIDRs with spaces between them; DNS_DOMAIN, where a
#   DNS shares the namespace
#   in a cluster: POD_NAME; REPLICAS, how many pods share VPN_SUBNET, a /24
set -eu
device=d4m0
port=1194 # in here; the published one is Docker's, or the Service's
server=/etc/vpn/server/server.conf
wanted=/run/redirections/wanted # a volume; proxy.py replaces the file in it, with an address and a port in each line
applied=/run/applied            # which version of the file is in force; it stays open as 4

choose_backend() {
    for backend in nft legacy; do
        if iptables -t nat -S > /dev/null 2>&1; then return; fi
    done
    echo "this container cannot set a packet filter: it lacks NET_ADMIN, or its kernel has no nf_tables." >&2
    exit 1
}

iptables() { "iptables-$backend" --wait "$@"; }

# Flushed and filled in one transaction, so that running this again changes nothing.
close_all_but_routes() {
    {
        echo '*filter'
        echo ':INPUT DROP [0:0]'
        echo ':FORWARD DROP [0:0]'
        echo ':OUTPUT DROP [0:0]'
        echo '-F INPUT'
        echo '-F FORWARD'
        echo '-F OUTPUT'
        echo '-A OUTPUT -o lo -j ACCEPT'
        echo '-A OUTPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT'
        echo '-A INPUT -i lo -j ACCEPT'
        echo '-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT'
        echo "-A INPUT ! -i $device -p $VPN_PROTOCOL --dport $port -j ACCEPT"
        echo "-A INPUT -i $device -d $address -p icmp -j ACCEPT"
        for protocol in udp tcp; do
            if [ -n "${DNS_DOMAIN:-}" ]; then
                echo "-A INPUT -i $device -d $address -p $protocol --dport 53 -j ACCEPT"
            fi
            if [ -n "$cluster_dns" ]; then
                echo "-A FORWARD -i $device -d $cluster_dns -p $protocol --dport 53 -j ACCEPT"
            fi
        done
        if [ -n "${DNS_DOMAIN:-}" ]; then # what is redirected, and nobody who asks for these ports
            echo "-A INPUT -i $device -p tcp -m multiport --dports 8080,8443 -m conntrack --ctstate DNAT -j ACCEPT"
        fi
        echo '-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT'
        for route in $ROUTES; do
            echo "-A FORWARD -i $device ! -o $device -d $route -j ACCEPT"
            echo "-A OUTPUT ! -o $device -d $route -j ACCEPT" # what shares the namespace: the DNS, the proxy
        done
        echo COMMIT
    } | "iptables-$backend-restore" --wait --noflush
    # Containers see clients under this container's address. (Docker's own rules in this table stay.)
    set -- POSTROUTING -s "$VPN_SUBNET" ! -o "$device" -j MASQUERADE
    iptables -t nat -C "$@" 2> /dev/null || iptables -t nat -A "$@"
    # In a cluster its own DNS answers, at the address that all replicas' clients know.
    for protocol in ${cluster_dns:+udp tcp}; do
        set -- PREROUTING -i "$device" -d "${VPN_SUBNET%.*}.1" -p "$protocol" --dport 53 -j DNAT --to "$cluster_dns"
        iptables -t nat -C "$@" 2> /dev/null || iptables -t nat -A "$@"
    done
}

missing() {
    ip -4 -oneline address show dev "$device" 2> /dev/null | grep -qF " $address/" || echo "the device $device"
    for index in $(unforwarding); do echo "IPv4 forwarding of device $index"; done
    iptables -t nat -C POSTROUTING -s "$VPN_SUBNET" ! -o "$device" -j MASQUERADE 2> /dev/null || echo "MASQUERADE"
    for route in $ROUTES; do
        iptables -C FORWARD -i "$device" ! -o "$device" -d "$route" -j ACCEPT 2> /dev/null || echo "the rule for $route"
    done
    iptables -C FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT 2> /dev/null || echo "the rule for replies"
}

redirections() {
    echo '*nat'
    echo ':D4M-PROXY - [0:0]'
    # The proxy may say no more than which addresses and ports.
    { printf '%s\n' "$address 80" "$address 443" && cat <&4; } | sed -nE \
        -e 's/^([0-9.]+) 80$/-A D4M-PROXY -d \1 -p tcp --dport 80 -j REDIRECT --to-ports 8080/p' \
        -e 's/^([0-9.]+) 443$/-A D4M-PROXY -d \1 -p tcp --dport 443 -j REDIRECT --to-ports 8443/p'
    echo COMMIT
}

version() { if [ -e "$wanted" ]; then stat --dereference --format %i.%.Y "$1"; else echo none; fi; }

open_wanted() { if [ -e "$wanted" ]; then exec 4< "$wanted"; else exec 4< /dev/null; fi; }

# It is asked often, and starts no program. (dash, which is sh here, knows -ef.)
# shellcheck disable=SC3013
is_in_force() { [ "$wanted" -ef /proc/$$/fd/4 ] || { [ ! -e "$wanted" ] && [ /dev/null -ef /proc/$$/fd/4 ]; }; }

rules() { for table in filter nat; do iptables -t "$table" -S; done; }

redirect() {
    turn=0 placed=""
    while :; do
        [ $((turn % 10)) != 0 ] || seen=$(rules)
        if [ "$turn" = 0 ] || ! is_in_force || [ "$seen" != "$placed" ]; then
            open_wanted
            close_all_but_routes
            redirections | "iptables-$backend-restore" --wait --noflush
            set -- PREROUTING -i "$device" -j D4M-PROXY
            iptables -t nat -C "$@" 2> /dev/null || iptables -t nat -A "$@"
            placed=$(rules) seen=$placed
            [ -z "$(missing)" ] || placed="" seen="" # it was taken away at once: not what it is to look like
            version /proc/$$/fd/4 > "$applied"
        fi
        turn=$((turn + 1))
        sleep 0.5
    done
}

# It outlives the server, and only its owner, root, may open it without NET_ADMIN.
make_device() {
    if ! (: <> /dev/net/tun) 2> /dev/null; then
        echo "this machine gives containers no /dev/net/tun: its kernel has none, or its container runtime or SELinux denies it." >&2
        exit 1
    fi
    ip link show dev "$device" > /dev/null 2>&1 || ip tuntap add dev "$device" mode tun user root
    ip link set dev "$device" addrgenmode none # no IPv6
    ip address replace "$address/$prefix" dev "$device"
    # The device and the server's configuration must agree on this.
    ip link set dev "$device" mtu "$(awk '$1 == "tun-mtu" { mtu = $2 } END { print mtu ? mtu : 1500 }' "$server")" up
}

# The devices that do not forward yet. Some network plugins (Calico) turn that off in each pod.
unforwarding() {
    ip -4 -oneline link show | while IFS=': @' read -r index name _; do
        [ "$name" = lo ] || ip -4 netconf show dev "$name" | grep -q 'forwarding on' || echo "$index"
    done
}

# The third of four replicas, devkit-2, hands out the third quarter of the subnet.
size=256 prefix=24
while [ $((256 / size)) -lt "${REPLICAS:-1}" ]; do size=$((size / 2)) prefix=$((prefix + 1)); done
number=0
[ "$size" = 256 ] || number=${POD_NAME##*-}
address=${VPN_SUBNET%.*}.$((number * size + 1))
cluster_dns=""
if [ -n "${POD_NAME:-}" ]; then
    cluster_dns=$(awk '$1 == "nameserver" && $2 !~ /:|^127[.]/ { print $2; exit }' /etc/resolv.conf)
fi

if [ "$*" = "redirect check" ]; then
    [ "$(cat "$applied")" = "$(version "$wanted")" ]
    exit
fi
choose_backend
if [ "$*" = missing ]; then
    missing
    exit
fi
if [ "$*" = redirect ]; then
    rm -f "$applied" # of an earlier namespace
    redirect
fi
close_all_but_routes
make_device
for index in $(unforwarding); do forward.pl "$index" 1; done
if [ -n "$(unforwarding)" ]; then
    echo "this container's network does not forward IPv4, and the kernel does not let it be switched on." >&2
    exit 1
fi
[ $# = 0 ] || exec setpriv --inh-caps=-all --bounding-set=-net_admin,-net_raw,-setpcap -- "$@"
