"""What is lost or damaged below local/: it is named with what to do, and never made up for in silence."""

import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from devkit.answers import read_answers
from devkit.material import add_clients, revoke_client, rotate

from tests.conftest import REPOSITORY, snapshot

NOW = datetime.now(UTC).replace(microsecond=0)


def run(project: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / f"scripts/{script}.py"), *arguments]
    return subprocess.run(command, cwd=project, check=False, capture_output=True, text=True)


@pytest.fixture(scope="module")
def grown(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in its third generation, under two authorities; bob is revoked."""
    project = shutil.copytree(pristine, tmp_path_factory.mktemp("grown") / "devkit", symlinks=True)
    answers = read_answers(project)
    add_clients(project, answers, ["alice", "bob"], NOW)
    rotate(project, answers, "leaf", False, NOW)
    revoke_client(project, answers, "bob", NOW)
    rotate(project, answers, "all", False, NOW)
    return project


@pytest.fixture
def project(grown: Path, tmp_path: Path) -> Path:
    return shutil.copytree(grown, tmp_path / "devkit", symlinks=True)


def lose(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


@pytest.mark.parametrize(
    ("lost", "named"),
    [
        (["archive/0003"], "local/pki/archive/0003 is missing"),
        (["archive/0003", "archive/0002", "archive/0001"], "local/pki/archive/0003 is missing"),
        (["archive"], "local/pki/archive/0003 is missing"),
        (["current"], "local/pki/current is missing"),
        (["current", "archive/0003"], "local/pki/current is missing"),
        (["current", "archive/0003", "archive/0002"], "local/pki/current is missing"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ["generate"], ["generate", "--rotate=leaf"], ["generate", "--rotate=all"], ["client", "add", "carol"],
        ["client", "revoke", "alice"], ["client", "list"], ["client", "show", "alice"], ["up"], ["status"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_lost_generation_is_named_and_nothing_takes_its_place(
    project: Path, lost: list[str], named: str, command: list[str]
) -> None:
    for path in lost:
        lose(project / "local/pki" / path)
    before = snapshot(project / "local/pki")
    refusal = run(project, *command)
    assert refusal.returncode == 1
    assert named in refusal.stderr
    assert "restore local/pki from your backup" in refusal.stderr
    assert len(refusal.stderr.strip().splitlines()) == 1
    assert {name: entry for name, entry in snapshot(project / "local/pki").items() if name != "archive"} == {
        name: entry for name, entry in before.items() if name != "archive"
    }


def test_copy_that_followed_the_link_to_the_generation_in_force_is_named(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project, tmp_path / "copy", symlinks=False)
    refusal = run(tmp_path / "copy", "generate")
    assert refusal.returncode == 1
    assert "local/pki/current is not the link to a generation that it was" in refusal.stderr


def test_project_without_any_generation_starts_anew(project: Path) -> None:
    shutil.rmtree(project / "local/pki")
    (project / "local/pki/archive").mkdir(parents=True)
    (project / "local/pki/archive/.DS_Store").touch()
    started = run(project, "generate")
    assert started.returncode == 0, started.stderr
    assert "Made the certificates" in started.stderr
