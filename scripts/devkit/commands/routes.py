"""The networks that are reached through the VPN: list, add and remove them."""

import argparse
import stat
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from devkit import commandline
from devkit.answers import CHANGE_ANSWER, Answers, read_answers, with_routes
from devkit.errors import UserError
from devkit.files import replace_all
from devkit.layout import ANSWERS_FILE, Layout
from devkit.material.changes import change_answers
from devkit.material.state import read_generation
from devkit.tracked import route_lines, with_lines

Change = Callable[[Sequence[str]], Sequence[str]]


def main(arguments: Sequence[str]) -> int:
    """Run `routes.py`."""
    parser = commandline.parser(__doc__ or "")
    commands = parser.add_subparsers(dest="command", required=True, metavar="list|add|remove")
    commands.add_parser("list", help="print the routes, one on a line")
    add = commands.add_parser("add", help="reach further networks, too")
    add.add_argument("networks", nargs="+", metavar="NETWORK", help="such as 192.168.7.0/24")
    remove = commands.add_parser("remove", help="leave networks out from now on")
    remove.add_argument("networks", nargs="+", metavar="NETWORK", help="as `list` shows it")
    bodies = {"list": _list, "add": _add, "remove": _remove}
    return commandline.run(parser, lambda options: bodies[options.command](options), arguments)


def _list(_: argparse.Namespace) -> None:
    print(*read_answers(commandline.project_folder()).routes, sep="\n")


def _add(options: argparse.Namespace) -> None:
    wanted: Sequence[str] = tuple(dict.fromkeys(options.networks))
    _change(lambda routes: [*routes, *(network for network in wanted if network not in routes)])


def _remove(options: argparse.Namespace) -> None:
    unwanted: Sequence[str] = options.networks

    def left(routes: Sequence[str]) -> Sequence[str]:
        for network in unwanted:
            if network not in routes:
                raise UserError(f"{network!r} is not among the routes: `./scripts/routes.py list` shows them.")
        kept = [route for route in routes if route not in unwanted]
        if not kept:
            raise UserError("no route would be left: add another with `./scripts/routes.py add NETWORK` first.")
        return kept

    _change(left)


def _change(change: Change) -> None:
    """Write the routes wherever they are named, and say what is next."""
    project = commandline.project_folder()
    before = read_answers(project)
    read_generation(project)  # refused here, a project without certificates stays as it is
    answers, profiles = change_answers(project, lambda: _written(project, change), _now())
    routes = ", ".join(map(str, answers.routes))
    said = commandline.messages()
    if answers.routes == before.routes:
        said.print(f"The routes are {routes} already: nothing has changed.", markup=False)
        return
    then = ", then import the profiles again" if profiles else ""
    said.print(f"The routes are {routes} now: run `{answers.up}`{then}.", markup=False)


def _written(project: Path, change: Change) -> Answers:
    """The answers with other routes, which stand in all texts that name them."""
    paths = Layout(project)
    old = read_answers(project)
    new = with_routes(old, change([str(route) for route in old.routes]))
    lines, texts = route_lines(paths, new.routes), []
    for path, before in route_lines(paths, old.routes).items():
        if path.exists() or path != paths.compose:  # which a user of a cluster alone may not want
            try:
                text = with_lines(path.read_bytes(), before, lines[path])
            except ValueError:
                routes = ", ".join(map(str, new.routes))
                raise UserError(
                    f"{path} does not name the routes line by line as {ANSWERS_FILE} has them: mend that, or let "
                    f"Copier merge with `{CHANGE_ANSWER} 'routes=[{routes}]'`."
                ) from None
            texts.append((path, text, stat.S_IMODE(path.stat().st_mode)))
    if new != old:
        replace_all(texts)
    return new


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
