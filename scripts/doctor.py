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
"""Say what stops a packet on its way from this computer to a container."""

from devkit.bootstrap import run

if __name__ == "__main__":
    run("doctor")
