"""How fast the VPN is, beside its peers and in the same run; and what it costs.

Every path is measured in every round, so that all share what else the machine does meanwhile. Figures differ from
machine to machine and from run to run: the ratios count. It writes docs/speed.md and docs/speed.png.
"""

import argparse
import json
import os
import re
import signal
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

from rich.console import Console

from tests.bench import page, plot
from tests.bench.measurements import (
    BESIDE,
    CPU,
    DOWN,
    OURS,
    RATE,
    ROUND_TRIP,
    UP,
    Conditions,
    Machine,
    Measurement,
    Report,
    from_json,
    grids,
    to_json,
)
from tests.bench.paths import BIG, MTUS, PATHS, PORTS, WEB, Bench, FarEnds, prepare
from tests.conftest import REPOSITORY
from tests.docker_desktop import WEB_IMAGE, Mac, lab
from tests.vpn import eventually

PAGE, PLOT = REPOSITORY / "docs/speed.md", REPOSITORY / "docs/speed.png"
PROGRAMS = ("openvpn", "socat", "wireguard-go")  # what a packet goes through, outside of the kernel
STREAMS = (1, 8)
DNS, DOMAIN = "10.213.94.1", "d4m.internal"
PINGS = 100
FETCHES = 20  # new connections
CONTAINERS, RENAMES = 5, 100
SERVICES = ("vpn", "names", "dns", "proxy", "redirect", "firewall")
IMAGES = ("gateway", "names", "proxy")
RESTART = "a killed server: until a fetch is answered"


def conditions(
    path: str, number: int, mtu: int | None = None, streams: int | None = None, seconds: int | None = None
) -> Conditions:
    """The conditions of what is measured next."""
    return Conditions(path, number, round(os.getloadavg()[0], 1), mtu, streams, seconds)


# ------------------------------------------------------------------------------------------- what every path has


def measure(bench: Bench, path: str, number: int, far_ends: FarEnds, seconds: int) -> Iterator[Measurement]:
    """Warm up the path that is up now, and measure it."""
    ports = iter(PORTS)
    for address in far_ends.values():
        iperf3(bench.mac, address, next(ports), "--time", "1")
    time.sleep(1)  # the last of it has come out of the relay
    small = MTUS[0]
    yield round_trip(bench, "round trip", conditions(path, number, small), far_ends[small])
    with (bench.mac.home / "load.log").open("w") as output:
        now = conditions(path, number, small)
        load = ["iperf3", "--client", far_ends[small], "--port", str(next(ports)), "--time", str(PINGS // 100 + 2)]
        process = bench.mac.start(*load, output=output)
        time.sleep(1)  # it has got up to speed
        yield round_trip(bench, "round trip beside a stream up", now, far_ends[small])
        assert process.wait(timeout=60) == 0, Path(output.name).read_text()
    for streams, direction, (mtu, address) in product(STREAMS, (UP, DOWN), far_ends.items()):
        now = conditions(path, number, mtu, streams, seconds)
        yield from throughput(bench, direction, now, address, next(ports))


def round_trip(bench: Bench, what: str, now: Conditions, address: str) -> Measurement:
    """The median of many pings."""
    return Measurement(what, ROUND_TRIP, statistics.median(pings(bench.mac, address, "-i", "0.01")), now)


def pings(mac: Mac, address: str, *options: str) -> list[float]:
    """How long each of them took, in milliseconds."""
    said = mac.run("ping", "-n", "-c", str(PINGS), *options, address).stdout
    return [float(found) for found in re.findall(r"time=([\d.]+)", said)]


def throughput(bench: Bench, direction: str, now: Conditions, address: str, port: int) -> Iterator[Measurement]:
    """What arrives of TCP streams, and what the programs in between work for it."""
    options = ["--time", str(now.seconds), "--parallel", str(now.streams)]
    before = cpu_seconds(bench)
    transferred, rate = iperf3(bench.mac, address, port, *options, *(["--reverse"] if direction == DOWN else []))
    after = cpu_seconds(bench)
    yield Measurement(direction, RATE, rate / 1e6, now)
    for program, seconds in after.items():
        if worked := seconds - before.get(program, 0):
            yield Measurement(f"{program}, {direction}", CPU, worked / (transferred / 1e9), now)


def iperf3(mac: Mac, address: str, port: int, *options: str) -> tuple[float, float]:
    """How many bytes arrived, and how many bits a second; raises RuntimeError with what iperf3 said when it failed."""
    answer = json.loads(mac.run("iperf3", "--client", address, "--port", str(port), "--json", *options).stdout)
    if "error" in answer:  # with exit code 0
        raise RuntimeError(f"iperf3 with {address}: {answer['error']}")
    received = answer["end"]["sum_received"]
    return received["bytes"], received["bits_per_second"]


def cpu_seconds(bench: Bench) -> Mapping[str, float]:
    """What each of the programs has worked until now, by the machine that it runs on."""
    network = os.readlink(f"/proc/{bench.mac.process_id}/ns/net")
    on_mac = "".join(stat_of(process) for process in Path("/proc").glob("[0-9]*") if network_of(process) == network)
    # Those that end meanwhile are none of ours.
    in_vm = bench.engine.run("sh", "-c", "cat /proc/[0-9]*/stat 2> /dev/null", check=False).stdout
    found: dict[str, float] = {}
    for place, text in (("on the Mac", on_mac), ("in the VM", in_vm)):
        for name, rest in re.findall(r"^\d+ \((.*)\) (.*)$", text, re.MULTILINE):
            if name in PROGRAMS:
                user, system = rest.split()[11:13]
                program = f"{name} {place}"
                found[program] = found.get(program, 0) + (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return found


def network_of(process: Path) -> str:
    """The network namespace of a process, or nothing if it has ended."""
    try:
        return os.readlink(process / "ns/net")
    except OSError:
        return ""


def stat_of(process: Path) -> str:
    """What the kernel says of a process, or nothing if it has ended."""
    try:
        return (process / "stat").read_text()
    except OSError:
        return ""


# ----------------------------------------------------------------------------------------------- what ours has


def start(bench: Bench, what: str, number: int, begun: float) -> Measurement:
    """How long it took from up.py until a fetch is answered, by now."""
    now = conditions(OURS, number)
    eventually(lambda: answered(bench))
    return Measurement(what, "s", time.perf_counter() - begun, now)


def answered(bench: Bench) -> bool:
    """Whether the container's page is fetched at once."""
    fetch = ["curl", "--silent", "--fail", "--output", "/dev/null", "--max-time", "0.5", f"http://{bench.web}"]
    return bench.mac.run(*fetch, check=False).returncode == 0


def https(bench: Bench, number: int) -> Iterator[Measurement]:
    """A download and new connections through the proxy, and straight from the container's own port."""
    name = f"{WEB}.{DOMAIN}"
    trusted = ["--cacert", f"{bench.project}/local/https/root.crt", "--resolve", f"{name}:443:{bench.web}"]
    addresses = {OURS: (f"https://{name}", trusted), BESIDE: (f"http://{bench.web}", [])}
    eventually(lambda: bench.mac.run("curl", "--fail", *trusted, f"https://{name}", check=False).returncode == 0)
    for path, (url, options) in addresses.items():
        now = conditions(path, number, MTUS[0])
        speed = curl(bench.mac, f"{url}/{BIG}", "speed_download", *options) / 1e6 * 8
        yield Measurement("download by HTTPS; beside it, from the container's own port", RATE, speed, now)
        now = conditions(path, number, MTUS[0])
        took = [curl(bench.mac, url, "time_total", *options) * 1000 for _ in range(FETCHES)]
        yield Measurement("a new connection and its answer, the same two", ROUND_TRIP, statistics.median(took), now)


def curl(mac: Mac, url: str, what: str, *options: str) -> float:
    """What curl measures, such as `time_total` in seconds."""
    said = mac.run("curl", "--silent", "--show-error", "--fail", "--output", "/dev/null", *options,
                   "--write-out", f"%{{{what}}}", url)  # fmt: skip
    return float(said.stdout)


def names(bench: Bench, number: int, seconds: int) -> Iterator[Measurement]:
    """How many names are answered, and how long one takes beside a ping of the same address."""
    now = conditions(OURS, number, seconds=seconds)
    yield Measurement("names answered, 100 asked at a time", "per second", dnsperf(bench, 100, seconds)[0], now)
    one_by_one = "a name, one after another, on average; beside it, a ping of the same address"
    now = conditions(OURS, number)
    yield Measurement(one_by_one, ROUND_TRIP, dnsperf(bench, 1, seconds)[1] * 1000, now)
    now = conditions(BESIDE, number)
    yield Measurement(one_by_one, ROUND_TRIP, statistics.mean(pings(bench.mac, DNS, "-A")), now)


def dnsperf(bench: Bench, at_a_time: int, seconds: int) -> tuple[float, float]:
    """Answers per second, and seconds for one on average; raises RuntimeError where one is missing or says no."""
    questions = f"echo {WEB}.{DOMAIN} A > /run/questions"
    ask = f"{questions} && exec dnsperf -d /run/questions -s {DNS} -c 1 -q {at_a_time} -l {seconds}"
    said = bench.mac.run(*bench.in_peers, "sh", "-c", ask).stdout
    if not re.search(r"Queries lost: +0 .*NOERROR \d+ \(100\.00%\)", said, re.DOTALL):
        raise RuntimeError(f"not all names were answered: {said}")
    rate, latency = (re.findall(rf"{what}.*: +([\d.]+)", said) for what in ("Queries per second", "Average Latency"))
    return float(rate[0]), float(latency[0])


def renames(bench: Bench) -> Iterator[Measurement]:
    """How long the engine takes to rename containers many times, and how long until the last name is answered."""
    mac = bench.mac
    for number in range(CONTAINERS):
        mac.run("docker", "run", "--detach", "--name", f"n{number}-0", WEB_IMAGE)
    urls = [
        f"http://engine/containers/n{number}-{time_ - 1}/rename?name=n{number}-{time_}"
        for time_ in range(1, RENAMES + 1)
        for number in range(CONTAINERS)
    ]
    what = f"{CONTAINERS * RENAMES} new names, until the last is answered; beside it, until the engine has them"
    ours, beside = conditions(OURS, 1), conditions(BESIDE, 1)
    begun = time.perf_counter()
    mac.run("curl", "--silent", "--fail", *by_socket(mac), "--request", "POST", *urls)
    yield Measurement(what, "s", time.perf_counter() - begun, beside)
    last = f"n{CONTAINERS - 1}-{RENAMES}.{DOMAIN}"
    while not mac.run("dig", "+short", "+tries=1", "+time=1", f"@{DNS}", last, check=False).stdout.strip():
        pass
    yield Measurement(what, "s", time.perf_counter() - begun, ours)
    mac.run("docker", "rm", "--force", *(f"n{number}-{RENAMES}" for number in range(CONTAINERS)))


def return_of_a_killed_server(bench: Bench, number: int) -> Measurement:
    """How long it takes from the end of the server's process until a fetch is answered."""
    process = bench.mac.run("docker", "inspect", "--format", "{{.State.Pid}}", "d4m-devkit-vpn-1").stdout.strip()
    now = conditions(OURS, number)
    begun = time.perf_counter()
    bench.engine.run("kill", "-9", process)
    eventually(lambda: answered(bench))
    return Measurement(RESTART, "s", time.perf_counter() - begun, now)


def memory(bench: Bench, number: int) -> Iterator[Measurement]:
    """What each service holds, as `docker stats` counts it: without files that the kernel may forget."""
    now = conditions(OURS, number)
    for service in SERVICES:
        url = f"http://engine/containers/d4m-devkit-{service}-1/stats?stream=false&one-shot=true"
        stats = bench.mac.run("curl", "--silent", "--fail", *by_socket(bench.mac), url).stdout
        found = json.loads(stats)["memory_stats"]
        forgettable = found["stats"].get("total_inactive_file", found["stats"].get("inactive_file"))  # cgroups 1 and 2
        yield Measurement(f"memory of {service}", "MB", (found["usage"] - forgettable) / 1e6, now)


def images(bench: Bench) -> Iterator[Measurement]:
    """How large the images are."""
    now = conditions(OURS, 1)
    for image in IMAGES:
        said = bench.mac.run("docker", "image", "ls", "--format", "{{.Size}}", f"d4m-devkit-{image}").stdout.strip()
        size = re.fullmatch(r"([\d.]+)MB", said)
        assert size, said
        yield Measurement(f"image {image}, as Docker lists it", "MB", float(size[1]), now)


def by_socket(mac: Mac) -> list[str]:
    """How curl asks the engine."""
    return ["--unix-socket", mac.environment["DOCKER_HOST"].removeprefix("unix://")]


# ----------------------------------------------------------------------------------------------------- the run


def measure_all(bench: Bench, rounds: int, seconds: int) -> Iterator[Measurement]:
    """Measure every path once a round; and what ours has besides, each time that it is up."""
    begun = time.perf_counter()
    with PATHS[OURS](bench):
        yield start(bench, "up.py, connect, first fetch: cold", 1, begun)
        yield from renames(bench)
        yield from images(bench)
    for number in range(1, rounds + 1):
        for path, way in PATHS.items():
            print(f"{datetime.now(UTC):%H:%M:%S} round {number} of {rounds}: {path}", file=sys.stderr, flush=True)
            begun = time.perf_counter()
            with way(bench) as far_ends:
                if path == OURS:
                    yield start(bench, "up.py, connect, first fetch: warm", number, begun)
                yield from measure(bench, path, number, far_ends, seconds)
                if path == OURS:
                    yield from https(bench, number)
                    yield from names(bench, number, seconds)
                    yield from memory(bench, number)
                    yield return_of_a_killed_server(bench, number)


def this_machine() -> Machine:
    """What it is measured on."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return Machine(os.uname().release.partition("-")[0], model[1] if model else os.uname().machine, os.cpu_count() or 1)


def positive(text: str) -> int:
    """A number of the command line; raises argparse.ArgumentTypeError."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def run(rounds: int, seconds: int) -> Report:
    """Measure in a lab."""
    with lab() as (mac, engine):
        measured = list(measure_all(prepare(mac, engine), rounds, seconds))
    command = f"tests/bench/speed.py --rounds {rounds} --seconds {seconds}"
    paths = {name: way.__doc__ or "" for name, way in PATHS.items()}
    return Report(f"{datetime.now(UTC):%Y-%m-%d}", command, this_machine(), paths, measured)


def main() -> None:
    """Measure, print the tables, and write the page and its plot."""
    parser = argparse.ArgumentParser(description="How fast the project's VPN is, beside its peers.")
    parser.add_argument("--rounds", type=positive, default=3, help="how often each path is measured (%(default)s)")
    parser.add_argument("--seconds", type=positive, default=2, help="how long each throughput is (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all single measurements to a file, too")
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help="such a file, instead of measuring")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # tears down as Ctrl-C does
    report = from_json(options.source.read_text()) if options.source else run(options.rounds, options.seconds)
    if options.json:
        options.json.write_text(to_json(report))
    console = Console(highlight=False, width=150)
    for grid in grids(report):
        console.print(grid.for_terminal(), "")
    PAGE.write_text(page.of(report))
    plot.draw(report, PLOT)


if __name__ == "__main__":
    main()
