"""Networks and addresses of both families."""

from ipaddress import IPv4Network, IPv6Address, ip_address, ip_network

import pytest
from devkit.addresses import address_or_none, contained, first_host, ipv4_networks, overlap, routed, within


def test_name_is_no_address() -> None:
    assert str(address_or_none("192.0.2.7")) == "192.0.2.7"
    assert isinstance(address_or_none("fd00::1"), IPv6Address)
    assert address_or_none("vpn.example.org") is None


def test_what_a_cluster_says_of_its_networks_is_read_without_host_bits_blanks_and_ipv6() -> None:
    found = ipv4_networks(["10.0.0.5/24", "fd00::/48", "", " 10.1.0.0/16 ", " "])
    assert [str(network) for network in found] == ["10.0.0.0/24", "10.1.0.0/16"]


@pytest.mark.parametrize(
    ("one", "other", "together", "inside"),
    [
        ("10.1.0.0/16", "10.0.0.0/8", True, True),
        ("10.1.0.0/16", "10.1.0.0/16", True, True),
        ("10.0.0.0/8", "10.1.0.0/16", True, False),
        ("10.1.0.0/16", "10.2.0.0/16", False, False),
        ("fd00:1::/32", "fd00::/16", True, True),
        ("fd00::/16", "10.0.0.0/8", False, False),
    ],
)
def test_networks_may_share_addresses_or_contain_each_other(one: str, other: str, together: bool, inside: bool) -> None:
    assert overlap(ip_network(one), ip_network(other)) is together
    assert within(ip_network(one), ip_network(other)) is inside


@pytest.mark.parametrize(
    ("routes", "covered"),
    [
        (["10.0.0.0/8"], True),
        (["10.1.0.0/17", "192.168.0.0/16", "10.1.128.0/17"], True),
        (["10.1.0.0/17"], False),
        ([], False),
    ],
)
def test_network_is_routed_where_the_routes_together_cover_it(routes: list[str], covered: bool) -> None:
    assert routed(ip_network("10.1.0.0/16"), map(IPv4Network, routes)) is covered


@pytest.mark.parametrize(("address", "there"), [("10.1.2.3", True), ("10.3.0.1", False), ("fd00::1", False)])
def test_address_is_in_one_of_the_networks(address: str, there: bool) -> None:
    assert contained(ip_address(address), [ip_network("10.1.0.0/16"), ip_network("10.2.0.0/16")]) is there


@pytest.mark.parametrize(
    ("network", "first"),
    [("172.16.0.0/12", "172.16.0.1"), ("10.0.0.0/31", "10.0.0.0"), ("192.168.7.9/32", "192.168.7.9")],
)
def test_every_network_has_an_address_to_send_to(network: str, first: str) -> None:
    assert str(first_host(IPv4Network(network))) == first
