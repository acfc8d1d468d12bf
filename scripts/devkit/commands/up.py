"""Bring the VPN up: check first, build, start, wait until it is healthy, and print the connection report."""

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime

from devkit import checks, commandline
from devkit.answers import read_answers
from devkit.commands.status import show_report
from devkit.material.changes import ensure_material, record_host
from devkit.material.state import first_profiles, former_first_clients, https_root, read_generation
from devkit.report.certificates import NEW_HTTPS_ROOT, renamed_text
from devkit.sites.choice import host_of_server


def main(arguments: Sequence[str]) -> int:
    """Run `up.py`."""
    parser = commandline.parser(__doc__ or "")
    parser.add_argument("--json", action="store_true", help="print the report's facts as JSON")
    anew = "build the image anew, with the packages of today, although nothing has changed here"
    parser.add_argument("--build", action="store_true", help=anew)
    commandline.add_site_options(parser, values=True)
    return commandline.run(parser, _up, arguments)


def _up(options: argparse.Namespace) -> int:
    project = commandline.project_folder()
    answers = read_answers(project, host_of_server(options.kubernetes))
    generation = read_generation(project)
    site = commandline.site(project, answers, options)
    now = datetime.now(UTC).replace(microsecond=0)
    checks.require(site.checks(generation, now))
    progress = commandline.messages()
    host_is_new = record_host(project, answers)
    former, root = former_first_clients(project, answers), https_root(project)
    ensure_material(project, answers, now)  # the server reads what it writes
    if former and first_profiles(project, answers)[0].exists():
        progress.print(renamed_text(former, answers), markup=False)
    if https_root(project) != root:
        progress.print(NEW_HTTPS_ROOT, markup=False)
    if host_is_new:
        said = f"The profiles lead to {answers.vpn_host} now, as Docker's context does: import them again."
        progress.print(said, markup=False)
    for step in site.start(options.build):
        commandline.follow(progress, step)
    # Whether a client is connected is not up to this command.
    _, health = show_report(project, answers, site, options.json, may_run=True, about=checks.OF_THE_SERVER)
    return commandline.code_of(health)
