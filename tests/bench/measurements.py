"""What a run of the benchmark found, as plain facts, and what is said of it. Pure.

Two measurements have a ratio only where they were made under the same conditions: all but the path, which is what they
compare, and the load of the machine, which is said beside them.
"""

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.table import Table

OURS, LIMIT, RECIPE, WIREGUARD, RAW = "ours", "no relay", "recipe of 2018", "WireGuard", "raw"
BESIDE = "beside it"  # what a part of ours is compared with, as the measurement's name says
COMPARED = (LIMIT, RECIPE, WIREGUARD)  # what ours is set in relation to
RATE, ROUND_TRIP, CPU = "Mbit/s", "ms", "CPU seconds per GB"
FORMS = {RATE: ",.0f", ROUND_TRIP: ".2f", CPU: ".1f", "s": ".1f", "per second": ",.0f", "MB": ",.0f"}
UP, DOWN = "up", "down"


@dataclass(frozen=True)
class Conditions:
    """Under which something was measured; None is what says nothing about it."""

    path: str
    round: int
    load: float  # how many processes wanted a processor, on an average of the minute before
    mtu: int | None = None  # of the network at the far end
    streams: int | None = None
    seconds: int | None = None


@dataclass(frozen=True)
class Subject:
    """What is measured in many rounds and on many paths."""

    what: str
    unit: str
    mtu: int | None
    streams: int | None

    def __str__(self) -> str:
        mtu = f", MTU {self.mtu}" if self.mtu else ""
        streams = f", {self.streams} stream{'s' * (self.streams > 1)}" if self.streams else ""
        return f"{self.what}{mtu}{streams}, {self.unit}"


@dataclass(frozen=True)
class Measurement:
    """One value, and under which conditions it was measured."""

    what: str
    unit: str
    value: float
    conditions: Conditions

    @property
    def subject(self) -> Subject:
        """What it is one measurement of."""
        return Subject(self.what, self.unit, self.conditions.mtu, self.conditions.streams)


@dataclass(frozen=True)
class Machine:
    """What it was measured on."""

    kernel: str
    processor: str
    processors: int


@dataclass(frozen=True)
class Report:
    """All that one run found."""

    date: str
    command: str
    machine: Machine
    paths: Mapping[str, str]  # what each of them is
    measurements: Sequence[Measurement]

    def of(self, subject: Subject, path: str) -> list[Measurement]:
        """What was measured of a subject on a path, by round."""
        found = [one for one in self.measurements if (one.subject, one.conditions.path) == (subject, path)]
        return sorted(found, key=lambda one: one.conditions.round)

    def median(self, subject: Subject, path: str) -> float | None:
        """The median over the rounds, if there is any."""
        values = [one.value for one in self.of(subject, path)]
        return statistics.median(values) if values else None


@dataclass(frozen=True)
class Grid:
    """A table, before it is one for a terminal or for a page."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def for_terminal(self) -> Table:
        """As rich prints it."""
        table = Table(*self.head, title=self.title, title_justify="left", title_style="bold", box=None)
        for column in table.columns[1:]:
            column.justify = "right"
        for row in self.rows:
            table.add_row(*row)
        return table

    def for_page(self) -> str:
        """As Markdown has it."""
        lines = [self.head, ["---", *["---:"] * (len(self.head) - 1)], *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def ratio(one: Measurement, other: Measurement) -> float:
    """How many times the other it is; raises ValueError unless both were measured under the same conditions."""
    _require_same_conditions(one, other)
    return one.value / other.value


def difference(one: Measurement, other: Measurement) -> float:
    """How much more than the other it is; raises ValueError unless both were measured under the same conditions."""
    _require_same_conditions(one, other)
    return one.value - other.value


def _require_same_conditions(one: Measurement, other: Measurement) -> None:
    first, second = (_must_be_equal(each) for each in (one, other))
    differing = [f"{name} ({first[name]} and {second[name]})" for name in first if first[name] != second[name]]
    if differing:
        raise ValueError(f"{one.what} has no ratio to {other.what}, because they differ in {', '.join(differing)}")


def _must_be_equal(one: Measurement) -> dict[str, Any]:
    conditions = dataclasses.asdict(one.conditions)
    return {"what": one.what, "unit": one.unit} | {
        name: value for name, value in conditions.items() if name not in ("path", "load")
    }


def relation(report: Report, subject: Subject, path: str, other: str) -> str:
    """How one path stands beside another, round by round, because the machine has other work at other times.

    Round trips are subtracted, all else is divided. Raises ValueError where the two were not measured alike.
    """
    pairs = list(zip(report.of(subject, path), report.of(subject, other), strict=True))
    if not pairs:
        return ""
    if subject.unit == ROUND_TRIP:
        return f"{statistics.median(difference(*pair) for pair in pairs):+.2f} ms"
    return f"{statistics.median(ratio(*pair) for pair in pairs):.2f}"


def grids(report: Report) -> list[Grid]:
    """The tables: ours beside its peers, what ours has beside the bare way, and what they cost."""
    subjects = list(dict.fromkeys(one.subject for one in report.measurements if one.unit != CPU))
    shared = [subject for subject in subjects if report.of(subject, LIMIT)]
    others = [subject for subject in subjects if subject not in shared]
    beside_peers = _grid(report, "The way into containers' networks", shared, list(report.paths), COMPARED)
    return [
        replace(beside_peers, rows=[*beside_peers.rows, _loads(report, shared)]),
        _grid(report, "What else there is", others, [OURS, BESIDE], [BESIDE]),
        _costs(report),
    ]


def _grid(
    report: Report, title: str, subjects: Sequence[Subject], paths: Sequence[str], compared: Sequence[str]
) -> Grid:
    """One line for each subject: what each path reaches, and how ours stands beside some."""
    rows = []
    for subject in subjects:
        medians = [report.median(subject, path) for path in paths]
        values = ["" if median is None else format(median, FORMS[subject.unit]) for median in medians]
        relations = [relation(report, subject, OURS, other) if report.of(subject, other) else "" for other in compared]
        rows.append([str(subject), *values, *relations])
    return Grid(title, ["", *paths, *(f"ours / {other}" for other in compared)], rows)


def _loads(report: Report, subjects: Sequence[Subject]) -> list[str]:
    """One line for what else the machine did: the median load before each path's measurements."""
    loads = [[one.conditions.load for subject in subjects for one in report.of(subject, path)] for path in report.paths]
    medians = [f"{statistics.median(each):.1f}" if each else "" for each in loads]
    return ["load of the machine before, processes", *medians, *[""] * len(COMPARED)]


def _costs(report: Report) -> Grid:
    """One line for each program on each path: what it takes to bring a GB through, by direction and MTU, one stream."""
    measured = [one for one in report.measurements if one.unit == CPU and one.conditions.streams == 1]
    programs = dict.fromkeys((one.conditions.path, one.what.split(", ")[0]) for one in measured)
    mtus = sorted({one.conditions.mtu for one in measured if one.conditions.mtu})
    columns = [(direction, mtu) for mtu in mtus for direction in (UP, DOWN)]
    rows = []
    for path, program in programs:
        medians = [report.median(Subject(f"{program}, {way}", CPU, mtu, 1), path) for way, mtu in columns]
        values = ["" if median is None else format(median, FORMS[CPU]) for median in medians]
        rows.append([f"{path}: {program}", *values])
    return Grid(f"{CPU}, one stream", ["", *(f"{way}, MTU {mtu}" for way, mtu in columns)], rows)


def to_json(report: Report) -> str:
    """The report as text."""
    return json.dumps(dataclasses.asdict(report), indent=1) + "\n"


def from_json(text: str) -> Report:
    """The report that the text was made of."""
    found = json.loads(text)
    machine = Machine(**found.pop("machine"))
    measurements = [
        Measurement(**one | {"conditions": Conditions(**one["conditions"])}) for one in found.pop("measurements")
    ]
    return Report(**found, machine=machine, measurements=measurements)
