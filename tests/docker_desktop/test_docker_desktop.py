"""The lab and the demo leave nothing behind, however they end, and do not get into each other's way."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.docker_desktop import WEB_IMAGE, Mac, lab, processes_of
from tests.docker_desktop.cache import CACHE, IMAGE_SUITE, bootstrap
from tests.docker_desktop.machine import CGROUPS, PREFIX
from tests.vpn import connected, eventually, fetch, place, up, web

DEMO = [sys.executable, "-m", "tests.demo"]


@pytest.fixture
def labs() -> Iterator[Path]:
    """A folder for the labs of this test alone; its path is short because a socket's must be."""
    with tempfile.TemporaryDirectory(prefix="d4m-") as folder:
        yield Path(folder)


def machine_state(labs: Path) -> dict[str, object]:
    """What a lab might leave on this machine, which may well change by others' doing meanwhile."""
    rules = subprocess.run(
        ["sh", "-c", "nft list ruleset 2> /dev/null || true"], capture_output=True, check=True
    ).stdout
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    links = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout
    return {
        "rules": rules,
        "links": {line.split()[0] for line in links.splitlines()},
        "mounts": [mount for mount in mounts if str(labs) in mount or str(CACHE) in mount],
        "namespaces": sorted(Path("/run/netns").glob("*")),
        "forwarding": Path("/proc/sys/net/ipv4/ip_forward").read_text(),
    }


def start_demo(labs: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*DEMO, *options], cwd=REPOSITORY, env=os.environ | {"TMPDIR": str(labs), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def read_until(demo: subprocess.Popen[str], words: str) -> None:
    assert demo.stdout is not None
    said = []
    for line in demo.stdout:
        said.append(line)
        if words in line:
            return
    raise AssertionError(f"the demo never said {words!r}: {''.join(said)}")


@pytest.mark.parametrize(
    ("moment", "how"),
    [
        ("using the lab", signal.SIGINT),
        pytest.param("docker network create", signal.SIGINT, marks=pytest.mark.further),
        ("./scripts/up.py", signal.SIGINT),
        pytest.param("Connected.", signal.SIGINT, marks=pytest.mark.further),
        ("Connected.", signal.SIGTERM),
    ],
)
def test_interrupted_demo_leaves_nothing(labs: Path, moment: str, how: signal.Signals) -> None:
    before = machine_state(labs)
    with start_demo(labs) as demo:
        read_until(demo, moment)
        folders = list(labs.glob(f"{PREFIX}*"))
        os.killpg(demo.pid, how)  # as the terminal does with Ctrl-C
        said, _ = demo.communicate(timeout=60)
    assert demo.returncode in (130, 143), said
    assert "Traceback" not in said
    assert list(labs.iterdir()) == []
    for folder in folders:
        assert processes_of(folder) == []
        assert list(CGROUPS.glob(f"*/{folder.name}")) == []
    assert machine_state(labs) == before


def test_killed_demo_leaves_no_process_and_the_next_lab_removes_its_folder(labs: Path) -> None:
    before = machine_state(labs)
    with start_demo(labs) as demo:
        read_until(demo, "Connected.")
        (folder,) = labs.glob(f"{PREFIX}*")
        demo.kill()
    eventually(lambda: processes_of(folder) == [])
    assert machine_state(labs) == before
    with start_demo(labs) as next_demo:
        read_until(next_demo, "docker network create")
        assert not folder.exists()
        assert list(CGROUPS.glob(f"*/{folder.name}")) == []
        next_demo.send_signal(signal.SIGINT)
    assert list(labs.iterdir()) == []


def test_two_labs_at_once_do_not_collide(pristine: Path) -> None:
    with lab() as (one, _), lab() as (other, _):
        for mac in (one, other):
            up(mac, place(pristine, mac))
        address = web(one)
        with (
            connected(one, one.home / "devkit/local/docker-for-mac.ovpn"),
            connected(other, other.home / "devkit/local/docker-for-mac.ovpn"),
        ):
            assert fetch(one, address) == "200"
            assert fetch(other, address, seconds=2) != "200"
            assert web(other) == address
            assert fetch(other, address) == "200"


def test_kept_demo_runs_until_it_is_stopped(labs: Path) -> None:
    before = machine_state(labs)
    with start_demo(labs, "--keep") as kept:
        said, _ = kept.communicate(timeout=120)
    assert kept.returncode == 0, said
    assert "stop it:      make demo-stop" in said
    (folder,) = labs.glob(f"{PREFIX}*")
    look_around = said.split("look around:  ")[1].splitlines()[0]
    shell = subprocess.run(
        ["sh", "-c", look_around],
        input="docker ps --format '{{.Names}}'; curl --silent --head http://172.17.0.2; ./scripts/status.py\n",
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "d4m-demo-one" in shell
    assert "HTTP/1.1 200 OK" in shell
    assert "d4m-demo-one  bridge" in shell
    with start_demo(labs, "--stop") as stopped:
        stopped.communicate(timeout=60)
    assert processes_of(folder) == []
    assert list(labs.iterdir()) == []
    assert machine_state(labs) == before


def test_demo_uses_the_machines_own_engine_where_one_answers(labs: Path) -> None:
    """A lab's VM serves as the machine that has an engine."""
    with lab() as (mac, engine):
        mac.run("docker", "tag", WEB_IMAGE, "nginx:alpine")
        own_files = mac.home / "machine"
        own_files.mkdir()
        enter = [
            "unshare", "--mount", "sh", "-c",
            f'mount --bind {own_files} /run && exec nsenter --net=/proc/{engine.process_id}/ns/net -- "$@"', "-",
        ]  # fmt: skip
        (own_files / "docker.sock").symlink_to(mac.home / "docker.sock")
        environment = mac.environment | {"TMPDIR": str(mac.home)}
        del environment["DOCKER_HOST"]
        demo = subprocess.run(
            [*enter, *DEMO], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
        )
        assert demo.returncode == 0, demo.stdout + demo.stderr
        assert "Using this machine's own Docker engine." in demo.stdout
        assert demo.stdout.count("HTTP/1.1 200 OK") == 2
        assert mac.run("docker", "ps", "--all", "--quiet").stdout == ""
        assert "d4m" not in mac.run("docker", "network", "ls").stdout


def test_mac_has_no_way_to_the_machine_or_out(mac: Mac) -> None:
    routes = mac.run("ip", "route").stdout.splitlines()
    assert len(routes) == 2
    assert fetch(mac, "198.51.100.1", seconds=2) == "timed out"


def test_preparation_that_is_killed_leaves_no_mount(labs: Path) -> None:
    target = labs / "root"
    with pytest.raises(subprocess.CalledProcessError):
        bootstrap(
            target, IMAGE_SUITE, "--essential-hook=findmnt --noheadings --output TARGET > $1/../mounts; kill -9 $PPID"
        )
    assert str(labs) in (labs / "mounts").read_text()
    assert machine_state(labs)["mounts"] == []
    assert not target.exists()
