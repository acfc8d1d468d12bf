"""What every connection report begins with: what a client connects with, wherever the server is."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Network
from pathlib import Path

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from devkit import vpn
from devkit.answers import Answers
from devkit.checks import Check
from devkit.host import OperatingSystem
from devkit.keys.model import Generation
from devkit.material.expiry import Expiry, expiries
from devkit.reachability import HTTP_PORTS, Reachability

MOST_ROWS = 20


@dataclass(frozen=True)
class Access:
    """What a client connects with: a profile of each lane, none when the first client is revoked."""

    answers: Answers
    profiles: tuple[Path, ...]
    expiries: tuple[Expiry, ...]
    now: datetime

    @property
    def profile(self) -> str | None:
        """The path of the first client's profile, as users name it."""
        return f"local/{self.profiles[0].name}" if self.profiles else None


def make_access(answers: Answers, profiles: tuple[Path, ...], generation: Generation, now: datetime) -> Access:
    """Put the facts together; `profiles` are the first client's."""
    live = answers.client_name in {client.name for client in generation.live_clients}
    return Access(answers, profiles if live else (), expiries(generation), now)


def access_table(
    access: Access,
    where: Sequence[tuple[str, str]],
    system: OperatingSystem,
    folder: Path,
    networks: Iterable[tuple[str, Text]] = (),
) -> RenderableType:
    """The head of a report, for a person who works on this system, in this folder.

    `where` are rows that say where the server is, `networks` what is behind it.
    """
    answers = access.answers
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("Endpoint", f"{answers.vpn_host}:{answers.vpn_port} ({answers.vpn_protocol})")
    for name, what in where:
        facts.add_row(name, Text(what))
    for lane, path in zip(vpn.LANES, access.profiles, strict=bool(access.profiles)):
        profile = _short(path, folder)
        facts.add_row("Profile", Text(profile))
        for step in lane.opening_steps(profile, system):
            facts.add_row("", Text(step, style="dim"))
    if not access.profiles:
        again = f"./scripts/client.py add {answers.client_name}"
        facts.add_row("Profile", Text(f"{answers.client_name} is revoked; `{again}` issues it anew", style="yellow"))
    facts.add_row("Routes", "  ".join(str(route) for route in answers.routes))
    for name, line in networks:
        facts.add_row(name, line)
    for row, expiry in enumerate(access.expiries[:MOST_ROWS]):
        days = (expiry.at - access.now).days
        until = f"{expiry.name}: until {expiry.at:%Y-%m-%d} ({days} days)"
        facts.add_row("" if row else "Certificates", escape(until))
    if access.expiries[MOST_ROWS:]:
        facts.add_row("", f"and {len(access.expiries) - MOST_ROWS} more: ./scripts/client.py list")
    return facts


def health_rows(health: Iterable[Check]) -> Iterable[tuple[str, Text]]:
    """How the VPN is doing, for the head of a report."""
    styles = {"passed": "green", "failed": "red", "not checked": "yellow"}
    for one in health:
        said = f"not checked: {one.evidence}" if one.verdict == "not checked" else one.evidence
        yield one.name.capitalize(), Text(said, style=styles[one.verdict])


def problem_lines(health: Iterable[Check]) -> Iterable[RenderableType]:
    """What does not work, and what to do."""
    return (Text(f"problem: {one.sentence}", style="red") for one in health if one.verdict == "failed")


def verdict(reachability: Reachability) -> Text:
    """What a table shows in its last column."""
    if not reachability.reached:
        return Text(f"no: {reachability.obstacle}", style="yellow")
    return Text("yes", style="green") if reachability.answered else Text("not checked", style="yellow")


def ports_cell(urls: Sequence[str], ports: Collection[str]) -> Text:
    """What a table shows of ports: URLs, and below them what no browser opens."""
    others = [port for port in ports if not (urls and port in HTTP_PORTS)]
    return Text("\n".join(filter(None, [*urls, " ".join(others)])))


def both(address: str, ports: Text) -> Text:
    """An address and, below it, its ports: for a table that has no room for them side by side."""
    return Text("\n").join([Text(address), *([ports] if ports else [])])


def summary(answered: int, all_: int, what: str, checked: bool) -> Text:
    """How many are reached, in one line."""
    if not checked:
        return Text(f"{all_} {what}, not checked", style="yellow")
    return Text(f"{answered} of {all_} {what} reached", style="green" if answered == all_ else "yellow")


def how_to_add(missed: Sequence[IPv4Network], up: str = "up.py") -> Iterable[RenderableType]:
    """The finished command that adds the networks that the routes miss; `up` is what to run after it."""
    if missed:
        yield ""
        yield Text(f"To reach what is outside the routes, run this; then run {up} and import the profile again:")
        # Whole, whatever the terminal's width: it is there to be copied.
        command = f"  ./scripts/routes.py add {' '.join(map(str, missed))}"
        yield Text(command, overflow="ignore")


def warning_lines(warnings: Iterable[str]) -> Iterable[RenderableType]:
    """Each warning as a line."""
    return (Text(f"warning: {warning}", style="yellow") for warning in warnings)


def _short(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)
