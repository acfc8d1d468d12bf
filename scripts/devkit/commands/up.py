"""Bring the VPN up: check first, build, start, wait until it is healthy, and print the connection report."""

import argparse
from collections.abc import Iterable, Sequence

from devkit import checks, commandline
from devkit.answers import Answers, read_answers
from devkit.commands import kubernetes
from devkit.commands.status import show_report
from devkit.errors import UserError
from devkit.facts import Container, Engine, Network
from devkit.material import fingerprint, read_generation
from devkit.stack import RELAY_BRIDGE, Stack


def main(arguments: Sequence[str]) -> int:
    """Run `up.py`."""
    parser = commandline.parser(__doc__ or "")
    parser.add_argument("--json", action="store_true", help="print the report's facts as JSON")
    kubernetes.add_options(parser, values=True)
    return commandline.run(parser, kubernetes.or_else(parser, kubernetes.up, _up), arguments)


def _up(options: argparse.Namespace) -> None:
    project = commandline.project_folder()
    answers = read_answers(project)
    generation = read_generation(project)
    checks.check_ends(generation)
    stack = Stack(project, answers)
    engine = stack.engine()
    stack.require_compose()
    networks = stack.networks()
    _check_other_devkits(stack, networks)
    _check_port(answers, engine, stack, stack.containers())
    checks.check_routes(answers, [subnet for network in networks for subnet in network.subnets])

    progress = commandline.messages()
    commandline.follow(progress, "Building the image", stack.build())
    commandline.follow(progress, "Starting openvpn, firewall and relay", stack.start(fingerprint(project)))
    show_report(project, answers, stack, as_json=options.json)


def _check_other_devkits(stack: Stack, networks: Iterable[Network]) -> None:
    for network in networks:
        if network.bridge == RELAY_BRIDGE and network.project != stack.project_name:
            raise UserError(
                f"another devkit, {network.project or network.name}, is up on this engine: take it down first "
                "(`python scripts/down.py` in its folder)."
            )


def _check_port(answers: Answers, engine: Engine, stack: Stack, containers: Iterable[Container]) -> None:
    # A remote engine publishes the port elsewhere; our own relay may hold it already.
    if engine.local and not any(stack.is_ours(container) and container.service == "relay" for container in containers):
        checks.check_port(answers)
