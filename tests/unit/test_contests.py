"""When a server's log shows that two machines are one client, and when it does not."""

import pytest
from devkit.vpn.openvpn.management import contests_in

NOW = 1_795_531_447


def ended(seconds_ago: int, client: str = "bob", before: str = "") -> str:
    """What OpenVPN 2.6.14 logs when a client connects that is connected already."""
    return (
        f"{NOW - seconds_ago},,{before}MULTI: new connection by client '{client}' will cause previous active sessions "
        "by this client to be dropped.  Remember to use the --duplicate-cn option if you want multiple clients using "
        "the same certificate or username to concurrently connect."
    )


def log(*lines: str) -> list[str]:
    greeting = ">INFO:OpenVPN Management Interface Version 5 -- type 'help' for more info"
    return [greeting, *lines, f"{NOW},D,MANAGEMENT: CMD 'log all'", "END"]


@pytest.mark.parametrize("seconds_apart", [1, 31])  # over TCP, and over UDP
def test_two_machines_that_end_each_other_again_and_again_are_a_contest(seconds_apart: int) -> None:
    lines = [ended(number * seconds_apart + 1) for number in (2, 1, 0)]
    (contest,) = contests_in(log(*lines, ended(1, "alice")))
    assert (contest.client, contest.times, contest.seconds) == ("bob", 3, 2 * seconds_apart + 1)


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [ended(31), ended(1)],  # it lost its network, and came back
        [ended(600), ended(300), ended(1)],
        [ended(90), ended(89), ended(88)],  # it is over
        [ended(number, before="10.0.0.9:1194 peer info: IV_UI=") for number in (3, 2, 1)],  # what anybody may say
    ],
)
def test_anything_less_is_none(lines: list[str]) -> None:
    assert contests_in(log(*lines)) == ()
