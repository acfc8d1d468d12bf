#!/bin/sh
# HTTPS for the names of containers. As root it opens the key that belongs to you alone, and becomes nobody.
# usage: proxy.sh [check]
set -eu
if [ "${1:-}" = check ]; then exec check.py; fi
exec 3< /etc/https/intermediate.key
exec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all -- proxy.py
