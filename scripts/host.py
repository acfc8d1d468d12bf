#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "cryptography>=46",
#     "filelock>=3.20",
#     "ifaddr>=0.2",
#     "python-on-whales>=0.80",
#     "pyyaml>=6.0",
#     "rich>=14",
# ]
# ///
"""Tell this computer who answers names behind the VPN, and which CA vouches for them; take it back; say how it is."""

from devkit.bootstrap import run

if __name__ == "__main__":
    run("host")
