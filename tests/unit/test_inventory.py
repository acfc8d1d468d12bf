"""What is known of what runs on an engine, and how often the engine is asked for it."""

import json
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from devkit.errors import UserError
from devkit.facts import Attachment, PublishedPort
from devkit.sites.docker import Docker

# `docker NOUN ls` prints the ids in NOUN.json, `docker NOUN inspect ID...` those of the objects that are there.
STAND_IN = """#!/bin/sh
here=$(dirname "$0")
echo "$*" >> "$here/asked"
noun=$1
verb=$2
shift 2
case "$noun $verb" in
"info --format") echo '{"ServerVersion": "29.0.0"}' ;;
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


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a stand-in for Docker's command line."""
    program = tmp_path / "docker"
    program.write_text(STAND_IN)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    holds(tmp_path, "network", [NETWORK])
    return tmp_path


def holds(engine: Path, noun: str, objects: Iterable[Mapping[str, Any]], gone: Iterable[str] = ()) -> None:
    """Let the engine have these; of what has gone, it lists the id and has no more."""
    listed = list(objects)
    (engine / f"{noun}.ids").write_text("".join(f"{one}\n" for one in [*(one["Id"] for one in listed), *gone]))
    (engine / f"{noun}.json").write_text(json.dumps(listed))
    errors = "".join(f"Error response from daemon: No such {noun}: {one}\n" for one in gone)
    (engine / f"{noun}.error").write_text(errors)


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


def test_container_has_all_that_a_name_or_a_report_is_made_of(engine: Path, tmp_path: Path) -> None:
    holds(engine, "container", [inspected(1)])
    (one,) = Docker(tmp_path).survey()[2]
    assert (one.name, one.id, one.image) == ("shop-web-1", f"{1:064x}", "nginx")
    assert (one.project, one.service, one.labels["team"]) == ("shop", "web", "a")
    assert (one.state, one.health) == ("running", "healthy")
    assert one.ports == ("80/tcp", "8443/tcp")
    assert one.published == (PublishedPort("80/tcp", "127.0.0.1", 8080),)
    assert one.attachments == (
        Attachment("other", "", None, None),
        Attachment("shop_default", "bridge", IPv4Network("172.18.0.0/16"), IPv4Address("172.18.0.2"), ("web",)),
    )


def test_container_in_anothers_network_has_its_addresses(engine: Path, tmp_path: Path) -> None:
    of_its_own = inspected(1)
    nothing: dict[str, Any] = {"Ports": {}, "Networks": {}}
    joined = inspected(
        2, HostConfig={"NetworkMode": f"container:{of_its_own['Id']}"}, NetworkSettings=nothing, State={}
    )
    holds(engine, "container", [joined, of_its_own])
    one, two = Docker(tmp_path).survey()[2]
    assert (two.shares, two.attachments) == ("shop-web-1", one.attachments)
    assert (two.published, two.health) == ((), None)


def test_engine_is_asked_as_often_for_many_as_for_one(engine: Path, tmp_path: Path) -> None:
    asked = []
    for number in (1, 120):
        holds(engine, "container", map(inspected, range(number)))
        assert len(Docker(tmp_path).survey()[2]) == number
        asked.append(len((engine / "asked").read_text().splitlines()))
        (engine / "asked").unlink()
    assert asked == [6, 6]


def test_what_goes_meanwhile_is_left_out(engine: Path, tmp_path: Path) -> None:
    holds(engine, "container", [inspected(1)], gone=["f" * 64])
    assert [one.name for one in Docker(tmp_path).survey()[2]] == ["shop-web-1"]
    (engine / "container.error").write_text("Cannot connect to the Docker daemon\n")
    with pytest.raises(UserError, match="Docker refused: Cannot connect"):
        Docker(tmp_path).survey()[2]
