"""Many computers at one server, each with a stock client in a network namespace of its own.

A wire of their own leads to the engine's machine: the lab's port forwarder, a Python stand-in for Docker Desktop's,
would be what is measured.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import tests.vpn
from tests.conftest import REPOSITORY
from tests.docker_desktop import Engine, Mac
from tests.vpn import Client, connected, eventually, start_client

NETWORK = "192.0.2"
SERVER = f"{NETWORK}.1"
FIRST = 10  # the last number of the first computer's address
ANSWERS = {"vpn_host": SERVER, "vpn_listen": "0.0.0.0"}  # up.py takes the engine for this computer's own
DNS = "10.213.94.1"
DONE = "Initialization Sequence Completed"
SERVICES = ("vpn", "firewall", "names", "dns", "proxy", "redirect")
# A network card, as soon as somebody has put it in.
BOOT = "until ip link set en0 up 2> /dev/null; do sleep 0.05; done; ip address add $1 dev en0; exec sleep infinity"
# As a container's command: a page that says its host's name, and what takes for ever to download.
SERVE = 'hostname > /var/www/html/name && truncate -s 1T /var/www/html/big && exec nginx -g "daemon off;"'


class Fetch(NamedTuple):
    """One attempt: whose, when, and what was wrong with it, if anything."""

    process: str
    begun: float
    ended: float
    wrong: str


@dataclass(frozen=True)
class Computer:
    """One of many: commands run in its network."""

    mac: Mac
    process: int
    words: tuple[str, ...] = ()  # before each of its commands

    @property
    def inside(self) -> tuple[str, ...]:
        """The words that run a program in its network."""
        return ("nsenter", f"--net=/proc/{self.process}/ns/net", "--", *self.words)

    @property
    def openvpn(self) -> tuple[str, ...]:
        """A stock client on it."""
        return (*self.inside, "openvpn")

    @contextmanager
    def connected(self, profile: Path) -> Iterator[Client]:
        """A stock client on it."""
        with connected(self.mac, profile, self.openvpn) as client:
            yield client

    @contextmanager
    def running(self, *command: str) -> Iterator[None]:
        """A command on it, ended at the end."""
        with running(self.mac, *self.inside, *command):
            yield

    def received(self) -> int:
        """The bytes that have come to its network card."""
        statistics = Path(f"/proc/{self.process}/net/dev").read_text()
        return int(statistics.partition("en0:")[2].split()[0])


@contextmanager
def running(mac: Mac, *command: str | Path) -> Iterator[Path]:
    """A command, ended at the end, and the file that takes what it says."""
    with started(mac, *command) as (_, log):
        yield log


@contextmanager
def started(mac: Mac, *command: str | Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """The same, and its process."""
    log = mac.home / f"{time.monotonic_ns()}.log"
    with log.open("w") as output:
        process = mac.start(*command, output=output)
    try:
        yield process, log
    finally:
        process.kill()
        process.wait()


@contextmanager
def computers(mac: Mac, engine: Engine, count: int) -> Iterator[Sequence[Computer]]:
    """So many computers on one network with the engine's machine, which is SERVER there."""
    with ExitStack() as undo:
        mac.run("ip", "link", "add", "switch", "type", "bridge")
        undo.callback(mac.run, "ip", "link", "del", "switch")
        mac.run("ip", "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", str(engine.process_id))
        undo.callback(mac.run, "ip", "link", "del", "wire")
        mac.run("ip", "link", "set", "wire", "master", "switch", "up")
        mac.run("ip", "link", "set", "switch", "up")
        mac.run("ip", "address", "add", f"{NETWORK}.2/24", "dev", "switch")
        engine.run("ip", "address", "add", f"{SERVER}/24", "dev", "wire")
        engine.run("ip", "link", "set", "wire", "up")
        made = []
        for number in range(count):
            boot = ("unshare", "--net", "sh", "-c", BOOT, "-", f"{NETWORK}.{FIRST + number}/24")
            process, _ = undo.enter_context(started(mac, *boot))
            made.append(Computer(mac, process.pid))
        shared = {_network("self"), _network(mac.process_id)}
        eventually(lambda: not shared & {_network(computer.process) for computer in made})
        for number, computer in enumerate(made):
            plug, process_id = f"plug{number}", str(computer.process)
            mac.run("ip", "link", "add", plug, "type", "veth", "peer", "name", "en0", "netns", process_id)
            mac.run("ip", "link", "set", plug, "master", "switch", "up")
        yield made


def _network(process: int | str) -> int:
    return Path(f"/proc/{process}/ns/net").stat().st_ino


@contextmanager
def all_connected(computers_: Sequence[Computer], profiles: Sequence[Path]) -> Iterator[Sequence[Client]]:
    """A stock client on each, all of them begun at once."""
    with ExitStack() as stack:
        clients = [
            stack.enter_context(start_client(computer.mac, profile, computer.openvpn))
            for computer, profile in zip(computers_, profiles, strict=True)
        ]
        for client in clients:
            client.wait_for(DONE, seconds=60)
        yield clients


def lost_sessions(clients: Sequence[Client]) -> list[str]:
    """What those say whose first session is not the one that they have."""
    return [said for client in clients if (said := client.said()).count(DONE) != 1 or "SIG" in said]


def web(mac: Mac, name: str) -> str:
    """Start the container of a name that has /name and, without an end, /big; return its address."""
    host = name.partition(".")[0]
    return tests.vpn.web(mac, "--name", host, "--hostname", host, command=("sh", "-c", SERVE))


class Fetches:
    """What a crowd has fetched, and fetches on."""

    def __init__(self, log: Path, computers_: int) -> None:
        self._log = log
        self._computers = computers_

    def between(self, begin: float, end: float) -> list[Fetch]:
        """The attempts that began after one moment and before another, once all of them have ended."""
        # A computer begins one when the one before has ended.
        eventually(lambda: len({one.process for one in self._all() if one.begun >= end}) == self._computers)
        return [one for one in self._all() if begin <= one.begun < end]

    def _all(self) -> list[Fetch]:
        lines = self._log.read_text().rpartition("\n")[0].splitlines()
        return [Fetch(*json.loads(line)) for line in lines]


@contextmanager
def fetching(computers_: Sequence[Computer], name: str, seconds: float) -> Iterator[Fetches]:
    """Each fetches a page of a container every so many seconds, in turns by its name and by its address."""
    module = ("tests.tunnel.fetching_together", str(seconds), DNS, name)
    processes = [str(computer.process) for computer in computers_]
    with running(computers_[0].mac, *python(*module, *processes)) as log:
        yield Fetches(log, len(processes))


def python(*module: str) -> tuple[str, ...]:
    """The words that run a module of the tests on a Mac."""
    return ("env", f"PYTHONPATH={REPOSITORY}:{REPOSITORY}/scripts", sys.executable, "-m", *module)


class Usage(NamedTuple):
    """The most that a service has used since it was started, and its limit."""

    memory: int
    memory_limit: int
    processes: int
    processes_limit: int


def usage(mac: Mac, service: str) -> Usage:
    """What the service's control group says, of either version."""
    files = (
        ("memory.peak", "memory/memory.max_usage_in_bytes"), ("memory.max", "memory/memory.limit_in_bytes"),
        ("pids.peak", "pids/pids.peak"), ("pids.max", "pids/pids.max"),
    )  # fmt: skip
    script = "".join(f"cat {two} 2> /dev/null || cat {one}\n" for two, one in files)
    inside = ("docker", "exec", "--workdir=/sys/fs/cgroup", f"d4m-devkit-{service}-1", "sh", "-ec", script)
    return Usage(*(int(line) for line in mac.run(*inside).stdout.split()))
