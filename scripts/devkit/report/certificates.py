"""What the user is told of certificates: all clients, and what a rotation did."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from devkit.answers import Answers
from devkit.facts import Contest, Session
from devkit.keys.model import Client, Generation
from devkit.keys.x509 import Credential
from devkit.material.changes import Renewal
from devkit.material.rotation import RotationKind
from devkit.report.access import MOST_ROWS
from devkit.report.table import Column, Fitting, Section, natural


@dataclass(frozen=True)
class _Row:
    """A client, and its sessions."""

    client: Client
    live: bool
    sessions: tuple[Session, ...]


def _lines(lines: Iterable[str]) -> Text:
    return Text("\n".join(lines))


def _connected(row: _Row) -> Text:
    return _lines(_since(session) for session in row.sessions) if row.live else Text("revoked", style="yellow")


def _connected_from(row: _Row) -> Text:
    """The same with addresses, for a table that has no room for them side by side."""
    told = (f"{_since(one)}\nfrom {one.real_address}\nas {one.vpn_address}" for one in row.sessions)
    return Text("\n").join([*([] if row.live else [_connected(row)]), *([_lines(told)] if row.sessions else [])])


def _since(session: Session) -> str:
    return f"{session.since:%Y-%m-%d %H:%M} UTC"


_CLIENT = Column[_Row]("Client", lambda row: Text(row.client.name), breaks=16)
_SERIAL = Column[_Row]("Serial", lambda row: Text(short_serial(row.client.credential)))
_ISSUED = Column[_Row]("Issued", lambda row: Text(f"{row.client.credential.certificate.not_valid_before_utc:%Y-%m-%d}"))
_EXPIRES = Column[_Row]("Expires", lambda row: Text(f"{row.client.credential.expiry:%Y-%m-%d}"))
_CONNECTED = Column[_Row]("Connected", _connected, whole=True)
_FROM = Column[_Row]("From", lambda row: _lines(session.real_address for session in row.sessions))
_ADDRESS = Column[_Row]("Address", lambda row: _lines(session.vpn_address for session in row.sessions))
_BOTH = Column[_Row]("Connected", _connected_from, whole=True)
_LAYOUTS = (
    (_CLIENT, _SERIAL, _ISSUED, _EXPIRES, _CONNECTED, _FROM, _ADDRESS),
    (_CLIENT, _SERIAL, _ISSUED, _EXPIRES, _BOTH),
    (_CLIENT, _SERIAL, _EXPIRES, _BOTH),
    (_CLIENT, _EXPIRES, _BOTH),
)


def client_table(generation: Generation, sessions: Sequence[Session]) -> RenderableType:
    """All clients: name, serial number, issued, expiry, and since when and from where they are connected."""
    live = {client.name for client in generation.live_clients}
    rows = [
        _Row(client, client.name in live, tuple(one for one in sessions if one.client == client.name))
        for client in sorted(generation.clients, key=lambda client: natural(client.name))
    ]
    return Fitting(_LAYOUTS, [Section("", rows)])


def rotation_text(
    renewals: Sequence[Renewal], answers: Answers, kind: RotationKind, revoke_now: bool
) -> RenderableType:
    """What a rotation did, and what is left for the user to do."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("Certificate", "Old serial", "Old expiry", "New serial", "New expiry"):
        table.add_column(heading, no_wrap=heading != "Certificate", overflow="fold")
    for renewal in renewals[:MOST_ROWS]:
        table.add_row(Text(renewal.name), *_serial_and_expiry(renewal.old), *_serial_and_expiry(renewal.new))
    if renewals[MOST_ROWS:]:
        table.add_row(f"and {len(renewals) - MOST_ROWS} more")
    name = answers.client_name
    expiries = [renewal.old.expiry for renewal in renewals if renewal.name == name]
    until = f", and no longer than {min(expiries):%Y-%m-%d}" if expiries else ""
    ca = renewals[0]
    had_expired = kind == "all" and ca.old.expiry <= ca.new.certificate.not_valid_before_utc
    if revoke_now or had_expired:
        old_profiles = "Old profiles are refused from the server's next start on."
    elif kind == "all":
        old_profiles = f"Old profiles know only the old CA; they work until the next rotation{until}."
    else:
        old_profiles = f"Old profiles work until the next rotation{until}."
    return Group(
        table,
        Text(old_profiles),
        Text(f"Load the new certificates:     {answers.up}"),
        Text(f"Import the new profile again:  local/{name}.ovpn (Tunnelblick: open local/{name}.tblk)"),
        Text("Further clients' profiles:     local/clients/"),
    )


def contest_warnings(contests: Iterable[Contest]) -> Iterator[str]:
    """A sentence for each client that two machines are at once."""
    for contest in contests:
        yield (
            f"{contest.client} is used on two machines at once (each ends the other's connection, {contest.times} "
            f"times in the last {contest.seconds} seconds): give the second one a client of its own with "
            "`./scripts/client.py add NAME`."
        )


def renamed_text(former: Sequence[str], answers: Answers) -> str:
    """What became of the client that was the first one before the answer `client_name` was changed."""
    revoke = " and ".join(f"`./scripts/client.py revoke {name}`" for name in former)
    return (
        f"{answers.client_name} is a client of its own, with the profile local/{answers.client_name}.ovpn: the profile "
        f"of {' and '.join(former)} was not renamed, and goes on working until {revoke}."
    )


NEW_HTTPS_ROOT = "HTTPS has a new CA: until `./scripts/host.py install` runs on a computer, its browsers warn of https://NAME.DOMAIN."


def short_serial(credential: Credential) -> str:
    """The last 12 hexadecimal digits of a serial number: enough to tell a project's certificates apart."""
    return f"{credential.serial_number:x}"[-12:]


def _serial_and_expiry(credential: Credential) -> tuple[str, str]:
    return short_serial(credential), f"{credential.expiry:%Y-%m-%d}"
