"""What a profile says of its client and of the way to its server."""

from dataclasses import replace
from datetime import timedelta
from ipaddress import IPv4Network

import pytest
from devkit.keys import x509
from devkit.vpn.lane import ProfileFacts
from devkit.vpn.openvpn import OPENVPN
from devkit.vpn.openvpn.profile import profile
from devkit.vpn.openvpn.tls_crypt import new_client_key, new_server_key

from tests.unit.made import NOW, answers, generation

MADE = generation()
(LAPTOP,) = MADE.clients
READABLE = """\
proto tcp4-client
# route 1.2.3.0 255.255.255.0
tun-mtu 9000
route 172.16.0.0 255.240.0.0
route 192.168.64.0 255.255.255.0
"""


def made(readable: str = READABLE, **changes: object) -> str:
    return profile(readable, answers(**changes), MADE, LAPTOP).decode()


def test_facts_of_a_profile_as_it_is_made() -> None:
    assert OPENVPN.facts(made()) == ProfileFacts(
        client="laptop",
        serial_number=LAPTOP.credential.serial_number,
        expiry=NOW + timedelta(days=100),
        authority_expiry=NOW + timedelta(days=1000),
        host="127.0.0.1",
        port=1194,
        protocol="tcp",
        routes=(IPv4Network("172.16.0.0/12"), IPv4Network("192.168.64.0/24")),
        mtu=9000,
    )


def test_lines_of_windows_say_the_same() -> None:
    assert OPENVPN.facts(made().replace("\n", "\r\n")) == OPENVPN.facts(made())


@pytest.mark.parametrize(
    ("readable", "expected"),
    [
        ("", ("127.0.0.1", 1194, "udp")),
        ("proto udp4\nremote vpn.example.org 443", ("vpn.example.org", 443, "udp")),
        ("remote one.example.org 443 tcp\nremote two.example.org", ("one.example.org", 443, "tcp")),
        ("--proto tcp\n  --remote vpn.example.org\nport 443", ("vpn.example.org", 443, "tcp")),
    ],
)
def test_endpoint_is_where_the_profile_leads(readable: str, expected: tuple[str, int, str]) -> None:
    facts = OPENVPN.facts(made(readable))
    assert (facts.host, facts.port, facts.protocol) == expected


def test_mtu_is_openvpns_own_and_a_route_one_address_unless_the_profile_says_more() -> None:
    facts = OPENVPN.facts(made("route 192.0.2.7"))
    assert facts.mtu == 1500
    assert facts.routes == (IPv4Network("192.0.2.7/32"),)


def test_of_several_cas_the_one_that_lasts_counts() -> None:
    older = replace(MADE.ca, credential=x509.new_ca("older", "ecdsa-p256", 10, NOW))
    both = replace(MADE, previous_ca=older)
    facts = OPENVPN.facts(profile(READABLE, answers(), both, LAPTOP).decode())
    assert facts.authority_expiry == MADE.ca.credential.expiry


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("remote 127.0.0.1 1194\n", "", "it has no line `remote ...`"),
        ("remote 127.0.0.1 1194\n", "remote\n", "it has no line `remote ...`"),
        ("127.0.0.1 1194", "127.0.0.1 65536", "its port 65536 is no number from 1 to 65535"),
        ("127.0.0.1 1194", "127.0.0.1 \N{ARABIC-INDIC DIGIT ONE}", "its port \N{ARABIC-INDIC DIGIT ONE} is no number"),
        ("tun-mtu 9000", "tun-mtu big", "its tun-mtu big is no number"),
        ("172.16.0.0 255.240.0.0", "172.16.0.0 255.0.255.0", "its route 172.16.0.0/255.0.255.0 is no network"),
        ("172.16.0.0 255.240.0.0", "web 255.0.0.0", "its route web/255.0.0.0 is no network"),
        ("verify-x509-name server.devkit name\n", "", "it has no line `verify-x509-name ...`"),
        ("<cert>", "<certificate>", "it has no block <cert>"),
        ("</tls-crypt-v2>", "", "it has no block <tls-crypt-v2>"),
        ("<ca>\n-----BEGIN", "<ca>\n", "its <ca> is damaged"),
        pytest.param(
            LAPTOP.credential.certificate_pem.decode()[:40], "", "its <cert> is damaged", id="certificate"
        ),  # whose text is another in each process
        ("<key>\n-----BEGIN", "<key>\n", "its <key> is damaged"),
        ("-----BEGIN OpenVPN tls-crypt-v2 client", "-----BEGIN", "its <tls-crypt-v2> is damaged"),
    ],
)  # fmt: skip
def test_damage_is_named(old: str, new: str, said: str) -> None:
    damaged = made().replace(old, new)
    assert damaged != made()
    with pytest.raises(ValueError, match=f"^{said.replace('.', '[.]')}"):
        OPENVPN.facts(damaged)


def test_key_of_another_certificate_is_named() -> None:
    text = made().replace(LAPTOP.credential.key_pem.decode(), MADE.server.key_pem.decode())
    with pytest.raises(ValueError, match="its <key> is damaged"):
        OPENVPN.facts(text)


@pytest.mark.parametrize("cut", range(0, len(made()), 97))
def test_profile_that_was_cut_short_is_named_as_damaged(cut: int) -> None:
    with pytest.raises(ValueError, match=r"^(it has no |its )"):
        OPENVPN.facts(made()[:cut])


def test_key_for_tls_crypt_is_whole() -> None:
    whole = new_client_key(new_server_key(), NOW).decode()
    lines = whole.splitlines()
    cut = "\n".join([*lines[:-2], lines[-1]])  # it is still base64
    with pytest.raises(ValueError, match="its <tls-crypt-v2> is damaged"):
        OPENVPN.facts(made().replace(LAPTOP.keys["openvpn"].decode().strip(), cut))
