"""What `up.py` and `down.py` check before they act: one clear sentence each, exit code 1, and nothing changed."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, RunHere, copy_project, snapshot
from tests.docker_desktop import Mac
from tests.docker_desktop.cache import NEWEST, machine
from tests.vpn import eventually, place, script, up


@pytest.fixture
def placed(pristine: Path, mac: Mac) -> Iterator[Path]:
    project = place(pristine, mac)
    yield project
    shutil.rmtree(project)


def refused(mac: Mac, project: Path, *environment: str) -> str:
    """Run `up.py`, which must refuse and change nothing. Returns its sentence."""
    before = snapshot(project), engine_state(mac)
    run = mac.run("env", *environment, sys.executable, "scripts/up.py", cwd=project, check=False)
    assert (snapshot(project), engine_state(mac)) == before
    return sentence(run)


def engine_state(mac: Mac) -> dict[str, list[str]]:
    """What there is; Docker lists images that were made in the same second in any order."""
    kinds = ("container", "network", "image", "volume")
    return {kind: sorted(mac.run("docker", kind, "ls", "--quiet").stdout.split()) for kind in kinds}


WITHOUT_WHALES = """
import sys

class Without:
    def find_spec(self, name, *rest):
        if name == "python_on_whales":
            raise ModuleNotFoundError(name=name)

sys.meta_path.insert(0, Without())
"""


def sentence(run: subprocess.CompletedProcess[str]) -> str:
    """The one sentence of a refusal."""
    assert run.returncode == 1
    assert run.stdout == ""
    lines = run.stderr.strip().splitlines()
    assert len(lines) == 1, run.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def test_no_engine(pristine: Path) -> None:
    before = snapshot(pristine)
    environment = os.environ | {
        "DOCKER_HOST": "unix:///nowhere/docker.sock",
        "PATH": f"{machine(NEWEST)}/usr/bin:/usr/bin:/bin",
    }
    for name in ("up", "down"):
        run = run_script(pristine, name, environment)
        assert "the Docker engine at unix:///nowhere/docker.sock does not answer" in sentence(run)
        assert "start it" in sentence(run)
    assert snapshot(pristine) == before


def test_context_that_is_not_there(pristine: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "DOCKER_HOST"} | {
        "DOCKER_CONTEXT": "none-such",
        "PATH": f"{machine(NEWEST)}/usr/bin:/usr/bin:/bin",
    }
    assert 'context "none-such": context not found' in sentence(run_script(pristine, "up", environment))


def test_no_docker_at_all(pristine: Path) -> None:
    run = run_script(pristine, "up", os.environ | {"PATH": "/nowhere"})
    assert "Docker is not installed here" in sentence(run)


def test_library_that_is_missing_is_named_with_the_way_to_it(pristine: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_WHALES)
    environment = os.environ | {"PATH": "/nowhere", "HOME": "/nowhere", "PYTHONPATH": str(tmp_path)}
    for name in ("up", "status", "down"):
        run = run_script(pristine, name, environment)
        assert run.returncode == 1
        assert f"error: {name}.py needs the Python package python_on_whales" in run.stderr
        assert "Traceback" not in run.stderr


def test_options_of_a_cluster_without_one_are_wrong_usage(tmp_path: Path) -> None:
    command = [sys.executable, str(REPOSITORY / "scripts/up.py"), "--context", "x"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "[--values FILE]" in run.stderr
    assert "--context and --values go with --kubernetes" in run.stderr


def test_no_compose(placed: Path, mac: Mac) -> None:
    (mac.home / "no-plugins").mkdir()
    said = refused(mac, placed, f"DOCKER_CONFIG={mac.home}/no-plugins")
    assert "Docker Compose v2 is not installed here" in said


def test_outside_a_project(tmp_path: Path) -> None:
    run = run_script(tmp_path, "up", os.environ)
    assert f"{tmp_path} is not a d4m-devkit project" in sentence(run)
    assert list(tmp_path.iterdir()) == []


def test_from_another_folder_the_scripts_own_project_is_meant(pristine: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(pristine / "scripts/generate.py")]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0
    assert str(pristine) in run.stderr


def test_port_taken(placed: Path, mac: Mac) -> None:
    listener = [
        "import socket, time; s = socket.create_server(('127.0.0.1', 1194)); print('on', flush=True); time.sleep(60)"
    ]
    with (mac.home / "listener.log").open("w") as output:
        process = mac.start(sys.executable, "-c", *listener, output=output)
    eventually(lambda: "on" in (mac.home / "listener.log").read_text())
    said = refused(mac, placed)
    assert "127.0.0.1:1194/tcp cannot be published because it is taken by another program" in said
    assert (
        "`uvx copier update --trust --defaults --vcs-ref=:current: --data rotate=none --data vpn_port=NUMBER`" in said
    )
    process.kill()
    process.wait()


def test_address_of_another_machine(mac: Mac) -> None:
    project = copy_project(mac.home / "elsewhere", vpn_host="192.0.2.1")
    assert "this computer does not have that address" in refused(mac, project)


@pytest.mark.parametrize(("host", "listen"), [("127.0.0.1", "192.0.2.9"), ("192.0.2.9", "127.0.0.1")])
def test_port_that_is_published_where_clients_do_not_look(mac: Mac, host: str, listen: str) -> None:
    project = copy_project(mac.home / f"listen-{listen}", vpn_host=host, vpn_listen=listen)
    mac.run("ip", "address", "add", "192.0.2.9/24", "dev", "en0")
    said = refused(mac, project)
    assert f"vpn_listen is {listen}, where clients that come to vpn_host {host} find nothing" in said
    assert f"--data vpn_listen={host}`" in said
    mac.run("ip", "address", "del", "192.0.2.9/24", "dev", "en0")


@pytest.mark.parametrize("own", ["172.20.5.9/24", "172.0.0.9/8", "10.213.94.77/25"])
def test_route_that_collides_with_the_computers_own_network(placed: Path, mac: Mac, own: str) -> None:
    mac.run("ip", "address", "add", own, "dev", "en0")
    said = refused(mac, placed)
    assert "collides with this computer's own network" in said
    assert "(en0)" in said
    mac.run("ip", "address", "del", own, "dev", "en0")


def test_no_certificates(placed: Path, mac: Mac) -> None:
    shutil.rmtree(placed / "local")
    assert "or let `./scripts/generate.py` make new ones" in refused(mac, placed)


def test_server_whose_keys_were_deleted_is_taken_down_by_the_command_that_is_named(placed: Path, mac: Mac) -> None:
    up(mac, placed)
    shutil.rmtree(placed / "local")
    assert script(mac, placed, "generate").returncode == 0
    said = refused(mac, placed)
    assert f"was started from {placed} with other keys than local/ has now" in said
    assert sentence(script(mac, placed, "down")) == said
    (command,) = re.findall("take it down with `(.*)`[.]$", said)
    mac.run("sh", "-c", command)
    up(mac, placed)
    assert script(mac, placed, "down").returncode == 0


def test_another_devkit_on_the_same_engine(placed: Path, mac: Mac) -> None:
    other = copy_project(mac.home / "other", project_name="other", vpn_port=1195)
    up(mac, other)
    assert f"another devkit, other in {other}, is on this engine" in refused(mac, placed)
    assert script(mac, other, "down").returncode == 0


def test_server_that_does_not_start_is_quoted(placed: Path, mac: Mac) -> None:
    with (placed / "server/server.conf").open("a") as configuration:
        configuration.write("no-such-option\n")
    said = sentence_after_progress(script(mac, placed, "up"))
    assert "the service vpn did not become healthy" in said
    assert "no-such-option" in said
    assert script(mac, placed, "down").returncode == 0


def sentence_after_progress(run: subprocess.CompletedProcess[str]) -> str:
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    return run.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("name", [".copier-answers.yml", "client/client.conf", "compose.yaml", "server/server.conf"])
def test_conflict_of_a_merge_is_named_by_every_command(project: Path, run_here: RunHere, name: str) -> None:
    text = (project / name).read_text()
    ours, theirs = "<<<<<<< before updating\nours\n", "=======\ntheirs\n>>>>>>> after updating\n"
    (project / name).write_text(text + ours + theirs)
    before = snapshot(project)
    commands = [("up",), ("up", "--kubernetes"), ("status",), ("status", "--kubernetes"), ("down",),
                ("down", "--kubernetes"), ("generate",), ("generate", "--rotate=leaf"), ("client", "add", "alice"),
                ("client", "revoke", "docker-for-mac"), ("client", "list"),
                ("client", "show", "docker-for-mac")]  # fmt: skip
    for command in commands:
        said = sentence(run_here(project, *command))
        assert f"{project / name}:{len(text.splitlines()) + 1} holds a conflict marker" in said
    assert snapshot(project) == before
    (project / name).write_text(text + theirs)  # half settled
    assert "holds a conflict marker" in sentence(run_script(project, "generate", os.environ))


def test_line_that_only_looks_like_a_conflict_is_none(project: Path) -> None:
    with (project / "client/client.conf").open("a") as configuration:
        configuration.write("# <<<<<<< no conflict\n;=======\n========\n")
    assert run_script(project, "generate", os.environ).returncode == 0


def test_wrong_usage_exits_with_2(pristine: Path) -> None:
    for name in ("up", "down", "generate"):
        assert run_script(pristine, name, os.environ, "--no-such-option").returncode == 2


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    run = run_script(tmp_path, "up", os.environ, "--debug")
    assert run.returncode == 1
    assert "Traceback" in run.stderr


def run_script(
    folder: Path, name: str, environment: "os._Environ[str] | dict[str, str]", *arguments: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / f"scripts/{name}.py"), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
