"""Bring the VPN up: check first, build, start, wait until it is healthy, and print the connection report."""

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime

from devkit import checks, commandline
from devkit.answers import read_answers
from devkit.commands import kubernetes
from devkit.commands.status import show_report
from devkit.material import ensure_material, fingerprint, read_generation, record_host
from devkit.stack import Stack, host_of_context


def main(arguments: Sequence[str]) -> int:
    """Run `up.py`."""
    parser = commandline.parser(__doc__ or "")
    parser.add_argument("--json", action="store_true", help="print the report's facts as JSON")
    kubernetes.add_options(parser, values=True)
    return commandline.run(parser, kubernetes.or_else(parser, kubernetes.up, _up), arguments)


def _up(options: argparse.Namespace) -> None:
    project = commandline.project_folder()
    context = host_of_context()
    answers = read_answers(project, context)
    generation = read_generation(project)
    checks.check_ends(generation)
    checks.check_context(answers, context)
    stack = Stack(project, answers)
    engine = stack.engine()
    stack.require_compose()
    networks = stack.networks()
    stack.check_others()
    holds_port = any(map(stack.is_ours, stack.containers()))  # our own server may
    if engine.local:  # what is published elsewhere may have another address on the way
        checks.check_listen(answers)
        if not holds_port:
            checks.check_port(answers)
    else:
        checks.check_host(answers, engine)
    checks.check_routes(answers, [subnet for network in networks for subnet in network.subnets])

    progress = commandline.messages()
    host_is_new = record_host(project, answers)
    ensure_material(project, answers, datetime.now(UTC).replace(microsecond=0))  # the server mounts what it writes
    if host_is_new:
        progress.print(f"The profiles lead to {answers.vpn_host} now, as Docker's context does: import them again.")
    commandline.follow(progress, "Building the image", stack.build())
    if not engine.local and not holds_port:
        stack.check_port_there(answers)
    commandline.follow(progress, "Starting the server and the firewall", stack.start(fingerprint(project)))
    show_report(project, answers, stack, as_json=options.json)
