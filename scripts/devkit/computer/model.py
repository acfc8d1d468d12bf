"""What is known of this computer, and what is to be done on it."""

import hashlib
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from devkit.host import OperatingSystem

State = Literal["right", "missing", "stale"]


@dataclass(frozen=True)
class NameRule:
    """A rule of ours in Windows' name resolution policy table: who is asked for names in some domains."""

    servers: frozenset[str]
    namespaces: frozenset[str]


@dataclass(frozen=True)
class Root:
    """The root of the VPN's CA for HTTPS; nothing else can be in `pem`."""

    name: str
    domain: str
    pem: str


@dataclass(frozen=True)
class Kept:
    """A root of ours in an NSS database."""

    nickname: str
    pem: str
    trust: str  # as certutil shows it


@dataclass(frozen=True)
class Database:
    """An NSS database, in which a browser on Linux keeps the CAs that its user added; it may have to be made."""

    folder: str
    exists: bool
    new_folders: int = 0  # how many of its folders, from the innermost on, would have to be made, too
    ours: tuple[Kept, ...] = ()
    has_others: bool = False  # whether there is anything in it that is not ours


@dataclass(frozen=True)
class Computer:
    """What this computer is set to, as far as it matters here."""

    system: OperatingSystem
    files: Mapping[str, str]  # what is in the folders where ours would be, by path
    folders: frozenset[str]  # those of these folders that there are
    tunnel: str | None = None  # the interface that leads to the VPN's name server, while it is connected
    resolved: int | None = None  # Linux: the version of systemd-resolved, if it runs
    through_resolved: bool = False  # Linux: whether programs ask it
    rules: frozenset[NameRule] = frozenset()  # Windows: those that are ours
    roots: Mapping[str, bool] = field(default_factory=dict)  # macOS, Windows: ours in the system's store; trusted?
    bundle: str | None = None  # Linux: the folder of what is added to the system's CAs
    certutil: bool = False  # Linux: whether NSS's own is there
    databases: tuple[Database, ...] = ()  # Linux: the user's


@dataclass(frozen=True)
class Command:
    """A command, and what it reads from standard input; it wants an administrator's rights, unless it is the user's."""

    words: tuple[str, ...]
    text: str = ""
    by_user: bool = False


@dataclass(frozen=True)
class Setting:
    """Something on this computer that names or trust depend on, and how it is."""

    what: str
    state: State


@dataclass(frozen=True)
class Step:
    """What is to be so, and how it becomes so: no commands, where it is so already.

    `again` makes the system read what is right already; `undo` takes all of it back, once the step is done.
    """

    title: str
    settings: tuple[Setting, ...]
    commands: tuple[Command, ...]
    again: tuple[Command, ...] = ()
    undo: tuple[Command, ...] = ()


def together(title: str, steps: Sequence[Step]) -> Step:
    """Several steps as one."""
    return Step(
        title,
        tuple(setting for step in steps for setting in step.settings),
        tuple(command for step in steps for command in step.commands),
        tuple(command for step in steps for command in step.again),
        tuple(command for step in steps for command in step.undo),
    )


def fingerprint(pem: str) -> str:
    """What stores know a certificate by: its SHA-1, which they use as a name alone."""
    return hashlib.sha1(ssl.PEM_cert_to_DER_cert(pem), usedforsecurity=False).hexdigest().upper()
