"""Whatever breaks, traffic flows again within 15 seconds after it is over, and nobody helps; or the doctor says how."""

from collections.abc import Iterator

import pytest

from tests.conftest import copy_project
from tests.docker_desktop import lab
from tests.docker_desktop.cache import ENGINES, NEWEST
from tests.recovery import FAULTS, Fault, Site, break_down, watched
from tests.vpn import patience

SOON = 15.0
SUITES = [pytest.param(suite, marks=[pytest.mark.further] if suite != NEWEST else []) for suite in ENGINES]


@pytest.fixture(scope="module", params=SUITES, ids=ENGINES.get)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with lab(suite=request.param) as (mac, engine), watched(mac, engine, copy_project(mac.home / "devkit")) as running:
        yield running


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_traffic_flows_again_and_nothing_is_lost_that_was_stored(site: Site, fault: Fault) -> None:
    outcome = break_down(site, fault)
    assert outcome.lost or fault.brief, "it broke nothing"
    assert outcome.stored
    if fault.doctor:
        assert outcome.seconds is None
        assert fault.doctor in outcome.said
    else:
        assert outcome.seconds is not None, outcome.lost[-5:]
        assert outcome.seconds < patience(SOON), outcome.lost[-5:]
