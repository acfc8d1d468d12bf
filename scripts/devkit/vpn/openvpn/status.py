"""What a server says of its clients (openvpn(8), --status, version 3). Pure; the container `proxy` runs it, too."""

from collections.abc import Iterable
from datetime import UTC, datetime

from devkit.facts import Session


def sessions_in(status: Iterable[str]) -> tuple[Session, ...]:
    """The connected clients, from the lines of a status."""
    rows = [line.split("\t") for line in status if line.startswith("CLIENT_LIST\t")]
    return tuple(
        Session(
            client=row[1],
            real_address=row[2],
            vpn_address=row[3],
            since=datetime.fromtimestamp(int(row[8]), UTC),
            number=int(row[10]),
        )
        for row in rows
        if row[1] != "UNDEF"
    )
