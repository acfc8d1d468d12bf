"""Throughput and round trip of the project's VPN beside its peers, in one run.

Each way is measured with a stock OpenVPN client and iperf3 on the lab's Mac, against containers on networks of MTU 1500
and 9000. A wire of its own leads from the Mac to the VM: the lab's port forwarder, a Python stand-in for Docker
Desktop's, would hide the differences. Figures differ from machine to machine and from run to run: the ratios count.
"""

import argparse
import json
import re
import signal
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.conftest import copy_project
from tests.docker_desktop import Engine, Mac, lab
from tests.vpn import connected, up

IMAGE = "bench-peers"
WIRE, VM_ADDRESS, MAC_ADDRESS = "wire", "192.0.2.1", "192.0.2.2"
RELAY_NETWORK, RELAY_SUBNET, RELAY_GATEWAY = "bench-relay", "172.30.0.0/24", "172.30.0.1"
VPN_SUBNET, ROUTE = "10.213.94.0/24", "172.16.0.0/12"
MTUS = (1500, 9000)
# A server for each measurement: one that is still ending a slow way's stream resets the next connection.
PORTS = {"warm up": 5201, "up": 5202, "down": 5203}
SERVERS = " & ".join(f"iperf3 --server --port {port}" for port in PORTS.values())
TUNING = ("tun-mtu", "sndbuf", "rcvbuf", "tcp-nodelay")
ROUND_TRIP = "round trip, ms"
COLUMNS = (*(f"{direction} {mtu}" for mtu in MTUS for direction in ("up", "down")), ROUND_TRIP)
Figures = Mapping[str, float]  # what one way reached, by column: Mbit/s up and down, and milliseconds
BRIDGE_MTU = re.compile(r"""(com\.docker\.network\.driver\.mtu["']?: *["']?)\d+""")


@dataclass(frozen=True)
class Bench:
    """Where it is measured, and the project whose keys and settings all VPNs share."""

    mac: Mac
    engine: Engine
    project: Path

    @property
    def profile(self) -> Path:
        """The project's profile, as it was generated."""
        return self.project / "local/docker-for-mac.ovpn"


@contextmanager
def ours(bench: Bench) -> Iterator[None]:
    """The project as up.py brings it up, its profile unedited."""
    try:
        up(bench.mac, bench.project)
        with connected(bench.mac, bench.profile):
            yield
    finally:
        bench.mac.run(sys.executable, "scripts/down.py", cwd=bench.project)


@contextmanager
def host_network_and_relay(bench: Bench) -> Iterator[None]:
    """A published port, socat (128 KiB, nodelay), the tuned server in the host network, d4m0."""
    listen = "TCP4-LISTEN:1194,bind=0.0.0.0,fork,reuseaddr,nodelay"
    with (
        server(bench, bench.project / "server", RELAY_GATEWAY, 11194),
        relay(bench, "-b131072", listen, f"TCP4:{RELAY_GATEWAY}:11194,nodelay"),
        connected(bench.mac, bench.profile),
    ):
        yield


@contextmanager
def recipe_of_2018(bench: Bench) -> Iterator[None]:
    """The same with the defaults of socat, and of OpenVPN on both sides."""
    folder = bench.mac.home / "untuned"
    folder.mkdir(exist_ok=True)
    (folder / "server.conf").write_text(untuned((bench.project / "server/server.conf").read_text()))
    (folder / "client.ovpn").write_text(untuned(bench.profile.read_text()))
    with (
        server(bench, folder, RELAY_GATEWAY, 11194),
        relay(bench, "TCP-LISTEN:1194,fork", f"TCP:{RELAY_GATEWAY}:11194"),
        connected(bench.mac, folder / "client.ovpn"),
    ):
        yield


@contextmanager
def no_relay(bench: Bench) -> Iterator[None]:
    """The tuned server in the host network, on the wire's own address, d4m0."""
    with server(bench, bench.project / "server", VM_ADDRESS, 1194), connected(bench.mac, bench.profile):
        yield


@contextmanager
def raw(bench: Bench) -> Iterator[None]:
    """No VPN: a route, and the engine's packet filter open for it."""
    with opened(bench.engine, WIRE):
        bench.mac.run("ip", "route", "add", ROUTE, "via", VM_ADDRESS)
        try:
            yield
        finally:
            bench.mac.run("ip", "route", "del", ROUTE)


OURS, RELAYED, RECIPE, LIMIT = "ours", "host network + relay", "the recipe of 2018", "no relay"
# What the ways say of themselves is printed.
WAYS: dict[str, Callable[[Bench], AbstractContextManager[None]]] = {
    OURS: ours, RELAYED: host_network_and_relay, RECIPE: recipe_of_2018, LIMIT: no_relay, "raw": raw,
}  # fmt: skip


def untuned(configuration: str) -> str:
    """The configuration with OpenVPN's defaults in the place of ours."""
    return "".join(line for line in configuration.splitlines(True) if not line.startswith(TUNING))


@contextmanager
def server(bench: Bench, configuration: Path, address: str, port: int) -> Iterator[None]:
    """An OpenVPN server in the engine's host network, and the packet filter open for its device."""
    mounts = {configuration: "/etc/vpn/server", (bench.project / "local/configs").resolve(): "/etc/vpn/configs"}
    options = ["--network=host", "--cap-add=NET_ADMIN", "--device=/dev/net/tun", "--tmpfs=/run"]
    options += [f"--volume={folder}:{target}:ro" for folder, target in mounts.items()]
    command = ["openvpn", "--cd", "/etc/vpn/configs", "--config", "/etc/vpn/server/server.conf"]
    command += ["--dev", "d4m0", "--local", address, "--port", str(port)]
    command += ["--status", "/run/status", "1", "--management", "/run/management", "unix"]
    masquerade = f"nat POSTROUTING -s {VPN_SUBNET} -j MASQUERADE"
    with container(bench.mac, *options, IMAGE, *command), opened(bench.engine, "d4m0", masquerade):
        yield


def relay(bench: Bench, *socat: str) -> AbstractContextManager[str]:
    """A container in which socat relays what comes to a port that is published on the wire."""
    options = [f"--network={RELAY_NETWORK}", f"--publish={VM_ADDRESS}:1194:1194"]
    return container(bench.mac, *options, IMAGE, "socat", *socat)


@contextmanager
def container(mac: Mac, *options: str) -> Iterator[str]:
    """A container, and its address on a network of its own if it has one."""
    name = mac.run("docker", "run", "--detach", *options).stdout.strip()
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    try:
        yield mac.run("docker", "inspect", "--format", template, name).stdout.strip()
    finally:
        mac.run("docker", "rm", "--force", name)


@contextmanager
def opened(engine: Engine, device: str, *more: str) -> Iterator[None]:
    """The engine's packet filter, open for a device."""
    user = [f"filter DOCKER-USER {direction} {device} -j ACCEPT" for direction in ("-i", "-o")]
    with ExitStack() as undo:
        for rule in (f"raw PREROUTING -i {device} -j ACCEPT", *user, *more):
            table, chain, *match = rule.split()
            engine.run("iptables", "-t", table, "-I", chain, *match)
            undo.callback(engine.run, "iptables", "-t", table, "-D", chain, *match)
        yield


def prepare(mac: Mac, engine: Engine, bridge_mtu: int | None) -> Bench:
    """Lay the wire, make the project, the image and the networks.

    Raises SystemExit with a sentence when the project has no MTU to be changed.
    """
    # Published everywhere: up.py takes the lab's engine for this computer's own, which has not the wire's address.
    answers = {"vpn_host": VM_ADDRESS, "vpn_listen": "0.0.0.0", "vpn_subnet": VPN_SUBNET, "routes": [ROUTE]}
    project = copy_project(mac.home / "devkit", **answers)
    if bridge_mtu:
        compose = project / "compose.yaml"
        compose.write_text(with_bridge_mtu(compose.read_text(), bridge_mtu))
    # A veth pair as it comes: MTU 1500, all offloads on.
    mac.run("ip", "link", "add", WIRE, "type", "veth", "peer", "name", WIRE, "netns", str(engine.process_id))
    for machine, address in ((mac, MAC_ADDRESS), (engine, VM_ADDRESS)):
        machine.run("ip", "address", "add", f"{address}/24", "dev", WIRE)
        machine.run("ip", "link", "set", WIRE, "up")
    mac.run("docker", "build", "--tag", IMAGE, Path(__file__).resolve().parent / "peers", timeout=600)
    mac.run("docker", "network", "create", "--subnet", RELAY_SUBNET, RELAY_NETWORK)
    for mtu in MTUS:
        mac.run("docker", "network", "create", "--opt", f"com.docker.network.driver.mtu={mtu}", f"mtu-{mtu}")
    return Bench(mac, engine, project)


def with_bridge_mtu(compose: str, mtu: int) -> str:
    """The project's compose.yaml with another MTU of its bridge.

    Raises SystemExit with a sentence when it sets none.
    """
    changed, found = BRIDGE_MTU.subn(rf"\g<1>{mtu}", compose)
    if not found:
        raise SystemExit("the project's compose.yaml sets no com.docker.network.driver.mtu: leave --bridge-mtu out.")
    return changed


def measure_all(bench: Bench, rounds: int, seconds: int) -> dict[str, list[Figures]]:
    """Measure every way once a round, so that all share what else the machine does meanwhile."""
    measured: dict[str, list[Figures]] = {name: [] for name in WAYS}
    for number in range(1, rounds + 1):
        for name, way in WAYS.items():
            print(f"round {number} of {rounds}: {name}", file=sys.stderr, flush=True)
            with ExitStack() as stack:
                stack.enter_context(way(bench))
                # New containers each time: they remember the path MTU of the way before for minutes.
                far_ends = {
                    mtu: stack.enter_context(container(bench.mac, f"--network=mtu-{mtu}", IMAGE, "sh", "-c", SERVERS))
                    for mtu in MTUS
                }
                measured[name].append(measure(bench.mac, far_ends, seconds))
    return measured


def measure(mac: Mac, far_ends: Mapping[int, str], seconds: int) -> Figures:
    """Warm up the way that is up now, and measure it."""
    for address in far_ends.values():
        throughput(mac, address, "warm up", 1)
    ping = mac.run("ping", "-n", "-i", "0.01", "-c", "200", far_ends[MTUS[0]]).stdout
    figures = {ROUND_TRIP: statistics.median(map(float, re.findall(r"time=([\d.]+)", ping)))}
    for mtu, address in far_ends.items():
        figures[f"up {mtu}"] = throughput(mac, address, "up", seconds)
        figures[f"down {mtu}"] = throughput(mac, address, "down", seconds, "--reverse")
    return figures


def throughput(mac: Mac, address: str, port: str, seconds: int, *options: str) -> float:
    """What arrives of one TCP stream, in Mbit/s; raises RuntimeError with what iperf3 said when it failed."""
    command = ["iperf3", "--client", address, "--port", str(PORTS[port]), "--time", str(seconds), "--json"]
    answer = json.loads(mac.run(*command, *options).stdout)
    if "error" in answer:  # with exit code 0
        raise RuntimeError(f"iperf3 with {address}: {answer['error']}")
    return float(answer["end"]["sum_received"]["bits_per_second"]) / 1e6


def medians(rounds: Sequence[Figures]) -> Figures:
    """The medians of one way."""
    return {column: statistics.median(one[column] for one in rounds) for column in COLUMNS}


def in_relation(one: Figures, other: Figures) -> Figures:
    """The ratios of the throughputs, and the difference of the round trips."""
    ratios = {column: one[column] / other[column] for column in COLUMNS}
    return ratios | {ROUND_TRIP: one[ROUND_TRIP] - other[ROUND_TRIP]}


def table_of(title: str, rows: Mapping[str, Figures], throughput_form: str, round_trip_form: str) -> Table:
    """One line for each way."""
    table = Table(title, *COLUMNS, box=None)
    for name, one in rows.items():
        forms = {column: round_trip_form if column == ROUND_TRIP else throughput_form for column in COLUMNS}
        table.add_row(name, *(format(one[column], form) for column, form in forms.items()))
    return table


def show(measured: Mapping[str, Sequence[Figures]]) -> None:
    """Print what is in the path, the medians, and the medians of ours in relation to its peers."""
    results = {name: medians(rounds) for name, rounds in measured.items()}
    # Round by round, because what else the machine does changes from one to the next.
    relations = {
        name: medians([in_relation(one, other) for one, other in zip(measured[OURS], measured[name], strict=True)])
        for name in (LIMIT, RELAYED, RECIPE)
    }
    console = Console(highlight=False, soft_wrap=True)
    console.print("iperf3 and a stock OpenVPN client, a veth pair of MTU 1500 into the VM, and behind it:")
    for name, way in WAYS.items():
        console.print(f"  {name}: {way.__doc__}")
    console.print("  then a container's network of MTU 1500 or 9000, and iperf3. One TCP stream; no port forwarder.\n")
    console.print(table_of("Mbit/s, medians", results, ".0f", ".2f"), "")
    console.print(table_of("ours, compared with", relations, ".2f", "+.2f"))


def positive(text: str) -> int:
    """A number of the command line; raises argparse.ArgumentTypeError."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def main() -> None:
    """Measure, print the tables, and store the single measurements if that is wanted."""
    parser = argparse.ArgumentParser(description="Throughput and round trip of the project's VPN beside its peers.")
    parser.add_argument("--rounds", type=positive, default=3, help="how often each way is measured (%(default)s)")
    parser.add_argument("--seconds", type=positive, default=4, help="how long each throughput is (%(default)s)")
    parser.add_argument("--bridge-mtu", type=positive, help="another MTU of the project's own bridge")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all single measurements to a file")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # tears down as Ctrl-C does
    with lab() as (mac, engine):
        measured = measure_all(prepare(mac, engine, options.bridge_mtu), options.rounds, options.seconds)
    show(measured)
    if options.json:
        options.json.write_text(json.dumps(measured, indent=2) + "\n")


if __name__ == "__main__":
    main()
