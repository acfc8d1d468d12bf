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
RunHere = Callable[..., subprocess.CompletedProcess[str]]


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
