"""One complete set of the project's keys and certificates. Data only: `material.rotation` says how it changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

from cryptography.x509 import RevokedCertificate

from devkit.keys import x509
from devkit.keys.https import HttpsCA
from devkit.keys.x509 import Credential

SERVER_DOMAIN = "server."
SERVER = "server"  # stands beside the clients' names, so no client may have it

LaneKeys = Mapping[str, bytes]  # one key per lane, as PEM, by the lane's name


@dataclass(frozen=True)
class CA:
    """A certificate authority and what it has revoked."""

    credential: Credential
    revoked: tuple[RevokedCertificate, ...] = ()

    def revoking(self, serial_numbers: Sequence[int], now: datetime) -> "CA":
        """The same CA with more revoked."""
        known = {entry.serial_number for entry in self.revoked}
        more = tuple(x509.revocation(number, now) for number in serial_numbers if number not in known)
        return replace(self, revoked=self.revoked + more)


@dataclass(frozen=True)
class Client:
    """A client's certificate, and its key for each lane."""

    name: str
    credential: Credential
    keys: LaneKeys


@dataclass(frozen=True)
class Generation:
    """One set; `crl` and `server_crl` are PEM, one CRL for each CA.

    `keys` are the server's. `replaced` has, by the names of the clients and `SERVER`, the serial numbers that the
    generation before issued and that are not revoked yet; None when they are not known. What follows from all is kept,
    as much of it is asked for again for each client.
    """

    number: int
    ca: CA
    previous_ca: CA | None
    server: Credential
    keys: LaneKeys
    clients: tuple[Client, ...]
    crl: bytes
    server_crl: bytes
    replaced: Mapping[str, int] | None
    https: HttpsCA | None = None  # None until there is a domain

    @property
    def cas(self) -> tuple[CA, ...]:
        """The CAs that are trusted, the newest first."""
        return (self.ca, self.previous_ca) if self.previous_ca else (self.ca,)

    @property
    def trusted_pem(self) -> bytes:
        """The certificates of the CAs that are trusted."""
        return b"".join(ca.credential.certificate_pem for ca in self.cas)

    @property
    def server_name(self) -> str:
        """The name in the server's certificate, which every client checks: it is set once, by the first generation."""
        return x509.common_name(self.server.certificate)

    @property
    def identity(self) -> str:
        """The name that the project had when the first generation was made."""
        return self.server_name.removeprefix(SERVER_DOMAIN)

    @cached_property
    def revoked(self) -> frozenset[int]:
        """All serial numbers that are revoked."""
        return frozenset(entry.serial_number for ca in self.cas for entry in ca.revoked)

    @cached_property
    def live_clients(self) -> tuple[Client, ...]:
        """The clients that may connect."""
        revoked = self.revoked
        return tuple(client for client in self.clients if client.credential.serial_number not in revoked)

    @cached_property
    def live_names(self) -> frozenset[str]:
        """The live clients' names, casefolded: where names that differ only in case are one file, it lets both in."""
        return frozenset(client.name.casefold() for client in self.live_clients)

    @property
    def leaves(self) -> tuple[Credential, ...]:
        """The server's and all clients' certificates."""
        return (self.server, *(client.credential for client in self.clients))

    def client(self, name: str) -> Client | None:
        """The client of this name, or else the one whose name differs only in case: on many disks they are one file.

        Old projects may have both.
        """
        alike = self._by_folded_name.get(name.casefold(), ())
        revoked = self.revoked
        return min(alike, key=lambda one: (one.name != name, one.credential.serial_number in revoked), default=None)

    @cached_property
    def _by_folded_name(self) -> Mapping[str, Sequence[Client]]:
        found: dict[str, list[Client]] = {}
        for client in self.clients:
            found.setdefault(client.name.casefold(), []).append(client)
        return found

    def in_use(self) -> Mapping[str, int]:
        """The serial numbers that clients and server use, by name: what the next generation replaces."""
        return {client.name: client.credential.serial_number for client in self.live_clients} | {
            SERVER: self.server.serial_number
        }
