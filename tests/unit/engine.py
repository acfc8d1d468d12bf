"""A stand-in for Docker's command line: it prints what the engine of a test is to have, and notes what it is asked."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from devkit.material.state import server_serial_numbers

# `docker NOUN ls` prints the ids in NOUN.json, `docker NOUN inspect ID...` those of the objects that are there.
STAND_IN = """#!/bin/sh
here=$(dirname "$0")
echo "$*" >> "$here/asked"
noun=$1
verb=$2
shift 2
case "$noun $verb" in
"info --format") echo '{"ServerVersion": "29.0.0", "IndexServerAddress": "https://index.example.org/"}' ;;
"context inspect") echo '[{"Name": "default", "Endpoints": {"docker": {"Host": "unix:///s"}}}]' ;;
*" ls") cat "$here/$noun.ids" ;;
*" inspect") cat "$here/$noun.json"; cat "$here/$noun.error" >&2 2> /dev/null; test ! -s "$here/$noun.error" ;;
esac
"""
NETWORK = {
    "Name": "shop_default", "Id": "0" * 64, "Driver": "bridge",
    "IPAM": {"Config": [{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}, {"Subnet": "fd00::/64"}]},
    "Options": None, "Labels": {"com.docker.compose.project": "shop"},
}  # fmt: skip


def place(folder: Path) -> Path:
    """Put the stand-in into a folder, which belongs on the PATH; it has a network."""
    program = folder / "docker"
    program.write_text(STAND_IN)
    program.chmod(0o755)
    holds(folder, "network", [NETWORK])
    return folder


def holds(engine: Path, noun: str, objects: Iterable[Mapping[str, Any]], gone: Iterable[str] = ()) -> None:
    """Let the engine have these; of what has gone, it lists the id and has no more."""
    listed = list(objects)
    ids = "".join(f"{one}\n" for one in [*(one["Id"] for one in listed), *gone])
    errors = "".join(f"Error response from daemon: No such {noun}: {one}\n" for one in gone)
    for ending, text in (("error", errors), ("json", json.dumps(listed)), ("ids", ids)):
        (engine / "new").write_text(text)
        (engine / "new").replace(engine / f"{noun}.{ending}")  # a script may be reading


def inspected(number: int, **changed: Any) -> dict[str, Any]:
    """What Docker says of a container of Compose's, of which there are several."""
    return {
        "Id": f"{number:064x}", "Name": f"/shop-web-{number}",
        "State": {"Status": "running", "Health": {"Status": "healthy", "Log": [{"Output": "…"}]}},
        "HostConfig": {"NetworkMode": "shop_default"},
        "Config": {
            "Image": "nginx", "ExposedPorts": {"8443/tcp": {}, "80/tcp": {}},
            "Labels": {"com.docker.compose.project": "shop", "com.docker.compose.service": "web", "team": "a"},
        },
        "NetworkSettings": {
            "Ports": {"8443/tcp": None, "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]},
            "Networks": {
                "shop_default": {"IPAddress": "172.18.0.2", "Aliases": ["web", f"{number:064x}"[:12]]},
                "other": {"IPAddress": "", "Aliases": None},
            },
        },
    } | changed  # fmt: skip


def server_of(project: Path) -> dict[str, Any]:
    """What Docker says of a project's own server, without which its VPN is down."""
    labels = {
        "com.docker.compose.service": "vpn", "d4m-devkit.material": "",
        "d4m-devkit.server": server_serial_numbers(project)[-1],
    }  # fmt: skip
    return inspected(999, Config={"Image": "gateway", "Labels": labels}, Name="/d4m-devkit-vpn-1")
