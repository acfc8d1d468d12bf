"""The connection report: what there is, what can be reached, and why the rest cannot.

Pure functions from facts to a document (for programs) and to rich's renderables (for people).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from ipaddress import IPv4Network
from pathlib import Path, PurePath

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from devkit.answers import CHANGE_ANSWER, NEW_AUTHORITY, UPDATE, Answers
from devkit.facts import Attachment, Container, Engine, Session
from devkit.generation import Generation, RotationKind
from devkit.host import OperatingSystem
from devkit.material import Renewal
from devkit.pki import Credential

WARN_BEFORE_END = timedelta(days=30)
MOST_ROWS = 20
OUTSIDE = "outside the routes"
UNKNOWN_FILTER = "the engine's packet filter is not known"
NETWORKMANAGER_SETTINGS = (
    "ipv4.never-default yes ipv4.ignore-auto-routes yes ipv4.ignore-auto-dns yes ipv6.method disabled"
)
HTTP_PORTS = {"80/tcp": "http", "443/tcp": "https", "3000/tcp": "http", "5000/tcp": "http", "8000/tcp": "http",
              "8080/tcp": "http", "8443/tcp": "https", "8888/tcp": "http", "9090/tcp": "http"}  # fmt: skip


@dataclass(frozen=True)
class End:
    """When a certificate stops being valid (UTC), and the command that renews it."""

    name: str
    at: datetime
    renewal: str


@dataclass(frozen=True)
class Place:
    """A container's address in one network; `fault` says why the VPN does not reach it."""

    network: str
    address: str | None
    fault: str | None


@dataclass(frozen=True)
class Reached:
    """A running container, and where it is reached."""

    name: str
    image: str
    places: tuple[Place, ...]
    ports: tuple[str, ...]
    urls: tuple[str, ...]


@dataclass(frozen=True)
class Access:
    """What a client connects with, wherever the server is; no profile when the first client is revoked."""

    answers: Answers
    profile: Path | None
    bundle: Path | None
    ends: tuple[End, ...]
    now: datetime


@dataclass(frozen=True)
class Report:
    """All facts of a report."""

    access: Access
    engine: Engine
    containers: tuple[Reached, ...]
    missed: tuple[IPv4Network, ...]
    warnings: tuple[str, ...]


def make_report(
    answers: Answers,
    engine: Engine,
    local: Path,
    generation: Generation,
    containers: Iterable[Container],
    now: datetime,
) -> Report:
    """Put the facts together; `containers` are the user's, without the devkit's own; `local` is the local folder."""
    access = make_access(answers, local, generation, now)
    containers = tuple(containers)
    return Report(
        access=access,
        engine=engine,
        containers=tuple(_reached(container, answers.routes, engine) for container in containers),
        missed=_missed(containers, answers.routes),
        warnings=(*end_warnings(access.ends, now), *_engine_warnings(engine)),
    )


def make_access(answers: Answers, local: Path, generation: Generation, now: datetime) -> Access:
    """Put together what a client connects with; `local` is the local folder."""
    live = answers.client_name in {client.name for client in generation.live_clients}
    return Access(
        answers=answers,
        profile=local / f"{answers.client_name}.ovpn" if live else None,
        bundle=local / f"{answers.client_name}.tblk" if live else None,
        ends=ends_of(generation),
        now=now,
    )


def ends_of(generation: Generation) -> tuple[End, ...]:
    """The end of each certificate in force: the authorities', the server's, the live clients'."""
    authority = generation.authority.credential.end
    leaves = [("server", generation.server.end)]
    leaves += [(client.name, client.credential.end) for client in generation.live_clients]
    previous = generation.previous_authority
    return (
        End("authority", authority, NEW_AUTHORITY),
        *([End("previous authority", previous.credential.end, UPDATE)] if previous else []),  # any rotation drops it
        # A leaf ends with its authority at the latest: only a new authority gives such a one more time.
        *(End(name, at, NEW_AUTHORITY if at >= authority else UPDATE) for name, at in leaves),
    )


def as_document(report: Report) -> Mapping[str, object]:
    """The report's facts for a program, as JSON has them; times are ISO 8601 in UTC."""
    return {
        **access_document(report.access),
        "endpoint": _endpoint(report.access.answers) | {"listen": str(report.access.answers.vpn_listen)},
        "engine": {
            "name": report.engine.name,
            "version": report.engine.version,
            "operating_system": report.engine.operating_system,
        },
        "containers": [
            {
                "name": container.name,
                "image": container.image,
                "addresses": [
                    {
                        "network": place.network,
                        "address": place.address,
                        "reachable": place.fault is None,
                        "reason": place.fault,
                    }
                    for place in container.places
                ],
                "ports": list(container.ports),
                "urls": list(container.urls),
            }
            for container in report.containers
        ],
        "warnings": list(report.warnings),
    }


def access_document(access: Access) -> Mapping[str, object]:
    """What a client connects with, as JSON has it."""
    answers = access.answers
    return {
        "project": answers.project_name,
        "endpoint": _endpoint(answers),
        "profile": str(access.profile) if access.profile else None,
        "tunnelblick_bundle": str(access.bundle) if access.bundle else None,
        "vpn_subnet": str(answers.vpn_subnet),
        "routes": [str(route) for route in answers.routes],
        "certificates": [{"name": end.name, "ends": end.at.isoformat()} for end in access.ends],
    }


def _endpoint(answers: Answers) -> dict[str, object]:
    return {"host": answers.vpn_host, "port": answers.vpn_port, "protocol": answers.vpn_protocol}


def as_text(report: Report, system: OperatingSystem, folder: Path) -> RenderableType:
    """The report for a person who works on this system, in this folder."""
    answers = report.access.answers
    where = [("Engine", f"{report.engine.version} on {report.engine.operating_system}")]
    if str(answers.vpn_listen) != answers.vpn_host.replace("localhost", "127.0.0.1"):
        where.insert(0, ("Published on", f"{answers.vpn_listen}:{answers.vpn_port}"))
    facts = access_table(report.access, where, system, folder)
    tail = [*how_to_add(report.access.answers.routes, report.missed), *warning_lines(report.warnings)]
    return Group(facts, "", _container_table(report.containers), *tail)


def access_table(
    access: Access,
    where: Sequence[tuple[str, str]],
    system: OperatingSystem,
    folder: Path,
    networks: Sequence[tuple[str, Text]] = (),
) -> RenderableType:
    """What every report begins with; `where` are rows that say where the server is, `networks` what is behind it."""
    answers = access.answers
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("Endpoint", f"{answers.vpn_host}:{answers.vpn_port} ({answers.vpn_protocol})")
    for name, what in where:
        facts.add_row(name, Text(what))
    if access.profile and access.bundle:
        profile, bundle = _short(access.profile, folder), _short(access.bundle, folder)
        facts.add_row("Profile", Text(profile))
        for step in opening_steps(profile, bundle, system):
            facts.add_row("", Text(step, style="dim"))
    else:
        again = f"python scripts/client.py add {answers.client_name}"
        facts.add_row("Profile", Text(f"{answers.client_name} is revoked; `{again}` issues it anew", style="yellow"))
    facts.add_row("Routes", "  ".join(str(route) for route in answers.routes))
    for name, line in networks:
        facts.add_row(name, line)
    for row, end in enumerate(access.ends[:MOST_ROWS]):
        days = (end.at - access.now).days
        facts.add_row("" if row else "Certificates", escape(f"{end.name}: until {end.at:%Y-%m-%d} ({days} days)"))
    if access.ends[MOST_ROWS:]:
        facts.add_row("", f"and {len(access.ends) - MOST_ROWS} more: python scripts/client.py list")
    return facts


def warning_lines(warnings: Iterable[str]) -> Iterable[RenderableType]:
    """Each warning as a line."""
    return (Text(f"warning: {warning}", style="yellow") for warning in warnings)


def opening_steps(profile: str, bundle: str, system: OperatingSystem) -> Sequence[str]:
    """How the profile is opened on a system."""
    match system:
        case "macOS":
            return (f"Tunnelblick:      open {bundle}", "OpenVPN Connect:  import the profile, then switch it on")
        case "Windows":
            return ("OpenVPN GUI or OpenVPN Connect: import the profile, then connect",)
        case "Linux":
            return (
                f"by hand:         sudo openvpn --config {profile}",
                f"NetworkManager:  nmcli connection import type openvpn file {profile}",
                # Or NetworkManager would send everything through the VPN. It does not read the profile's filters.
                f"                 nmcli connection modify {PurePath(profile).stem} {NETWORKMANAGER_SETTINGS}",
            )


def how_to_add(
    routes: Sequence[IPv4Network], missed: Sequence[IPv4Network], up: str = "up.py"
) -> Iterable[RenderableType]:
    """The finished command that adds the networks which the routes miss; `up` is what to run then."""
    if missed:
        all_routes = ", ".join(str(network) for network in (*routes, *missed))
        yield ""
        yield Text(f"To reach what is outside the routes, commit this project to git and run this; then run {up} and")
        yield Text("import the profile again:")
        # Whole, whatever the terminal's width: it is there to be copied.
        command = f"  {CHANGE_ANSWER} 'routes=[{all_routes}]'"
        yield Text(command, no_wrap=True, overflow="ignore")


def _missed(containers: Iterable[Container], routes: Sequence[IPv4Network]) -> tuple[IPv4Network, ...]:
    """The networks with containers that no route reaches, each once, in their order."""
    attachments = [attachment for container in containers for attachment in container.attachments]
    subnets = {
        attachment.subnet
        for attachment in attachments
        if attachment.subnet and _place(attachment, routes).fault == OUTSIDE
    }
    return tuple(sorted(subnets))


def _short(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _container_table(containers: Sequence[Reached]) -> RenderableType:
    if not containers:
        return Text("No container is running yet; whatever you start is reached at once, without reconnecting.")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("Container", "Network", "Address", "Ports", "Reached"):
        # What may be copied or clicked stays in one piece.
        table.add_column(heading, overflow="fold", no_wrap=heading != "Reached")
    for container in containers:
        ports = ports_cell(container.urls, container.ports)
        for row, place in enumerate(container.places):
            verdict = Text("yes", style="green") if place.fault is None else Text(f"no: {place.fault}", style="yellow")
            first = (Text(container.name), Text(ports)) if row == 0 else (Text(""), Text(""))
            table.add_row(first[0], Text(place.network), place.address or "-", first[1], verdict)
    return table


def _reached(container: Container, routes: Sequence[IPv4Network], engine: Engine) -> Reached:
    places = tuple(_place(attachment, routes) for attachment in container.attachments)
    if not _can_be_opened(engine):
        places = tuple(replace(place, fault=place.fault or UNKNOWN_FILTER) for place in places)
    addresses = [place.address for place in places if place.address and place.fault is None]
    shown = urls(addresses[0], container.ports) if addresses else ()
    return Reached(container.name, container.image, places, container.ports, shown)


def urls(address: str, ports: Collection[str]) -> tuple[str, ...]:
    """What a browser can open at an address; ports as in 80/tcp."""
    return tuple(
        f"{scheme}://{address}" + ("" if port in ("80/tcp", "443/tcp") else f":{port.split('/')[0]}")
        for port, scheme in HTTP_PORTS.items()
        if port in ports
    )


def ports_cell(urls: Sequence[str], ports: Collection[str]) -> str:
    """What a report's table shows of ports: URLs, and below them what no browser opens."""
    others = [port for port in ports if not (urls and port in HTTP_PORTS)]
    return "\n".join(filter(None, [*urls, " ".join(others)]))


def _place(attachment: Attachment, routes: Sequence[IPv4Network]) -> Place:
    address = attachment.address
    if attachment.driver == "host":
        fault = "it uses the engine's own addresses: reach it at any bridge's gateway, such as 172.17.0.1"
    elif address is None:
        fault = "it has no IPv4 address"
    elif attachment.driver != "bridge":
        fault = f"the engine's host cannot reach its own {attachment.driver} networks"
    elif not any(address in route for route in routes):
        fault = OUTSIDE
    else:
        fault = None
    return Place(attachment.network, str(address) if address else None, fault)


def end_warnings(ends: Iterable[End], now: datetime) -> Iterable[str]:
    """A sentence for each certificate that has ended or ends within 30 days."""
    for end in ends:
        if end.at <= now:
            yield f"the certificate of {end.name} ended on {end.at:%Y-%m-%d}: renew it with `{end.renewal}`."
        elif end.at - now < WARN_BEFORE_END:
            yield f"the certificate of {end.name} ends on {end.at:%Y-%m-%d}: renew it with `{end.renewal}`."


def _can_be_opened(engine: Engine) -> bool:
    """Whether gateway/firewall.sh knows the engine's packet filter; engines before 28 do not name theirs."""
    return engine.firewall_backend.split("+")[0] in ("", "iptables", "nftables")


def _engine_warnings(engine: Engine) -> Iterable[str]:
    if not _can_be_opened(engine):
        yield (
            f"this engine's packet filter, {engine.firewall_backend!r}, is none that the firewall knows, so it may let "
            "nothing through: start the engine with --firewall-backend=iptables or nftables."
        )


def rotation_text(
    renewals: Sequence[Renewal], answers: Answers, kind: RotationKind, revoke_now: bool
) -> RenderableType:
    """What a rotation did, and what is left for the user to do."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("Certificate", "Old serial", "Old end", "New serial", "New end"):
        table.add_column(heading, no_wrap=heading != "Certificate", overflow="fold")
    for renewal in renewals[:MOST_ROWS]:
        table.add_row(Text(renewal.name), *_serial_and_end(renewal.old), *_serial_and_end(renewal.new))
    if renewals[MOST_ROWS:]:
        table.add_row(f"and {len(renewals) - MOST_ROWS} more")
    name = answers.client_name
    ends = [renewal.old.end for renewal in renewals if renewal.name == name]
    until = f", and no longer than {min(ends):%Y-%m-%d}" if ends else ""
    authority = renewals[0]
    had_ended = kind == "all" and authority.old.end <= authority.new.certificate.not_valid_before_utc
    if revoke_now or had_ended:
        old_profiles = "Old profiles have ended: the server refuses them from its next start on."
    elif kind == "all":
        old_profiles = f"Old profiles know the old authority alone; they work until the next rotation{until}."
    else:
        old_profiles = f"Old profiles work until the next rotation{until}."
    return Group(
        table,
        Text(old_profiles),
        Text(f"Load the new certificates:     {answers.up}"),
        Text(f"Import the new profile again:  local/{name}.ovpn (Tunnelblick: open local/{name}.tblk)"),
        Text("Further clients' profiles:     local/clients/"),
    )


def _serial_and_end(credential: Credential) -> tuple[str, str]:
    return short_serial(credential), f"{credential.end:%Y-%m-%d}"


def short_serial(credential: Credential) -> str:
    """The last 12 hexadecimal digits of a serial number: enough to tell a project's certificates apart."""
    return f"{credential.serial_number:x}"[-12:]


def client_table(generation: Generation, sessions: Sequence[Session]) -> RenderableType:
    """All clients: name, serial number, issued, ends, and since when and from where they are connected."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("Client", "Serial", "Issued", "Ends", "Connected", "From", "Address"):
        table.add_column(heading, no_wrap=True)
    live = {client.name for client in generation.live_clients}
    for client in generation.clients:
        own = [session for session in sessions if session.client == client.name]
        since = [Text(f"{session.since:%Y-%m-%d %H:%M} UTC") for session in own]
        table.add_row(
            Text(client.name),
            short_serial(client.credential),
            f"{client.credential.certificate.not_valid_before_utc:%Y-%m-%d}",
            f"{client.credential.end:%Y-%m-%d}",
            Text("\n").join(since) if client.name in live else Text("revoked", style="yellow"),
            "\n".join(session.real_address for session in own),
            "\n".join(session.vpn_address for session in own),
        )
    return table
