"""What a person at a terminal of 80 columns is asked, and told of a bad answer."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pexpect
import pyte
import pytest
import yaml

from tests.conftest import REPOSITORY, copy_project

COPIER = [sys.executable, "-m", "copier"]
COLUMNS, LINES = 80, 400  # as many lines as there are ever said
MARK = "🎤 "
CLEAR_LINE = "\x15"
QUESTIONS: dict[str, Any] = {
    name: question
    for name, question in yaml.safe_load((REPOSITORY / "copier.yml").read_text()).items()
    if not name.startswith("_") and question.get("when") is not False
}
ASKED = [name for name, question in QUESTIONS.items() if "ask" not in question]


class Terminal:
    """A command in a terminal, and what is to be seen there."""

    def __init__(self, folder: Path, *command: str) -> None:
        self._screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.Stream(self._screen)
        environment = os.environ | {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
        self._program: pexpect.spawn[str] = pexpect.spawn(
            command[0], [*command[1:]], cwd=str(folder), env=environment, dimensions=(LINES, COLUMNS),
            encoding="utf-8", timeout=60,
        )  # fmt: skip

    @property
    def lines(self) -> list[str]:
        """What is to be seen, line by line."""
        return [line.rstrip() for line in self._screen.display]

    def see(self, text: str) -> None:
        """Wait until a line has this text."""
        while not any(text in line for line in self.lines):
            self._stream.feed(self._program.read_nonblocking(4096, 60))

    def type(self, keys: str) -> None:
        """Press keys."""
        self._program.send(keys)

    def end(self) -> int | None:
        """See the rest, and return the exit code."""
        self._stream.feed(self._program.read())
        self._program.close()
        return self._program.exitstatus


def shown(name: str) -> list[str]:
    """A question's text, line by line, as it stands on a terminal that is wide enough."""
    return f"{MARK}{QUESTIONS[name]['help']}".splitlines()


def asked(terminal: Terminal) -> int:
    return sum(line.startswith(MARK) for line in terminal.lines)


def test_six_questions_at_most_and_each_is_whole_on_its_lines(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, *COPIER, "copy", "--trust", "--vcs-ref=HEAD", str(REPOSITORY), "devkit")
    for name in ASKED:
        terminal.see(shown(name)[-1])
        terminal.type("\r")
    assert terminal.end() == 0
    assert asked(terminal) == len(ASKED) <= 6
    for name in ASKED:
        assert set(shown(name)) <= set(terminal.lines), name
    by_defaults = copy_project(tmp_path / "by-defaults")
    assert answers(tmp_path / "devkit") == answers(by_defaults)


def test_further_questions_are_asked_after_a_yes_and_each_is_whole_on_its_lines(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, *COPIER, "copy", "--trust", "--vcs-ref=HEAD", str(REPOSITORY), "devkit")
    for name in QUESTIONS:
        terminal.see(shown(name)[-1])
        terminal.type({"more_questions": "y", "vpn_port": f"{CLEAR_LINE}1195\r"}.get(name, "\r"))
    assert terminal.end() == 0
    for name in QUESTIONS:
        assert set(shown(name)) <= set(terminal.lines), name
    assert answers(tmp_path / "devkit")["vpn_port"] == 1195
    assert "more_questions" not in answers(tmp_path / "devkit")


def test_bad_answer_is_explained_at_once_and_can_be_mended(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, *COPIER, "copy", "--trust", "--vcs-ref=HEAD", str(REPOSITORY), "devkit")
    mended = {
        "project_name": ("Shop", 'use a-z, 0-9, - and _, not "Shop"', "shop"),
        "client_name": ("two words", 'use a-z, 0-9, -_., not "two words"', "alice"),
        "vpn_host": ("127.0.0.256", 'use a name or IPv4, not "127.0.0.256"', "vpn.example.org"),
    }
    for name in ASKED:
        terminal.see(shown(name)[-1])
        if name in mended:
            bad, explained, good = mended[name]
            terminal.type(f"{CLEAR_LINE}{bad}\r")
            terminal.see(explained)
            terminal.type(f"{CLEAR_LINE}{good}")
        terminal.type("\r")
    assert terminal.end() == 0
    assert asked(terminal) == len(ASKED)
    assert answers(tmp_path / "devkit").items() >= {name: good for name, (_, _, good) in mended.items()}.items()


def test_no_way_in_is_offered_that_the_other_answers_exclude(tmp_path: Path) -> None:
    more = ["--data=more_questions=yes", "--data=vpn_protocol=udp"]
    terminal = Terminal(tmp_path, *COPIER, "copy", "--trust", "--vcs-ref=HEAD", *more, str(REPOSITORY), "devkit")
    for name in [name for name in QUESTIONS if name not in ("more_questions", "vpn_protocol")]:
        terminal.see(shown(name)[-1])
        if name == "service_type":
            terminal.see("- NodePort (NodePort needs vpn_port 30000 to 32767)")
            terminal.see("- ClusterIP (ClusterIP needs vpn_protocol tcp)")
        terminal.type("\r")
    assert terminal.end() == 0


def test_update_asks_no_more_than_that_and_offers_the_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Test")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "test@example.org")
    project = copy_project(tmp_path / "devkit", project_name="shop", kubernetes="kind", vpn_port=1195)
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "devkit"]):
        subprocess.run(["git", *command], cwd=project, check=True)
    before = answers(project)
    terminal = Terminal(project, *COPIER, "update", "--trust", "--vcs-ref=:current:")
    for name in ASKED:
        terminal.see(shown(name)[-1])
        terminal.type("\r")
    assert terminal.end() == 0
    assert asked(terminal) == len(ASKED)
    assert answers(project) == before


def test_every_update_that_is_printed_or_documented_asks_nothing() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    texts = [path for path in listed.splitlines() if not path.startswith("tests/") and path != "template/scripts"]
    commands = [
        command
        for path in texts
        for command in re.findall(r"copier update (--.*)", (REPOSITORY / path).read_text(errors="replace"))
    ]
    assert len(commands) > 5
    assert [command for command in commands if not command.startswith("--trust --defaults")] == []


def answers(project: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((project / ".copier-answers.yml").read_text())
    return {name: value for name, value in document.items() if not name.startswith("_")}
