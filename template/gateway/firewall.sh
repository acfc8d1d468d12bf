#!/bin/sh
# Keeps the engine's packet filter open for the VPN server, and only for it. Runs in the engine's host network.
#
# An engine drops what comes from another bridge: for each container before routing, and for each network. So:
#   what the server sends    passes both if it goes to the chosen routes. What counts is the original destination, not
#                            the one that kube-proxy has put in its place
#   what is sent to it       passes if it is a reply, or comes in at its port
#   all else                 is dropped, whoever is attached to its bridge, whether for the machine or beyond it
#
# usage: firewall.sh          keep the rules; when stopped, take them away, unless the server is still there
#        firewall.sh check    succeed if they were all there a moment ago
#        firewall.sh remove   take them away; fail if that fails
#        firewall.sh missing  print those of them that are not there
#        firewall.sh drops    print how many packets each rule of this machine has dropped, and the rule
# environment: VPN_PROTOCOL, tcp or udp; ROUTES, CIDRs with spaces between them; and which server it is:
#   SERVER_HARDWARE_ADDRESS   under Compose, the one on the bridge d4m
#   SERVER_NAME               in a cluster, where a name server knows the addresses of its pods
set -eu
bridge=d4m
port=1194
seconds=5 # between two looks
intact=/run/intact # its modification time is when the rules were last seen complete
opened=/run/opened # the indexes and names of the bridges that were opened for replies to the server

# ------------------------------------------------------------------------------------------- which packet filter

# The chains of engines that use nftables themselves.
docker="ip docker-bridges filter-FORWARD"
podman="inet netavark FORWARD"

# shellcheck disable=SC2086 # a chain is many words, here and below
has_chain() { nft list chain $1 > /dev/null 2>&1; }

# Rules placed through another packet filter than the engine's own have no effect.
choose_backend() {
    if [ "${container:-}" = podman ]; then # as Podman tells its containers
        choose_podmans
        return
    fi
    backend=nftables forward=$docker
    if has_chain "$docker"; then return; fi # Engine 29, where it is configured so
    for backend in nft legacy; do
        if iptables -S FORWARD 2> /dev/null | grep -q DOCKER-USER; then
            forward=DOCKER-USER
            return
        fi
    done
    # Nothing leads to the engine's chain any more, until the engine is started anew; ours needs no way through it.
    forward=FORWARD
    for backend in nft legacy; do
        if iptables -S DOCKER-USER > /dev/null 2>&1; then return; fi
    done
    # No engine's rules at all (a node without Docker): take what the kernel has, the newer first.
    for backend in nft legacy; do
        if iptables -t nat -S > /dev/null 2>&1; then return; fi
    done
    echo "this container cannot set a packet filter: it lacks NET_ADMIN, or its kernel has no nf_tables." >&2
    exit 1
}

# It has no rules before its first container with a network starts. An older one, or one that is told to, has iptables'.
choose_podmans() {
    if ! has_chain "$podman"; then
        forward=FORWARD
        for backend in nft legacy; do
            may_look || continue
            if iptables -S NETAVARK_FORWARD > /dev/null 2>&1; then return; fi
        done
    fi
    backend=nftables forward=$podman
}

# To look at the older iptables would load it.
may_look() { [ "$backend" != legacy ] || grep -qs filter /proc/net/ip_tables_names; }

iptables() { "iptables-$backend" --wait "$@"; }

# ------------------------------------------------------------------------------------------------- which server

# A line for each server on this machine: the device that it is behind and, where others share that, its address.
find_servers() {
    if [ -z "${SERVER_NAME:-}" ]; then
        echo "$bridge"
        return
    fi
    timeout 3 getent ahostsv4 "$SERVER_NAME" | cut --delimiter=' ' --fields=1 | sort --unique | while read -r address; do
        # One on another machine is behind a gateway ("via").
        ip -4 -oneline route get "$address" | awk -v address="$address" '$2 == "dev" { print $3, address }'
    done
}

each_server() { # COMMAND, which gets both
    echo "$servers" | while read -r device address; do
        [ -z "$device" ] || "$1" "$device" "$address"
    done
}

# --------------------------------------------------------------------------------------- the rules, with iptables

# Chains of ours hold all that may change, so that it changes in one transaction; these lead to them.
hooks() {
    # A small kernel may have no raw table; then the engine has no rules in it either.
    ! iptables -t raw -S PREROUTING > /dev/null 2>&1 || echo "raw PREROUTING -j D4M"
    echo "filter $forward -j D4M"
    echo "filter INPUT -j D4M-INPUT"
    echo "nat POSTROUTING -j D4M"
}

chains() { hooks | sed -E 's/^([a-z]+) .* -j /\1 /'; }

iptables_raw() { echo "-A D4M -i $1 ${2:+-s $2} ${mac:+-m mac --mac-source $mac} -j ACCEPT"; }

iptables_forward() {
    echo "-A D4M -i $1 ${2:+-s $2} -j D4M-FROM"
    echo "-A D4M -i $1 ${2:+-s $2} -j ACCEPT"
    echo "-A D4M -o $1 ${2:+-d $2} -j D4M-TO"
}

iptables_input() { echo "-A D4M-INPUT -i $1 ${2:+-s $2} -j D4M-FROM"; } # the rest is up to the machine's own firewall

# An internal network has no way back to anything but its own gateway. For its own bridges the engine does the same, but
# puts it back at its next start alone, while it still drops what comes to the server's own address.
iptables_nat() { [ -z "${2:-$subnet}" ] || echo "-A D4M -s ${2:-$subnet} ! -o $1 -j MASQUERADE"; }

iptables_rules() {
    if chains | grep -q raw; then
        printf '*raw\n:D4M - [0:0]\n'
        each_server iptables_raw
        echo COMMIT
    fi
    printf '*filter\n:D4M - [0:0]\n:D4M-INPUT - [0:0]\n:D4M-FROM - [0:0]\n:D4M-TO - [0:0]\n'
    each_server iptables_forward
    each_server iptables_input
    [ -z "$mac" ] || echo "-A D4M-FROM -m mac ! --mac-source $mac -j DROP"
    echo "-A D4M-FROM -m conntrack --ctdir REPLY -j RETURN"
    for route in $ROUTES; do echo "-A D4M-FROM -m conntrack --ctorigdst $route -j RETURN"; done
    echo "-A D4M-FROM -j DROP"
    echo "-A D4M-TO -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    echo "-A D4M-TO -p $VPN_PROTOCOL --dport $port -j RETURN" # to the engine's own rules for its published port
    echo "-A D4M-TO -j DROP"
    echo COMMIT
    printf '*nat\n:D4M - [0:0]\n'
    each_server iptables_nat
    echo COMMIT
}

# Of a time when nothing led to the engine's chain; whoever restores the rules of that time brings it back.
iptables_has_stray() { [ "$forward" != FORWARD ] && iptables -C FORWARD -j D4M 2> /dev/null; }

iptables_remove_stray() { while iptables_has_stray; do iptables -D FORWARD -j D4M; done; }

iptables_apply() {
    iptables_rules | "iptables-$backend-restore" --wait --noflush
    iptables_remove_stray
    hooks | while read -r table hook; do
        # shellcheck disable=SC2086 # a rule is many words
        iptables -t "$table" -C $hook 2> /dev/null || iptables -t "$table" -I $hook
    done
}

iptables_look() {
    hooks | while read -r table hook; do
        # shellcheck disable=SC2086
        iptables -t "$table" -C $hook && iptables -t "$table" -S "${hook##* }" || echo missing
    done 2>&1
    ! iptables_has_stray || echo stray
    iptables -S D4M-FROM 2>&1
    iptables -S D4M-TO 2>&1
}

iptables_remove() {
    iptables_remove_stray
    hooks | while read -r table hook; do
        # shellcheck disable=SC2086
        while iptables -t "$table" -D $hook 2> /dev/null; do :; done
        iptables -t "$table" -F "${hook##* }" 2> /dev/null && iptables -t "$table" -X "${hook##* }" || :
    done
    for ours in D4M-FROM D4M-TO; do
        iptables -F "$ours" 2> /dev/null && iptables -X "$ours" || :
    done
}

iptables_remains() { for table in raw filter nat; do iptables -t "$table" -S 2> /dev/null; done | grep D4M; }

# --------------------------------------------------------------------------------------- the rules, with nftables

# No rule of ours can overrule the engine's drop before routing, which knows each container by its address. So what the
# server sends has another destination address while that rule looks at it.
nftables_disguise() { echo "iifname $1 ${2:+ip saddr $2} ${mac:+ether saddr $mac} ip daddr set ip daddr ^ 128.0.0.0"; }
nftables_forward() {
    echo "iifname $1 ${2:+ip saddr $2} jump from"
    echo "oifname $1 ${2:+ip daddr $2} jump to"
}
nftables_input() { echo "iifname $1 ${2:+ip saddr $2} jump from"; }
nftables_nat() { [ -z "$2" ] || echo "ip saddr $2 oifname != $1 masquerade"; }
nftables_accept() {
    has_chain "$forward" || return 0
    echo "insert rule $forward iifname $1 ${2:+ip saddr $2} accept comment \"d4m\""
    # Podman keeps isolated networks apart in both directions.
    echo "insert rule $forward oifname $1 ${2:+ip daddr $2} ct state established,related accept comment \"d4m\""
}

# Podman forwards nothing from an internal network, not even replies. Its bridges, those that are open to the server, too:
nftables_internals() { [ "$forward" != "$podman" ] || { nftables_closed && nftables_opened; } | sort --unique; }

nftables_closed() {
    ip -oneline link show type bridge | while IFS=': ' read -r _ name _; do
        if ip -4 netconf show dev "$name" | grep -q ' forwarding off'; then echo "$name"; fi
    done
}

# As the rules have them; or, where somebody has flushed those, as this container remembers: a name alone may be another's.
nftables_opened() {
    nft list chain ip d4m forward 2> /dev/null | sed -n 's/.*iif "\(.*\)" jump internal.*/\1/p'
    [ ! -e "$opened" ] || while read -r index name; do
        [ "$(index_of "$name")" != "$index" ] || echo "$name"
    done < "$opened"
}

index_of() { ip -oneline link show dev "$1" 2> /dev/null | cut --delimiter=: --fields=1; }

nftables_forwarding() { # 0|1
    names=$(nftables_opened | sort --unique)
    : > "$opened"
    for name in $names; do
        index=$(index_of "$name")
        [ -n "$index" ] || continue
        forward.pl "$index" "$1"
        [ "$1" = 0 ] || echo "$index $name" >> "$opened"
    done
}

nftables_rules() {
    cat << END
table ip d4m {
    chain from {
        ${mac:+ether saddr != $mac drop}
        ct direction reply return
        ct original ip daddr { $(echo "$ROUTES" | sed 's/  */, /g') } return
        drop
    }
    chain to {
        ct state established,related return
        $VPN_PROTOCOL dport $port return
        drop
    }
    chain internal {
        oifname $bridge ct direction reply return
        drop
    }
    chain disguise {
        type filter hook prerouting priority raw - 10;
        $(each_server nftables_disguise)
    }
    chain reveal {
        type filter hook prerouting priority raw + 10;
        $(each_server nftables_disguise)
    }
    chain forward {
        type filter hook forward priority filter - 10;
        $(nftables_internals | sed 's/.*/iif "&" jump internal/')
        $(each_server nftables_forward)
    }
    chain input {
        type filter hook input priority filter - 10;
        $(each_server nftables_input)
    }
    chain nat {
        type nat hook postrouting priority srcnat - 10;
        $(each_server nftables_nat)
    }
}
END
}

# shellcheck disable=SC2086
nftables_accepted() { nft --handle list chain ${1:-$forward} 2> /dev/null | grep 'comment "d4m"'; }

nftables_forget() {
    for chain in "$docker" "$podman"; do
        nftables_accepted "$chain" | sed "s/.*# handle /delete rule $chain handle /"
    done
}

nftables_apply() {
    {
        printf 'add table ip d4m\ndelete table ip d4m\n'
        nftables_rules
        nftables_forget
        each_server nftables_accept
    } | nft --file -
    nftables_forwarding 1
}

nftables_look() {
    nft list table ip d4m 2>&1
    nftables_accepted || echo missing
    [ "$forward" != "$podman" ] || nftables_closed
}

nftables_remove() {
    nftables_forwarding 0
    {
        printf 'add table ip d4m\ndelete table ip d4m\n'
        nftables_forget
    } | nft --file -
}

nftables_remains() { nft list table ip d4m 2> /dev/null || nftables_forget; }

# ------------------------------------------------------------------------------------------------------ the work

with_backend() { case "$backend" in nftables) "nftables_$1" ;; *) "iptables_$1" ;; esac; }

# Before the server had a network of its own, its device was in this one, and rules named it.
remove_former() {
    [ "$backend" != nftables ] || return 0
    for chain in "raw PREROUTING" "filter $forward" "filter INPUT" "nat POSTROUTING"; do
        iptables -t "${chain% *}" -S "${chain#* }" 2> /dev/null | sed -n '/ d4m0 /s/^-A //p' | while read -r rule; do
            # shellcheck disable=SC2086
            iptables -t "${chain% *}" -D $rule
        done
    done
}

# The engine may have come back with another packet filter, or with chains that were not there yet.
leave_for() { # BACKEND FORWARD
    if [ -n "$used" ] && [ "$used" != "$1 $2" ]; then
        backend=${used%% *} forward=${used#* }
        with_backend remove
        backend=$1 forward=$2
    fi
    used="$1 $2"
}

keep() {
    placed="" looked="" used=""
    while :; do
        choose_backend
        servers=$(find_servers)
        subnet=$(ip -4 -oneline address show dev "$bridge" 2> /dev/null | awk '{ print $4 }')
        wanted="$backend $forward $servers $subnet"
        if [ "$wanted" != "$placed" ] || [ "$(with_backend look)" != "$looked" ]; then
            echo "placing the rules: $(echo "$wanted" | tr '\n' ' ')"
            leave_for "$backend" "$forward"
            remove_former
            with_backend apply
            # Compared with how they looked when they were new: how a rule is printed is each backend's own affair.
            placed=$wanted looked=$(with_backend look)
            case $looked in *missing*) looked="" ;; esac # it was taken away at once: not what it is to look like
        fi
        pause=1
        if [ -n "$looked" ]; then
            touch "$intact"
            pause=$seconds
        fi
        sleep "$pause" &
        wait $!
    done
}

remove() {
    choose_backend
    remove_former
    # The engine may have had another packet filter when the rules were placed.
    left=""
    for backend in nft nftables legacy; do
        may_look || continue
        forward=FORWARD
        if [ "$backend" != nftables ] && iptables -S FORWARD 2> /dev/null | grep -q DOCKER-USER; then
            forward=DOCKER-USER
        fi
        with_backend remove 2> /dev/null || :
        left="$left$(with_backend remains 2> /dev/null | tr '\n' ';')" || :
    done
    [ -z "$left" ] || { echo "$left" >&2 && exit 1; }
}

# Under Compose the rules outlast this container as long as the server may be sending: a restart leaves no gap. In a
# cluster another pod may get the server's address next.
stop() {
    if [ -n "${SERVER_NAME:-}" ] || [ -z "$(ip link show master "$bridge" 2> /dev/null)" ]; then remove; fi
}

forwards() { [ "$(cat /proc/sys/net/ipv4/ip_forward)" = 1 ]; }

# What keeps the engine's packet filter from letting the server through, as far as it is ours.
missing() {
    forwards || echo "net.ipv4.ip_forward=1"
    choose_backend
    if [ "$backend" = nftables ]; then
        nft list table ip d4m > /dev/null 2>&1 || echo "table ip d4m"
        nftables_accepted > /dev/null || echo "the accept in $forward"
        return
    fi
    hooks | while read -r table hook; do
        # shellcheck disable=SC2086
        iptables -t "$table" -C $hook 2> /dev/null || echo "iptables-$backend -t $table -I $hook"
        iptables -t "$table" -S "${hook##* }" 2> /dev/null | grep -q -- -A || echo "what chain ${hook##* } of $table had"
    done
}

# Whatever backend they are in: a rule drops what it sees, whether the engine looks there or not.
drops() {
    for backend in nft legacy; do
        may_look || continue
        "iptables-$backend-save" --counters 2> /dev/null | awk -v backend="iptables-$backend" '
            /^\*/ { table = substr($1, 2) }
            /^:.* DROP / { split($3, count, /[^0-9]+/); print count[2], backend, "-t", table, "-P", substr($1, 2), "DROP" }
            /-j (DROP|REJECT)/ { split($1, count, /[^0-9]+/); $1 = backend " -t " table; print count[2], $0 }
        '
    done
    nft list ruleset 2> /dev/null | awk '
        $1 == "table" { table = $2 " " $3; known = table ~ /^ip (filter|raw|nat|mangle|security)$/ } # from above
        $1 == "chain" { chain = $2 }
        !known && / (drop|reject)( |$)/ && match($0, /counter packets [0-9]+/) {
            split(substr($0, RSTART, RLENGTH), count, " ")
            sub(/^[ \t]+/, ""); gsub(/ counter packets [0-9]+ bytes [0-9]+/, "")
            print count[3], "nft " table " " chain ": " $0
        }
    '
}

mac=${SERVER_HARDWARE_ADDRESS:-}
case "${1:-keep}" in
    check) [ $(($(date +%s) - $(stat --format %Y "$intact"))) -lt 15 ] ;;
    remove) remove ;;
    missing) missing ;;
    drops) drops ;;
    keep)
        if ! forwards; then
            echo "this machine forwards no IPv4 (net.ipv4.ip_forward is 0), so clients would reach nothing: set it to 1." >&2
            exit 1
        fi
        trap 'stop; exit 0' TERM INT
        keep
        ;;
esac
