"""A running server's management interface, played by a program that keeps what it is told."""

import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from devkit.errors import UserError
from devkit.facts import Session
from devkit.vpn.openvpn.management import end_sessions, sessions

# What `status 3` answers; the server goes on talking afterwards until its input ends.
STATUS = """\
>INFO:OpenVPN Management Interface Version 5
TITLE\tOpenVPN 2.6.14
HEADER\tCLIENT_LIST\tCommon Name\tReal Address
CLIENT_LIST\tlaptop\t192.0.2.7:5001\t10.213.94.2\t\t0\t0\t2026-03-01 12:00:00\t1772366400\tUNDEF\t4\t0\tAES-256-GCM
CLIENT_LIST\tUNDEF\t192.0.2.8:5002\t\t\t0\t0\t2026-03-01 12:00:00\t1772366400\tUNDEF\t5\t0\t
CLIENT_LIST\tbob\t192.0.2.9:5003\t10.213.94.3\t\t0\t0\t2026-03-01 12:00:01\t1772366401\tUNDEF\t6\t0\tAES-256-GCM
CLIENT_LIST\tlaptop\t192.0.2.9:5004\t10.213.94.4\t\t0\t0\t2026-03-01 12:00:02\t1772366402\tUNDEF\t7\t0\tAES-256-GCM
ROUTING_TABLE\t10.213.94.2\tlaptop\t192.0.2.7:5001
END
"""
SERVER = """
import sys
heard = open(sys.argv[1], "a")
assert sys.argv[2:] == ["nc", "-N", "-w", "5", "-U", "/run/management"], sys.argv
for line in sys.stdin:
    heard.write(line)
    print(STATUS if line == "status 3\\n" else ANSWER, end="", flush=True)
"""
Server = Callable[..., Sequence[str]]


@pytest.fixture
def server(tmp_path: Path) -> Server:
    """Makes the words that run such a program."""

    def make(answer: str = "SUCCESS: client-kill command succeeded\n", program: str = SERVER) -> Sequence[str]:
        values = f"STATUS, ANSWER = {STATUS!r}, {answer!r}\n"
        return [sys.executable, "-I", "-c", values + program, str(tmp_path / "heard")]

    return make


def test_connected_clients_are_listed_without_those_that_have_no_name_yet(server: Server) -> None:
    first, *others = sessions(server())
    assert first == Session("laptop", "192.0.2.7:5001", "10.213.94.2", datetime(2026, 3, 1, 12, tzinfo=UTC), 4)
    assert [(session.client, session.number) for session in others] == [("bob", 6), ("laptop", 7)]


@pytest.mark.parametrize("answer", ["SUCCESS: done\n", "ERROR: no such client\n"])
def test_sessions_of_one_client_are_ended_for_good(server: Server, tmp_path: Path, answer: str) -> None:
    assert end_sessions(server(answer), "laptop") == 2
    heard = (tmp_path / "heard").read_text().splitlines()
    assert heard == ["status 3", "client-kill 4 HALT", "client-kill 7 HALT"]
    assert end_sessions(server(), "carol") == 0


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (
            "import sys; sys.exit('nc: /run/management: Connection refused')",
            r"\(nc: /run/management: Connection refused\)",
        ),
        ("", r"\(it said nothing\)"),
    ],
)
def test_server_that_does_not_answer_is_quoted(server: Server, program: str, said: str) -> None:
    with pytest.raises(UserError, match=f"the server does not answer {said}"):
        sessions(server(program=program))
