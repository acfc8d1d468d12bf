"""A project that is up in a lab, and a stock OpenVPN client on the Mac."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.docker_desktop import WEB_IMAGE, Mac
from tests.docker_desktop.cache import client_programs

CONNECT_SECONDS = 30


def place(project: Path, mac: Mac, name: str = "devkit") -> Path:
    """Move a project to where the engine can mount from: the Mac's home."""
    return shutil.copytree(project, mac.home / name, symlinks=True)


def script(mac: Mac, project: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of the project's scripts on the Mac as its user does."""
    return mac.run(sys.executable, f"scripts/{name}.py", *arguments, cwd=project, check=False)


def up(mac: Mac, project: Path) -> dict[str, Any]:
    """Bring the project up and return the report's facts."""
    run = script(mac, project, "up", "--json")
    assert run.returncode == 0, run.stdout + run.stderr
    facts = json.loads(run.stdout)
    assert isinstance(facts, dict)
    return facts


def web(mac: Mac, *options: str, command: Sequence[str] = ()) -> str:
    """Start nginx and return its address."""
    container = mac.run("docker", "run", "--detach", *options, WEB_IMAGE, *command).stdout.strip()
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return mac.run("docker", "inspect", "--format", template, container).stdout.strip()


def fetch(mac: Mac, address: str, seconds: int = 10) -> str:
    """Fetch a page: the status code, or why there is none, as curl's manual page names its exit codes."""
    command = ["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--max-time", str(seconds)]
    run = mac.run(*command, f"http://{address}", check=False)
    return {0: run.stdout, 7: "refused", 28: "timed out"}.get(run.returncode, f"curl exit {run.returncode}")


class Client:
    """A running OpenVPN client and what it says."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log

    def said(self) -> str:
        """All that it has printed."""
        return self._log.read_text()

    def wait_for(self, words: str, times: int = 1, seconds: float = CONNECT_SECONDS) -> None:
        """Wait until it has said something that many times."""
        deadline = time.monotonic() + seconds
        while self.said().count(words) < times:
            assert time.monotonic() < deadline, f"the client never said {words!r}:\n{self.said()}"
            assert self._process.poll() is None or self.said().count(words) >= times, self.said()
            time.sleep(0.05)

    def wait_for_end(self, seconds: float = CONNECT_SECONDS) -> None:
        """Wait until it has ended by itself."""
        self._process.wait(timeout=seconds)

    def reconnect(self) -> None:
        """Have it begin anew with the server, as when its network has changed."""
        self._process.send_signal(signal.SIGUSR1)

    @contextmanager
    def asleep(self) -> Iterator[None]:
        """Let nothing of it run, as when its computer is asleep."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def sleep(self, seconds: float) -> None:
        """The same for so long."""
        with self.asleep():
            time.sleep(seconds)

    def stop(self) -> None:
        """End it as its user does."""
        self._process.terminate()
        self._process.wait(timeout=10)


@contextmanager
def start_client(mac: Mac, profile: Path, program: Sequence[str] = ("openvpn",)) -> Iterator[Client]:
    """Start a stock client with a profile exactly as it was generated; stop it at the end."""
    log = mac.home / f"client-{time.monotonic_ns()}.log"
    with log.open("w") as output:
        client = Client(mac.start(*program, "--config", profile, output=output), log)
    try:
        yield client
    finally:
        client.stop()


@contextmanager
def connected(mac: Mac, profile: Path, program: Sequence[str] = ("openvpn",)) -> Iterator[Client]:
    """The same, and wait until it is connected."""
    with start_client(mac, profile, program) as client:
        client.wait_for("Initialization Sequence Completed")
        yield client


def in_client_programs(mac: Mac) -> list[str]:
    """What runs a command in the root filesystem of the client programs, where the Mac's home is /mnt."""
    root = client_programs()
    mounts = f"mount --rbind /dev {root}/dev && mount -t proc proc {root}/proc && mount --bind {mac.home} {root}/mnt"
    return ["unshare", "--mount", "sh", "-c", f'{mounts} && exec chroot {root} "$@"', "-"]


def patience(seconds: float) -> float:
    """So many seconds of an idle machine's: where others work beside, what waits for a processor takes longer."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def eventually(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.2)
