"""The scripts without a terminal, and on one that wants no colours: what a person pipes, and what CI keeps."""

import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from devkit.answers import read_answers
from devkit.material.changes import add_clients, revoke_client

from tests.schema import document
from tests.unit.engine import holds, inspected, place, server_of

NOW = datetime.now(UTC).replace(microsecond=0)
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-7]m")


@pytest.fixture
def engine(project: Path, tmp_path: Path) -> Path:
    """A stand-in for Docker's command line, on whose engine the project is up with a container."""
    (tmp_path / "bin").mkdir()
    holds(place(tmp_path / "bin"), "container", [server_of(project), inspected(1)])
    return tmp_path / "bin"


def environment(engine: Path, **more: str) -> Mapping[str, str]:
    known = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    return {**known, "PATH": f"{engine}:{os.environ['PATH']}", "TERM": "xterm", **more}


def command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, f"scripts/{name}.py", *arguments]


class Terminal:
    """A terminal of 100 columns with a command in it, and what it has shown so far."""

    def __init__(self, project: Path, environment: Mapping[str, str], words: list[str]) -> None:
        self._screen, inside = os.openpty()
        self.process = subprocess.Popen(
            words, cwd=project, env={**environment, "COLUMNS": "100", "LINES": "50"}, stdin=inside, stdout=inside,
            stderr=inside,
        )  # fmt: skip
        os.close(inside)
        self.shown = ""

    def read(self, until: str = "(?!)") -> None:
        """Read on until it has shown something or, else, until the command's end."""
        with suppress(OSError):  # which is how a terminal ends
            while not re.search(until, self.shown) and (part := os.read(self._screen, 4096)):
                self.shown += part.decode(errors="replace")
            return
        os.close(self._screen)
        self.process.wait()


def on_terminal(project: Path, environment: Mapping[str, str], words: list[str]) -> str:
    """All that a command shows on a terminal."""
    terminal = Terminal(project, environment, words)
    terminal.read()
    return terminal.shown


@pytest.mark.parametrize(
    ("name", "arguments"), [("status", []), ("status", ["--json"]), ("client", ["list"]), ("client", ["show"])]
)
def test_reader_that_has_seen_enough_is_no_error(project: Path, engine: Path, name: str, arguments: list[str]) -> None:
    words = [*arguments, "docker-for-mac"] if "show" in arguments else arguments
    reading, writing = os.pipe()
    os.close(reading)
    run = subprocess.run(
        command(name, *words), cwd=project, env=environment(engine), stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert "roken" not in run.stderr.decode()
    assert "error" not in run.stderr.decode()
    assert run.returncode == 0


def test_pipe_gets_whole_lines_without_colours(project: Path, engine: Path) -> None:
    name = "container-".ljust(200, "x")
    holds(engine, "container", [server_of(project), inspected(1, Name=f"/{name}")])
    run = subprocess.run(
        command("status"), cwd=project, env=environment(engine), capture_output=True, text=True, check=False
    )
    assert run.returncode == 3, run.stderr  # as nobody is connected
    assert "\x1b" not in run.stdout
    assert re.search(rf"^{name}  shop_default  172\.18\.0\.2  https://web", run.stdout, re.MULTILINE)


def test_no_color_is_honoured(project: Path, engine: Path) -> None:
    add_clients(project, read_answers(project), ["alice"], NOW)
    revoke_client(project, read_answers(project), "alice", NOW)
    for words in (command("status"), command("client", "list")):
        assert COLOUR.search(on_terminal(project, environment(engine), words))
        plain = on_terminal(project, environment(engine, NO_COLOR="1"), words)
        assert not COLOUR.search(plain)
        assert "Address" in plain


@pytest.mark.timeout(120)  # for it waits for what may never be shown
@pytest.mark.parametrize("arguments", [["--json"], []])
def test_watch_in_a_pipe_prints_what_has_changed(project: Path, engine: Path, arguments: list[str]) -> None:
    with subprocess.Popen(
        command("status", "--watch", *arguments),
        cwd=project,
        env=environment(engine),
        stdout=subprocess.PIPE,
        text=True,
    ) as watch:
        assert watch.stdout
        said = iter(watch.stdout)

        def next_of(pattern: str) -> str:
            return next(line for line in said if re.search(pattern, line))

        first = next_of("shop-web-1")
        assert "shop-web-2" not in first
        holds(engine, "container", [server_of(project), inspected(1), inspected(2)])
        second = next_of("shop-web-2")
        (engine / "container.error").write_text("Cannot connect to the Docker daemon\n")
        third = next_of("Cannot connect")
        holds(engine, "container", [server_of(project), inspected(3)])
        fourth = next_of("shop-web-3")
        watch.send_signal(signal.SIGINT)
        rest = list(said)
    assert watch.returncode == 130
    if arguments:
        facts = [document(line) for line in (first, second, third, fourth)]
        assert [len(one.get("containers", [])) for one in facts] == [1, 2, 0, 1]
        assert rest == []


@pytest.mark.timeout(120)  # for it waits for what may never be shown
def test_watch_on_a_terminal_shows_a_change_in_the_same_place(project: Path, engine: Path) -> None:
    terminal = Terminal(project, environment(engine), command("status", "--watch"))
    terminal.read(until="shop-web-1(?s:.*)Certificates")
    holds(engine, "container", [server_of(project), inspected(2)])
    terminal.read(until="shop-web-2(?s:.*)Certificates")
    after = terminal.shown.rpartition("shop-web-1")[2]
    assert "\x1b[1A" in after.partition("shop-web-2")[0]  # up again, and over it
    terminal.process.send_signal(signal.SIGINT)
    terminal.read()
    assert terminal.process.returncode == 130
    assert terminal.shown.rstrip().endswith("\x1b[?25h")  # the cursor is back


def test_many_containers_take_the_scripts_little_longer_than_none(project: Path, engine: Path) -> None:
    """Of their own time, that is, without the engine's."""
    taken: dict[int, list[float]] = {0: [], 120: []}
    for _ in range(4):
        for number, seconds in taken.items():
            holds(engine, "container", [server_of(project), *map(inspected, range(1, number + 1))])
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            said = subprocess.run(
                command("status"), cwd=project, env=environment(engine), capture_output=True, text=True, check=False
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            assert said.returncode == 3, said.stderr  # as nobody is connected
            assert said.stdout.count("shop-web-") == number
            seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(taken[120]) < 1.3 * min(taken[0]), taken
