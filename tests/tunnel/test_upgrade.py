"""What runs under another name or in another layout after an update, `up.py` replaces; profiles go on working."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from devkit.sites.ownership import SERVICES

from tests.conftest import REPOSITORY, copy_project
from tests.docker_desktop import lab
from tests.project.test_readme import git
from tests.schema import document
from tests.vpn import connected, eventually, fetch, script, up, web


def template_of_before(folder: Path, removed: str) -> Path:
    """A clone of this template with two versions: v1.0.0, the last that had a file which is gone, and v2.0.0."""
    git(folder, "clone", "--quiet", str(REPOSITORY), "template")
    log = ["git", "log", "--format=%H", "--diff-filter=D", "--max-count=1", "--", removed]
    changed = subprocess.run(log, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout.strip()
    git(folder / "template", "tag", "v1.0.0", f"{changed}^")
    git(folder / "template", "tag", "v2.0.0")
    return folder / "template"


def commit(project: Path) -> None:
    if not (project / ".git").exists():
        git(project, "init", "--quiet")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--allow-empty", "--message", "devkit")


@pytest.mark.further
def test_former_layout_is_replaced_and_its_profiles_go_on_working(tmp_path: Path) -> None:
    template = template_of_before(tmp_path, "template/gateway/relay.sh")  # whose server was in the host network
    with lab() as (mac, engine):
        project = mac.home / "devkit"
        copier = [sys.executable, "-m", "copier"]
        mac.run(*copier, "copy", "--trust", "--defaults", "--quiet", "--vcs-ref=v1.0.0", template, project)
        up(mac, project)
        web(mac, "--name", "web")
        assert "d4m0" in engine.run("ip", "-brief", "link").stdout
        with connected(mac, project / "local/docker-for-mac.ovpn") as client:
            assert fetch(mac, "172.17.0.2") == "200"
            # This one cannot take its rules away.
            mac.run("docker", "kill", "--signal", "KILL", "d4m-devkit-firewall-1")
            commit(project)
            mac.run(*copier, "update", "--trust", "--defaults", "--quiet", cwd=project)
            assert "older than what is in this folder" in script(mac, project, "status").stderr
            up(mac, project)
            client.wait_for("Initialization Sequence Completed", times=2)
            eventually(lambda: fetch(mac, "172.17.0.2", seconds=2) == "200")
        names = mac.run("docker", "ps", "--all", "--format", "{{.Names}}").stdout.split()
        assert sorted(names) == [*(f"d4m-devkit-{service}-1" for service in sorted(SERVICES)), "web"]
        assert "relay" not in mac.run("docker", "network", "ls").stdout
        assert "d4m0" not in engine.run("ip", "-brief", "link").stdout
        assert "d4m0" not in engine.run("iptables-save").stdout
        assert script(mac, project, "down", "--images").returncode == 0
        assert "d4m" not in engine.run("iptables-save").stdout.lower()
        assert "d4m" not in mac.run("docker", "image", "ls").stdout


def test_project_of_before_the_lanes_keeps_its_keys_clients_and_edits(tmp_path: Path) -> None:
    template = template_of_before(tmp_path, "scripts/devkit/stack.py")
    with lab() as (mac, _):
        project = mac.home / "devkit"
        copier = [sys.executable, "-m", "copier"]
        mac.run(*copier, "copy", "--trust", "--defaults", "--quiet", "--vcs-ref=v1.0.0", template, project)
        assert script(mac, project, "client", "add", "alice", "bob").returncode == 0
        with (project / "server/server.conf").open("a") as configuration:
            configuration.write("max-clients 7\n")
        up(mac, project)
        assert script(mac, project, "client", "revoke", "bob").returncode == 0
        address = web(mac)
        profile = shutil.copy(project / "local/clients/alice.ovpn", mac.home / "alice.ovpn")
        ca = (project / "local/configs/ca.crt").read_bytes()
        with connected(mac, Path(profile)) as client:
            assert fetch(mac, address) == "200"
            commit(project)
            mac.run(*copier, "update", "--trust", "--defaults", "--quiet", cwd=project)
            up(mac, project)
            client.wait_for("Initialization Sequence Completed", times=2)
            assert fetch(mac, address) == "200"
        assert (project / "local/configs/ca.crt").read_bytes() == ca
        assert "max-clients 7" in (project / "server/server.conf").read_text()
        facts = document(script(mac, project, "client", "list", "--json").stdout)
        assert {one["name"]: one["revoked"] for one in facts["clients"]} == {
            "alice": False, "bob": True, "docker-for-mac": False,
        }  # fmt: skip
        with connected(mac, project / "local/clients/alice.ovpn"):
            assert fetch(mac, address) == "200"
        assert script(mac, project, "down", "--images").returncode == 0


def test_project_that_was_renamed_is_the_same_project(tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", str(REPOSITORY), "template")
    with lab() as (mac, engine):
        project = mac.home / "devkit"
        copier = [sys.executable, "-m", "copier"]
        mac.run(*copier, "copy", "--trust", "--defaults", "--quiet", "--vcs-ref=HEAD", tmp_path / "template", project)
        up(mac, project)
        with connected(mac, project / "local/docker-for-mac.ovpn") as client:
            commit(project)
            rename = ["--vcs-ref=:current:", "--data", "rotate=none", "--data", "project_name=renamed"]
            mac.run(*copier, "update", "--trust", "--defaults", "--quiet", *rename, cwd=project)
            up(mac, project)
            client.wait_for("Initialization Sequence Completed", times=2)
            assert fetch(mac, web(mac)) == "200"
        with connected(mac, project / "local/docker-for-mac.ovpn"):
            pass
        left = mac.run("docker", "ps", "--all").stdout + mac.run("docker", "network", "ls").stdout
        assert "d4m-devkit-vpn" not in left
        assert "d4m-devkit_vpn" not in left
        commit(project)
        mac.run(*copier, "update", "--trust", "--defaults", "--quiet", *rename[:-1], "project_name=again", cwd=project)
        # Not even `up.py` is needed between.
        assert script(mac, project, "down", "--images").returncode == 0
        assert "gateway" not in mac.run("docker", "image", "ls").stdout
        assert "renamed" not in mac.run("docker", "ps", "--all").stdout + mac.run("docker", "network", "ls").stdout
        assert "d4m" not in engine.run("iptables-save").stdout.lower()


def test_second_project_of_the_same_name_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with lab() as (mac, _):
        first, second = copy_project(mac.home / "first"), copy_project(mac.home / "second", vpn_port=1195)
        up(mac, first)
        running = mac.run("docker", "ps", "--quiet").stdout
        for _ in ("running", "stopped"):
            refused = script(mac, second, "up")
            assert refused.returncode == 1
            assert f"another devkit, d4m-devkit in {first}, is on this engine" in refused.stderr
            mac.run("docker", "compose", "stop", cwd=first)
        assert mac.run("docker", "ps", "--all", "--quiet").stdout == running
        assert script(mac, first, "down").returncode == 0
        # Somebody else's volume is not emptied for ours.
        mac.run("docker", "volume", "create", "d4m-devkit_configs")
        refused = script(mac, second, "up")
        assert refused.returncode == 1
        assert "the volume d4m-devkit_configs on this engine is not this project's" in refused.stderr
        mac.run("docker", "volume", "rm", "d4m-devkit_configs")
        # A project of somebody else's with that name is not taken over either.
        (mac.home / "third").mkdir()
        (mac.home / "third/compose.yaml").write_text("name: d4m-devkit\nservices: {one: {image: 'nginx:debian'}}\n")
        mac.run("docker", "compose", "up", "--detach", cwd=mac.home / "third")
        refused = script(mac, second, "up")
        assert refused.returncode == 1
        assert "give this one another name with" in refused.stderr
        assert "third" in refused.stderr
