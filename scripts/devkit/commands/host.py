"""Tell this computer who answers the names behind the VPN (install), take that back (remove), or say how it is."""

import argparse
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from devkit import commandline, vpn
from devkit.answers import read_answers
from devkit.computer import effects, resolver
from devkit.computer.model import Command, Computer, Step
from devkit.errors import UserError
from devkit.material.state import read_profile
from devkit.report import document
from devkit.vpn.lane import Names

NOT_AS_IT_SHOULD_BE = 3


def main(arguments: Sequence[str]) -> int:
    """Run `host.py`."""
    parser = commandline.parser(__doc__ or "")
    commands = parser.add_subparsers(dest="command", required=True, metavar="install|remove|status")
    install = commands.add_parser("install", help="show what is to be done, ask once, and do what is not done yet")
    remove = commands.add_parser("remove", help="take away all that `install` wrote, and nothing else")
    status = commands.add_parser("status", help="what is right, missing or stale; exit code 3 unless all is right")
    for one in (install, status):
        one.add_argument("--profile", metavar="FILE", type=Path, help="a profile, where there is no project")
    for one in (install, remove):
        one.add_argument("--yes", action="store_true", help="do not ask")
    status.add_argument("--json", action="store_true", help="print the same facts as JSON")
    bodies = {"install": _install, "remove": _remove, "status": _status}
    return commandline.run(parser, lambda options: bodies[options.command](options), arguments)


def _install(options: argparse.Namespace) -> int:
    names = _names(options.profile)
    computer = effects.look(names.server)
    step = resolver.install(computer, names.server, names.domains)
    resolving = None if step.commands else _resolving(computer, names)
    commands = step.commands or (() if resolving or not computer.tunnel else step.again)
    if commands:
        _do(step, commands, options.yes)
        computer = effects.look(names.server)
        resolving = _resolving(computer, names)
    name, said = resolver.names_that_resolve(names.domains)[0], commandline.messages()
    if resolving:
        said.print(f"{resolving} resolves.", markup=False)
    elif computer.tunnel:
        said.print(_no_answer(name, names), style="yellow", markup=False)
        return NOT_AS_IT_SHOULD_BE
    else:
        said.print(f"This computer is set up: {name} will resolve once the VPN is connected.", markup=False)
    return 0


def _remove(options: argparse.Namespace) -> int:
    step = resolver.remove(effects.look())
    if step.commands:
        _do(step, step.commands, options.yes)
    commandline.messages().print("This computer has nothing of ours now.", markup=False)
    return 0


def _status(options: argparse.Namespace) -> int:
    names = _names(options.profile)
    computer = effects.look(names.server)
    step = resolver.install(computer, names.server, names.domains)
    name = resolver.names_that_resolve(names.domains)[0]
    resolving = _resolving(computer, names)
    resolves = bool(resolving) if computer.tunnel else None
    if options.json:
        print(json.dumps(document.of_computer(computer, names, step, resolves), indent=2))
    else:
        print(f"{step.title}:")
        for setting in step.settings:
            print(f"{setting.state:<9}{setting.what}")
        print({True: f"right    {resolving} resolves", None: "unknown  the VPN is not connected"}.get(
            resolves, f"wrong    {_no_answer(name, names)}"))  # fmt: skip
    if step.commands or resolves is False:
        commandline.messages().print("`host.py install` sets right what is not, on this computer.", markup=False)
    return NOT_AS_IT_SHOULD_BE if step.commands or resolves is False else 0


def _resolving(computer: Computer, names: Names) -> str | None:
    """A name behind the VPN that this computer's resolver finds, while it is connected."""
    tried = resolver.names_that_resolve(names.domains) if computer.tunnel else ()
    return next((name for name in tried if effects.answers(resolver.query(computer, name))), None)


def _no_answer(name: str, names: Names) -> str:
    return f"{name} does not resolve, although the VPN leads to {names.server}: is the VPN's own side up?"


def _names(profile: Path | None) -> Names:
    """What the profile says of names: this one, or the project's first.

    Raises UserError when it says nothing.
    """
    if profile is not None:
        text, name = profile.read_text(encoding="utf-8", errors="replace"), str(profile)
    else:
        project = commandline.project_folder()
        answers = read_answers(project)
        text, name = read_profile(project, answers, answers.client_name), f"the profile of {answers.client_name}"
    try:
        found = next(filter(None, (lane.names(text) for lane in vpn.LANES)), None)
    except ValueError as error:
        raise UserError(f"{name} names a name server that is none ({error}): get it anew from who made it.") from error
    if found is None:
        raise UserError(f"{name} names nobody who answers names through the VPN: it was made without, or is too old.")
    return found


def _do(step: Step, commands: Sequence[Command], yes: bool) -> None:
    """Show the commands, ask, and run them.

    Raises UserError when the user does not want that, or cannot be asked.
    """
    print(f"{step.title}:\n", *_shown(commands), sep="\n")
    effects.refuse_without_rights()
    if not yes:
        if not sys.stdin.isatty():
            raise UserError("there is no terminal to ask at: run this again with --yes to have that done.")
        if not _agreed():
            raise UserError("nothing was done.")
    effects.carry_out(commands)


def _agreed() -> bool:
    try:
        return input("\nDo that? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _shown(commands: Sequence[Command]) -> Iterator[str]:
    """The commands as they could be typed, each with what it reads."""
    for command in commands:
        line = shlex.join(effects.as_administrator(command))
        yield f"    {line} << END" if command.text else f"    {line}"
        if command.text:
            yield from (f"    {text}" for text in (*command.text.splitlines(), "END"))
