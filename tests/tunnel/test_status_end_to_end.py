"""What `status` says while something does not work: each time exit code 3, and what it is."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import copy_project
from tests.docker_desktop import Engine, Mac
from tests.vpn import Client, connected, eventually, fetch, script, up, web

VPN, FIREWALL = "d4m-devkit-vpn-1", "d4m-devkit-firewall-1"
Health = dict[str, tuple[str, str]]


@pytest.fixture(scope="module")
def project(mac: Mac) -> Path:
    project = copy_project(mac.home / "devkit", routes=["172.16.0.0/12", "192.168.7.0/24"])
    up(mac, project)
    mac.run("docker", "network", "create", "--subnet", "192.168.7.0/24", "lan")
    web(mac, "--name", "web")
    web(mac, "--name", "far", "--network", "lan", "--ip", "192.168.7.9")
    return project


@pytest.fixture
def client(mac: Mac, project: Path) -> Iterator[Client]:
    """Whoever is connected; and all is well before and after the test."""
    with connected(mac, project / "local/docker-for-mac.ovpn") as client:
        yield client
        eventually(lambda: script(mac, project, "status").returncode == 0, seconds=60)


def look(mac: Mac, project: Path) -> tuple[int, Health, dict[str, str]]:
    """The exit code of `status`; verdict and sentence of each check; and what is said of each container."""
    run = script(mac, project, "status", "--json")
    facts: dict[str, Any] = json.loads(run.stdout)
    health = {one["name"]: (one["verdict"], f"{one['evidence']}: {one['mend']}") for one in facts["health"]}
    said = {one["name"]: one["addresses"][0]["reason"] or "" for one in facts["containers"]}
    return run.returncode, health, said


@contextmanager
def undone(mac: Mac, *command: str) -> Iterator[None]:
    """Run a command at the end, however it comes."""
    try:
        yield
    finally:
        mac.run(*command)


def failed(health: Health) -> set[str]:
    return {name for name, (verdict, _) in health.items() if verdict == "failed"}


def starts(mac: Mac) -> dict[str, str]:
    """When the server, and what is in its network, was started last."""
    services = ("vpn", "dns", "proxy", "redirect")
    names = [f"d4m-devkit-{service}-1" for service in services]
    said = mac.run("docker", "inspect", "--format", "{{.State.StartedAt}}", *names).stdout.split()
    return dict(zip(services, said, strict=True))


def test_all_is_well_while_a_client_is_connected(mac: Mac, project: Path, client: Client) -> None:
    code, health, said = look(mac, project)
    assert code == 0, health
    assert {verdict for verdict, _ in health.values()} == {"passed"}
    assert health["connected"][1].startswith("docker-for-mac: ")
    assert "through tun0" in health["from here"][1]
    assert health["forwarding"][1].startswith("bridge and lan answered")
    assert said == {"web": "", "far": ""}
    text = script(mac, project, "status").stdout
    assert "2 of 2 containers reached" in text
    assert text.count(" yes\n") == 2


def test_nobody_is_connected(mac: Mac, project: Path) -> None:
    code, health, _ = look(mac, project)
    assert code == 3
    assert failed(health) == {"connected"}
    mend = "open local/docker-for-mac.ovpn in the VPN app, and connect"
    assert health["connected"][1] == f"no client is connected: {mend}"
    text = script(mac, project, "status").stdout
    for name, (verdict, sentence) in health.items():
        assert (f"problem: {sentence}." in text) == (name in failed(health)) == (verdict == "failed"), text
    assert script(mac, project, "up", "--json").returncode == 0  # which has done its part


SHOWN = """
import json, time, urllib.request
asked = urllib.request.Request("http://127.0.0.1:8081/state.json", headers={"Host": "d4m.internal"})
for _ in range(50):
    print(json.load(urllib.request.urlopen(asked))["clients"])
    time.sleep(0.25)
"""


def test_server_without_clients_is_well_and_known_to_serve_nobody_at_any_moment(mac: Mac, project: Path) -> None:
    """It looks at the clock every ten seconds only."""
    often = "for _ in $(seq 50); do vpn.sh check || exit 1; sleep 0.25; done"
    assert mac.run("docker", "exec", VPN, "sh", "-c", often, check=False).returncode == 0
    shown = mac.run("docker", "exec", "d4m-devkit-proxy-1", "python3", "-c", SHOWN).stdout.splitlines()
    assert shown == ["[]"] * 50


def test_route_of_this_computer_is_gone(mac: Mac, project: Path, client: Client) -> None:
    route = mac.run("ip", "route", "show", "192.168.7.0/24").stdout.split()
    mac.run("ip", "route", "del", *route)
    with undone(mac, "ip", "route", "add", *route):
        code, health, _ = look(mac, project)
        assert code == 3
        assert failed(health) == {"from here"}
        assert health["from here"][1] == (
            "what is for 192.168.7.9 leaves this computer by en0 (198.51.100.2/24) and not through the VPN, as 1 more "
            "do: see what is in the way with `./scripts/doctor.py 192.168.7.9`"
        )


@pytest.mark.parametrize("service", ["firewall", "names", "dns", "proxy", "redirect"])
def test_service_is_stopped(mac: Mac, project: Path, client: Client, service: str) -> None:
    mac.run("docker", "stop", f"d4m-devkit-{service}-1")
    with undone(mac, "docker", "start", f"d4m-devkit-{service}-1"):
        code, health, _ = look(mac, project)
        assert code == 3
        assert failed(health) == {"services"}
        assert health["services"][1] == f"{service} is stopped: mend it with `./scripts/up.py`"


def test_server_is_stopped_and_up_brings_it_back(mac: Mac, project: Path, client: Client) -> None:
    mac.run("docker", "stop", VPN)
    code, health, said = look(mac, project)
    assert code == 3
    assert failed(health) == {"services", "from here"} or failed(health) == {"services"}  # the client may not know yet
    assert "vpn is stopped" in health["services"][1]
    assert health["forwarding"] == ("not checked", "the server does not run: None")
    assert health["connected"][0] == "not checked"
    assert said == {"web": "", "far": ""}
    assert script(mac, project, "status").stdout.count("  not checked\n") == 2
    up(mac, project)


def test_up_waits_for_what_starts_anew_behind_the_server(
    mac: Mac, project: Path, engine: Engine, client: Client
) -> None:
    """The DNS stays in the network of the server that was stopped, and works there, until `names` starts it anew."""
    (names,) = engine.run("pgrep", "--full", "^/usr/bin/python3 .*names.py").stdout.split()
    engine.run("kill", "-STOP", names)
    try:
        mac.run("docker", "stop", VPN)
        with ThreadPoolExecutor() as pool:
            starting = pool.submit(up, mac, project)
            eventually(lambda: starts(mac)["vpn"] > starts(mac)["dns"])
            wait([starting], timeout=5)
            engine.run("kill", "-CONT", names)
            starting.result()
    finally:
        engine.run("kill", "-CONT", names)
    at = starts(mac)
    assert at["vpn"] == min(at.values()), at


def test_server_is_in_a_crash_loop(mac: Mac, project: Path, client: Client) -> None:
    configuration = project / "server/server.conf"
    whole = configuration.read_text()
    configuration.write_text(f"{whole}\nno-such-option\n")
    mac.run("docker", "restart", VPN)
    try:
        code, health, _ = look(mac, project)
        assert code == 3
        assert "services" in failed(health)
        assert "vpn is not working (" in health["services"][1]
        assert "no-such-option" in health["services"][1]
    finally:
        configuration.write_text(whole)


def test_server_is_frozen(mac: Mac, project: Path, engine: Engine, client: Client) -> None:
    (process,) = engine.run("pgrep", "--full", "^openvpn --config").stdout.split()
    engine.run("kill", "-STOP", process)
    try:
        code, health, _ = look(mac, project)
        assert code == 3
        assert failed(health) == {"services"}
        assert "vpn is silent" in health["services"][1]
    finally:
        engine.run("kill", "-CONT", process)


def test_nothing_is_let_through_while_the_firewall_is_paused_and_its_rules_are_flushed(
    mac: Mac, project: Path, engine: Engine, client: Client
) -> None:
    mac.run("docker", "pause", FIREWALL)
    with undone(mac, "docker", "unpause", FIREWALL):
        engine.run("iptables", "-F", "DOCKER-USER")
        code, health, said = look(mac, project)
        assert code == 3
        assert failed(health) == {"services", "forwarding"}
        assert health["services"][1] == "firewall is paused: mend it with `docker compose unpause firewall`"
        sentence = "nothing in bridge and lan answers the server: see what stops it with `./scripts/doctor.py`"
        assert health["forwarding"][1] == sentence
        assert set(said.values()) == {"it does not answer the VPN's server"}
        assert "0 of 2 containers reached" in script(mac, project, "status").stdout
        assert fetch(mac, "192.168.7.9", seconds=2) == "timed out"


def test_up_says_when_what_it_started_lets_nothing_through(
    mac: Mac, project: Path, engine: Engine, client: Client
) -> None:
    drop = ["FORWARD", "-i", "d4m", "-p", "tcp", "--dport", "1:65535", "-j", "DROP"]
    engine.run("iptables", "-I", *drop)
    try:
        run = script(mac, project, "up")
        assert run.returncode == 3
        assert "problem: nothing in bridge and lan answers the server" in run.stdout
    finally:
        engine.run("iptables", "-D", *drop)


def test_container_that_lets_in_what_comes_to_its_own_ports_alone_is_reached_and_a_closed_one_is_not(
    mac: Mac, project: Path, engine: Engine, client: Client
) -> None:
    web(mac, "--name", "strict", "--expose", "80")
    web(mac, "--name", "closed")
    rules: dict[str, Callable[[str], list[str]]] = {
        "strict": lambda namespace: [
            namespace,
            "iptables",
            "-A",
            "INPUT",
            "-p",
            "tcp",
            "!",
            "--dport",
            "80",
            "-j",
            "DROP",
        ],
        "closed": lambda namespace: [namespace, "iptables", "-A", "INPUT", "-j", "DROP"],
    }
    for name, rule in rules.items():
        process = mac.run("docker", "inspect", "--format", "{{.State.Pid}}", name).stdout.strip()
        engine.run("nsenter", *rule(f"--net=/proc/{process}/ns/net"))
    with undone(mac, "docker", "rm", "--force", "strict", "closed"):
        code, health, said = look(mac, project)
        assert said == {"web": "", "far": "", "strict": "", "closed": "it does not answer the VPN's server"}
        assert code == 0, health  # one container's own affair


def test_all_services_are_down_is_no_failure_of_theirs(mac: Mac, project: Path) -> None:
    mac.run("docker", "compose", "stop", cwd=project)
    run = script(mac, project, "status")
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == "error: the VPN is down: bring it up with `./scripts/up.py`.\n"
    up(mac, project)
