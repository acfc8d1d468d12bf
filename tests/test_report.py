"""What the report says of facts that the lab cannot show."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from devkit.answers import read_answers
from devkit.facts import Attachment, Container, Engine
from devkit.material import read_generation
from devkit.report import Report, as_document, as_text, make_report, opening_steps
from rich.console import Console

NOW = datetime.now(UTC)


def report(project: Path, engine: Engine, *containers: Container, now: datetime = NOW) -> Report:
    generation = read_generation(project)
    return make_report(read_answers(project), engine, project / "local", generation, containers, now)


def engine(firewall_backend: str = "iptables") -> Engine:
    return Engine("vm", "29.0.0", "Docker Desktop", firewall_backend, host=None)


def printed(made: Report, project: Path) -> str:
    console = Console(file=StringIO(), record=True, width=200)
    console.print(as_text(made, "Linux", project))
    return console.export_text()


def container(driver: str, address: str, *ports: str) -> Container:
    network = IPv4Network(f"{address}/24", strict=False)
    return Container("one", "image", None, None, (Attachment("net", driver, network, IPv4Address(address)),), ports)


@pytest.mark.parametrize("known", ["", "iptables", "iptables+firewalld", "nftables", "nftables+firewalld"])
def test_nothing_is_claimed_to_be_reached_through_a_packet_filter_that_is_not_known(project: Path, known: str) -> None:
    there = container("bridge", "172.30.0.5", "80/tcp")
    made = report(project, engine("ebpf"), there)
    assert [place.fault for place in made.containers[0].places] == ["the engine's packet filter is not known"]
    assert made.containers[0].urls == ()
    assert "'ebpf', is none that the firewall knows" in made.warnings[0]
    made = report(project, engine(known), there)
    assert made.warnings == ()
    assert made.containers[0].places[0].fault is None


@pytest.mark.parametrize("driver", ["macvlan", "ipvlan", "overlay"])
def test_networks_that_the_engines_host_cannot_reach_are_said_to_be_so(project: Path, driver: str) -> None:
    (reached,) = report(project, engine(), container(driver, "172.30.0.5")).containers
    assert reached.places[0].fault == f"the engine's host cannot reach its own {driver} networks"


def test_urls_are_given_for_ports_that_browsers_open(project: Path) -> None:
    (reached,) = report(
        project, engine(), container("bridge", "172.30.0.5", "80/tcp", "8443/tcp", "5432/tcp")
    ).containers
    assert reached.urls == ("http://172.30.0.5", "https://172.30.0.5:8443")


def test_document_and_report_hold_the_same_facts(project: Path) -> None:
    there = container("bridge", "172.30.0.5", "80/tcp", "5432/tcp")
    away = replace(container("bridge", "192.168.9.5"), name="two")
    shortly_before_the_leaves_end = NOW + timedelta(days=810)
    made = report(project, engine(), there, away, now=shortly_before_the_leaves_end)
    document: Any = as_document(made)
    assert document["containers"] == [
        {
            "name": "one",
            "image": "image",
            "addresses": [{"network": "net", "address": "172.30.0.5", "reachable": True, "reason": None}],
            "ports": ["80/tcp", "5432/tcp"],
            "urls": ["http://172.30.0.5"],
        },
        {
            "name": "two",
            "image": "image",
            "addresses": [
                {"network": "net", "address": "192.168.9.5", "reachable": False, "reason": "outside the routes"}
            ],
            "ports": [],
            "urls": [],
        },
    ]
    assert [end["name"] for end in document["certificates"]] == ["authority", "server", "docker-for-mac"]
    assert len(document["warnings"]) == 2
    endpoint, about = document["endpoint"], document["engine"]
    ends = [f"{end['name']}: until {end['ends'].partition('T')[0]}" for end in document["certificates"]]
    rows = iter(" ".join(line.split()) for line in printed(made, project).splitlines())
    for fact in (
        f"Endpoint {endpoint['host']}:{endpoint['port']} ({endpoint['protocol']})",
        f"Engine {about['version']} on {about['operating_system']}",
        f"Profile {Path(document['profile']).relative_to(project)}",
        f"Routes {' '.join(document['routes'])}",
        *ends,
        "one net 172.30.0.5 http://172.30.0.5 yes",
        "5432/tcp",
        "two net 192.168.9.5 no: outside the routes",
        f"'routes=[{', '.join([*document['routes'], '192.168.9.0/24'])}]'",
        *(f"warning: {warning}" for warning in document["warnings"]),
    ):
        assert any(fact in row for row in rows), fact  # in this order


@pytest.mark.parametrize(
    ("host", "listen", "row"),
    [
        ("127.0.0.1", "127.0.0.1", None),
        ("localhost", "127.0.0.1", None),
        ("vpn.example.org", "0.0.0.0", "Published on  0.0.0.0:1194"),
        ("192.0.2.7", "10.0.0.7", "Published on  10.0.0.7:1194"),
    ],
)
def test_address_that_the_port_is_published_on_is_shown(project: Path, host: str, listen: str, row: str | None) -> None:
    answers = replace(read_answers(project), vpn_host=host, vpn_listen=IPv4Address(listen))
    made = make_report(answers, engine(), project / "local", read_generation(project), (), NOW)
    assert as_document(made)["endpoint"] == {"host": host, "port": 1194, "protocol": "tcp", "listen": listen}
    said = printed(made, project)
    assert row in said if row else "Published on" not in said


def test_each_system_has_its_own_way_to_open_the_profile() -> None:
    assert "open local/a.tblk" in opening_steps("local/a.ovpn", "local/a.tblk", "macOS")[0]
    assert "OpenVPN GUI" in opening_steps("local/a.ovpn", "local/a.tblk", "Windows")[0]
    assert "sudo openvpn --config local/a.ovpn" in opening_steps("local/a.ovpn", "local/a.tblk", "Linux")[0]
