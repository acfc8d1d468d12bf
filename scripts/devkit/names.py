"""The names that the VPN's own DNS gives to an engine's containers. Pure; the container `names` runs it, too.

Below the domain, such as d4m.internal:

    NAME               a container
    SERVICE.PROJECT    a Compose service, with all its replicas
    and what the labels d4m.names and dev.orbstack.domains add: names with commas between them

Every name stands for all names below it, too. Where two claim one name, or one claims what is above or below another's,
the kind that comes first above has it; among equals, the first by its own name. So no label of a container takes
anything from another one.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from devkit import reachability
from devkit.addresses import reverse_zones
from devkit.facts import Container

NAMES_LABEL = "d4m.names"
ORBSTACK_LABEL = "dev.orbstack.domains"
ORBSTACK_DOMAINS = (".orb.local", ".local")
ONE_OFF_LABEL = "com.docker.compose.oneoff"  # True for what `docker compose run` starts
OWN, SERVICE, OWN_WITH_DOTS, SERVICE_WITH_DOTS, LABEL_ADDED = range(5)  # the ranks of claims
MAY_NOT_ENCROACH = OWN_WITH_DOTS  # claims of this rank and above: what has dots of its own choice
MOST_NAMES = 32  # of one container's labels
MOST_CHARACTERS = 253  # of a whole name (RFC 1035, section 2.3.4)
LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


@dataclass(frozen=True)
class Name:
    """A whole name in small letters, without a final dot, and its addresses, in order."""

    name: str
    addresses: tuple[IPv4Address, ...]


@dataclass(frozen=True)
class _Claim:
    """What a container wants to be called; the claims of one holder, such as a Compose service, are put together."""

    rank: int
    order: str  # among the claims of one rank to one name
    name: str
    holder: str
    address: IPv4Address


def names(
    containers: Iterable[Container], domain: str, routes: Collection[IPv4Network]
) -> tuple[tuple[Name, ...], Mapping[IPv4Address, str]]:
    """All names, in order, and for each address the name that a reverse look-up gives."""
    claims = (claim for container in containers for claim in _claims(container, domain, routes))
    granted: dict[str, tuple[str, set[IPv4Address]]] = {}
    reverse: dict[IPv4Address, str] = {}
    above: dict[str, set[str]] = {}  # who holds what is below a name
    own: set[str] = set()  # which belong to one container, and not to its service's others
    for claim in sorted(claims, key=lambda claim: (claim.rank, claim.order, claim.name)):
        holder, addresses = granted.get(claim.name, (claim.holder, set()))
        parents = _parents(claim.name, domain)
        others = {granted[parent][0] for parent in parents if parent in granted} | above.get(claim.name, set())
        if holder != claim.holder or claim.name in own or (claim.rank >= MAY_NOT_ENCROACH and others - {holder}):
            continue
        granted[claim.name] = (holder, addresses | {claim.address})
        if claim.rank in (OWN, OWN_WITH_DOTS):
            own.add(claim.name)
        for parent in parents:
            above.setdefault(parent, set()).add(holder)
        reverse.setdefault(claim.address, claim.name)
    found = (Name(name, tuple(sorted(addresses))) for name, (_, addresses) in granted.items())
    return tuple(sorted(found, key=lambda name: name.name)), reverse


def _claims(container: Container, domain: str, routes: Collection[IPv4Network]) -> Iterator[_Claim]:
    address = address_of(container, routes)
    if address is None:
        return
    service, project = container.service, container.project
    of_service = bool(service and project and container.labels.get(ONE_OFF_LABEL) != "True")
    # Services that differ by their case alone share a name, as replicas do: neither takes it from the other.
    holder = f"{project}/{service}".lower() if of_service else container.name
    own = container.name.lower()
    # Docker tells names by their case, too: of those that differ in nothing else, the one in small letters comes first.
    wanted = [(OWN_WITH_DOTS if "." in own else OWN, f"{own != container.name} {container.name}", own)]
    if of_service:
        rank = SERVICE_WITH_DOTS if "." in f"{service}{project}" else SERVICE
        wanted.append((rank, holder, f"{service}.{project}".lower()))
    wanted += [(LABEL_ADDED, holder, name) for name in _added(container.labels, domain)]
    for rank, order, name in wanted:
        if is_name(f"{name}.{domain}"):
            yield _Claim(rank, order, f"{name}.{domain}", holder, address)


def address_of(container: Container, routes: Collection[IPv4Network]) -> IPv4Address | None:
    """The address that a container's names lead to: the first that the routes reach, by the networks' names."""
    for attachment in sorted(container.attachments, key=lambda attachment: attachment.network):
        if reachability.of_attachment(attachment, routes).reached:
            return attachment.address
    return None


def _added(labels: Mapping[str, str], domain: str) -> Sequence[str]:
    """The names that a container's labels add, without the domain; what cannot be one is left out."""
    wanted = [name.strip().lower() for name in labels.get(NAMES_LABEL, "").split(",")]
    for name in labels.get(ORBSTACK_LABEL, "").split(","):
        given = name.strip().lower()
        wanted.append(next((given.removesuffix(end) for end in ORBSTACK_DOMAINS if given.endswith(end)), given))
    relative = (name.removeprefix("*.").removesuffix(".").removesuffix(f".{domain}") for name in wanted)
    return [name for name in dict.fromkeys(relative) if name != domain and is_name(f"{name}.{domain}")][:MOST_NAMES]


def is_name(whole: str) -> bool:
    """Whether a whole name can be asked for."""
    return len(whole) <= MOST_CHARACTERS and all(LABEL.fullmatch(label) for label in whole.split("."))


def _parents(name: str, domain: str) -> Sequence[str]:
    """What lies between a name and the domain."""
    labels = name.removesuffix(f".{domain}").split(".")
    return [".".join([*labels[number:], domain]) for number in range(1, len(labels))]


# ------------------------------------------------------------------------------------------------------- for the server

SECONDS_TO_LIVE = 5


def unbound_records(
    found: Iterable[Name],
    reverse: Mapping[IPv4Address, str],
    domain: str,
    routes: Iterable[IPv4Network],
    server: IPv4Address,
) -> str:
    """The names as unbound's configuration has them (unbound.conf(5): local-zone, local-data).

    The domain itself has the server's address, so that there is always a name that resolves. A `redirect` zone answers
    for all names below it; what has a name but no address of the wanted type is NODATA.
    """
    lines = [f'local-zone: "{domain}." static', f'local-data: "{domain}. {SECONDS_TO_LIVE} IN A {server}"']
    lines += [f'local-zone: "{zone}." static' for zone in reverse_zones(routes)]
    whole = list(found)
    named = {name.name for name in whole}
    between = {parent for name in whole for parent in _parents(name.name, domain)}
    # What is below a name is answered by its zone already, in which unbound takes no records below the top.
    between = {name for name in between - named if not named.intersection(_parents(name, domain))}
    lines += [f"local-data: '{name}. {SECONDS_TO_LIVE} IN TXT \"\"'" for name in sorted(between)]
    for name in whole:
        lines.append(f'local-zone: "{name.name}." redirect')
        lines += [f'local-data: "{name.name}. {SECONDS_TO_LIVE} IN A {address}"' for address in name.addresses]
    lines += [f'local-data-ptr: "{address} {SECONDS_TO_LIVE} {name}"' for address, name in sorted(reverse.items())]
    return "".join(f"{line}\n" for line in lines)
