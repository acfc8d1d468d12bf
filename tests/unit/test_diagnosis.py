"""What the doctor says of what it was told; tests/tunnel/test_doctor_end_to_end.py breaks it for real."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import get_args

import pytest
from devkit import diagnosis
from devkit.checks import Check
from devkit.diagnosis import Asked, asked, examine, find
from devkit.errors import UserError
from devkit.facts import Attachment, Container, Contest, Engine, Listener, Passage
from devkit.host import Interface
from devkit.names import Name
from devkit.sites.probe import dropping, listeners
from devkit.vpn.lane import Handshake, ProfileFacts, Rejection, Stage
from devkit.vpn.openvpn.management import rejections_in

NOW = datetime.now(UTC)
ROUTES = (IPv4Network("172.16.0.0/12"),)
SUBNET = IPv4Network("10.213.94.0/24")
WEB = IPv4Address("172.17.0.2")
FACTS = ProfileFacts(
    "alice", 7, NOW + timedelta(9), NOW + timedelta(99), "vpn.example.org", 1194, "tcp", (*ROUTES,), 9000
)
ENGINE = Engine("vm", "29.0.0", "Docker Desktop", "iptables", None)


def container(name: str, driver: str = "bridge", address: IPv4Address | None = WEB) -> Container:
    place = Attachment("net", driver, IPv4Network("172.17.0.0/16"), address)
    return Container(name, "image", None, None, (place,), ("80/tcp",))


def interface(name: str, address: str) -> Interface:
    return Interface(name, IPv4Interface(address))


@pytest.mark.parametrize(
    ("text", "host", "port", "scheme"),
    [
        ("web", "web", None, None), ("web:81", "web", 81, None), ("172.17.0.2", "172.17.0.2", None, None),
        ("http://web.d4m.internal/a?b", "web.d4m.internal", None, "http"), ("https://web:8443", "web", 8443, "https"),
    ],
)  # fmt: skip
def test_target_is_a_name_an_address_or_a_url(text: str, host: str, port: int | None, scheme: str | None) -> None:
    assert asked(text) == Asked(text, host, port, scheme)


@pytest.mark.parametrize("text", ["", "a b", "ftp://web", "http://web:99999999", "http://", "a\nb", "http://[::1"])
def test_what_is_no_target_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(UserError, match="is no target: give a container's name"):
        asked(text)


def test_nothing_is_looked_at_after_the_first_failure() -> None:
    looked = []

    def look(verdict: str) -> Check:
        looked.append(verdict)
        return Check(verdict, "failed" if verdict == "b" else "passed", "seen", "mend")

    found = examine([(name, lambda name=name: look(name)) for name in "abc"])  # type: ignore[misc]  # a default binds it
    assert looked == ["a", "b"]
    assert [(one.name, one.verdict) for one in found] == [("a", "passed"), ("b", "failed"), ("c", "not checked")]
    assert found[2].evidence == "b comes first"


def test_layer_that_cannot_be_looked_at_is_what_fails() -> None:
    def look() -> Check:
        raise UserError("the engine does not answer (gone): start it and try again.")

    (found,) = examine([("engine", look)])
    assert found == Check("engine", "failed", "the engine does not answer (gone)", "start it and try again")


def test_target_is_found_by_name_by_its_dns_names_and_by_address() -> None:
    names = [Name("api.shop.d4m.internal", (WEB,))]
    web, other = container("web"), container("other", address=IPv4Address("172.17.0.3"))
    for text in ("api.shop", "API.shop.d4m.internal", "172.17.0.2"):
        assert find(asked(text), [other, web], names, "d4m.internal") == (web, WEB)
    assert find(asked("web"), [other, web], names, "d4m.internal") == (web, None)
    assert find(asked("172.17.0.1"), [web], names, "d4m.internal") == (None, IPv4Address("172.17.0.1"))
    assert find(asked("nobody"), [web], names, "d4m.internal") == (None, None)


def test_every_stage_of_a_handshake_but_the_last_fails_with_its_reason() -> None:
    for stage in get_args(Stage):
        found = diagnosis.handshake(Handshake(stage, "so it said"), FACTS, None, "renew it")
        assert found.verdict == ("passed" if stage == "passed" else "failed"), stage
        assert ("so it said" in found.evidence) == (stage != "passed")
        assert bool(found.mend) == (stage != "passed")
    assert (
        diagnosis.handshake(Handshake("port"), FACTS, "./scripts/up.py", "").mend
        == "bring it up with `./scripts/up.py`"
    )


def test_profile_that_has_ended_is_named_with_what_has() -> None:
    def said(**changed: datetime) -> str:
        found = diagnosis.profile(replace(FACTS, **changed), "alice.ovpn", NOW, "renew it", revoked=False)  # type: ignore[arg-type]  # both are dates
        return found.evidence if found.verdict == "failed" else ""

    assert said() == ""
    assert "the certificate in alice.ovpn expired" in said(expiry=NOW)
    assert "the CA in alice.ovpn expired" in said(authority_expiry=NOW)


def test_client_that_is_turned_away_is_told_which_profile_to_import() -> None:
    def look(serial_number: int | None, seconds: int = 5, is_connected: bool = False, client: str = "alice") -> Check:
        rejection = Rejection(client, "certificate revoked", seconds, serial_number)
        return diagnosis.rejected([rejection], FACTS, "alice.ovpn", is_connected)

    assert "an older profile of alice" in look(6).evidence
    assert look(6).mend == "import alice.ovpn again, and connect"
    assert "turns alice away" in look(7).evidence
    assert "turns alice away" in look(None).evidence
    for one in (look(6, seconds=999), look(6, is_connected=True), look(6, client="bob")):
        assert one.verdict == "passed"


def test_server_log_says_who_is_turned_away_and_why() -> None:
    log = [
        "1000,N,TCP connection established",
        "1001,N,192.0.2.9:4 VERIFY ERROR: depth=0, error=certificate revoked: CN=alice, serial=123456",
        "1003,N,192.0.2.9:5 VERIFY ERROR: depth=0, error=certificate has expired: CN=bob, serial=9",
        "1004,N,192.0.2.9:6 TLS Auth Error: --client-config-dir authentication failed for common name 'eve' file='eve'",
        "1005,N,192.0.2.9:6 VERIFY ERROR: depth=1, error=unable to get issuer: CN=mallory, serial=1",
        "1010,N,something else",
    ]
    assert rejections_in(log) == (
        Rejection("eve", "it has no file in ccd", 6),
        Rejection("bob", "certificate has expired", 7, 9),
        Rejection("alice", "certificate revoked", 9, 123456),
    )
    assert rejections_in([]) == ()


def test_contest_of_another_client_is_none_of_this_one() -> None:
    assert diagnosis.contested([Contest("bob", 4, 9)], FACTS).verdict == "passed"
    assert "alice is used on two machines" in diagnosis.contested([Contest("alice", 4, 9)], FACTS).evidence


@pytest.mark.parametrize(
    ("way", "own", "shadow", "said"),
    [
        (interface("tun0", "10.213.94.2/24"), (), None, None),
        (interface("docker0", "172.17.0.1/16"), (), None, None),  # the engine's own machine
        (interface("en0", "192.0.2.7/24"), (), None, "disconnect other VPNs"),
        (interface("en0", "192.0.2.7/24"), (), "172.17.0.0/16 via 192.0.2.1",
         "`sudo ip route del 172.17.0.0/16 via 192.0.2.1`"),
        (interface("en1", "172.17.0.9/24"), (interface("en1", "172.17.0.9/24"),), None, "another subnet"),
        (None, (), None, "goes nowhere"),
    ],
)  # fmt: skip
def test_route_that_is_taken_is_named(
    way: Interface | None, own: tuple[Interface, ...], shadow: str | None, said: str | None
) -> None:
    found = diagnosis.route(WEB, way, SUBNET, FACTS, own, ["docker0"], shadow)
    assert (found.verdict == "failed") == (said is not None)
    assert (said or "") in f"{found.evidence}: {found.mend}"


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("exited", "the container web does not run (exited): mend it with `docker start web`."),
        ("paused", "the container web does not run (paused): mend it with `docker unpause web`."),
        ("restarting", "the container web does not run (restarting): see why it ends with `docker logs web`."),
        (None, "nothing is called web here: see what there is with `./scripts/status.py`."),
    ],
)
def test_target_that_does_not_run_is_named_with_what_starts_it(state: str | None, said: str) -> None:
    assert diagnosis.target(asked("web"), None, None, state).sentence == said
    if state:
        assert diagnosis.target(asked("172.17.0.2"), replace(container("web"), state=state), WEB, None).sentence == said
    assert diagnosis.target(asked("web"), container("web"), WEB, None).verdict == "passed"
    assert diagnosis.target(asked("172.17.0.1"), None, WEB, None).verdict == "passed"


@pytest.mark.parametrize("driver", ["macvlan", "ipvlan", "host", "none"])
def test_network_that_no_packet_of_the_servers_reaches_is_named(driver: str) -> None:
    address = None if driver in ("host", "none") else WEB
    found = diagnosis.network(asked("web"), container("web", driver, address), None, ROUTES)
    assert (found.name, found.verdict) == ("network", "failed")
    assert found.mend == "connect it to a bridge network with `docker network connect bridge web`"


@pytest.mark.parametrize(
    ("rule", "mend"),
    [
        ("iptables-nft -t filter -A FORWARD -j DROP",
         "take it away, on the engine's machine, with `iptables-nft -t filter -D FORWARD -j DROP`"),
        ("iptables-nft -t filter -A DOCKER-USER -i d4m -j DROP",  # where users put rules of their own
         "take it away, on the engine's machine, with `iptables-nft -t filter -D DOCKER-USER -i d4m -j DROP`"),
        ("nft inet office f: ip daddr 172.17.0.0/16 drop", "take it away on the engine's machine"),
        ("iptables-nft -t raw -A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP",
         "have the rules placed anew with `docker compose restart firewall`"),
        ("iptables-nft -t filter -P FORWARD DROP", "have the rules placed anew with `docker compose restart firewall`"),
        ("iptables-nft -t filter -A D4M-FROM -j DROP",
         "have the rules placed anew with `docker compose restart firewall`"),
    ],
)  # fmt: skip
def test_rule_that_dropped_a_packet_is_mended_by_whom_it_belongs_to(rule: str, mend: str) -> None:
    found = diagnosis.packet_filter(Passage(inside=(), rules=(), dropped=(rule,)), ENGINE, WEB)
    assert found.verdict == "failed"
    assert rule in found.evidence
    assert found.mend == mend


def test_machine_that_forwards_nothing_is_told_so_and_not_which_rules_it_lacks() -> None:
    found = diagnosis.packet_filter(Passage(rules=("net.ipv4.ip_forward=1", "another")), ENGINE, WEB)
    assert found.sentence == (
        "the engine's machine forwards no IPv4: switch it on there with `sysctl -w net.ipv4.ip_forward=1`, as the "
        "engine does when it starts."
    )


def test_packet_filter_is_not_blamed_for_what_answers_or_cannot_be_seen() -> None:
    answered = Passage(rules=("a missing one",), answers={80: "accepted"}, dropped=("iptables-nft -A X -j DROP",))
    assert diagnosis.packet_filter(answered, ENGINE, WEB).verdict == "passed"
    assert diagnosis.packet_filter(Passage(), ENGINE, WEB).verdict == "not checked"
    assert diagnosis.packet_filter(Passage(rules=()), ENGINE, WEB).verdict == "passed"  # the target's own affair


def test_rules_that_dropped_most_come_first_and_those_that_dropped_nothing_not_at_all() -> None:
    assert dropping({"a": 5, "b": 0, "c": 9}, {"a": 6, "b": 2, "c": 9, "d": 1}) == ("b", "a", "d")


def test_listeners_are_read_as_the_kernel_prints_them() -> None:
    header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
    rows = [
        "   0: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1",
        "   1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2",
        "   2: 020011AC:1F91 0100000A:9C40 01 00000000:00000000 00:00000000 00000000     0        0 3",
        "   0: 00000000000000000000000001000000:0CEA 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 4",
    ]
    assert listeners("\n".join([header, *rows])) == (Listener(80, True), Listener(3306, True), Listener(8080, False))


def test_target_that_refuses_is_told_where_it_listens() -> None:
    def said(*listening: Listener) -> str:
        refused = Passage(answers={81: "refused"})
        return diagnosis.port(asked("web:81"), container("web"), refused, 81, listening).sentence

    assert said() == "nothing in web listens at port 81: start its server there."
    assert said(Listener(80, False)) == "nothing in web listens at port 81, but at 80: use http://web:80."
    assert "127.0.0.1 only" in said(Listener(81, True))


@pytest.mark.parametrize(
    ("echoes", "path_mtu", "lost", "verdict"),
    [
        ({100: True, 1500: True}, None, (), "passed"),
        ({100: True}, 1000, (), "passed"),  # somebody says so
        ({100: True, 1280: False}, None, (), "failed"),
        ({100: False}, None, ("iptables-nft -t filter -A FORWARD -p icmp -j DROP",), "failed"),
        ({100: False}, None, (), "not checked"),  # the target may not answer pings
        ({}, None, (), "not checked"),
    ],
)  # fmt: skip
def test_black_hole_is_one_only_where_nobody_says_so(
    echoes: dict[int, bool], path_mtu: int | None, lost: tuple[str, ...], verdict: str
) -> None:
    assert diagnosis.mtu(Passage(echoes=echoes, path_mtu=path_mtu, lost=lost), "web").verdict == verdict


def test_name_that_leads_elsewhere_is_named_with_where() -> None:
    def look(*resolved: str, is_set_up: bool = True) -> Check:
        return diagnosis.names("web.d4m.internal", WEB, frozenset(resolved), is_set_up, "./scripts/host.py install")

    assert look("172.17.0.2").verdict == "passed"
    assert look("172.17.0.2", is_set_up=False).verdict == "passed"  # as by the VPN app
    assert look("192.0.2.1").evidence == "web.d4m.internal leads to 192.0.2.1, and not to 172.17.0.2"
    for one in (look(), look(is_set_up=False)):
        assert one.fix == "./scripts/host.py install"
