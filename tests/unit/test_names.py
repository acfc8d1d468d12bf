"""Which names containers get, and that none takes anything from another."""

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network

import pytest
from devkit.addresses import reverse_zones
from devkit.facts import Attachment, Container
from devkit.names import Name, names, unbound_records

DOMAIN = "d4m.internal"
ROUTES = (IPv4Network("172.16.0.0/12"),)


def container(name: str, *addresses: str, service: str = "", labels: Mapping[str, str] | None = None) -> Container:
    """A container, its networks being called a, b and so on; `service` is SERVICE.PROJECT."""
    places = (
        Attachment(network, "bridge", IPv4Network(f"{address}/16", strict=False), IPv4Address(address))
        for network, address in zip("abc", addresses, strict=False)
    )
    of, _, project = service.rpartition(".")
    return Container(name, "image", project or None, of or None, tuple(places), (), labels=labels or {})


def found(*containers: Container) -> dict[str, list[str]]:
    """Names without the domain, and their addresses."""
    made, _ = names(containers, DOMAIN, ROUTES)
    return {name.name.removesuffix(f".{DOMAIN}"): [str(address) for address in name.addresses] for name in made}


def test_container_has_its_name_and_its_services() -> None:
    made = found(
        container("shop-db-1", "172.18.0.3", service="db.shop"),
        container("shop-web-1", "172.18.0.2", service="web.shop"),
        container("shop-web-2", "172.18.0.4", service="web.shop"),
        container("alone", "172.17.0.2"),
    )
    assert made == {
        "alone": ["172.17.0.2"],
        "db.shop": ["172.18.0.3"],
        "shop-db-1": ["172.18.0.3"],
        "shop-web-1": ["172.18.0.2"],
        "shop-web-2": ["172.18.0.4"],
        "web.shop": ["172.18.0.2", "172.18.0.4"],
    }


def test_what_compose_runs_once_is_not_the_service() -> None:
    once = container("shop-web-run-1", "172.18.0.2", service="web.shop", labels={"com.docker.compose.oneoff": "True"})
    assert found(once) == {"shop-web-run-1": ["172.18.0.2"]}


def test_name_leads_to_the_address_that_the_routes_reach() -> None:
    assert found(container("web", "192.168.1.2", "172.18.0.2", "172.19.0.2")) == {"web": ["172.18.0.2"]}
    assert found(container("web", "192.168.1.2"), container("none")) == {}


@pytest.mark.parametrize(
    ("label", "value", "added"),
    [
        ("d4m.names", "api, admin.shop", ["admin.shop", "api"]),
        ("d4m.names", "API.d4m.internal., *.wild", ["api", "wild"]),
        ("dev.orbstack.domains", "foo.local,*.bar.orb.local, baz", ["bar", "baz", "foo"]),
        ("d4m.names", "a" * 64 + ', -a, a-, a..b, .a, a b, a\nb, ä, a/b, a"b, ../../etc', []),
        ("d4m.names", ".".join(["a" * 60] * 5), []),
        ("d4m.names", "d4m.internal, *, *.d4m.internal, .", []),
        ("d4m.names", ",".join(f"n{number}" for number in range(1000)), [f"n{number}" for number in range(32)]),
        # A name of elsewhere can be one below the domain only.
        ("d4m.names", "host.docker.internal", ["host.docker.internal"]),
    ],
)
def test_labels_add_names(label: str, value: str, added: list[str]) -> None:
    made = found(container("web", "172.18.0.2", labels={label: value}))
    assert made.pop("web") == ["172.18.0.2"]
    assert sorted(made) == sorted(added)


@pytest.mark.parametrize("claimed", ["db", "x.db", "db.shop", "x.db.shop", "shop", "other", "x.other"])
def test_no_label_takes_anything_from_another_container(claimed: str) -> None:
    others = [
        container("db", "172.17.0.3"),
        container("shop-db-1", "172.18.0.3", service="db.shop"),
        container("labelled", "172.17.0.4", labels={"d4m.names": "other"}),
    ]
    before = found(*others)
    for label in ("d4m.names", "dev.orbstack.domains"):
        hostile = container("zz", "172.17.0.66", labels={label: claimed})
        assert found(hostile, *others) == before | {"zz": ["172.17.0.66"]}


@pytest.mark.parametrize("name", ["db.shop", "x.db.shop", "x.db", "DB", "shop"])
def test_no_name_of_a_container_takes_anything_from_another(name: str) -> None:
    others = [container("db", "172.17.0.3"), container("shop-db-1", "172.18.0.3", service="db.shop")]
    made = found(container(name, "172.17.0.66"), *others)
    assert {name: made[name] for name in found(*others)} == found(*others)


@pytest.mark.parametrize("service", ["x.db.shop", "x.shop-db-1"])
def test_compose_labels_with_dots_of_their_own_choice_take_nothing_either(service: str) -> None:
    hostile = container("zz", "172.17.0.66", labels={})
    of, _, project = service.partition(".")
    hostile = Container("zz", "image", project, of, hostile.attachments, (), labels={})
    other = container("shop-db-1", "172.18.0.3", service="db.shop")
    made = found(hostile, other)
    assert {name for name, addresses in made.items() if "172.17.0.66" in addresses} <= {"zz", "x.shop-db-1"}


def test_own_service_may_be_extended() -> None:
    web = container("shop-web-1", "172.18.0.2", service="web.shop", labels={"d4m.names": "api.web.shop,api.shop-web-1"})
    assert found(web).keys() == {"shop-web-1", "web.shop", "api.web.shop", "api.shop-web-1"}


def test_replicas_share_what_their_labels_add() -> None:
    replicas = [
        container(f"shop-web-{number}", f"172.18.0.{number}", service="web.shop", labels={"d4m.names": "app"})
        for number in (1, 2)
    ]
    assert found(*replicas)["app"] == ["172.18.0.1", "172.18.0.2"]


def test_reverse_names_are_the_containers_own() -> None:
    web = container("shop-web-1", "172.18.0.2", service="web.shop", labels={"d4m.names": "app"})
    assert names([web], DOMAIN, ROUTES)[1] == {IPv4Address("172.18.0.2"): "shop-web-1.d4m.internal"}


def test_records_are_what_unbound_reads() -> None:
    made = (Name("db.shop.d4m.internal", (IPv4Address("172.18.0.3"),)),)
    assert unbound_records(
        made, {IPv4Address("172.18.0.3"): "db.shop.d4m.internal"}, DOMAIN, ROUTES[:0], IPv4Address("10.213.94.1")
    ) == (
        'local-zone: "d4m.internal." static\n'
        'local-data: "d4m.internal. 5 IN A 10.213.94.1"\n'
        "local-data: 'shop.d4m.internal. 5 IN TXT \"\"'\n"
        'local-zone: "db.shop.d4m.internal." redirect\n'
        'local-data: "db.shop.d4m.internal. 5 IN A 172.18.0.3"\n'
        'local-data-ptr: "172.18.0.3 5 db.shop.d4m.internal"\n'
    )


@pytest.mark.parametrize(
    ("route", "zones"),
    [
        ("10.0.0.0/8", ["10.in-addr.arpa"]),
        ("172.16.0.0/12", [f"{octet}.172.in-addr.arpa" for octet in range(16, 32)]),
        ("192.168.7.0/24", ["7.168.192.in-addr.arpa"]),
        ("192.168.7.128/25", []),
        ("10.96.0.0/15", ["96.10.in-addr.arpa", "97.10.in-addr.arpa"]),
    ],
)
def test_reverse_zones_hold_the_routes(route: str, zones: list[str]) -> None:
    assert reverse_zones([IPv4Network(route)]) == tuple(zones)


@pytest.mark.parametrize("label", ["a,x.y.a", "x.y.web", "x.y.web.shop"])
def test_no_record_is_within_the_zone_of_a_name_which_unbound_would_refuse(label: str) -> None:
    web = container("web", "172.18.0.2", service="web.shop", labels={"d4m.names": label})
    text = unbound_records(*names([web], DOMAIN, ROUTES), DOMAIN, ROUTES, IPv4Address("10.213.94.1"))
    zones = set(re.findall(r'local-zone: "(\S+)\." redirect', text))
    data = set(re.findall(r"local-data: ['\"](\S+)\. ", text)) - zones
    assert not [name for name in data for zone in zones if name.endswith(f".{zone}")]
