"""What a script says where it cannot start, and how it starts through uv."""

import ast
import importlib
import os
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from devkit import bootstrap

from tests.conftest import REPOSITORY

SCRIPTS = REPOSITORY / "scripts"
UP = SCRIPTS / "up.py"
READ_BY_OLD_PYTHONS = [*SCRIPTS.glob("*.py"), SCRIPTS / "devkit/__init__.py", SCRIPTS / "devkit/bootstrap.py"]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A computer with no packages and, on its PATH, nothing but what a test puts into the folder."""
    programs = tmp_path / "programs"
    programs.mkdir()

    def import_nothing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named 'rich', which {name} wants", name="rich")

    monkeypatch.setattr(importlib, "import_module", import_nothing)
    monkeypatch.setattr(sys, "argv", [str(UP)])
    monkeypatch.setattr(sys, "base_prefix", sys.prefix)  # not a virtual environment
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path / "stdlib"))
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("HOME", str(tmp_path))
    return programs


def put(folder: Path, name: str, text: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence in which up.py refuses to start."""
    with pytest.raises(SystemExit) as ended:
        bootstrap.run("up")
    assert ended.value.code == 1
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith("error: up.py needs ")
    return sentence


@pytest.mark.parametrize("path", READ_BY_OLD_PYTHONS, ids=lambda path: path.name)
def test_old_python_can_read_what_tells_it_that_it_is_old(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 6))


def test_old_python_is_named_and_mended_by_uv_alone(
    bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bootstrap, "sys", SimpleNamespace(**vars(sys) | {"version_info": (3, 9, 6, "final", 0)}))
    said = refusal(capsys)
    assert f"Python 3.11 or newer, and {sys.executable} is 3.9.6" in said
    assert "install uv" in said
    assert "pip" not in said


@pytest.mark.parametrize(
    ("program", "line"),
    [
        ("brew", "`brew install uv`"),
        ("curl", "`curl -LsSf https://astral.sh/uv/install.sh | sh`"),
        ("wget", "`wget -qO- https://astral.sh/uv/install.sh | sh`"),
    ],
)
def test_missing_package_is_mended_with_what_this_computer_has(
    bare: Path, capsys: pytest.CaptureFixture[str], program: str, line: str
) -> None:
    put(bare, program)
    said = refusal(capsys)
    assert "the Python package rich" in said
    assert line in said
    assert f"`{sys.executable} -m pip install --upgrade cryptography filelock " in said


def test_python_that_takes_no_packages_is_not_told_to_take_some(
    bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "stdlib", "EXTERNALLY-MANAGED")
    said = refusal(capsys)
    assert "install uv" in said
    assert "pip" not in said


def test_uv_is_found_where_its_installer_puts_it(
    bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / ".local/bin", "uv", "exit 0")
    assert bootstrap._find_uv() == str(tmp_path / ".local/bin/uv")  # noqa: SLF001 - running it would replace this process


@pytest.fixture
def index_that_never_answers() -> Iterator[str]:
    """The URL of an index behind a network that drops all packets: a queue that is full takes no more connections."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for one in (first, second):
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/simple"


def start_without_packages(tmp_path: Path, index: str) -> subprocess.CompletedProcess[str]:
    """Start up.py by a Python without packages and an uv that has nothing yet."""
    own = {"UV_CACHE_DIR": str(tmp_path / "cache"), "UV_DEFAULT_INDEX": index, "UV_NO_CONFIG": "1"}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    without = {name: value for name, value in os.environ.items() if not name.startswith("UV_")}
    command = [sys.executable, "-S", str(UP), "--help"]
    return subprocess.run(command, env=without | own | {"PATH": path}, capture_output=True, text=True, check=False)


def test_uv_that_reaches_nothing_says_so_within_5_seconds(tmp_path: Path, index_that_never_answers: str) -> None:
    for index in ("http://127.0.0.1:9/simple", index_that_never_answers):
        began = time.monotonic()
        started = start_without_packages(tmp_path, index)
        assert time.monotonic() - began < 5
        assert started.returncode == 1
        fetching, sentence = started.stderr.splitlines()
        assert fetching == "Fetching what up.py needs, once ..."
        assert "and uv cannot fetch it (" in sentence
        assert "see that this computer reaches the Internet" in sentence
