"""What the report says of facts that the lab cannot show."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, cast

import pytest
from devkit.answers import read_answers
from devkit.facts import Attachment, Container, Engine, EngineFacts, PublishedPort
from devkit.material.changes import add_clients
from devkit.material.state import first_profiles, read_generation
from devkit.report.access import make_access
from devkit.report.document import of_engine
from devkit.report.engine import EngineReport, as_text, make_report
from devkit.vpn.openvpn.profile import opening_steps
from rich.console import Console

from tests.unit.condition import well

NOW = datetime.now(UTC)


def report(project: Path, engine: Engine, *containers: Container, now: datetime = NOW, **answers: Any) -> EngineReport:
    changed = replace(read_answers(project), **answers)
    access = make_access(changed, first_profiles(project, changed), read_generation(project), now)
    facts = EngineFacts(engine, containers)
    return make_report(access, facts, well(facts, changed), {})


def engine(firewall_backend: str = "iptables") -> Engine:
    return Engine("vm", "29.0.0", "Docker Desktop", firewall_backend, host=None)


def printed(made: EngineReport, project: Path) -> str:
    console = Console(file=StringIO(), record=True, width=200)
    console.print(as_text(made, "Linux", project))
    return console.export_text()


def container(driver: str, address: str, *ports: str) -> Container:
    network = IPv4Network(f"{address}/24", strict=False)
    return Container("one", "image", None, None, (Attachment("net", driver, network, IPv4Address(address)),), ports)


def test_networks_of_podman_are_added_as_a_whole_before_there_are_any(project: Path) -> None:
    podman = Engine("vm", "5.8.6", "fedora", "", None, is_podman=True)
    pool = IPv4Network("10.88.0.0/15")
    assert report(project, podman).missed == (pool,)
    assert "  ./scripts/routes.py add 10.88.0.0/15" in printed(report(project, podman), project)
    there = (container("bridge", "10.89.3.2"), container("bridge", "192.168.7.2"))
    assert report(project, podman, *there).missed == (pool, IPv4Network("192.168.7.0/24"))
    # Whoever has chosen a part of them is asked for no more, as long as nothing is outside.
    chosen: dict[str, Any] = {"routes": (IPv4Network("10.88.0.0/16"),)}
    assert report(project, podman, container("bridge", "10.88.0.2"), **chosen).missed == ()
    assert report(project, podman, container("bridge", "10.89.3.2"), **chosen).missed == (pool,)
    assert report(project, engine()).missed == ()


@pytest.mark.parametrize("known", ["", "iptables", "iptables+firewalld", "nftables", "nftables+firewalld"])
def test_nothing_is_claimed_to_be_reached_through_a_packet_filter_that_is_not_known(project: Path, known: str) -> None:
    there = container("bridge", "172.30.0.5", "80/tcp")
    made = report(project, engine("ebpf"), there)
    assert [place.reachability.obstacle for place in made.containers[0].places] == [
        "the engine's packet filter is not known"
    ]
    assert made.containers[0].urls == ()
    assert "'ebpf', is not one that the firewall knows" in made.warnings[0]
    made = report(project, engine(known), there)
    assert made.warnings == ()
    assert made.containers[0].places[0].reachability.obstacle is None


@pytest.mark.parametrize("driver", ["macvlan", "ipvlan", "overlay"])
def test_networks_that_the_engines_host_cannot_reach_are_said_to_be_so(project: Path, driver: str) -> None:
    (reached,) = report(project, engine(), container(driver, "172.30.0.5")).containers
    assert reached.places[0].reachability.obstacle == f"the engine's host cannot reach its own {driver} networks"


def test_urls_are_given_for_ports_that_browsers_open(project: Path) -> None:
    (reached,) = report(
        project, engine(), container("bridge", "172.30.0.5", "80/tcp", "8443/tcp", "5432/tcp")
    ).containers
    assert reached.urls == ("http://172.30.0.5", "https://172.30.0.5:8443")


def test_document_and_report_hold_the_same_facts(project: Path) -> None:
    there = replace(
        container("bridge", "172.30.0.5", "80/tcp", "5432/tcp"), project="shop", service="web", health="unhealthy",
        published=(PublishedPort("80/tcp", "127.0.0.1", 8080),),
    )  # fmt: skip
    away = replace(container("bridge", "192.168.9.5"), name="two")
    shortly_before_the_leaves_end = NOW + timedelta(days=810)
    made = report(project, engine(), there, away, now=shortly_before_the_leaves_end)
    document: Any = of_engine(made)
    assert document["containers"] == [
        {
            "name": "one",
            "image": "image",
            "addresses": [
                {"network": "net", "address": "172.30.0.5", "reachable": True, "reason": None, "answered": True}
            ],
            "ports": ["80/tcp", "5432/tcp"],
            "urls": ["http://172.30.0.5"],
            "project": "shop",
            "service": "web",
            "state": "running",
            "health": "unhealthy",
            "published": [{"port": "80/tcp", "host_address": "127.0.0.1", "host_port": 8080}],
            "names": ["one.d4m.internal", "web.shop.d4m.internal"],
            "page": "https://web.shop.d4m.internal",
        },
        {
            "name": "two",
            "image": "image",
            "addresses": [
                {
                    "network": "net",
                    "address": "192.168.9.5",
                    "reachable": False,
                    "reason": "outside the routes",
                    "answered": False,
                }
            ],
            "ports": [],
            "urls": [],
            "project": None,
            "service": None,
            "state": "running",
            "health": None,
            "published": [],
            "names": [],
            "page": None,
        },
    ]
    assert [end["name"] for end in document["certificates"]] == [
        "authority",
        "server",
        "docker-for-mac",
        "https authority",
        "https intermediate",
    ]
    assert len(document["warnings"]) == 3  # the server, its filter, HTTPS
    endpoint, about = document["endpoint"], document["engine"]
    ends = [
        f"{end['name'].replace('authority', 'CA').replace('https', 'HTTPS')}: until {end['ends'].partition('T')[0]}"
        for end in document["certificates"]
    ]
    health = {one["name"]: one for one in document["health"]}
    rows = iter(" ".join(line.split()) for line in printed(made, project).splitlines())
    for fact in (
        "Project shop",
        "one net 172.30.0.5 https://web.shop.d4m.internal yes, but unhealthy",
        "5432/tcp",
        "Without a project",
        "two net 192.168.9.5 no: outside the routes",
        "1 of 2 containers reached",
        f"Endpoint {endpoint['host']}:{endpoint['port']} ({endpoint['protocol']})",
        f"Engine {about['version']} on {about['operating_system']}",
        f"Profile {Path(document['profile']).relative_to(project)}",
        f"Routes {' '.join(document['routes'])}",
        f"Services {health['services']['evidence']}",
        f"Connected {health['connected']['evidence']}",
        f"From here {health['from here']['evidence']}",
        f"Forwarding {health['forwarding']['evidence']}",
        *ends,
        "./scripts/routes.py add 192.168.9.0/24",
        *(f"warning: {warning}" for warning in document["warnings"]),
        f"problem: no client is connected: {health['connected']['mend']}.",
    ):
        assert any(fact in row for row in rows), fact  # in this order


def test_what_a_browser_opens_comes_first_by_project_and_as_people_count(project: Path) -> None:
    def named(name: str, *ports: str, of: str | None = None) -> Container:
        return replace(container("bridge", "172.30.0.5", *ports), name=name, project=of)

    made = report(
        project, engine(), named("db-1", of="shop"), named("web-10", "80/tcp", of="shop"), named("alone"),
        named("web-2", "80/tcp", of="shop"), named("a-worker", of="jobs"), named("site", "80/tcp"),
    )  # fmt: skip
    lines = printed(made, project).partition("\n\n6 of 6")[0].splitlines()
    assert [line.split(" net ")[0].strip() for line in lines[1:]] == [
        "Project shop", "web-2", "web-10", "db-1", "", "Without a project", "site", "alone", "",
        "Project jobs", "a-worker",
    ]  # fmt: skip


def test_container_that_is_paused_or_starting_is_said_to_be_so(project: Path) -> None:
    there = container("bridge", "172.30.0.5")
    for changed, said in (
        ({"state": "paused"}, "yes, but paused"), ({"health": "starting"}, "yes, but starting"),
        ({"health": "healthy"}, "172.30.0.5         yes\n"),
    ):  # fmt: skip
        assert said in printed(report(project, engine(), replace(there, **cast("Any", changed))), project)


def test_container_without_a_place_of_its_own_has_its_row(project: Path) -> None:
    nowhere = replace(container("bridge", "172.30.0.5"), attachments=())
    assert "no: it has no IPv4 address" in printed(report(project, engine(), nowhere), project)


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
    made = report(project, engine(), vpn_host=host, vpn_listen=IPv4Address(listen))
    assert of_engine(made)["endpoint"] == {"host": host, "port": 1194, "protocol": "tcp", "listen": listen}
    said = printed(made, project)
    assert row in said if row else "Published on" not in said


def test_client_that_is_called_as_a_ca_is_none(project: Path) -> None:
    add_clients(project, read_answers(project), ["CA"], NOW)
    names = [end["name"] for end in cast("Any", of_engine(report(project, engine())))["certificates"]]
    assert names == ["authority", "server", "CA", "docker-for-mac", "https authority", "https intermediate"]


def test_each_system_has_its_own_way_to_open_the_profile() -> None:
    assert "open local/a.tblk" in opening_steps("local/a.ovpn", "macOS")[0]
    assert "OpenVPN GUI" in opening_steps("local/a.ovpn", "Windows")[0]
    assert "sudo openvpn --config local/a.ovpn" in opening_steps("local/a.ovpn", "Linux")[0]
