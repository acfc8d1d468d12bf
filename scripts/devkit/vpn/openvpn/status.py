"""What a server says of its clients (openvpn(8), --status, version 3). Pure; the container `proxy` runs it, too."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from devkit.facts import Session


def sessions_in(status: Iterable[str]) -> tuple[Session, ...]:
    """The connected clients, from the lines of a status. Raises ValueError where one of them is not whole."""
    rows = [line.split("\t") for line in status if line.startswith("CLIENT_LIST\t")]
    return tuple(_session(row) for row in rows if row[1] != "UNDEF")


def _session(row: Sequence[str]) -> Session:
    try:
        return Session(
            client=row[1],
            real_address=row[2],
            vpn_address=row[3],
            since=datetime.fromtimestamp(int(row[8]), UTC),
            number=int(row[10]),
        )
    except (ValueError, IndexError, OverflowError, OSError) as error:
        raise ValueError(f"a line of its status is not whole: {' '.join(row)[:100]!r}") from error
