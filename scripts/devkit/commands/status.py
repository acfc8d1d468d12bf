"""Print the connection report of a VPN that is up, and change nothing."""

import argparse
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from devkit import commandline, host
from devkit.answers import Answers, read_answers
from devkit.commands import kubernetes
from devkit.errors import UserError
from devkit.material import faults, fingerprint, local_folder, read_generation
from devkit.report import as_document, as_text, make_report
from devkit.stack import Stack


def main(arguments: Sequence[str]) -> int:
    """Run `status.py`."""
    parser = commandline.parser(__doc__ or "")
    parser.add_argument("--json", action="store_true", help="print the report's facts as JSON")
    kubernetes.add_options(parser)
    return commandline.run(parser, kubernetes.or_else(parser, kubernetes.status, _status), arguments)


def _status(options: argparse.Namespace) -> None:
    project = commandline.project_folder()
    answers = read_answers(project)
    commandline.warn(faults(project, answers))
    stack = Stack(project, answers)
    running = stack.running_material()
    if running is None:
        raise UserError(f"the VPN is down: bring it up with `{answers.up}`.")
    show_report(project, answers, stack, as_json=options.json)
    if running != fingerprint(project):
        commandline.warn_of_older("python scripts/up.py")


def show_report(project: Path, answers: Answers, stack: Stack, as_json: bool) -> None:
    """Ask the engine what there is, and print the report."""
    others = [container for container in stack.containers() if not stack.is_ours(container)]
    report = make_report(
        answers, stack.engine(), local_folder(project), read_generation(project), others, datetime.now(UTC)
    )
    if as_json:
        print(json.dumps(as_document(report), indent=2))
    else:
        commandline.show(as_text(report, host.operating_system(), Path.cwd()))
