"""Reads how this computer is set, and runs the commands that change it."""

import ctypes
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from devkit import host
from devkit.computer import linux, windows
from devkit.computer.model import Command, Computer
from devkit.computer.resolver import FILES
from devkit.errors import UserError

STUBS = {"127.0.0.53", "127.0.0.54"}  # where systemd-resolved listens
RESOLV_CONF, NSSWITCH_CONF = Path("/etc/resolv.conf"), Path("/etc/nsswitch.conf")
ANSWER_SECONDS = 15


def look(server: IPv4Address | None = None) -> Computer:
    """How this computer is set; with the VPN's name server, whether something leads there, too."""
    system = host.operating_system()
    folders = [Path(folder) for folder in FILES[system].folders] if system in FILES else []
    tunnel = host.interface_to(server, IPv4Network(f"{server}/24", strict=False)) if server else None
    listing = _output(*windows.powershell(windows.LISTING).words) if system == "Windows" else ""
    resolved = _resolved_version() if system == "Linux" else None
    return Computer(
        system=system,
        files={str(path): _text(path) for folder in folders for path in sorted(folder.glob("*")) if _is_file(path)},
        folders=frozenset(str(folder) for folder in folders if folder.is_dir()),
        tunnel=tunnel,
        resolved=resolved,
        through_resolved=resolved is not None and _programs_ask_resolved(),
        rules=windows.parse_rules(listing or ""),
    )


def _is_file(path: Path) -> bool:
    with suppress(PermissionError):  # it may lead into a closed folder
        return path.is_file()
    return False


def _text(path: Path) -> str:
    """A file's text; what we may not read is not ours, since ours are for everybody."""
    with suppress(PermissionError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""


def _resolved_version() -> int | None:
    """The version of systemd-resolved, if it runs."""
    version = re.match(r"systemd (\d+)", _output("resolvectl", "--version") or "")
    running = _output("systemctl", "is-active", linux.RESOLVED) is not None
    return int(version[1]) if version and running else None


def _programs_ask_resolved() -> bool:
    """Whether glibc's look-ups end there; those of other libraries do when resolv.conf leads there."""
    servers = re.findall(r"^\s*nameserver\s+(\S+)", _text(RESOLV_CONF), re.MULTILINE)
    modules = re.search(r"^\s*hosts:.*\bresolve\b", _text(NSSWITCH_CONF), re.MULTILINE)
    return bool(modules) or (bool(servers) and STUBS.issuperset(servers))


def _output(*words: str) -> str | None:
    """What a command prints; None when it is not there or fails."""
    with suppress(OSError):
        run = subprocess.run(words, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        return run.stdout if run.returncode == 0 else None
    return None


def answers(query: Command) -> bool:
    """Whether a question to this computer's resolver is answered."""
    try:
        return subprocess.run(
            query.words, check=False, capture_output=True, stdin=subprocess.DEVNULL, timeout=ANSWER_SECONDS
        ).returncode == 0  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False


def as_administrator(command: Command) -> Sequence[str]:
    """The words of a command that wants an administrator's rights, as this user runs it."""
    return command.words if _is_administrator() else ("sudo", *command.words)


def _is_administrator() -> bool:
    if os.name == "nt":
        return bool(getattr(ctypes, "windll").shell32.IsUserAnAdmin())  # noqa: B009 -- there is none elsewhere
    return os.geteuid() == 0


def refuse_without_rights() -> None:
    """Raise UserError when this user cannot be asked for an administrator's rights."""
    if _is_administrator():
        return
    if os.name == "nt":
        raise UserError("this needs an administrator's rights: run it again in a terminal that was opened as one.")
    if not shutil.which("sudo"):
        raise UserError("this needs root's rights, and there is no `sudo`: run it again as root.")


def carry_out(commands: Iterable[Command]) -> None:
    """Run commands, one after the other. Raises UserError at the first that fails."""
    for command in commands:
        words = as_administrator(command)
        run = subprocess.run(words, check=False, input=command.text, stdout=subprocess.DEVNULL, text=True)
        if run.returncode:
            raise UserError(f"`{shlex.join(words)}` failed: see above why, mend that, and run this again.")
