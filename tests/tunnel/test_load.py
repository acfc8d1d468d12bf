"""What many clients notice of those who make trouble at their server: nothing. `tests.bench.load` has the times."""

import shutil
import time
from contextlib import ExitStack

import pytest

from tests.crowd import SERVICES, lost_sessions, usage
from tests.troubles import REVOKED_EACH_TIME, TO_BE_REVOKED, TROUBLES, crowded_site
from tests.vpn import start_client

CLIENTS = 10
SECONDS = 6


@pytest.mark.parametrize("protocol", ["tcp", pytest.param("udp", marks=pytest.mark.further)])
def test_clients_notice_nothing_of_all_troubles_at_once(protocol: str) -> None:
    with crowded_site(CLIENTS, 1, 0.5, vpn_protocol=protocol) as (site, (clients, fetches)):
        kept = [site.mac.home / f"kept-{number}.ovpn" for number in range(REVOKED_EACH_TIME)]
        for number, copy in enumerate(kept):
            shutil.copy(site.profile(f"revoked-{number}"), copy)
        begin = time.monotonic()
        with ExitStack() as stack:
            for trouble in TROUBLES.values():
                stack.enter_context(trouble(site))
            time.sleep(SECONDS)
            fetched = fetches.between(begin, time.monotonic())
        assert len({one.process for one in fetched}) == CLIENTS
        assert not [one for one in fetched if one.wrong]
        assert not lost_sessions(clients)
        # Who came meanwhile, came in; who was revoked, does not.
        for computer, profile in zip(site.others[TO_BE_REVOKED], kept, strict=True):
            with start_client(site.mac, profile, computer.openvpn) as client:
                client.wait_for("AUTH_FAILED")
        for service in SERVICES:
            most = usage(site.mac, service)
            assert most.memory < most.memory_limit, (service, most)
            assert most.processes < most.processes_limit, (service, most)
            restarts = ("docker", "inspect", "--format", "{{.RestartCount}}", f"d4m-devkit-{service}-1")
            assert site.mac.run(*restarts).stdout.strip() == "0", service
