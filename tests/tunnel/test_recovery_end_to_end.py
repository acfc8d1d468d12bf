"""Whatever breaks, traffic flows again within 15 seconds after it is over, and nobody helps.

A computer is connected by a stock client, and fetches all the while: by address, by name, and by HTTPS. `pytest -s`
shows a table of what was broken, how long it took until all three were right again, and how many attempts were lost.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.docker_desktop import WEB_IMAGE, Engine, Mac
from tests.vpn import Client, connected, eventually, patience, place, up

SOON = 15.0
TRIES = 3
PATIENCE = 60.0  # how long it is watched, to say how long it took
STEADY = 2.0  # what flows for so long, flows
STALE = 1.5  # so old, the last answer says nothing about now
WAYS = ("address", "name", "https")
NETWORK, SUBNET = "shop", "172.29.0.0/24"
PAGE, *OF_WEB = (f"172.29.0.{number}" for number in (10, 20, 21))
NAME, DNS = "web.d4m.internal", "10.213.94.1"
OURS = "d4m-devkit-"
VOLUMES = "/var/lib/docker/volumes/d4m-devkit_"


class Fetch(NamedTuple):
    """One attempt: how, when, and what was wrong with it, if anything."""

    way: str
    begun: float
    ended: float
    wrong: str


@dataclass(frozen=True)
class Site:
    """A project that is up, its user's computer, and the log of what that fetches."""

    mac: Mac
    engine: Engine
    client: Client
    clock: Path  # how far the client's is off
    log: Path

    def fetched(self, since: float) -> list[Fetch]:
        """The attempts that ended after a moment."""
        lines = self.log.read_text().rpartition("\n")[0].splitlines()
        return [one for one in (Fetch(*json.loads(line)) for line in lines) if one.ended > since]

    def in_engine(self, command: str) -> None:
        """Run a shell's command as root on the engine's machine."""
        self.engine.run("sh", "-c", command)

    def in_server(self, command: str) -> None:
        """The same in the server's network namespace."""
        self.engine.run("nsenter", f"--net=/proc/{self._process('vpn')}/ns/net", "--", "sh", "-c", command)

    def kill(self, service: str) -> None:
        """As a crash ends it."""
        self.engine.run("kill", "-9", self._process(service))

    def _process(self, service: str) -> str:
        found = self.mac.run("docker", "inspect", "--format", "{{.State.Pid}}", f"{OURS}{service}-1").stdout.strip()
        assert found != "0", f"{service} does not run"
        return found

    def start(self, name: str, address: str) -> None:
        """Start a container whose page /name says who it is."""
        command = 'hostname > /var/www/html/name && exec nginx -g "daemon off;"'
        self.mac.run(
            "docker", "run", "--detach", "--name", name, "--hostname", name, "--restart", "always", "--network",
            NETWORK, "--ip", address, WEB_IMAGE, "sh", "-c", command,
        )  # fmt: skip

    def remove(self, *names: str) -> None:
        """End containers."""
        self.mac.run("docker", "rm", "--force", *names)

    def move(self) -> str:
        """Start the container web anew, at the other of its two addresses; return the one that it has left."""
        template = f"{{{{(index .NetworkSettings.Networks {json.dumps(NETWORK)}).IPAddress}}}}"
        before = self.mac.run("docker", "inspect", "--format", template, "web").stdout.strip()
        self.remove("web")
        self.start("web", next(address for address in OF_WEB if address != before))
        return before


# ----------------------------------------------------------------------------------------------------- the faults


def nothing(_: Site) -> None:
    """What undoes a fault of which nothing is left."""


@dataclass(frozen=True)
class Fault:
    """Something that breaks; `inject` ends when it is over. `undo` takes away what is not ours to mend."""

    name: str
    how: str
    inject: Callable[[Site], object]
    undo: Callable[[Site], object] = field(default=nothing)
    brief: bool = False  # it may be over between two attempts


def reboot(site: Site) -> None:
    site.engine.kill()
    site.engine.boot()


def wait_for_the_firewall_to_have_looked(site: Site) -> None:
    """It looks every few seconds: what happens now, it sees last of all."""
    look = ("docker", "exec", f"{OURS}firewall-1", "stat", "--format", "%y", "/run/intact")
    before = site.mac.run(*look).stdout
    eventually(lambda: site.mac.run(*look).stdout != before)


def flush(site: Site) -> None:
    wait_for_the_firewall_to_have_looked(site)
    site.in_engine("iptables-save > /run/whole; for table in filter raw nat; do iptables -t $table -F; done")


def restore_older(site: Site) -> None:
    wait_for_the_firewall_to_have_looked(site)
    site.in_engine(f"iptables-save > /run/whole; iptables-restore {site.mac.home}/older")


def cut_off(site: Site) -> None:
    wait_for_the_firewall_to_have_looked(site)
    site.in_engine("iptables -D FORWARD -j DOCKER-USER")


def restore_whole(site: Site) -> None:
    site.in_engine("iptables-restore /run/whole")


def crash(service: str, also: Callable[[Site], object] = nothing) -> Callable[[Site], None]:
    """Kill a service, and then do what it would have to act upon."""

    def inject(site: Site) -> None:
        site.kill(service)
        also(site)

    return inject


def fill_disks(site: Site) -> None:
    disks = f"{VOLUMES}names/_data {VOLUMES}status/_data {VOLUMES}redirections/_data"
    site.in_engine(f"for disk in {disks}; do cat /dev/zero > $disk/full || :; done")
    site.move()
    names = ("docker", "logs", f"{OURS}names-1")
    eventually(lambda: "No space left on device" in site.mac.run(*names).stderr)
    site.in_engine(f"for disk in {disks}; do rm $disk/full; done")


def turn_clock_back(site: Site) -> None:
    """The server's certificate is of the future then; until somebody puts it right."""
    refusals = site.client.said().count("not yet valid")
    site.clock.write_text("-31d")
    site.client.reconnect()
    site.client.wait_for("not yet valid", times=refusals + 2)
    site.clock.write_text("+0")


def make_network_anew(site: Site) -> None:
    site.remove("page", "web")
    site.mac.run("docker", "network", "rm", NETWORK)
    make_network(site)


def make_network(site: Site) -> None:
    site.mac.run("docker", "network", "create", "--subnet", SUBNET, NETWORK)
    site.start("page", PAGE)
    site.start("web", OF_WEB[0])


FAULTS = (
    Fault("host asleep", "client stopped for 40 s", lambda site: site.client.sleep(40)),
    Fault("clock a month back", "libfaketime, client; then right again", turn_clock_back),
    Fault("clock a month on", "libfaketime, client", lambda site: site.clock.write_text("+31d"),
          lambda site: site.clock.write_text("+0")),
    Fault("filter flushed", "iptables -F in filter, raw, nat", flush, restore_whole),
    Fault("older filter restored", "iptables-restore of before up.py", restore_older, restore_whole),
    Fault("engine's chains cut off", "iptables -D FORWARD -j DOCKER-USER",
          cut_off, lambda site: site.in_engine("iptables -I FORWARD -j DOCKER-USER")),
    Fault("d4m0 lost", "ip link delete d4m0", lambda site: site.in_server("ip link delete d4m0")),
    Fault("server's filter flushed", "iptables -F in filter, nat inside",
          lambda site: site.in_server("iptables -F; iptables -t nat -F"), brief=True),
    Fault("vpn killed", "kill -9", crash("vpn")),
    Fault("firewall killed", "kill -9, then iptables -F D4M",
          crash("firewall", lambda site: site.in_engine("iptables -F D4M")), brief=True),
    Fault("names killed", "kill -9, then web moves", crash("names", Site.move)),
    Fault("dns killed", "kill -9", crash("dns")),
    Fault("proxy killed", "kill -9", crash("proxy")),
    Fault("redirect killed", "kill -9, then iptables -F D4M-PROXY inside",
          crash("redirect", lambda site: site.in_server("iptables -t nat -F D4M-PROXY")), brief=True),
    Fault("disks full and freed", "volumes in memory filled, web moves", fill_disks),
    Fault("network made anew", "docker network rm, create", make_network_anew),
    Fault("address taken", "web moves, another gets its address",
          lambda site: site.start("other", site.move()), lambda site: site.remove("other")),
    Fault("engine restarted", "dockerd stopped and started", lambda site: site.engine.restart()),
    Fault("VM restarted", "VM killed and booted", reboot),
)  # fmt: skip


# ------------------------------------------------------------------------------------------------------ the tests


@pytest.fixture(scope="module")
def site(mac: Mac, engine: Engine, pristine: Path) -> Iterator[Site]:
    engine.run("sh", "-c", f"iptables-save > {mac.home}/older")
    project = place(pristine, mac)
    up(mac, project)
    (faketime,) = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
    clock, log = mac.home / "clock", mac.home / "fetched"
    clock.write_text("+0")
    environment = {
        "LD_PRELOAD": str(faketime), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip
    program = ["env", *(f"{name}={value}" for name, value in environment.items()), "openvpn"]
    with connected(mac, project / "local/docker-for-mac.ovpn", program) as client, log.open("w") as output:
        running = Site(mac, engine, client, clock, log)
        make_network(running)
        script = Path(__file__).with_name("fetching.py")
        root = project / "local/https/root.crt"
        fetching = mac.start(sys.executable, script, PAGE, DNS, NAME, root, output=output)
        try:
            yield running
        finally:
            end(fetching)


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def table() -> Iterator[list[tuple[str, str, str, str]]]:
    """What was broken, how, the seconds until all flowed again, and the attempts that were lost."""
    rows = [("fault", "how", "seconds", "lost")]
    yield rows
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print("\n", *("  ".join(map(str.ljust, row, widths)) for row in rows), sep="\n")


def seconds_until_all_flow(site: Site, steady: float = STEADY) -> float | None:
    """How long from now until each way is right, and stays so; nothing if some never is."""
    over = time.monotonic()
    while (now := time.monotonic()) < over + PATIENCE:
        fetched = site.fetched(over)
        back = [flows_since(one for one in fetched if one.way == way) for way in WAYS]
        if all(flows and now - flows[0] > steady and now - flows[1] < STALE for flows in back):
            return max(0.0, max(flows[0] for flows in back if flows) - over)
        time.sleep(0.2)
    return None


def flows_since(fetched: Iterator[Fetch]) -> tuple[float, float] | None:
    """When the attempts of one way began to succeed, and when the last one did; nothing while it failed."""
    first: float | None = None
    last = 0.0
    for one in fetched:
        first, last = (None if one.wrong else one.ended if first is None else first), one.ended
    return None if first is None else (first, last)


def inject(site: Site, fault: Fault) -> tuple[float | None, list[Fetch]]:
    """Break something; how long it took from then until all flowed again, if it did, and what was fetched meanwhile."""
    assert seconds_until_all_flow(site, steady=1) is not None, "it did not flow before"
    begun = time.monotonic()
    try:
        fault.inject(site)
        return seconds_until_all_flow(site), site.fetched(begun)
    finally:
        fault.undo(site)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_traffic_flows_again_unaided(site: Site, table: list[tuple[str, str, str, str]], fault: Fault) -> None:
    took, fetched = inject(site, fault)
    for _ in range(TRIES):  # on a busy machine the attempts are few, and all may come before or after
        if fault.brief or any(one.wrong for one in fetched):
            break
        took, fetched = inject(site, fault)
    lost = [one for one in fetched if one.wrong]
    table.append((fault.name, fault.how, "never" if took is None else f"{took:.1f}", f"{len(lost)} of {len(fetched)}"))
    assert lost or fault.brief, "it broke nothing"
    assert took is not None, lost[-5:]
    assert took < patience(SOON), lost[-5:]
