"""Tell this computer who answers names behind the VPN, and which CA vouches for them; take it back; say how it is."""

import argparse
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from devkit import commandline, vpn
from devkit.answers import read_answers
from devkit.computer import effects, resolver, trust
from devkit.computer.model import Command, Computer, Root, Step
from devkit.errors import UserError
from devkit.layout import HTTPS_ROOT, Layout
from devkit.material.state import read_profile
from devkit.report import document
from devkit.vpn.lane import Names


@dataclass(frozen=True)
class Wish:
    """What a profile wants of this computer, and is not to be refused; in a project, the root is a file, too."""

    names: Names
    root: Root | None
    root_file: str | None = None


@dataclass(frozen=True)
class Plan:
    """What there is to do: None for what this computer cannot, of which the warnings say why."""

    names: Step | None
    trust: Step | None
    warnings: tuple[str, ...]
    whole: bool  # whether it can all that the profile wants

    @property
    def steps(self) -> tuple[Step, ...]:
        """What is to be so, one after the other."""
        return tuple(filter(None, (self.names, self.trust)))

    @property
    def is_fulfilled(self) -> bool:
        """Whether all is as the profile wants it."""
        return self.whole and all(setting.state == "right" for step in self.steps for setting in step.settings)


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
    wish = wish_of(options.profile)
    computer = effects.look(wish.names.server)
    plan = plan_for(computer, wish)
    resolving = None if plan.names and plan.names.commands else _resolving(computer, plan, wish.names)
    again = plan.names.again if plan.names and computer.tunnel and not resolving else ()
    to_do = [(step, step.commands or (again if step is plan.names else ())) for step in plan.steps]
    if any(commands for _, commands in to_do):
        _do(to_do, options.yes)
        computer = effects.look(wish.names.server)
        plan = plan_for(computer, wish)
        resolving = _resolving(computer, plan, wish.names)
    if plan.trust and wish.root:
        _say_what_is_trusted(computer, wish.root, wish.root_file)
    name, said = resolver.names_that_resolve(wish.names.domains)[0], commandline.messages()
    if resolving:
        said.print(f"{resolving} resolves.", markup=False)
    elif plan.names and computer.tunnel:
        said.print(_no_answer(name, wish.names), style="yellow", markup=False)
        return commandline.NOT_AS_IT_SHOULD_BE
    elif plan.names:
        said.print(f"This computer is set up: {name} will resolve once the VPN is connected.", markup=False)
    commandline.warn(plan.warnings)
    return 0 if plan.is_fulfilled else commandline.NOT_AS_IT_SHOULD_BE


def _say_what_is_trusted(computer: Computer, root: Root, file: str | None) -> None:
    said = commandline.messages()
    said.print(f"https://NAME.{root.domain} is trusted here; start a browser that runs anew.", markup=False)
    hints = trust.hints(computer, root, file, "" if effects.is_administrator() else "sudo ")
    if hints:
        said.print("Node has CAs of its own, and so may Java. For these, once for all or in each shell:", markup=False)
        said.print(*(f"    {line}" for line in hints), sep="\n", markup=False)


def _remove(options: argparse.Namespace) -> int:
    computer = effects.look()
    to_do = [(step, step.commands) for step in (resolver.remove(computer), trust.remove(computer))]
    if any(commands for _, commands in to_do):
        _do(to_do, options.yes)
        computer = effects.look()
    if left := trust.remove(computer).settings:
        commandline.warn([f"{setting.what} has a CA of ours still." for setting in left])
        commandline.warn(trust.warnings(computer))
        return commandline.NOT_AS_IT_SHOULD_BE
    commandline.messages().print("This computer has nothing of ours now.", markup=False)
    return 0


def _status(options: argparse.Namespace) -> int:
    wish = wish_of(options.profile)
    computer = effects.look(wish.names.server)
    plan = plan_for(computer, wish)
    resolving = _resolving(computer, plan, wish.names)
    resolves = bool(resolving) if computer.tunnel and plan.names else None
    if options.json:
        found = document.of_computer(computer, wish.names, plan.names, resolves, plan.warnings)
        print(json.dumps(document.with_trust(found, wish.root, plan.trust), indent=2))
    else:
        _show(plan, _how_names_are(resolving, resolves, wish.names))
        commandline.warn(plan.warnings)
    wrong = not plan.is_fulfilled or resolves is False
    if wrong:
        commandline.messages().print("`host.py install` sets right what is not, on this computer.", markup=False)
    return commandline.NOT_AS_IT_SHOULD_BE if wrong else 0


def _show(plan: Plan, how_names_are: str) -> None:
    for step in plan.steps:
        print(f"{step.title}:")
        for setting in step.settings:
            print(f"{setting.state:<9}{setting.what}")
        if step is plan.names:
            print(how_names_are)


def _how_names_are(resolving: str | None, resolves: bool | None, names: Names) -> str:
    if resolves is None:
        return "unknown  the VPN is not connected"
    name = resolver.names_that_resolve(names.domains)[0]
    return f"right    {resolving} resolves" if resolves else f"wrong    {_no_answer(name, names)}"


def _resolving(computer: Computer, plan: Plan, names: Names) -> str | None:
    """A name behind the VPN that this computer's resolver finds, while it is connected."""
    tried = resolver.names_that_resolve(names.domains) if computer.tunnel and plan.names else ()
    return next((name for name in tried if effects.answers(resolver.query(computer, name))), None)


def _no_answer(name: str, names: Names) -> str:
    return f"{name} does not resolve, although the VPN leads to {names.server}: is the VPN's own side up?"


def plan_for(computer: Computer, wish: Wish) -> Plan:
    """What is to be done on this computer.

    Raises UserError when it can do nothing of it.
    """
    names, trusted, obstacles = None, None, []
    try:
        names = resolver.install(computer, wish.names.server, wish.names.domains)
    except UserError as error:
        obstacles.append(str(error))
    try:
        trusted = trust.install(computer, wish.root) if wish.root else None
    except UserError as error:
        obstacles.append(str(error))
    if not names and not trusted:
        raise UserError(obstacles[0])
    unreached = trust.warnings(computer) if trusted else ()
    return Plan(names, trusted, (*obstacles, *unreached), whole=not obstacles)


def wish_of(profile: Path | None) -> Wish:
    """What the profile says: this one, or the project's first.

    Raises UserError when it says nothing, or what no profile of ours says.
    """
    root_file = None
    if profile is not None:
        text, name = profile.read_text(encoding="utf-8", errors="replace"), str(profile)
    else:
        project = commandline.project_folder()
        answers = read_answers(project)
        text, name = read_profile(project, answers, answers.client_name), f"the profile of {answers.client_name}"
        root_file = str(Layout(project).https / f"{HTTPS_ROOT.name}.crt")
    try:
        found = next(filter(None, (lane.names(text) for lane in vpn.LANES)), None)
    except ValueError as error:
        raise UserError(f"{name} names a name server that is none ({error}): get it anew from who made it.") from error
    if found is None:
        raise UserError(f"{name} names nobody who answers names through the VPN: it was made without, or is too old.")
    resolver.refuse(found.server, found.domains)
    root = trust.root(found.https_root, found.domains, datetime.now(UTC)) if found.https_root else None
    return Wish(found, root, root_file)


def _do(to_do: Sequence[tuple[Step, Sequence[Command]]], yes: bool) -> None:
    """Show the commands of steps, ask once, and run them.

    Raises UserError when the user does not want that, or cannot be asked.
    """
    to_do = [(step, commands) for step, commands in to_do if commands]
    print(*("\n".join([f"{step.title}:", "", *_shown(commands)]) for step, commands in to_do), sep="\n\n")
    commands = [command for _, some in to_do for command in some]
    if not all(command.by_user for command in commands):
        effects.refuse_without_rights()
    if not yes:
        if not sys.stdin.isatty():
            raise UserError("there is no terminal to ask at: run this again with --yes to have that done.")
        if not commandline.agreed("Do that?"):
            raise UserError("nothing was done.")
    effects.carry_out(commands)


def _shown(commands: Sequence[Command]) -> Iterator[str]:
    """The commands as they could be typed, each with what it reads."""
    for command in commands:
        line = shlex.join(effects.as_who(command))
        yield f"    {line} << END" if command.text else f"    {line}"
        if command.text:
            yield from (f"    {text}" for text in (*command.text.splitlines(), "END"))
