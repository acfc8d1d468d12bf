"""What resolves names on a Mac of the lab: systemd with systemd-resolved, and the office's name server behind it.

    with resolver(mac, "forky") as computer:
        mac.run("getent", "hosts", "www.example.org")
        assert computer.office.names.asked() == ["www.example.org"]

The Mac's /etc/systemd and /etc/udev are this systemd's, and the Mac's `resolvectl`, `systemctl` and `udevadm` talk to
it. All else that a user of the Mac sets up for it, a test does as that user.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.docker_desktop import cache
from tests.docker_desktop.machine import MARK, Mac

HERE = Path(__file__).resolve().parent
BOOT_SECONDS = 60
OFFICE = "198.51.100.53"
WHOLE_INTERNET = ("www.example.org=198.51.100.80", ".example.com=198.51.100.81")
SHARED = ("/etc/systemd", "/etc/udev")
PROGRAMS = ("resolvectl", "systemctl", "udevadm")


class NameServer:
    """A name server that writes down what it is asked."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def asked(self) -> list[str]:
        """The names that it was asked for, in order."""
        return self._log.read_text().split()

    def forget(self) -> None:
        """Begin anew."""
        self._log.write_text("")


class Office:
    """A host on the network that the Mac's card is on; its name server knows the whole internet, and nothing else."""

    def __init__(self, mac: Mac, folder: Path) -> None:
        self._mac = mac
        self._folder = folder
        self._processes: list[subprocess.Popen[str]] = []
        self._host = self._started("unshare", "--net", "sleep", "infinity")
        own, macs = (Path(f"/proc/{process}/ns/net") for process in (self._host.pid, mac.process_id))
        wait_until(lambda: os.stat(own).st_ino not in (os.stat(macs).st_ino, os.stat("/proc/self/ns/net").st_ino))
        mac.run("ip", "link", "set", "office", "netns", str(self._host.pid))
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "address", "add", f"{OFFICE}/24", "dev", "office")
        self.run("ip", "link", "set", "office", "up")
        self.names = self.serve_names(OFFICE, WHOLE_INTERNET)

    def end(self) -> None:
        """End all that was started there."""
        for process in self._processes:
            process.kill()
            process.wait()

    def run(self, *command: str | Path) -> None:
        """Run a command there."""
        self._mac.run(*self._enter, *command)

    def start(self, *command: str | Path, until: str) -> None:
        """Start a command there that goes on, and wait until it says something."""
        log = self._folder / f"{time.monotonic_ns()}.log"
        process = self._started(*self._enter, *command, log=log)
        wait_until(lambda: until in log.read_text() or process.poll() is not None)
        assert until in log.read_text(), log.read_text()

    def serve_names(self, address: str, names: Sequence[str]) -> NameServer:
        """Start a name server on one of the host's addresses; name_server.py says what the names look like."""
        log = self._folder / f"asked-{address}.txt"
        log.write_text("")
        self.start(sys.executable, HERE / "name_server.py", address, log, *names, until="listening")
        return NameServer(log)

    @property
    def _enter(self) -> tuple[str, ...]:
        return ("nsenter", f"--net=/proc/{self._host.pid}/ns/net", "--")

    def _started(self, *command: str | Path, log: Path = Path(os.devnull)) -> subprocess.Popen[str]:
        with log.open("w") as output:
            self._processes.append(self._mac.start(*command, output=output))
        return self._processes[-1]


class Computer:
    """The Mac's systemd: commands run in its namespaces."""

    def __init__(self, mac: Mac, folder: Path, suite: cache.ComputerSuite) -> None:
        self.mac = mac
        self.suite = suite
        self.office = Office(mac, folder)
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None

    @property
    def home(self) -> Path:
        """Its user's home, as the Mac sees it."""
        return self._folder / "root/root"

    def boot(self) -> None:
        """Start systemd, wait until it is up, and give it the office's name server, as DHCP does."""
        with (self._folder / "boot.log").open("a") as output:
            group = f"{self._folder.parent.name}/{self._folder.name}"
            self._process = self.mac.start("sh", HERE.parent / "boot-computer.sh", self._folder, group, output=output)
        wait_until(lambda: self._is_up("resolvectl", "status") and self._is_up("systemctl", "is-active", "dbus"))
        # Where /dev is no devtmpfs, it listens for devices only if udev was there before it.
        self.mac.run("systemctl", "daemon-reexec")
        self.mac.run("resolvectl", "dns", "en0", OFFICE)

    def kill(self) -> None:
        """Pull the plug."""
        assert self._process
        self._process.kill()
        self._process.wait()

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in its root."""
        return self.mac.run(*self._enter(), *command, check=check)

    def _is_up(self, *command: str) -> bool:
        if self._first_process() is None:
            return False
        for program in PROGRAMS:
            path = self.mac.home / "bin" / program
            path.write_text(f'#!/bin/sh\nexec {" ".join(self._enter())} {program} "$@"\n')
            path.chmod(0o755)
        return self.mac.run(*command, check=False).returncode == 0

    def _enter(self) -> list[str]:
        return ["nsenter", f"--target={self._first_process()}", "--mount", "--pid", "--cgroup", "--ipc", "--uts", "--"]

    def _first_process(self) -> str | None:
        """That of its process namespace, once there is one: before, there are short-lived ones that prepare it."""
        assert self._process
        assert self._process.poll() is None, (self._folder / "boot.log").read_text()
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        ours = os.stat("/proc/self/ns/pid").st_ino
        with suppress(FileNotFoundError):  # it has just ended
            return next((child for child in children if os.stat(f"/proc/{child}/ns/pid").st_ino != ours), None)
        return None


@contextmanager
def resolver(mac: Mac, suite: cache.ComputerSuite) -> Iterator[Computer]:
    """Boot the systemd of a Debian suite for a Mac. It, and the office, end with the lab; the Mac can have but one."""
    folder = Path(mac.environment[MARK]) / f"systemd-{mac.home.name}"
    for name in ("root", "upper", "work"):
        (folder / name).mkdir(parents=True)
    mount = f"lowerdir={cache.computer(suite)},upperdir={folder / 'upper'},workdir={folder / 'work'}"
    mac.run("mount", "-t", "overlay", "computer", "-o", mount, folder / "root")
    for shared in SHARED:
        mac.run("mkdir", "-p", shared)
        mac.run("mount", "--bind", f"{folder}/root{shared}", shared)
    mac.run("sh", "-c", "echo 'nameserver 127.0.0.53\noptions edns0 trust-ad' > /etc/resolv.conf")
    (mac.home / "bin").mkdir(exist_ok=True)
    computer = Computer(mac, folder, suite)
    computer.boot()
    try:
        yield computer
    finally:
        computer.kill()
        computer.office.end()


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until something has come up."""
    deadline = time.monotonic() + BOOT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come up"
        time.sleep(0.05)
