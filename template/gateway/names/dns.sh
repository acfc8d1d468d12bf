#!/bin/sh
# The DNS of the VPN's clients: unbound, on the server's address in the tunnel, for what the container `names` writes.
# It refuses all else.
#
# usage: dns.sh          serve, and read the names anew whenever they change
#        dns.sh check    succeed if it answers
# environment: DNS_DOMAIN; VPN_SUBNET, a CIDR; CLUSTER_DNS, the address that cluster.local is asked at, or nothing
set -eu
names=/run/names # a volume; names.py replaces the file in it as a whole
configuration=/run/unbound.conf
read=/run/read # which version of the file has been read
# What unbound would answer by itself (unbound.conf(5), local-zone).
by_itself="localhost 127.in-addr.arpa 1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa home.arpa
resolver.arpa service.arpa onion test invalid"
address=${VPN_SUBNET%.*}.1

control() { unbound-control -q -c "$configuration" "$@"; }

version() { stat --format %i.%.Y "$names"/records.conf 2> /dev/null || echo none; }

if [ "${1:-}" = check ]; then
    control status > /dev/null
    ip -4 -oneline address show | grep -qF " $address/"
    [ "$(cat "$read")" = "$(version)" ]
    exit
fi

write_configuration() {
    cat << END
server:
    do-daemonize: no
    use-syslog: no
    logfile: ""
    log-time-ascii: yes
    username: ""
    chroot: ""
    directory: "/run"
    pidfile: ""
    num-threads: 1
    interface: $address
    access-control: 0.0.0.0/0 refuse
    access-control: $VPN_SUBNET allow
    do-ip6: no
    hide-identity: yes
    hide-version: yes
    module-config: "iterator"
    unblock-lan-zones: yes
    local-zone: "." refuse
END
    for zone in $by_itself; do echo "    local-zone: \"$zone.\" refuse"; done
    if [ -n "${CLUSTER_DNS:-}" ]; then echo '    local-zone: "cluster.local." transparent'; fi
    echo "    include: \"$names/*.conf\""
    cat << END
remote-control:
    control-enable: yes
    control-interface: /run/unbound.sock
    control-use-cert: no
END
    if [ -n "${CLUSTER_DNS:-}" ]; then
        printf 'forward-zone:\n    name: "cluster.local."\n    forward-addr: %s\n' "$CLUSTER_DNS"
    fi
}

# Read the names anew whenever something is said of them.
follow() {
    while read -r _; do
        while now=$(version) && [ "$now" != "$(cat "$read")" ]; do
            said=$(unbound-control -c "$configuration" fast_reload 2>&1) || true
            case $said in
                *error*) echo "$said" >&2 && sleep 1 ;;
                *) echo "$now" > "$read" ;;
            esac
        done
    done
}

# The server may just be starting, and makes the address.
for _ in $(seq 100); do
    if ip -4 -oneline address show | grep -qF " $address/"; then break; fi
    sleep 0.1
done
write_configuration > "$configuration"
version > "$read"
# inotifywait also says when it begins to watch: `follow` then looks for what came before. When it ends, so does the DNS,
# which would not follow any more; the engine starts both again.
{ inotifywait --monitor --event moved_to "$names" 2>&1 | follow || true; kill $$; } &
exec unbound -d -c "$configuration"
