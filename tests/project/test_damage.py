"""What is lost or damaged below local/: it is named with what to do, and never made up for in silence."""

import errno
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from devkit.answers import read_answers
from devkit.commands import client, generate, status, up
from devkit.keys.model import Generation
from devkit.material.changes import add_clients, revoke_client, rotate
from devkit.material.state import problems, read_generation

from tests.conftest import REPOSITORY, RunHere, snapshot
from tests.generations import NOW, run
from tests.whole import assert_whole


@pytest.fixture(scope="module")
def grown(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in its third generation, under two authorities; bob is revoked."""
    project = tmp_path_factory.mktemp("grown") / "devkit"
    project.mkdir()
    for name in (".copier-answers.yml", "compose.yaml", "client", "local", "server"):  # what the keys depend on
        subprocess.run(["cp", "--archive", pristine / name, project], check=True)
    answers = read_answers(project)
    add_clients(project, answers, ["alice", "bob"], NOW)
    rotate(project, answers, "leaf", False, NOW)
    revoke_client(project, answers, "bob", NOW)
    rotate(project, answers, "all", False, NOW)
    return project


@pytest.fixture
def project(grown: Path, tmp_path: Path) -> Path:
    return shutil.copytree(grown, tmp_path / "devkit", symlinks=True)


def revoked(generation: Generation) -> set[int]:
    return {entry.serial_number for authority in generation.cas for entry in authority.revoked}


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
    project: Path, run_here: RunHere, lost: list[str], named: str, command: list[str]
) -> None:
    for path in lost:
        lose(project / "local/pki" / path)
    before = snapshot(project / "local/pki")
    refusal = run_here(project, *command)
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
    assert "local/pki/current is no longer a link to a generation" in refusal.stderr


def test_project_without_any_generation_starts_anew(project: Path) -> None:
    shutil.rmtree(project / "local/pki")
    (project / "local/pki/archive").mkdir(parents=True)
    (project / "local/pki/archive/.DS_Store").touch()
    started = run(project, "generate")
    assert started.returncode == 0, started.stderr
    assert "Made the certificates" in started.stderr


@pytest.mark.parametrize("command", ["up", "status", "client list"])
def test_deleted_local_is_named_with_what_it_means_for_old_profiles(
    project: Path, run_here: RunHere, command: str
) -> None:
    shutil.rmtree(project / "local")
    refusal = run_here(project, *command.split())
    assert refusal.returncode == 1
    assert "when local/ was deleted: restore local/pki from your backup, or let `./scripts/generate.py`" in (
        refusal.stderr
    )
    assert "no profile that was made before connects any more" in refusal.stderr
    assert not (project / "local").exists()


def test_new_keys_for_an_old_project_come_after_what_they_mean(pristine: Path, project: Path) -> None:
    shutil.copytree(pristine / "scripts", project / "scripts")
    for options in ([], ["--rotate=none"], ["--rotate=leaf"]):  # by hand, and as updates do it
        shutil.rmtree(project / "local")
        script = "scripts/generate.py" if not options else str(REPOSITORY / "scripts/generate.py")
        made = subprocess.run(
            [sys.executable, script, *options], cwd=project, capture_output=True, text=True, check=True
        )
        warning, said = made.stderr.splitlines()
        assert "no profile that was made before connects any more" in warning, options
        assert said.startswith("Made the certificates"), options
        again = subprocess.run([sys.executable, script], cwd=project, capture_output=True, text=True, check=True)
        assert "no profile" not in again.stderr, options
    shutil.rmtree(project / "local")
    assert "no profile" not in run(project, "generate").stderr  # Copier makes the project just now


def test_full_disk_is_named_by_the_path_that_did_not_fit(
    project: Path, run_here: RunHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = snapshot(project / "local/pki/current/clients")
    monkeypatch.setattr(os, "write", refuse)
    for command in (["client", "add", "carol"], ["generate", "--rotate=leaf"]):
        full = run_here(project, *command)
        assert full.returncode == 1
        (sentence,) = full.stderr.splitlines()
        (path,) = re.findall("^error: (/.*) cannot be written [(]No space left on device[)]: make room", sentence)
        assert Path(path).is_relative_to(project / "local")
    monkeypatch.undo()
    assert run(project, "client", "list").returncode == 0
    assert snapshot(project / "local/pki/current/clients") == before


def flip(path: Path, part: float, bit: int) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[int(len(data) * part)] ^= bit
        path.write_bytes(data)


def put_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def flipped(part: float) -> Callable[[Path], object]:
    return lambda path: flip(path, part, 1)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "emptied": lambda path: path.write_bytes(b""),
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "cut at a line": lambda path: path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1])),
    "last byte gone": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe" + path.read_bytes()[2:]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x\n"),
    "folder": put_a_folder,
    "open to all": lambda path: path.chmod(0o666),
    **{f"bit flipped at {part:.0%}": flipped(part) for part in (0.02, 0.3, 0.95)},
}
# What nothing else could stand in for; all other files follow from these.
TRUTH = (
    "https/root.crt", "https/root.key",
    "authority.crt", "authority.key", "previous-authority.crt", "previous-authority.key", "crl.pem", "replaced.txt",
    "clients/alice.pem", "configs/server.crt", "configs/server.key", "configs/tls-crypt-v2.key",
)  # fmt: skip
FIRST = ("missing", "cut in half", "bit flipped at 30%")
MILD = ("last byte gone", "longer", "open to all")  # what is read is the same, or the mode alone is wrong
COMMANDS: dict[str, Callable[[], int]] = {
    "list": lambda: client.main(["list"]),
    "show": lambda: client.main(["show", "alice"]),
    "generate": lambda: generate.main([]),
    "rotate": lambda: generate.main(["--rotate=leaf"]),
    "new authority": lambda: generate.main(["--rotate=all"]),
    "add": lambda: client.main(["add", "carol"]),
    "revoke": lambda: client.main(["revoke", "alice"]),
    "status": lambda: status.main([]),
    "up": lambda: up.main([]),
}
READING = ("list", "show", "status", "up")  # as far as they get without an engine
NO_ENGINE = re.compile("the Docker engine at|Docker is not installed")


@pytest.mark.parametrize(
    "damage", [pytest.param(one, marks=() if one in FIRST else pytest.mark.further) for one in DAMAGES]
)
def test_damaged_file_is_named_with_what_to_do_or_written_anew_and_never_carried_on(
    grown: Path, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    monkeypatch.delattr(os, "sync")  # as on Windows; here no power is cut, and thousands of runs would wait for disks
    current = (grown / "local/pki/current").resolve()
    names = [str(path.relative_to(current)) for path in sorted(current.rglob("*")) if path.is_file()]
    cases = [(name, command) for name in names if "docker-for-mac" not in name for command in COMMANDS]
    cases = [(name, command) for name, command in cases if command not in ("status", "up") or name in TRUTH]
    assert len(cases) > 100
    newest_revoked = {entry.serial_number for entry in read_generation(grown).ca.revoked}
    assert newest_revoked
    profile = (current / "profiles/alice.ovpn").read_text()
    for number, (name, command) in enumerate(cases):
        project = shutil.copytree(grown, tmp_path / str(number), symlinks=True)
        monkeypatch.chdir(project)
        path = (project / "local/pki/current" / name).resolve()
        intact = path.read_bytes(), stat.S_IMODE(path.stat().st_mode)
        DAMAGES[damage](path)
        if (name, damage) == ("replaced.txt", "missing"):
            continue  # as older code left it: tests/unit/test_rotation.py
        if path.is_file() and (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == intact:  # it was empty before
            continue
        before = snapshot(project / "local")
        code = COMMANDS[command]()
        printed = capsys.readouterr()
        said = [line for line in printed.err.splitlines() if not NO_ENGINE.search(line)]
        unchanged = snapshot(project / "local") == before
        if any(line.startswith("error: ") for line in said):
            assert code == 1, (name, command)
            (sentence,) = said
            assert f"/{name} " in sentence, (name, command, sentence)
            assert re.search("from your backup|`./scripts/generate.py`", sentence), (name, command, sentence)
            assert unchanged, (name, command)
            # What follows from others is written anew; only a folder in its place is for the user to move away.
            follows = name not in TRUTH and name != "clients/bob.pem"
            assert command == "show" or damage == "folder" or not follows, (name, command, sentence)
        elif command in READING:
            assert unchanged, (name, command)
            assert command != "show" or printed.out == profile, (name, damage)
            assert damage in MILD or name not in TRUTH, (name, command)
            if command in ("list", "status") and name != "clients/bob.pem":  # he is revoked: nothing depends on it
                (warning,) = [line for line in said if f"/{name} " in line]
                assert "`./scripts/generate.py`" in warning, (name, command, warning)
        else:
            assert list(problems(project, read_answers(project))) == [], (name, command)
            after = read_generation(project)
            assert {each.name for each in after.live_clients} <= {"alice", "carol", "docker-for-mac"}, (name, command)
            assert newest_revoked <= revoked(after), (name, command)
            assert damage in MILD or name not in TRUTH, (name, command)
            if command in ("rotate", "new authority"):
                assert_whole(project)
        shutil.rmtree(project)


def test_what_is_no_clients_name_is_ignored(project: Path) -> None:
    current = project / "local/pki/current"
    for folder in ("clients", "profiles", "profiles/alice.tblk", "configs", "configs/ccd", "."):
        for name in (
            ".DS_Store",
            "Thumbs.db",
            "desktop.ini",
            "._alice",
            "._alice.pem",
            "._alice.ovpn",
            "alice copy.pem",
        ):
            (current / folder / name).write_bytes(b"\0 left by the system")
        (current / folder / ".fseventsd").mkdir()
    assert run(project, "client", "list").stderr.count("warning") == 0
    for command in (["generate"], ["client", "add", "carol"], ["generate", "--rotate=leaf"]):
        said = run(project, *command)
        assert said.returncode == 0, said.stderr
    assert "alice is revoked." in run(project, "client", "revoke", "alice").stderr
    generation = read_generation(project)
    assert [each.name for each in generation.clients] == ["alice", "bob", "carol", "docker-for-mac"]
    assert [each.name for each in generation.live_clients] == ["carol", "docker-for-mac"]
    assert (project / "local/pki/archive/0003/configs/ccd/.DS_Store").exists()
    assert_whole(project)
