"""Bring the VPN up: check first, build, start, wait until it is healthy, and print the connection report."""

import argparse
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.text import Text

from devkit import commandline, host
from devkit.answers import CHANGE_ANSWER, Answers, read_answers
from devkit.commands.status import show_report
from devkit.errors import UserError
from devkit.facts import Container, Engine, Network
from devkit.generation import Generation
from devkit.material import fingerprint, read_generation
from devkit.report import ends_of
from devkit.stack import RELAY_BRIDGE, Stack


def main(arguments: Sequence[str]) -> int:
    """Run `up.py`."""
    parser = commandline.parser(__doc__ or "")
    parser.add_argument("--json", action="store_true", help="print the report's facts as JSON")
    return commandline.run(parser, _up, arguments)


def _up(options: argparse.Namespace) -> None:
    project = commandline.project_folder()
    answers = read_answers(project)
    generation = read_generation(project)
    _check_ends(generation)
    stack = Stack(project, answers)
    engine = stack.engine()
    stack.require_compose()
    networks = stack.networks()
    _check_other_devkits(stack, networks)
    _check_port(answers, engine, stack, stack.containers())
    _check_routes(answers, networks)

    progress = commandline.messages()
    _follow(progress, "Building the image", stack.build())
    _follow(progress, "Starting openvpn, firewall and relay", stack.start(fingerprint(project)))
    show_report(project, answers, stack, as_json=options.json)


def _check_ends(generation: Generation) -> None:
    ended = [end for end in ends_of(generation) if end.name == "server" and end.at <= datetime.now(UTC)]
    for end in ended:
        raise UserError(
            f"the server's certificate ended on {end.at:%Y-%m-%d}, so no client would connect: renew it with "
            f"`{end.renewal}`."
        )


def _check_other_devkits(stack: Stack, networks: Iterable[Network]) -> None:
    for network in networks:
        if network.bridge == RELAY_BRIDGE and network.project != stack.project_name:
            raise UserError(
                f"another devkit, {network.project or network.name}, is up on this engine: take it down first "
                "(`python scripts/down.py` in its folder)."
            )


def _check_port(answers: Answers, engine: Engine, stack: Stack, containers: Iterable[Container]) -> None:
    # A remote engine publishes the port elsewhere; our own relay may hold it already.
    if not engine.local or any(stack.is_ours(container) and container.service == "relay" for container in containers):
        return
    fault = host.port_fault(answers.vpn_listen, answers.vpn_port, answers.vpn_protocol)
    if fault:
        raise UserError(
            f"{answers.vpn_listen}:{answers.vpn_port}/{answers.vpn_protocol} cannot be published because {fault}: "
            f"free it, or choose another with `{CHANGE_ANSWER} vpn_port=NUMBER`."
        )


def _check_routes(answers: Answers, networks: Iterable[Network]) -> None:
    known = [subnet for network in networks for subnet in network.subnets]
    found = host.collision([*answers.routes, answers.vpn_subnet], host.interfaces(), [*known, answers.vpn_subnet])
    if found:
        route, interface = found
        raise UserError(
            f"{route} collides with this computer's own network {interface.network} ({interface.name}): choose "
            f"others with `{CHANGE_ANSWER} 'routes=[...]'` (or vpn_subnet=...)."
        )


def _follow(progress: Console, what: str, lines: Iterable[str]) -> None:
    """Show a step's last line while it lasts, and one line when it is done."""
    with progress.status(what) as status:
        for line in lines:
            status.update(Text(f"{what}: {line}", overflow="ellipsis", no_wrap=True))
    progress.print(f"{what}: done", style="dim")
