#!/bin/sh
# Installs the Debian packages that the lab and the tests need, where they are missing. Needs root.
set -eu
packages="bind9-dnsutils ca-certificates curl easy-rsa git gnutls-bin iperf3 iproute2 iputils-ping libfaketime
libnss3-tools mmdebstrap openssh-client openssl openvpn python3-venv slirp4netns"
missing=""
for package in $packages; do
    dpkg-query --show --showformat '${Status}' "$package" 2> /dev/null | grep -q 'ok installed' ||
        missing="$missing $package"
done
if [ -n "$missing" ]; then
    echo "installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update --quiet --quiet
    # shellcheck disable=SC2086 # the packages are many words
    apt-get install --quiet --quiet --yes --no-install-recommends $missing > /dev/null
fi
