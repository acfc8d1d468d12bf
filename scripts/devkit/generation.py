"""One whole set of the project's secrets, and how the next one follows from it. Pure: nothing here touches a file.

authority.crt, .key             the authority that signs the clients' certificates
previous-authority.crt, .key    after `rotate=all`: the one before, which old profiles still know
crl.pem                         all that these authorities have revoked
replaced.txt                    what the generation before issued, and the next rotation revokes
clients/NAME.pem                each client's certificate, private key and tls-crypt-v2 key
configs/                        exactly what the server's container mounts
profiles/                       what users import
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import PurePosixPath
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from devkit import pki, rendering, tls_crypt
from devkit.answers import Answers
from devkit.pki import Credential

RotationKind = Literal["leaf", "all", "none"]

PRIVATE = 0o600
READABLE = 0o644
END_OF_BLOCK = b"-----END "
END_OF_LIST = b"-----END X509 CRL-----\n"
SERVER_DOMAIN = "server."
SERVER = "server"  # beside the clients' names, of which it is none
REPLACED_HEADER = """\
# Serial numbers that the generation before issued; the next rotation revokes them, or who revokes their client does.
# SHA-256 of the lines below: """


@dataclass(frozen=True)
class Authority:
    """An authority and what it has revoked."""

    credential: Credential
    revoked: tuple[x509.RevokedCertificate, ...] = ()

    def revoking(self, serial_numbers: Sequence[int], now: datetime) -> "Authority":
        """The same with more revoked."""
        known = {entry.serial_number for entry in self.revoked}
        more = tuple(pki.revocation(number, now) for number in serial_numbers if number not in known)
        return replace(self, revoked=self.revoked + more)


@dataclass(frozen=True)
class Client:
    """A client's certificate and keys."""

    name: str
    credential: Credential
    tls_crypt_v2: bytes

    @property
    def pem(self) -> bytes:
        """All of it, as it is kept."""
        return self.credential.certificate_pem + self.credential.key_pem + self.tls_crypt_v2


def parse_client(name: str, pem: bytes, authorities: Sequence[Authority]) -> Client:
    """Read back what `Client.pem` gave.

    Raises ValueError when it is damaged: one of the authorities must have revoked it, or have issued it to this name.
    """
    lines = [line + b"\n" for line in pem.splitlines()]
    ends = [number + 1 for number, line in enumerate(lines) if line.startswith(END_OF_BLOCK)]
    if len(ends) != 3 or ends[-1] != len(lines):
        raise ValueError("it does not hold a certificate and two keys")
    certificate, key, tls_crypt_v2 = (b"".join(lines[start:end]) for start, end in zip([0, *ends], ends, strict=False))
    revoked = {entry.serial_number for authority in authorities for entry in authority.revoked}
    # The authority that issued what is revoked may be gone, and nobody accepts it anyway.
    owner = pki.load_certificate(certificate, [authority.credential.certificate for authority in authorities], revoked)
    if owner.serial_number not in revoked and pki.common_name(owner) != name:
        raise ValueError("it is somebody else's")
    return Client(name, pki.load_credential(owner, key), tls_crypt_v2)


@dataclass(frozen=True)
class Generation:
    """One set; `crl` and `server_crl` are PEM, one list for each authority.

    `replaced` has the serial numbers that the generation before issued and that are not revoked yet, by the names of
    the clients and `SERVER`; None when they are not known.
    """

    number: int
    authority: Authority
    previous_authority: Authority | None
    server: Credential
    tls_crypt_v2: bytes
    clients: tuple[Client, ...]
    crl: bytes
    server_crl: bytes
    replaced: Mapping[str, int] | None

    @property
    def authorities(self) -> tuple[Authority, ...]:
        """Those that are trusted, the newest first."""
        return (self.authority, self.previous_authority) if self.previous_authority else (self.authority,)

    @property
    def server_name(self) -> str:
        """The name in the server's certificate, which every client checks: it is set once, by the first generation."""
        return pki.common_name(self.server.certificate)

    @property
    def leaves(self) -> tuple[Credential, ...]:
        """The server's and all clients' certificates."""
        return (self.server, *(client.credential for client in self.clients))

    def client(self, name: str) -> Client | None:
        """The client of this name, or else the one whose name differs in case alone: on many disks they are one file.

        Old projects may have both.
        """
        alike = [client for client in self.clients if client.name.casefold() == name.casefold()]
        alike.sort(key=lambda client: (client.name != name, client not in self.live_clients))
        return alike[0] if alike else None

    @property
    def live_clients(self) -> tuple[Client, ...]:
        """Those that may connect."""
        revoked = {entry.serial_number for authority in self.authorities for entry in authority.revoked}
        return tuple(client for client in self.clients if client.credential.serial_number not in revoked)


def first_generation(answers: Answers, now: datetime) -> Generation:
    """Make a new authority and all that follows from it."""
    authority = Authority(pki.new_authority(answers.project_name, answers.key_type, answers.authority_days, now))
    generation = Generation(
        number=1,
        authority=authority,
        previous_authority=None,
        server=_issue_server(authority, f"{SERVER_DOMAIN}{answers.project_name}", answers, now),
        tls_crypt_v2=tls_crypt.new_server_key(),
        clients=(),
        crl=b"",
        server_crl=b"",
        replaced={},
    )
    return with_clients(with_lists(generation, now), [answers.client_name], answers, now)


def with_clients(generation: Generation, names: Sequence[str], answers: Answers, now: datetime) -> Generation:
    """Issue to more clients; one that was revoked under the same name is replaced, and stays revoked."""
    new = tuple(
        Client(
            name,
            pki.issue_client(generation.authority.credential, name, answers.key_type, answers.certificate_days, now),
            tls_crypt.new_client_key(generation.tls_crypt_v2, now),
        )
        for name in names
    )
    kept = tuple(client for client in generation.clients if client.name not in names)
    # What it used before its last renewal must not come back with its name.
    generation = _revoking(generation, _replaced_of(generation, names), now)
    return with_lists(replace(generation, clients=tuple(sorted(kept + new, key=lambda each: each.name))), now)


def without_client(generation: Generation, name: str, now: datetime) -> Generation:
    """Revoke a client's certificate, and the one that it replaced."""
    serial_numbers = [client.credential.serial_number for client in generation.clients if client.name == name]
    return with_lists(_revoking(generation, [*serial_numbers, *_replaced_of(generation, [name])], now), now)


def in_use(generation: Generation) -> Mapping[str, int]:
    """The serial numbers that clients and server use, by name: what the next generation replaces."""
    return {client.name: client.credential.serial_number for client in generation.live_clients} | {
        SERVER: generation.server.serial_number
    }


def rotated(
    current: Generation,
    kind: RotationKind,
    revoke_now: bool,
    answers: Answers,
    now: datetime,
) -> Generation:
    """Renew the server's and all live clients' certificates.

    What the generation before the current one issued (`replaced`) is revoked, so a profile outlives one rotation; with
    `revoke_now` the current one's, too. A new authority (`all`) signs clients only: until the next rotation the
    server's certificate comes from the previous authority, which is all that the profiles in use know. With
    `revoke_now` nothing that the previous authority signed is trusted any more, and no tls-crypt-v2 key is kept, so
    neither is of use to a thief.
    """
    replaced = in_use(current)
    doomed = [*(current.replaced or {}).values(), *(replaced.values() if revoke_now else ())]
    live = current.live_clients
    refused = tuple(client for client in current.clients if client not in live)
    current = _revoking(current, doomed, now)
    authority, previous_authority, tls_crypt_v2 = current.authority, None, current.tls_crypt_v2
    if kind == "all":
        credential = pki.new_authority(answers.project_name, answers.key_type, answers.authority_days, now)
        # The new list takes over who is refused, or they would come back once the old authority is gone.
        authority = Authority(credential).revoking([client.credential.serial_number for client in refused], now)
        if revoke_now:
            tls_crypt_v2 = tls_crypt.new_server_key()
        elif current.authority.credential.end > now:  # one that has ended cannot help any more
            previous_authority = current.authority
    renewed = tuple(
        replace(
            client,
            credential=pki.issue_client(
                authority.credential, client.name, answers.key_type, answers.certificate_days, now
            ),
            tls_crypt_v2=(
                client.tls_crypt_v2
                if tls_crypt_v2 == current.tls_crypt_v2
                else tls_crypt.new_client_key(tls_crypt_v2, now)
            ),
        )
        for client in live
    )
    following = replace(
        current,
        number=current.number + 1,
        authority=authority,
        previous_authority=previous_authority,
        server=_issue_server(previous_authority or authority, current.server_name, answers, now),
        tls_crypt_v2=tls_crypt_v2,
        clients=tuple(sorted(renewed + refused, key=lambda client: client.name)),
        replaced={} if revoke_now else replaced,
    )
    return with_lists(following, now)


def with_lists(generation: Generation, now: datetime) -> Generation:
    """Bring both lists of revoked certificates up to date.

    The server's own leaves out the clients that it refuses by their name, because they have no file in `ccd`: they
    are told AUTH_FAILED, whereas a listed certificate ends in a reset, or over UDP in a time-out.
    """
    by_name = _refused_by_name(generation)
    full, reduced = b"", b""
    known = [*_lists(generation.crl), *_lists(generation.server_crl)]
    for authority in generation.authorities:
        issuer = authority.credential.certificate.subject
        last_number = max((pki.list_number(each) for each in known if each.issuer == issuer), default=0)
        listed = [entry for entry in authority.revoked if entry.serial_number not in by_name]
        full += pki.revocation_list(authority.credential, authority.revoked, now, last_number)
        reduced += pki.revocation_list(authority.credential, listed, now, last_number)
    return replace(generation, crl=full, server_crl=reduced)


def settled(generation: Generation, now: datetime) -> Generation:
    """The same, with the server's list made anew if it is damaged or a run that was cut short left it behind."""
    listed = {entry.serial_number for each in _lists(generation.server_crl) for entry in each}
    by_name = _refused_by_name(generation)
    revoked = {entry.serial_number for authority in generation.authorities for entry in authority.revoked}
    damaged = not generation.server_crl
    return with_lists(generation, now) if damaged or listed != revoked - by_name else generation


def _refused_by_name(generation: Generation) -> set[int]:
    """The serial numbers of clients that have no file in `ccd`."""
    # Where names that differ in case alone are one file, one of a live client lets in the other, too.
    live = {client.name.casefold() for client in generation.live_clients} | {SERVER}
    own = {client.credential.serial_number for client in generation.clients if client.name.casefold() not in live}
    return own | {number for name, number in (generation.replaced or {}).items() if name.casefold() not in live}


def replaced_text(replaced: Mapping[str, int]) -> bytes:
    """Serial numbers by name, as they are kept: with a checksum, because nothing else would tell a part from all."""
    lines = "".join(f"{name} {number:x}\n" for name, number in sorted(replaced.items()))
    return f"{REPLACED_HEADER}{hashlib.sha256(lines.encode()).hexdigest()}\n{lines}".encode()


def parse_replaced(text: bytes) -> Mapping[str, int]:
    """Read back what `replaced_text` gave. Raises ValueError when it is damaged."""
    pairs = [line.split(" ") for line in text.decode().splitlines() if not line.startswith("#")]
    replaced = {name: int(number, 16) for name, number in pairs}
    if replaced_text(replaced) != text:
        raise ValueError("its checksum is wrong")
    return replaced


def parse_lists(pem: bytes, authorities: Sequence[x509.Certificate]) -> Sequence[x509.CertificateRevocationList]:
    """Read the revocation lists of these authorities. Raises ValueError unless each has one, and no more is there."""
    blocks = _blocks(pem)
    if len(blocks) != len(authorities):
        raise ValueError("it does not hold one list for each authority")
    return [pki.load_revocation_list(block, by) for block, by in zip(blocks, authorities, strict=True)]


def lists_pem(lists: Sequence[x509.CertificateRevocationList]) -> bytes:
    """The lists as they are kept."""
    return b"".join(each.public_bytes(Encoding.PEM) for each in lists)


def _lists(pem: bytes) -> Iterator[x509.CertificateRevocationList]:
    return (x509.load_pem_x509_crl(block) for block in _blocks(pem))


def _blocks(pem: bytes) -> Sequence[bytes]:
    *blocks, rest = pem.split(END_OF_LIST)
    return [block + END_OF_LIST for block in blocks] + ([rest] if rest else [])


@dataclass(frozen=True)
class ReadableParts:
    """The texts that git tracks and that files of a generation take in: client.conf and server.conf."""

    client_conf: str
    server_conf: str


def files(generation: Generation, parts: ReadableParts, answers: Answers) -> Iterator[tuple[PurePosixPath, bytes, int]]:
    """Path, content and mode of each file, in an order that is safe to write them in: `ccd`, which lets in, last."""
    for name, authority in zip(("authority", "previous-authority"), generation.authorities, strict=False):
        yield PurePosixPath(f"{name}.crt"), authority.credential.certificate_pem, READABLE
        yield PurePosixPath(f"{name}.key"), authority.credential.key_pem, PRIVATE
    yield PurePosixPath("crl.pem"), generation.crl, READABLE
    if generation.replaced is not None:
        yield PurePosixPath("replaced.txt"), replaced_text(generation.replaced), READABLE
    configs = PurePosixPath("configs")
    for name, (content, mode) in _server_files(generation).items():
        yield configs / name, content, mode
    for client in generation.clients:
        yield PurePosixPath("clients") / f"{client.name}.pem", client.pem, PRIVATE
    for client in generation.live_clients:
        profile = rendering.profile(
            parts.client_conf,
            answers,
            server_name=generation.server_name,
            authority=_trusted(generation),
            certificate=client.credential.certificate_pem,
            key=client.credential.key_pem,
            tls_crypt_v2=client.tls_crypt_v2,
        )
        profiles = PurePosixPath("profiles")
        yield profiles / f"{client.name}.ovpn", profile, PRIVATE
        identifier = f"d4m-devkit.{generation.server_name.removeprefix(SERVER_DOMAIN)}.{client.name}"
        for path, content in rendering.tunnelblick_bundle(identifier, generation.number, profile).items():
            yield profiles / f"{client.name}.tblk" / path, content, PRIVATE
    yield PurePosixPath("values.yaml"), helm_values(generation, parts, answers), PRIVATE
    for client in generation.live_clients:
        yield configs / "ccd" / client.name, b"", READABLE


def helm_values(generation: Generation, parts: ReadableParts, answers: Answers) -> bytes:
    """The values of the Helm chart, as YAML."""
    return rendering.helm_values(
        answers,
        parts.server_conf,
        {name: content for name, (content, _) in _server_files(generation).items()},
        [client.name for client in generation.live_clients],
        _digest_of_revocations(generation),
    )


def _trusted(generation: Generation) -> bytes:
    return b"".join(authority.credential.certificate_pem for authority in generation.authorities)


def _server_files(generation: Generation) -> Mapping[str, tuple[bytes, int]]:
    """Content and mode of what the server mounts, by the files' names."""
    # The server reads its keys as root, then becomes nobody, who goes on reading the list and ccd. Nobody else gets
    # this far: the folders above are closed.
    return {
        "crl.pem": (generation.server_crl, READABLE),
        "ca.crt": (_trusted(generation), READABLE),
        "server.crt": (generation.server.certificate_pem, READABLE),
        "server.key": (generation.server.key_pem, PRIVATE),
        "tls-crypt-v2.key": (generation.tls_crypt_v2, PRIVATE),
    }


def _digest_of_revocations(generation: Generation) -> str:
    numbers = sorted(entry.serial_number for authority in generation.authorities for entry in authority.revoked)
    return hashlib.sha256(repr(numbers).encode()).hexdigest()[:16]


def _issue_server(authority: Authority, name: str, answers: Answers, now: datetime) -> Credential:
    return pki.issue_server(authority.credential, name, answers.key_type, answers.certificate_days, now)


def _replaced_of(generation: Generation, names: Collection[str]) -> Sequence[int]:
    return [number for name, number in (generation.replaced or {}).items() if name in names]


def _revoking(generation: Generation, serial_numbers: Sequence[int], now: datetime) -> Generation:
    """Put serial numbers on the list of the authority that issued them."""
    # Each is listed by both: a number has 128 random bits, so the one that did not issue it loses nothing.
    previous = generation.previous_authority
    return replace(
        generation,
        authority=generation.authority.revoking(serial_numbers, now),
        previous_authority=previous.revoking(serial_numbers, now) if previous else None,
    )
