"""What every place where the server may run has in common."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from devkit.checks import Check
from devkit.facts import Condition, Contest, Facts, Passage, Session, Target
from devkit.keys.model import Generation
from devkit.vpn.lane import Rejection


@dataclass(frozen=True)
class Step:
    """A part of bringing the VPN up; it is done once its lines have been read.

    With `in_our_words` there are few lines, each worth reading; else they are a build's hundreds.
    """

    what: str
    lines: Iterator[str]
    in_our_words: bool = False


@dataclass(frozen=True)
class Refusal:
    """What became of a client's sessions, as a sentence, and whether there was a server at all."""

    running: bool
    said: str


class Site(Protocol):
    """An engine or a cluster. Whatever it refuses is raised as UserError."""

    @property
    def up(self) -> str:
        """The command that brings the VPN up there, and loads what is new."""

    def checks(self, generation: Generation, now: datetime) -> Iterator[Check]:
        """What must hold before anything is started, in the order in which problems are best solved."""

    def start(self, anew: bool = False) -> Iterator[Step]:
        """Build the image, start the server and wait until it is ready, step by step.

        With `anew` the image is built also where nothing of it has changed.
        """

    def stop(self, images: bool) -> str:
        """Leave nothing behind there but, unless asked, the image; return a sentence."""

    def facts(self) -> Facts:
        """What there is to reach. Raises UserError when the VPN is not up there."""

    def condition(self, found: Facts, targets: Iterable[Target], may_run: bool) -> Condition:
        """How the VPN is doing there, and which of the targets answer its server; `found` are the facts of now.

        For the latter a program runs beside the server, which takes more than the right to look; hence `may_run`.
        """

    def loaded(self, found: Facts | None = None) -> str | None:
        """The fingerprint of what the server has read, or None when it does not run.

        With the facts of now, what they say is not asked again.
        """

    def fingerprint(self) -> str:
        """The fingerprint of what is in the project's folder now."""

    def sessions(self) -> tuple[Session, ...]:
        """The connected clients, none when the server does not run."""

    def contests(self) -> tuple[Contest, ...]:
        """The clients that two machines are at once, none when the server does not run."""

    def rejections(self) -> tuple[Rejection, ...]:
        """The clients that the server has turned away lately, none when it does not run."""

    def passage(self, target: Target) -> Passage:
        """What is known there of the way from the server to a target."""

    def refuse(self, client: str) -> Refusal:
        """Let the running server know who is revoked, and end that client's sessions."""

    def admit(self) -> None:
        """Let the running server know of new clients, as far as it does not see the project's folder."""
