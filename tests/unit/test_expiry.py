"""When certificates expire, and what renews them."""

from datetime import timedelta

import pytest
from devkit.material.expiry import Expiry, expiries, expiry_warnings
from devkit.material.rotation import rotated, with_clients, without_client

from tests.unit.made import NOW, answers, generation

UPDATE = "uvx copier update --trust --defaults --vcs-ref=:current:"
NEW_CA = f"{UPDATE} --data rotate=all"


def days(number: int) -> timedelta:
    return timedelta(days=number)


def test_each_certificate_in_force_has_its_end_and_the_command_that_renews_it() -> None:
    made = without_client(with_clients(generation(), ["bob", "carol"], answers(), NOW), "bob", NOW)
    assert expiries(made) == (
        Expiry("authority", "CA", NOW + days(1000), NEW_CA),
        Expiry("server", "server", NOW + days(100), UPDATE),
        Expiry("client", "carol", NOW + days(100), UPDATE),
        Expiry("client", "laptop", NOW + days(100), UPDATE),
    )


def test_previous_authority_goes_with_any_rotation() -> None:
    made = rotated(generation(), "all", False, answers(authority_days=500), NOW + days(1))
    assert expiries(made)[:2] == (
        Expiry("authority", "CA", NOW + days(501), NEW_CA),
        Expiry("previous authority", "previous CA", NOW + days(1000), UPDATE),
    )


@pytest.mark.parametrize(("leaves", "renewal"), [(99, UPDATE), (100, NEW_CA)])
def test_only_a_new_authority_renews_what_ends_with_the_old_one(leaves: int, renewal: str) -> None:
    made = generation(certificate_days=leaves, authority_days=100)
    assert {expiry.renewal for expiry in expiries(made)[1:]} == {renewal}


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (days(30), None),
        (days(30) - timedelta(seconds=1), "expires on"),
        (timedelta(seconds=1), "expires on"),
        (timedelta(0), "expired on"),
        (days(-1), "expired on"),
    ],
)
def test_end_is_warned_of_from_30_days_before(left: timedelta, said: str | None) -> None:
    end = NOW + days(40)
    found = list(expiry_warnings([Expiry("client", "bob", end, "mend")], end - left))
    assert found == ([f"bob: the certificate {said} 2026-04-10: renew it with `mend`."] if said else [])
