"""From `up.py` to a container's page through a real OpenVPN client, on a current engine."""

import gzip
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import copy_project
from tests.docker_desktop import WEB_IMAGE, Engine, Mac, lab
from tests.schema import document
from tests.vpn import Client, connected, eventually, fetch, place, script, up, web

ATTEMPT, CONNECTED = "Attempting to establish TCP connection", "Initialization Sequence Completed"
OUR_RULE = re.compile(r"D4M|d4m0|10\.213\.94\.")


@pytest.fixture(scope="module")
def project(pristine: Path, mac: Mac) -> Path:
    """A project that is up for the tests of this module."""
    placed = place(pristine, mac)
    up(mac, placed)
    return placed


@pytest.fixture(scope="module")
def client(mac: Mac, project: Path) -> Iterator[Client]:
    with connected(mac, project / "local/docker-for-mac.ovpn") as connected_client:
        yield connected_client


@pytest.fixture(scope="module")
def on_default_bridge(mac: Mac) -> str:
    return web(mac, "--name", "on-default-bridge")


def rules(engine: Engine, iptables: str = "iptables") -> list[str]:
    """The rules of ours in the engine's packet filter, with their tables."""
    tables = ("raw", "filter", "nat")
    listed = [(table, engine.run(iptables, "-t", table, "-S").stdout.splitlines()) for table in tables]
    return [f"{table} {rule}" for table, lines in listed for rule in lines if OUR_RULE.search(rule)]


CONTAINERS = ["d4m-devkit-firewall-1", "d4m-devkit-vpn-1"]
RULES_OF_AN_OPEN_FIREWALL = [
    "raw -N D4M",
    "raw -A PREROUTING -j D4M",
    "raw -A D4M -i d4m -m mac --mac-source 02:d4:6d:00:00:01 -j ACCEPT",
    "filter -N D4M",
    "filter -N D4M-FROM",
    "filter -N D4M-INPUT",
    "filter -N D4M-TO",
    "filter -A INPUT -j D4M-INPUT",
    "filter -A D4M -i d4m -j D4M-FROM",
    "filter -A D4M -i d4m -j ACCEPT",
    "filter -A D4M -o d4m -j D4M-TO",
    "filter -A D4M-FROM -m mac ! --mac-source 02:d4:6d:00:00:01 -j DROP",
    "filter -A D4M-FROM -m conntrack --ctdir REPLY -j RETURN",
    "filter -A D4M-FROM -m conntrack --ctorigdst 172.16.0.0/12 -j RETURN",
    "filter -A D4M-FROM -j DROP",
    "filter -A D4M-INPUT -i d4m -j D4M-FROM",
    "filter -A D4M-TO -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "filter -A D4M-TO -p tcp -m tcp --dport 1194 -j RETURN",
    "filter -A D4M-TO -j DROP",
    "filter -A DOCKER-USER -j D4M",
    "nat -N D4M",
    "nat -A POSTROUTING -j D4M",
    "nat -A D4M -s 172.18.0.0/16 ! -o d4m -j MASQUERADE",
]


def test_containers_of_both_kinds_of_bridge_are_reached(mac: Mac, client: Client, on_default_bridge: str) -> None:
    mac.run("docker", "network", "create", "user-defined")
    assert fetch(mac, on_default_bridge) == "200"
    assert fetch(mac, web(mac, "--network", "user-defined")) == "200"
    assert "WARNING" not in client.said()


def test_engines_packet_filter_is_in_force(engine: Engine, client: Client, on_default_bridge: str) -> None:
    raw = engine.run("iptables", "-t", "raw", "-S", "PREROUTING").stdout
    assert f"-A PREROUTING -d {on_default_bridge}/32 ! -i docker0 -j DROP" in raw
    assert "-A DOCKER ! -i docker0 -o docker0 -j DROP" in engine.run("iptables", "-S").stdout


def test_firewall_holds_its_rules_once_and_no_others(engine: Engine, client: Client) -> None:
    assert rules(engine) == RULES_OF_AN_OPEN_FIREWALL


def test_container_started_later_is_reached_without_reconnecting(mac: Mac, client: Client) -> None:
    connections = client.said().count(CONNECTED)
    assert fetch(mac, web(mac, "--name", "latecomer")) == "200"
    assert client.said().count(CONNECTED) == connections


def test_nothing_listens_wider_than_asked(engine: Engine, client: Client) -> None:
    sockets = [line.split()[3] for line in engine.run("ss", "-Htln").stdout.splitlines()]
    assert sockets == ["127.0.0.1:1194"]


def test_firewall_alone_is_in_the_engines_host_network(mac: Mac, client: Client) -> None:
    networks = mac.run("docker", "inspect", "--format", "{{.HostConfig.NetworkMode}}", *CONTAINERS).stdout.split()
    assert networks == ["host", "d4m-devkit_vpn"]


def test_containers_have_the_least_that_their_jobs_need(mac: Mac, client: Client) -> None:
    granted = {}
    for service in ("vpn", "firewall"):
        facts = json.loads(mac.run("docker", "inspect", f"d4m-devkit-{service}-1").stdout)[0]
        settings = facts["HostConfig"]
        assert settings["CapDrop"] == ["ALL"]
        assert settings["ReadonlyRootfs"]
        assert settings["SecurityOpt"] == ["no-new-privileges:true"]
        assert not settings["Privileged"]
        assert all(not mount["RW"] for mount in facts["Mounts"] if mount["Type"] == "bind")
        assert settings["PidsLimit"]
        assert settings["Memory"]
        assert settings["LogConfig"]["Config"]["max-size"]
        granted[service] = {capability.removeprefix("CAP_") for capability in settings["CapAdd"] or []}
    # tests/tunnel/test_network.py shows that the server itself holds none.
    assert granted == {
        "vpn": {"NET_ADMIN", "NET_RAW", "SETPCAP", "DAC_OVERRIDE", "SETUID", "SETGID"},
        "firewall": {"NET_ADMIN", "NET_RAW"},
    }


def test_only_the_servers_keys_are_in_containers(mac: Mac, project: Path, client: Client) -> None:
    find = ["sh", "-c", "grep --recursive --files-with-matches 'PRIVATE KEY' /etc /run /root /home /opt /srv || true"]
    for service, keys in (("vpn", ["/etc/vpn/configs/server.key"]), ("firewall", [])):
        found = mac.run("docker", "exec", f"d4m-devkit-{service}-1", *find).stdout.split()
        # Debian's own packages carry none but a documented example or two outside of these folders.
        assert found == keys, service


def secrets_of(project: Path) -> set[str]:
    """A line of each secret key: the authority's, the server's two, the client's two."""
    key = re.compile(r"-----BEGIN (?:PRIVATE KEY|OpenVPN tls-crypt-v2 (?:server|client) key)-----\n(.+)\n")
    kept = [path for path in (project / "local/pki/current/").rglob("*") if path.suffix in (".key", ".pem")]
    return {line for path in kept for line in key.findall(path.read_text())}


def test_nothing_secret_is_in_the_images_layers(mac: Mac, project: Path, client: Client) -> None:
    secrets = secrets_of(project)
    assert len(secrets) == 7
    archive = mac.home / "image.tar"
    mac.run("docker", "save", "--output", archive, "d4m-devkit-gateway", "d4m-devkit-names", "d4m-devkit-proxy")
    layers = list(unpacked(archive))
    # The search finds what is there: a line of a script.
    for there in (b"Keeps the engine's packet filter open for the VPN server", b"HTTPS for the names of containers"):
        assert any(there in layer for layer in layers)
    assert not [secret for secret in secrets if any(secret.encode() in layer for layer in layers)]


def unpacked(archive: Path) -> Iterator[bytes]:
    """What the files of an image's archive hold, layers among them; some image stores save those compressed."""
    with tarfile.open(archive) as image:
        for member in image:
            if content := image.extractfile(member):
                data = content.read()
                yield gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data


def test_logs_and_commands_hold_no_secret(mac: Mac, project: Path, client: Client) -> None:
    logs = mac.run("docker", "compose", "--project-directory", project, "logs").stdout
    commands = mac.run("docker", "ps", "--no-trunc", "--format", "{{.Command}}").stdout
    for secret in secrets_of(project):
        assert secret not in logs
        assert secret not in commands


def test_report_says_what_is_reached_and_why_the_rest_is_not(
    mac: Mac, project: Path, client: Client, on_default_bridge: str
) -> None:
    mac.run("docker", "network", "create", "--subnet", "192.168.78.0/24", "off-route")
    web(mac, "--network", "off-route", "--name", "off-route")
    web(mac, "--network", "host", "--name", "on-host")
    facts = document(script(mac, project, "up", "--json").stdout)
    assert document(script(mac, project, "status", "--json").stdout) == facts
    places = {container["name"]: container["addresses"] for container in facts["containers"]}
    assert places["on-default-bridge"][0]["reachable"]
    assert places["off-route"] == [
        {
            "network": "off-route",
            "address": "192.168.78.2",
            "reachable": False,
            "reason": "outside the routes",
            "answered": False,
        }
    ]
    assert "engine's own addresses" in places["on-host"][0]["reason"]
    assert facts["endpoint"] == {"host": "127.0.0.1", "port": 1194, "protocol": "tcp", "listen": "127.0.0.1"}
    assert facts["engine"]["version"] == mac.run("docker", "version", "--format", "{{.Server.Version}}").stdout.strip()
    assert [end["name"] for end in facts["certificates"]] == [
        "authority", "server", "docker-for-mac", "https authority", "https intermediate",
    ]  # fmt: skip
    assert not any(name.startswith("d4m-devkit-") for name in places)
    text = script(mac, project, "up").stdout
    address = places["on-default-bridge"][0]["address"]
    assert re.search(rf"on-default-bridge +bridge +{address} +https://on-default-bridge.d4m.internal +yes", text)
    assert "sudo openvpn --config local/docker-for-mac.ovpn" in text
    assert "  ./scripts/routes.py add 192.168.78.0/24\n" in text
    assert not [line for line in text.splitlines() if line.endswith(" ")]
    mac.run("docker", "rm", "--force", "on-host", "off-route")


def test_wiped_rules_come_back(mac: Mac, engine: Engine, client: Client, on_default_bridge: str) -> None:
    engine.run("sh", "-c", "iptables-save > /run/before")
    engine.run("iptables", "-t", "raw", "-F")
    engine.run("iptables", "-F", "DOCKER-USER")
    engine.run("iptables", "-F", "D4M")
    eventually(lambda: sorted(rules(engine)) == sorted(RULES_OF_AN_OPEN_FIREWALL))
    assert fetch(mac, on_default_bridge) == "200"
    engine.run("iptables-restore", "/run/before")  # with those that Docker does not place again


def test_rule_of_a_time_when_nothing_led_to_the_engines_chain_is_taken_away(engine: Engine, client: Client) -> None:
    engine.run("iptables", "-I", "FORWARD", "-j", "D4M")  # as whoever restores the rules of that time does
    eventually(lambda: "-A FORWARD -j D4M" not in engine.run("iptables", "-S", "FORWARD").stdout)
    eventually(lambda: sorted(rules(engine)) == sorted(RULES_OF_AN_OPEN_FIREWALL))


def test_up_again_disturbs_no_client(mac: Mac, project: Path, client: Client, on_default_bridge: str) -> None:
    connections = client.said().count(CONNECTED)
    up(mac, project)
    assert fetch(mac, on_default_bridge) == "200"
    assert client.said().count(CONNECTED) == connections


IDLE_CONNECTIONS = """
import resource, socket, time
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
held = []
for number in range(1000):
    held.append(socket.create_connection(("127.0.0.1", 1194), timeout=20))
    if number % 2:
        held[-1].send(b"\\x00\\x0e\\x38" + bytes(5))  # the beginning of a packet
print("held", flush=True)
time.sleep(60)
"""


def test_up_starts_nothing_where_all_is_as_it_should_be(mac: Mac, project: Path, client: Client) -> None:
    up(mac, project)  # what an earlier test has changed
    clock = ("date", "+%s.%N")
    since = mac.run(*clock).stdout.strip()
    up(mac, project)
    until = mac.run(*clock).stdout.strip()
    events = ("docker", "events", "--filter=type=container", "--filter=event=create", "--filter=event=start")
    assert mac.run(*events, f"--since={since}", f"--until={until}").stdout == ""


def test_images_are_built_only_when_something_of_them_has_changed(mac: Mac, project: Path, client: Client) -> None:
    script_ = project / "gateway/reach.pl"
    images = ("docker", "image", "inspect", "--format", "{{.Id}}")
    before = mac.run(*images, "d4m-devkit-gateway", "d4m-devkit-names").stdout
    assert "Building the image" not in script(mac, project, "up").stderr
    assert mac.run(*images, "d4m-devkit-gateway", "d4m-devkit-names").stdout == before
    script_.write_text(f"{script_.read_text()}# edited\n")
    assert "Building the image: done" in script(mac, project, "up").stderr
    assert "# edited" in mac.run("docker", "exec", CONTAINERS[1], "tail", "-n", "1", "/usr/local/bin/reach.pl").stdout
    changed = mac.run(*images, "d4m-devkit-gateway", "d4m-devkit-names").stdout
    assert changed != before
    mac.run("docker", "image", "rm", "--force", "d4m-devkit-names")
    up(mac, project)
    assert mac.run(*images, "d4m-devkit-gateway").stdout == changed.splitlines()[0] + "\n"


@pytest.mark.further
def test_images_are_built_anew_where_that_is_asked_for(mac: Mac, project: Path, client: Client) -> None:
    packages = ("docker", "exec", CONTAINERS[1], "stat", "--format", "%Y", "/var/lib/dpkg/status")
    before = int(mac.run(*packages).stdout)
    assert script(mac, project, "up", "--build").returncode == 0
    assert int(mac.run(*packages).stdout) > before


def test_thousand_idle_connections_keep_no_client_out_and_cost_less_than_the_limit(mac: Mac, client: Client) -> None:
    started = ["docker", "inspect", "--format", "{{.State.StartedAt}}", "d4m-devkit-vpn-1"]
    before = mac.run(*started).stdout
    log = mac.home / "idle.log"
    with log.open("w") as output:
        idle = mac.start(sys.executable, "-c", IDLE_CONNECTIONS, output=output)
    eventually(lambda: "held" in log.read_text())
    attempts, connections = client.said().count(ATTEMPT), client.said().count(CONNECTED)
    client.reconnect()
    client.wait_for(CONNECTED, times=connections + 1)
    # At once, not when the idle ones have had to give their places up.
    assert client.said().count(ATTEMPT) == attempts + 1, client.said()
    usage = mac.run("docker", "stats", "--no-stream", "--format", "{{.MemPerc}}", "d4m-devkit-vpn-1").stdout
    assert float(usage.strip().removesuffix("%")) < 75
    idle.kill()
    idle.wait()
    assert mac.run(*started).stdout == before


def test_scripts_leave_standard_input_to_the_users_shell(mac: Mac, project: Path, client: Client) -> None:
    connections = client.said().count(CONNECTED)
    typed = f"cd {project}\n{sys.executable} scripts/up.py\n{sys.executable} scripts/down.py\necho still here\n"
    shell = subprocess.run(
        mac.command("sh", "-s"), env=mac.environment, input=typed, capture_output=True, text=True, check=False
    )
    assert shell.stdout.endswith("still here\n")
    up(mac, project)
    client.wait_for(CONNECTED, times=connections + 1)


def test_up_on_the_engines_own_machine_takes_its_bridges_for_no_collision(
    mac: Mac, engine: Engine, project: Path, client: Client
) -> None:
    in_vm = ["nsenter", f"--net=/proc/{engine.process_id}/ns/net", "--", sys.executable, "scripts/up.py", "--json"]
    run = subprocess.run(in_vm, cwd=project, env=mac.environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_killed_firewall_leaves_no_duplicate_and_down_leaves_nothing(
    pristine: Path, engine: Engine, mac: Mac, project: Path, client: Client, on_default_bridge: str
) -> None:
    mac.run("docker", "kill", "--signal", "KILL", "d4m-devkit-firewall-1")
    assert rules(engine) == RULES_OF_AN_OPEN_FIREWALL  # it could not take them away
    up(mac, project)
    assert rules(engine) == RULES_OF_AN_OPEN_FIREWALL
    mac.run("docker", "kill", "--signal", "KILL", "d4m-devkit-firewall-1")
    assert script(mac, project, "down", "--images").returncode == 0
    assert rules(engine) == []
    assert "d4m" not in engine.run("ip", "-brief", "link").stdout
    for kind in (["ps", "--all"], ["network", "ls"], ["image", "ls"], ["volume", "ls"]):
        assert "d4m" not in mac.run("docker", *kind).stdout
    assert snapshot_names(project / "local") == snapshot_names(pristine / "local")
    again = script(mac, project, "down")
    assert again.returncode == 0, again.stderr
    connections = client.said().count(CONNECTED)
    up(mac, project)
    client.wait_for(CONNECTED, times=connections + 1)
    assert fetch(mac, on_default_bridge) == "200"


def snapshot_names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_first_thing_to_look_at_is_one_command_away_and_the_stack_comes_back_with_the_engine(pristine: Path) -> None:
    with lab() as (mac, engine):
        project = place(pristine, mac)
        up(mac, project)
        said = script(mac, project, "status").stdout
        (command,) = re.findall(r"^  (docker run .*)$", said, re.MULTILINE)
        mac.run("docker", "tag", WEB_IMAGE, command.split()[-1])  # no registry is in reach
        mac.run("sh", "-c", command)
        facts = json.loads(script(mac, project, "status", "--json").stdout)
        by_name, (by_address,) = facts["containers"][0]["page"], facts["containers"][0]["urls"]
        shown = script(mac, project, "status").stdout
        assert f" {by_name} " in shown
        assert "an MTU of 9000 makes bridge several times as fast: README.md" in shown
        with connected(mac, project / "local/docker-for-mac.ovpn") as client:
            lead = f"{by_name.removeprefix('https://')}:443:{by_address.removeprefix('http://')}"
            trusting = ["--cacert", f"{project}/local/https/root.crt", "--resolve", lead]
            for url in (by_address, by_name):
                fetched = mac.run("curl", "--silent", "--max-time", "10", *trusting, url, check=False)
                assert "Welcome to nginx" in fetched.stdout, url
            mac.run("docker", "rm", "--force", "hello")
            page = web(mac, "--restart", "always")
            in_readme = re.search(r"```json\n(.*?)```", (project / "README.md").read_text(), re.DOTALL)
            assert in_readme
            settings = ["sh", "-c", f"mkdir -p /etc/docker && echo '{in_readme[1]}' > /etc/docker/daemon.json"]
            for boots in range(1, 5):
                engine.kill()
                engine.boot()
                client.wait_for(CONNECTED, times=1 + boots, seconds=60)
                eventually(lambda: fetch(mac, page, seconds=2) == "200")
                engine.run(*settings)
            makes_large_networks(mac, engine)
            assert "Speed" not in script(mac, project, "status").stdout
        assert fetch(mac, page, seconds=3) == "timed out"  # without the VPN
        assert sorted(rules(engine)) == sorted(RULES_OF_AN_OPEN_FIREWALL)


def makes_large_networks(mac: Mac, engine: Engine) -> None:
    """Whether every network that is made now, and the default bridge, has packets of 9000 bytes."""
    mac.run("docker", "network", "create", "large")
    for network in ("large", "bridge"):
        address = web(mac, "--network", network, "--name", f"on-{network}")
        interfaces = engine.run("docker", "exec", f"on-{network}", "cat", "/sys/class/net/eth0/mtu").stdout
        assert interfaces.strip() == "9000"
        assert fetch(mac, address) == "200"


@pytest.mark.further
def test_udp_through_the_older_packet_filter() -> None:
    """All alternatives at once: UDP, an engine on iptables-legacy, and its older image store."""
    with lab(iptables="legacy", store="overlay2") as (mac, engine):
        project = copy_project(mac.home / "devkit", vpn_protocol="udp", vpn_port=4194)
        up(mac, project)
        address = web(mac)
        with connected(mac, project / "local/docker-for-mac.ovpn") as client:
            assert fetch(mac, address) == "200"
            assert "WARNING" not in client.said()
            connections = client.said().count(CONNECTED)
            up(mac, project)
            assert fetch(mac, address) == "200"
            assert client.said().count(CONNECTED) == connections
        assert fetch(mac, address, seconds=3) == "timed out"
        over_udp = [rule.replace("-p tcp -m tcp", "-p udp -m udp") for rule in RULES_OF_AN_OPEN_FIREWALL]
        assert sorted(rules(engine, "iptables-legacy")) == sorted(over_udp)
        script(mac, project, "down")
        assert rules(engine, "iptables-legacy") == []
