"""The connection report of a server on an engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from devkit import checks, reachability
from devkit.facts import Attachment, Container, Engine, EngineFacts
from devkit.host import OperatingSystem
from devkit.material.expiry import expiry_warnings
from devkit.reachability import REACHED, UNKNOWN_FILTER, Reachability
from devkit.report.access import Access, access_table, how_to_add, ports_cell, verdict, warning_lines


@dataclass(frozen=True)
class Place:
    """A container's address in one network, and whether it is reached there."""

    network: str
    address: str | None
    reachability: Reachability


@dataclass(frozen=True)
class ReportedContainer:
    """A running container, and where it is."""

    name: str
    image: str
    places: tuple[Place, ...]
    ports: tuple[str, ...]
    urls: tuple[str, ...]


@dataclass(frozen=True)
class EngineReport:
    """All facts of a report; `missed` are networks with containers that the routes do not reach."""

    access: Access
    engine: Engine
    containers: tuple[ReportedContainer, ...]
    missed: tuple[IPv4Network, ...]
    warnings: tuple[str, ...]


def make_report(access: Access, facts: EngineFacts) -> EngineReport:
    """Put the facts together."""
    routes = access.answers.routes
    packet_filter = checks.packet_filter(facts.engine.firewall_backend)
    best = REACHED if packet_filter.verdict == "passed" else UNKNOWN_FILTER
    return EngineReport(
        access=access,
        engine=facts.engine,
        containers=tuple(_reported(container, routes, best) for container in facts.containers),
        missed=reachability.missed(facts.containers, routes),
        warnings=(
            *expiry_warnings(access.expiries, access.now),
            *([packet_filter.sentence] if packet_filter.verdict == "failed" else []),
        ),
    )


def as_text(report: EngineReport, system: OperatingSystem, folder: Path) -> RenderableType:
    """The report for a person who works on this system, in this folder."""
    answers = report.access.answers
    where = [("Engine", f"{report.engine.version} on {report.engine.operating_system}")]
    if str(answers.vpn_listen) != answers.vpn_host.replace("localhost", "127.0.0.1"):
        where.insert(0, ("Published on", f"{answers.vpn_listen}:{answers.vpn_port}"))
    facts = access_table(report.access, where, system, folder)
    tail = [*how_to_add(answers.routes, report.missed), *warning_lines(report.warnings)]
    return Group(facts, "", _table(report.containers), *tail)


def _table(containers: Sequence[ReportedContainer]) -> RenderableType:
    if not containers:
        return Text("No container is running yet; whatever you start is reached at once, without reconnecting.")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("Container", "Network", "Address", "Ports", "Reached"):
        # What may be copied or clicked stays in one piece.
        table.add_column(heading, overflow="fold", no_wrap=heading != "Reached")
    for container in containers:
        first = (Text(container.name), ports_cell(container.urls, container.ports))
        for place in container.places:
            name, ports = first
            table.add_row(name, Text(place.network), place.address or "-", ports, verdict(place.reachability))
            first = (Text(""), Text(""))
    return table


def _reported(container: Container, routes: Sequence[IPv4Network], best: Reachability) -> ReportedContainer:
    places = tuple(_place(attachment, routes, best) for attachment in container.attachments)
    addresses = [place.address for place in places if place.address and place.reachability.reached]
    urls = reachability.urls(addresses[0], container.ports) if addresses else ()
    return ReportedContainer(container.name, container.image, places, container.ports, urls)


def _place(attachment: Attachment, routes: Sequence[IPv4Network], best: Reachability) -> Place:
    found = reachability.of_attachment(attachment, routes)
    address = str(attachment.address) if attachment.address else None
    return Place(attachment.network, address, best if found.reached else found)
