"""Every command of the two READMEs is run, as it stands there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.lab_cluster import Cluster, cluster
from tests.conftest import REPOSITORY, copy_project
from tests.lab import lab
from tests.vpn import connected, web

BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)


def commands(readme: Path) -> list[str]:
    """The commands in a README's shell blocks, without their comments."""
    blocks = [block.replace("\\\n", "") for block in BLOCK.findall(readme.read_text())]
    lines = [line for block in blocks for line in block.splitlines()]
    return [command for line in lines if (command := line.split("  #")[0].strip())]


class Newcomer:
    """Types commands on the Mac, and keeps the folder that `cd` went to."""

    def __init__(self, cluster: Cluster, template: Path) -> None:
        self._cluster = cluster
        self._template = template
        self.folder = cluster.mac.home

    def type(self, command: str) -> str:
        """Run a command and return what it prints."""
        words = shlex.split(command)
        if words[0] == "cd":
            self.folder /= words[1]
            return ""
        if words[0] == "open":  # macOS's own; here, the bundle must be what Tunnelblick opens
            assert (self.folder / words[1] / "Contents/Resources/config.ovpn").exists()
            return ""
        words = [str(self._template) if word == "gh:org/d4m-devkit" else word for word in words]
        if words[0] == "git":
            identity = "-c user.name=Test -c user.email=test@example.org"
            words = ["sh", "-c", command.replace("git commit", f"git {identity} commit")]
        if "|" in words or ">" in words:
            words = ["sh", "-c", command]
        if words[0] == "copier":
            words = [sys.executable, "-m", "copier", words[1], "--defaults", *words[2:]]
        if words[0] == "python":
            words[0] = sys.executable
        run = self._cluster.run(*words, cwd=self.folder)
        assert run.returncode == 0, f"{command}: {run.stdout}{run.stderr}"
        return run.stdout


def git(folder: Path, *command: str) -> None:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *identity, *command], cwd=folder, check=True, capture_output=True)


def test_every_command_of_the_readme_works_in_its_order(tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", str(REPOSITORY), "template")
    git(tmp_path / "template", "tag", "v1.0.0")
    typed = commands(REPOSITORY / "README.md")
    makes = [command.removeprefix("make ") for command in typed if command.startswith("make ")]
    assert makes == ["demo", "test", "test-all", "bench"]
    with lab() as (mac, engine), cluster(mac, engine, pod_cidr="10.1.0.0/24") as one:
        newcomer = Newcomer(one, tmp_path / "template")
        web(mac, "--name", "web")
        for command in typed:
            if command.startswith("make"):
                continue  # the demo has tests of its own; this is `make test`; the benchmark is only a measurement
            if command.startswith("copier copy") and newcomer.folder != mac.home:
                newcomer.type("python scripts/down.py")  # both would publish one port
                newcomer.folder = mac.home
                one.start_web("web")
            if command == "curl http://127.0.0.1":
                continue  # tests/test_ingress.py runs the controller for real and asks it
            if command.startswith("curl"):
                with connected(mac, newcomer.folder / "local/docker-for-mac.ovpn"):
                    assert "Welcome to nginx" in newcomer.type(command)
            else:
                said = newcomer.type(command)
                if command == "python scripts/up.py":
                    assert re.search(r"web +bridge +172\.17\.0\.2 +http://172\.17\.0\.2 +yes", said)
                if command == "python scripts/up.py --kubernetes":
                    assert re.search(r"Service +default +web +10\.96\.145\.10 +http://10\.96\.145\.10 +yes", said)
                    assert re.search(r"Pod +default +web +10\.1\.0\.2 +http://10\.1\.0\.2 +yes", said)
                if command.endswith("--values our-own.yaml"):
                    volumes = {volume["name"]: volume for volume in one.pod("devkit-0")["spec"]["volumes"]}
                    assert volumes["configs"]["secret"]["secretName"] == "our-own"
            if command.startswith("cd"):
                git(newcomer.folder, "init", "--quiet")
                git(newcomer.folder, "add", "--all")
                git(newcomer.folder, "commit", "--quiet", "--message", "devkit")


def test_every_command_of_the_projects_own_readme_works_in_its_order(tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", str(REPOSITORY), "template")
    git(tmp_path / "template", "tag", "v1.0.0")
    with lab() as (mac, engine), cluster(mac, engine) as one:
        newcomer = Newcomer(one, tmp_path / "template")
        newcomer.type("copier copy --trust --quiet gh:org/d4m-devkit ./devkit")
        newcomer.type("cd devkit")
        typed = commands(newcomer.folder / "README.md")
        assert len(typed) > 8
        # `down.py` comes last; and before it goes to the cluster, or both would publish one port.
        for command in sorted(typed, key=lambda command: (in_cluster(command), "down.py" in command)):
            newcomer.type(command)


def in_cluster(command: str) -> int:
    """Whether a command is about the cluster; `helm` comes when the scripts are done with it."""
    return 2 if command.startswith("helm") else 1 if "--kubernetes" in command else 0


@pytest.mark.parametrize("readme", ["README.md", "template/README.md.jinja"])
def test_readme_names_no_file_that_is_not_there(readme: str, tmp_path: Path) -> None:
    project = copy_project(tmp_path / "devkit")
    text = (REPOSITORY / readme).read_text().replace("{{ client_name }}", "docker-for-mac")
    for name in set(re.findall(r"`((?:scripts|gateway|server|client|local|tests)/[\w./-]*)", text)):
        assert (project / name).exists() or (REPOSITORY / name).exists() or "alice" in name, name


def test_make_targets_of_the_readme_exist() -> None:
    for command in commands(REPOSITORY / "README.md"):
        if command.startswith("make"):
            subprocess.run(["make", "--dry-run", command.split()[1]], cwd=REPOSITORY, check=True, capture_output=True)
