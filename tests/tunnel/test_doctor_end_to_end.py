"""Set-ups that are broken, each in one way: the doctor names that layer and no other, and what it says mends it."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from devkit.answers import read_answers
from devkit.keys import x509
from devkit.material.changes import rotate
from devkit.material.state import read_generation

from tests.conftest import copy_project
from tests.docker_desktop import WEB_IMAGE, Engine, Mac
from tests.docker_desktop.computer import resolver
from tests.schema import document
from tests.vpn import connected, eventually, fetch, script, start_client, up, web

OURS = "d4m-devkit-"
PAGE = "172.17.0.0/16"
NOW = datetime.now(UTC).replace(microsecond=0)


@dataclass(frozen=True)
class Site:
    """A project that is up, and its user's computer."""

    mac: Mac
    engine: Engine
    project: Path
    address: str  # of the container web

    def on_engine(self, command: str) -> None:
        """Run a shell's command as root on the engine's machine."""
        self.engine.run("sh", "-c", command)

    def process(self, container: str) -> str:
        """A container's first process."""
        return self.mac.run("docker", "inspect", "--format", "{{.State.Pid}}", container).stdout.strip()

    def in_container(self, container: str, command: str) -> None:
        """Run a shell's command as the engine's root in a container's network."""
        self.on_engine(f"nsenter --net=/proc/{self.process(container)}/ns/net -- sh -c {shlex.quote(command)}")

    def keep(self, command: str, container: str | None = None) -> None:
        """Run a command again and again, as somebody does who wants it so, until `no_longer`."""
        enter = f"nsenter --net=/proc/{self.process(container)}/ns/net" if container else ""
        loop = f"while :; do {command}; sleep 0.1; done"
        self.on_engine(f"{enter} sh -c {shlex.quote(loop)} > /dev/null 2>&1 & echo $! > /run/kept; sleep 1")

    def no_longer(self) -> None:
        """End what `keep` has begun."""
        self.on_engine("kill $(cat /run/kept)")

    def doctor(self, *arguments: str) -> dict[str, Any]:
        """What the doctor finds."""
        run = script(self.mac, self.project, "doctor", "--json", *arguments)
        assert run.returncode in (0, 3), run.stderr
        facts = document(run.stdout)
        assert run.returncode == (3 if facts["failed"] else 0)
        return facts


def nothing(_: Site) -> None:
    """What takes nothing back."""


@dataclass(frozen=True)
class Broken:
    """One way in which it can be broken: the layer, what is said, and who mends it: the printed command, or `undo`."""

    name: str
    breaks: Callable[[Site], object]
    layer: str
    says: str
    undo: Callable[[Site], object] = nothing
    target: str = "web"
    mends_itself: bool = True  # by the command that is printed


def engine(command: str) -> Callable[[Site], object]:
    return lambda site: site.on_engine(command)


def mac(*command: str) -> Callable[[Site], object]:
    return lambda site: site.mac.run(*command)


def docker(*command: str) -> Callable[[Site], object]:
    return mac("docker", *command)


def in_turn(*steps: Callable[[Site], object]) -> Callable[[Site], object]:
    def run(site: Site) -> None:
        for step in steps:
            step(site)

    return run


def kept(command: str, container: str | None = None) -> Callable[[Site], object]:
    return lambda site: site.keep(command, container)


def no_longer(site: Site) -> None:
    site.no_longer()


def loopback(site: Site) -> None:
    conf = "server { listen 127.0.0.1:80; }"
    site.mac.run("docker", "run", "--detach", "--name", "shy", "--expose", "80", WEB_IMAGE, "sh", "-c",
                 f"echo '{conf}' > /etc/nginx/sites-enabled/default; exec nginx -g 'daemon off;'")  # fmt: skip


def device_of(container: str) -> str:
    """A shell's words for the container's device on the engine's machine."""
    process = f"$(docker inspect --format '{{{{.State.Pid}}}}' {container})"
    peer = f"$(nsenter --net=/proc/{process}/ns/net ip -o link show eth0 | sed -E 's/.*@if([0-9]+):.*/\\1/')"
    return f"$(ip -o link | awk -F'[:@]' -v n={peer} '$1 == n {{ print $2 }}')"


LAN = ("ip", "link", "add", "lan0", "type", "bridge")
BROKEN = (
    *(
        Broken(f"{service} stopped", docker("stop", f"{OURS}{service}-1"), "services", f"{service} is stopped")
        for service in ("vpn", "firewall")
    ),
    *(
        Broken(f"{service} stopped", docker("stop", f"{OURS}{service}-1"), "services", f"{service} is stopped",
               docker("start", f"{OURS}{service}-1"), mends_itself=False)
        for service in ("names", "dns", "proxy", "redirect")
    ),
    Broken("firewall paused", docker("pause", f"{OURS}firewall-1"), "services", "firewall is paused"),
    Broken("disk full", engine("cat /dev/zero > /var/lib/docker/volumes/d4m-devkit_names/_data/full; :"), "disk",
           "the engine's disk is full (names: /run/names)",
           engine("rm /var/lib/docker/volumes/d4m-devkit_names/_data/full"), mends_itself=False),
    Broken("outside the routes",
           in_turn(docker("network", "create", "--subnet", "192.168.77.0/24", "away"),
                   docker("run", "--detach", "--name", "away", "--network", "away", WEB_IMAGE)),
           "network", "away is at 192.168.77.2, outside the routes",
           in_turn(docker("rm", "--force", "away"), docker("network", "rm", "away")), "away", mends_itself=False),
    Broken("macvlan",
           in_turn(engine("ip link add parent0 type bridge && ip link set parent0 up"),
                   docker("network", "create", "--driver", "macvlan", "--opt", "parent=parent0", "--subnet",
                          "172.30.0.0/24", "macvlan"),
                   docker("run", "--detach", "--name", "far", "--network", "macvlan", WEB_IMAGE)),
           "network", "the engine's host cannot reach its own macvlan networks",
           in_turn(docker("rm", "--force", "far"), docker("network", "rm", "macvlan"), engine("ip link del parent0")),
           "far"),
    Broken("host network", docker("run", "--detach", "--name", "hosted", "--network", "host", WEB_IMAGE), "network",
           "it uses the engine's own addresses", docker("rm", "--force", "hosted"), "hosted", mends_itself=False),
    Broken("a route of one's own", mac("ip", "route", "add", PAGE, "via", "198.51.100.1", "dev", "en0"), "route",
           "goes by en0 (198.51.100.2), not through the VPN"),
    Broken("another VPN",
           in_turn(mac("ip", "tuntap", "add", "tun9", "mode", "tun"),
                   mac("ip", "address", "add", "10.99.0.2/24", "dev", "tun9"), mac("ip", "link", "set", "tun9", "up"),
                   mac("ip", "route", "add", PAGE, "dev", "tun9")),
           "route", "goes by tun9 (10.99.0.2), not through the VPN", mac("ip", "link", "del", "tun9")),
    Broken("a LAN of the same addresses",
           in_turn(mac(*LAN), mac("ip", "address", "add", "172.17.0.77/24", "dev", "lan0"),
                   mac("ip", "link", "set", "lan0", "up")),
           "route", "is also in 172.17.0.0/24, a network that this computer is in (lan0)",
           mac("ip", "link", "del", "lan0"), mends_itself=False),
    Broken("no masquerading",
           kept("iptables -t nat -D POSTROUTING -s 10.213.94.0/24 ! -o d4m0 -j MASQUERADE", f"{OURS}vpn-1"),
           "forwarding", "the server's own network lacks MASQUERADE", no_longer, mends_itself=False),
    Broken("a missing rule", kept("iptables -D DOCKER-USER -j D4M"), "packet filter",
           "lacks iptables-nft -t filter -I DOCKER-USER -j D4M", no_longer, mends_itself=False),
    Broken("a drop above ours", engine("iptables -I DOCKER-USER -i d4m -p tcp -j DROP"), "packet filter",
           "iptables-nft -t filter -A DOCKER-USER -i d4m -p tcp -j DROP"),
    Broken("a drop before routing", engine("iptables -t raw -I PREROUTING -i d4m -d 172.17.0.0/16 -p tcp -j DROP"),
           "packet filter", "iptables-nft -t raw -A PREROUTING -d 172.17.0.0/16 -i d4m -p tcp -j DROP"),
    Broken("a drop in the other backend", engine("iptables-legacy -I FORWARD -d 172.17.0.0/16 -p tcp -j DROP"),
           "packet filter", "iptables-legacy -t filter -A FORWARD -d 172.17.0.0/16 -p tcp -j DROP"),
    Broken("another firewall's table",
           engine("nft add table inet office && nft add chain inet office f "
                  "'{ type filter hook forward priority -50; }' && "
                  "nft add rule inet office f ip daddr 172.17.0.0/16 tcp dport 1-65535 counter drop"),
           "packet filter", "nft inet office f: ip daddr 172.17.0.0/16", engine("nft delete table inet office"),
           mends_itself=False),
    # A bridge takes the smallest of its devices' for its own MTU, unless it was given one.
    Broken("a small MTU",
           lambda site: site.on_engine(f"ip link set {device_of('web')} mtu 1000; ip link set docker0 mtu 1500"), "MTU",
           "of 1280 bytes to web vanish, and nobody says so (a black hole)",
           lambda site: site.on_engine(f"ip link set {device_of('web')} mtu 1500"), mends_itself=False),
    Broken("ICMP filtered", engine("iptables -I FORWARD -p icmp -j DROP"), "MTU",
           "a rule on the engine's machine drops ICMP"),
    Broken("target stopped", docker("stop", "web"), "target", "the container web does not run (exited)"),
    Broken("target paused", docker("pause", "web"), "target", "the container web does not run (paused)"),
    Broken("no such target", nothing, "target", "nothing is called wbe here", nothing, "wbe", mends_itself=False),
    Broken("a wrong port", nothing, "port", "nothing in web listens at port 8080, but at 80", nothing,
           "http://web:8080", mends_itself=False),
    Broken("on loopback only", loopback, "port", "on its own 127.0.0.1 only", docker("rm", "--force", "shy"), "shy",
           mends_itself=False),
    Broken("a filter of its own", lambda site: site.in_container("web", "iptables -A INPUT -p tcp -j DROP"), "port",
           "web does not answer the server, and no rule of the engine's machine drops it",
           lambda site: site.in_container("web", "iptables -F INPUT"), mends_itself=False),
)  # fmt: skip


@pytest.fixture(scope="module")
def site(mac: Mac, engine: Engine) -> Site:
    project = copy_project(mac.home / "devkit")
    up(mac, project)
    return Site(mac, engine, project, web(mac, "--name", "web", "--expose", "80", "--restart", "always"))


@pytest.fixture
def client(site: Site) -> Iterator[None]:
    with connected(site.mac, site.project / "local/docker-for-mac.ovpn"):
        yield


@contextmanager
def broken(site: Site, one: Broken) -> Iterator[None]:
    one.breaks(site)
    try:
        yield
    finally:
        one.undo(site)
        if one.layer in ("services", "disk"):
            eventually(lambda: site.doctor("web")["failed"] is None, seconds=60)


def failed(found: dict[str, Any]) -> list[str]:
    return [layer["name"] for layer in found["layers"] if layer["verdict"] == "failed"]


def sentence(found: dict[str, Any]) -> str:
    (layer,) = (layer for layer in found["layers"] if layer["verdict"] == "failed")
    return f"{layer['evidence']}: {layer['mend']}"


def run_what_is_printed(site: Site, said: str) -> None:
    """Run the command in a sentence, where it says that it is to be run."""
    command = re.findall(r"`(.*?)`", said)[0].removeprefix("sudo ")
    if "on the engine's machine" in said:
        site.on_engine(command)
    elif command.startswith("./scripts/"):
        run = site.mac.run(sys.executable, *shlex.split(command), cwd=site.project, check=False)
        assert run.returncode == 0, run.stderr
    else:
        site.mac.run("sh", "-c", command, cwd=site.project)


@pytest.mark.parametrize("one", BROKEN, ids=lambda one: one.name)
def test_layer_is_named_and_no_other_and_what_is_printed_mends_it(site: Site, client: None, one: Broken) -> None:
    eventually(lambda: fetch(site.mac, site.address) == "200", seconds=60)
    with broken(site, one):
        found = site.doctor(one.target)
        assert failed(found) == [one.layer] == [found["failed"]]
        assert one.says in sentence(found)
        if one.mends_itself:
            run_what_is_printed(site, sentence(found))
            eventually(lambda: site.doctor(one.target)["failed"] is None, seconds=60)


# ------------------------------------------------------------------------------------------------- the profile


def test_whole_way_is_followed_with_a_container_of_its_own_which_is_gone_then(site: Site, client: None) -> None:
    found = site.doctor()
    assert found["failed"] is None
    verdicts = {layer["name"]: layer["verdict"] for layer in found["layers"]}
    assert [name for name, verdict in verdicts.items() if verdict != "passed"] == ["names", "trust", "https"]
    assert "example" not in site.mac.run("docker", "ps", "--all").stdout
    said = script(site.mac, site.project, "doctor", "http://web").stdout
    assert said.count("pass  ") == 16
    assert said.endswith("Nothing is in the way.\n")


def test_nobody_is_connected(site: Site) -> None:
    found = site.doctor("web")
    assert failed(found) == ["tunnel"]
    assert "open local/docker-for-mac.ovpn in the VPN app, and connect" in sentence(found)


def test_engine_does_not_answer(site: Site, client: None) -> None:
    command = ["env", "DOCKER_HOST=unix:///nowhere.sock", sys.executable, "scripts/doctor.py", "--json"]
    found = json.loads(site.mac.run(*command, cwd=site.project, check=False).stdout)
    assert failed(found) == ["engine"]
    assert "does not answer" in sentence(found)


def test_profile_alone_is_followed_as_far_as_it_leads(site: Site, client: None) -> None:
    profile = shutil.copy(site.project / "local/docker-for-mac.ovpn", site.mac.home / "profile.ovpn")
    scripts = shutil.copytree(site.project / "scripts", site.mac.home / "alone/scripts", dirs_exist_ok=True)

    def doctor(*target: str) -> dict[str, Any]:
        words = ["env", "DOCKER_HOST=unix:///nowhere.sock", sys.executable, f"{scripts}/doctor.py", "--json"]
        run = site.mac.run(*words, "--profile", str(profile), *target, cwd=scripts.parent, check=False)
        facts: dict[str, Any] = json.loads(run.stdout)
        return facts

    for target in ((), (f"http://{site.address}",)):
        found = doctor(*target)
        assert found["failed"] is None, found
        passed = [layer["name"] for layer in found["layers"] if layer["verdict"] == "passed"]
        assert passed[:5] == ["profile", "server", "tunnel", "route", "answer"]
    found = doctor("http://192.0.2.200")
    assert failed(found) == ["route"]
    assert "192.0.2.200 is outside the profile's routes" in sentence(found)


def test_endpoint_that_is_closed_or_somebody_elses_is_named(site: Site, client: None) -> None:
    profile = (site.project / "local/docker-for-mac.ovpn").read_text()
    for port, says in (
        ("1195", "nobody answers at 127.0.0.1:1195/tcp (connection refused)"),
        ("1196", "what answers at 127.0.0.1:1196/tcp is not this profile's server ("),
    ):
        other = site.mac.home / f"{port}.ovpn"
        other.write_text(profile.replace("remote 127.0.0.1 1194", f"remote 127.0.0.1 {port}"))
        with (site.mac.home / f"{port}.log").open("w") as output:
            listener = site.mac.start(sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "1196", output=output)
            eventually(lambda: "1196" in site.mac.run("ss", "-Hltn").stdout)
            found = site.doctor("--profile", str(other), "web")
            listener.kill()
            listener.wait()
        assert failed(found) == ["server"]
        assert says in sentence(found)
        assert "bring it up with `./scripts/up.py`" in sentence(found)


def test_expired_and_revoked_profiles_are_named(site: Site, client: None) -> None:
    generation = read_generation(site.project)
    first = (site.project / "local/docker-for-mac.ovpn").read_text()
    issued = x509.issue(
        generation.ca.credential, x509.CLIENT, ["docker-for-mac"], "ecdsa-p256", 1, NOW - timedelta(days=9)
    )
    expired = site.mac.home / "expired.ovpn"
    for name, pem in (("cert", issued.certificate_pem), ("key", issued.key_pem)):
        first = re.sub(rf"<{name}>.*?</{name}>", f"<{name}>\n{pem.decode()}</{name}>", first, flags=re.DOTALL)
    expired.write_text(first)
    found = site.doctor("--profile", str(expired), "web")
    assert failed(found) == ["profile"]
    assert "the certificate in " in sentence(found)
    assert script(site.mac, site.project, "client", "add", "eve").returncode == 0
    eves = shutil.copy(site.project / "local/clients/eve.ovpn", site.mac.home / "eve.ovpn")
    assert site.doctor("--profile", str(eves), "web")["failed"] is None
    assert script(site.mac, site.project, "client", "revoke", "eve").returncode == 0
    found = site.doctor("--profile", str(eves), "web")
    assert failed(found) == ["profile"]
    assert "the client eve is revoked: issue it anew with `./scripts/client.py add eve`" in sentence(found)


def test_profile_on_two_machines_is_named(site: Site) -> None:
    profile = site.project / "local/docker-for-mac.ovpn"
    with connected(site.mac, profile), connected(site.mac, Path(shutil.copy(profile, site.mac.home / "other.ovpn"))):
        eventually(lambda: failed(site.doctor("web")) == ["address"], seconds=60)
        assert "docker-for-mac is used on two machines at once" in sentence(site.doctor("web"))
    site.mac.run("docker", "restart", f"{OURS}vpn-1")  # which forgets that
    eventually(lambda: failed(site.doctor("web")) == ["tunnel"], seconds=60)


def test_fix_asks_and_runs_what_mends_it(site: Site, client: None) -> None:
    site.mac.run("docker", "pause", "web")
    refused = script(site.mac, site.project, "doctor", "web", "--fix")
    assert refused.returncode == 1
    assert "there is no terminal to ask at" in refused.stderr
    assert script(site.mac, site.project, "doctor", "web", "--fix", "--yes").returncode == 0
    assert site.doctor("web")["failed"] is None


def test_names_and_trust_that_are_missing_on_this_computer_are_named_and_fixed(site: Site, client: None) -> None:
    mac = site.mac
    with resolver(mac, "forky") as computer:

        def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
            words = ["env", f"HOME={computer.home}", sys.executable, f"scripts/{name}.py", *arguments]
            return mac.run(*words, cwd=site.project, check=False)

        def found() -> dict[str, Any]:
            return document(run("doctor", "--json", "https://web.d4m.internal").stdout)

        assert failed(found()) == ["names"]
        assert "this computer does not ask the VPN for names, so web.d4m.internal does not resolve" in sentence(found())
        assert run("doctor", "https://web.d4m.internal", "--fix", "--yes").returncode == 0
        eventually(lambda: found()["failed"] is None, seconds=60)
        mac.run("rm", "/usr/local/share/ca-certificates/d4m-devkit.crt")
        assert failed(found()) == ["trust"]
        assert "this computer does not trust the CA for HTTPS (" in sentence(found())
        assert run("doctor", "https://web.d4m.internal", "--fix", "--yes").returncode == 0
        eventually(lambda: found()["failed"] is None, seconds=60)
        assert run("host", "remove", "--yes").returncode == 0


def test_bundle_holds_what_is_needed_and_no_secret(site: Site, client: None) -> None:
    path = site.mac.home / "report.zip"
    assert script(site.mac, site.project, "doctor", "--bundle", str(path)).returncode == 0
    assert path.stat().st_mode & 0o777 == 0o600
    with zipfile.ZipFile(path) as bundle:
        texts = {name: bundle.read(name).decode() for name in bundle.namelist()}
    assert {"doctor.json", "system.txt", "logs/vpn.txt", "logs/firewall.txt", "project/compose.yaml"} <= texts.keys()
    assert "TCP connection established with" in texts["logs/vpn.txt"]
    everything = "".join(texts.values())
    for secret in secrets(site.project / "local"):
        assert secret not in everything


def secrets(local: Path) -> Iterator[str]:
    """The lines of all private keys."""
    for path in local.rglob("*"):
        text = path.read_text(errors="replace") if path.is_file() else ""
        for block in re.findall(r"-----BEGIN [^-]*(?:PRIVATE KEY|key)-----\n(.*?)-----END", text, re.DOTALL):
            yield from (line.strip() for line in block.splitlines() if len(line.strip()) > 20)


def test_wrong_use_is_refused(site: Site) -> None:
    for target in ("a b", "ftp://web", "http://web:99999999", ""):
        run = script(site.mac, site.project, "doctor", "--", target) if target else None
        assert run is None or (run.returncode, run.stdout) == (1, ""), target


def test_superseded_profile_in_the_app_is_named(site: Site) -> None:
    """The last of them: it renews the certificates twice."""
    old = Path(shutil.copy(site.project / "local/docker-for-mac.ovpn", site.mac.home / "old.ovpn"))
    for _ in range(2):
        rotate(site.project, read_answers(site.project), "leaf", False, NOW)
    up(site.mac, site.project)
    with start_client(site.mac, old):
        eventually(lambda: failed(site.doctor("web")) == ["client"], seconds=60)
        said = sentence(site.doctor("web"))
    assert (
        "a VPN app uses an older profile of docker-for-mac, which the server turns away (certificate revoked)" in said
    )
    assert "import local/docker-for-mac.ovpn again, and connect" in said
