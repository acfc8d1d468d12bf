"""The server's own network, and the packet filter around it, on each packet filter that an engine may use."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from tests.conftest import copy_project
from tests.docker_desktop import BASE_IMAGE, Engine, Mac, lab, nftables_backend
from tests.docker_desktop.cache import ENGINES, NEWEST, EngineSuite
from tests.docker_desktop.machine import IptablesBackend
from tests.vpn import Client, connected, eventually, fetch, script, up, web

VPN, FIREWALL, REDIRECT = (f"d4m-devkit-{service}-1" for service in ("vpn", "firewall", "redirect"))
EVERY_LENGTH = [str(IPv4Network(f"11.255.255.255/{length}", strict=False)) for length in range(8, 33)]
ROUTES = ["172.16.0.0/12", "192.168.7.9/32", *EVERY_LENGTH]
INSIDE = "192.168.7.9"
BESIDE = "192.168.7.10"  # on the same network, but outside the routes
KINDS = {
    "user-defined": [],
    "internal": ["--internal"],
    "no-icc": ["--opt", "com.docker.network.bridge.enable_icc=false"],
    "nat-unprotected": ["--opt", "com.docker.network.bridge.gateway_mode_ipv4=nat-unprotected"],
}


@dataclass(frozen=True)
class Site:
    """An engine with one kind of packet filter, the project on it, and its user's computer, connected.

    On the default bridge there is a container called web.
    """

    mac: Mac
    engine: Engine
    project: Path
    client: Client
    backend: str
    web: str

    def settle(self) -> None:
        """Do what an engine of this kind does when containers come and go."""
        if self.backend == "nftables":
            nftables_backend.refresh(self.engine)

    def in_server(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as the machine's root in the server's network namespace, and nowhere else of it."""
        process = self.mac.run("docker", "inspect", "--format", "{{.State.Pid}}", VPN).stdout.strip()
        return self.engine.run("nsenter", f"--net=/proc/{process}/ns/net", "--", *command, check=False)


SITES: list[tuple[EngineSuite, str]] = [
    (NEWEST, "nft"),
    (NEWEST, "nftables"),
    (NEWEST, "legacy"),
    ("trixie", "nft"),
    ("trixie", "legacy"),
    ("bookworm", "nft"),
    ("bookworm", "legacy"),
]
PARAMETERS = [
    pytest.param(site, marks=[] if number < 2 else [pytest.mark.further], id=f"{ENGINES[site[0]]}-{site[1]}")
    for number, site in enumerate(SITES)
]


@pytest.fixture(scope="module", params=PARAMETERS)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    suite, backend = request.param
    iptables: IptablesBackend = "none" if backend == "nftables" else backend
    with lab(iptables=iptables, suite=suite) as (mac, engine):
        if backend == "nftables":
            nftables_backend.place(engine)
        project = copy_project(mac.home / "devkit", routes=ROUTES)
        up(mac, project)
        mac.run("docker", "network", "create", "--subnet", "192.168.7.0/24", "lan")
        for address in (INSIDE, BESIDE):
            web(mac, "--network", "lan", "--ip", address)
        on_default_bridge = web(mac, "--name", "web")
        # All that follows holds even for a client that adds routes by itself.
        profile = mac.home / "greedy.ovpn"
        routes = "route 192.168.7.0 255.255.255.0\nroute 10.0.2.0 255.255.255.0\n"
        profile.write_text(routes + (project / "local/docker-for-mac.ovpn").read_text())
        with connected(mac, profile) as client:
            running = Site(mac, engine, project, client, backend, on_default_bridge)
            running.settle()
            eventually(lambda: fetch(mac, INSIDE, seconds=2) == "200")
            yield running


@pytest.fixture
def uplink(site: Site) -> str:
    """An address of the engine's machine that no route covers."""
    return site.engine.run("ip", "-4", "-brief", "address", "show", "tap0").stdout.split()[2].split("/")[0]


def answers_ping(mac: Mac, address: str, *options: str) -> bool:
    return mac.run("ping", "-c", "2", "-i", "0.2", "-W", "1", *options, address, check=False).returncode == 0


# ----------------------------------------------------------------------------------------------- what is reached


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_network_is_reached_also_one_that_comes_later(site: Site, kind: str) -> None:
    site.mac.run("docker", "network", "create", *KINDS[kind], kind)
    address = web(site.mac, "--network", kind)
    site.settle()
    assert fetch(site.mac, address) == "200"
    assert answers_ping(site.mac, address)


def test_container_on_the_default_bridge_is_reached_and_the_bridges_gateway_with_what_runs_on_the_host(
    site: Site,
) -> None:
    web(site.mac, "--network", "host", "--name", "on-host")
    site.settle()
    assert fetch(site.mac, site.web) == "200"
    assert answers_ping(site.mac, "172.17.0.1")
    assert fetch(site.mac, "172.17.0.1") == "200"
    site.mac.run("docker", "rm", "--force", "on-host")


def test_route_to_one_address_reaches_that_one_alone(site: Site) -> None:
    assert fetch(site.mac, INSIDE) == "200"
    assert fetch(site.mac, BESIDE, seconds=2) == "timed out"


def test_rules_are_found_again_whatever_the_length_of_a_routes_prefix(site: Site) -> None:
    site.mac.run("docker", "restart", FIREWALL)
    started = site.mac.run("docker", "inspect", "--format", "{{.State.StartedAt}}", FIREWALL).stdout.strip()
    time.sleep(7)  # it looks every 5 seconds
    log = site.mac.run("docker", "logs", "--since", started, FIREWALL).stdout
    assert log.count("placing the rules") == 1
    assert site.mac.run("docker", "exec", FIREWALL, "firewall.sh", "check").returncode == 0


def test_udp_and_its_fragments_are_answered(site: Site) -> None:
    echo = "use IO::Socket; $s = IO::Socket::INET->new(LocalPort => 7, Proto => q(udp)); " \
           "while ($s->recv($d, 65535)) { $s->send($d) }"  # fmt: skip
    site.mac.run("docker", "run", "--detach", "--name", "echo", BASE_IMAGE, "perl", "-e", echo)
    site.settle()
    address = site.mac.run("docker", "exec", "echo", "hostname", "--ip-address").stdout.strip()
    # The first large one goes unfragmented, and what comes back is how large it may be.
    ask = "import socket, sys, time; s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(5); " \
          "[(s.sendto(bytes(int(sys.argv[2])), (sys.argv[1], 7)), time.sleep(0.2)) for _ in range(2)]; " \
          "print(len(s.recv(65535)))"  # fmt: skip
    for size in ("1", "1400", "5000", "20000"):
        assert site.mac.run(sys.executable, "-c", ask, address, size).stdout.strip() == size


def test_path_mtu_is_found_and_large_packets_do_not_vanish(site: Site) -> None:
    assert answers_ping(site.mac, site.web, "-s", "8000")
    assert answers_ping(site.mac, site.web, "-s", "1472", "-M", "do")
    refused = site.mac.run("ping", "-c", "2", "-W", "1", "-s", "8000", "-M", "do", site.web, check=False)
    assert refused.returncode == 1
    assert re.search(r"mtu ?= ?1500", refused.stdout + refused.stderr)
    site.mac.run("docker", "exec", "web", "dd", "if=/dev/zero", "of=/var/www/html/large", "bs=1M",
                 "count=20", check=True)  # fmt: skip
    size = ["curl", "--silent", "--max-time", "20", "--output", "/dev/null", "--write-out", "%{size_download}"]
    assert site.mac.run(*size, f"http://{site.web}/large").stdout == str(20 << 20)


# ------------------------------------------------------------------------------------------------- what is not


DROPPED = 124  # 1 would be "refused"


def outcomes(site: Site, container: str, targets: Sequence[str]) -> dict[str, int]:
    """How attempts to connect from a container end, all made at once: with 0, 1, or without any answer."""
    attempt = '(timeout 2 bash -c "echo > /dev/tcp/$target" 2> /dev/null; echo $target $?) &'
    command = ["docker", "exec", container, "bash", "-c", f"for target; do {attempt} done; wait", "-", *targets]
    lines = (line.split() for line in site.mac.run(*command).stdout.splitlines())
    return {target: int(code) for target, code in lines}


def test_engines_packet_filter_is_in_force_for_all_else(site: Site) -> None:
    """What opens it is the firewall, for none but the server: from elsewhere, the same fetch fails."""
    site.mac.run("docker", "run", "--detach", "--name", "elsewhere", "--network", "lan", BASE_IMAGE, "sleep",
                 "infinity")  # fmt: skip
    site.settle()
    assert outcomes(site, "elsewhere", [f"{site.web}/80"]) == {f"{site.web}/80": DROPPED}
    site.mac.run("docker", "rm", "--force", "elsewhere")


def test_neighbour_on_the_servers_bridge_reaches_nothing_by_it(site: Site, uplink: str) -> None:
    """As whoever was attached by mistake or is hijacked there: without the rights to make packets of its own."""
    site.mac.run("docker", "run", "--detach", "--name", "neighbour", "--network", "d4m-devkit_vpn", "--cap-drop", "ALL",
                 BASE_IMAGE, "sleep", "infinity")  # fmt: skip
    site.settle()
    server = site.in_server("ip", "-4", "-brief", "address", "show", "eth0").stdout.split()[2].split("/")[0]
    targets = [f"{site.web}/80", f"{INSIDE}/80", f"{uplink}/22", "10.213.94.2/9", f"{server}/1194", f"{server}/9"]
    assert outcomes(site, "neighbour", targets) == dict.fromkeys(targets, DROPPED)
    site.mac.run("docker", "rm", "--force", "neighbour")


def test_container_opens_no_connection_to_a_client_or_to_the_server_but_at_its_port(site: Site) -> None:
    server = site.in_server("ip", "-4", "-brief", "address", "show", "eth0").stdout.split()[2].split("/")[0]
    # Even if the machine knew the way to the clients.
    site.engine.run("ip", "route", "add", "10.213.94.0/24", "via", server, "dev", "d4m")
    targets = ["10.213.94.2/9", f"{server}/9"]
    assert outcomes(site, "web", targets) == dict.fromkeys(targets, DROPPED)
    site.engine.run("ip", "route", "del", "10.213.94.0/24")


def test_engines_machine_and_what_is_behind_it_are_reached_by_no_client(site: Site, uplink: str) -> None:
    assert not answers_ping(site.mac, uplink)
    assert not answers_ping(site.mac, "10.0.2.2")


@contextmanager
def only_what_may(site: Site, uplink: str) -> Iterator[None]:
    """Send packets all the while, 50 a second to each: none that no route covers is ever answered."""
    closed = {address: site.mac.home / f"sampled-{address}" for address in (BESIDE, uplink, "10.0.2.2")}
    with subprocess_group() as started:
        for address, log in closed.items():
            with log.open("w") as output:
                started.append(site.mac.start("ping", "-i", "0.02", address, output=output))
        yield
    for address, log in closed.items():
        assert "bytes from" not in log.read_text(), f"{address} answered"
        log.unlink()


@contextmanager
def subprocess_group() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    try:
        yield started
    finally:
        for process in started:
            process.terminate()
            process.wait()


def compose(site: Site, *command: str) -> None:
    site.mac.run("docker", "compose", *command, cwd=site.project)


def kill(site: Site, container: str) -> None:
    """As a crash ends it: the engine then starts it again."""
    process = site.mac.run("docker", "inspect", "--format", "{{.State.Pid}}", container).stdout.strip()
    assert process != "0", f"{container} is not running"  # to kill 0 would end the tests themselves
    site.engine.run("sh", "-c", f"kill -9 {process}")


EVENTS: dict[str, Callable[[Site], object]] = {
    "server killed": lambda site: kill(site, VPN),
    "firewall killed": lambda site: kill(site, FIREWALL),
    "server restarted": lambda site: site.mac.run("docker", "restart", VPN),
    "firewall restarted": lambda site: site.mac.run("docker", "restart", FIREWALL),
    "firewall terminated": lambda site: site.mac.run("docker", "kill", "--signal", "TERM", FIREWALL),
    "firewall started": lambda site: site.mac.run("docker", "start", FIREWALL),
    "server stopped": lambda site: site.mac.run("docker", "stop", VPN),
    "firewall restarted alone": lambda site: site.mac.run("docker", "restart", FIREWALL),
    "server started": lambda site: site.mac.run("docker", "start", VPN),
    "both restarted": lambda site: site.mac.run("docker", "restart", FIREWALL, VPN),
    "both made anew": lambda site: compose(site, "up", "--detach", "--force-recreate"),
    "all stopped": lambda site: compose(site, "stop"),
    "server started first": lambda site: site.mac.run("docker", "start", VPN),
    "firewall started second": lambda site: site.mac.run("docker", "start", FIREWALL),
}


def test_nothing_opens_at_any_start_stop_restart_or_kill_and_traffic_flows_again(site: Site, uplink: str) -> None:
    with only_what_may(site, uplink):
        for event, cause in EVENTS.items():
            print(event)  # which one it was, should the test fail
            cause(site)
            site.settle()
            if "stopped" not in event and event != "server started first" and "alone" not in event:
                eventually(lambda: fetch(site.mac, INSIDE, seconds=2) == "200", seconds=40)
            time.sleep(0.5)


def open_inside(site: Site) -> None:
    """Take the server's own packet filter away, as nobody in its container can, and who would put it back."""
    site.mac.run("docker", "stop", REDIRECT)
    policies = " && ".join(f"iptables-nft -P {chain} ACCEPT" for chain in ("INPUT", "FORWARD", "OUTPUT"))
    everything = ["sh", "-c", f"{policies} && iptables-nft -F"]
    assert site.in_server(*everything).returncode == 0


def close_inside(site: Site) -> None:
    """Bring both back."""
    site.mac.run("docker", "restart", VPN)
    site.mac.run("docker", "start", REDIRECT)
    eventually(lambda: fetch(site.mac, INSIDE, seconds=2) == "200")


def open_outside(site: Site) -> None:
    """Take the host's away."""
    site.mac.run("docker", "stop", FIREWALL)
    wipe = "nft delete table ip d4m" if site.backend == "nftables" else "iptables -F D4M; iptables -F D4M-INPUT"
    site.engine.run("sh", "-c", wipe)


def test_host_alone_holds_what_a_hijacked_server_sends_also_while_the_firewall_is_restarted(
    site: Site, uplink: str
) -> None:
    open_inside(site)
    with only_what_may(site, uplink):
        assert fetch(site.mac, INSIDE) == "200"
        for _ in range(2):
            site.mac.run("docker", "restart", FIREWALL)
            site.settle()
            kill(site, FIREWALL)
            time.sleep(2)
        assert fetch(site.mac, INSIDE) == "200"
    close_inside(site)


def test_server_alone_holds_where_the_hosts_rules_are_gone_and_they_come_back(site: Site, uplink: str) -> None:
    open_outside(site)
    with only_what_may(site, uplink):
        time.sleep(2)
    site.mac.run("docker", "start", FIREWALL)
    eventually(lambda: fetch(site.mac, INSIDE, seconds=2) == "200")


def test_samples_would_show_what_is_open(site: Site, uplink: str) -> None:
    """Without either packet filter of ours the engine's machine answers, and what is behind it."""
    open_outside(site)
    open_inside(site)
    with pytest.raises(AssertionError, match="answered"), only_what_may(site, uplink):
        time.sleep(2)
    site.mac.run("docker", "start", FIREWALL)
    close_inside(site)


def test_rules_stay_in_the_engines_own_packet_filter_where_nothing_leads_to_its_chain(site: Site) -> None:
    if site.backend == "nftables":
        return  # it has no such chain
    site.engine.run("iptables", "-D", "FORWARD", "-j", "DOCKER-USER")
    eventually(lambda: "-A FORWARD -j D4M" in site.engine.run("iptables", "-S", "FORWARD").stdout, seconds=15)
    assert fetch(site.mac, INSIDE) == "200"
    site.engine.run("iptables", "-I", "FORWARD", "-j", "DOCKER-USER")
    eventually(lambda: "-A FORWARD -j D4M" not in site.engine.run("iptables", "-S", "FORWARD").stdout, seconds=15)
    assert fetch(site.mac, INSIDE) == "200"


def test_flush_of_the_engines_own_chain_changes_nothing(site: Site) -> None:
    """As Engine 29 flushes it whenever a container starts or stops."""
    if site.backend != "nftables":
        return  # an engine of before flushes nothing
    placed = site.mac.run("docker", "logs", FIREWALL).stdout.count("placing the rules")
    site.engine.run("nft", "flush", "chain", "ip", "docker-bridges", "raw-PREROUTING")
    assert fetch(site.mac, INSIDE) == "200"
    assert fetch(site.mac, BESIDE, seconds=2) == "timed out"
    site.settle()
    assert fetch(site.mac, site.web) == "200"
    assert fetch(site.mac, BESIDE, seconds=2) == "timed out"
    time.sleep(6)  # it looks every 5 seconds
    assert site.mac.run("docker", "logs", FIREWALL).stdout.count("placing the rules") == placed


def network_of(engine: Engine) -> str:
    """The machine's devices, routes and rules, without their counters."""
    listed = engine.run("sh", "-c", "ip -brief link; ip route; iptables-save; nft list ruleset").stdout
    return re.sub(r"\[\d+:\d+\]|#.*|packets \d+ bytes \d+", "", listed)


def test_server_can_neither_see_nor_change_the_machines_network(site: Site) -> None:
    """With all that its container was granted, as somebody who has taken it over."""
    before = network_of(site.engine)
    inside = ["docker", "exec", VPN, "sh", "-c"]
    seen = site.mac.run(*inside, "ip -brief link; ip route; ls /sys/class/net").stdout
    assert "docker0" not in seen
    assert "tap0" not in seen
    for change in ("ip link set dev tap0 down", "ip link add stray type dummy", "ip route add 203.0.113.0/24 dev lo",
                   "iptables -I FORWARD -j ACCEPT", "echo 0 > /proc/sys/net/ipv4/ip_forward",
                   "nsenter --net=/proc/1/ns/net true && mount -t sysfs sysfs /mnt"):  # fmt: skip
        site.mac.run(*inside, change, check=False)
    assert network_of(site.engine) == before
    site.mac.run("docker", "restart", VPN)
    eventually(lambda: fetch(site.mac, INSIDE, seconds=2) == "200")


def test_the_process_that_faces_the_network_has_no_capability(site: Site) -> None:
    status = site.mac.run("docker", "exec", VPN, "sh", "-c", "cat /proc/$(pidof openvpn)/status").stdout
    found = dict(re.findall(r"^(Uid|CapPrm|CapEff|CapBnd):\s+(\w+)", status, re.MULTILINE))
    net_admin, net_raw = 1 << 12, 1 << 13
    assert found["Uid"] == "65534"
    assert int(found["CapPrm"], 16) == int(found["CapEff"], 16) == 0
    assert int(found["CapBnd"], 16) & (net_admin | net_raw) == 0


def test_down_fails_and_names_what_it_could_not_take_away(site: Site) -> None:
    if site.backend == "nftables":
        stuck, free = "nft add rule ip docker-bridges filter-FORWARD accept comment '\"d4m\"'", "true"
        site.engine.run("sh", "-c", stuck)  # even that is taken away
        assert script(site.mac, site.project, "down").returncode == 0
    else:
        stuck, free = "iptables -A FORWARD -j D4M-TO", "iptables -D FORWARD -j D4M-TO"
        site.engine.run("sh", "-c", stuck)
        run = script(site.mac, site.project, "down")
        assert run.returncode == 1
        assert "Everything is down" not in run.stderr
        assert "these rules could not be removed from the engine's machine: " in run.stderr
        assert "-A FORWARD -j D4M-TO" in run.stderr
        assert not site.mac.run("docker", "ps", "--all", "--quiet", "--filter", "name=d4m-devkit").stdout
    site.engine.run("sh", "-c", free)
    up(site.mac, site.project)


def our_rules(engine: Engine) -> list[str]:
    """What of ours is in any packet filter of the engine's machine."""
    rules = engine.run("sh", "-c", "nft list ruleset; iptables-legacy-save", check=False).stdout
    return [line for line in rules.splitlines() if re.search(r'D4M|table ip d4m|comment "d4m"', line)]


def test_rules_outlast_the_firewall_alone_and_go_with_the_server(site: Site) -> None:
    """Also without our scripts."""
    site.mac.run("docker", "stop", FIREWALL)
    without_firewall = our_rules(site.engine)
    site.mac.run("docker", "start", FIREWALL)
    compose(site, "stop")
    without_both = our_rules(site.engine)
    compose(site, "start")
    assert without_firewall
    assert not without_both
    eventually(lambda: fetch(site.mac, INSIDE, seconds=2) == "200", seconds=40)


def test_down_takes_every_rule_away(site: Site) -> None:
    kill(site, FIREWALL)
    run = script(site.mac, site.project, "down")
    assert run.returncode == 0, run.stderr
    assert not our_rules(site.engine)
    assert "d4m" not in site.engine.run("ip", "-brief", "link").stdout
    up(site.mac, site.project)
