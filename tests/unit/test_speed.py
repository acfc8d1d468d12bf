"""What the benchmark says of its measurements, and which of them it refuses to set in relation."""

from dataclasses import replace

import pytest

from tests.bench import page
from tests.bench.measurements import (
    CPU,
    LIMIT,
    OURS,
    RATE,
    ROUND_TRIP,
    UP,
    Conditions,
    Machine,
    Measurement,
    Report,
    difference,
    from_json,
    grids,
    ratio,
    to_json,
)

MACHINE = Machine("6.1", "a processor", 2)
BASE = Measurement(UP, RATE, 900.0, Conditions(OURS, 1, load=0.5, mtu=1500, streams=1, seconds=2))


def at(path: str, value: float, number: int = 1, one: Measurement = BASE) -> Measurement:
    """The same, of another path or round."""
    return replace(one, value=value, conditions=replace(one.conditions, path=path, round=number))


def report(*measurements: Measurement) -> Report:
    paths = {OURS: "The project.", LIMIT: "No relay."}
    return Report("2026-11-29", "python -m tests.bench.speed", MACHINE, paths, list(measurements))


def test_a_path_is_set_in_relation_to_another() -> None:
    assert ratio(at(OURS, 900), at(LIMIT, 1000)) == 0.9
    assert difference(at(OURS, 0.5), at(LIMIT, 0.25)) == 0.25


@pytest.mark.parametrize(
    "other",
    [
        replace(BASE, what="down"),
        replace(BASE, unit=CPU),
        replace(BASE, conditions=replace(BASE.conditions, round=2)),
        replace(BASE, conditions=replace(BASE.conditions, mtu=9000)),
        replace(BASE, conditions=replace(BASE.conditions, streams=8)),
        replace(BASE, conditions=replace(BASE.conditions, seconds=4)),
    ],
)
def test_what_was_measured_under_other_conditions_has_no_ratio(other: Measurement) -> None:
    for relation in (ratio, difference):
        with pytest.raises(ValueError, match=r"differ in (what|unit|round|mtu|streams|seconds) "):
            relation(BASE, at(LIMIT, 1000, other.conditions.round, other))


def test_load_is_said_and_forbids_nothing() -> None:
    busy = replace(at(LIMIT, 1000), conditions=replace(BASE.conditions, path=LIMIT, load=7.5))
    assert ratio(BASE, busy) == 0.9
    text = page.of(report(BASE, busy))
    assert "0.5 to 7.5 in this run" in text.replace("\n", " ")
    assert "| load of the machine before, processes | 0.5 | 7.5 |" in text


def test_the_ratio_of_many_rounds_is_the_median_of_theirs() -> None:
    ours = [at(OURS, value, number) for number, value in enumerate((100, 400, 900), start=1)]
    peers = [at(LIMIT, value, number) for number, value in enumerate((100, 500, 1000), start=1)]
    # In which order they are found is all the same.
    line, _load = grids(report(*reversed(ours), *peers))[0].rows
    assert line == ["up, MTU 1500, 1 stream, Mbit/s", "400", "500", "0.90", "", ""]


def test_a_round_that_one_of_two_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        grids(report(at(OURS, 900, 1), at(OURS, 900, 2), at(LIMIT, 1000, 1)))


def test_of_round_trips_the_table_has_what_is_added() -> None:
    trip = Measurement("round trip", ROUND_TRIP, 0.25, Conditions(OURS, 1, 0.5, mtu=1500))
    line, _load = grids(report(trip, at(LIMIT, 0.125, 1, trip)))[0].rows
    assert line == ["round trip, MTU 1500, ms", "0.25", "0.12", "+0.12 ms", "", ""]


def test_what_only_ours_has_is_in_a_table_of_its_own() -> None:
    memory = Measurement("memory of vpn", "MB", 4.2, Conditions(OURS, 1, 0.5))
    _, alone, _ = grids(report(BASE, at(LIMIT, 1000), memory))
    assert [list(row) for row in alone.rows] == [["memory of vpn, MB", "4", "", ""]]


def test_what_programs_take_is_listed_by_path_direction_and_mtu() -> None:
    cost = [
        Measurement(f"openvpn in the VM, {direction}", CPU, value, replace(BASE.conditions, mtu=mtu))
        for direction, mtu, value in (("up", 1500, 4.0), ("down", 1500, 3.0), ("up", 9000, 2.0), ("down", 9000, 1.0))
    ]
    table = grids(report(BASE, at(LIMIT, 1000), *cost))[2]
    assert list(table.head)[1:] == ["up, MTU 1500", "down, MTU 1500", "up, MTU 9000", "down, MTU 9000"]
    assert [list(row) for row in table.rows] == [["ours: openvpn in the VM", "4.0", "3.0", "2.0", "1.0"]]


def test_the_page_has_the_machine_the_command_and_the_tables() -> None:
    text = page.of(report(BASE, at(LIMIT, 1000)))
    for words in ("2026-11-29", "2 processors (a processor)", "Linux 6.1", "`python -m tests.bench.speed`"):
        assert words in text
    assert "| up, MTU 1500, 1 stream, Mbit/s | 900 | 1,000 | 0.90 |" in text


def test_the_report_is_read_as_it_was_written() -> None:
    one = report(BASE, at(LIMIT, 1000))
    assert from_json(to_json(one)) == one
