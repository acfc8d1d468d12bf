"""What `copier copy` makes, and what it refuses."""

import json
import os
import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from devkit.answers import parse_answers, read_answers

from tests.bad_answers import BAD_ANSWERS, NOT_TEXTS
from tests.conftest import REPOSITORY, RunHere, copy_project, snapshot
from tests.docker_desktop import Mac

COPY = [sys.executable, "-m", "copier", "copy", "--trust", "--defaults", "--quiet", "--vcs-ref=HEAD"]

# The answer that is refused, and the word in the message that names it.


def test_answers_file_of_another_name_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for more in ([], ["--data=project_name=x"]):
        command = [*COPY, "--answers-file=.devkit.yml", *more, str(REPOSITORY), str(tmp_path / "devkit")]
        refusal = subprocess.run(command, capture_output=True, text=True, check=False)
        assert refusal.returncode != 0
        assert "the answers must be in .copier-answers.yml" in refusal.stderr.splitlines()[-1]
        assert "not in .devkit.yml" in refusal.stderr.splitlines()[-1]
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "value", "named"), BAD_ANSWERS)
def test_bad_answer_is_refused_before_anything_is_written(tmp_path: Path, name: str, value: str, named: str) -> None:
    with pytest.raises(ValueError, match=re.escape(named)) as refusal:
        copy_project(tmp_path / "devkit", **{name: value})
    assert list(tmp_path.iterdir()) == []
    said = str(refusal.value)
    if said.startswith("Validation error"):  # which a terminal shows in one line, as far as it goes
        assert len(said) <= 80 or len(value) > 12 or "\n" in value
        assert len(said) - len(json.dumps(value)) <= 75


@pytest.mark.parametrize(("name", "value", "named"), BAD_ANSWERS)
def test_hook_refuses_the_same_answers(project: Path, run_here: RunHere, name: str, value: str, named: str) -> None:
    answers_file = project / ".copier-answers.yml"
    answers = yaml.safe_load(answers_file.read_text())
    answers[name] = yaml.safe_load(value) if name in NOT_TEXTS else value
    answers_file.write_text(yaml.safe_dump(answers))
    before = snapshot(project)
    refusal = run_here(project, "generate")
    assert refusal.returncode == 1
    assert refusal.stderr.startswith("error: ")
    assert named in refusal.stderr
    assert snapshot(project) == before


def test_refusal_on_the_command_line_names_the_value(tmp_path: Path) -> None:
    command = [*COPY, "--data", "routes=[10.96.0.1/12]", str(REPOSITORY), str(tmp_path / "devkit")]
    refusal = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refusal.returncode != 0
    assert "10.96.0.1/12: use 10.96.0.0/12" in refusal.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kubernetes", "routes"),
    [
        ("none", ["172.16.0.0/12"]),
        ("docker-desktop", ["172.16.0.0/12", "10.1.0.0/16", "10.96.0.0/12"]),
        ("kind", ["172.16.0.0/12", "10.244.0.0/16", "10.96.0.0/16"]),
        ("k3s", ["172.16.0.0/12", "10.42.0.0/16", "10.43.0.0/16"]),
    ],
)
def test_cluster_sets_the_default_routes(tmp_path: Path, kubernetes: str, routes: list[str]) -> None:
    project = copy_project(tmp_path / "devkit", kubernetes=kubernetes)
    answers = parse_answers(yaml.safe_load((project / ".copier-answers.yml").read_text()))
    assert [str(route) for route in answers.routes] == routes
    profile = (project / "local/docker-for-mac.ovpn").read_text()
    for route in answers.routes:
        assert f"\nroute {route.network_address} {route.netmask}\n" in profile


@pytest.mark.parametrize(
    ("host", "listen"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "127.0.0.1"),
        ("192.0.2.7", "192.0.2.7"),
        ("vpn.example.org", "0.0.0.0"),
        ("", "${D4M_LISTEN:-127.0.0.1}"),  # up.py knows, and who starts it by hand has it on this computer
    ],
)
def test_port_is_published_no_wider_than_asked(tmp_path: Path, host: str, listen: str) -> None:
    project = copy_project(tmp_path / "devkit", vpn_host=host)
    compose = yaml.safe_load((project / "compose.yaml").read_text())
    published = {name: service.get("ports") for name, service in compose["services"].items()}
    others = dict.fromkeys(("firewall", "names", "dns", "proxy", "redirect"))
    assert published == {"vpn": [f"{listen}:1194:1194/tcp"]} | others


def remotes(project: Path) -> list[str]:
    """Where the profile leads."""
    return re.findall("^remote .*$", (project / "local/docker-for-mac.ovpn").read_text(), re.MULTILINE)


@pytest.fixture
def unasked(project: Path) -> Path:
    """A project that was made where there is no Docker."""
    (project / "local/pki/vpn-host").unlink(missing_ok=True)
    return project


def generate_where(mac: Mac, project: Path, *environment: str) -> str:
    """Run the hook with such an environment on a computer with Docker's own command line, and return what it says."""
    return mac.run("env", *environment, sys.executable, "scripts/generate.py", cwd=project).stderr


@pytest.mark.parametrize(
    ("context", "host", "listen"),
    [
        ("unix:///var/run/docker.sock", "127.0.0.1", "127.0.0.1"),
        ("tcp://localhost:2375", "127.0.0.1", "127.0.0.1"),
        ("ssh://root@engine.example.org:22", "engine.example.org", "0.0.0.0"),
        ("ssh://as-in-ssh-config", "as-in-ssh-config", "0.0.0.0"),
        ("tcp://192.0.2.7:2376", "192.0.2.7", "192.0.2.7"),
    ],
)
def test_host_that_is_not_answered_is_where_dockers_context_led_first(
    unasked: Path, mac: Mac, context: str, host: str, listen: str
) -> None:
    assert remotes(unasked) == ["remote 127.0.0.1 1194"]
    generate_where(mac, unasked, f"DOCKER_HOST={context}")
    assert remotes(unasked) == [f"remote {host} 1194"]
    assert str(read_answers(unasked).vpn_listen) == listen
    before = snapshot(unasked)
    generate_where(mac, unasked, "DOCKER_HOST=ssh://root@elsewhere.example.org")
    assert snapshot(unasked) == before
    assert stat.S_IMODE((unasked / "local/pki/vpn-host").stat().st_mode) == 0o600
    # An answer wins, and what was kept does not come back after it.
    answers_file = unasked / ".copier-answers.yml"
    unanswered = answers_file.read_text()
    answers_file.write_text(unanswered.replace("vpn_host: ''", "vpn_host: vpn.example.org"))
    generate_where(mac, unasked, f"DOCKER_HOST={context}")
    assert remotes(unasked) == ["remote vpn.example.org 1194"]
    answers_file.write_text(unanswered)
    generate_where(mac, unasked, "DOCKER_HOST=ssh://root@elsewhere.example.org")
    assert remotes(unasked) == ["remote elsewhere.example.org 1194"]


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ("PATH=/nowhere", ""),
        ("DOCKER_HOST=ssh://no_name", "'no_name', which Docker's context named, is neither an IPv4 address nor a host"),
        ("DOCKER_HOST=ssh://root@172.20.1.1", "'172.16.0.0/12' contains the VPN's own endpoint 172.20.1.1"),
    ],
)
def test_host_that_is_not_known_is_this_computer_until_it_is(
    unasked: Path, mac: Mac, environment: str, said: str
) -> None:
    assert said in generate_where(mac, unasked, environment)
    assert remotes(unasked) == ["remote 127.0.0.1 1194"]
    assert not (unasked / "local/pki/vpn-host").exists()
    generate_where(mac, unasked, "DOCKER_HOST=ssh://root@engine.example.org")
    assert remotes(unasked) == ["remote engine.example.org 1194"]


def test_server_in_a_cluster_is_not_where_dockers_context_leads(tmp_path: Path, mac: Mac) -> None:
    project = copy_project(tmp_path / "devkit", kubernetes="kind")
    (project / "local/pki/vpn-host").unlink(missing_ok=True)
    generate_where(mac, project, "DOCKER_HOST=ssh://root@engine.example.org")
    assert remotes(project) == ["remote 127.0.0.1 1194"]


def test_damaged_record_of_the_host_gets_into_no_profile(project: Path) -> None:
    (project / "local/pki/vpn-host").write_bytes(b"x\nscript-security 3\xff\n")
    refusal = run_generate(project)
    assert refusal.returncode == 1
    assert "which Docker's context named, is neither an IPv4 address nor a host name" in refusal.stderr
    assert "script-security" not in (project / "local/docker-for-mac.ovpn").read_text()


@pytest.mark.parametrize("line", ["remote own.example.org 443 tcp", "  --remote own.example.org 443 tcp\r"])
def test_remote_line_of_the_users_own_is_the_only_one(project: Path, line: str) -> None:
    with (project / "client/client.conf").open("a", newline="") as configuration:
        configuration.write(f"{line}\n")
    assert run_generate(project).returncode == 0
    profile = (project / "local/docker-for-mac.ovpn").read_text()
    assert re.findall(r"^[ -]*remote .*$", profile, re.MULTILINE) == [line.rstrip("\r")]


@pytest.mark.parametrize(
    "name",
    [
        "007",
        "null",
        "no",
        *(pytest.param(name, marks=pytest.mark.further) for name in ("123", "1e5", "0x1f", "true", "y")),
    ],
)
def test_project_may_be_called_what_yaml_takes_for_something_else(tmp_path: Path, mac: Mac, name: str) -> None:
    project = copy_project(tmp_path / "devkit", project_name=name)
    assert run_generate(project).returncode == 0
    shown = mac.run("docker", "compose", "config", "--format", "json", cwd=project).stdout
    assert json.loads(shown)["name"] == name
    assert json.loads(shown)["services"]["vpn"]["image"] == f"{name}-gateway"
    subprocess.run([*COPY[:3], "recopy", *COPY[4:], "--overwrite"], cwd=project, check=True)
    assert read_answers(project).project_name == name


def test_project_is_small_and_holds_nothing_of_the_templates_own(project: Path) -> None:
    own = {path.name for path in project.iterdir()}
    files = {".copier-answers.yml", ".dockerignore", ".gitignore", "README.md", "compose.yaml"}
    assert own == files | {"chart", "client", "gateway", "ingress-nginx", "local", "scripts", "server"}
    assert len((project / "compose.yaml").read_text().splitlines()) < 210
    assert not list(project.rglob("*.jinja"))
    assert not list(project.rglob("__pycache__"))
    assert not (project / "scripts").is_symlink()


def test_rendered_yaml_passes_yamllint(tmp_path: Path) -> None:
    for protocol, host in (("tcp", ""), ("udp", "vpn.example.org")):
        project = copy_project(tmp_path / protocol, vpn_protocol=protocol, vpn_host=host)
        yamllint = [sys.executable, "-m", "yamllint", "--strict", "--config-file", str(REPOSITORY / ".yamllint.yaml")]
        checked = subprocess.run([*yamllint, "compose.yaml"], cwd=project, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout


def test_git_is_clean_after_generation_and_commit(project: Path) -> None:
    def git(*command: str) -> str:
        identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
        git_command = ["git", *identity, *command]
        return subprocess.run(git_command, cwd=project, check=True, capture_output=True, text=True).stdout

    git("init", "--quiet")
    git("add", "--all")
    git("commit", "--quiet", "--message", "devkit")
    assert git("status", "--porcelain") == ""
    tracked = git("ls-files").splitlines()
    assert tracked
    assert not [name for name in tracked if name.startswith("local/")]
    assert "PRIVATE KEY" not in git("show", "--format=")


def test_local_ignores_itself_in_git_and_is_closed_whatever_was_there(tmp_path: Path) -> None:
    """Into a folder of the user's own: with an empty .gitignore that stays, and a `local` that is open to all."""
    project = tmp_path / "devkit"
    local = project / "local"
    local.mkdir(parents=True)
    local.chmod(0o755)
    (project / ".gitignore").touch()
    (local / ".gitignore").write_text("!*.key")
    (local / "notes.txt").write_text("ours")
    subprocess.run([*COPY, "--skip=.gitignore", str(REPOSITORY), str(project)], check=True)
    assert (project / ".gitignore").read_text() == ""
    assert (local / ".gitignore").read_text() == "!*.key\n*\n"
    assert (local / "notes.txt").read_text() == "ours"
    assert stat.S_IMODE(local.stat().st_mode) == 0o700
    assert_git_sees_nothing_of(local)


def test_local_of_an_older_project_comes_to_ignore_itself(project: Path) -> None:
    (project / "local/.gitignore").unlink()
    (project / ".gitignore").write_text("")
    assert run_generate(project).returncode == 0
    assert_git_sees_nothing_of(project / "local")


def assert_git_sees_nothing_of(local: Path) -> None:
    def git(*command: str) -> list[str]:
        run = subprocess.run(["git", *command], cwd=local.parent, check=True, capture_output=True, text=True)
        return run.stdout.splitlines()

    git("init", "--quiet")
    status = git("status", "--porcelain", "--ignored")
    assert [line for line in status if local.name in line] == ["!! local/"]
    git("add", "--all")
    assert not [name for name in git("ls-files") if name.startswith("local")]


def test_copier_under_plain_uvx_makes_the_certificates(tmp_path: Path) -> None:
    uvx = [f"{Path(sys.executable).parent}/uv", "tool", "run", *COPY[2:]]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    subprocess.run([*uvx, str(REPOSITORY), str(tmp_path / "devkit")], check=True, env=environment, capture_output=True)
    assert (tmp_path / "devkit/local/docker-for-mac.ovpn").read_text().count("PRIVATE KEY") == 2


def test_without_uv_the_hook_says_how_to_install_it(project: Path) -> None:
    no_packages = [sys.executable, "-S", "scripts/generate.py"]
    no_uv = os.environ | {"PATH": "/usr/bin:/bin"}
    refusal = subprocess.run(no_packages, cwd=project, check=False, env=no_uv, capture_output=True, text=True)
    assert refusal.returncode == 1
    assert "install uv, which brings what is missing, with `" in refusal.stderr
    assert "Traceback" not in refusal.stderr


def test_scripts_name_the_same_packages_as_pyproject() -> None:
    wanted = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["dependency-groups"]["scripts"]
    scripts = sorted((REPOSITORY / "scripts").glob("*.py"))
    assert [script.name for script in scripts] == [
        "client.py",
        "doctor.py",
        "down.py",
        "generate.py",
        "host.py",
        "routes.py",
        "status.py",
        "up.py",
    ]
    for script in scripts:
        header = re.findall(r"^# (.*)$", script.read_text().split("# ///")[1], re.MULTILINE)
        assert tomllib.loads("\n".join(header[1:]))["dependencies"] == wanted
        assert os.access(script, os.X_OK)


def test_scripts_that_git_checked_out_as_a_text_are_mended(project: Path) -> None:
    expected = {name for name in snapshot(project / "scripts") if "__pycache__" not in name}
    for path in sorted((project / "scripts").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (project / "scripts").rmdir()
    (project / "scripts").write_text("../scripts")  # what git makes of the link on Windows
    assert run_generate(project).returncode == 0
    assert set(snapshot(project / "scripts")) == expected


def run_generate(project: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "scripts/generate.py")]
    return subprocess.run(command, cwd=project, check=False, capture_output=True, text=True)
