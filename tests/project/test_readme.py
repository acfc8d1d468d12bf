"""Every command of the documents is run, as it stands there, and what they name is there."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.docker_desktop import lab
from tests.docker_desktop.cache import CACHE
from tests.kubernetes.lab_cluster import Cluster, cluster
from tests.vpn import connected, web

BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
# One newcomer reads these, one after the other.
PAGES = ("README.md", "docs/clients.md", "docs/json.md", "docs/doctor.md", "docs/security.md", "docs/kubernetes.md")
FOR_DEVELOPERS = ("docs/development.md", "CONTRIBUTING.md")  # they have nothing but `make`
FOR_TEAMS = ("docs/team.md",)  # tests/tunnel/test_shared_engine.py
FOR_COMPUTERS = ("docs/names.md",)  # tests/tunnel/test_host.py
DOCUMENTS = sorted(
    str(path.relative_to(REPOSITORY)) for path in (*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md"))
)


def commands(readme: Path) -> list[str]:
    """The commands in a README's shell blocks, without their comments."""
    blocks = [block.replace("\\\n", "") for block in BLOCK.findall(readme.read_text())]
    lines = [line for block in blocks for line in block.splitlines()]
    return [command for line in lines if (command := line.split("  #")[0].strip())]


@pytest.fixture(scope="module")
def uv() -> Iterator[Mapping[str, str]]:
    """The environment of a uv which has all that it needs already, because a lab's Mac reaches no package index."""
    environment = {"UV_CACHE_DIR": str(CACHE / "uv"), "UV_PYTHON": sys.executable}
    program = f"{Path(sys.executable).parent}/uv"
    for what in (["tool", "run", "copier", "--version"], ["run", "--script", f"{REPOSITORY}/scripts/up.py", "--help"]):
        subprocess.run([program, *what], env=os.environ | environment, check=True, capture_output=True)
    yield environment | {"UV_OFFLINE": "1"}
    for environments in (CACHE / "uv").glob("environments-*"):  # one for each script of each project
        shutil.rmtree(environments)


class Newcomer:
    """Types commands on the Mac, and keeps the folder that `cd` went to.

    As on a Mac, there is no `python`, and `python3` has no packages. `copier` is not installed either.
    """

    def __init__(self, cluster: Cluster, template: Path, uv: Mapping[str, str]) -> None:
        self._cluster = cluster
        self._template = template
        self.folder = cluster.mac.home
        author = {f"GIT_{role}_{what}": "test" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        path = {"PATH": str(self._programs(cluster.environment["PATH"]))}
        self._environment = {**cluster.environment, **uv, **author, **path}

    def _programs(self, path: str) -> Path:
        """A folder of links to what is on a PATH."""
        folder = self._cluster.mac.home / "programs"
        folder.mkdir()
        for program in (program for place in path.split(":") for program in Path(place).glob("*")):
            link = folder / program.name
            if not program.name.startswith(("python", "copier")) and not link.is_symlink():
                link.symlink_to(program)
        (folder / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
        (folder / "python3").chmod(0o755)
        return folder

    def type(self, command: str) -> str:
        """Run a command and return what it prints."""
        words = shlex.split(command)
        if words[0] == "cd":
            self.folder /= words[1]
            return ""
        if words[0] == "open":  # macOS's own; here, the bundle must be what Tunnelblick opens
            assert (self.folder / words[1] / "Contents/Resources/config.ovpn").exists()
            return ""
        line = command.replace("gh:org/d4m-devkit", str(self._template))
        line = line.replace("uvx copier copy", "uvx copier copy --defaults")  # which is the only one that asks
        environment = [f"{name}={value}" for name, value in self._environment.items()]
        run = self._cluster.mac.run("env", *environment, "sh", "-c", line, cwd=self.folder, check=False)
        assert run.returncode == 0, f"{command}: {run.stdout}{run.stderr}"
        return run.stdout

    def type_as_is_meant(self, command: str) -> str:
        """The same, connected where it would say that nobody is."""
        if command.startswith(("./scripts/status.py", "./scripts/doctor.py")):
            with connected(self._cluster.mac, self.folder / "local/docker-for-mac.ovpn"):
                return self.type(command)
        return self.type(command)


def git(folder: Path, *command: str) -> None:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *identity, *command], cwd=folder, check=True, capture_output=True)


def released(template: Path, version: str) -> None:
    """Make one more version of the template."""
    git(template, "commit", "--quiet", "--allow-empty", "--message", version)
    git(template, "tag", version)


def test_every_command_of_the_documents_works_in_its_order(tmp_path: Path, uv: Mapping[str, str]) -> None:
    git(tmp_path, "clone", "--quiet", str(REPOSITORY), "template")
    released(tmp_path / "template", "v1.0.0")
    typed = [(page, command) for page in PAGES for command in commands(REPOSITORY / page)]
    with lab() as (mac, engine), cluster(mac, engine, pod_cidr="10.1.0.0/24") as one:
        newcomer = Newcomer(one, tmp_path / "template", uv)
        with pytest.raises(AssertionError, match="not found"):
            newcomer.type("python --version")
        web(mac, "--name", "web")
        for page, command in typed:
            if command.startswith("make"):
                continue  # the demo has tests of its own; this is `make test`
            if command == "curl http://127.0.0.1":
                continue  # tests/cluster/test_ingress.py runs the controller for real and asks it
            if command.startswith("uvx copier copy") and page == "docs/kubernetes.md":
                newcomer.folder = mac.home
                one.start_web("web")
            if command == "uvx copier update --trust --defaults":
                released(tmp_path / "template", "v1.1.0")
            if command.startswith("curl"):
                with connected(mac, newcomer.folder / "local/docker-for-mac.ovpn"):
                    assert "Welcome to nginx" in newcomer.type(command)
                continue
            said = newcomer.type_as_is_meant(command)
            if command == "./scripts/up.py":
                assert re.search(r"web +bridge +172\.17\.0\.2 +https://web\.d4m\.internal +yes", said)
            if command.endswith("--json"):
                assert json.loads(said)["version"] == 1
            if command == "./scripts/down.py --images":
                assert mac.run("docker", "ps", "--all", "--format", "{{.Names}}").stdout == "web\n"
            if command == "./scripts/up.py --kubernetes":
                assert re.search(r"Service +web +10\.96\.145\.10 +http://10\.96\.145\.10 +yes", said)
                assert re.search(r"Pod +web +10\.1\.0\.2 +http://10\.1\.0\.2 +yes", said)
            if command == "./scripts/client.py list --kubernetes":
                assert re.search("^alice ", said, re.MULTILINE)
            if command.endswith("--values our-own.yaml"):
                volumes = {volume["name"]: volume for volume in one.pod("devkit-0")["spec"]["volumes"]}
                assert volumes["configs"]["secret"]["secretName"] == "our-own"


def test_every_command_of_the_projects_own_readme_works_in_its_order(tmp_path: Path, uv: Mapping[str, str]) -> None:
    git(tmp_path, "clone", "--quiet", str(REPOSITORY), "template")
    git(tmp_path / "template", "tag", "v1.0.0")
    with lab() as (mac, engine), cluster(mac, engine) as one:
        newcomer = Newcomer(one, tmp_path / "template", uv)
        newcomer.type("uvx copier copy --trust --quiet gh:org/d4m-devkit ./devkit")
        newcomer.type("cd devkit")
        typed = commands(newcomer.folder / "README.md")
        assert len(typed) > 8
        # `down.py` comes last; and before it goes to the cluster, or both would publish one port.
        for command in sorted(typed, key=lambda command: (in_cluster(command), "down.py" in command)):
            newcomer.type_as_is_meant(command)


def in_cluster(command: str) -> int:
    """Whether a command is about the cluster; `helm` comes when the scripts are done with it."""
    return 2 if command.startswith("helm") else 1 if "--kubernetes" in command else 0


def test_no_document_has_commands_that_nobody_runs() -> None:
    having = {document for document in DOCUMENTS if commands(REPOSITORY / document)}
    assert having == {*PAGES, *FOR_DEVELOPERS, *FOR_TEAMS, *FOR_COMPUTERS}


def test_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text().split()) < 900


@pytest.mark.parametrize("document", [*DOCUMENTS, "template/README.md.jinja"])
def test_document_names_no_file_that_is_not_there(document: str, pristine: Path) -> None:
    text = (REPOSITORY / document).read_text().replace("{{ client_name }}", "docker-for-mac")
    of_project = [pristine / folder for folder in ("", "scripts", "local", "local/configs")]
    roots = [*of_project, REPOSITORY, REPOSITORY / "scripts/devkit", REPOSITORY / "docs"]
    first = r"(?:scripts|gateway|server|client|local|tests|template|docs|pki|configs|ingress-nginx)/[\w./-]*"
    last = r"[\w./-]+\.(?:py|md|sh|ya?ml|conf|toml|json|jinja|key|crt|pem)\b"
    named = set(re.findall(rf"`(?:\./)?({first}|{last})", text))
    # For a client of that name, where there is Docker, by host.py on a computer, and for an engine.
    made_later = ("alice.ovpn", "vpn-host", "d4m-devkit.crt", "daemon.json")
    for name in named:
        assert any((root / name).exists() for root in roots) or name.endswith(made_later), name


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_between_documents_lead_somewhere(document: str) -> None:
    path = REPOSITORY / document
    for target in re.findall(r"\]\((?!https://)([^)#]*)", path.read_text()):
        assert (path.parent / target).is_file(), target


def test_every_document_is_found_from_the_readme() -> None:
    linked = re.findall(r"\]\((?!https://)([^)#]*)", (REPOSITORY / "README.md").read_text())
    linked = [target for target in linked if not target.endswith(".png")]
    assert {*linked, "README.md"} == set(DOCUMENTS) | {"README.md"}


def test_make_targets_of_the_documents_exist() -> None:
    made = [
        command.split()[1] for page in DOCUMENTS for command in commands(REPOSITORY / page) if command[:4] == "make"
    ]
    assert {"demo", "test", "lint"} <= set(made)
    for target in made:
        subprocess.run(["make", "--dry-run", target], cwd=REPOSITORY, check=True, capture_output=True)
