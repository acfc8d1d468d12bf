"""Print the connection report of a VPN that is up, and change nothing."""

import argparse
import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from devkit import commandline, host
from devkit.answers import Answers, read_answers
from devkit.errors import UserError
from devkit.facts import EngineFacts
from devkit.material.state import first_profiles, problems, read_generation
from devkit.report import cluster, document, engine
from devkit.report.access import make_access
from devkit.report.certificates import contest_warnings
from devkit.sites.site import Site


def main(arguments: Sequence[str]) -> int:
    """Run `status.py`."""
    parser = commandline.parser(__doc__ or "")
    parser.add_argument("--json", action="store_true", help="print the report's facts as JSON")
    commandline.add_site_options(parser)
    return commandline.run(parser, _status, arguments)


def _status(options: argparse.Namespace) -> None:
    project = commandline.project_folder()
    answers = read_answers(project)
    commandline.warn(problems(project, answers))
    site = commandline.site(project, answers, options)
    fingerprint = site.fingerprint()
    show_report(project, answers, site, as_json=options.json)
    if site.loaded() not in (None, fingerprint):
        commandline.warn([f"what runs is older than what is in this folder: run `{site.up}` to load it."])


def show_report(project: Path, answers: Answers, site: Site, as_json: bool) -> None:
    """Ask the site what there is, and print the report."""
    found = site.facts()
    now = datetime.now(UTC)
    access = make_access(answers, first_profiles(project, answers), read_generation(project), now)
    contests: list[str] = []
    with suppress(UserError):  # a server that does not answer is no reason to print no report
        contests += contest_warnings(site.contests())
    system, folder = host.operating_system(), Path.cwd()
    facts: document.Document
    if isinstance(found, EngineFacts):
        on_engine = engine.make_report(access, found)
        facts, text = document.of_engine(on_engine), engine.as_text(on_engine, system, folder)
    else:
        in_cluster = cluster.make_report(access, found)
        facts, text = document.of_cluster(in_cluster), cluster.as_text(in_cluster, system, folder)
    if as_json:
        print(json.dumps(document.with_warnings(facts, contests), indent=2))
    else:
        commandline.show(text)
        commandline.warn(contests)
