"""`host.py` on a computer with a systemd of its own, in front of the project's real server: names, and what is left."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from devkit.vpn.openvpn.profile import HTTPS_ROOT_HEADER

from tests.conftest import REPOSITORY, copy_project, snapshot
from tests.docker_desktop import Mac, mac_alone
from tests.docker_desktop.cache import musl_look_up
from tests.docker_desktop.computer import Computer, resolver
from tests.names import DOMAINS, NAME_SERVER, PAGE, REMOTE, Behind, serve, with_names
from tests.project.test_readme import commands
from tests.schema import document
from tests.vpn import connected, eventually

WEB = "web.d4m.internal"
HOST = REPOSITORY / "scripts/host.py"
SUITES = ("forky", pytest.param("trixie", marks=pytest.mark.further))


@pytest.fixture(scope="module")
def remote_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_project(tmp_path_factory.mktemp("remote") / "devkit", **REMOTE)


@pytest.fixture(scope="module", params=SUITES)
def computer(request: pytest.FixtureRequest) -> Iterator[Computer]:
    with mac_alone() as mac, resolver(mac, request.param) as booted:
        mac.run("update-ca-certificates")  # what somebody put there by hand would change with ours
        yield booted


@pytest.fixture(scope="module")
def mac(computer: Computer) -> Mac:
    return computer.mac


@pytest.fixture(scope="module")
def behind(computer: Computer, remote_project: Path) -> Behind:
    return serve(computer.mac, computer, remote_project)


@pytest.fixture(autouse=True)
def nothing_of_ours(mac: Mac) -> Iterator[None]:
    yield
    host(mac, "remove", "--yes")


def host(mac: Mac, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `host.py` from a clone, as who has a profile and no project."""
    return mac.run(sys.executable, HOST, *arguments, check=False)


def install(mac: Mac, behind: Behind) -> subprocess.CompletedProcess[str]:
    run = host(mac, "install", "--yes", "--profile", behind.profile)
    assert run.returncode == 0, run.stdout + run.stderr
    return run


def etc(mac: Mac) -> dict[str, tuple[int, bytes]]:
    """All that is below the Mac's /etc, but for Java's CAs, which list the same and are other bytes: test_trust.py."""
    found = snapshot(Path(f"/proc/{mac.process_id}/root/etc"))
    return {path: content for path, content in found.items() if path != "ssl/certs/java/cacerts"}


def domains(mac: Mac) -> str:
    """All that systemd-resolved says of domains."""
    return mac.run("resolvectl").stdout


def address(mac: Mac, name: str) -> str:
    """The address that glibc finds for a name, which may be none."""
    return mac.run("getent", "ahostsv4", name, check=False).stdout.partition(" ")[0]


def wait_for_names(mac: Mac, name: str = WEB) -> None:
    eventually(lambda: address(mac, name) == PAGE, seconds=10)


def test_every_kind_of_program_finds_names(mac: Mac, behind: Behind, computer: Computer) -> None:
    fetch = ["curl", "--silent", "--max-time", "5", f"http://{WEB}/"]
    browse = ["chromium-headless-shell", "--no-sandbox", "--dump-dom", f"http://{WEB}/"]
    with connected(mac, behind.profile):
        assert mac.run(*fetch, check=False).returncode == 6  # no such host
        if computer.suite == "forky":
            assert "ERR_NAME_NOT_RESOLVED" in computer.run(*browse, check=False).stderr
        install(mac, behind)
        assert "Behind the VPN" in mac.run(*fetch).stdout
        assert mac.run(musl_look_up(), WEB).stdout.split() == [PAGE]
        assert f"PING {WEB} ({PAGE})" in mac.run("ping", "-c", "1", WEB).stdout
        assert mac.run("getent", "hosts", PAGE).stdout.split() == [PAGE, WEB]
        assert address(mac, "kubernetes.default.svc.cluster.local") == PAGE
        assert address(mac, "www.example.org") == "198.51.100.80"
        if computer.suite == "forky":
            assert "Behind the VPN" in computer.run(*browse).stdout


def test_no_other_name_goes_into_the_tunnel_and_none_of_it_elsewhere(
    mac: Mac, behind: Behind, computer: Computer
) -> None:
    install(mac, behind)
    go_on = mac.home / "go-on"
    ask_on = f"name=0; while [ -e {go_on} ]; do name=$((name + 1)); getent ahostsv4 $name.example.com; done"
    with go_on.open("w") as found:
        asking = mac.start("sh", "-c", ask_on, output=found)
    with connected(mac, behind.profile):
        wait_for_names(mac)
        go_on.unlink()
        asking.wait()
        assert [name for name in behind.names.asked() if not name.endswith(DOMAINS)] == []
        behind.names.forget()
        computer.office.names.forget()
        mac.run("resolvectl", "flush-caches")
        for name in (WEB, "www.example.org", "d4m.internal.example.com", "internal", "web", "deep.down.d4m.internal"):
            address(mac, name)
        for number in (PAGE, "198.51.100.80", "10.1.2.3"):
            mac.run("getent", "hosts", number, check=False)
        inside, outside = set(behind.names.asked()), set(computer.office.names.asked())
    assert inside == {WEB, "deep.down.d4m.internal", "2.0.17.172.in-addr.arpa"}
    assert outside == {"www.example.org", "d4m.internal.example.com", "80.100.51.198.in-addr.arpa",
                       "3.2.1.10.in-addr.arpa"}  # fmt: skip


def test_names_come_back_with_the_vpn_and_with_the_computer(mac: Mac, behind: Behind, computer: Computer) -> None:
    install(mac, behind)
    for again in ("first", "reconnected", "rebooted"):
        if again == "rebooted":
            computer.kill()
            computer.boot()
        # What was asked for while nobody could answer is found as soon as somebody can.
        name = f"{again}.d4m.internal"
        assert address(mac, name) == ""
        with connected(mac, behind.profile):
            wait_for_names(mac, name)
            mac.run("systemctl", "restart", "systemd-resolved")
            wait_for_names(mac, name)
            assert address(mac, "www.example.org") == "198.51.100.80"


def test_installing_twice_writes_once(mac: Mac, behind: Behind) -> None:
    first = install(mac, behind)
    assert "tee" in first.stdout
    listing = ["find", "/etc/systemd", "/etc/udev", "-printf", "%p %i %T@ %C@\n"]
    before = mac.run(*listing).stdout
    again = install(mac, behind)
    assert again.stdout == ""
    assert "will resolve once the VPN is connected" in again.stderr
    assert mac.run(*listing).stdout == before


def test_removing_leaves_the_computer_as_it_was(mac: Mac, behind: Behind) -> None:
    before, resolving = etc(mac), domains(mac)
    install(mac, behind)
    assert etc(mac) != before
    assert host(mac, "remove", "--yes").returncode == 0
    assert etc(mac) == before
    assert domains(mac) == resolving
    again = host(mac, "remove", "--yes")
    assert (again.returncode, again.stdout) == (0, "")


def test_removing_while_connected_ends_the_names_at_once(mac: Mac, behind: Behind) -> None:
    with connected(mac, behind.profile):
        install(mac, behind)
        assert address(mac, WEB) == PAGE
        host(mac, "remove", "--yes")
        assert address(mac, WEB) == ""


def test_what_is_right_but_was_not_read_is_read(mac: Mac, behind: Behind) -> None:
    install(mac, behind)
    with connected(mac, behind.profile):
        wait_for_names(mac)
        mac.run("systemctl", "stop", "d4m-devkit-names@*.service")
        status = host(mac, "status", "--profile", behind.profile)
        assert status.returncode == 3
        assert "d4m.internal does not resolve" in status.stdout
        assert "d4m.internal resolves" in install(mac, behind).stderr
        assert address(mac, WEB) == PAGE


def test_other_domains_replace_those_of_before(mac: Mac, behind: Behind, tmp_path: Path) -> None:
    install(mac, behind)
    other = mac.home / "other.ovpn"
    without_root = behind.profile.read_text().replace(HTTPS_ROOT_HEADER, "")
    other.write_text(with_names(without_root, ("shop.example",)))
    assert host(mac, "status", "--profile", other).stdout.count("stale") == 1
    run = host(mac, "install", "--yes", "--profile", other)
    assert run.stdout.count("tee ") == 1
    with connected(mac, behind.profile):
        eventually(lambda: "~shop.example" in domains(mac))
        assert "~d4m.internal" not in domains(mac)
        assert address(mac, WEB) == ""


def test_file_of_somebody_else_is_refused_and_stays(mac: Mac, behind: Behind) -> None:
    (missing,) = re.findall(r"missing +(\S+)\n", host(mac, "status", "--profile", behind.profile).stdout)[:1]
    mac.run("sh", "-c", f"mkdir -p $(dirname {missing}) && echo theirs > {missing}")
    before = etc(mac)
    run = host(mac, "install", "--yes", "--profile", behind.profile)
    assert run.returncode == 3  # it is trusted all the same
    assert f"{missing} is there already, and is not ours" in run.stderr
    host(mac, "remove", "--yes")
    assert etc(mac) == before
    mac.run("rm", missing)
    mac.run("rmdir", "--ignore-fail-on-non-empty", str(Path(missing).parent))


def test_status_says_in_order_what_is_right(mac: Mac, behind: Behind) -> None:
    def status(*options: str) -> subprocess.CompletedProcess[str]:
        return host(mac, "status", "--profile", str(behind.profile), *options)

    assert status().returncode == 3
    assert "missing" in status().stdout
    install(mac, behind)
    facts = document(status("--json").stdout)
    assert facts["name_server"] == NAME_SERVER
    assert facts["domains"] == [*DOMAINS]
    assert {setting["state"] for setting in facts["settings"]} == {"right"}
    assert (facts["connected"], facts["resolves"], status().returncode) == (False, None, 0)
    with connected(mac, behind.profile):
        wait_for_names(mac)
        facts = document(status("--json").stdout)
        assert (facts["connected"], facts["resolves"], status().returncode) == (True, True, 0)
        assert "d4m.internal resolves" in status().stdout


def test_asks_once_at_a_terminal_and_does_nothing_without(mac: Mac, behind: Behind) -> None:
    def answered(answer: str) -> str:
        typed = f"{sys.executable} {HOST} install --profile {behind.profile}"
        at_terminal = f"echo {answer} | script --quiet --return --command '{typed}' /dev/null"
        return mac.run("sh", "-c", at_terminal, check=False).stdout

    before = etc(mac)
    nobody = host(mac, "install", "--profile", behind.profile)
    assert nobody.returncode == 1
    assert "run this again with --yes" in nobody.stderr
    assert "nothing was done" in answered("n")
    assert etc(mac) == before
    said = answered("y")
    assert said.count("Do that?") == 1
    assert "will resolve once" in said
    assert etc(mac) != before


def test_project_knows_its_own_names(mac: Mac, behind: Behind, remote_project: Path) -> None:
    project = mac.home / "devkit"
    mac.run("cp", "--archive", remote_project, project)
    for command in commands(REPOSITORY / "docs/names.md"):
        words = command.replace("./scripts", "scripts").replace("alice.ovpn", str(behind.profile)).split()
        ran = mac.run(sys.executable, *words, *([] if "status" in words else ["--yes"]), cwd=project, check=False)
        assert ran.returncode == 0, ran.stderr
    assert "~d4m.internal" not in str(etc(mac))  # the last command is `remove`


def test_project_without_names_says_so(mac: Mac, remote_project: Path) -> None:
    nameless = mac.home / "nameless.ovpn"
    profile = (remote_project / "local/docker-for-mac.ovpn").read_text()
    nameless.write_text("".join(line for line in profile.splitlines(True) if not line.startswith("dns server 0 ")))
    run = host(mac, "install", "--yes", "--profile", nameless)
    assert run.returncode == 1
    assert "names nobody who answers names" in run.stderr
