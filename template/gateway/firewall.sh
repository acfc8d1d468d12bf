#!/bin/sh
# Keeps the engine's packet filter open for the VPN's device, and only for it.
#
# Since Docker Engine 28.2 what enters by a foreign device is dropped twice: for each container in raw PREROUTING,
# for each network in filter FORWARD. And an internal network has no route back to the VPN's clients. So:
#   raw PREROUTING     d4m0 is no foreign device
#   filter DOCKER-USER what d4m0 sends goes through the chain D4M: the chosen routes pass, and answers to them. What
#                      counts is the address that was asked for, not the one that kube-proxy has put in its place
#   filter INPUT       of the machine's own addresses, too, only those inside the routes and the VPN's own get through
#   nat POSTROUTING    containers see the clients as their own gateway
#
# usage: firewall.sh          keep the rules; take them away when stopped
#        firewall.sh check    succeed if they are all there
#        firewall.sh remove   take them away
# environment: VPN_SUBNET, a CIDR; ROUTES, CIDRs with spaces between them; OWN_NETWORK, yes in an ordinary pod
set -eu
device=d4m0
chain=D4M
seconds=5

iptables() { "iptables-$backend" --wait "$@"; }
restore() { "iptables-$backend-restore" --wait --noflush; }

# Rules placed through the other backend have no effect: take the one that the engine's own rules are in.
choose_backend() {
    for backend in nft legacy; do
        if iptables -S FORWARD | grep -q DOCKER-USER; then
            forward=DOCKER-USER
            return
        fi
    done 2> /dev/null
    # No Docker rules at all (a pod, Podman): take the backend that the kernel has, the newer one first.
    forward=FORWARD
    for backend in nft legacy; do
        if iptables -t nat -S > /dev/null 2>&1; then return; fi
    done
    echo "this container may set no packet filter: it lacks NET_ADMIN, or its kernel has no nf_tables." >&2
    exit 1
}

# Each line is a rule: a table, a chain, and what to match.
hooks() {
    # A small kernel may have no raw table; then the engine has no rules in it either.
    if iptables -t raw -S PREROUTING > /dev/null 2>&1; then
        echo "raw PREROUTING -i $device -j ACCEPT"
    fi
    echo "filter $forward -i $device -j $chain"
    echo "filter $forward -o $device -j $chain"
    echo "filter INPUT -i $device -j $chain-INPUT"
    echo "nat POSTROUTING -s $VPN_SUBNET ! -o $device -j MASQUERADE"
}

# The chains as `iptables -S` prints them.
chain_rules() {
    echo "-A $chain -o $device -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    for route in $ROUTES; do
        echo "-A $chain -i $device -m conntrack --ctorigdst $route -j ACCEPT"
    done
    echo "-A $chain -j DROP"
}

input_rules() {
    for network in $VPN_SUBNET $ROUTES; do
        echo "-A $chain-INPUT -m conntrack --ctorigdst $network -j RETURN" # to what the machine's own firewall says
    done
    echo "-A $chain-INPUT -j DROP"
}

# ACTION is iptables' own: -C, -I or -D.
each_hook() {
    action=$1
    hooks | while read -r table hook match; do
        # shellcheck disable=SC2086 # a match is many words
        iptables -t "$table" "$action" "$hook" $match || exit 1
    done
}

listed() { iptables -S "$1" | grep '^-A'; }

chains_are_right() { [ "$(listed "$chain")" = "$(chain_rules)" ] && [ "$(listed "$chain-INPUT")" = "$(input_rules)" ]; }

# The devices of an ordinary pod that do not forward yet. Some network plugins (Calico) turn that off in each pod.
unforwarding() {
    [ "${OWN_NETWORK:-no}" = yes ] || return 0
    ip -4 -oneline link show | while IFS=': @' read -r index name _; do
        [ "$name" = lo ] || ip -4 netconf show dev "$name" | grep -q 'forwarding on' || echo "$index"
    done
}

# As `sysctl net.ipv4.conf.DEVICE.forwarding=1`, but /proc/sys is read-only in a container. Netlink takes NET_ADMIN alone:
# a message of 52 bytes, RTM_SETLINK (19) for the device, with IFLA_AF_SPEC (26), AF_INET (2), IFLA_INET_CONF (1) and
# forwarding (1) = 1 in each other (rtnetlink(7); linux/if_link.h).
forward() {
    index=$(printf '\\0%o\\0%o\\0\\0' $(($1 % 256)) $(($1 / 256)))
    header='\064\0\0\0\023\0\01\0\0\0\0\0\0\0\0\0'
    link="\0\0\0\0$index\0\0\0\0\0\0\0\0"
    attributes='\024\0\032\0\020\0\02\0\014\0\01\0\010\0\01\0\01\0\0\0'
    printf %b "$header$link$attributes" |
        socat -u STDIN SOCKET-SENDTO:16:3:0:x0000x00000000x00000000 # AF_NETLINK, SOCK_RAW; to the kernel
}

check() { chains_are_right && each_hook -C && [ -z "$(unforwarding)" ]; } 2> /dev/null

insert_missing() {
    # In one transaction: no chain is ever seen half-filled.
    chains_are_right 2> /dev/null || {
        printf '*filter\n:%s - [0:0]\n:%s - [0:0]\n' "$chain" "$chain-INPUT"
        chain_rules
        input_rules
        echo COMMIT
    } | restore
    for index in $(unforwarding); do forward "$index"; done
    hooks | while read -r table hook match; do
        # shellcheck disable=SC2086
        iptables -t "$table" -C "$hook" $match 2> /dev/null || iptables -t "$table" -I "$hook" 1 $match
    done
}

remove() {
    hooks | while read -r table hook match; do
        # shellcheck disable=SC2086
        while iptables -t "$table" -D "$hook" $match 2> /dev/null; do :; done
    done
    for ours in "$chain" "$chain-INPUT"; do
        if iptables -F "$ours" 2> /dev/null; then iptables -X "$ours"; fi
    done
}

# Nothing is opened while the server may still be forwarding; and a pod's rules go with its network.
stop() {
    [ "${OWN_NETWORK:-no}" = no ] || return 0
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        ip link show dev "$device" > /dev/null 2>&1 || break
        sleep 0.5
    done
    remove
}

choose_backend
case "${1:-keep}" in
    check) check ;;
    remove) remove ;;
    keep)
        trap 'stop; exit 0' TERM INT
        echo "keeping $device open in $forward (iptables-$backend)"
        while :; do
            check || { echo "inserting the rules"; insert_missing; }
            sleep "$seconds" &
            wait $!
        done
        ;;
esac
