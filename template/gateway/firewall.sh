#!/bin/sh
# Keeps the engine's packet filter open for the VPN's device, and only for it.
#
# Since Docker Engine 28.2 what enters by a foreign device is dropped twice: for each container in raw PREROUTING,
# for each network in filter FORWARD. And an internal network has no route back to the VPN's clients. So:
#   raw PREROUTING     d4m0 is no foreign device
#   filter DOCKER-USER what d4m0 sends goes through the chain D4M: the chosen routes pass, and answers to them
#   filter INPUT       of the machine's own addresses, too, only those inside the routes and the VPN's own get through
#   nat POSTROUTING    containers see the clients as their own gateway
#
# usage: firewall.sh          keep the rules; take them away when stopped
#        firewall.sh check    succeed if they are all there
#        firewall.sh remove   take them away
# environment: VPN_SUBNET, a CIDR; ROUTES, CIDRs with spaces between them
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
    backend=nft
    iptables -t nat -S > /dev/null 2>&1 || backend=legacy
    forward=FORWARD
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
        echo "-A $chain -d $route -i $device -j ACCEPT"
    done
    echo "-A $chain -j DROP"
}

input_rules() {
    for network in $VPN_SUBNET $ROUTES; do
        echo "-A $chain-INPUT -d $network -j RETURN" # to what the machine's own firewall says
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

check() { chains_are_right && each_hook -C; } 2> /dev/null

insert_missing() {
    # In one transaction: no chain is ever seen half-filled.
    chains_are_right 2> /dev/null || {
        printf '*filter\n:%s - [0:0]\n:%s - [0:0]\n' "$chain" "$chain-INPUT"
        chain_rules
        input_rules
        echo COMMIT
    } | restore
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

choose_backend
case "${1:-keep}" in
    check) check ;;
    remove) remove ;;
    keep)
        trap 'remove; exit 0' TERM INT
        echo "keeping $device open in $forward (iptables-$backend)"
        while :; do
            check || { echo "inserting the rules"; insert_missing; }
            sleep "$seconds" &
            wait $!
        done
        ;;
esac
