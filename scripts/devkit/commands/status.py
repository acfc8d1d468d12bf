"""Print the connection report of a VPN that is up, and change nothing."""

import argparse
import json
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from devkit import checks, commandline, host, reachability
from devkit.addresses import first_host
from devkit.answers import Answers, read_answers
from devkit.checks import Check
from devkit.errors import UserError
from devkit.facts import ClusterFacts, EngineFacts, Facts
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


def _status(options: argparse.Namespace) -> int:
    project = commandline.project_folder()
    answers = read_answers(project)
    commandline.warn(problems(project, answers))
    site = commandline.site(project, answers, options)
    if options.watch:
        _watch(project, answers, site, as_json=options.json)
        return 0
    fingerprint = site.fingerprint()
    found, health = show_report(project, answers, site, as_json=options.json)
    if site.loaded(found) not in (None, fingerprint):
        commandline.warn([f"what runs is older than what is in this folder: run `{site.up}` to load it."])
    return commandline.code_of(health)


def show_report(
    project: Path,
    answers: Answers,
    site: Site,
    as_json: bool,
    may_run: bool = False,
    about: Collection[str] = checks.HEALTH,
) -> tuple[Facts, Sequence[Check]]:
    """Ask the site what there is, print the report, and return that and how the VPN is doing in what is asked about.

    See `Site.condition` for `may_run`.
    """
    report = _report(project, answers, site, may_run, about)
    if as_json:
        print(json.dumps(document.with_warnings(report.facts, report.contests), indent=2))
    else:
        commandline.show(report.text)
        commandline.warn(report.contests)
    return report.found, [one for one in report.health if one.name in about]


@dataclass(frozen=True)
class _Report:
    """What there is, for a program and for a person; how the VPN is doing, and who is used on two machines."""

    found: Facts
    facts: document.Document
    text: RenderableType
    health: Sequence[Check]
    contests: Sequence[str]


def _report(
    project: Path, answers: Answers, site: Site, may_run: bool = False, about: Collection[str] = checks.HEALTH
) -> _Report:
    """Ask the site what there is, and this computer how it gets there."""
    found = site.facts()
    now = datetime.now(UTC)
    access = make_access(answers, first_profiles(project, answers), read_generation(project), now)
    system, folder = host.operating_system(), Path.cwd()
    targets = reachability.targets(found, answers.routes)
    condition = site.condition(found, targets, may_run)
    ways = host.ways([*(target.address for target in targets), *map(first_host, answers.routes)])
    if condition.answers is None and isinstance(found, ClusterFacts):  # whose servers were not asked
        near = [one for one in targets if (way := ways[one.address]) and way.address.ip in answers.vpn_subnet]
        condition = replace(condition, answers=host.answering(near)) if near else condition
    contests = list(contest_warnings(condition.contests))
    if isinstance(found, EngineFacts):
        on_engine = engine.make_report(access, found, condition, ways)
        text = engine.as_text(on_engine, system, folder, about)
        return _Report(found, document.of_engine(on_engine), text, on_engine.health, contests)
    in_cluster = cluster.make_report(access, found, condition, ways, site.up)
    text = cluster.as_text(in_cluster, system, folder, about)
    return _Report(found, document.of_cluster(in_cluster), text, in_cluster.health, contests)


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
    report = _report(project, answers, site)
    warnings = warning_lines(report.contests)
    return document.with_warnings(report.facts, report.contests), Group(report.text, *warnings)
