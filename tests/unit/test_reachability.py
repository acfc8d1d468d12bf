"""What is said to be reached, and why not."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
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
    Target,
)
from devkit.reachability import (
    ANSWERED,
    OUTSIDE,
    REACHED,
    SILENT,
    UNKNOWN_FILTER,
    as_seen,
    missed,
    of_address,
    of_attachment,
    targets,
    urls,
)

ROUTES = [IPv4Network("172.16.0.0/12")]


def attachment(driver: str, address: str | None = None) -> Attachment:
    subnet = IPv4Network(f"{address}/24", strict=False) if address else None
    return Attachment("net", driver, subnet, IPv4Address(address) if address else None)


def container(*attachments: Attachment) -> Container:
    return Container("web", "image", None, None, attachments, ())


@pytest.mark.parametrize(
    ("there", "obstacle"),
    [
        (attachment("bridge", "172.16.0.1"), None),
        (attachment("bridge", "172.31.255.254"), None),
        (attachment("bridge", "172.32.0.1"), "outside the routes"),
        (attachment("bridge"), "it has no IPv4 address"),
        (attachment("macvlan"), "it has no IPv4 address"),
        (attachment("macvlan", "172.16.0.1"), "the engine's host cannot reach its own macvlan networks"),
        (attachment("host"), "it uses the engine's own addresses: "
                             "reach it at any bridge's gateway, such as 172.17.0.1"),
    ],
)  # fmt: skip
def test_container_is_reached_or_it_is_said_why_not(there: Attachment, obstacle: str | None) -> None:
    found = of_attachment(there, ROUTES)
    assert found.obstacle == obstacle
    assert found.reached is (obstacle is None)


def test_address_needs_no_more_than_a_route() -> None:
    assert of_address(IPv4Address("172.20.0.1"), ROUTES).reached
    assert not of_address(IPv4Address("10.0.0.1"), ROUTES).reached


def test_nothing_is_reached_through_a_packet_filter_that_is_not_known() -> None:
    assert UNKNOWN_FILTER.obstacle == "the engine's packet filter is not known"
    assert not UNKNOWN_FILTER.reached


def test_networks_that_no_route_reaches_are_named_once_and_in_order() -> None:
    found = missed(
        [
            container(attachment("bridge", "192.168.9.5"), attachment("bridge", "172.16.0.2")),
            container(attachment("bridge", "192.168.9.6"), attachment("host"), attachment("bridge", "10.0.0.2")),
            container(attachment("macvlan", "192.168.1.7")),  # which a route would not help
        ],
        ROUTES,
    )
    assert [str(network) for network in found] == ["10.0.0.0/24", "192.168.9.0/24"]


@pytest.mark.parametrize(
    ("port", "url"),
    [
        ("80/tcp", "http://172.16.0.2"),
        ("443/tcp", "https://172.16.0.2"),
        ("3000/tcp", "http://172.16.0.2:3000"),
        ("5000/tcp", "http://172.16.0.2:5000"),
        ("8000/tcp", "http://172.16.0.2:8000"),
        ("8080/tcp", "http://172.16.0.2:8080"),
        ("8443/tcp", "https://172.16.0.2:8443"),
        ("8888/tcp", "http://172.16.0.2:8888"),
        ("9090/tcp", "http://172.16.0.2:9090"),
    ],
)
def test_browser_opens_the_ports_that_it_knows_and_no_other(port: str, url: str) -> None:
    assert urls("172.16.0.2", ("5432/tcp", port, "80/udp")) == (url,)


def test_only_what_answered_is_said_to_have() -> None:
    web, away = IPv4Address("172.17.0.2"), IPv4Address("192.168.7.9")
    assert as_seen(REACHED, web, {web: True}) == ANSWERED
    assert as_seen(REACHED, web, {web: False}) == SILENT
    for answers in ({}, None, {away: True}):
        assert as_seen(REACHED, web, answers) == REACHED
        assert not as_seen(REACHED, web, answers).answered
    assert as_seen(OUTSIDE, away, {away: True}) == OUTSIDE
    assert as_seen(REACHED, None, {web: True}) == REACHED


def test_server_tries_what_should_be_reached_first_at_a_port_where_nobody_listens() -> None:
    engine = Engine("vm", "29", "Linux", "iptables", None)
    places = (attachment("bridge", "172.17.0.2"), attachment("macvlan", "172.18.0.2"), attachment("bridge", "10.0.0.2"))
    web = replace(container(*places), ports=("53/udp", "80/tcp", "443/tcp", "8080/tcp", "9090/tcp"))
    assert targets(EngineFacts(engine, (web,)), ROUTES) == (Target(IPv4Address("172.17.0.2"), (9, 80, 443, 8080)),)
    cluster = Cluster("k3s", "1.36.2", (), (), ())
    endpoint = ClusterEndpoint("LoadBalancer", ("127.0.0.1",), 1194, None)
    services = (
        Service("shop", "web", IPv4Address("172.20.0.1"), ("80/tcp",)),
        Service("shop", "dns", IPv4Address("172.20.0.2"), ("53/udp",)),  # it has no other port to try
        Service("shop", "away", IPv4Address("10.96.0.2"), ("80/tcp",)),
    )
    pods = (Pod("shop", "web-0", IPv4Address("172.21.0.1"), ()),)
    assert targets(ClusterFacts(cluster, endpoint, services, pods, True), ROUTES) == (
        Target(IPv4Address("172.20.0.1"), (80,)),
        Target(IPv4Address("172.21.0.1"), (9,)),
    )
