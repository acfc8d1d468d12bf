"""How fast names are: one look-up beside a ping through the same tunnel, and 500 events beside the engine's own time.

The engine renames five containers a hundred times each; the second time ends when the last name is answered. Timings
differ from machine to machine and from run to run: the ratios are what counts.
"""

import re
import shutil
import statistics
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.conftest import copy_project
from tests.docker_desktop import WEB_IMAGE, Mac, lab
from tests.vpn import connected, up

DNS = "10.213.94.1"
QUESTIONS = 300
CONTAINERS, RENAMES = 5, 100
# Runs on the Mac: one question after the other, each answered before the next; prints milliseconds.
ASK = """
import socket, struct, sys, time
server, name, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
    wire.settimeout(5)
    for identity in range(number):
        start = time.perf_counter()
        wire.sendto(struct.pack("!6H", identity, 0x100, 1, 0, 0, 0) + labels + b"\\0\\0\\1\\0\\1", (server, 53))
        assert wire.recv(512)[:2] == struct.pack("!H", identity)
        print((time.perf_counter() - start) * 1000)
"""


def look_ups(mac: Mac, name: str) -> list[float]:
    """Milliseconds for each of many look-ups."""
    said = mac.run(sys.executable, "-c", ASK, DNS, name, str(QUESTIONS)).stdout
    return [float(line) for line in said.splitlines()]


def pings(mac: Mac) -> list[float]:
    """Milliseconds for each of many pings of the same address."""
    said = mac.run("ping", "-c", str(QUESTIONS), "-i", "0.002", DNS).stdout
    return [float(found) for found in re.findall(r"time=([0-9.]+) ms", said)]


def renames(mac: Mac) -> tuple[float, float]:
    """Seconds that the engine takes for all of them, and until the last name is answered."""
    socket = mac.environment["DOCKER_HOST"].removeprefix("unix://")
    urls = [
        f"http://engine/containers/n{number}-{time_ - 1}/rename?name=n{number}-{time_}"
        for time_ in range(1, RENAMES + 1)
        for number in range(CONTAINERS)
    ]
    start = time.perf_counter()
    mac.run("curl", "--silent", "--fail", "--unix-socket", socket, "--request", "POST", *urls)
    engine = time.perf_counter() - start
    last = f"n{CONTAINERS - 1}-{RENAMES}.d4m.internal"
    while not mac.run("dig", "+short", "+tries=1", "+time=1", f"@{DNS}", last, check=False).stdout.strip():
        pass
    return engine, time.perf_counter() - start


def main() -> None:
    """Print the medians side by side."""
    with lab() as (mac, _):
        project = copy_project(Path(mac.home) / "devkit")
        up(mac, project)
        for number in range(CONTAINERS):
            mac.run("docker", "run", "--detach", "--name", f"n{number}-0", WEB_IMAGE)
        with connected(mac, project / "local/docker-for-mac.ovpn"):
            engine, answered = renames(mac)
            asked, pinged = look_ups(mac, f"n0-{RENAMES}.d4m.internal"), pings(mac)
        shutil.rmtree(project)
    table = Table("what", "ours", "beside", "ratio", box=None)
    look_up, ping = statistics.median(asked), statistics.median(pinged)
    table.add_row("one look-up, beside a ping (ms)", f"{look_up:.2f}", f"{ping:.2f}", f"{look_up / ping:.2f}")
    events = CONTAINERS * RENAMES
    table.add_row(
        f"{events} events answered, beside the engine's own time (s)",
        f"{answered:.2f}",
        f"{engine:.2f}",
        f"{answered / engine:.2f}",
    )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
