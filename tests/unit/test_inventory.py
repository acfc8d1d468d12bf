"""What is known of what runs on an engine, and how often the engine is asked for it."""

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from devkit.errors import UserError
from devkit.facts import Attachment, PublishedPort
from devkit.inventory import MTU_OPTION, containers, networks
from devkit.sites.docker import Docker, endpoint

from tests.unit.engine import NETWORK, holds, inspected, place


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a stand-in for Docker's command line."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return place(tmp_path)


def test_container_has_all_that_a_name_or_a_report_is_made_of(engine: Path, tmp_path: Path) -> None:
    holds(engine, "container", [inspected(1)])
    (one,) = Docker(tmp_path).found().containers
    assert (one.name, one.id, one.image) == ("shop-web-1", f"{1:064x}", "nginx")
    assert (one.project, one.service, one.labels["team"]) == ("shop", "web", "a")
    assert (one.state, one.health) == ("running", "healthy")
    assert one.ports == ("80/tcp", "8443/tcp")
    # A network whose containers are routed to publishes a port without a port of the host's.
    routed = {"Ports": {"80/tcp": [{"HostIp": "", "HostPort": ""}]}, "Networks": {}}
    assert containers([inspected(2, NetworkSettings=routed)], ())[0].published == ()
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
    one, two = Docker(tmp_path).found().containers
    assert (two.shares, two.attachments) == ("shop-web-1", one.attachments)
    assert (two.published, two.health) == ((), None)


def test_engine_is_asked_as_often_for_many_as_for_one(engine: Path, tmp_path: Path) -> None:
    asked = []
    for number in (1, 120):
        endpoint.cache_clear()
        holds(engine, "container", map(inspected, range(number)))
        assert len(Docker(tmp_path).found().containers) == number
        asked.append(len((engine / "asked").read_text().splitlines()))
        (engine / "asked").unlink()
    assert asked == [6, 6]


def test_what_goes_meanwhile_is_left_out(engine: Path, tmp_path: Path) -> None:
    holds(engine, "container", [inspected(1)], gone=["f" * 64])
    assert [one.name for one in Docker(tmp_path).found().containers] == ["shop-web-1"]
    (engine / "container.error").write_text("Cannot connect to the Docker daemon\n")
    with pytest.raises(UserError, match="Docker refused: Cannot connect"):
        Docker(tmp_path).found()


def test_networks_mtu_is_the_one_that_was_asked_for_or_dockers_default() -> None:
    asked = {None: 1500, "9000": 9000, "": 1500, "0": 1500, "much": 1500}
    for option, mtu in asked.items():
        (found,) = networks([{**NETWORK, "Options": option if option is None else {MTU_OPTION: option}}])
        assert found.mtu == mtu


def test_network_is_known_by_its_id_where_podman_gives_it_two_names() -> None:
    network = NETWORK | {"Name": "bridge", "Id": "a" * 64}
    places = {"podman": {"IPAddress": "172.18.0.7", "NetworkID": "a" * 64}, "host": {"NetworkID": "host"}}
    (one,) = containers([inspected(1, NetworkSettings={"Networks": places})], networks([network]))
    found = {place.network: (place.driver, str(place.subnet)) for place in one.attachments}
    assert found == {"podman": ("bridge", "172.18.0.0/16"), "host": ("host", "None")}


@pytest.mark.parametrize(
    ("written", "name"),
    [("registry.example/library/nginx:latest", "nginx"), ("registry.example/library/nginx:alpine", "nginx:alpine"),
     ("nginx:latest", "nginx:latest"), ("registry.example/team/app:latest", "registry.example/team/app:latest")],
)  # fmt: skip
def test_image_has_the_name_that_docker_gives_it(written: str, name: str) -> None:
    (one,) = containers([inspected(1, Config={"Image": written})], [])
    assert one.image == name
