"""What an event, a report, a rotation, a revocation and a handshake cost, by how many containers and clients there are.

Figures differ from machine to machine and from run to run: how they grow is what counts. It writes docs/scale.md and
docs/scale.png.
"""

import argparse
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography.x509 import load_pem_x509_crl
from rich.console import Console

from tests.bench import growth, growth_plot
from tests.bench.growth import COUNT, CPU, SECONDS, Cost, Report
from tests.bench.speed import DNS, DOMAIN, SERVICES, by_socket, positive, this_machine
from tests.conftest import REPOSITORY, copy_project
from tests.crowd import DONE
from tests.docker_desktop import BASE_IMAGE, Mac, lab
from tests.vpn import connected, script, up

PAGE, PLOT = REPOSITORY / "docs/scale.md", REPOSITORY / "docs/scale.png"
SIZES = (10, 100, 300, 1000)
ROUNDS = 5
NOT_ALL_WELL = 3  # the exit code of `up.py` and `status.py` where something does not answer
EVENT = "event"  # the container that comes and goes
IDLE_SECONDS = 15  # the longest pause between two of the services' own looks
SETTLING = 1.0  # seconds until all services have followed an event
FOLLOWING = ("names", "dns", "proxy", "redirect")  # who has work when a container comes or goes
FIRST = "docker-for-mac"
# Both print when it was, by the clock that the engine has, too.
UNTIL = 'until dig +tries=1 +time=1 @"$1" "$2" | grep -q "status: $3"; do :; done; date +%s.%N'
LISTED = """until curl --silent --insecure --resolve "$1:443:$2" "https://$1/state.json" | grep -q "\\"$3\\""
do :; done; date +%s.%N"""


class Site:
    """A project that is up, and how many containers and clients there are."""

    def __init__(self, mac: Mac, project: Path) -> None:
        self.mac = mac
        self.project = project
        self.size = 0

    def grow(self, size: int) -> None:
        """Start containers that do nothing, ten on a network, and issue certificates, until there are so many."""
        for number in range(self.size // 10, size // 10):
            self.mac.run("docker", "network", "create", "--subnet", f"172.20.{number}.0/26", f"net{number}")
        start = f"docker run --detach --network=net$((% / 10)) --name=c% {BASE_IMAGE} sleep infinity"
        every = f"seq {self.size} {size - 1} | xargs --max-procs=4 -I% sh -c '{start}'"
        self.mac.run("sh", "-c", every, timeout=1200)
        self.run("client", "add", *(f"client-{number}" for number in range(self.size, size)))
        self.size = size

    def run(self, name: str, *arguments: str) -> str:
        """Run a script to its end, and give what it prints; raises CalledProcessError."""
        run = script(self.mac, self.project, name, *arguments)
        if run.returncode != NOT_ALL_WELL:
            run.check_returncode()
        return run.stdout

    def script(self, what: str, name: str, *arguments: str) -> Generator[Cost, None, str]:
        """Run a script, and see how long it takes, and how much it works."""
        cpu, begun = children_cpu_seconds(), time.perf_counter()
        said = self.run(name, *arguments)
        yield Cost(what, SECONDS, self.size, time.perf_counter() - begun)
        yield Cost(what, CPU, self.size, children_cpu_seconds() - cpu)
        return said

    def engine(self, path: str, *options: str) -> str:
        """What the engine's API says of a container."""
        url = f"http://engine/containers/{path}"
        return self.mac.run("curl", "--silent", "--fail", *by_socket(self.mac), *options, url).stdout

    def used(self) -> Mapping[str, float]:
        """The CPU seconds that each service has worked until now."""
        stats = {one: self.engine(f"d4m-devkit-{one}-1/stats?stream=false&one-shot=true") for one in SERVICES}
        return {one: json.loads(said)["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9 for one, said in stats.items()}


def children_cpu_seconds() -> float:
    """What the processes have worked that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(site: Site, rounds: int) -> Iterator[Cost]:
    """All costs at the size that there is."""
    for _ in range(rounds):
        yield from site.script("a rotation: generate.py --rotate=leaf", "generate", "--rotate=leaf")
    site.run("up")
    yield Cost("certificates on the CRL", COUNT, site.size, revoked(site.project))
    yield from [handshake(site) for _ in range(rounds)]
    for number in range(rounds):
        yield from site.script("a revocation: client.py revoke", "client", "revoke", f"client-{number}")
        yield from site.script("a new client: client.py add", "client", "add", f"client-{number}")
    with connected(site.mac, site.project / f"local/{FIRST}.ovpn"):
        for _ in range(rounds):
            said = yield from site.script("a report: status.py", "status", "--json")
            yield Cost("containers that it found to answer", COUNT, site.size, answering(said))
        yield from events(site, rounds)
        yield from [until_listed(site) for _ in range(rounds)]


def answering(report: str) -> int:
    """How many of the containers that are to be reached have answered the server."""
    found = [one for one in json.loads(report)["containers"] if one["name"].startswith("c")]
    return sum(any(place["answered"] for place in one["addresses"]) for one in found)


def revoked(project: Path) -> int:
    """How many certificates the server's CRL lists."""
    return len(load_pem_x509_crl((project / "local/configs/crl.pem").read_bytes()))


def handshake(site: Site) -> Cost:
    """How long a stock client takes until it is connected."""
    ours, its = os.pipe()
    with os.fdopen(ours) as says, os.fdopen(its, "w") as output:
        begun = time.perf_counter()
        client = site.mac.start("openvpn", "--config", f"{site.project}/local/clients/client-{site.size - 1}.ovpn",
                                output=output)  # fmt: skip
        output.close()
        connected_ = any(DONE in line for line in says)
        seconds = time.perf_counter() - begun
        client.terminate()
        rest = says.read()
        client.wait()
    assert connected_, rest
    return Cost("a handshake: until a client is connected", SECONDS, site.size, seconds)


def events(site: Site, rounds: int) -> Iterator[Cost]:
    """How long it takes until the DNS follows a container that comes and goes, and what the services work for that."""
    before, begun = site.used(), time.perf_counter()
    time.sleep(IDLE_SECONDS)
    after, seconds = site.used(), time.perf_counter() - begun
    idle = {service: (after[service] - before[service]) / seconds for service in SERVICES}
    yield Cost("a minute without an event: all services", CPU, site.size, sum(idle.values()) * 60)
    for _ in range(rounds):
        before, begun = site.used(), time.perf_counter()
        started = start(site)
        told = until(site, "NOERROR") - started
        time.sleep(SETTLING)
        ended = end(site)
        gone = until(site, "NXDOMAIN") - ended
        time.sleep(SETTLING)
        after, seconds = site.used(), time.perf_counter() - begun
        yield Cost("a container starts: until its name is answered", SECONDS, site.size, told)
        yield Cost("a container ends: until its name is gone", SECONDS, site.size, gone)
        for service in FOLLOWING:
            work = after[service] - before[service] - idle[service] * seconds
            yield Cost(f"a start or end: {service}", CPU, site.size, max(work / 2, 0.0))


def start(site: Site) -> float:
    """Start the container that comes and goes; return when it was."""
    site.mac.run("docker", "run", "--detach", "--network=net0", f"--name={EVENT}", BASE_IMAGE, "sleep", "infinity")
    return at(json.loads(site.engine(f"{EVENT}/json"))["State"]["StartedAt"])


def end(site: Site) -> float:
    """End it, and remove it; return when it ended."""
    site.mac.run("docker", "kill", EVENT)
    ended = at(json.loads(site.engine(f"{EVENT}/json"))["State"]["FinishedAt"])
    site.mac.run("docker", "rm", EVENT)
    return ended


def at(text: str) -> float:
    """When something was, as the engine says it."""
    return datetime.fromisoformat(text).timestamp()


def until(site: Site, status: str) -> float:
    """When the DNS answered with this status."""
    return float(site.mac.run("sh", "-c", UNTIL, "-", DNS, f"{EVENT}.{DOMAIN}", status).stdout)


def until_listed(site: Site) -> Cost:
    """How long it takes until the page lists a container that starts."""
    started = start(site)
    listed = float(site.mac.run("sh", "-c", LISTED, "-", DOMAIN, DNS, EVENT).stdout)
    end(site)
    until(site, "NXDOMAIN")
    return Cost("a container starts: until the page lists it", SECONDS, site.size, listed - started)


# ----------------------------------------------------------------------------------------------------- the run


def run(sizes: Sequence[int], rounds: int) -> Report:
    """Measure in a lab that grows."""
    costs: list[Cost] = []
    with lab() as (mac, _):
        site = Site(mac, copy_project(mac.home / "devkit"))
        up(mac, site.project)
        for size in sizes:
            said(f"growing to {size}")
            site.grow(size)
            for cost in measure(site, rounds):
                said(f"{cost.size} {cost.what}: {cost.value:.3f} {cost.unit}")
                costs.append(cost)
    command = f"tests/bench/scale.py --sizes {' '.join(map(str, sizes))} --rounds {rounds}"
    return Report(f"{datetime.now(UTC):%Y-%m-%d}", command, this_machine(), costs)


def said(text: str) -> None:
    """Say how far it has come."""
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


def main() -> None:
    """Measure, print the table, and write the page and its plot."""
    parser = argparse.ArgumentParser(description="What many containers and clients cost.")
    parser.add_argument("--sizes", type=positive, nargs="+", default=SIZES, help="tens, in order (10 100 300 1000)")
    parser.add_argument("--rounds", type=positive, default=ROUNDS, help="how often each is done (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all single measurements to a file, too")
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help="such a file, instead of measuring")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # tears down as Ctrl-C does
    source = options.source
    report = growth.from_json(source.read_text()) if source else run(options.sizes, options.rounds)
    if options.json:
        options.json.write_text(growth.to_json(report))
    Console(highlight=False, width=150).print(growth.table(report).for_terminal())
    PAGE.write_text(growth.page(report))
    growth_plot.draw(report, PLOT)


if __name__ == "__main__":
    main()
