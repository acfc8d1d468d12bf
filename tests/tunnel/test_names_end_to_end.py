"""Names of containers, asked through the tunnel: they follow what runs, and say nothing else."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.docker_desktop import WEB_IMAGE, Engine, Mac
from tests.docker_desktop.cache import musl_look_up
from tests.docker_desktop.computer import resolver
from tests.vpn import connected, eventually, place, script, up

DNS = "10.213.94.1"
SECONDS = 5  # the DNS follows within 2; this machine may be busy with other tests
OURS = "d4m-devkit-"


@pytest.fixture(scope="module")
def devkit(mac: Mac, pristine: Path) -> Iterator[Path]:
    """A project that is up, and a client that is connected."""
    project = place(pristine, mac)
    up(mac, project)
    with connected(mac, project / "local/docker-for-mac.ovpn"):
        yield project


@pytest.fixture(autouse=True)
def nothing_else_runs(mac: Mac, devkit: Path) -> Iterator[None]:
    yield
    names = mac.run("docker", "ps", "--all", "--format", "{{.Names}}").stdout.split()
    if others := [name for name in names if not name.startswith(OURS)]:
        mac.run("docker", "rm", "--force", *others)
    mac.run("docker", "network", "prune", "--force")


def ask(mac: Mac, *question: str, server: str = DNS) -> list[str]:
    """What the DNS answers: addresses or names in order, or its status when there is none."""
    said = mac.run("dig", "+tries=1", "+time=2", f"@{server}", *question, check=False).stdout
    status = re.search(r"status: (\w+)", said)
    answers = re.findall(r"^[^;\s].*\s(?:A|PTR|AAAA|TXT)\s+(.*)$", said, re.MULTILINE)
    return sorted(answers) or [status[1] if status else "no answer"]


def run(mac: Mac, name: str, *options: str) -> str:
    """Start a container; return its address in the network that sorts first."""
    mac.run("docker", "run", "--detach", "--name", name, *options, WEB_IMAGE)
    return address(mac, name)


def address(mac: Mac, name: str) -> str:
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
    return mac.run("docker", "inspect", "--format", template, name).stdout.split()[0]


def soon(mac: Mac, name: str, expected: list[str], seconds: float = SECONDS) -> None:
    """Wait until the DNS says so."""
    deadline = time.monotonic() + seconds
    while (answer := ask(mac, name)) != expected:
        assert time.monotonic() < deadline, answer


def test_name_follows_its_container(mac: Mac) -> None:
    soon(mac, "web.d4m.internal", ["NXDOMAIN"])  # that of another test may just have gone
    soon(mac, "web.d4m.internal", [run(mac, "web")])
    mac.run("docker", "rename", "web", "shop")
    soon(mac, "shop.d4m.internal", [address(mac, "shop")])
    assert ask(mac, "web.d4m.internal") == ["NXDOMAIN"]
    mac.run("docker", "rm", "--force", "shop")
    soon(mac, "shop.d4m.internal", ["NXDOMAIN"])
    run(mac, "other")  # has the address that shop had
    again = run(mac, "shop")
    assert again != address(mac, "other")
    soon(mac, "shop.d4m.internal", [again])
    mac.run("docker", "stop", "--time", "0", "shop")
    soon(mac, "shop.d4m.internal", ["NXDOMAIN"])


def test_engine_is_not_asked_for_all_containers_because_of_one(mac: Mac, engine: Engine, devkit: Path) -> None:
    with asked(mac, engine) as lists:
        for _ in range(5):
            soon(mac, "web.d4m.internal", [run(mac, "web")])
            mac.run("docker", "rm", "--force", "web")
            soon(mac, "web.d4m.internal", ["NXDOMAIN"])
        assert lists() < 5  # every ten seconds it is, in case that an event was missed


@contextmanager
def asked(mac: Mac, engine: Engine) -> Iterator[Callable[[], int]]:
    """How often the engine has been asked for all containers meanwhile, as its log says."""
    log = mac.home.parent / "engine.log"

    def count() -> int:
        return log.read_text().count("/containers/json?")

    reload = "kill -HUP $(cat /run/docker.pid)"
    engine.run("sh", "-c", f"mkdir -p /etc/docker && echo '{{\"debug\": true}}' > /etc/docker/daemon.json && {reload}")
    try:
        mac.run("docker", "ps")
        eventually(lambda: count() > 0)
        before = count()
        yield lambda: count() - before
    finally:
        engine.run("sh", "-c", f"rm /etc/docker/daemon.json && {reload}")


def test_labels_of_any_name_and_odd_ones_do_not_hold_names_up(mac: Mac) -> None:
    odd = run(mac, "odd", "--label", "container=oci", "--label", "d4m.names=a,x.y.a,x.y.odd")
    soon(mac, "x.y.odd.d4m.internal", [odd])
    mac.run("docker", "rename", "odd", "even")
    soon(mac, "even.d4m.internal", [odd])
    mac.run("docker", "pause", "even")
    assert ask(mac, "even.d4m.internal") == [odd]
    assert mac.run("docker", "exec", f"{OURS}dns-1", "dns.sh", "check", check=False).returncode == 0


def test_dns_that_is_not_told_of_changes_any_more_starts_anew(mac: Mac, engine: Engine) -> None:
    (watching,) = engine.run("pgrep", "--exact", "inotifywait").stdout.split()
    engine.run("kill", watching)
    soon(mac, "late.d4m.internal", [run(mac, "late")], seconds=20)


def test_name_leads_to_the_network_that_the_routes_reach(mac: Mac) -> None:
    mac.run("docker", "network", "create", "--subnet", "192.168.200.0/24", "away")
    run(mac, "web", "--network", "away")
    assert ask(mac, "web.d4m.internal") == ["NXDOMAIN"]
    mac.run("docker", "network", "create", "--subnet", "172.29.0.0/24", "home")
    mac.run("docker", "network", "connect", "--ip", "172.29.0.77", "home", "web")
    soon(mac, "web.d4m.internal", ["172.29.0.77"])
    mac.run("docker", "network", "disconnect", "home", "web")
    soon(mac, "web.d4m.internal", ["NXDOMAIN"])


def test_services_labels_and_all_that_is_below_a_name(mac: Mac, tmp_path: Path) -> None:
    folder = mac.home / "shop"
    folder.mkdir()
    (folder / "compose.yaml").write_text(
        f"services:\n  web: {{image: '{WEB_IMAGE}', scale: 2, labels: {{d4m.names: 'store, *.api'}}}}\n"
        f"  db: {{image: '{WEB_IMAGE}', labels: {{dev.orbstack.domains: 'data.orb.local'}}}}\n"
    )
    mac.run("docker", "compose", "up", "--detach", cwd=folder)
    one, two, db = (address(mac, f"shop-{name}") for name in ("web-1", "web-2", "db-1"))
    both = sorted([one, two])
    soon(mac, "data.d4m.internal", [db])
    for name, expected in {
        "shop-web-1": [one], "web.shop": both, "store": both, "x.y.api": both, "db.shop": [db], "x.web.shop": both,
        "shop": ["NOERROR"], "x.shop": ["NXDOMAIN"], "WEB.Shop": both,
    }.items():  # fmt: skip
        assert ask(mac, f"{name}.d4m.internal") == expected, name
    assert ask(mac, "db.shop.d4m.internal", "AAAA") == ["NOERROR"]  # not NXDOMAIN, which musl takes for the whole name
    assert ask(mac, "-x", db) == ["shop-db-1.d4m.internal."]
    assert ask(mac, "-x", "172.31.255.254") == ["NXDOMAIN"]
    mac.run("docker", "compose", "stop", "--timeout", "0", "web", cwd=folder)
    soon(mac, "web.shop.d4m.internal", ["NXDOMAIN"])
    mac.run("docker", "compose", "down", "--timeout", "0", cwd=folder)


def test_five_hundred_events_lose_none(mac: Mac) -> None:
    addresses = {number: run(mac, f"n{number}-0") for number in range(5)}
    urls = [
        f"http://engine/containers/n{number}-{time_ - 1}/rename?name=n{number}-{time_}"
        for time_ in range(1, 101) for number in addresses
    ]  # fmt: skip
    socket = mac.environment["DOCKER_HOST"].removeprefix("unix://")
    mac.run("curl", "--silent", "--show-error", "--fail", "--unix-socket", socket, "--request", "POST", *urls)
    for number, there in addresses.items():
        soon(mac, f"n{number}-100.d4m.internal", [there])
        assert ask(mac, f"n{number}-99.d4m.internal") == ["NXDOMAIN"]
    assert ask(mac, "-x", addresses[3]) == ["n3-100.d4m.internal."]


HOSTILE = [
    "../../etc", "a" * 300, "db", "host.docker.internal", "d4m.internal", "*", "x\nlocal-zone: \"com.\" transparent",
    'x" "y', "db.d4m.internal.", "shop-web.db",
]  # fmt: skip


def test_hostile_labels_change_nothing_but_their_own_entry(mac: Mac, engine: Engine) -> None:
    there = run(mac, "db")
    soon(mac, "db.d4m.internal", [there])

    def records() -> str:
        return mac.run("docker", "exec", f"{OURS}names-1", "cat", "/run/names/records.conf").stdout

    before = records()
    for number, value in enumerate(HOSTILE):
        labels = [f"--label={label}={value}" for label in ("d4m.names", "dev.orbstack.domains")]
        own = run(mac, f"zz-{number}", *labels)
        soon(mac, f"zz-{number}.d4m.internal", [own])
    assert ask(mac, "db.d4m.internal") == [there]
    added = set(records().splitlines()) - set(before.splitlines())
    lines = {line for line in added if " zz-" not in line.replace('"', " ")}
    # A name of another domain can only be one below ours.
    assert {line.split('"')[1] for line in lines if line.startswith("local-zone")} == {
        "host.docker.internal.d4m.internal."
    }
    assert ask(mac, "host.docker.internal") == ["REFUSED"]
    assert ask(mac, "example.com") == ["REFUSED"]


@pytest.mark.parametrize("name", ["example.com", "localhost", "d4m.internal.example.org", "internal", ".", "test"])
def test_nothing_else_is_answered(mac: Mac, name: str) -> None:
    assert ask(mac, name) == ["REFUSED"]


def test_nobody_is_answered_who_is_not_in_the_tunnel(mac: Mac, engine: Engine) -> None:
    run(mac, "web")
    server = address(mac, f"{OURS}vpn-1")
    outside = engine.run("timeout", "3", "bash", "-c", f"exec 3<>/dev/tcp/{server}/53", check=False)
    assert outside.returncode != 0
    listening = mac.run("docker", "exec", f"{OURS}vpn-1", "ss", "-Hlun").stdout
    at = {line.split()[3] for line in listening.splitlines()}
    assert {one for one in at if not one.startswith("127.")} == {f"{DNS}:53"}  # and Docker's own, within


def main_process(mac: Mac, service: str) -> str:
    return mac.run("docker", "inspect", "--format", "{{.State.Pid}}", f"{OURS}{service}-1").stdout.strip()


@pytest.mark.parametrize("service", ["names", "dns", "vpn"])
def test_killed_it_is_right_again_unaided(mac: Mac, engine: Engine, service: str) -> None:
    there = run(mac, "web")
    soon(mac, "web.d4m.internal", [there])
    engine.run("kill", "-9", main_process(mac, service))
    other = run(mac, "other")
    soon(mac, "other.d4m.internal", [other], seconds=20)
    soon(mac, "web.d4m.internal", [there])


def test_server_that_starts_again_takes_its_dns_with_it(mac: Mac) -> None:
    mac.run("docker", "restart", "--time", "0", f"{OURS}vpn-1")
    soon(mac, "web.d4m.internal", ["NXDOMAIN"], seconds=20)
    mac.run("docker", "stop", "--time", "0", f"{OURS}vpn-1")
    time.sleep(3)
    mac.run("docker", "start", f"{OURS}vpn-1")
    soon(mac, "web.d4m.internal", ["NXDOMAIN"], seconds=20)


def test_each_has_the_least(mac: Mac, engine: Engine) -> None:
    for service, user, network in (("names", "root", "none"), ("dns", "nobody", "container:")):
        found = mac.run(
            "docker", "inspect", "--format",
            "{{.Config.User}} {{.HostConfig.NetworkMode}} {{.HostConfig.CapDrop}} {{.HostConfig.CapAdd}} "
            "{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.Privileged}}", f"{OURS}{service}-1",
        ).stdout  # fmt: skip
        assert found.startswith(f"{user} {network}")
        assert found.strip().endswith("[ALL] [] true false")
        status = engine.run("cat", f"/proc/{main_process(mac, service)}/status").stdout
        assert re.search(r"CapEff:\s0+\n", status)
        assert re.search(r"NoNewPrivs:\s1\n", status)
    interfaces = mac.run("docker", "exec", f"{OURS}names-1", "ls", "/sys/class/net").stdout.split()
    assert interfaces == ["lo"]
    mounts = mac.run(
        "docker", "inspect", "--format", "{{range .Mounts}}{{.Destination}} {{end}}", f"{OURS}dns-1"
    ).stdout
    assert mounts.split() == ["/run/names"]


def test_every_program_of_the_mac_finds_names_after_host_py_alone(mac: Mac, devkit: Path) -> None:
    with resolver(mac, "forky") as computer:
        web = run(mac, "web")
        run(mac, "data", "--label", "com.docker.compose.project=shop", "--label", "com.docker.compose.service=db")
        fetch = ["curl", "--silent", "--max-time", "5", "--output", "/dev/null", "--write-out", "%{http_code}"]
        assert mac.run(*fetch, "http://web.d4m.internal", check=False).stdout == "000"
        installed = script(mac, devkit, "host", "install", "--yes")
        assert installed.returncode == 0, installed.stderr
        soon(mac, "web.d4m.internal", [web])
        assert mac.run(*fetch, "http://web.d4m.internal").stdout == "200"
        assert mac.run(*fetch, "http://db.shop.d4m.internal:80").stdout == "200"
        assert f"PING web.d4m.internal ({web})" in mac.run("ping", "-c", "1", "web.d4m.internal").stdout
        assert mac.run("getent", "hosts", web).stdout.split() == [web, "web.d4m.internal"]
        assert mac.run(musl_look_up(), "web.d4m.internal").stdout.split() == [web]
        browse = ["chromium-headless-shell", "--no-sandbox", "--dump-dom", "http://web.d4m.internal/"]
        assert "nginx" in computer.run(*browse).stdout
        assert script(mac, devkit, "host", "status").returncode == 0
        assert script(mac, devkit, "host", "remove", "--yes").returncode == 0
        assert mac.run(*fetch, "http://web.d4m.internal", check=False).stdout == "000"


def test_engine_that_is_started_anew_has_its_names_again(mac: Mac, engine: Engine, devkit: Path) -> None:
    run(mac, "web", "--restart", "always")
    engine.kill()
    engine.boot()
    eventually(lambda: ask(mac, "web.d4m.internal") == [address(mac, "web")], seconds=40)
