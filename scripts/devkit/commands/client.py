"""The VPN's clients: add, list, revoke, and show a profile again."""

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from devkit import commandline, host
from devkit.answers import CHANGE_ANSWER, Answers, read_answers
from devkit.errors import UnreachableError, UserError
from devkit.facts import Session
from devkit.layout import Layout
from devkit.material.changes import add_clients, revoke_client
from devkit.material.expiry import expiries, expiry_warnings
from devkit.material.state import find_client, problems, profiles, read_generation, read_profile
from devkit.report import document
from devkit.report.certificates import client_table, contest_warnings
from devkit.sites.choice import choose


def main(arguments: Sequence[str]) -> int:
    """Run `client.py`."""
    parser = commandline.parser(__doc__ or "")
    commands = parser.add_subparsers(dest="command", required=True, metavar="add|list|show|revoke")
    add = commands.add_parser("add", help="issue certificates to new clients, and say where their profiles are")
    add.add_argument("names", nargs="+", metavar="NAME", help="1 to 48 of A-Z, a-z, 0-9, -, _ and .")
    commandline.add_site_options(add)
    list_ = commands.add_parser("list", help="all clients: certificates, and who is connected")
    list_.add_argument("--json", action="store_true", help="print the same facts as JSON")
    commandline.add_site_options(list_)
    show = commands.add_parser("show", help="print a client's profile")
    show.add_argument("name", metavar="NAME", help="as `list` shows it")
    revoke = commands.add_parser("revoke", help="end a client's access, and its session, at once")
    revoke.add_argument("name", metavar="NAME", help="as `list` shows it")
    commandline.add_site_options(revoke)
    bodies = {"add": _add, "list": _list, "revoke": _revoke, "show": _show}
    return commandline.run(parser, lambda options: bodies[options.command](options), arguments)


def _add(options: argparse.Namespace) -> None:
    project = commandline.project_folder()
    answers = read_answers(project)
    count = add_clients(project, answers, options.names, _now())
    for name in options.names:
        print(*profiles(project, name), sep="\n")
    if host.is_loopback(answers.vpn_host):
        alone = f"a profile that leads to {answers.vpn_host} works on this computer alone"
        commandline.warn([f"{alone}: for others answer `{CHANGE_ANSWER} vpn_host=HOST` first."])
    if count > answers.most_connected:
        at_once = f"{answers.vpn_subnet} has addresses for {answers.most_connected} at once"
        mend = "revoke those that nobody needs with `./scripts/client.py revoke NAME`"
        commandline.warn([f"{count} clients may connect, but {at_once}: {mend}."])
    in_cluster = bool(options.kubernetes or options.context)
    if in_cluster or Layout(project).delivered.exists():  # else the server sees the folder
        site = choose(project, answers, in_cluster, options.context)
        try:
            site.admit()
        except UserError as error:
            raise UserError(f"the server does not know the new clients yet: run `{site.up}`. ({error})") from error


def _list(options: argparse.Namespace) -> None:
    project = commandline.project_folder()
    answers = read_answers(project)
    generation = read_generation(project)
    commandline.warn(problems(project, answers))
    sessions: list[Session] = []
    contests: list[str] = []
    unknown: list[str] = []
    for kubernetes in _sites(answers, options):
        try:
            site = choose(project, answers, kubernetes, options.context)
            sessions += site.sessions()
            contests += contest_warnings(site.contests())
        except UserError as error:
            unknown.append(f"It is not known who is connected: {error}")
    for sentence in unknown:
        commandline.messages().print(sentence, style="dim", markup=False)
    if options.json:
        print(json.dumps(document.of_clients(generation, sessions, [*unknown, *contests]), indent=2))
    else:
        commandline.show(client_table(generation, sessions))
        commandline.warn(contests)
    commandline.warn(expiry_warnings(expiries(generation), _now()))


def _sites(answers: Answers, options: argparse.Namespace) -> Sequence[bool]:
    """Where the server may run, as `choose` takes it: the engine and, if one was answered, a cluster."""
    if options.kubernetes or options.context:
        return (True,)
    return (False,) if answers.kubernetes == "none" else (False, True)


def _revoke(options: argparse.Namespace) -> None:
    project = commandline.project_folder()
    answers = read_answers(project)
    name = revoke_client(project, answers, options.name, _now())
    said = commandline.messages()
    said.print(f"{name} is revoked.", markup=False)
    sites = _sites(answers, options)
    delivered = Layout(project).delivered.exists()
    if delivered:
        sites = sorted({False, *sites})  # that engine has a copy, which must follow
    running, problems_ = False, []
    for kubernetes in sites:
        try:
            refusal = choose(project, answers, kubernetes, options.context).refuse(name)
        except UserError as error:
            problems_.append(error)
        else:
            said.print(refusal.said, markup=False)
            running |= refusal.running
    # An engine that does not answer need not be there for a server in a cluster.
    if running and not delivered:
        problems_ = [error for error in problems_ if not isinstance(error, UnreachableError)]
    elsewhere = f"If the VPN is in a cluster, `./scripts/client.py revoke {name} --kubernetes` ends the session there."
    if problems_:
        raise UserError(
            f"{name} may still be connected, because {str(problems_[0]).rstrip('.')}; then revoke again to end the "
            f"session.{'' if True in sites else f' {elsewhere}'}"
        ) from problems_[0]
    if True not in sites:
        said.print(elsewhere, style="dim", markup=False)


def _show(options: argparse.Namespace) -> None:
    project = commandline.project_folder()
    answers = read_answers(project)
    generation = read_generation(project)
    client = find_client(generation, options.name)
    if client not in generation.live_clients:
        raise UserError(f"{client.name} is revoked: `./scripts/client.py add {client.name}` issues it anew.")
    sys.stdout.write(read_profile(project, answers, client.name))


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
