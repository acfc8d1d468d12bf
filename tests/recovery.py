"""What breaks while a computer pings and fetches, and how long it takes until all of that is right again.

The computer is connected by a stock client, and asks all the while: by ping, by address, by name, and by HTTPS.
`make faults` breaks everything there is on every engine, and writes the table of docs/faults.md.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from tests.conftest import REPOSITORY, copy_project, snapshot
from tests.docker_desktop import WEB_IMAGE, Engine, Mac, lab
from tests.docker_desktop.cache import ENGINES
from tests.vpn import Client, connected, eventually, script, up

TRIES = 3
PATIENCE = 60.0  # how long it is watched, to say how long it took
UNAIDED = 20.0  # the same where it is known to go on
STEADY = 2.0  # what flows for so long, flows
STALE = 1.5  # so old, the last answer says nothing about now
WAYS = ("ping", "address", "name", "https")
NETWORK, SUBNET = "shop", "172.29.0.0/24"
PAGE, *OF_WEB = (f"172.29.0.{number}" for number in (10, 20, 21))
NAME, DNS = "web.d4m.internal", "10.213.94.1"
OURS = "d4m-devkit-"
VOLUMES = "/var/lib/docker/volumes/"
OURS_AMONG_VOLUMES = f"{VOLUMES}d4m-devkit_"
STORED = "what a user has stored"
DOCUMENT = REPOSITORY / "docs/faults.md"
DOCUMENTATION = """\
# What mends itself

`make faults` breaks what is in this table while a computer pings a container and fetches its page by address, by name
and by HTTPS, four times a second each; and it wrote this page. The seconds are those from when the fault was over until
all four were right again, and stayed so; beside them are the attempts that failed, of all from its beginning. What a
user has stored, in `local/` and in a volume of Docker's, was compared before and after. One run, on two processors.

{table}

What does not come back by itself, and what [doctor.py](doctor.md) says of it:

{sentences}
Not in the table, and not by itself either: in a cluster a server's pod that has lost its device has to be deleted; and
where `dns_domain` is empty nobody puts the server's own filter back (`docker compose restart vpn` does).
"""


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
    project: Path
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
    doctor: str = ""  # it goes on until somebody acts, and the doctor says this


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
    flush_alone(site)


def flush_alone(site: Site) -> None:
    site.in_engine("iptables-save > /run/whole; for table in filter raw nat; do iptables -t $table -F; done")


def flush_for_good(site: Site) -> None:
    site.mac.run("docker", "stop", f"{OURS}firewall-1")
    flush_alone(site)


def bring_firewall_back(site: Site) -> None:
    restore_whole(site)
    site.mac.run("docker", "start", f"{OURS}firewall-1")


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
    disks = " ".join(f"{OURS_AMONG_VOLUMES}{name}/_data" for name in ("names", "status", "redirections"))
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


def wait_out(begin: str, end: str, seconds: int = 20) -> Callable[[Site], None]:
    """Something that goes on for a while: two commands on the user's computer."""

    def inject(site: Site) -> None:
        site.mac.run("sh", "-c", f"{begin}; sleep {seconds}; {end}")

    return inject


def docker(command: str) -> Callable[[Site], object]:
    """What a user may do to a service by hand."""
    return lambda site: site.mac.run("docker", *command.split())


def engine(command: str) -> Callable[[Site], object]:
    """What may happen on the engine's machine."""
    return lambda site: site.in_engine(command)


FAULTS = (
    Fault("computer asleep", "client stopped for 40 s", lambda site: site.client.sleep(40)),
    Fault("computer off the network", "ip link set lo down for 20 s",
          wait_out("ip link set lo down", "ip link set lo up")),
    Fault("connection cut", "ss --kill", lambda site: site.mac.run("ss", "--kill", "dst", "127.0.0.1:1194"),
          brief=True),
    Fault("clock a month back", "libfaketime, client; then right again", turn_clock_back),
    Fault("clock a month on", "libfaketime, client", lambda site: site.clock.write_text("+31d"),
          lambda site: site.clock.write_text("+0"), brief=True),
    Fault("filter flushed", "iptables -F in filter, raw, nat", flush, restore_whole),
    Fault("older filter restored", "iptables-restore of before up.py", restore_older, restore_whole),
    Fault("engine's chains cut off", "iptables -D FORWARD -j DOCKER-USER",
          cut_off, engine("iptables -I FORWARD -j DOCKER-USER")),
    Fault("d4m0 lost", "ip link delete d4m0", lambda site: site.in_server("ip link delete d4m0")),
    Fault("server's filter flushed", "iptables -F in filter, nat inside",
          lambda site: site.in_server("iptables -F; iptables -t nat -F"), brief=True),
    Fault("vpn killed", "kill -9", crash("vpn")),
    Fault("firewall killed", "kill -9, then iptables -F D4M",
          crash("firewall", lambda site: site.in_engine("iptables -F D4M")), brief=True),
    Fault("names killed", "kill -9, then web moves", crash("names", Site.move)),
    Fault("dns killed", "kill -9", crash("dns"), brief=True),
    Fault("proxy killed", "kill -9", crash("proxy"), brief=True),
    Fault("redirect killed", "kill -9, then iptables -F D4M-PROXY inside",
          crash("redirect", lambda site: site.in_server("iptables -t nat -F D4M-PROXY")), brief=True),
    Fault("vpn restarted", "docker restart", docker(f"restart {OURS}vpn-1")),
    Fault("all services restarted", "docker compose restart",
          lambda site: site.mac.run("docker", "compose", "restart", cwd=site.project)),
    Fault("vpn frozen for 20 s", "docker pause, unpause",
          wait_out(f"docker pause {OURS}vpn-1", f"docker unpause {OURS}vpn-1")),
    Fault("disks full and freed", "volumes in memory filled, web moves", fill_disks),
    Fault("network made anew", "docker network rm, create", make_network_anew),
    Fault("address taken", "web moves, another gets its address",
          lambda site: site.start("other", site.move()), lambda site: site.remove("other")),
    Fault("engine restarted", "dockerd stopped and started", lambda site: site.engine.restart()),
    Fault("VM asleep", "all its processes stopped for 40 s", engine("kill -STOP -1; sleep 40; kill -CONT -1")),
    Fault("VM restarted", "VM killed and booted", reboot),
    Fault("vpn stopped by hand", "docker stop", docker(f"stop {OURS}vpn-1"), docker(f"start {OURS}vpn-1"),
          doctor="vpn is stopped: mend it with"),
    Fault("firewall stopped by hand, filter flushed", "docker stop; iptables -F",
          flush_for_good, bring_firewall_back,
          doctor="firewall is stopped: mend it with"),
    Fault("forwarding switched off", "sysctl net.ipv4.ip_forward=0", engine("sysctl -w net.ipv4.ip_forward=0"),
          engine("sysctl -w net.ipv4.ip_forward=1"), doctor="the engine's machine forwards no IPv4"),
)  # fmt: skip


# --------------------------------------------------------------------------------------------------- the measuring


@dataclass(frozen=True)
class Outcome:
    """What came of a fault: seconds until all flowed again, if it did; the attempts meanwhile, and those that failed.

    `stored` says that all that the user has stored is as it was; `said` is the doctor's sentence where it did not flow.
    """

    fault: Fault
    seconds: float | None
    attempts: Sequence[Fetch]
    stored: bool
    said: str = ""

    @property
    def lost(self) -> list[Fetch]:
        """The attempts that failed."""
        return [one for one in self.attempts if one.wrong]


@contextmanager
def watched(mac: Mac, engine: Engine, project: Path) -> Iterator[Site]:
    """Bring a project up, connect the computer, and let it ask for a page all the while."""
    engine.run("sh", "-c", f"iptables-save > {mac.home}/older")
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
        site = Site(mac, engine, project, client, clock, log)
        mac.run("docker", "volume", "create", "stored")
        site.in_engine(f"echo '{STORED}' > {VOLUMES}stored/_data/file")
        make_network(site)
        asking = Path(__file__).parent / "tunnel/fetching.py"
        root = project / "local/https/root.crt"
        fetching = mac.start(sys.executable, asking, PAGE, DNS, NAME, root, output=output)
        try:
            yield site
        finally:
            fetching.kill()
            fetching.wait()


def stored(site: Site) -> object:
    """All that a user has stored: keys and certificates, and what is in a volume."""
    in_volume = site.engine.run("cat", f"{VOLUMES}stored/_data/file").stdout
    return snapshot(site.project / "local"), snapshot(site.project / "server"), in_volume


def seconds_until_all_flow(site: Site, steady: float = STEADY, patience: float = PATIENCE) -> float | None:
    """How long from now until each way is right, and stays so; nothing if some never is."""
    over = time.monotonic()
    while (now := time.monotonic()) < over + patience:
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


def break_once(site: Site, fault: Fault) -> Outcome:
    """Break something; watch from then until all flows again, or for as long as it is of use."""
    assert seconds_until_all_flow(site, steady=1) is not None, "it did not flow before"
    before, begun = stored(site), time.monotonic()
    try:
        fault.inject(site)
        took = seconds_until_all_flow(site, patience=UNAIDED if fault.doctor else PATIENCE)
        said = script(site.mac, site.project, "doctor", "web").stdout.strip() if took is None else ""
        return Outcome(fault, took, site.fetched(begun), stored(site) == before, said.rpartition("\n")[2])
    finally:
        fault.undo(site)


def break_down(site: Site, fault: Fault) -> Outcome:
    """The same, again where no attempt fell into it: on a busy machine they are few, and may come before or after."""
    outcome = break_once(site, fault)
    for _ in range(TRIES if not fault.brief else 0):
        if outcome.lost:
            break
        outcome = break_once(site, fault)
    return outcome


# ----------------------------------------------------------------------------------------------------- make faults


def as_markdown(outcomes: Mapping[str, Sequence[Outcome]]) -> str:
    """The document, from what came of each fault on each engine."""
    rows = [
        [one.fault.name, one.fault.how]
        + [in_words(of_engine) for of_engine in same]
        + ["none" if all(of_engine.stored for of_engine in same) else "**some**"]
        for same in zip(*outcomes.values(), strict=True)
        for one in same[:1]
    ]
    table = ["fault", "how", *(f"Engine {engine}" for engine in outcomes), "data lost"]
    lines = [table, ["---"] * len(table), *rows]
    never = {one.fault.name: one.said for same in outcomes.values() for one in same if one.seconds is None}
    sentences = "".join(f"- *{name}*: {said}\n" for name, said in never.items())
    return DOCUMENTATION.format(table="\n".join(f"| {' | '.join(line)} |" for line in lines), sentences=sentences)


def in_words(outcome: Outcome) -> str:
    """How long it took, and what was lost."""
    took = "not by itself" if outcome.seconds is None else f"{outcome.seconds:.1f} s"
    return f"{took}, {len(outcome.lost)} of {len(outcome.attempts)}"


def main() -> None:
    """Break everything on every engine, and write the document."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--only", action="append", metavar="FAULT", choices=[fault.name for fault in FAULTS],
                        help="break this alone, and write nothing; may be repeated")  # fmt: skip
    chosen = parser.parse_args().only
    faults = [fault for fault in FAULTS if not chosen or fault.name in chosen]
    console, outcomes = Console(), dict[str, list[Outcome]]()
    for suite, version in ENGINES.items():
        with lab(suite=suite) as (mac, machine), watched(mac, machine, copy_project(mac.home / "devkit")) as site:
            outcomes[version] = []
            for fault in faults:
                outcomes[version].append(break_down(site, fault))
                console.print(
                    version, fault.name, in_words(outcomes[version][-1]), outcomes[version][-1].said, sep=": "
                )
    text = as_markdown(outcomes)
    if chosen:
        print(text)
    else:
        DOCUMENT.write_text(text)


if __name__ == "__main__":
    main()
