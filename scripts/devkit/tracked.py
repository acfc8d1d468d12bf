"""The texts in git that name the routes, as an update with other routes would write them. Pure."""

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network
from pathlib import Path

from devkit.layout import Layout

Routes = Sequence[IPv4Network]


def route_lines(project: Layout, routes: Routes) -> Mapping[Path, Sequence[str]]:
    """The lines in which each text names the routes."""
    return {
        project.answers: ["routes:", *(f"- {route}" for route in routes)],
        project.compose: [f"      ROUTES: {' '.join(map(str, routes))}"],
        project.client_conf: [f"route {route.network_address} {route.netmask}" for route in routes],
    }


def with_lines(text: bytes, old: Sequence[str], new: Sequence[str]) -> bytes:
    """The text with these lines in the place of those; all else in it, its line ends among that, stays.

    Raises ValueError unless the old lines stand in it once, and together.
    """
    lines = text.splitlines(keepends=True)
    found = [line.rstrip(b"\r\n").decode(errors="replace") for line in lines]
    places = [place for place in range(len(found)) if found[place : place + len(old)] == list(old)]
    if len(places) != 1:
        raise ValueError(f"these lines are not there once, and together: {old}")
    start, end = places[0], places[0] + len(old)
    line_end = lines[start].removeprefix(found[start].encode()) or b"\n"
    lines[start:end] = [line.encode() + line_end for line in new]
    return b"".join(lines)
