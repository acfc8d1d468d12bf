"""What must hold before anything is started."""

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest
from devkit import checks
from devkit.checks import Check
from devkit.errors import UserError
from devkit.facts import ClusterEndpoint, Condition, Engine, Part, Session
from devkit.host import Interface

from tests.unit.made import NOW, answers, generation

OWN = "this computer's own network"
CHANGE = "uvx copier update --trust --defaults --vcs-ref=:current: --data rotate=none --data"


def assert_passed(found: Check, name: str, evidence: str) -> None:
    assert (found.name, found.verdict, found.evidence, found.mend) == (name, "passed", evidence, "")


def assert_failed(found: Check, name: str, sentence: str) -> None:
    assert (found.name, found.verdict) == (name, "failed")
    assert found.sentence == sentence


def interface(address: str, name: str = "eth0") -> Interface:
    return Interface(name, IPv4Interface(address))


def networks(*texts: str) -> list[IPv4Network]:
    return [IPv4Network(text) for text in texts]


def test_first_check_that_fails_is_raised_and_those_after_it_are_not_made() -> None:
    broken = Check("two", "failed", "it is broken", "mend it")
    made = iter([Check("one", "passed", "fine"), broken, Check("three", "failed", "it is worse")])
    with pytest.raises(UserError, match=r"^it is broken: mend it\.$"):
        checks.require(made)
    assert next(made).name == "three"
    checks.require([Check("one", "passed", "fine")])


def test_servers_certificate_must_not_have_expired() -> None:
    made = generation()
    end = NOW + timedelta(days=100)
    assert_passed(
        checks.server_certificate(made, end - timedelta(seconds=1)), "certificate", "it is valid until 2026-06-09"
    )
    assert_failed(
        checks.server_certificate(made, end), "certificate",
        "the server's certificate expired on 2026-06-09, so no client would connect: renew it with `uvx copier update "
        "--trust --defaults --vcs-ref=:current:`.",
    )  # fmt: skip


def test_engine_has_answered() -> None:
    assert_passed(checks.engine(Engine("vm", "29.0.0", "Debian", "iptables", None)), "engine", "29.0.0 on Debian")
    podman = Engine("vm", "5.8.6", "fedora", "", None, is_podman=True)
    assert_passed(checks.engine(podman), "engine", "Podman 5.8.6 on fedora")


def test_engine_without_roots_rights_is_refused_with_the_way_to_one_that_has_them() -> None:
    docker = Engine("vm", "29.0.0", "Debian", "iptables", None, is_rootless=True)
    assert_failed(
        checks.engine(docker), "engine",
        "the engine, 29.0.0 on Debian, is rootless, so no container can open its networks: choose the context of one "
        "that runs as root with `docker context use NAME`.",
    )  # fmt: skip
    assert_failed(
        checks.engine(Engine("vm", "5.8.6", "fedora", "", None, is_podman=True, is_rootless=True)), "engine",
        "the engine, Podman 5.8.6 on fedora, is rootless, so no container can open its networks: make it rootful with "
        "`podman machine set --rootful` while the machine is stopped, or, on Linux, have Docker's context lead to "
        "unix:///run/podman/podman.sock.",
    )  # fmt: skip


def test_port_must_be_free() -> None:
    assert_passed(checks.port(answers(), None), "port", "127.0.0.1:1194/tcp is free")
    assert_failed(
        checks.port(answers(vpn_protocol="udp"), "it is taken"), "port",
        "127.0.0.1:1194/udp cannot be published because it is taken: free it, or choose another with "
        f"`{CHANGE} vpn_port=NUMBER`.",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("listen", "listening", "free"),
    [
        ("192.0.2.7", [], True),
        ("192.0.2.7", ["192.0.2.8"], True),
        ("192.0.2.7", ["192.0.2.8", "192.0.2.7"], False),
        ("192.0.2.7", ["0.0.0.0"], False),
        ("192.0.2.7", ["*"], False),
        ("192.0.2.7", ["[::]"], False),
        ("0.0.0.0", ["192.0.2.8"], False),
        ("0.0.0.0", [], True),
    ],
)
def test_port_must_be_free_on_the_engines_machine(listen: str, listening: list[str], free: bool) -> None:
    found = checks.port_elsewhere(answers(vpn_host="vpn.example.org", vpn_listen=listen), listening)
    if free:
        assert_passed(found, "port", f"{listen}:1194/tcp is free on the engine's machine")
    else:
        taken = f"{listen}:1194/tcp is taken by another program on the engine's machine: free it, or choose another "
        assert_failed(found, "port", f"{taken}with `{CHANGE} vpn_port=NUMBER`.")


@pytest.mark.parametrize(
    ("host", "listen", "found_there"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("127.0.0.1", "192.0.2.7", False),
        ("localhost", "192.0.2.7", False),
        ("192.0.2.7", "127.0.0.1", False),
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.9", "127.0.0.1", True),  # another computer's: who knows what leads there
        ("vpn.example.org", "127.0.0.1", True),
    ],
)
def test_clients_that_come_to_this_computer_must_find_the_port(host: str, listen: str, found_there: bool) -> None:
    own = [interface("192.0.2.7/24"), interface("10.0.0.7/24")]
    found = checks.listening_address(answers(vpn_host=host, vpn_listen=listen), own)
    if found_there:
        assert_passed(found, "listening address", f"clients that come to vpn_host {host} find {listen}")
    else:
        wanted = "127.0.0.1" if host == "localhost" else host
        lost = f"vpn_listen is {listen}, where clients that come to vpn_host {host} find nothing"
        assert_failed(
            found, "listening address", f"{lost}: change it with `{CHANGE} vpn_listen={wanted}`, or vpn_host."
        )


def test_clients_must_not_look_for_an_engine_elsewhere_on_their_own_computer() -> None:
    assert_passed(checks.host_elsewhere(answers(), "vm.example.org", False), "host", "clients come to 127.0.0.1")
    assert_failed(
        checks.host_elsewhere(answers(), "vm.example.org", True), "host",
        "vpn_host is 127.0.0.1, where each client finds itself, but the engine is on vm.example.org: change it with "
        f"`{CHANGE} vpn_host=vm.example.org`.",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("context", "same", "evidence"),
    [
        (None, False, "it leads to 192.0.2.7"),
        ("other", True, "it leads to other"),
        (None, True, "it leads to 192.0.2.7"),
    ],
)
def test_dockers_context_must_lead_where_it_led(context: str | None, same: bool, evidence: str) -> None:
    found = checks.docker_context(answers(vpn_host="192.0.2.7"), context, same)
    assert_passed(found, "Docker's context", evidence)


@pytest.mark.parametrize(("context", "new"), [("other.example.org", "other.example.org"), ("fd00::1", "HOST")])
def test_dockers_context_that_leads_elsewhere_is_told_with_both_ways_out(context: str, new: str) -> None:
    assert_failed(
        checks.docker_context(answers(vpn_host="192.0.2.7"), context, False), "Docker's context",
        f"this project's server is on 192.0.2.7, and Docker's context leads to {context} now: choose the context of "
        f"192.0.2.7 (`docker context use NAME`), or let the profiles lead to {context} with `{CHANGE} vpn_host={new}`.",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("own", "collision"),
    [
        ([interface("10.5.0.7/24")], None),
        ([interface("172.20.5.7/24", "en0")], f"172.16.0.0/12 collides with {OWN} 172.20.5.0/24 (en0)"),
        ([interface("172.0.0.7/8", "en0")], f"172.16.0.0/12 collides with {OWN} 172.0.0.0/8 (en0)"),
        ([interface("10.5.0.7/24"), interface("192.168.64.7/24", "en1"), interface("172.20.5.7/24")],
         f"192.168.64.0/24 collides with {OWN} 192.168.64.0/24 (en1)"),
        # What the engine itself brings about, and what is inside of that.
        ([interface("172.17.0.1/16", "docker0"), interface("172.17.4.1/24")], None),
        ([interface("172.17.0.1/16", "docker0"), interface("172.18.0.1/16", "en0")],
         f"172.16.0.0/12 collides with {OWN} 172.18.0.0/16 (en0)"),
        # The VPN's own device, whole or a replica's part.
        ([interface("10.213.94.2/24", "utun4")], None),
        ([interface("10.213.94.2/24", "wg0")], None),
        ([interface("10.213.94.2/28", "utun4")], None),
        ([interface("10.213.94.2/28", "tun0")], None),
        ([interface("10.213.94.2/28", "en0")], f"10.213.94.0/24 collides with {OWN} 10.213.94.0/28 (en0)"),
        ([interface("10.213.0.2/16", "tun0")], f"10.213.94.0/24 collides with {OWN} 10.213.0.0/16 (tun0)"),
        ([interface("172.20.5.7/24", "utun3")], f"172.16.0.0/12 collides with {OWN} 172.20.5.0/24 (utun3)"),
    ],
)  # fmt: skip
def test_no_route_may_hide_a_network_that_this_computer_is_in(own: list[Interface], collision: str | None) -> None:
    found = checks.routes(answers(), own, iter(networks("172.17.0.0/16", "10.0.0.0/24")))
    if collision is None:
        assert_passed(found, "routes", "no route hides a network that this computer is in")
    else:
        mend = f"choose others with `./scripts/routes.py` (add, remove), or with `{CHANGE} vpn_subnet=...`"
        assert_failed(found, "routes", f"{collision}: {mend}.")


def test_vpns_own_subnet_must_overlap_none_of_the_clusters_networks() -> None:
    found = checks.vpn_subnet(answers(), networks("10.42.0.0/16"))
    assert_passed(found, "VPN subnet", "10.213.94.0/24 overlaps none of the cluster's networks")
    found = checks.vpn_subnet(answers(), networks("10.42.0.0/16", "10.213.0.0/16", "10.213.94.0/28"))
    overlap = "vpn_subnet 10.213.94.0/24 overlaps the cluster's own network 10.213.0.0/16"
    assert_failed(found, "VPN subnet", f"{overlap}: choose another with `{CHANGE} vpn_subnet=A.B.C.0/24`.")


def test_namespace_must_admit_a_pod_that_makes_a_tunnel() -> None:
    assert_passed(checks.pod_security("vpn", "privileged", ""), "namespace", "vpn")
    assert_failed(
        checks.pod_security("vpn", "baseline", " --context lab"), "namespace",
        "the namespace vpn enforces the Pod Security level 'baseline', under which no pod may make a tunnel: allow it "
        "with `kubectl label namespace vpn pod-security.kubernetes.io/enforce=privileged --overwrite --context lab`.",
    )  # fmt: skip


@pytest.mark.parametrize(("protocol", "port_forward"), [("tcp", f"`{CHANGE} service_type=ClusterIP` or "), ("udp", "")])
def test_service_must_have_an_address(protocol: str, port_forward: str) -> None:
    given = answers(vpn_protocol=protocol)
    found = checks.service_address(given, ClusterEndpoint("LoadBalancer", ("192.0.2.7", "b"), 1194, None))
    assert_passed(found, "Service", "192.0.2.7, b")
    assert_failed(
        checks.service_address(given, ClusterEndpoint("LoadBalancer", (), 1194, None)), "Service",
        "the Service has no address, because this cluster has no load balancer: choose another way in with "
        f"{port_forward}`{CHANGE} service_type=NodePort --data vpn_port=31194`.",
    )  # fmt: skip


@pytest.mark.parametrize("backend", ["", "iptables", "iptables+firewalld", "nftables", "nftables+firewalld"])
def test_packet_filter_of_every_engine_is_known(backend: str) -> None:
    assert_passed(checks.packet_filter(backend), "packet filter", backend or "iptables")


@pytest.mark.parametrize("backend", ["ebpf", "ebpf+iptables"])
def test_packet_filter_that_nobody_knows_is_told_with_the_mend(backend: str) -> None:
    assert_failed(
        checks.packet_filter(backend), "packet filter",
        f"this engine's packet filter, {backend!r}, is not one that the firewall knows, so it may let nothing through: "
        "start the engine with --firewall-backend=iptables or nftables.",
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------- how the VPN does

WEB, FAR = IPv4Address("172.17.0.2"), IPv4Address("192.168.7.9")
AT = datetime(2026, 3, 1, tzinfo=UTC)
CONNECTED = (Session("alice", "192.0.2.9:4", "10.213.94.2", AT, 1),)


def test_each_part_that_does_not_work_is_named_with_what_mends_it() -> None:
    assert checks.parts([Part("vpn"), Part("dns")], "./scripts/up.py").evidence == "vpn and dns work"
    found = checks.parts([Part("vpn"), Part("dns", "stopped"), Part("names", "missing")], "./scripts/up.py")
    assert found.sentence == "dns is stopped; names is missing: mend it with `./scripts/up.py`."
    assert found.fix == "./scripts/up.py"
    found = checks.parts([Part("dns", "stopped"), Part("vpn", "paused")], "./scripts/up.py")
    assert found.fix == "docker compose unpause vpn"  # first, as `up.py` would wait for it in vain


def test_nobody_connected_is_a_failure_and_nobody_asked_is_none() -> None:
    assert checks.connected(Condition((), {}, CONNECTED), "local/a.ovpn").evidence == "alice"
    nobody = checks.connected(Condition((), {}, ()), "local/a.ovpn")
    assert nobody.sentence == "no client is connected: open local/a.ovpn in the VPN app, and connect."
    assert checks.connected(Condition((), reason="why"), None) == checks.not_checked("connected", "why")


def way(name: str, address: str) -> Interface:
    return interface(address, name)


@pytest.mark.parametrize(
    ("ways", "sessions", "verdict", "said"),
    [
        ({WEB: way("tun0", "10.213.94.2/24")}, CONNECTED, "passed", "through tun0"),
        ({WEB: way("docker0", "172.17.0.1/16")}, (), "passed", "the engine's own bridges"),
        ({WEB: way("en0", "192.0.2.7/24")}, (), "not checked", "no client is connected"),
        ({WEB: way("en0", "192.0.2.7/24")}, None, "failed", "this computer is not connected"),
        ({WEB: way("en0", "192.0.2.7/24")}, CONNECTED, "failed", "not connected, while others are"),
        ({WEB: None}, CONNECTED, "failed", "not connected"),
        ({WEB: way("tun0", "10.213.94.2/24"), FAR: None}, CONNECTED, "failed",
         "what is for 192.168.7.9 has no way from this computer and not through the VPN"),
        ({WEB: way("tun0", "10.213.94.2/24"), FAR: way("en0", "192.0.2.7/24")}, CONNECTED, "failed",
         "what is for 192.168.7.9 leaves this computer by en0 (192.0.2.7/24) and not through the VPN"),
    ],
)  # fmt: skip
def test_way_from_this_computer_is_through_the_tunnel_or_named(
    ways: dict[IPv4Address, Interface | None], sessions: tuple[Session, ...] | None, verdict: str, said: str
) -> None:
    found = checks.way_here(answers(), ways, ["docker0"], sessions)
    assert found.verdict == verdict
    assert said in found.evidence


def test_network_of_which_nothing_answers_is_named() -> None:
    networks = {"bridge": [WEB], "lan": [FAR], "empty": []}
    look = checks.forwarding
    assert look(networks, Condition((), {WEB: True, FAR: True})).evidence == "bridge and lan answered"
    found = look(networks, Condition((), {WEB: True, FAR: False}))
    assert found.sentence == "nothing in lan answers the server: see what stops it with `./scripts/doctor.py`."
    other = IPv4Address("192.168.7.10")
    assert look({"lan": [FAR, other]}, Condition((), {FAR: False, other: True})).verdict == "passed"
    assert look(networks, Condition((), reason="why")) == checks.not_checked("forwarding", "why")
    assert look({}, Condition((), {})).verdict == "not checked"


def test_names_are_listed_as_one_reads_them() -> None:
    assert [checks.listed("abc"[:count]) for count in range(4)] == ["", "a", "a and b", "a, b and c"]
    assert checks.listed(map(str, range(8))) == "0, 1, 2, 3, 4, 5, 6 and 7"
    assert checks.listed(map(str, range(20))) == "0, 1, 2, 3, 4, 5, 6 and 13 more"
