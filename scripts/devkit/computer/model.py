"""What is known of this computer, and what is to be done on it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from devkit.host import OperatingSystem

State = Literal["right", "missing", "stale"]


@dataclass(frozen=True)
class NameRule:
    """A rule of ours in Windows' name resolution policy table: who is asked for names in some domains."""

    servers: frozenset[str]
    namespaces: frozenset[str]


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


@dataclass(frozen=True)
class Command:
    """A command that wants an administrator's rights, and what it reads from standard input."""

    words: tuple[str, ...]
    text: str = ""


@dataclass(frozen=True)
class Setting:
    """Something on this computer that names depend on, and how it is."""

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
