"""Reads how this computer is set, and runs the commands that change it."""

import ctypes
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from devkit import host
from devkit.computer import bundle, databases, linux, macos, trust, windows
from devkit.computer.model import Command, Computer, Database, Kept
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
    bundle_ = _bundle() if system == "Linux" else None
    folders += [Path(bundle_.folder)] if bundle_ else []
    files = [path for folder in folders for path in sorted(folder.glob("*")) if _is_file(path)]
    files += [Path(bundle_.bundle)] if bundle_ and _is_file(Path(bundle_.bundle)) else []
    certutil = system == "Linux" and shutil.which("certutil") is not None
    resolved = _resolved_version() if system == "Linux" else None
    return Computer(
        system=system,
        files={str(path): _text(path) for path in files},
        folders=frozenset(str(folder) for folder in folders if folder.is_dir()),
        tunnel=tunnel,
        resolved=resolved,
        through_resolved=resolved is not None and _programs_ask_resolved(),
        rules=windows.parse_rules(listing or ""),
        roots=_roots(system),
        bundle=bundle_.folder if bundle_ else None,
        certutil=certutil,
        databases=tuple(_databases(certutil)) if system == "Linux" else (),
    )


def _bundle() -> bundle.Kind | None:
    """How this Linux adds CAs to its own; its command may be where only an administrator's PATH leads."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    kinds = (kind for kind in bundle.KINDS.values() if Path(kind.folder).is_dir())
    return next((kind for kind in kinds if shutil.which(kind.update, path=path)), None)


def _roots(system: host.OperatingSystem) -> dict[str, bool]:
    """Ours in the store of a system that has but one, and whether they are trusted."""
    if system == "macOS":
        settings = _output(*macos.TRUST_SETTINGS) or ""
        return {pem: name in settings for name, pem in trust.ours(_output(*macos.CERTIFICATES) or "")}
    if system == "Windows":
        return {pem: True for _, pem in trust.ours(_output(*windows.powershell(windows.CERTIFICATES).words) or "")}
    return {}


def _databases(certutil: bool) -> Iterator[Database]:
    """The user's NSS databases, and Chromium's even where it has to be made, if it can."""
    home = Path(os.path.expanduser(f"~{_behind_sudo() or ''}"))
    found = {path.resolve(): path for pattern in databases.BROWSERS for path in home.glob(f"{pattern}/cert9.db")}
    for path in sorted(found.values()):
        yield _database(path.parent, certutil)
    chromium = home / databases.CHROMIUM
    if certutil and not any((chromium / file).exists() for file in databases.FILES):
        folders = [folder for folder in (chromium, *chromium.parents) if not folder.exists()]
        yield Database(str(chromium), exists=False, new_folders=len(folders))


def _database(folder: Path, certutil: bool) -> Database:
    """What an NSS database has of ours."""
    if not certutil:
        ours = [nickname for nickname in _nicknames(folder) if databases.is_ours(nickname)]
        return Database(str(folder), True, ours=tuple(Kept(nickname, "", "") for nickname in ours))
    ask = ("certutil", "-d", f"sql:{folder}")
    trust_of = databases.parse(_user_output(*ask, "-L") or "")
    kept = {
        nickname: _user_output(*ask, "-L", "-a", "-n", nickname) or ""
        for nickname in trust_of if databases.is_ours(nickname)
    }  # fmt: skip
    return Database(
        str(folder), True,
        ours=tuple(Kept(nickname, pem, trust_of[nickname]) for nickname, pem in kept.items()),
        has_others=len(kept) < len(trust_of) or not _has_no_keys(folder),
    )  # fmt: skip


def _has_no_keys(folder: Path) -> bool:
    """Whether an NSS database has no keys; one with a password, which is not asked for here, may have some."""
    words = as_who(Command(("certutil", "-d", f"sql:{folder}", "-K", "-f", os.devnull), by_user=True))
    run = subprocess.run(
        words, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return "no keys found" in run.stdout


def _nicknames(folder: Path) -> set[str]:
    """The nicknames in an NSS database, where there is no `certutil` to ask."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"{folder.as_uri()}/cert9.db?mode=ro", uri=True)) as database:
        rows = database.execute("select a3 from nssPublic where typeof(a3) = 'blob'")
        return {label.decode(errors="replace") for (label,) in rows}
    return set()


def _behind_sudo() -> str | None:
    """The user for whom root runs this."""
    return os.environ.get("SUDO_USER") if os.name != "nt" and os.geteuid() == 0 else None


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


def _user_output(*words: str) -> str | None:
    return _output(*as_who(Command(words, by_user=True)))


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


def as_who(command: Command) -> Sequence[str]:
    """The words of a command as this user runs it: the user's own, or as an administrator."""
    if command.by_user:
        user = _behind_sudo()
        return ("runuser", "-u", user, "--", *command.words) if user else command.words
    return command.words if is_administrator() else ("sudo", *command.words)


def is_administrator() -> bool:
    """Whether this user has an administrator's rights."""
    if os.name == "nt":
        return bool(getattr(ctypes, "windll").shell32.IsUserAnAdmin())  # noqa: B009 -- there is none elsewhere
    return os.geteuid() == 0


def refuse_without_rights() -> None:
    """Raise UserError when this user cannot be asked for an administrator's rights."""
    if is_administrator():
        return
    if os.name == "nt":
        raise UserError("this needs an administrator's rights: run it again in a terminal that was opened as one.")
    if not shutil.which("sudo"):
        raise UserError("this needs root's rights, and there is no `sudo`: run it again as root.")


def carry_out(commands: Iterable[Command]) -> None:
    """Run commands, one after the other. Raises UserError when one has failed: at once, unless it was by the user.

    A browser's database may be locked by a password, and others are still to come.
    """
    failed = ""
    for command in commands:
        words = as_who(command)
        run = subprocess.run(words, check=False, input=command.text, stdout=subprocess.DEVNULL, text=True)
        if run.returncode:
            failed = failed or f"`{shlex.join(words)}` failed: see above why, mend that, and run this again."
            if not command.by_user:
                break
    if failed:
        raise UserError(failed)
