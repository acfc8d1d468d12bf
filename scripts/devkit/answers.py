"""What the user answered Copier, read once into one frozen and validated object."""

import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Literal, cast

import yaml

from devkit.addresses import ANY_ADDRESS, address_or_none, reverse_zones
from devkit.errors import UserError, printable
from devkit.keys.x509 import KeyType
from devkit.layout import ANSWERS_FILE, Layout

# What users are told to type: it takes no new version of the template; the last renews no certificates either.
UPDATE = "uvx copier update --trust --defaults --vcs-ref=:current:"
NEW_CA = f"{UPDATE} --data rotate=all"
CHANGE_ANSWER = f"{UPDATE} --data rotate=none --data"

# A name for a Compose project that may also be part of an image's (the grammar of distribution/reference).
PROJECT_NAME = re.compile(r"(?=.{1,40}\Z)[a-z0-9]+((_|__|-+)[a-z0-9]+)*")
# The common name of a certificate has at most 64 characters (RFC 5280, ub-common-name).
CLIENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,47}")
RESERVED_NAMES = ("authority", "server")  # the report, or its JSON, has rows of these names already
HOST_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
DNS_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
# Of an image's name (the grammar of distribution/reference): words with what may stand between them.
_HOST_WORDS = r"[a-z0-9]+(-+[a-z0-9]+)*(\.[a-z0-9]+(-+[a-z0-9]+)*)*"
_PATH_WORDS = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
IMAGE_REGISTRY = re.compile(rf"(?=.{{0,150}}\Z)({_HOST_WORDS}(:[0-9]{{1,5}})?(/{_PATH_WORDS})*)?")
HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z)(?![0-9.]*\Z){HOST_LABEL}(\.{HOST_LABEL})*")

# One that ends in a number is an address to browsers (WHATWG, URL).
DNS_DOMAIN = re.compile(rf"(?=.{{0,100}}\Z)(?!.*\.([0-9]+|0x[0-9a-f]*)\Z)({DNS_LABEL}(\.{DNS_LABEL})+)?")
# What means something else already: multicast DNS (RFC 6762), Docker's own names, and special names (RFC 6761).
TAKEN_DOMAINS = re.compile(r"(.*\.)?(local|localhost|arpa|onion|invalid|docker\.internal)")

CLUSTER_DOMAIN = "cluster.local"

MOST_SHOWN = 200  # characters of a bad value: a few lines of YAML can hold more than the memory

THIS_COMPUTER = "127.0.0.1"

Protocol = Literal["tcp", "udp"]
Kubernetes = Literal["none", "docker-desktop", "kind", "k3s"]
ServiceType = Literal["LoadBalancer", "NodePort", "ClusterIP"]
NODE_PORTS = range(30000, 32768)
# The user's answer; what Docker's context said once, or says now; or nothing, which means this computer.
HostSource = Literal["answer", "record", "context", "nothing"]

# What PyYAML lets out of a text besides its own errors: a tag, a date or a number may be one in form alone.
UNREADABLE = (OSError, ValueError, LookupError, AttributeError, TypeError, RecursionError, yaml.YAMLError)


@dataclass(frozen=True)
class Answers:
    """One project's answers, with defaults for those that are left empty; lifetimes are in days."""

    project_name: str
    client_name: str
    vpn_host: str
    vpn_host_from: HostSource
    vpn_listen: IPv4Address
    vpn_port: int
    vpn_protocol: Protocol
    kubernetes: Kubernetes
    vpn_subnet: IPv4Network
    routes: tuple[IPv4Network, ...]
    dns_domain: str
    service_type: ServiceType
    image_registry: str
    key_type: KeyType
    certificate_days: int
    authority_days: int

    @property
    def up(self) -> str:
        """The command that brings the VPN up and loads what is new, as far as the answers say where it runs."""
        return "./scripts/up.py" + ("" if self.kubernetes == "none" else " --kubernetes")

    @property
    def dns_address(self) -> IPv4Address:
        """The server's own address in the tunnel, where it answers for `dns_domains`."""
        return self.vpn_subnet[1]

    @property
    def most_connected(self) -> int:
        """How many clients the server has an address for; it has one itself."""
        return self.vpn_subnet.num_addresses - 3

    @property
    def dns_domains(self) -> tuple[str, ...]:
        """What is asked through the tunnel, none when there is no DNS there; reverse look-ups come with it."""
        if not self.dns_domain:
            return ()
        cluster = [] if self.kubernetes == "none" else [CLUSTER_DOMAIN]
        return (self.dns_domain, *cluster, *reverse_zones(self.routes))

    @property
    def image(self) -> str:
        """The repository of the gateway's image, as `docker push` and a cluster name it."""
        return f"{self.image_registry}/{self.project_name}-gateway".removeprefix("/")


def read_answers(project: Path, context: str | None = None) -> Answers:
    """Read and validate a project's answers.

    Where `vpn_host` is not answered it is the host on record, or else the one that Docker's context names now.
    Raises UserError when the folder is not a generated project or an answer is bad.
    """
    path = Layout(project).answers
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{project} is not a d4m-devkit project (it has no {ANSWERS_FILE}): "
            "run this in the folder that `copier copy` made."
        ) from None
    except UNREADABLE as error:
        why = printable(" ".join(str(error).split()))
        raise UserError(f"{path} cannot be read ({why}): restore it from git.") from error
    if not isinstance(document, dict):
        raise UserError(f"{path} holds no answers: restore it from git.")
    try:
        record = Layout(project).host_record
        recorded = record.read_text(encoding="utf-8", errors="replace").strip() if record.exists() else None
        return parse_answers(cast("Mapping[str, object]", document), recorded, context)
    except ValueError as problem:
        raise UserError(f"{path}: {problem} Change it with `{CHANGE_ANSWER} NAME=VALUE`.") from None


def parse_answers(document: Mapping[str, object], recorded: str | None = None, context: str | None = None) -> Answers:
    """Check every answer; a `vpn_host` that is empty is the one `recorded`, or else the one of Docker's `context`.

    Raises ValueError with one sentence that names the first bad value.
    """
    vpn_host, vpn_host_from = _host(document, recorded, context)
    if not is_host(vpn_host):
        named = "" if vpn_host_from == "answer" else ", which Docker's context named,"
        raise ValueError(f"vpn_host: {_shown(vpn_host)}{named} is neither an IPv4 address nor a host name.")
    endpoint = _ipv4_or_none(vpn_host)
    vpn_subnet = _network("vpn_subnet", document.get("vpn_subnet"))
    if vpn_subnet.prefixlen != 24:
        raise ValueError(f"vpn_subnet: {str(vpn_subnet)!r} is not a /24.")
    if endpoint is not None and endpoint in vpn_subnet:
        raise ValueError(f"vpn_subnet: {str(vpn_subnet)!r} contains the VPN's own endpoint {endpoint}.")
    certificate_days = _whole_number(document, "certificate_days", 1, 3650)
    vpn_port = _whole_number(document, "vpn_port", 1, 65535)
    service_type = _service_type(document)
    if service_type == "ClusterIP" and document.get("vpn_protocol") == "udp":
        raise ValueError(
            "service_type: 'ClusterIP' needs vpn_protocol 'tcp': `kubectl port-forward` carries nothing else."
        )
    if service_type == "NodePort" and vpn_port not in NODE_PORTS:
        raise ValueError(f"service_type: 'NodePort' needs a vpn_port from 30000 to 32767, and it is {vpn_port}.")
    return Answers(
        project_name=_matching(document, "project_name", PROJECT_NAME, "a name for a Compose project and an image"),
        client_name=_client_name(document),
        vpn_host=vpn_host,
        vpn_host_from=vpn_host_from,
        vpn_listen=_listen(document, vpn_host),
        vpn_port=vpn_port,
        vpn_protocol=_protocol(document),
        kubernetes=_kubernetes(document),
        vpn_subnet=vpn_subnet,
        routes=_routes(document, vpn_subnet, endpoint),
        dns_domain=_dns_domain(document),
        service_type=service_type,
        image_registry=_matching(document, "image_registry", IMAGE_REGISTRY, "an image registry"),
        key_type=_key_type(document),
        certificate_days=certificate_days,
        authority_days=_whole_number(document, "authority_days", certificate_days, 36500),
    )


def with_routes(answers: Answers, routes: Sequence[str]) -> Answers:
    """The same answers with other routes. Raises UserError, which names the first bad one."""
    try:
        checked = _routes({"routes": list(routes)}, answers.vpn_subnet, _ipv4_or_none(answers.vpn_host))
    except ValueError as problem:
        raise UserError(str(problem)) from None
    return replace(answers, routes=checked)


def address_to_listen_on(vpn_host: str) -> IPv4Address:
    """Where the port is published for clients that come to this host, unless the user answers otherwise."""
    return _ipv4_or_none(vpn_host) or (IPv4Address(THIS_COMPUTER) if vpn_host == "localhost" else ANY_ADDRESS)


def is_host(text: str) -> bool:
    """Whether a profile may name this as the server's host."""
    return _ipv4_or_none(text) is not None or HOST_NAME.fullmatch(text) is not None


class _Short(reprlib.Repr):
    """Writes a value as Python does, and no more of it than a sentence can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = MOST_SHOWN
        self.maxlevel = 3

    def repr_int(self, x: int, level: int) -> str:
        """A whole number, which Python itself refuses to write down when it has thousands of digits."""
        return super().repr_int(x, level) if x.bit_length() < 100 else "a number of many digits"


def _shown(value: object) -> str:
    text = _Short().repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def _host(document: Mapping[str, object], recorded: str | None, context: str | None) -> tuple[str, HostSource]:
    answer = _text(document, "vpn_host")
    if answer:
        return answer, "answer"
    if recorded is not None:
        return recorded, "record"
    return (context, "context") if context is not None else (THIS_COMPUTER, "nothing")


def _listen(document: Mapping[str, object], vpn_host: str) -> IPv4Address:
    if document.get("vpn_listen", "") == "":
        return address_to_listen_on(vpn_host)
    return _address(document, "vpn_listen")


def _text(document: Mapping[str, object], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name}: {_shown(value)} is not a string.")
    return value


def _matching(document: Mapping[str, object], name: str, pattern: re.Pattern[str], what: str) -> str:
    value = _text(document, name)
    if not pattern.fullmatch(value):
        raise ValueError(f"{name}: {_shown(value)} is not {what}.")
    return value


def client_name_problem(name: str) -> str | None:
    """What is wrong with a client's name, as one sentence, or None."""
    if not CLIENT_NAME.fullmatch(name):
        allowed = "use 1 to 48 of A-Z, a-z, 0-9, -, _ and ., the first a letter or digit"
        return f"{_shown(name)} is not a client name: {allowed}."
    if name.casefold() in RESERVED_NAMES:
        return f"{_shown(name)} is not a client name: the report uses that name for something else."
    return None


def _client_name(document: Mapping[str, object]) -> str:
    value = _text(document, "client_name")
    problem = client_name_problem(value)
    if problem:
        raise ValueError(f"client_name: {problem}")
    return value


def _whole_number(document: Mapping[str, object], name: str, least: int, most: int) -> int:
    value = document.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{name}: {_shown(value)} is not a whole number from {least} to {most}.")
    return value


def _protocol(document: Mapping[str, object]) -> Protocol:
    value = document.get("vpn_protocol")
    if value not in ("tcp", "udp"):
        raise ValueError(f"vpn_protocol: {_shown(value)} is neither 'tcp' nor 'udp'.")
    return value


def _kubernetes(document: Mapping[str, object]) -> Kubernetes:
    value = document.get("kubernetes")
    if value not in ("none", "docker-desktop", "kind", "k3s"):
        raise ValueError(f"kubernetes: {_shown(value)} is not one of 'none', 'docker-desktop', 'kind' and 'k3s'.")
    return value


def _service_type(document: Mapping[str, object]) -> ServiceType:
    value = document.get("service_type")
    if value not in ("LoadBalancer", "NodePort", "ClusterIP"):
        raise ValueError(f"service_type: {_shown(value)} is not one of 'LoadBalancer', 'NodePort' and 'ClusterIP'.")
    return value


def _key_type(document: Mapping[str, object]) -> KeyType:
    value = document.get("key_type")
    if value not in ("ecdsa-p256", "ed25519", "rsa-3072"):
        raise ValueError(f"key_type: {_shown(value)} is not one of 'ecdsa-p256', 'ed25519' and 'rsa-3072'.")
    return value


def _ipv4_or_none(text: str) -> IPv4Address | None:
    address = address_or_none(text)
    return address if isinstance(address, IPv4Address) else None


def _address(document: Mapping[str, object], name: str) -> IPv4Address:
    value = _text(document, name)
    address = _ipv4_or_none(value)
    if address is None:
        raise ValueError(f"{name}: {_shown(value)} is not an IPv4 address.")
    return address


def _dns_domain(document: Mapping[str, object]) -> str:
    value = _matching(document, "dns_domain", DNS_DOMAIN, "a domain in small letters, such as d4m.internal")
    if TAKEN_DOMAINS.fullmatch(value):
        raise ValueError(f"dns_domain: {_shown(value)} is taken by something else: use one such as d4m.internal.")
    return value


def _network(name: str, value: object) -> IPv4Network:
    if not isinstance(value, str) or "/" not in value:
        raise ValueError(f'{name}: {_shown(value)} is not an IPv4 network, such as "172.16.0.0/12".')
    try:
        network = IPv4Network(value, strict=False)
    except ValueError:
        raise ValueError(f'{name}: {_shown(value)} is not an IPv4 network, such as "172.16.0.0/12".') from None
    if str(network) != value:
        raise ValueError(f"{name}: {_shown(value)} has host bits set: the network is {network}.")
    return network


def _routes(
    document: Mapping[str, object], vpn_subnet: IPv4Network, endpoint: IPv4Address | None
) -> tuple[IPv4Network, ...]:
    value = document.get("routes")
    if not isinstance(value, list) or not value:
        raise ValueError(f'routes: {_shown(value)} is not a list of IPv4 networks, such as ["172.16.0.0/12"].')
    routes = tuple(_network("routes", item) for item in value)
    for route in routes:
        if route.prefixlen == 0:
            raise ValueError(f"routes: '{route}' would send all traffic through the VPN.")
        if route.overlaps(vpn_subnet):
            raise ValueError(f"routes: '{route}' overlaps the VPN's own subnet {vpn_subnet}.")
        if endpoint is not None and endpoint in route:
            raise ValueError(f"routes: '{route}' contains the VPN's own endpoint {endpoint}.")
    return routes
