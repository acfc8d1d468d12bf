"""Trouble at a server, for the time of a context, by others than the crowd whose server it is."""

import itertools
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from tests.conftest import copy_project
from tests.crowd import ANSWERS, Computer, Fetches, all_connected, computers, fetching, python, running, started, web
from tests.docker_desktop import Mac, lab
from tests.vpn import Client, eventually, script, up

IDLE, GARBAGE = 300, 30  # connections; a second
COMING_SECONDS = 0.5
COMING, TO_BE_REVOKED, SLOW, STOPPED = slice(0, 3), slice(3, 5), 5, 6  # their computers
OTHERS = 7
REVOKED_EACH_TIME = 2
# What runs on the computers of others would take no processor from the server and the crowd: it gets what is left.
# Kernels may weigh sessions before they weigh the processes in them (sched(7)).
LAST = ("sh", "-c", '{ echo 19 > /proc/self/autogroup; } 2> /dev/null; exec nice --adjustment=19 "$@"', "-")
PAGE = "web.d4m.internal"
NAMES = [f"other-{number}" for number in range(OTHERS)]  # of the clients on them, but for those that are revoked
A_LOT = 10_000_000  # bytes, more than all buffers between hold
DOWNLOAD = ("curl", "--silent", "--output", "/dev/null")


@dataclass(frozen=True)
class Site:
    """A project that is up, and the computers of the others."""

    mac: Mac
    project: Path
    big: str  # the URL of what takes for ever to download
    others: Sequence[Computer]
    to_be_revoked: Iterator[str]

    def profile(self, name: str) -> Path:
        """A client's profile, as it was generated."""
        return self.project / f"local/clients/{name}.ovpn"


class Crowd(NamedTuple):
    """Who is to notice nothing, and what they fetch."""

    clients: Sequence[Client]
    fetches: Fetches


@contextmanager
def crowded_site(members: int, revocations: int, rhythm: float, **answers: object) -> Iterator[tuple[Site, Crowd]]:
    """A project that is up, and so many clients who fetch a page every `rhythm` seconds.

    `revocations` is how often others can be revoked.
    """
    names = [f"member-{number}" for number in range(members)]
    to_be_revoked = [f"revoked-{number}" for number in range(REVOKED_EACH_TIME * revocations)]
    with lab() as (mac, engine):
        project = copy_project(mac.home / "devkit", **ANSWERS, **answers)
        script(mac, project, "client", "add", *names, *NAMES, *to_be_revoked).check_returncode()
        with computers(mac, engine, members + OTHERS) as all_computers:
            crowd = all_computers[:members]
            others = [replace(computer, words=LAST) for computer in all_computers[members:]]
            up(mac, project)
            site = Site(mac, project, f"http://{web(mac, PAGE)}/big", others, iter(to_be_revoked))
            with (
                all_connected(crowd, [site.profile(name) for name in names]) as clients,
                fetching(crowd, PAGE, rhythm) as fetches,
            ):
                yield site, Crowd(clients, fetches)


@contextmanager
def come_and_go(site: Site) -> Iterator[None]:
    """Twice a second another connects, and leaves."""

    def act(over: threading.Event) -> None:
        for computer, name in itertools.cycle(zip(site.others[COMING], NAMES[COMING], strict=True)):
            with computer.connected(site.profile(name)):
                pass
            if over.wait(COMING_SECONDS):
                return

    with meanwhile(act):
        yield


@contextmanager
def revoked(site: Site) -> Iterator[None]:
    """Two others are revoked."""
    names = list(itertools.islice(site.to_be_revoked, REVOKED_EACH_TIME))
    with all_connected(site.others[TO_BE_REVOKED], [site.profile(name) for name in names]) as clients:

        def act(_over: threading.Event) -> None:
            for name in names:
                revoke = ("env", f"--chdir={site.project}", sys.executable, "scripts/client.py", "revoke", name)
                with started(site.mac, *LAST, *revoke) as (revocation, log):
                    assert revocation.wait(timeout=60) == 0, log.read_text()

        with meanwhile(act):
            yield
        for client in clients:
            client.wait_for_end()


@contextmanager
def half_open(site: Site) -> Iterator[None]:
    """300 connections say nothing, or not all of a first packet."""
    with intruder(site, "idle", IDLE, "held"):
        yield


@contextmanager
def garbage(site: Site) -> Iterator[None]:
    """30 times a second garbage, a third of it after a first packet that is right."""
    with intruder(site, "garbage", GARBAGE, "sent"):
        yield


@contextmanager
def intruder(site: Site, what: str, number: int, begun: str) -> Iterator[None]:
    """Run it once it has begun."""
    words = python("tests.tunnel.intruder", what, str(number), str(site.profile(NAMES[0])))
    with running(site.mac, *LAST, *words) as log:
        eventually(lambda: begun in log.read_text())
        yield


@contextmanager
def slow_reader(site: Site) -> Iterator[None]:
    """Another reads a large file, at 20 KB a second."""
    reader = site.others[SLOW]
    with reader.connected(site.profile(NAMES[SLOW])), reader.running(*DOWNLOAD, "--limit-rate", "20k", site.big):
        yield


@contextmanager
def stopped_reader(site: Site) -> Iterator[None]:
    """Another's VPN app takes nothing more of a large file."""
    reader = site.others[STOPPED]
    with reader.connected(site.profile(NAMES[STOPPED])) as client, reader.running(*DOWNLOAD, site.big):
        eventually(lambda: reader.received() > A_LOT)
        with client.asleep():
            yield


@contextmanager
def meanwhile(act: Callable[[threading.Event], None]) -> Iterator[None]:
    """Do something beside, which ends when it is told to; raises what it raised."""
    over = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        acting = executor.submit(act, over)
        try:
            yield
        finally:
            over.set()
        acting.result()


TROUBLES: dict[str, Callable[[Site], AbstractContextManager[None]]] = {
    "come and go": come_and_go, "revoked": revoked, "half-open": half_open, "garbage": garbage,
    "slow reader": slow_reader, "stopped reader": stopped_reader,
}  # fmt: skip
