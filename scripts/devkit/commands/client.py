"""The VPN's clients: add, list, revoke, and show a profile again."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from devkit import commandline
from devkit.answers import Answers, read_answers
from devkit.errors import UserError
from devkit.facts import Session
from devkit.material import (
    add_clients,
    delivered_mark,
    faults,
    find_client,
    fingerprint,
    profile_path,
    read_generation,
    read_profile,
    revoke_client,
)
from devkit.report import client_table, end_warnings, ends_of

if TYPE_CHECKING:
    from devkit.stack import Stack


def main(arguments: Sequence[str]) -> int:
    """Run `client.py`."""
    parser = commandline.parser(__doc__ or "")
    commands = parser.add_subparsers(dest="command", required=True, metavar="add|list|show|revoke")
    add = commands.add_parser("add", help="issue to new clients, and say where their profiles are")
    add.add_argument("names", nargs="+", metavar="NAME", help="1 to 48 of A-Z, a-z, 0-9, -, _ and .")
    list_ = commands.add_parser("list", help="all clients: certificates, and who is connected")
    commandline.add_cluster_options(list_)
    show = commands.add_parser("show", help="print a client's profile")
    show.add_argument("name", metavar="NAME", help="as in the list")
    revoke = commands.add_parser("revoke", help="end a client's access, and its session, at once")
    revoke.add_argument("name", metavar="NAME", help="as in the list")
    bodies = {"add": _add, "list": _list, "revoke": _revoke, "show": _show}
    return commandline.run(parser, lambda options: bodies[options.command](options), arguments)


def _add(options: argparse.Namespace) -> None:
    project = commandline.project_folder()
    answers = read_answers(project)
    add_clients(project, answers, options.names, _now())
    for name in options.names:
        print(profile_path(project, name))
    if delivered_mark(project).exists():
        try:
            _stack(project, answers).deliver()
        except UserError as error:
            raise UserError(f"the server has not heard of that yet: run `{answers.up}`. ({error})") from error


def _list(options: argparse.Namespace) -> None:
    project = commandline.project_folder()
    answers = read_answers(project)
    generation = read_generation(project)
    commandline.warn(faults(project, answers))
    errors = commandline.messages()
    sessions: list[Session] = []
    for ask in _who_is_connected(project, answers, options):
        try:
            sessions += ask()
        except UserError as error:
            errors.print(f"Who is connected is not known: {error}", style="dim", markup=False)
    commandline.show(client_table(generation, sessions))
    commandline.warn(end_warnings(ends_of(generation), _now()))


def _who_is_connected(
    project: Path, answers: Answers, options: argparse.Namespace
) -> Iterator[Callable[[], Sequence[Session]]]:
    """What asks each server there may be: the engine's, and the cluster's as far as there is word of one."""
    named = options.kubernetes or options.context
    if not named:
        yield lambda: _stack(project, answers).sessions()
    if named or answers.kubernetes != "none":
        from devkit.cluster import ClusterTools  # noqa: PLC0415 -- `add` needs none of it, and starts sooner

        yield lambda: ClusterTools(project, options.context).sessions()


def _revoke(options: argparse.Namespace) -> None:
    project = commandline.project_folder()
    answers = read_answers(project)
    name = revoke_client(project, answers, options.name, _now())
    errors = commandline.messages()
    errors.print(f"{name} is revoked.", markup=False)
    stack = _stack(project, answers)
    in_cluster = "`python scripts/up.py --kubernetes` refuses the client there, and ends the session"
    if answers.kubernetes != "none":
        errors.print(f"In the cluster, {in_cluster}.")
    try:
        running = stack.running_material()
        if delivered_mark(project).exists():
            stack.deliver()
    except UserError as error:
        if answers.kubernetes != "none":
            return  # that is where the server is
        raise UserError(
            f"{name} may still be connected, because {str(error).rstrip('.')}; then revoke again to end "
            f"the session. If the VPN is in a cluster, {in_cluster}."
        ) from error
    if running is None:
        if answers.kubernetes == "none":
            errors.print("The stack is down, so there was no session to end here.")
            errors.print(f"If the VPN is in a cluster, {in_cluster}.")
    elif running != fingerprint(project):
        # The server reads an older generation: only a start brings it to the one that the revocation is in.
        for _line in stack.start(fingerprint(project)):
            pass
        errors.print("The server was started anew with the newest certificates, which ended every session once.")
    else:
        ended = stack.end_sessions(name)
        errors.print(f"{ended} live session{'' if ended == 1 else 's'} ended.")


def _show(options: argparse.Namespace) -> None:
    project = commandline.project_folder()
    answers = read_answers(project)
    generation = read_generation(project)
    client = find_client(generation, options.name)
    if client not in generation.live_clients:
        raise UserError(f"{client.name} is revoked: `python scripts/client.py add {client.name}` issues it anew.")
    sys.stdout.write(read_profile(project, answers, client.name))


def _stack(project: Path, answers: Answers) -> "Stack":
    from devkit.stack import Stack  # noqa: PLC0415 -- Docker's library takes half of the start; `add` needs none

    return Stack(project, answers)


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
