"""What many tests share: projects made by Copier, and a lab for each module that wants one."""

import importlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import copier
import pytest

from tests.lab import Engine, Mac, lab

REPOSITORY = Path(__file__).resolve().parents[1]
# The long ones, as they take; but the second and third need no lab, while the first makes what every lab starts from.
FIRST_FILES = (
    "test_cluster_end_to_end.py", "test_damage.py", "test_rotation.py", "test_shared_engine.py",
    "test_certificates_end_to_end.py", "test_network.py", "test_upgrade.py", "test_end_to_end.py", "test_readme.py",
    "test_lab.py", "test_chart_end_to_end.py", "test_update.py", "test_up_refuses.py",
    "test_cluster_restart_end_to_end.py", "test_hostile_server.py", "test_ingress.py",
)  # fmt: skip
RunHere = Callable[..., subprocess.CompletedProcess[str]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long files: each is handed out whole, and no worker shall be left alone with one at the end."""
    names = {name: place for place, name in enumerate(FIRST_FILES)}
    assert not [name for name in names if not (REPOSITORY / "tests" / name).exists()]
    items.sort(key=lambda item: names.get(item.path.name, len(names)))


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
