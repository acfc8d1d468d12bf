"""What many tests share: projects made by Copier, and a lab for each module that wants one."""

import importlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import copier
import pytest

from tests.docker_desktop import Engine, Mac, lab

REPOSITORY = Path(__file__).resolve().parents[1]
# The long ones, as they take; but the second and third need no lab, while the first makes what every lab starts from.
FIRST_FILES = (
    "cluster/test_cluster_end_to_end.py", "project/test_update.py", "project/test_faults.py",
    "tunnel/test_doctor_end_to_end.py", "tunnel/test_certificates_end_to_end.py", "tunnel/test_shared_engine.py",
    "tunnel/test_recovery_end_to_end.py", "tunnel/test_network.py", "tunnel/test_podman.py",
    "docker_desktop/test_docker_desktop.py", "project/test_readme.py", "tunnel/test_https_end_to_end.py",
    "tunnel/test_names_end_to_end.py",
    "tunnel/test_status_end_to_end.py", "tunnel/test_end_to_end.py", "tunnel/test_handshake.py",
    "cluster/test_chart_end_to_end.py", "cluster/test_cluster_restart_end_to_end.py", "tunnel/test_upgrade.py",
    "tunnel/test_engines.py", "tunnel/test_up_refuses.py", "tunnel/test_host.py", "cluster/test_chart.py",
    "project/test_damage.py", "cluster/test_ingress.py", "project/test_template.py", "project/test_questions.py",
    "project/test_unit.py", "unit/test_bad_input.py",
)  # fmt: skip
# What tests start shall end at a Ctrl-C, also where the tests themselves were told to ignore it: in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)
RunHere = Callable[..., subprocess.CompletedProcess[str]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long files: each is handed out whole, and no worker shall be left alone with one at the end."""
    places = {REPOSITORY / "tests" / name: place for place, name in enumerate(FIRST_FILES)}
    assert not [path for path in places if not path.exists()]
    items.sort(key=lambda item: places.get(item.path, len(places)))


def copy_project(destination: Path, **answers: object) -> Path:
    """Scaffold a project as `copier copy --trust --defaults` does."""
    copier.run_copy(str(REPOSITORY), destination, answers, defaults=True, unsafe=True, quiet=True, vcs_ref="HEAD")
    return destination


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and content (or target) of everything below a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(folder))] = (path.lstat().st_mode, content)
    return found


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project as the defaults make it, to be copied from."""
    return copy_project(tmp_path_factory.mktemp("pristine") / "devkit")


@pytest.fixture
def project(pristine: Path, tmp_path: Path) -> Path:
    """A project of the test's own."""
    return shutil.copytree(pristine, tmp_path / "devkit", symlinks=True)


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunHere:
    """Runs a script's command in a folder, in this process: for many cases, since a process of its own starts slowly.

    What it does not catch, and would show as a traceback, fails the test.
    """

    def run(folder: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(folder)
        capsys.readouterr()
        code = importlib.import_module(f"devkit.commands.{name}").main(arguments)
        return subprocess.CompletedProcess([name, *arguments], code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def machines() -> Iterator[tuple[Mac, Engine]]:
    """The lab of a module."""
    with lab() as (mac, engine):
        yield mac, engine


@pytest.fixture(scope="module")
def mac(machines: tuple[Mac, Engine]) -> Mac:
    """The Mac of the module's lab."""
    return machines[0]


@pytest.fixture(scope="module")
def engine(machines: tuple[Mac, Engine]) -> Engine:
    """The engine of the module's lab."""
    return machines[1]
