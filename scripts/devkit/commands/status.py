"""Print the connection report of a VPN that is up, and change nothing."""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from devkit import commandline, host
from devkit.answers import Answers, read_answers
from devkit.errors import UserError
from devkit.facts import EngineFacts
from devkit.material.state import first_profiles, problems, read_generation
from devkit.report import cluster, document, engine
from devkit.report.access import make_access, warning_lines
from devkit.report.certificates import contest_warnings
from devkit.sites.site import Site

WATCH_SECONDS = 2
IDLE_SHARE = 3  # where a look takes long, this many times as long passes until the next


def main(arguments: Sequence[str]) -> int:
    """Run `status.py`."""
    parser = commandline.parser(__doc__ or "")
    parser.add_argument("--json", action="store_true", help="print the report's facts as JSON")
    parser.add_argument("--watch", action="store_true", help="show the report again whenever it changes, until Ctrl-C")
    commandline.add_site_options(parser)
    return commandline.run(parser, _status, arguments)


def _status(options: argparse.Namespace) -> None:
    project = commandline.project_folder()
    answers = read_answers(project)
    commandline.warn(problems(project, answers))
    site = commandline.site(project, answers, options)
    if options.watch:
        _watch(project, answers, site, as_json=options.json)
        return
    fingerprint = site.fingerprint()
    show_report(project, answers, site, as_json=options.json)
    if site.loaded() not in (None, fingerprint):
        commandline.warn([f"what runs is older than what is in this folder: run `{site.up}` to load it."])


def show_report(project: Path, answers: Answers, site: Site, as_json: bool) -> None:
    """Ask the site what there is, and print the report."""
    facts, text, contests = _report(project, answers, site)
    if as_json:
        print(json.dumps(document.with_warnings(facts, contests), indent=2))
    else:
        commandline.show(text)
        commandline.warn(contests)


def _report(project: Path, answers: Answers, site: Site) -> tuple[document.Document, RenderableType, Sequence[str]]:
    """Ask the site what there is, for a program and for a person; and which clients are used on two machines.

    A cluster is not asked for these: it takes a right to run programs in pods, and this shall only read.
    """
    found = site.facts()
    now = datetime.now(UTC)
    access = make_access(answers, first_profiles(project, answers), read_generation(project), now)
    system, folder = host.operating_system(), Path.cwd()
    if isinstance(found, EngineFacts):
        on_engine = engine.make_report(access, found)
        return document.of_engine(on_engine), engine.as_text(on_engine, system, folder), _contests(site)
    in_cluster = cluster.make_report(access, found)
    return document.of_cluster(in_cluster), cluster.as_text(in_cluster, system, folder), ()


def _contests(site: Site) -> Sequence[str]:
    """A sentence for each client that is used on two machines; a server that does not answer hinders no report."""
    with suppress(UserError):
        return list(contest_warnings(site.contests()))
    return []


def _watch(project: Path, answers: Answers, site: Site, as_json: bool) -> None:
    """Show the report whenever it has changed: on a terminal in one place, as JSON in a line, until Ctrl-C."""
    reports = _reports(project, answers, site)
    if as_json:
        for facts, _ in reports:
            print(json.dumps(facts), flush=True)
    with commandline.redrawn() as redraw:
        for _, text in reports:
            redraw(text)


def _reports(project: Path, answers: Answers, site: Site) -> Iterator[tuple[document.Document, RenderableType]]:
    """The report, and again whenever it has changed; one that fails later than at first is waited for."""
    looked, shown = time.monotonic(), None
    facts, text = _whole_report(project, answers, site)
    while True:
        if facts != shown:
            yield facts, text
        shown = facts
        time.sleep(max(WATCH_SECONDS, IDLE_SHARE * (time.monotonic() - looked)))
        looked = time.monotonic()
        try:
            facts, text = _whole_report(project, answers, site)
        except UserError as error:
            facts, text = document.of_error(error), Text(f"error: {error}", style="red")


def _whole_report(project: Path, answers: Answers, site: Site) -> tuple[document.Document, RenderableType]:
    facts, text, contests = _report(project, answers, site)
    return document.with_warnings(facts, contests), Group(text, *warning_lines(contests))
