"""Which container serves what the proxy is asked for, and what its page shows. Pure.

The container `names` tells (`told`) what the container `proxy` goes by (`Told`); the connection report uses the same
rules.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network

from devkit import reachability
from devkit.addresses import contained
from devkit.facts import Container, Session
from devkit.names import Name, address_of, is_name
from devkit.reachability import HTTP_PORTS

PORT_LABELS = ("d4m.port", "dev.orbstack.http-port")
WEB_PORTS = (80, 443)  # what browsers ask for; a container that has none itself is served by the proxy
# Tried in this order where a container does not say what it has.
LIKELY_PORTS = tuple(int(port.partition("/")[0]) for port, scheme in HTTP_PORTS.items() if scheme == "http")
# What is no web server, although it is the only port of its container.
OTHER_PROTOCOLS = {21, 22, 25, 53, 389, 443, 587, 636, 1433, 1521, 1883, 2181, 3306, 4222, 5432, 5672, 6379, 6443, 8443,
                   9042, 9092, 11211, 27017}  # fmt: skip
MOST_CHARACTERS, MOST_PORTS = 200, 50  # of one container, for the proxy
WARN_BEFORE = timedelta(days=30)


def declared_port(container: Container) -> int | None:
    """Where a container says that it serves HTTP: by a label, or by the ports that it exposes; None if it does not."""
    return _declared(_label(container), container.ports)


def _label(container: Container) -> int | None:
    for label in PORT_LABELS:
        port = container.labels.get(label, "").strip()
        if port.isascii() and port.isdecimal() and 0 < int(port[:6]) < 65536:
            return int(port)
    return None


def _declared(label: int | None, ports: Iterable[str]) -> int | None:
    if label is not None:
        return label
    exposed = _exposed(ports)
    known = [port for port in LIKELY_PORTS if port in exposed]
    only = [port for port in exposed if len(exposed) == 1 and port not in OTHER_PROTOCOLS]
    return next(iter([*known, *only]), None)


def url(container: Container, names: Sequence[str]) -> str | None:
    """What a browser opens of a container that has these names, as far as its ports say; None if that is not known."""
    if not names or not (declared_port(container) or 443 in _exposed(container.ports)):
        return None
    return f"https://{best_name(container, names)}"


def best_name(container: Container, names: Sequence[str]) -> str:
    """The name that people know a container by: that of its Compose service, else its own."""
    of_service = f"{container.service}.{container.project}.".lower()
    own = f"{container.name}.".lower()
    known = (name for start in (of_service, own) for name in names if name.startswith(start))
    return next(known, min(names, key=len))


def _exposed(ports: Iterable[str]) -> Sequence[int]:
    return [int(port.partition("/")[0]) for port in ports if port.endswith("/tcp")]


# ------------------------------------------------------------------------------------- from `names` to the proxy


@dataclass(frozen=True)
class Place:
    """A container's address in one network, and why it is not reached there, if it is not."""

    network: str
    address: str | None
    obstacle: str | None


@dataclass(frozen=True)
class Served:
    """A container; `address` is where its names lead, `best` the name that people know, `label` the port by its label.

    Texts are cut, so that no container makes this long.
    """

    id: str
    name: str
    project: str | None
    service: str | None
    image: str
    state: str
    health: str | None
    ports: tuple[str, ...]
    address: str | None
    label: int | None
    names: tuple[str, ...]
    best: str | None
    places: tuple[Place, ...]

    @property
    def port(self) -> int | None:
        """The port that it declares."""
        return _declared(self.label, self.ports)


@dataclass(frozen=True)
class Told:
    """What the proxy has to know; names are whole ones, each with its addresses."""

    domain: str = ""
    project: str = ""
    names: Mapping[str, Sequence[str]] = field(default_factory=dict, hash=False)
    containers: tuple[Served, ...] = ()

    @cached_property
    def by_address(self) -> Mapping[str, Served]:
        """The containers that have an address; those that have joined another's network count as one with it."""
        found: dict[str, Served] = {}
        for one in self.containers:
            if one.address:
                other = found.get(one.address, one)
                label = other.label if other.label is not None else one.label
                found[one.address] = replace(other, ports=tuple(dict.fromkeys(other.ports + one.ports)), label=label)
        return found


def told(
    containers: Iterable[Container], found: Iterable[Name], domain: str, project: str, routes: Collection[IPv4Network]
) -> str:
    """What the proxy has to know, as JSON."""
    whole = {name.name: [str(address) for address in name.addresses] for name in found}
    of_address: dict[str, list[str]] = {}
    for name, addresses in whole.items():
        for address in addresses:
            of_address.setdefault(address, []).append(name)
    served = tuple(_served(container, of_address, routes) for container in containers)
    return json.dumps(asdict(Told(domain, project, whole, served)))


def _served(container: Container, of_address: Mapping[str, list[str]], routes: Collection[IPv4Network]) -> Served:
    address = address_of(container, routes)
    names = tuple(of_address.get(str(address), ()))
    return Served(
        id=container.id,
        name=container.name[:MOST_CHARACTERS],
        project=container.project[:MOST_CHARACTERS] if container.project else None,
        service=container.service[:MOST_CHARACTERS] if container.service else None,
        image=container.image[:MOST_CHARACTERS],
        state=container.state,
        health=container.health,
        ports=container.ports[:MOST_PORTS],
        address=str(address) if address else None,
        label=_label(container),
        names=names,
        best=best_name(container, names) if names else None,
        places=tuple(
            Place(
                place.network,
                str(place.address) if place.address else None,
                reachability.of_attachment(place, routes).obstacle,
            )
            for place in container.attachments
        ),
    )


def parse(text: str) -> Told:
    """Read back what `told` wrote."""
    read = json.loads(text)
    containers = (
        Served(
            **one
            | {"ports": tuple(one["ports"]), "names": tuple(one["names"])}
            | {"places": tuple(Place(**place) for place in one["places"])}
        )
        for one in read["containers"]
    )
    return Told(read["domain"], read["project"], read["names"], tuple(containers))


# ------------------------------------------------------------------------------------------------ in the proxy

Listening = Mapping[tuple[str, int], bool]  # what was found to accept connections, by address and port


def addresses_of(known: Told, host: str) -> Sequence[str]:
    """The addresses behind what a client asked for: a name, whatever is below one, or an address; none if unknown."""
    host = _as_written(host)
    if host in known.by_address:
        return [host]
    name = _name_of(known, host)
    return known.names[name] if name else ()


def vouched_for(known: Told, host: str) -> str | None:
    """The name that a certificate for this host belongs to: the domain, or a name in it; None if there is none."""
    host = _as_written(host)
    if not known.domain:
        return None
    return host if host == known.domain else _name_of(known, host)


def _as_written(host: str) -> str:
    """A host as names are written. What is not ASCII stays as it is: some of it has a small letter that is."""
    return host.removesuffix(".").lower() if host.isascii() else host


def _name_of(known: Told, host: str) -> str | None:
    """The name that a host is, or is below."""
    if not is_name(host):
        return None
    labels = host.split(".")
    suffixes = (".".join(labels[number:]) for number in range(len(labels)))
    return next((suffix for suffix in suffixes if suffix in known.names), None)


def to_probe(container: Served) -> Iterator[int]:
    """The ports of a container at which an attempt shall say whether something listens there."""
    others = LIKELY_PORTS if container.port is None else [container.port]
    yield from dict.fromkeys((*WEB_PORTS, *others))


def serves_itself(container: Served, port: int, listening: Listening) -> bool:
    """Whether a container has this web port itself: one that it exposes, until an attempt has shown that it has not."""
    return listening.get((container.address or "", port), port in _exposed(container.ports))


def http_port(container: Served, listening: Listening) -> int | None:
    """The port of a container that the proxy leads to."""
    if container.port is not None:
        return container.port
    return next((port for port in LIKELY_PORTS if listening.get((container.address or "", port))), None)


def upstreams(known: Told, host: str, listening: Listening) -> Iterator[tuple[str, int]]:
    """The addresses and ports that serve what a client asked for."""
    for address in addresses_of(known, host):
        container = known.by_address.get(address)
        port = http_port(container, listening) if container else None
        if port is not None:
            yield address, port


def redirections(known: Told, listening: Listening, routes: Collection[IPv4Network]) -> str:
    """What is to be brought to the proxy: a line for each address and port, in order."""
    found = [
        (IPv4Address(address), port)
        for address, container in known.by_address.items()
        for port in WEB_PORTS
        if contained(IPv4Address(address), routes) and not serves_itself(container, port, listening)
    ]
    return "".join(f"{address} {port}\n" for address, port in sorted(found))


# ------------------------------------------------------------------------------------------------ on its page


def state(
    known: Told,
    listening: Listening,
    sessions: Iterable[Session] | None,
    expiries: Iterable[Mapping[str, str]],
    now: datetime,
) -> Mapping[str, object]:
    """What the page shows, as JSON (`state.json`); `sessions` is None when they are not known."""
    clients = None
    if sessions is not None:
        clients = [{"name": one.client, "since": _time(one.since), "address": one.vpn_address} for one in sessions]
    return {
        "version": 1,
        "domain": known.domain,
        "project": known.project,
        "now": _time(now),
        "containers": [_shown(container, listening) for container in known.containers],
        "clients": clients,
        "certificates": [
            {"name": one["name"], "expires": one["expires"], "warning": _warning(one, now)} for one in expiries
        ],
        "warnings": [],
    }


def _shown(container: Served, listening: Listening) -> Mapping[str, object]:
    own_https = serves_itself(container, 443, listening)
    port = http_port(container, listening)
    opens = container.best is not None and (own_https or port is not None)
    known = asdict(container)
    shown = ("name", "project", "service", "image", "state", "health", "names", "places", "ports")
    problem = None
    if opens and not own_https and listening.get((container.address or "", port or 0)) is False:
        problem = f"nothing answers at its port {port}"
    return {key: known[key] for key in shown} | {
        "url": f"https://{container.best}" if opens else None,
        "problem": problem,
    }


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _warning(expiry: Mapping[str, str], now: datetime) -> str | None:
    at = datetime.fromisoformat(expiry["expires"])
    if at - now >= WARN_BEFORE:
        return None
    verb = "expired" if at <= now else "expires"
    return f"the certificate {verb} on {at:%Y-%m-%d}: renew it with `{expiry['renewal']}`"
