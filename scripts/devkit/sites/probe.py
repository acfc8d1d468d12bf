"""What the server itself reaches, tried from its side of the tunnel."""

import re
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TypeVar

from devkit.errors import UserError, most_telling
from devkit.facts import Listener, Passage, Target
from devkit.vpn.lane import Inside

_T = TypeVar("_T")

MOST_SECONDS = 30
SMALL = 100
SIZES = (SMALL, 1000, 1280, 1400, 1500)  # of packets, in bytes; containers' networks have an MTU of 1500 by default
HEADERS = 28  # of IPv4 and ICMP
PATH_MTU = re.compile(r"mtu *= *([0-9]+)", re.IGNORECASE)
LISTENING = "0A"  # linux/include/net/tcp_states.h


@dataclass(frozen=True)
class Echoes:
    """Whether packets of each size came back whole, in bytes; and the path's MTU, where a router has named it."""

    found: Mapping[int, bool]
    path_mtu: int | None = None


def answers(inside: Inside, targets: Iterable[Target]) -> Mapping[IPv4Address, bool]:
    """Whether each target answers the server. Raises UserError when it cannot try."""
    ports = {target.address: target.ports for target in targets}
    if not ports:
        return {}
    said = _said(inside, "reach.pl", *(_words(Target(address, ports[address])) for address in ports))
    answered = {line.split()[0] for line in said.splitlines()}
    return {address: str(address) in answered for address in ports}


def passage(server: Inside, firewall: Inside | None, target: Target) -> Passage:
    """What is known of the way to a target. Raises UserError when the server cannot try."""
    found, dropped = _tried(firewall, lambda: _answers_at(server, target), bool)
    echoes, lost = _tried(firewall, lambda: _echoes(server, target.address), _are_whole) if found else (Echoes({}), ())
    return Passage(
        inside=_lines(server, "network.sh", "missing"),
        rules=_lines(firewall, "firewall.sh", "missing"),
        answers=found,
        dropped=dropped,
        echoes=echoes.found,
        path_mtu=echoes.path_mtu,
        lost=lost,
    )


def _tried(
    firewall: Inside | None, attempt: Callable[[], _T], is_well: Callable[[_T], bool]
) -> tuple[_T, tuple[str, ...]]:
    """What an attempt finds; where that is not well, once more, with the rules that have dropped packets meanwhile."""
    found = attempt()
    if is_well(found):
        return found, ()
    before = _drops(firewall)
    found = attempt()
    return found, () if is_well(found) else dropping(before, _drops(firewall))


def dropping(before: Mapping[str, int], after: Mapping[str, int]) -> tuple[str, ...]:
    """The rules that have dropped packets meanwhile, those with most first."""
    more = {rule: count - before.get(rule, 0) for rule, count in after.items() if count > before.get(rule, 0)}
    return tuple(sorted(more, key=lambda rule: -more[rule]))


def listeners(procfs: str) -> tuple[Listener, ...]:
    """Who listens, from what /proc/net/tcp and /proc/net/tcp6 print (proc_net_tcp, in the kernel's documentation)."""
    rows = [line.split() for line in procfs.splitlines()]
    found = {
        Listener(int(port, 16), address in ("0100007F", "00000000000000000000000001000000"))
        for address, _, port in (row[1].partition(":") for row in rows if len(row) > 3 and row[3] == LISTENING)
    }
    return tuple(sorted(found, key=lambda one: (one.port, one.loopback)))


def _words(target: Target) -> str:
    return f"{target.address}:{','.join(map(str, target.ports))}"


def _answers_at(server: Inside, target: Target) -> Mapping[int, str]:
    """How each of its ports answers that does."""
    words = (f"{target.address}:{port}" for port in target.ports)
    said = (_said(server, "reach.pl", word) for word in words)
    return {int(port): how for _, port, how in map(str.split, "".join(said).splitlines())}


def _echoes(server: Inside, address: IPv4Address) -> Echoes:
    """Whether echoes of each size come back; and the MTU of the path, where a router names it."""
    ping = f"ping -c 1 -W 1 -M do -s $((size - {HEADERS})) {address} 2>&1"
    sizes = " ".join(map(str, SIZES))
    run = _run([*server, "sh", "-c", f"for size in {sizes}; do echo :$size; {ping} && echo :whole; done"])
    found: dict[int, bool] = {}
    for size, _, said in (part.partition("\n") for part in re.split(r"^:(?=\d)", run.stdout, flags=re.MULTILINE)[1:]):
        named = PATH_MTU.search(said)
        if named:
            return Echoes(found, int(named[1]))
        found[int(size)] = ":whole" in said
        if not found[int(size)]:
            break
    return Echoes(found)


def _are_whole(echoes: Echoes) -> bool:
    return False not in echoes.found.values()


def _drops(firewall: Inside | None) -> Mapping[str, int]:
    """How many packets each rule has dropped."""
    lines = _lines(firewall, "firewall.sh", "drops") or ()
    return {rule: int(count) for count, _, rule in (line.partition(" ") for line in lines)}


def _lines(inside: Inside | None, *words: str) -> tuple[str, ...] | None:
    """What a program there prints; None where it cannot run, as in an image that is older than this."""
    if inside is None:
        return None
    run = _run([*inside, *words])
    return tuple(run.stdout.splitlines()) if run.returncode == 0 else None


def _said(inside: Inside, *words: str) -> str:
    run = _run([*inside, "timeout", str(MOST_SECONDS), *words])
    if run.returncode != 0:
        raise UserError(f"the server could not try ({most_telling(run.stderr)})")
    return run.stdout


def _run(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
