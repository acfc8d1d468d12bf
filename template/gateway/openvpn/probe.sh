#!/bin/sh
# Proves that a VPN server answers: it must reply to the first packet of a stock client that has no certificate.
# usage: probe.sh tcp|udp HOST PORT
set -eu
protocol=$1 host=$2 port=$3
seconds=10
[ "$protocol" = udp ] || protocol=tcp-client

cd /etc/vpn/configs
# A server replies to nobody without a key of this kind; this one is made for the occasion.
openvpn --genkey tls-crypt-v2-client /run/client.key --tls-crypt-v2 tls-crypt-v2.key > /dev/null
printf 'nobody\nnothing\n' > /run/login
chmod 0600 /run/login
timeout "$seconds" openvpn --client --dev null --proto "$protocol" --remote "$host" "$port" --nobind --ca ca.crt \
    --tls-crypt-v2 /run/client.key --auth-user-pass /run/login --connect-retry 1 1 --tmp-dir /run --verb 3 > /run/log 2>&1 &
trap 'kill $! 2> /dev/null || :' EXIT
while kill -0 $! 2> /dev/null; do
    if grep 'TLS: Initial packet from' /run/log; then exit; fi
    sleep 0.2
done
echo "no VPN server answers at $host:$port:" >&2
tail -5 /run/log >&2
exit 1
