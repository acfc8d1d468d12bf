"""The connection report of a server on an engine."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from devkit import checks, proxy, reachability
from devkit.addresses import overlap, within
from devkit.checks import Check
from devkit.errors import printable
from devkit.facts import Attachment, Condition, Container, Engine, EngineFacts, PublishedPort
from devkit.host import Interface, OperatingSystem
from devkit.material.expiry import expiry_warnings
from devkit.names import address_of, names
from devkit.reachability import NO_ADDRESS, REACHED, UNKNOWN_FILTER, Reachability
from devkit.report.access import (
    Access,
    access_table,
    both,
    health_rows,
    how_to_add,
    ports_cell,
    problem_lines,
    summary,
    verdict,
    warning_lines,
)
from devkit.report.table import Column, Fitting, Section, natural

PODMAN_NETWORKS = IPv4Network("10.88.0.0/15")  # its default network, and 256 of its user's
LARGE_MTU = 9000  # as large as the tunnel's own
HELLO = "docker run --rm --detach --name hello nginx:alpine"  # small, and it says so in a browser


@dataclass(frozen=True)
class Place:
    """A container's address in one network, and whether it is reached there."""

    network: str
    address: str | None
    reachability: Reachability


@dataclass(frozen=True)
class ReportedContainer:
    """A running container, and where it is; `urls` are by address, and `page` is what a browser opens by name."""

    name: str
    image: str
    places: tuple[Place, ...]
    ports: tuple[str, ...]
    urls: tuple[str, ...]
    project: str | None
    service: str | None
    state: str
    health: str | None
    published: tuple[PublishedPort, ...]
    names: tuple[str, ...]
    page: str | None


@dataclass(frozen=True)
class EngineReport:
    """All facts of a report; `missed` are networks with containers that the routes do not reach.

    `mtus` are those of the networks whose containers are reached, by name, in bytes.
    """

    access: Access
    engine: Engine
    containers: tuple[ReportedContainer, ...]
    missed: tuple[IPv4Network, ...]
    mtus: Mapping[str, int]
    warnings: tuple[str, ...]
    health: tuple[Check, ...]
    checked: bool  # whether the server could try what it reaches


def make_report(
    access: Access, facts: EngineFacts, condition: Condition, ways: Mapping[IPv4Address, Interface | None]
) -> EngineReport:
    """Put the facts together; `ways` are this computer's."""
    routes, domain = access.answers.routes, access.answers.dns_domain
    by_address: dict[IPv4Address | None, list[str]] = {}
    for name in names(facts.containers, domain, routes)[0] if domain else ():
        for address in name.addresses:
            by_address.setdefault(address, []).append(name.name)
    packet_filter = checks.packet_filter(facts.engine.firewall_backend)
    best = REACHED if packet_filter.verdict == "passed" else UNKNOWN_FILTER
    reached = _reached(facts, routes)
    return EngineReport(
        access=access,
        engine=facts.engine,
        containers=tuple(
            _reported(container, routes, best, condition, by_address.get(address_of(container, routes), ()))
            for container in facts.containers
        ),
        missed=_missed(facts, routes),
        mtus={one.name: one.mtu for one in facts.networks if one.name in reached},
        warnings=(
            *expiry_warnings(access.expiries, access.now),
            *([packet_filter.sentence] if packet_filter.verdict == "failed" else []),
        ),
        health=_health(access, facts, condition, ways),
        checked=condition.answers is not None,
    )


def _health(
    access: Access, facts: EngineFacts, condition: Condition, ways: Mapping[IPv4Address, Interface | None]
) -> tuple[Check, ...]:
    bridges = [network.bridge or f"br-{network.id[:12]}" for network in facts.networks] if not facts.engine.host else []
    return (
        checks.parts(condition.parts, access.answers.up),
        checks.connected(condition, access.profile),
        checks.way_here(access.answers, ways, bridges, condition.sessions),
        checks.forwarding(_reached(facts, access.answers.routes), condition),
    )


def _missed(facts: EngineFacts, routes: Sequence[IPv4Network]) -> tuple[IPv4Network, ...]:
    """The networks to be added; Podman's own as a whole, also while nothing runs: no default route leads there."""
    found = reachability.missed(facts.containers, routes)
    of_podman = [network for network in found if within(network, PODMAN_NETWORKS)]
    if not facts.engine.is_podman or (not of_podman and any(overlap(route, PODMAN_NETWORKS) for route in routes)):
        return found
    return (PODMAN_NETWORKS, *(network for network in found if network not in of_podman))


def _reached(facts: EngineFacts, routes: Sequence[IPv4Network]) -> Mapping[str, list[IPv4Address]]:
    """The addresses that the routes reach, by their networks' names, in order."""
    networks: dict[str, list[IPv4Address]] = {}
    for container in facts.containers:
        for place in container.attachments:
            if place.address and reachability.of_attachment(place, routes).reached:
                networks.setdefault(place.network, []).append(place.address)
    return {name: networks[name] for name in sorted(networks, key=natural)}


def as_text(
    report: EngineReport, system: OperatingSystem, folder: Path, about: Collection[str] = checks.HEALTH
) -> RenderableType:
    """The report for a person who works on this system, in this folder: first what can be opened.

    Problems are told that the command is `about`, by the checks' names.
    """
    answers = report.access.answers
    where = [("Engine", report.engine.description)]
    if str(answers.vpn_listen) != answers.vpn_host.replace("localhost", "127.0.0.1"):
        where.insert(0, ("Published on", f"{answers.vpn_listen}:{answers.vpn_port}"))
    if answers.dns_domain:
        examples = f"NAME.{answers.dns_domain}, SERVICE.PROJECT.{answers.dns_domain}"
        where.insert(0, ("Page", f"https://{answers.dns_domain} shows all of this, live"))
        where.append(("Names", f"{examples}; once on each computer: ./scripts/host.py install"))
    small = sorted((name for name, mtu in report.mtus.items() if mtu < LARGE_MTU), key=natural)
    speed = f"an MTU of {LARGE_MTU} makes {checks.listed(small)} several times as fast: README.md, under Speed"
    rows = [*health_rows(report.health), *([("Speed", Text(speed))] if small else [])]
    facts = access_table(report.access, where, system, folder, rows)
    tail = [
        *how_to_add(report.missed),
        *warning_lines(report.warnings),
        *problem_lines(one for one in report.health if one.name in about),
    ]
    return Group(*_containers(report.containers, report.checked), "", facts, *tail)


@dataclass(frozen=True)
class _Row:
    """A container in one of its networks; in the first of them with what it has in all."""

    container: ReportedContainer
    place: Place
    is_first: bool


def _ports(row: _Row) -> Text:
    container = row.container
    # By name, the web port needs no address; any other is shown by it.
    others = [url for url in container.urls if url.count(":") > 1]
    urls = [container.page, *others] if container.page else container.urls
    return ports_cell(urls, container.ports) if row.is_first else Text()


def _verdict(row: _Row) -> Text:
    said, container = verdict(row.place.reachability), row.container
    trouble = container.state if container.state != "running" else container.health
    if row.place.reachability.answered and trouble not in (None, "healthy"):
        return Text(f"yes, but {trouble}", style="yellow")
    return said


_NAME = Column[_Row]("Container", lambda row: Text(row.container.name if row.is_first else ""), breaks=20)
_NETWORK = Column[_Row]("Network", lambda row: Text(row.place.network), breaks=16)
_ADDRESS = Column[_Row]("Address", lambda row: Text(row.place.address or "-"))
_PORTS = Column[_Row]("Ports", _ports, breaks=24)
_BOTH = Column[_Row]("Address", lambda row: both(row.place.address or "-", _ports(row)), breaks=24)
_REACHED = Column[_Row]("Reached", _verdict)
_LAYOUTS = ((_NAME, _NETWORK, _ADDRESS, _PORTS, _REACHED), (_NAME, _NETWORK, _BOTH, _REACHED), (_NAME, _BOTH, _REACHED))


def _containers(containers: Sequence[ReportedContainer], checked: bool) -> Iterable[RenderableType]:
    """The containers by project: first those that a browser opens, and the projects that have such."""
    if not containers:
        yield Text("No container is running yet. Open the profile, and start one to look at:")
        yield Text(f"  {HELLO}", no_wrap=True, overflow="ignore")
        yield Text(
            "Then ./scripts/status.py says what to open. Whatever you start is reached at once, without reconnecting."
        )
        return
    projects: dict[str, list[ReportedContainer]] = {}
    for container in sorted(containers, key=lambda one: (not _opens(one), natural(one.name))):
        projects.setdefault(container.project or "", []).append(container)
    first = sorted(projects, key=lambda name: (not _opens(projects[name][0]), not name, natural(name)))
    of_none = "Without a project" if len(projects) > 1 else ""
    headings = {name: f"Project {printable(name)}" if name else of_none for name in first}
    yield Fitting(_LAYOUTS, [Section(headings[name], list(_rows(projects[name]))) for name in first])
    yield ""
    answered = sum(any(place.reachability.answered for place in container.places) for container in containers)
    yield summary(answered, len(containers), "containers", checked)


def _opens(container: ReportedContainer) -> bool:
    return bool(container.page or container.urls)


def _rows(containers: Iterable[ReportedContainer]) -> Iterator[_Row]:
    """First the place that the URLs lead to."""
    for container in containers:
        places = sorted(container.places, key=lambda place: not place.reachability.reached)
        for number, place in enumerate(places or [Place("-", None, NO_ADDRESS)]):
            yield _Row(container, place, is_first=not number)


def _reported(
    container: Container,
    routes: Sequence[IPv4Network],
    best: Reachability,
    condition: Condition,
    names_: Sequence[str],
) -> ReportedContainer:
    places = tuple(_place(attachment, routes, best, condition) for attachment in container.attachments)
    addresses = [place.address for place in places if place.address and place.reachability.reached]
    page = proxy.url(container, names_) if addresses else None
    by_address = reachability.urls(addresses[0], container.ports) if addresses else ()
    return ReportedContainer(
        name=container.name,
        image=container.image,
        places=places,
        ports=container.ports,
        urls=by_address,
        project=container.project,
        service=container.service,
        state=container.state,
        health=container.health,
        published=container.published,
        names=tuple(names_),
        page=page,
    )


def _place(attachment: Attachment, routes: Sequence[IPv4Network], best: Reachability, condition: Condition) -> Place:
    found = reachability.of_attachment(attachment, routes)
    seen = reachability.as_seen(best if found.reached else found, attachment.address, condition.answers)
    return Place(attachment.network, str(attachment.address) if attachment.address else None, seen)
