"""The head of a report, as a person reads it."""

import io
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from devkit.host import OperatingSystem
from devkit.material.rotation import with_clients, without_client
from devkit.reachability import Reachability
from devkit.report.access import Access, access_table, how_to_add, make_access, ports_cell, verdict, warning_lines
from rich.console import Console, Group, RenderableType
from rich.text import Text

from tests.unit.made import NOW, answers, generation

FOLDER = Path("/home/me/devkit")
PROFILE = FOLDER / "local/laptop.ovpn"


def printed(*what: RenderableType, width: int = 150) -> list[str]:
    console = Console(file=io.StringIO(), record=True, width=width)
    console.print(Group(*what), crop=False)
    return [line.rstrip() for line in console.export_text().splitlines()]


def access(**changes: object) -> Access:
    return make_access(answers(**changes), (PROFILE,), generation(), NOW + timedelta(days=1, seconds=1))


def rows(given: Access, folder: Path = FOLDER, system: OperatingSystem = "Linux") -> list[str]:
    networks = [("Networks", Text("172.17.0.0/16"))]
    return printed(access_table(given, [("Engine", "29.0.0 [on] Debian")], system, folder, networks))


def test_head_says_where_the_server_is_and_what_its_client_needs() -> None:
    assert rows(access(vpn_host="192.0.2.7", vpn_protocol="udp")) == [
        "Endpoint      192.0.2.7:1194 (udp)",
        "Engine        29.0.0 [on] Debian",
        "Profile       local/laptop.ovpn",
        "              by hand:         sudo openvpn --config local/laptop.ovpn",
        "              NetworkManager:  nmcli connection import type openvpn file local/laptop.ovpn",
        "                               nmcli connection modify laptop ipv4.never-default yes ipv4.ignore-auto-routes "
        "yes ipv4.ignore-auto-dns yes ipv6.method",
        "              disabled",
        "Routes        172.16.0.0/12  192.168.64.0/24",
        "Networks      172.17.0.0/16",
        "Certificates  CA: until 2028-11-25 (998 days)",
        "              server: until 2026-06-09 (98 days)",
        "              laptop: until 2026-06-09 (98 days)",
    ]


def test_profile_is_shown_whole_to_who_works_elsewhere() -> None:
    assert f"Profile       {PROFILE}" in rows(access(), Path("/tmp"))  # noqa: S108  # nothing is written there
    assert "              Tunnelblick:      open local/laptop.tblk" in rows(access(), system="macOS")


def test_first_client_that_is_revoked_has_no_profile() -> None:
    made = without_client(generation(), "laptop", NOW)
    given = make_access(answers(), (PROFILE,), made, NOW)
    assert given.profiles == ()
    assert [row for row in rows(given) if "Profile" in row] == [
        "Profile       laptop is revoked; `./scripts/client.py add laptop` issues it anew"
    ]
    assert access().profiles == (PROFILE,)


@pytest.mark.parametrize(("more", "left_out"), [(17, 0), (18, 1), (20, 3)])
def test_many_certificates_are_cut_short(more: int, left_out: int) -> None:
    made = with_clients(generation(), [f"client-{number}" for number in range(more)], answers(), NOW)
    found = rows(make_access(answers(), (PROFILE,), made, NOW))
    assert len([row for row in found if ": until" in row]) == 20
    said = f"              and {left_out} more: ./scripts/client.py list"
    assert (found[-1] == said) is (left_out > 0)


def test_name_with_brackets_is_shown_as_it_is() -> None:
    given = access()
    odd = replace(given, expiries=(replace(given.expiries[0], name="[bold]x"),))
    assert rows(odd)[-1] == "Certificates  [bold]x: until 2028-11-25 (998 days)"


def test_verdict_says_yes_only_of_what_is_reached() -> None:
    found = verdict(Reachability(answered=True))
    assert (found.plain, found.style) == ("yes", "green")
    found = verdict(Reachability())
    assert (found.plain, found.style) == ("not checked", "yellow")
    found = verdict(Reachability("outside the routes"))
    assert (found.plain, found.style) == ("no: outside the routes", "yellow")


@pytest.mark.parametrize(
    ("urls", "ports", "cell"),
    [
        (["http://a", "http://a:8080"], ["80/tcp", "8080/tcp", "5432/tcp", "53/udp"],
         "http://a\nhttp://a:8080\n5432/tcp 53/udp"),
        (["http://a"], ["80/tcp"], "http://a"),
        ([], ["80/tcp", "5432/tcp"], "80/tcp 5432/tcp"),  # where nothing is reached there are no URLs
        ([], [], ""),
    ],
)  # fmt: skip
def test_ports_that_no_browser_opens_stand_below_the_urls(urls: list[str], ports: list[str], cell: str) -> None:
    assert ports_cell(urls, ports).plain == cell


def lines(found: Iterable[RenderableType]) -> list[str]:
    return printed(*found, width=60)


def test_command_that_adds_the_missed_networks_is_whole() -> None:
    missed = [IPv4Network("10.0.0.0/8"), IPv4Network("192.168.7.0/24")]
    found = lines(how_to_add(missed, "up.py --kubernetes"))
    assert found[0] == ""
    assert "then run up.py --kubernetes and import the profile again:" in " ".join(found)
    assert found[-1] == "  ./scripts/routes.py add 10.0.0.0/8 192.168.7.0/24"
    assert "run up.py and" in " ".join(lines(how_to_add(missed)))
    assert list(how_to_add([])) == []


def test_each_warning_is_a_line() -> None:
    (first, second) = warning_lines(["one", "two"])
    assert isinstance(first, Text)
    assert (first.plain, first.style) == ("warning: one", "yellow")
    assert printed(second) == ["warning: two"]
