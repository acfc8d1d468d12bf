"""Bad input: whatever is answered, typed, named, labelled, logged or asked for, nothing breaks.

Either what follows from it is well-formed, or one sentence says what is wrong. 2,000 examples of each kind, the same
ones in every run; an `@example` is one that broke something once.
"""

import asyncio
import importlib.util
import io
import json
import re
import ssl
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from ipaddress import IPv4Address, IPv4Network
from pathlib import PurePosixPath
from types import ModuleType
from typing import Any, cast
from unittest.mock import patch
from urllib.parse import urlencode

import pytest
import yaml
from aiohttp.test_utils import make_mocked_request
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import DNSName, NameConstraints, load_pem_x509_certificate
from devkit import commandline, inventory, proxy, reachability
from devkit.addresses import address_or_none, contained, overlap, reverse_zones, routed, within
from devkit.answers import CLIENT_NAME, Answers, client_name_problem, parse_answers, read_answers, with_routes
from devkit.computer import linux, macos, resolver, trust, windows
from devkit.computer.model import Computer, NameRule
from devkit.errors import UserError
from devkit.facts import Container, Engine, EngineFacts, Session
from devkit.keys.https import HttpsCA
from devkit.layout import ANSWERS_FILE
from devkit.layout import client as client_file
from devkit.names import names, unbound_records
from devkit.report.access import make_access
from devkit.report.engine import as_text, make_report
from devkit.vpn.openvpn.management import FEWEST_OF_A_CONTEST, contests_in
from devkit.vpn.openvpn.profile import HTTPS_ROOT_HEADER, dns_lines
from devkit.vpn.openvpn.profile import names as names_in
from devkit.vpn.openvpn.status import sessions_in
from dnslib import QTYPE, DNSRecord
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from tests.conftest import REPOSITORY
from tests.unit.condition import well
from tests.unit.made import DOCUMENT, NOW, answers, generation

# On a busy machine the making of examples is slow now and then, which says nothing of them.
settings.register_profile(
    "bad input", max_examples=2000, derandomize=True, database=None, deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
settings.load_profile("bad input")
pytestmark = pytest.mark.long

DOMAIN = "d4m.internal"
ROUTES = (IPv4Network("172.16.0.0/12"),)
SERVER = IPv4Address("10.213.94.1")
HUGE = int("f" * 5000, 16)  # more digits than Python writes

# ------------------------------------------------------------------------------------------------------------- made of

NASTY = (
    "", " ", "\n", "\r\n", "\0", "\x1b[2J", "\x85", "\u2028", "\ud800", "\u202e", "ä", "İ", "K", "٣", "²", "😀", "-",
    "--",
    "-v", ".", "..", "/", "../../etc", "'", '"', "`id`", "$(id)", "${x}", "#", ":", ": ", "%", "{{ x }}", "<b>", ",",
    "*", "*.", "@", "=", "null", "true", "1e3", "0x1f", "1_0", "-1", "0", "9" * 30, "a" * 64, "a" * 300, "a." * 130,
    DOMAIN, "local", "internal", "10.213.94.1", "172.16.0.0/12", "0.0.0.0/0", "fd00::1", "fe80::1%eth0",
)  # fmt: skip
texts = st.one_of(st.sampled_from(NASTY), st.text(max_size=10), st.text(alphabet="ab1A.-_:/ \n", max_size=8))
OCTETS = (0, 1, 10, 16, 31, 100, 127, 169, 172, 192, 213, 224, 240, 255)
ADDRESSES = [f"{one}.{two}.94.{last}" for one in OCTETS for two in OCTETS for last in (0, 1, 255)]
CIDRS = [f"{address}/{prefix}" for address in ADDRESSES for prefix in (-1, 0, 1, 8, 12, 16, 20, 24, 31, 32, 33)]
NETWORK_CIDRS = sorted(
    {str(IPv4Network(f"{one}/{prefix}", strict=False)) for one in ADDRESSES for prefix in (0, 1, 8, 12, 24)}
)
addresses = st.sampled_from(ADDRESSES)
cidrs = st.one_of(st.sampled_from(CIDRS), st.sampled_from(NETWORK_CIDRS), st.sampled_from(NETWORK_CIDRS))
values: st.SearchStrategy[object] = st.one_of(
    texts,
    st.lists(st.one_of(cidrs, texts), max_size=3),
    st.sampled_from((None, True, HUGE, -1, 0, 1.5, {}, NOW, 1194, 65536, *CIDRS)),
)
SENTENCE = 600  # characters, with the longest path


def check_sentence(said: str, *beginnings: str) -> None:
    """It can be printed as one line, is not as long as what it is about, and begins so."""
    assert said.isprintable()
    assert 10 < len(said) < SENTENCE
    assert said.startswith(beginnings or "")


# --------------------------------------------------------------------------------------------------------- the answers

# The grammar of distribution/reference, in which Docker reads an image's name.
IMAGE = re.compile(
    r"(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*"
    r"(?::[0-9]+)?/)?[a-z0-9]+(?:(?:[._]|__|-*)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-*)[a-z0-9]+)*)*"
)
HARMLESS = re.compile(r"[A-Za-z0-9._:/-]*")  # in YAML, in a shell, in a profile


def hold(found: Answers) -> None:
    """What is built on answers."""
    for route in found.routes:
        assert route.prefixlen
        assert not route.overlaps(found.vpn_subnet)
        assert not contained(address_or_none(found.vpn_host) or SERVER, [route])
    assert found.vpn_subnet.prefixlen == 24
    assert all(HARMLESS.fullmatch(value) for value in asdict(found).values() if isinstance(value, str))
    assert CLIENT_NAME.fullmatch(found.client_name)
    assert IMAGE.fullmatch(found.image)
    if found.dns_domain:
        last = found.dns_domain.rpartition(".")[2]
        assert last not in ("local", "localhost", "arpa", "onion", "invalid")  # they lead elsewhere, or nowhere
        assert not re.fullmatch("[0-9]+|0x[0-9a-f]*", last)  # browsers take what ends so for an address (WHATWG, URL)
    assert all(name.isascii() and len(name) <= 253 for name in found.dns_domains)
    assert all(len(line) < 256 and line.count("\n") == 1 for line in dns_lines(found).splitlines(keepends=True))


networks_of_answers = st.fixed_dictionaries(
    {"routes": st.lists(st.sampled_from(NETWORK_CIDRS), max_size=2)},
    optional={
        "vpn_subnet": st.sampled_from([one for one in NETWORK_CIDRS if one.endswith("/24")]),
        "vpn_host": addresses,
    },
)


@given(
    st.one_of(st.dictionaries(st.sampled_from(sorted(DOCUMENT)), values, min_size=1, max_size=3), networks_of_answers)
)
@example({"vpn_port": HUGE})
@example({"vpn_host": [[HUGE]]})
@example({"image_registry": "a..b"})
@example({"image_registry": "a.-b/c"})
@example({"dns_domain": "d4m.localhost"})
@example({"dns_domain": "10.213"})
@example({"dns_domain": "d4m.0x1f"})
def test_answers_are_what_can_be_built_on_or_are_refused_by_name(changes: dict[str, object]) -> None:
    try:
        found = parse_answers(DOCUMENT | changes)
    except ValueError as problem:
        check_sentence(str(problem), *(f"{name}: " for name in DOCUMENT))
    else:
        hold(found)


@given(
    st.sampled_from(("dns_domain", "image_registry", "vpn_host", "project_name", "client_name")),
    st.lists(
        st.sampled_from(("a", "1", "-", ".", "_", "a/", "a.", "..", "._", ":5/", "internal", "local", "A")), max_size=6
    ).map("".join),
)
@example("image_registry", "a/b..c")
@example("dns_domain", "a.local")
def test_answer_that_is_almost_right_is_right_or_is_refused(name: str, value: str) -> None:
    try:
        hold(parse_answers(DOCUMENT | {name: value}))
    except ValueError as problem:
        check_sentence(str(problem), f"{name}: {value!r}", "routes: ", "vpn_subnet: ")


TEXT = yaml.safe_dump(DOCUMENT)
# A few lines of lists of lists, which would fill the memory when they are written down.
LAUGHS = "".join(f"l{level}: &l{level} [{', '.join([f'*l{level - 1}'] * 10)}]\n" for level in range(1, 9))
TOKENS = (
    "a", ": ", "\n", "- ", "[", "]", "{", "}", ",", "'", '"', "|", ">", "&a ", "*a", "? ", "<<: ", "#", "%YAML 1.1\n",
    "---\n",
    "...\n", "!!int ", "!!bool ", "!!float ", "!!timestamp ", "!!set ", "!!omap ", "!!pairs ", "!!binary ",
    "!!python/name:os ",
    "!x ", "2020-99-99", "2001-01-01T99:00:00Z", "0b_", "0x_", "=", ".nan", "1:1", "routes", "vpn_port", "\t", "\0",
    "\x85", "é",
    "\ud800", "\ufeff", '"\\ud800"', "\\", "\r",
)  # fmt: skip


@given(st.lists(st.sampled_from(TOKENS), max_size=5).map("".join))
@example("a: 2020-99-99")
@example("a: !!int ''")
@example("a: !!bool x")
@example("a: !!timestamp x")
@example("a: !!float x")
@example("a: 0b_")
@example("[" * 1500)
@example(f"l0: &l0 ha\n{LAUGHS}{TEXT}".replace("vpn_port: 1194", "vpn_port: *l8"))
@example("a: " + "9" * 5000)
@example(TEXT.replace("1194", "0x" + "f" * 5000))
@example(TEXT.replace("1194", "[" * 150 + "]" * 150))
def test_answers_file_of_any_kind_is_read_or_refused_in_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    project = tmp_path_factory.getbasetemp()
    (project / ANSWERS_FILE).write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(UserError) as refused:
        read_answers(project)
    check_sentence(str(refused.value))
    assert str(project / ANSWERS_FILE) in str(refused.value)


# -------------------------------------------------------------------------------------------------- the command lines

COMMANDS = ("client", "down", "generate", "host", "routes", "status", "up")
WORDS = (
    "add", "list", "show", "revoke", "remove", "install", "status", "bob", "172.20.0.0/16", "--json", "--watch",
    "--yes",
    "--debug", "--help", "-h", "--images", "--kubernetes", "--context", "--context=", "--values", "--values=a",
    "--profile",
    "--profile=", "--rotate", "--rotate=leaf", "--rotate=x", "--revoke", "--revoke=now", "--re", "--k", "%s", "@file",
    "-1",
    "\udcff",
)  # fmt: skip
command_lines = st.lists(st.one_of(st.sampled_from(WORDS), st.sampled_from(WORDS), texts), max_size=6)


def run(command: str, arguments: Sequence[str]) -> tuple[int, str]:
    """The exit code of a command line that is read and then not carried out, and what was said of it."""
    said = io.StringIO()
    carry_out = commandline.run

    def read(parser: Any, _: Any, given_: Sequence[str]) -> int:
        return carry_out(parser, lambda _: None, given_)

    # It might set this computer otherwise.
    with patch.object(commandline, "run", read), redirect_stderr(said), redirect_stdout(said):
        try:
            return import_module(f"devkit.commands.{command}").main(arguments), said.getvalue()
        except SystemExit as end:
            return int(str(end.code or 0)), said.getvalue()


def check_command_line(command: str, arguments: Sequence[str]) -> None:
    code, said = run(command, arguments)
    assert code in (0, 2)
    assert said.startswith("usage: ") or not said
    assert code == 0 or ": error: " in said


@given(st.sampled_from(COMMANDS), command_lines)
def test_any_command_line_is_understood_or_answered_with_the_usage(command: str, arguments: Sequence[str]) -> None:
    check_command_line(command, arguments)


@pytest.mark.further
@pytest.mark.parametrize("command", COMMANDS)
def test_any_command_line_of_each_command(command: str) -> None:
    given(command_lines)(lambda arguments: check_command_line(command, arguments))()


@given(texts.filter(str.isprintable))
@example(":key:.ovpn")  # which was printed as a picture of one
@example("[red]x[/red]")
def test_message_is_printed_as_it_is_written(text: str) -> None:
    said = io.StringIO()
    with redirect_stderr(said):
        commandline.messages().print("error:", text, markup=False)
    assert said.getvalue() == f"error: {text}\n"


@given(st.one_of(texts, addresses, cidrs))
@example("bob\n")
@example("con/..")
def test_name_that_is_typed_is_a_files_or_is_refused_and_an_address_is_one_or_none(text: str) -> None:
    problem = client_name_problem(text)
    if problem is None:
        assert HARMLESS.fullmatch(text)
        assert client_file(text).parent == PurePosixPath("clients")
    else:
        check_sentence(problem)
    address = address_or_none(text)
    assert address is None or address_or_none(str(address)) == address


@given(st.lists(st.one_of(cidrs, texts), max_size=3))
def test_routes_that_are_typed_hold_or_are_refused(typed: Sequence[str]) -> None:
    try:
        hold(with_routes(answers(), typed))
    except UserError as problem:
        check_sentence(str(problem))


# ----------------------------------------------------------------------------------------------------------- addresses


networks = st.builds(
    lambda number, prefix: IPv4Network((number >> (32 - prefix) << (32 - prefix), prefix)),
    st.integers(0, 2**32 - 1), st.integers(1, 32),
)  # fmt: skip


@given(networks, networks, st.integers(0, 2**32 - 1))
def test_networks_agree_on_what_they_hold(one: IPv4Network, other: IPv4Network, number: int) -> None:
    address = IPv4Address(number) if number % 2 else one[number % one.num_addresses]
    assert overlap(one, other) == overlap(other, one) == (within(one, other) or within(other, one))
    assert contained(address, [one]) == within(IPv4Network(address), one) == routed(IPv4Network(address), [one])
    zones = reverse_zones([one])
    in_a_zone = any(f".{address.reverse_pointer}".endswith(f".{zone}") for zone in zones)
    assert in_a_zone == (one.prefixlen <= 24 and contained(address, [one]))


# ---------------------------------------------------------------------------------------------------------- containers

PROJECTS = ("shop", "SHOP", "Shop", "b", "a.b", "db", "", "a\nb", "\x1b[2J", "a/b", "9" * 30, "x" * 300, "shop.d4m")
SERVICES = ("db", "DB", "web", "x.db", "a", "a.b", "", "*", "b/c", "\x1b]0;x\a", "y" * 300, "web.shop")
added_names = st.lists(
    st.one_of(
        st.sampled_from(("db", "x.db", "db.shop", "x.db.shop", "shop", "web", "a.b", "*.c", "foo.local",
        "bar.orb.local", DOMAIN)),
        texts,
    ),
    max_size=4,
).map(",".join)  # fmt: skip
PORTS = (
    "80/tcp", "443/tcp", "3000/tcp", "53/udp", "x/tcp", "/tcp", "99999/tcp", "0/tcp", "-1/tcp", "1_0/tcp", "٣/tcp",
    " 80/tcp",
    "8000-8010/tcp", "9" * 30 + "/tcp", "80", "", "80/tcp\n", "80/\x1b[2Jtcp", "22/tcp", "8080/TCP",
)  # fmt: skip
labels = st.dictionaries(
    st.sampled_from(
        ("d4m.names", "dev.orbstack.domains", "d4m.port", "com.docker.compose.project", "com.docker.compose.service",
         "com.docker.compose.oneoff", "d4m-devkit.server")
    ),
    st.one_of(st.sampled_from((*PROJECTS, *SERVICES, "True", "80", "65536", " 22 ")), added_names),
    max_size=4,
)  # fmt: skip
# The names that Docker takes: [a-zA-Z0-9][a-zA-Z0-9_.-]+, each once.
docker_names = st.one_of(
    st.sampled_from(("db", "DB", "shop", "web", "x.db", "db.shop", "x.db.shop", "a_", "a-", "a..b", "a." * 122 + "b",
    "n" * 300)),
    st.integers(0, 10**6).map("c_{}".format),
)  # fmt: skip
NETWORKS = (
    {"Name": "bridge", "Id": "b" * 64, "Driver": "bridge", "IPAM": {"Config": [{"Subnet": "172.17.0.0/16"}]}},
    {"Name": "away", "Id": "a" * 64, "Driver": "bridge", "IPAM": {"Config": [{"Subnet": "192.168.9.0/24"}, {}]}},
    {"Name": "host", "Id": "c" * 64, "Driver": "host", "IPAM": {"Config": None}, "Options": None, "Labels": None},
    {"Name": "v6", "Id": "d" * 64, "Driver": "bridge", "IPAM": {"Driver": "", "Config": [{"Subnet": "fd00::/64"}]}},
    {"Name": "plugin", "Id": "e" * 64, "Driver": "x\n", "IPAM": None, "Labels": {"com.docker.compose.project": "\n"}},
)
# Where a container is; of networks that are not listed, nothing is known.
PLACES: Sequence[Any] = (
    None, {}, {"bridge": {"IPAddress": "172.17.0.2", "Aliases": None}}, {"bridge": {"IPAddress": "172.17.0.3"}},
    {"bridge": {"IPAddress": "172.17.0.4"}, "away": {"IPAddress": "192.168.9.2", "Aliases": ["x", "\n", ""]}},
    {"away": {"IPAddress": "192.168.9.3"}, "v6": {"IPAddress": "", "GlobalIPv6Address": "fd00::2"}},
    {"host": {"IPAddress": ""}}, {"gone": {"IPAddress": "172.31.0.2"}}, {"plugin": {"IPAddress": "172.30.0.2"}},
    {"plugin": {}},
)  # fmt: skip
PUBLISHED: Sequence[Any] = (None, [], [{"HostIp": "::", "HostPort": "80"}, {"HostIp": "", "HostPort": ""}])
STATES: Sequence[Any] = (
    None, {}, {"Status": "running", "Health": None}, {"Status": "paused", "Health": {"Status": "none"}},
    {"Status": "running", "Health": {"Status": "unhealthy"}},
)  # fmt: skip
MODES: Sequence[Any] = (
    None,
    {},
    {"NetworkMode": "container:1"},
    {"NetworkMode": f"container:{0:064}"},
    {"NetworkMode": f"container:{1:064}"},
)


def inspected(
    name: str,
    labels_: Mapping[str, str] | None,
    exposed: Iterable[str] = (),
    rest: Sequence[Any] = (PLACES[2], *[None] * 4),
) -> Mapping[str, Any]:
    """What Docker says of a container, which leaves out or calls null what there is not."""
    places, published, state, mode, image = rest
    return {
        "Name": f"/{name}",
        "Config": {"Image": image, "Labels": labels_}
        | ({"ExposedPorts": {port: {} for port in exposed}} if exposed else {}),
        "NetworkSettings": {"Networks": places, "Ports": dict.fromkeys(exposed, published) if published else None},
        "State": state,
        "HostConfig": mode,
    }


engines = st.lists(
    st.builds(
        inspected,
        docker_names,
        st.one_of(st.none(), labels, labels),
        st.lists(st.sampled_from(PORTS), max_size=3),
        st.tuples(*map(st.sampled_from, (PLACES, PUBLISHED, STATES, MODES, (None, "", "nginx", "x" * 300)))),
    ),
    max_size=2,
    unique_by=lambda one: one["Name"],
)


def found_on(engine: Iterable[Mapping[str, Any]]) -> tuple[Container, ...]:
    """What is known of an engine."""
    all_ = [dict(one) | {"Id": f"{number:064}"} for number, one in enumerate(engine)]
    return inventory.containers(all_, inventory.networks(NETWORKS))


RECORDS = re.compile(
    r"""local-zone: "(?P<zone>[a-z0-9_.-]+)\." (static|redirect)
|local-data: "(?P<name>[a-z0-9_.-]+)\. 5 IN A (?P<address>[0-9.]+)"
|local-data: '(?P<between>[a-z0-9_.-]+)\. 5 IN TXT ""'
|local-data-ptr: "(?P<of>[0-9.]+) 5 (?P<reverse>[a-z0-9_.-]+)"
"""
)


def of_dns(name: str) -> bool:
    """Whether a name can be asked for (RFC 1035, 2.3.4)."""
    return len(name) <= 253 and all(0 < len(label) <= 63 for label in name.split("."))


KEYS = generation(dns_domain=DOMAIN)
ACCESS = make_access(answers(dns_domain=DOMAIN), (), KEYS, NOW)
ENGINE = Engine("e", "29.0.0", "Docker Desktop", "iptables", None)
listenings = st.dictionaries(
    st.tuples(st.sampled_from(("172.17.0.2", "172.17.0.3", "172.17.0.4")), st.sampled_from((80, 443, 3000))),
    st.booleans(),
    max_size=2,
)


@settings(max_examples=500)  # 2,000 take long: they are the next test's
@given(engines, listenings)
@example([inspected("c", {}, ["x/tcp"])], {})
@example([inspected("c", {}, ["99999/tcp"])], {})
@example([inspected("c", {}, ["9" * 5000 + "/tcp"])], {})
def test_whatever_runs_gets_well_formed_names_and_a_proxy_that_can_serve_it(
    engine: Sequence[Mapping[str, Any]], listening: proxy.Listening
) -> None:
    check_engine(engine, listening)


@pytest.mark.further
@given(engines, listenings)
def test_whatever_further_runs_does_so_too(engine: Sequence[Mapping[str, Any]], listening: proxy.Listening) -> None:
    check_engine(engine, listening)


def check_engine(engine: Sequence[Mapping[str, Any]], listening: proxy.Listening) -> None:
    """All that follows from what runs is well-formed."""
    containers = found_on(engine)
    check_names(containers)
    check_proxy(containers, listening)
    facts = EngineFacts(ENGINE, containers)
    make_report(ACCESS, facts, well(facts, ACCESS.answers), {})


def check_names(containers: Sequence[Container]) -> None:
    """What unbound reads is records, and says what was found."""
    made, reverse = names(containers, DOMAIN, ROUTES)
    text = unbound_records(made, reverse, DOMAIN, ROUTES, SERVER)
    lines = list(RECORDS.finditer(text))
    assert "".join(line[0] for line in lines) == text
    read: dict[str, set[IPv4Address]] = {}
    for line in lines:
        if line["name"]:
            assert of_dns(line["name"])
            read.setdefault(line["name"], set()).add(IPv4Address(line["address"]))
    assert read == {DOMAIN: {SERVER}} | {name.name: set(name.addresses) for name in made}
    assert {IPv4Address(line["of"]): line["reverse"] for line in lines if line["of"]} == reverse
    assert all(name.endswith(f".{DOMAIN}") for name in {*read, *reverse.values()} - {DOMAIN})
    assert all(contained(address, ROUTES) for name in made for address in name.addresses)


def check_proxy(containers: Sequence[Container], listening: proxy.Listening) -> None:
    """It can use what it is told, and tells the packet filter and the page what these can use."""
    text = told(containers)
    assert len(text) < 200_000
    known = proxy.parse(text)
    redirected = proxy.redirections(known, listening, ROUTES)
    assert re.fullmatch(r"([0-9.]+ (80|443)\n)*", redirected)
    for address, port in map(str.split, redirected.splitlines()):
        assert contained(IPv4Address(address), ROUTES)
        assert not proxy.serves_itself(known.by_address[address], int(port), listening)
    assert all(0 < port < 65536 for one in known.containers for port in proxy.to_probe(one))
    for name, addresses_ in known.names.items():
        assert list(proxy.addresses_of(known, f"x.{name}.")) == list(addresses_)
        assert proxy.vouched_for(known, name) == name
        served_ = list(proxy.upstreams(known, name, listening))
        assert {address for address, _ in served_} <= set(addresses_)
        assert all(0 < port < 65536 for _, port in served_)
    page = json.loads(json.dumps(proxy.state(known, listening, [], [], NOW)))
    assert [one["name"] for one in page["containers"]] == [one.name[:200] for one in containers]
    assert {one["url"] for one in page["containers"]} <= {None, *(f"https://{name}" for name in known.names)}


def told(containers: Iterable[Container]) -> str:
    """What the container `names` tells the proxy."""
    there = tuple(containers)
    return proxy.told(there, names(there, DOMAIN, ROUTES)[0], DOMAIN, "devkit", ROUTES)


# Not 2,000, as a report takes its time: what has broken one is in here.
@pytest.mark.parametrize("label", [*NASTY, *PROJECTS, "9" * 5000])
def test_report_has_nothing_that_a_terminal_acts_upon(label: str) -> None:
    report = reported([inspected("c", {"com.docker.compose.project": label}, PORTS)])
    assert report.replace("\n", "").isprintable()


@pytest.mark.further
@given(engines)
def test_report_of_whatever_runs_has_nothing_that_a_terminal_acts_upon(engine: Sequence[Mapping[str, Any]]) -> None:
    assert reported(engine).replace("\n", "").isprintable()


def reported(engine: Iterable[Mapping[str, Any]]) -> str:
    """The report, as it is printed."""
    containers, said = found_on(engine), io.StringIO()
    assert set(reachability.missed(containers, ROUTES)) <= {IPv4Network("192.168.9.0/24")}
    facts = EngineFacts(ENGINE, containers)
    report = make_report(ACCESS, facts, well(facts, ACCESS.answers), {})
    Console(file=said, width=120).print(as_text(report, "Linux", REPOSITORY))
    return said.getvalue()


# Others, which have no names of their own choice; and one that calls itself what it likes.
others = st.lists(
    st.tuples(
        st.sampled_from(("db", "Db", "web", "shop-db-1", "x.y", "db.shop", "x.y.0", "q")),
        st.sampled_from((None, None, ("shop", "db"), ("shop", "Web"), ("b", "db"))),
    ),
    max_size=3,
    unique_by=lambda one: one[0],
)
compose = st.tuples(
    st.sampled_from(("shop", "SHOP", "Shop", "0", "a", "b", "y.0", "a.b", "")),
    st.sampled_from(("db", "DB", "web", "x", "x.y", "q.x.y", "x.db", "")),
)


def of(name: str, service: tuple[str, str] | None, last: int, **added: str) -> Container:
    """A container with an address of its own."""
    pair = dict(zip(("com.docker.compose.project", "com.docker.compose.service"), service or (), strict=False))
    (made,) = found_on(
        [inspected(name, pair | added, rest=({"bridge": {"IPAddress": f"172.17.0.{last}"}}, *[None] * 4))]
    )
    return made


def as_found(containers: Iterable[Container]) -> dict[str, set[str]]:
    """The names, without the domain, and their addresses."""
    made, _ = names(containers, DOMAIN, ROUTES)
    return {one.name.removesuffix(f".{DOMAIN}"): {str(address) for address in one.addresses} for one in made}


@given(others, st.sampled_from(("zz", "aa", "A", "d", "y", "db.b")), st.one_of(st.none(), compose), added_names)
@example([("q", ("shop", "db"))], "zz", ("SHOP", "db"), "")  # capital letters came first
@example([("q", ("shop", "Web"))], "zz", ("shop", "web"), "")  # and so did small ones
@example([("db", ("shop", "web"))], "zz", ("shop", "web"), "db")  # a service's labels added to a container's own name
@example([("x.y.0", None)], "zz", ("0", "x.y"), "")  # what Compose's labels say came before a container's own name
def test_no_label_of_a_container_changes_where_the_names_of_others_lead(
    there: Sequence[tuple[str, tuple[str, str] | None]], name: str, service: tuple[str, str] | None, added: str
) -> None:
    before = [of(other, its, number) for number, (other, its) in enumerate(there, start=2)]
    plain = as_found([*before, of(name, None, 99)])
    labelled = as_found([*before, of(name, service, 99, **{"d4m.names": added, "dev.orbstack.domains": added})])
    its_service = f"{service[1]}.{service[0]}".lower() if service else ""
    for one, addresses_ in plain.items():
        # Of what is called SERVICE.PROJECT, Compose's labels are believed; but they take no address away.
        is_of_dots = "." in one and not any(one == f"{its[1]}.{its[0]}".lower() for _, its in there if its)
        if one == its_service and not is_of_dots:
            assert labelled[one] - {"172.17.0.99"} == addresses_ - {"172.17.0.99"}
        elif is_of_dots and service and "." not in "".join(service):
            continue  # a service comes before a container that is called like one
        else:
            assert labelled[one] == addresses_


# --------------------------------------------------------------------------------------------- what the proxy is asked


@cache
def program() -> ModuleType:
    """The container's own program."""
    spec = importlib.util.spec_from_file_location("gateway_proxy", REPOSITORY / "template/gateway/proxy/proxy.py")
    assert spec
    assert spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@cache
def told_to_the_proxy() -> str:
    """A web server, one that has no web port, and one that has HTTPS of its own."""
    web_server, secure = of("web", ("shop", "web"), 2), of("tls", None, 4)
    return told([replace(web_server, ports=("80/tcp",)), of("db", None, 3), replace(secure, ports=("443/tcp",))])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The proxy, which has read that."""
    telling = tmp_path_factory.mktemp("names") / "containers.json"
    telling.write_text(told_to_the_proxy())
    with patch.object(program(), "TOLD", telling):
        made = program().Proxy(list(ROUTES))
        made.read()
    return made


REQUEST = make_mocked_request("GET", "/")


def finished(request: Coroutine[Any, Any, Any]) -> Any:
    """What is answered at once: a loop for each would take its time."""
    with pytest.raises(StopIteration) as ended:
        request.send(None)
    return ended.value.value


hosts = st.one_of(
    texts,
    st.builds(
        "{}{}".format,
        st.one_of(texts, st.sampled_from(("x.", "*.", "a b.", "<b>.", "evil.example/.", "x..", ".", "x.y.", "X_-y."))),
        st.sampled_from(("web.d4m.internal", "D4M.internal", "tls.d4m.internal", "web.d4m.internal.", "172.17.0.2",
        "10.0.0.1")),
    ),
)  # fmt: skip


def is_host(text: str) -> bool:
    """Whether a name can be asked for, or an address."""
    whole = text.removesuffix(".")
    return text.isascii() and of_dns(whole) and re.fullmatch(r"[A-Za-z0-9_.-]+", whole) is not None


@given(hosts)
@example("a b.web.d4m.internal")
@example("evil.example/.web.d4m.internal")
@example("\N{KELVIN SIGN}.web.d4m.internal")
@example("a" * 64 + ".web.d4m.internal")
@example("web.d4m.internal..")
def test_proxy_leads_to_well_formed_names_below_its_own_and_vouches_for_no_others(served: Any, host: str) -> None:
    known = proxy.parse(told_to_the_proxy())
    whole = f".{host}".lower().removesuffix(".")
    if addresses_ := proxy.addresses_of(known, host):
        assert is_host(host)
        assert any(whole.endswith(f".{name}") for name in (*known.names, *known.by_address))
        assert set(addresses_) <= known.by_address.keys()
    name = proxy.vouched_for(known, host)
    if name is not None:
        assert is_host(host)
        assert whole.endswith(f".{name}")
        assert name in (DOMAIN, *known.names)
    asked = host.encode(errors="replace").decode()
    answer = finished(served.vouched_for(REQUEST.clone(rel_url=f"/vouched-for?{urlencode({'domain': asked})}")))
    assert answer.status == (404 if proxy.vouched_for(known, asked) is None else 200)


# Caddy answers others itself.
@given(
    hosts.filter(lambda host: host.isascii() and not re.search(r"[\r\n\0]", host)),
    st.sampled_from(("/", "/?<b>", "//evil.example/")),
)
def test_page_of_what_is_not_there_says_so_whatever_was_asked_for(served: Any, host: str, path: str) -> None:
    request = REQUEST.clone(rel_url=path, headers={"Host": host})
    answer = finished(served.nothing_there(request))
    assert answer.status in (308, 404, 502)
    if answer.status == 308:
        assert re.match(r"https://([a-z0-9_-]+\.)*tls\.d4m\.internal/", answer.headers["Location"])
    else:
        assert not re.search("<b>|<script", answer.text)


class Answered(asyncio.DatagramTransport):
    """Keeps what is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []

    def sendto(self, data: Any, _: Any = None) -> None:
        """As a transport does."""
        self.sent.append(data)


def question(host: bytes, kind: int) -> bytes:
    """A query, as Caddy's resolver sends it."""
    labels_ = [label[:63] for label in host.split(b".") if label][:3]
    name = b"".join(bytes([len(label)]) + label for label in labels_) + b"\0"
    return b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0" + name + bytes([0, kind, 0, 1])


queries = st.builds(
    question, hosts.map(lambda host: b"host." + host.encode(errors="replace")), st.sampled_from((1, 28, 33, 255))
)


@given(
    st.one_of(st.binary(max_size=40), queries), st.lists(st.tuples(st.integers(0, 40), st.integers(0, 255)), max_size=2)
)
@example(b"", [])
@example(b"\0" * 12, [])
@example(question(b"host.web.d4m.internal", 33), [(40, 200)])
def test_resolver_answers_questions_and_is_silent_at_anything_else(
    served: Any, datagram: bytes, changes: Sequence[tuple[int, int]]
) -> None:
    made = bytearray(datagram)
    for place, byte in changes:
        made[place : place + 1] = bytes([byte])
    answered = Answered()
    resolver_ = program()._Resolver(served)  # noqa: SLF001  # what the socket's loop calls
    resolver_.connection_made(answered)
    resolver_.datagram_received(bytes(made), ("127.0.0.1", 1))
    for answer in answered.sent:
        assert answer[:2] == made[:2]
        for record in DNSRecord.parse(answer).rr:
            assert record.rtype in (QTYPE.A, QTYPE.SRV)
            assert record.rtype == QTYPE.A or 0 < record.rdata.port < 65536
    if not changes and len(datagram) > 20 and datagram[:2] == b"\x12\x34":
        assert answered.sent


# --------------------------------------------------------------------------------------------------------- the profiles

DNS_TOKENS = (
    "dns server 0 address ", "dns server 0 resolve-domains ", "\n", " ", "\t", "# ", "10.213.94.1", "10.213.94.1:53",
    "1.1.1.1",
    "fd00::1", "d4m.internal", "com", "D4M.internal.", "cluster.local", "16.172.in-addr.arpa", "in-addr.arpa", "\r\n",
    "é", "\0",
    HTTPS_ROOT_HEADER, "# -----BEGIN CERTIFICATE-----\n", "# -----END CERTIFICATE-----\n", "ca x\n", "\x85", "\u2028",
    "../x", ";",
)  # fmt: skip


@given(st.lists(st.sampled_from(DNS_TOKENS), max_size=12).map("".join))
def test_profile_of_any_kind_names_servers_and_domains_or_is_refused(text: str) -> None:
    try:
        found = names_in(text)
    except ValueError as problem:
        check_sentence(f"it names a name server that is none ({problem})")
        return
    if found:
        assert str(found.server) in text
        assert all(domain in text.lower() for domain in found.domains)
        assert found.https_root is None or found.https_root.endswith("-----END CERTIFICATE-----\n")
        try:
            resolver.refuse(found.server, found.domains)
        except UserError as problem:
            check_sentence(str(problem))


@given(
    st.lists(st.sampled_from([one for one in NETWORK_CIDRS if "/12" in one or "/24" in one]), min_size=1, max_size=2),
    st.sampled_from(("a.b", DOMAIN)),
)
def test_profile_says_what_the_answers_say(routes: Sequence[str], domain: str) -> None:
    made = replace(ACCESS.answers, dns_domain=domain, routes=tuple(map(IPv4Network, routes)))
    found = names_in(f"client\n{dns_lines(made)}verb 3\n")
    assert found
    assert (found.server, found.domains) == (made.dns_address, made.dns_domains)


domains = st.one_of(
    texts,
    st.lists(st.sampled_from(("a", "d4m", "internal", "com", "10", "172", "in-addr", "ip6", "arpa", "2", "f", "_x",
    "-", "")), max_size=4)
    .map(".".join),
)  # fmt: skip
COMPUTERS = (
    Computer("Linux", {}, frozenset(), resolved=256, through_resolved=True),
    Computer("macOS", {}, frozenset()),
    Computer("Windows", {}, frozenset()),
)


@given(addresses, st.lists(domains, min_size=1, max_size=2, unique=True))
@example("240.0.0.1", [DOMAIN])
@example("255.255.255.255", [DOMAIN])
@example("0.1.2.3", [DOMAIN])
@example("10.213.94.1", ["2.ip6.arpa"])
@example("10.213.94.1", ["0.2.ip6.arpa"])
def test_profile_that_is_not_refused_is_harmless_to_this_computer(address: str, wanted: Sequence[str]) -> None:
    server = IPv4Address(address)
    try:
        resolver.refuse(server, wanted)
    except UserError as problem:
        check_sentence(str(problem))
        return
    assert server.is_private or server in IPv4Network("100.64.0.0/10")
    assert not any((server.is_loopback, server.is_link_local, server.is_multicast, server.is_reserved))
    assert server not in IPv4Network("0.0.0.0/8")
    for domain in wanted:
        assert re.fullmatch(r"[a-z0-9_][a-z0-9_.-]*[a-z0-9]", domain)
        assert of_dns(domain)
        assert "." in domain
        assert not domain.endswith("ip6.arpa")
        assert not domain.endswith("in-addr.arpa") or domain.count(".") > 2 or domain == "10.in-addr.arpa"
    for computer in COMPUTERS:
        for command in resolver.install(computer, server, wanted).commands:
            assert all(word.isprintable() for word in command.words)
            if command.words[0] == "tee":
                assert all(
                    path in (linux.UNIT, linux.RULE, *(f"{macos.FOLDER}/{one}" for one in wanted))
                    for path in command.words[1:]
                )


HTTPS = cast("HttpsCA", KEYS.https)
SIGNED = HTTPS.root.certificate.tbs_certificate_bytes


def signed_anew(signed: bytes) -> bytes:
    """A certificate whose signature is right, whatever it says."""
    key = cast("EllipticCurvePrivateKey", HTTPS.root.key)
    signature = key.sign(signed, ECDSA(SHA256()))
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")  # ecdsa-with-SHA256
    body = signed + algorithm + bytes([3, len(signature) + 1, 0]) + signature
    return b"\x30\x82" + len(body).to_bytes(2, "big") + body


@given(
    st.lists(
        st.tuples(st.integers(0, 600), st.one_of(st.integers(0, 255), st.sampled_from((0, 1, 4, 48, 130)))), max_size=2
    ),
    st.sampled_from((True, True, False)),
    st.sampled_from((b"", b"", b"\0", b"\x30\x03\x02\x01\x01")),
)
@example([(SIGNED.index(b"\x02\x01") + 2, 1)], True, b"")  # another version
@example([(SIGNED.rindex(b"d4m-devkit HTTPS") - 2, 3)], True, b"")  # a name that is no text
def test_root_of_any_kind_is_ours_or_is_refused_in_a_sentence(
    changes: Sequence[tuple[int, int]], is_signed: bool, more: bytes
) -> None:
    made = bytearray(SIGNED)
    for place, byte in changes:
        made[place % len(made)] = byte
    whole = (
        signed_anew(bytes(made))
        if is_signed
        else HTTPS.root.certificate.public_bytes(Encoding.DER)[: -len(more) or None]
    )
    pem = ssl.DER_cert_to_PEM_cert(whole + more)
    for name, again in trust.ours(pem):
        assert trust.NAME.fullmatch(name)
        assert again.startswith("-----BEGIN CERTIFICATE-----\n")
    try:
        found = trust.root(pem, [DOMAIN], NOW)
    except UserError as problem:
        check_sentence(str(problem))
    else:
        assert found.domain == DOMAIN
        assert HARMLESS.fullmatch(found.name.replace(" ", ""))
        certificate = load_pem_x509_certificate(found.pem.encode())
        constraints = certificate.extensions.get_extension_for_class(NameConstraints)
        assert constraints.critical
        assert constraints.value.permitted_subtrees == [DNSName(DOMAIN)]


@given(
    st.lists(
        st.sampled_from(("-----BEGIN CERTIFICATE-----\n", "-----END CERTIFICATE-----", "\n", "MIIB", "é", "=", "\0")),
        max_size=8,
    ).map("".join)
)
def test_text_that_holds_no_certificate_holds_none_of_ours(text: str) -> None:
    assert list(trust.ours(text)) == []
    with pytest.raises(UserError, match="is none of ours"):
        trust.root(text, [DOMAIN], NOW)


words = st.sampled_from(("a", "b.c", "10.0.0.1", ".x-1", "bob", "10.0.0.9:4711"))
rules = st.frozensets(
    st.builds(NameRule, st.frozensets(words, min_size=1, max_size=2), st.frozensets(words, min_size=1, max_size=3)),
    max_size=3,
)


@given(rules, st.sampled_from(NASTY))
def test_rules_that_windows_lists_are_read_back_and_nothing_else_breaks(
    listed: frozenset[NameRule], noise: str
) -> None:
    listing = "".join(f"{','.join(rule.servers)} {','.join(rule.namespaces)}\r\n" for rule in listed)
    assert windows.parse_rules(listing) == listed
    assert windows.parse_rules(listing + noise) >= listed


# --------------------------------------------------------------------------------------------------- what a server says

COLUMNS = (
    "CLIENT_LIST",
    "HEADER",
    "bob",
    "UNDEF",
    "",
    "1",
    "1795531447",
    "-1",
    "9" * 20,
    "9" * 5000,
    "x",
    "٣",
    "10.0.0.1:4711",
    "END",
)
lines = st.one_of(
    st.lists(st.sampled_from(COLUMNS), max_size=12).map(lambda row: "\t".join(["CLIENT_LIST", *row])),
    st.sampled_from(NASTY),
)
sessions = st.builds(
    Session,
    words,
    words,
    words,
    st.integers(0, 2**33).map(lambda at: datetime.fromtimestamp(at, UTC)),
    st.integers(0, 99),
)


@given(st.lists(sessions, max_size=2), st.lists(lines, max_size=2))
@example([], ["CLIENT_LIST\tbob"])
@example([], ["CLIENT_LIST\tbob\t\t\t\t\t\t\t" + "9" * 20 + "\t\t1"])
@example([], ["CLIENT_LIST"])
@example([], ["CLIENT_LIST\t"])
def test_status_says_who_is_connected_whatever_else_it_says_or_is_none(
    there: Sequence[Session], noise: Sequence[str]
) -> None:
    said = [
        "\t".join(("CLIENT_LIST", one.client, one.real_address, one.vpn_address, "", "1", "2", "date",
        str(int(one.since.timestamp())), "UNDEF",
                   str(one.number), "0", "AES"))
        for one in there
    ]  # fmt: skip
    try:
        found = sessions_in([*noise, *said, "END"])
    except ValueError as problem:
        check_sentence(f"the server does not say who is connected ({problem})")
        assert any(line.startswith("CLIENT_LIST\t") for line in noise)
    else:
        assert found[len(found) - len(there) :] == tuple(there)
        assert len(found) <= len(there) + sum(line.startswith("CLIENT_LIST\t") for line in noise)


log_lines = st.one_of(
    st.sampled_from(NASTY),
    st.builds(
        "{},{},{}MULTI: new connection by client '{}' will cause previous active sessions to be dropped.".format,
        st.sampled_from((0, 1000, 1100, 1300, 1380, 1390, 1400, 9999, "9" * 30)),
        st.sampled_from(("", "D", "x")), st.sampled_from(("", "bob/10.0.0.9:1 ", "a b ")), st.sampled_from(("bob",
        "eve")),
    ),
    st.builds("{},D,MANAGEMENT: CMD 'log all'".format, st.sampled_from((900, 1000, 1390, 1400, 1500))),
)  # fmt: skip


@given(st.lists(log_lines, max_size=8))
@example(
    [f"{time},,MULTI: new connection by client 'bob' will cause previous" for time in (5000, 5001, 5002)] + ["1000,D,x"]
)
@example(["9" * 5000 + ",D,x"])
def test_contest_is_of_the_last_minutes_whatever_the_log_says(log: Sequence[str]) -> None:
    for contest in contests_in(log):
        assert contest.client in ("bob", "eve")
        assert sum(f"client '{contest.client}'" in line for line in log) >= contest.times >= FEWEST_OF_A_CONTEST
        assert 0 <= contest.seconds < 180
