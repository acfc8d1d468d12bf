"""The NSS databases of a user's browsers on Linux, which `certutil` changes. Ours in them are known by their nickname.

It also says whether the database is ours, and how many of its folders, which then go with it.
"""

import re
from pathlib import PurePosixPath

from devkit.computer.model import Command, Computer, Database, Setting, State, Step, together

OURS = "d4m-devkit HTTPS"
MADE = re.compile(r" \(with its database and ([0-9]) of its folders\)")
TRUST = "C,,"  # it may vouch for TLS servers, and neither for mail nor for programs
CHROMIUM = ".pki/nssdb"  # there from its first start on
# Below a home: Chromium and its kin, Firefox; each also as a snap and a Flatpak.
BROWSERS = (
    CHROMIUM,
    "snap/*/current/.pki/nssdb",
    ".var/app/*/.pki/nssdb",
    ".mozilla/firefox/*",
    ".config/mozilla/firefox/*",
    "snap/firefox/common/.mozilla/firefox/*",
    ".var/app/*/.mozilla/firefox/*",
    ".var/app/*/config/mozilla/firefox/*",
)
FILES = ("cert9.db", "key4.db", "pkcs11.txt")


def install(computer: Computer, title: str, pem: str) -> Step:
    """Add the root to each database, and make Chromium's if there is none."""
    return together(title, [_install(computer, one, title, pem) for one in computer.databases])


def remove(computer: Computer, title: str) -> Step:
    """Take ours out of each database, and those away that are ours as a whole."""
    ours = [database for database in computer.databases if database.ours]
    settings = tuple(Setting(database.folder, "stale") for database in ours)
    commands = tuple(command for database in ours for command in _remove(database)) if computer.certutil else ()
    return Step(title, settings, commands)


def is_ours(nickname: str) -> bool:
    """Whether it is a nickname that we give."""
    return nickname.startswith(OURS) and (nickname == OURS or bool(MADE.fullmatch(nickname, len(OURS))))


def parse(listing: str) -> dict[str, str]:
    """The nicknames that `certutil -L` prints, and how each is trusted."""
    lines = (re.fullmatch(r"(.+?) +([A-Za-z]*,[A-Za-z]*,[A-Za-z]*) *", line) for line in listing.splitlines())
    return {line[1]: line[2] for line in lines if line}


def _install(computer: Computer, database: Database, title: str, pem: str) -> Step:
    state = _state(database, pem)
    settings = (Setting(database.folder, state),)
    undo = _undo(database) if computer.certutil else ()
    if state == "right" or not computer.certutil:
        return Step(title, settings, (), undo=undo)
    make = () if database.exists else (
        _by_user("mkdir", "-p", "-m", "700", database.folder),
        _certutil(database, "-N", "--empty-password"),
    )  # fmt: skip
    add = _certutil(database, "-A", "-a", "-t", TRUST, "-n", _nickname(database), text=pem)
    return Step(title, settings, (*make, *_deletions(database), add), undo=undo)


def _state(database: Database, pem: str) -> State:
    if not database.ours:
        return "missing"
    return "right" if [(one.pem, one.trust) for one in database.ours] == [(pem, TRUST)] else "stale"


def _nickname(database: Database) -> str:
    """Whether the database is ours is what ours in it, which may be replaced, say so far."""
    made = next(filter(None, (MADE.search(one.nickname) for one in database.ours)), None)
    if made:
        return OURS + made[0]
    return OURS if database.exists else f"{OURS} (with its database and {database.new_folders} of its folders)"


def _undo(database: Database) -> tuple[Command, ...]:
    """What takes it back once it is there."""
    made = MADE.search(_nickname(database))
    if made and not database.has_others:
        return _unmake(database, int(made[1]))
    return (_certutil(database, "-D", "-n", _nickname(database)),)


def _remove(database: Database) -> tuple[Command, ...]:
    made = MADE.search(_nickname(database))
    return _unmake(database, int(made[1])) if made and not database.has_others else _deletions(database)


def _unmake(database: Database, folders: int) -> tuple[Command, ...]:
    paths = [PurePosixPath(database.folder), *PurePosixPath(database.folder).parents][:folders]
    return (
        _by_user("rm", *(f"{database.folder}/{file}" for file in FILES)),
        *([_by_user("rmdir", "--ignore-fail-on-non-empty", *map(str, paths))] if paths else []),
    )


def _deletions(database: Database) -> tuple[Command, ...]:
    return tuple(_certutil(database, "-D", "-n", one.nickname) for one in database.ours)


def _certutil(database: Database, *words: str, text: str = "") -> Command:
    return Command(("certutil", "-d", f"sql:{database.folder}", *words), text, by_user=True)


def _by_user(*words: str) -> Command:
    return Command(words, by_user=True)
