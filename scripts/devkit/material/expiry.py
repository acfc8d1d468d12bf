"""When certificates expire, and what renews them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from devkit.answers import NEW_CA, UPDATE
from devkit.keys.https import HttpsCA
from devkit.keys.model import SERVER, Generation

OF_CA, OF_PREVIOUS_CA, OF_HTTPS_ROOT, OF_HTTPS = "CA", "previous CA", "HTTPS CA", "HTTPS intermediate"
WARN_BEFORE = timedelta(days=30)


@dataclass(frozen=True)
class Expiry:
    """When a certificate stops being valid (UTC), and the command that renews it."""

    role: Literal["authority", "previous authority", "server", "client", "https authority", "https intermediate"]
    name: str
    at: datetime
    renewal: str


def expiries(generation: Generation) -> tuple[Expiry, ...]:
    """The expiry of each certificate in force: the CAs', the server's, the live clients'."""
    ca = generation.ca.credential.expiry
    clients = [(client.name, client.credential.expiry) for client in generation.live_clients]
    previous = generation.previous_ca
    return (
        Expiry("authority", OF_CA, ca, NEW_CA),
        # Any rotation drops it.
        *([Expiry("previous authority", OF_PREVIOUS_CA, previous.credential.expiry, UPDATE)] if previous else []),
        # A leaf expires with its CA at the latest: only a new CA gives more time to one that expires then.
        Expiry("server", SERVER, generation.server.expiry, NEW_CA if generation.server.expiry >= ca else UPDATE),
        *(Expiry("client", name, at, NEW_CA if at >= ca else UPDATE) for name, at in clients),
        *_of_https(generation.https),
    )


def _of_https(ca: HttpsCA | None) -> Iterator[Expiry]:
    if ca is not None:
        yield Expiry("https authority", OF_HTTPS_ROOT, ca.root.expiry, NEW_CA)
        if ca.intermediate is not None:
            last = ca.intermediate.expiry >= ca.root.expiry
            yield Expiry("https intermediate", OF_HTTPS, ca.intermediate.expiry, NEW_CA if last else UPDATE)


def expiry_warnings(found: Iterable[Expiry], now: datetime) -> Iterator[str]:
    """A sentence for each certificate that has expired or will within 30 days."""
    for expiry in found:
        if expiry.at <= now:
            yield f"{expiry.name}: the certificate expired on {expiry.at:%Y-%m-%d}: renew it with `{expiry.renewal}`."
        elif expiry.at - now < WARN_BEFORE:
            yield f"{expiry.name}: the certificate expires on {expiry.at:%Y-%m-%d}: renew it with `{expiry.renewal}`."
