"""A running server's management interface (OpenVPN's management-notes.txt), wherever the server runs.

`inside` are the words that run a program in the server's container with its standard input, such as `docker exec`.
"""

import re
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from subprocess import PIPE
from tempfile import TemporaryFile
from typing import IO, cast

from devkit.errors import UserError, most_telling
from devkit.facts import Contest, Session
from devkit.vpn.lane import Rejection
from devkit.vpn.openvpn.status import sessions_in

LOGGED = re.compile(r"(?P<time>[0-9]{1,15}),[A-Z]*,")
SESSION_ENDED_BY_ANOTHER = re.compile(
    rf"{LOGGED.pattern}(\S+ )?MULTI: new connection by client '(?P<client>[^']+)' will cause previous"
)
ANSWER_SECONDS = 5
REJECTED = re.compile(
    r"(?P<time>[0-9]+),[A-Z]*,(\S+ )?(VERIFY ERROR: depth=0, error=(?P<reason>[^:]+): CN=(?P<client>[^,]+), "
    r"serial=(?P<serial>[0-9]+)|TLS Auth Error: --client-config-dir authentication failed for common name "
    r"'(?P<named>[^']+)')"
)
CONTEST_SECONDS = 180
FEWEST_OF_A_CONTEST = 3
STILL_GOING_ON_SECONDS = 60  # two machines over UDP take half as long


def sessions(inside: Sequence[str]) -> tuple[Session, ...]:
    """The connected clients. Raises UserError when the server does not answer, or not with a status."""
    try:
        return sessions_in(_ask(inside, "status 3"))
    except ValueError as error:
        raise UserError(f"the server does not say who is connected ({error}): try again in a moment.") from error


def contests(inside: Sequence[str]) -> tuple[Contest, ...]:
    """The clients that two machines are at once. Raises as `sessions`."""
    return contests_in(_ask(inside, "log all"))


def contests_in(log: Sequence[str]) -> tuple[Contest, ...]:
    """The same, from the server's last 250 lines, each after its time: TIME,FLAGS,MESSAGE.

    Over TCP one machine ends the other's connection about every second, over UDP about every half minute. A machine
    that lost its network and comes back ends its own, but not that often.
    """
    times = [int(match["time"]) for line in log if (match := LOGGED.match(line))]
    ended: dict[str, list[int]] = {}
    for line in log:
        if match := SESSION_ENDED_BY_ANOTHER.match(line):
            ended.setdefault(match["client"], []).append(int(match["time"]))
    found = []
    for client, at in ended.items():
        # What is later than the last line is of before the clock was put back.
        lately = [time for time in at if times[-1] - CONTEST_SECONDS < time <= times[-1]]
        if len(lately) >= FEWEST_OF_A_CONTEST and max(lately) > times[-1] - STILL_GOING_ON_SECONDS:
            found.append(Contest(client, len(lately), times[-1] - min(lately)))
    return tuple(found)


def rejections(inside: Sequence[str]) -> tuple[Rejection, ...]:
    """The clients that were turned away lately. Raises as `sessions`."""
    return rejections_in(_ask(inside, "log all"))


def rejections_in(log: Sequence[str]) -> tuple[Rejection, ...]:
    """The same, from the server's last lines: the last of each client, the latest first."""
    times = [int(line.split(",")[0]) for line in log if LOGGED.match(line)]
    found: dict[str, Rejection] = {}
    for match in filter(None, map(REJECTED.match, reversed(log))):
        client, serial_number = match["client"] or match["named"], match["serial"]
        reason = match["reason"] or "it has no file in ccd"
        rejection = Rejection(
            client, reason, times[-1] - int(match["time"]), int(serial_number) if serial_number else None
        )
        found.setdefault(client, rejection)
    return tuple(found.values())


def end_sessions(inside: Sequence[str], client: str) -> int:
    """End a client's sessions, and tell it not to come back; return how many there were. Raises as `sessions`."""
    numbers = [session.number for session in sessions(inside) if session.client == client]
    for number in numbers:
        _ask(inside, f"client-kill {number} HALT")
    return len(numbers)


def _ask(inside: Sequence[str], command: str) -> list[str]:
    """Give a command, and return the answer's lines."""
    answer: list[str] = []
    words = [*inside, "nc", "-N", "-w", str(ANSWER_SECONDS), "-U", "/run/management"]
    with TemporaryFile("w+") as complaints:
        with (
            suppress(BrokenPipeError),  # it has ended already, and complained
            subprocess.Popen(words, stdin=PIPE, stdout=PIPE, stderr=complaints, text=True) as conversation,
        ):
            ask, listen = cast("IO[str]", conversation.stdin), cast("IO[str]", conversation.stdout)
            print(command, file=ask, flush=True)
            for line in listen:
                answer.append(line.rstrip())
                if line.startswith(("END", "SUCCESS:", "ERROR:")):
                    break
            ask.close()  # closing it earlier would cut the answer short
        complaints.seek(0)
        if not answer:
            raise UserError(f"the server does not answer ({most_telling(complaints.read())}): try again in a moment.")
    return answer
