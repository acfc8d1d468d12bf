"""What the costs of many containers and clients are, how they grow, and what is said of that. Pure."""

import dataclasses
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from tests.bench.measurements import Grid, Machine

SECONDS, CPU, COUNT = "s", "CPU s", ""
FORMS = {SECONDS: ".2f", CPU: ".3f", COUNT: ",.0f"}

TEXT = """\
# What a thousand containers cost

`make bench` wrote this page from one run on {report.date}, on {report.machine.processors} processors \
({report.machine.processor}) with Linux {report.machine.kernel}:
`{report.command}`.

![What each event costs, by the number of containers and clients](scale.png)

A real engine runs so many containers, ten on a network, and as many clients have certificates. Then single things
happen: each is done {rounds} times, and the table has the medians. CPU seconds of a command are those of all its
processes; those of a start or end are of the project's own services, beyond what they take when nothing happens. A
handshake is that of a stock client, from its start until it is connected.

The exponent says how a cost grows: it is 0 where the cost stays, 1 where it doubles with the number, and 2 where it
becomes four times as much. It is the median of all pairs of measurements at the two largest numbers, where what stays
the same hides the least. Seconds, unlike CPU seconds, are spent on what is waited for, too: the engine, which lists all
containers for a report, the disk, the kernel's room for neighbours (below), and others' work on the machine.

{table}

Of these clients 253 are connected at once, at most: the answer `vpn_subnet` is a /24. The containers that answer are
those that the report found to: of more than some 400 a kernel drops what it has no room for, unless the engine's
machine was told `sysctl net.ipv4.neigh.default.gc_thresh3=8192` (Linux has 1024 entries in all, two for each).
"""


@dataclass(frozen=True)
class Cost:
    """One measurement with so many containers and clients."""

    what: str
    unit: str
    size: int
    value: float

    @property
    def subject(self) -> tuple[str, str]:
        """What it is one measurement of."""
        return self.what, self.unit


@dataclass(frozen=True)
class Report:
    """All that one run found."""

    date: str
    command: str
    machine: Machine
    costs: Sequence[Cost]

    @property
    def sizes(self) -> list[int]:
        """The numbers of containers and clients, in order."""
        return sorted({one.size for one in self.costs})

    @property
    def subjects(self) -> list[tuple[str, str]]:
        """What was measured, in order."""
        return list(dict.fromkeys(one.subject for one in self.costs))

    def values(self, subject: tuple[str, str], size: int) -> list[float]:
        """What was measured of a subject at a size."""
        return [one.value for one in self.costs if (one.subject, one.size) == (subject, size)]

    def median(self, subject: tuple[str, str], size: int) -> float:
        """The median of these."""
        return statistics.median(self.values(subject, size))


def exponent(report: Report, subject: tuple[str, str]) -> float | None:
    """The power of the size with which a cost grows between the two largest sizes; None where most find none.

    The median over all pairs of measurements (Theil and Sen's slope), as a single one may have met other work.
    """
    smaller, larger = report.sizes[-2:]
    pairs = list(product(report.values(subject, smaller), report.values(subject, larger)))
    slopes = [
        math.log(after / before) / math.log(larger / smaller) for before, after in pairs if min(before, after) > 0
    ]
    return statistics.median(slopes) if 2 * len(slopes) > len(pairs) else None


def table(report: Report) -> Grid:
    """A line for each cost: its medians, and how it grows."""
    rows = []
    for subject in report.subjects:
        what, unit = subject
        medians = [format(report.median(subject, size), FORMS[unit]) for size in report.sizes]
        power = exponent(report, subject) if unit else None  # how many there are costs nothing
        rows.append([f"{what}, {unit}" if unit else what, *medians, "" if power is None else f"{power:.2f}"])
    return Grid("What a thousand containers cost", ["", *(f"{size:,}" for size in report.sizes), "exponent"], rows)


def page(report: Report) -> str:
    """docs/scale.md."""
    return TEXT.format(
        report=report,
        rounds=max(len(report.values(subject, size)) for subject in report.subjects for size in report.sizes),
        table=table(report).for_page(),
    )


def to_json(report: Report) -> str:
    """The report as text."""
    return json.dumps(dataclasses.asdict(report), indent=1) + "\n"


def from_json(text: str) -> Report:
    """The report that the text was made of."""
    found = json.loads(text)
    machine, costs = Machine(**found.pop("machine")), [Cost(**one) for one in found.pop("costs")]
    return Report(**found, machine=machine, costs=costs)
