#!/usr/bin/python3 -I
"""Succeeds if Caddy and what is beside it answer. It runs every few seconds, so it imports as little as can be.

environment: DNS_DOMAIN; VPN_SUBNET, a CIDR
"""

import os
import sys
from http.client import HTTPConnection
from ipaddress import IPv4Network
from pathlib import Path

connection = HTTPConnection(str(IPv4Network(os.environ["VPN_SUBNET"])[1]), 8080, timeout=3)
connection.request("GET", "/state.json", headers={"Host": os.environ["DNS_DOMAIN"]})
sys.exit(not (Path("/run/redirections/wanted").exists() and connection.getresponse().status == 200))
