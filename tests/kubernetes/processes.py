"""Servers that run beside the stand-in for the API server, and the ports that they may have."""

import os
import pwd
import random
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

STOP_SECONDS = 15.0
SERVER_PORTS = range(10000, 32768)  # below those that Linux gives to clients


def free_port() -> int:
    """A port of loopback that is free for TCP and UDP, and that no connection on its way out will take."""
    while True:
        address = ("127.0.0.1", random.choice(SERVER_PORTS))  # noqa: S311 - no secret
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp, suppress(OSError):
            tcp.bind(address)
            udp.bind(address)
            return address[1]


@contextmanager
def running(command: Sequence[str | Path], log: Path, user: str = "root") -> Iterator[None]:
    """Run a server, which ends with this process at the latest, as this user; what it says goes to a file."""
    account = pwd.getpwnam(user)
    identity = [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    with log.open("w") as output, subprocess.Popen(
        ["setpriv", "--pdeathsig=TERM", *identity, *command],
        env={"PATH": os.environ["PATH"], "HOME": str(log.parent)},
        cwd=log.parent, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            yield
            if process.poll() is not None:
                raise AssertionError(f"{command[0]} has ended: {log.read_text()}")
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            with suppress(ProcessLookupError):  # nobody is left, as it should be
                os.killpg(process.pid, signal.SIGKILL)
