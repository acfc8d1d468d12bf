"""Take the VPN down: containers, network, device and firewall rules. Certificates and profiles stay."""

import argparse
from collections.abc import Sequence

from devkit import commandline
from devkit.answers import read_answers
from devkit.commands import kubernetes
from devkit.stack import Stack


def main(arguments: Sequence[str]) -> int:
    """Run `down.py`."""
    parser = commandline.parser(__doc__ or "")
    parser.add_argument("--images", action="store_true", help="remove the image, too")
    kubernetes.add_options(parser)
    return commandline.run(parser, kubernetes.or_else(parser, kubernetes.down, _down), arguments)


def _down(options: argparse.Namespace) -> None:
    project = commandline.project_folder()
    answers = read_answers(project)
    stack = Stack(project, answers)
    stack.engine()
    stack.require_compose()
    progress = commandline.messages()
    with progress.status("Stopping"):
        stack.stop(images=options.images)
    progress.print("Everything is down.")
