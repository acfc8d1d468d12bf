"""What the benchmark says of how costs grow."""

from dataclasses import replace

import pytest

from tests.bench.growth import COUNT, CPU, SECONDS, Cost, Report, exponent, from_json, page, table, to_json
from tests.bench.measurements import Machine

MACHINE = Machine("6.1", "a processor", 2)
SUBJECT = ("a report", SECONDS)


def report(**values: list[float]) -> Report:
    """A report of what was measured at each size."""
    costs = [Cost(*SUBJECT, int(size.removeprefix("at")), value) for size, all_ in values.items() for value in all_]
    return Report("2026-11-30", "tests/bench/scale.py", MACHINE, costs)


@pytest.mark.parametrize(
    ("at300", "at1000", "expected"),
    [
        ([2.0, 2.0, 2.0], [2.0, 2.0, 2.0], 0.0),
        ([3.0, 3.0, 3.0], [10.0, 10.0, 10.0], 1.0),
        ([9.0, 9.0, 9.0], [100.0, 100.0, 100.0], 2.0),
        ([3.0, 3.0, 3.0], [10.0, 90.0, 10.0], 1.0),  # one of them has met other work
        ([3.0, 3.0, 0.0], [10.0, 10.0, 10.0], 1.0),
        ([0.0, 3.0, 0.0], [10.0, 0.0, 10.0], None),  # what is too little to be measured says nothing
    ],
)
def test_exponent_says_how_a_cost_grows(at300: list[float], at1000: list[float], expected: float | None) -> None:
    found = exponent(report(at10=[7.0], at300=at300, at1000=at1000), SUBJECT)
    assert found == (expected if expected is None else pytest.approx(expected))


def test_table_has_the_medians_and_the_exponents_of_costs() -> None:
    found = report(at300=[3.0, 1.0, 9.0], at1000=[10.0])
    listed = [Cost("listed", COUNT, 300, 1200.0), Cost("listed", COUNT, 1000, 4000.0)]
    found = replace(found, costs=[*found.costs, *listed])
    assert table(found).rows == [["a report, s", "3.00", "10.00", "1.00"], ["listed", "1,200", "4,000", ""]]
    assert "| a report, s | 3.00 | 10.00 | 1.00 |" in page(found)


def test_report_is_read_back_as_it_was_written() -> None:
    found = Report("2026-11-30", "tests/bench/scale.py", MACHINE, [Cost("a start", CPU, 10, 0.25)])
    assert from_json(to_json(found)) == found
