"""A shared engine: the lead has the project, teammates have a profile, and the engine sees no folder of theirs."""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, copy_project, snapshot
from tests.docker_desktop import ENGINE_HOST, Engine, Mac, lab, remote_lab
from tests.project.test_readme import commands, git
from tests.tunnel.test_end_to_end import secrets_of
from tests.tunnel.test_upgrade import commit
from tests.vpn import connected, eventually, fetch, script, start_client, up, web

Team = tuple[Engine, Mac, Mac, Mac]


@pytest.fixture(scope="module")
def computers() -> Iterator[Team]:
    with remote_lab(3) as (engine, (lead, alice, bob)):
        yield engine, lead, alice, bob


@pytest.fixture
def team(computers: Team) -> Iterator[Team]:
    """The engine, with nothing on it, and the computers of the lead and of two teammates."""
    yield computers
    engine = computers[0]
    if left := engine.run("docker", "ps", "--all", "--quiet").stdout.split():
        engine.run("docker", "rm", "--force", *left)
    if built := engine.run("docker", "image", "ls", "--quiet", "--filter", "reference=d4m-*").stdout.split():
        engine.run("docker", "image", "rm", "--force", *built)


def handed_over(profile: Path, mate: Mac) -> Path:
    """A teammate's copy of a profile, and all that there is of the project on that computer."""
    return Path(shutil.copy(profile, mate.home / "mine.ovpn"))


def traces(engine: Engine) -> dict[str, str]:
    """What an engine's machine has: containers, networks, volumes, images, rules, devices, and files of a devkit."""
    kinds = ("container", "network", "volume", "image")
    listing = {kind: "\n".join(sorted(engine.run("docker", kind, "ls", "--quiet").stdout.split())) for kind in kinds}
    rules = engine.run("sh", "-c", "iptables-save; nft list ruleset").stdout
    listing["rules"] = re.sub(r"\[\d+:\d+\]|#.*|packets \d+ bytes \d+", "", rules)
    listing["links"] = engine.run("ip", "-brief", "link").stdout
    listing["files"] = engine.run("sh", "-c", "find / -xdev -path /proc -prune -o -name '*computer-*' -print").stdout
    return listing


def test_whole_story_of_a_team(team: Team, tmp_path: Path) -> None:
    engine, lead, alice, bob = team
    before = traces(engine)
    git(tmp_path, "clone", "--quiet", str(REPOSITORY), "template")
    git(tmp_path / "template", "tag", "v1.0.0")
    project = lead.home / "devkit"
    copier = [sys.executable, "-m", "copier"]
    lead.run(*copier, "copy", "--trust", "--defaults", "--quiet", tmp_path / "template", project)
    commit(project)

    # Nobody named the engine's host but Docker's context.
    profile = project / "local/docker-for-mac.ovpn"
    assert remotes(profile) == [f"remote {ENGINE_HOST} 1194"]
    facts = up(lead, project)
    assert facts["endpoint"] == {"host": ENGINE_HOST, "port": 1194, "protocol": "tcp", "listen": "0.0.0.0"}
    assert lead.run("docker", "port", "d4m-devkit-vpn-1").stdout == "1194/tcp -> 0.0.0.0:1194\n"
    assert remotes(profile) == [f"remote {ENGINE_HOST} 1194"]
    page = web(lead, "--name", "web", "--restart", "always")
    assert f"web        bridge   {page}" in script(lead, project, "status").stdout
    assert script(lead, project, "client", "add", "alice", "bob").returncode == 0
    profiles = {mate.home.name: handed_over(project / f"local/clients/{name}.ovpn", mate)
                for name, mate in (("alice", alice), ("bob", bob))}  # fmt: skip
    with connected(alice, profiles[alice.home.name]) as first, start_client(bob, profiles[bob.home.name]) as second:
        second.wait_for("Initialization Sequence Completed")
        assert fetch(alice, page) == fetch(bob, page) == "200"
        listed = script(lead, project, "client", "list").stdout
        assert re.search(r"alice .* 192\.0\.2\.12:\d+ +10\.213\.94\.\d", listed)  # the computer's own address
        # Again: nobody is disturbed.
        up(lead, project)
        assert first.said().count("Initialization Sequence Completed") == 1

        assert script(lead, project, "client", "revoke", "bob").returncode == 0
        second.wait_for("Halt command was pushed by server")
        second.wait_for_end()
        with start_client(bob, profiles[bob.home.name]) as refused_one:
            refused_one.wait_for("AUTH_FAILED")
            refused_one.wait_for_end()
        assert fetch(alice, page) == "200"

        lead.run(*copier, "update", "--trust", "--defaults", "--quiet", "--vcs-ref=:current:", cwd=project)
        commit(project)
        assert "older than what is in this folder" in script(lead, project, "status").stderr
        up(lead, project)
        first.wait_for("Initialization Sequence Completed", times=2)
        eventually(lambda: fetch(alice, page, seconds=2) == "200")

        lead.run("docker", "network", "create", "--subnet", "192.168.7.0/24", "elsewhere")
        outside = web(lead, "--name", "outside", "--network", "elsewhere")
        text = script(lead, project, "up").stdout
        (advice,) = re.findall(r"\./(scripts/routes\.py add .*)", text)
        lead.run(sys.executable, *advice.split(), cwd=project)
        up(lead, project)
        profile = handed_over(project / "local/clients/alice.ovpn", alice)
    with connected(alice, profile) as again:
        assert fetch(alice, outside) == "200"
        engine.kill()
        engine.boot()
        again.wait_for("Initialization Sequence Completed", times=2, seconds=90)
        eventually(lambda: fetch(alice, page, seconds=2) == "200")

    no_secret_is_where_the_engine_shows_it(lead, engine, project)
    lead.run("docker", "rm", "--force", "web", "outside")
    lead.run("docker", "network", "rm", "elsewhere")
    down = script(lead, project, "down", "--images")
    assert down.returncode == 0, down.stderr
    after = traces(engine)
    assert {kind: after[kind] for kind in ("container", "volume", "image", "files")} == {
        kind: before[kind] for kind in ("container", "volume", "image", "files")
    }
    assert not re.search("d4m", after["rules"] + after["links"] + after["network"], re.IGNORECASE)


def remotes(profile: Path) -> list[str]:
    """Where a profile leads."""
    return re.findall("^remote .*$", profile.read_text(), re.MULTILINE)


def test_endpoint_that_is_nobodys_is_named_before_anything_starts(team: Team) -> None:
    """As projects have it whose vpn_host was 127.0.0.1 by default."""
    engine, lead, _, _ = team
    project = copy_project(lead.home / "loopback", vpn_host="127.0.0.1")
    before = traces(engine)
    refused = script(lead, project, "up")
    assert refused.returncode == 1
    assert f"the engine is on {ENGINE_HOST}: change it with `uvx copier update " in refused.stderr
    assert f"--data vpn_host={ENGINE_HOST}`" in refused.stderr
    assert traces(engine) == before


def test_context_that_leads_elsewhere_starts_nothing_and_changes_no_profile(team: Team, tmp_path: Path) -> None:
    engine, lead, _, _ = team
    git(tmp_path, "clone", "--quiet", str(REPOSITORY), "template")
    git(tmp_path / "template", "tag", "v1.0.0")
    project = lead.home / "moved"
    copier = [sys.executable, "-m", "copier"]
    lead.run(*copier, "copy", "--trust", "--defaults", "--quiet", tmp_path / "template", project)
    commit(project)
    # One more address of the machine stands in for another engine, which would take the project.
    engine.run("ip", "address", "add", "192.0.2.2/24", "dev", "lan")
    for name, address in (("by-address", "192.0.2.1"), ("elsewhere", "192.0.2.2")):
        lead.run("docker", "context", "create", name, "--docker", f"host=ssh://root@{address}")
    try:
        lead.run("docker", "context", "use", "elsewhere")
        before, files = traces(engine), snapshot(project)
        refused = script(lead, project, "up")
        assert refused.returncode == 1
        (sentence,) = refused.stderr.splitlines()
        assert f"this project's server is on {ENGINE_HOST}, and Docker's context leads to 192.0.2.2 now" in sentence
        assert "`docker context use NAME`" in sentence
        assert traces(engine) == before
        assert snapshot(project) == files
        # The one way out: the context. Another name of the same machine is as good.
        lead.run("docker", "context", "use", "by-address")
        up(lead, project)
        assert script(lead, project, "down").returncode == 0
        # The other one: the answer.
        lead.run("docker", "context", "use", "elsewhere")
        (advice,) = re.findall(r"`uvx copier (update [^`]*)`", sentence)
        lead.run(*copier, *advice.split(), "--quiet", cwd=project)
        assert remotes(project / "local/docker-for-mac.ovpn") == ["remote 192.0.2.2 1194"]
        up(lead, project)
        assert lead.run("docker", "port", "d4m-devkit-vpn-1").stdout == "1194/tcp -> 192.0.2.2:1194\n"
        assert script(lead, project, "down", "--images").returncode == 0
    finally:
        lead.run("docker", "context", "use", "engine")


def no_secret_is_where_the_engine_shows_it(lead: Mac, engine: Engine, project: Path) -> None:
    secrets = secrets_of(project)
    shown = lead.run("docker", "inspect", "d4m-devkit-vpn-1", "d4m-devkit-firewall-1", "d4m-devkit-gateway").stdout
    shown += lead.run("docker", "volume", "inspect", "d4m-devkit_server", "d4m-devkit_configs").stdout
    shown += lead.run("docker", "compose", "logs", cwd=project).stdout
    shown += lead.run("docker", "history", "--no-trunc", "d4m-devkit-gateway").stdout
    shown += engine.run("sh", "-c", "cat /proc/*/environ /proc/*/cmdline | tr '\\0' '\\n'").stdout
    for secret in secrets:
        assert secret not in shown
    modes = engine.run("sh", "-c", "cd /var/lib/docker/volumes/d4m-devkit_configs/_data && stat --format '%n %a %U' "
                       "server.key tls-crypt-v2.key crl.pem ccd").stdout.splitlines()  # fmt: skip
    assert modes == ["server.key 600 root", "tls-crypt-v2.key 600 root", "crl.pem 644 root", "ccd 755 root"]


def test_second_clone_without_the_keys_is_refused_and_changes_nothing(team: Team) -> None:
    engine, lead, alice, _ = team
    answers = {"vpn_host": ENGINE_HOST}
    first = copy_project(lead.home / "first", **answers)
    second = copy_project(alice.home / "first", **answers)
    up(lead, first)
    running, files = traces(engine), snapshot(second)
    refused = script(alice, second, "up")
    assert refused.returncode == 1
    assert f"another devkit, d4m-devkit in {first}, is on this engine" in refused.stderr
    assert script(alice, second, "status").returncode == 1
    down = script(alice, second, "down", "--images")
    assert down.returncode == 1
    assert "nothing was taken down" in down.stderr
    assert traces(engine) == running
    assert snapshot(second) == files
    # With the keys, from whichever computer and folder, it is the same devkit.
    shutil.copytree(first, alice.home / "moved", symlinks=True)
    up(alice, alice.home / "moved")
    assert script(alice, alice.home / "moved", "down").returncode == 0


def test_port_of_the_engines_machine_that_is_taken_is_named(team: Team) -> None:
    engine, lead, _, _ = team
    project = copy_project(lead.home / "taken", vpn_host=ENGINE_HOST)
    socket = "IO::Socket::INET->new(LocalAddr => q(192.0.2.1:1194), Listen => 1)"
    listen = f"perl -MIO::Socket -e '$s = {socket} or die; sleep 60'"
    listener = engine.run("sh", "-c", f"{listen} > /dev/null 2>&1 & echo $!").stdout.strip()
    eventually(lambda: "1194" in engine.run("ss", "-Htln").stdout)
    refused = script(lead, project, "up")
    assert refused.returncode == 1
    assert "is taken by another program on the engine's machine" in refused.stderr
    engine.run("sh", "-c", f"kill {listener}")
    assert not lead.run("docker", "ps", "--all", "--quiet").stdout


def test_engine_behind_tls_for_a_project_that_was_made_without_docker(team: Team) -> None:
    _, lead, alice, _ = team
    project = copy_project(lead.home / "by-tls")
    (project / "local/pki/vpn-host").unlink(missing_ok=True)  # this machine may have it
    assert remotes(project / "local/docker-for-mac.ovpn") == ["remote 127.0.0.1 1194"]
    lead.run("docker", "context", "use", "engine-tls")
    said = script(lead, project, "up")
    assert said.returncode == 0, said.stderr
    assert f"The profiles lead to {ENGINE_HOST} now, as Docker's context does: import them again." in said.stderr
    page = web(lead)
    with connected(alice, handed_over(project / "local/docker-for-mac.ovpn", alice)):
        assert fetch(alice, page) == "200"
    assert script(lead, project, "down", "--images").returncode == 0
    lead.run("docker", "context", "use", "engine")


def test_folder_that_a_local_engine_does_not_see(pristine: Path, tmp_path: Path) -> None:
    """As outside of Docker Desktop's file sharing."""
    with lab() as (mac, engine):
        project = tmp_path / "devkit"
        shutil.copytree(pristine, project, symlinks=True)
        up(mac, project)
        page = web(mac)
        with connected(mac, project / "local/docker-for-mac.ovpn"):
            assert fetch(mac, page) == "200"
        assert engine.run("sh", "-c", f"ls -d {tmp_path} 2> /dev/null || echo none").stdout == "none\n"
        assert script(mac, project, "down", "--images").returncode == 0
        assert not mac.run("docker", "volume", "ls", "--quiet").stdout


def test_every_command_of_the_teams_page_works_in_its_order(team: Team, tmp_path: Path) -> None:
    _, lead, alice, _ = team
    git(tmp_path, "clone", "--quiet", str(REPOSITORY), "template")
    git(tmp_path / "template", "tag", "v1.0.0")
    folder = lead.home / "as-documented"
    folder.mkdir()
    typed = commands(REPOSITORY / "docs/team.md")
    assert len(typed) == 5
    for command in typed:
        words = command.replace("gh:org/d4m-devkit", str(tmp_path / "template")).split()
        if words[0] == "cd":
            folder /= words[1]
        elif words[0] == "sudo":
            shutil.copy(folder / "local/clients" / words[-1], alice.home)
            with connected(alice, alice.home / words[-1], words[1:2]):
                assert fetch(alice, web(lead)) == "200"
        elif words[0] == "uvx":
            lead.run(sys.executable, "-m", *words[1:], "--defaults", cwd=folder)
        else:
            lead.run(*words, cwd=folder)
    assert script(lead, folder, "down").returncode == 0
