"""What many clients at one server notice of who makes trouble: how long their fetches take, alone and beside it.

Each client is a stock one on a computer of its own, and fetches a page twice a second, by name and by address in turns.
Every trouble has a time without any before it and after it, so that each ratio compares neighbours. What runs on the
others' computers may have what the processors have left. Timings differ from machine to machine and from run to run:
the ratios are what counts.
"""

import argparse
import json
import signal
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from tests.bench.speed import positive
from tests.crowd import SERVICES, Fetches, Usage, lost_sessions, usage
from tests.troubles import TROUBLES, Site, crowded_site

RHYTHM = 0.5  # seconds between two fetches of one client
SETTLING = 0.5  # seconds after a trouble has begun or ended
ALONE = "nothing"
MIB = 1024 * 1024


class Span(NamedTuple):
    """Some seconds, and what went on."""

    trouble: str
    begin: float
    end: float


@dataclass(frozen=True)
class Window:
    """What all clients fetched in such a time, in milliseconds."""

    trouble: str
    fetches: int
    failed: int
    p50: float
    p95: float


def span(trouble: str, seconds: float) -> Span:
    """Let so much time pass, once what has begun or ended just now has settled."""
    time.sleep(SETTLING)
    begin = time.monotonic()
    time.sleep(seconds)
    return Span(trouble, begin, time.monotonic())


def spans(site: Site, rounds: int, seconds: float) -> Iterator[Span]:
    """The troubles in turns, with a time without any before each and after the last."""
    yield span(ALONE, seconds)
    for number in range(1, rounds + 1):
        print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
        for name, trouble in TROUBLES.items():
            with trouble(site):
                yield span(name, seconds)
            yield span(ALONE, seconds)


def window(span_: Span, fetches: Fetches) -> Window:
    """What was fetched then."""
    seen = fetches.between(span_.begin, span_.end)
    took = sorted((one.ended - one.begun) * 1000 for one in seen)
    failed = sum(1 for one in seen if one.wrong)
    return Window(span_.trouble, len(seen), failed, statistics.median(took), took[int(len(took) * 0.95)])


def show(windows: Sequence[Window], used: Mapping[str, Usage], lost: int) -> None:
    """Print the medians of the rounds, and the most that each service has used."""
    console = Console(highlight=False, soft_wrap=True)
    table = Table("what goes on", "p50, ms", "p95, ms", "p95 beside alone", "fetches", "failed", box=None)
    for name in (ALONE, *TROUBLES):
        mine = [number for number, window in enumerate(windows) if window.trouble == name]
        ratios = [windows[at].p95 / ((windows[at - 1].p95 + windows[at + 1].p95) / 2) for at in mine if name != ALONE]
        table.add_row(
            name, *(f"{statistics.median(getattr(windows[at], what) for at in mine):.1f}" for what in ("p50", "p95")),
            f"{statistics.median(ratios):.2f}" if ratios else "", str(sum(windows[at].fetches for at in mine)),
            str(sum(windows[at].failed for at in mine)),
        )  # fmt: skip
    console.print(table)
    for name, trouble in TROUBLES.items():
        console.print(f"  {name}: {trouble.__doc__}")
    console.print(f"\nsessions lost: {lost}\n")
    table = Table("service", "most memory, MiB", "limit", "most processes and threads", "limit", box=None)
    for service, most in used.items():
        memory = (f"{most.memory / MIB:.0f}", f"{most.memory_limit / MIB:.0f}")
        table.add_row(service, *memory, str(most.processes), str(most.processes_limit))
    console.print(table)


def main() -> None:
    """Measure, print the tables, and store the single measurements if that is wanted."""
    parser = argparse.ArgumentParser(description="What many clients notice of those that make trouble.")
    parser.add_argument("--clients", type=positive, default=50, help="how many fetch (%(default)s)")
    parser.add_argument("--rounds", type=positive, default=5, help="how often each trouble is made (%(default)s)")
    parser.add_argument("--seconds", type=positive, default=2, help="how long each time is watched (%(default)s)")
    parser.add_argument("--protocol", choices=("tcp", "udp"), default="tcp", help="of the VPN (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all single measurements to a file")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # tears down as Ctrl-C does
    crowd = crowded_site(options.clients, options.rounds, RHYTHM, vpn_protocol=options.protocol)
    with crowd as (site, (clients, fetches)):
        # Nothing is reckoned while there is something to be measured.
        windows = [window(one, fetches) for one in list(spans(site, options.rounds, options.seconds))]
        used = {service: usage(site.mac, service) for service in SERVICES}
        lost = len(lost_sessions(clients))
    show(windows, used, lost)
    if options.json:
        found = {"windows": [asdict(window) for window in windows], "sessions lost": lost}
        found["services"] = {service: most._asdict() for service, most in used.items()}
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
