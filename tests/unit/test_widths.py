"""What a person reads is whole on every terminal."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from devkit.answers import read_answers
from devkit.facts import (
    Attachment,
    Cluster,
    ClusterEndpoint,
    ClusterFacts,
    Container,
    Engine,
    EngineFacts,
    Pod,
    Service,
    Session,
)
from devkit.material.changes import add_clients, revoke_client
from devkit.material.state import first_profiles, read_generation
from devkit.report import cluster, engine
from devkit.report.access import Access, make_access
from devkit.report.certificates import client_table
from rich.console import Console, RenderableType

from tests.unit.condition import well

NOW = datetime.now(UTC).replace(microsecond=0)
WIDTHS = pytest.mark.parametrize("width", [60, 80, 100, 200, 1000])
AROUND = 40  # narrower than any table can be: nothing is cut even so


def access(project: Path) -> Access:
    answers = read_answers(project)
    return make_access(answers, first_profiles(project, answers), read_generation(project), NOW)


def engine_report(project: Path, facts: EngineFacts) -> engine.EngineReport:
    return engine.make_report(access(project), facts, well(facts, read_answers(project)), {})


def cluster_report(project: Path, facts: ClusterFacts) -> cluster.ClusterReport:
    return cluster.make_report(access(project), facts, well(facts, read_answers(project)), {}, "./scripts/up.py")


def printed(result: RenderableType, width: int) -> list[str]:
    """The lines that a terminal of this width shows; the tables' are not wider."""
    console = Console(file=StringIO(), width=width, record=True)
    console.print(result, crop=False)
    return [line.rstrip() for line in console.export_text().splitlines()]


def columns(lines: list[str], first: str) -> dict[str, list[str]]:
    """What each column of the table holds, line by line, by its heading; the table ends with an empty line or two."""
    start = next(number for number, line in enumerate(lines) if line.startswith(first))
    places = [(found.start(), found.group()) for found in re.finditer(r"\S+", lines[start])]
    ends = [place for place, _ in places[1:]] + [None]
    return {
        heading: [line[place:end].strip() for line in lines[start + 1 :]]
        for (place, heading), end in zip(places, ends, strict=True)
    }


def name_of(number: int) -> str:
    return f"container-{number}-".ljust(60, "x")


def network_of(number: int) -> IPv4Network:
    return IPv4Network(f"192.168.{number}.0/24" if number % 4 == 0 else f"172.{16 + number}.0.0/16")


def sixty_containers() -> Iterator[Container]:
    """Each on three of twelve networks, three of which are outside the routes."""
    for number in range(60):
        networks = sorted((number * 5 + step) % 12 for step in (0, 1, 2))
        places = tuple(
            Attachment(f"network-{one}-".ljust(40, "y"), "bridge", network_of(one), network_of(one)[number + 2])
            for one in networks
        )
        ports = ("443/tcp", "8443/tcp", "5432/tcp", "53/udp") if number % 3 else ("6379/tcp",)
        yield Container(name_of(number), "image", f"project-{number % 7}", None, places, ports)
    yield Container("on-host", "image", None, None, (Attachment("host", "host", None, None),), ())


@WIDTHS
def test_report_of_many_containers_is_whole(project: Path, width: int) -> None:
    facts = EngineFacts(Engine("vm", "29.0.0", "Docker Desktop", "iptables", None), tuple(sixty_containers()))
    lines = printed(engine.as_text(engine_report(project, facts), "macOS", project), width)
    end = next(number for number, line in enumerate(lines) if line.endswith("containers reached"))
    assert max(map(len, lines[:end])) <= width
    assert lines[end] == "60 of 61 containers reached"
    found = columns(lines[:end], "Container")
    names, words = "".join(found["Container"]), " ".join(lines).split()
    for container in facts.containers:
        assert container.name in names
        for place in container.attachments:
            if place.address:
                assert str(place.address) in words
    assert sum(bool(re.fullmatch(r"https://172[0-9.]+:8443", word)) for word in words) == 40
    verdicts = " ".join(" ".join(found["Reached"]).split())
    assert verdicts.count("yes") == 60 * 3 - 45
    assert verdicts.count("no: outside the routes") == 45
    assert "no: it uses the engine's own addresses: reach it at any bridge's gateway, such as 172.17.0.1" in verdicts
    assert ("Network" in found) == (width > 60)


@WIDTHS
def test_list_of_clients_is_whole(project: Path, width: int) -> None:
    answers = read_answers(project)
    names = [f"client-{number}-".ljust(48, "x") for number in range(3)]
    add_clients(project, answers, names, NOW)
    revoke_client(project, answers, names[1], NOW)
    generation = read_generation(project)
    sessions = [Session(names[0], f"203.0.113.2{one}:65535", f"100.100.100.10{one}", NOW, one) for one in range(2)]
    lines = printed(client_table(generation, sessions), width)
    assert max(map(len, lines)) <= width
    found = columns(lines, "Client")
    for name in names:
        assert name in "".join(found["Client"])
    words = " ".join(lines).split()
    for session in sessions:
        assert session.real_address in words
        assert session.vpn_address in words
    assert [cell for cell in found["Connected"] if cell][2 if width >= 200 else 6 :] == ["revoked"]
    assert width >= 200 or "from 203.0.113.20:65535" in found["Connected"]
    assert " ".join(found["Connected"]).count(f"{NOW:%Y-%m-%d %H:%M} UTC") == 2
    assert ("Serial" in found) == (width > 60)


@WIDTHS
def test_report_of_a_cluster_is_whole(project: Path, width: int) -> None:
    names = [f"{number}-".rjust(58, "n") for number in range(9)]
    services = tuple(
        Service("team-a", name, IPv4Address(f"172.20.200.{200 + number}"), ("8443/tcp", "5432/tcp"))
        for number, name in enumerate(names)
    )
    pods = tuple(Pod("team-b", name, IPv4Address(f"10.20.200.{200 + place}"), ()) for place, name in enumerate(names))
    one = Cluster("k3s", "1.36.2", (), (IPv4Network("10.20.0.0/16"),), (IPv4Network("172.20.0.0/16"),))
    facts = ClusterFacts(one, ClusterEndpoint("LoadBalancer", ("127.0.0.1",), 1194, None), services, pods, True)
    lines = printed(cluster.as_text(cluster_report(project, facts), "macOS", project), width)
    end = lines.index("9 of 18 Services and pods reached")
    assert max(map(len, lines[:end])) <= width
    found = columns(lines[:end], "Kind" if width > 60 else "Name")
    words = " ".join(lines).split()
    for address in (*(one.address for one in services), *(one.address for one in pods)):
        assert str(address) in words
    for name in names:
        assert "".join(found["Name"]).count(name) == 2
    for service in services:
        assert f"https://{service.address}:8443" in words
    assert " ".join(" ".join(found["Reached"]).split()).count("no: outside the routes") == 9


def test_terminal_that_is_too_narrow_gets_longer_lines_but_whole_words(project: Path) -> None:
    there = replace(next(sixty_containers()), ports=("8443/tcp",))
    facts = EngineFacts(Engine("vm", "29.0.0", "Docker Desktop", "iptables", None), (there,))
    lines = printed(engine.as_text(engine_report(project, facts), "macOS", project), AROUND)
    assert any(f"https://{network_of(1)[2]}:8443" in line.split() for line in lines)
    assert there.name in "".join(columns(lines[: lines.index("1 of 1 containers reached")], "Container")["Container"])
