"""What the user may answer, and what follows from what is left empty."""

from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
import yaml
from devkit.answers import address_to_listen_on, client_name_problem, is_host, parse_answers, read_answers
from devkit.errors import UserError

from tests.unit.made import DOCUMENT, answers

LONG = "a" * 63


def test_answers_are_taken_as_they_were_given() -> None:
    given = {
        "project_name": "my_shop-2",
        "client_name": "Bob_s.Mac-1",
        "vpn_host": "vpn.example.org",
        "vpn_listen": "192.0.2.7",
        "vpn_port": 31194,
        "vpn_protocol": "udp",
        "kubernetes": "k3s",
        "vpn_subnet": "10.99.9.0/24",
        "routes": ["10.0.0.0/12"],
        "dns_domain": "shop.test",
        "service_type": "NodePort",
        "image_registry": "registry.example.org:5000/team",
        "key_type": "ed25519",
        "certificate_days": 3,
        "authority_days": 4,
    }
    found = parse_answers(given)
    assert {name: getattr(found, name) for name in given} == given | {
        "vpn_listen": found.vpn_listen,
        "vpn_subnet": IPv4Network("10.99.9.0/24"),
        "routes": (IPv4Network("10.0.0.0/12"),),
    }
    assert str(found.vpn_listen) == "192.0.2.7"
    assert found.vpn_host_from == "answer"


@pytest.mark.parametrize(
    ("answer", "recorded", "context", "host", "source"),
    [
        ("192.0.2.7", "192.0.2.8", "192.0.2.9", "192.0.2.7", "answer"),
        ("", "192.0.2.8", "192.0.2.9", "192.0.2.8", "record"),
        ("", None, "192.0.2.9", "192.0.2.9", "context"),
        ("", None, None, "127.0.0.1", "nothing"),
    ],
)
def test_host_that_is_not_answered_is_the_one_on_record_or_else_where_dockers_context_leads(
    answer: str, recorded: str | None, context: str | None, host: str, source: str
) -> None:
    found = parse_answers(DOCUMENT | {"vpn_host": answer}, recorded, context)
    assert (found.vpn_host, found.vpn_host_from) == (host, source)


def test_host_that_is_none_is_refused_with_where_it_comes_from() -> None:
    with pytest.raises(ValueError, match=r"^vpn_host: 'no host' is neither an IPv4 address nor a host name"):
        answers(vpn_host="no host")
    with pytest.raises(ValueError, match=r"^vpn_host: 'no host', which Docker's context named, is neither"):
        parse_answers(DOCUMENT, None, "no host")


@pytest.mark.parametrize(
    ("host", "listen"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "127.0.0.1"),
        ("192.0.2.7", "192.0.2.7"),
        ("vpn.example.org", "0.0.0.0"),
    ],
)
def test_port_is_published_where_clients_come(host: str, listen: str) -> None:
    assert str(address_to_listen_on(host)) == listen
    assert str(answers(vpn_host=host).vpn_listen) == listen
    document = {name: value for name, value in DOCUMENT.items() if name != "vpn_listen"}  # as older templates had it
    assert str(parse_answers(document | {"vpn_host": host}).vpn_listen) == listen


GOOD = [
    ("project_name", "a"), ("project_name", "a" * 40), ("project_name", "a_b__c--d---e2"),
    ("client_name", "a" * 48), ("client_name", "9"),
    ("vpn_host", f"{LONG}.example.org"), ("vpn_host", ".".join([LONG] * 3 + ["a" * 61])), ("vpn_host", "a-b.1c"),
    ("vpn_port", 1), ("vpn_port", 65535), ("certificate_days", 1), ("authority_days", 100), ("authority_days", 36500),
    ("kubernetes", "none"), ("kubernetes", "docker-desktop"), ("kubernetes", "kind"), ("kubernetes", "k3s"),
    ("service_type", "LoadBalancer"), ("service_type", "ClusterIP"),
    ("key_type", "ecdsa-p256"), ("key_type", "ed25519"), ("key_type", "rsa-3072"),
    ("image_registry", ""), ("image_registry", "a:5000"), ("image_registry", "a.b/c-d/e__f"),
    ("image_registry", "a" * 150),
]  # fmt: skip
BAD = [
    ("project_name", "", "Compose"), ("project_name", "a" * 41, "Compose"), ("project_name", "a___b", "Compose"),
    ("project_name", 7, "is not a string"), ("project_name", None, "is not a string"),
    ("client_name", "", "is not a client name: use 1 to 48"), ("client_name", "a" * 49, "use 1 to 48"),
    ("client_name", "-a", "use 1 to 48"), ("client_name", "SERVER", "uses that name for something else"),
    ("client_name", "authority", "uses that name for something else"),
    ("vpn_host", f"{LONG}a.example.org", "neither"), ("vpn_host", ".".join([LONG] * 3 + ["a" * 62]), "neither"),
    ("vpn_host", "1.2", "neither"), ("vpn_host", "-a", "neither"), ("vpn_host", "a-", "neither"),
    ("vpn_host", "::1", "neither"),
    ("vpn_host", 7, "is not a string"), ("vpn_host", None, "is not a string"),
    ("vpn_listen", "localhost", "is not an IPv4 address"), ("vpn_listen", "::1", "is not an IPv4 address"),
    ("vpn_port", 0, "from 1 to 65535"), ("vpn_port", 65536, "from 1 to 65535"), ("vpn_port", True, "from 1 to"),
    ("vpn_port", "1194", "from 1 to 65535"), ("vpn_protocol", "TCP", "neither"),
    ("certificate_days", 0, "from 1 to 3650"), ("certificate_days", 3651, "from 1 to 3650"),
    ("authority_days", 99, "from 100 to 36500"), ("authority_days", 36501, "from 100 to 36500"),
    ("kubernetes", "", "is not one of"), ("service_type", "", "is not one of"), ("key_type", "", "is not one of"),
    ("vpn_subnet", "10.213.94.0/25", "is not a /24"), ("vpn_subnet", "10.213.0.0/23", "is not a /24"),
    ("vpn_subnet", "127.0.0.0/24", "contains the VPN's own endpoint"), ("vpn_subnet", "10.213.94.1", "such as"),
    ("vpn_subnet", "10.213.94.1/24", "has host bits set: the network is 10.213.94.0/24"),
    ("vpn_subnet", None, "such as"),
    ("vpn_subnet", "fd00::/24", "such as"),
    ("routes", [], "is not a list"), ("routes", None, "is not a list"), ("routes", "10.0.0.0/8", "is not a list"),
    ("routes", [7], "is not an IPv4 network"), ("routes", ["10.1.0.1/16"], "has host bits set"),
    ("routes", ["172.16.0.0/12", "0.0.0.0/0"], "would send all traffic"),
    ("routes", ["10.0.0.0/8"], "overlaps the VPN's own"),
    ("routes", ["127.0.0.0/8"], "contains the VPN's own endpoint"),
    ("image_registry", "a" * 151, "registry"), ("image_registry", "a:500000", "registry"),
    ("image_registry", "a/", "registry"),
    ("image_registry", None, "is not a string"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), GOOD)
def test_answer_within_the_limits_is_taken(name: str, value: Any) -> None:
    assert getattr(answers(**{name: value}), name) == value


@pytest.mark.parametrize(("name", "value", "said"), BAD)
def test_answer_beyond_the_limits_is_refused_by_name(name: str, value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: .*{said}"):
        answers(**{name: value})


@pytest.mark.parametrize(
    ("port", "protocol", "kind", "said"),
    [
        (30000, "udp", "NodePort", None),
        (32767, "tcp", "NodePort", None),
        (29999, "tcp", "NodePort", "'NodePort' needs a vpn_port from 30000 to 32767, and it is 29999"),
        (32768, "tcp", "NodePort", "'NodePort' needs a vpn_port from 30000 to 32767, and it is 32768"),
        (1194, "udp", "LoadBalancer", None),
        (1194, "tcp", "ClusterIP", None),
        (1194, "udp", "ClusterIP", "'ClusterIP' needs vpn_protocol 'tcp'"),
    ],
)
def test_service_is_of_a_type_that_carries_the_vpn(port: int, protocol: str, kind: str, said: str | None) -> None:
    given = {"vpn_port": port, "vpn_protocol": protocol, "service_type": kind}
    if said is None:
        assert answers(**given).service_type == kind
    else:
        with pytest.raises(ValueError, match=f"^service_type: {said}"):
            answers(**given)


def test_routes_may_lead_anywhere_where_the_endpoint_is_a_name() -> None:
    assert answers(vpn_host="vpn.example.org", routes=["127.0.0.0/8"]).routes == (IPv4Network("127.0.0.0/8"),)
    assert str(answers(vpn_host="vpn.example.org", vpn_subnet="127.0.0.0/24").vpn_subnet) == "127.0.0.0/24"


def test_image_and_command_are_those_of_where_the_server_runs() -> None:
    assert answers().image == "devkit-gateway"
    assert answers(image_registry="a.example.org/team").image == "a.example.org/team/devkit-gateway"
    assert answers().up == "./scripts/up.py"
    assert answers(kubernetes="kind").up == "./scripts/up.py --kubernetes"


@pytest.mark.parametrize(("name", "good"), [("bob", True), ("Server", False), ("AUTHORITY", False), ("servers", True)])
def test_client_may_have_any_name_that_the_report_does_not_use(name: str, good: bool) -> None:
    assert (client_name_problem(name) is None) is good


@pytest.mark.parametrize(("text", "good"), [("192.0.2.7", True), ("vpn", True), ("192.0.2", False), ("fd00::1", False)])
def test_profile_may_name_an_ipv4_address_or_a_name(text: str, good: bool) -> None:
    assert is_host(text) is good


def write(project: Path, text: str | bytes) -> Path:
    path = project / ".copier-answers.yml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_projects_answers_are_read_with_the_host_on_record(tmp_path: Path) -> None:
    write(tmp_path, yaml.safe_dump(DOCUMENT, allow_unicode=True))
    assert read_answers(tmp_path).vpn_host_from == "nothing"
    assert read_answers(tmp_path, "192.0.2.9").vpn_host == "192.0.2.9"
    (tmp_path / "local/pki").mkdir(parents=True)
    (tmp_path / "local/pki/vpn-host").write_text("192.0.2.8\n")
    assert read_answers(tmp_path, "192.0.2.9").vpn_host == "192.0.2.8"
    (tmp_path / "local/pki/vpn-host").write_bytes(b"\xff")
    with pytest.raises(UserError, match="vpn_host: '\N{REPLACEMENT CHARACTER}', which Docker's context named"):
        read_answers(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- 1", "holds no answers: restore it from git"),
        ("a: [", r"cannot be read \(while parsing a flow node .*\): restore it from git"),
        (b"\xff", r"cannot be read \(.*\): restore it from git"),
        ("vpn_host: 7", "vpn_host: 7 is not a string. Change it with `uvx copier update"),
    ],
)
def test_answers_that_cannot_be_used_are_named_with_what_to_do(tmp_path: Path, text: str | bytes, said: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UserError, match=f"^{path}:? {said}"):
        read_answers(tmp_path)


def test_folder_that_is_no_project_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"is not a d4m-devkit project .*: run this in the folder that `copier copy` made"
    ):
        read_answers(tmp_path)
