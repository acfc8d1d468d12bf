"""A generation as files.

authority.crt, .key             the CA that signs the clients' certificates
previous-authority.crt, .key    after `rotate=all`: the CA before, which old profiles still know
crl.pem                         all that these CAs have revoked
replaced.txt                    what the generation before issued, and the next rotation revokes
clients/NAME.pem                each client's certificate and keys
configs/                        exactly what the server's container mounts
profiles/                       what users import
https/root.crt, .key            the root for HTTPS, which computers trust
https/proxy/                    exactly what the proxy's container mounts
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from devkit import layout, vpn
from devkit.answers import Answers
from devkit.files import READABLE, File
from devkit.keys.model import Client, Generation
from devkit.keys.x509 import Credential
from devkit.material import values
from devkit.material.expiry import expiries

REPLACED_HEADER = """\
# Serial numbers that the generation before issued; the next rotation revokes them, or who revokes their client does.
# SHA-256 of the lines below: """


@dataclass(frozen=True)
class Readable:
    """The texts that git tracks and that a generation's files include: client.conf and server.conf."""

    client_conf: str
    server_conf: str


def files(generation: Generation, readable: Readable, answers: Answers) -> Iterator[File]:
    """All files, in an order in which it is safe to write them: what lets clients in comes last."""
    for path, ca in zip((layout.CA, layout.PREVIOUS_CA), generation.cas, strict=False):
        yield from _credential_files(path, ca.credential)
    yield File(layout.CRL, generation.crl, READABLE)
    if generation.replaced is not None:
        yield File(layout.REPLACED, replaced_text(generation.replaced), READABLE)
    yield from _server_files(generation)
    yield from _https_files(generation)
    for client in generation.clients:
        yield File(layout.client(client.name), client_pem(client))
    for lane in vpn.LANES:
        for client in generation.live_clients:
            for file in lane.client_files(generation, client, answers, readable.client_conf):
                yield file.below(layout.PROFILES)
    yield File(layout.VALUES, chart_values(generation, readable, answers))
    for lane in vpn.LANES:
        for client in generation.live_clients:
            yield File(layout.CONFIGS / lane.admission_file(client.name), b"", READABLE)


def chart_values(generation: Generation, readable: Readable, answers: Answers) -> bytes:
    """The values of the Helm chart, as YAML."""
    return values.chart_values(
        answers,
        readable.server_conf,
        {file.path.name: file.content for file in _server_files(generation)},
        [client.name for client in generation.live_clients],
        hashlib.sha256(repr(sorted(generation.revoked)).encode()).hexdigest()[:16],
    )


def folders() -> Mapping[PurePosixPath, int]:
    """The folders of a generation, and their modes; they exist even if nothing is in them."""
    # The server reads its keys as root, then becomes nobody, who goes on reading what changes while it runs.
    read_later = (layout.CONFIGS / path for lane in vpn.LANES for path in lane.read_later)
    return dict.fromkeys((layout.CONFIGS, *read_later, layout.PROXY), 0o755) | dict.fromkeys(
        (layout.CLIENTS, layout.PROFILES), 0o700
    )


def read_at_start() -> Sequence[PurePosixPath]:
    """What the servers read once."""
    return [layout.CONFIGS / path for lane in vpn.LANES for path in lane.read_at_start]


def profile_suffixes() -> Sequence[str]:
    """The suffixes of what apps open: those of profiles first, then those of bundles."""
    bundles = (suffix for lane in vpn.LANES for suffix in lane.bundle_suffixes)
    return [*(lane.profile_suffix for lane in vpn.LANES), *bundles]


def files_of_the_refused(name: str) -> Sequence[PurePosixPath]:
    """The files that must not exist for a client that is revoked."""
    profiles = [layout.PROFILES / f"{name}{lane.profile_suffix}" for lane in vpn.LANES]
    return [*(layout.CONFIGS / lane.admission_file(name) for lane in vpn.LANES), *profiles]


def folders_of_the_refused(name: str) -> Sequence[PurePosixPath]:
    """The folders that must not exist for a client that is revoked."""
    return [layout.PROFILES / f"{name}{suffix}" for lane in vpn.LANES for suffix in lane.bundle_suffixes]


def replaced_text(replaced: Mapping[str, int]) -> bytes:
    """Serial numbers by name, as they are kept: with a checksum, as nothing else would show that one is missing."""
    lines = "".join(f"{name} {number:x}\n" for name, number in sorted(replaced.items()))
    return f"{REPLACED_HEADER}{hashlib.sha256(lines.encode()).hexdigest()}\n{lines}".encode()


def parse_replaced(text: bytes) -> Mapping[str, int]:
    """Read back what `replaced_text` made. Raises ValueError when it is damaged."""
    pairs = [line.split(" ") for line in text.decode().splitlines() if not line.startswith("#")]
    replaced = {name: int(number, 16) for name, number in pairs}
    if replaced_text(replaced) != text:
        raise ValueError("its checksum is wrong")
    return replaced


def _server_files(generation: Generation) -> Iterator[File]:
    """What the servers read, without what lets clients in."""
    yield File(layout.SERVER_CRL, generation.server_crl, READABLE)
    yield from _credential_files(layout.SERVER, generation.server)
    for lane in vpn.LANES:
        yield from (file.below(layout.CONFIGS) for file in lane.server_files(generation))


def _https_files(generation: Generation) -> Iterator[File]:
    """The CA for HTTPS, and what the proxy's page says of all certificates, which is no secret."""
    if generation.https is not None:
        yield from _credential_files(layout.HTTPS_ROOT, generation.https.root)
        if generation.https.intermediate is not None:
            yield from _credential_files(layout.HTTPS_INTERMEDIATE, generation.https.intermediate)
    found = [{"name": one.name, "expires": f"{one.at:%Y-%m-%dT%H:%M:%SZ}", "renewal": one.renewal}
             for one in expiries(generation)]  # fmt: skip
    yield File(layout.EXPIRIES, json.dumps(found, indent=1).encode(), READABLE)


def _credential_files(path: PurePosixPath, credential: Credential) -> Iterator[File]:
    yield File(path.with_name(f"{path.name}.crt"), credential.certificate_pem, READABLE)
    yield File(path.with_name(f"{path.name}.key"), credential.key_pem)


def client_pem(client: Client) -> bytes:
    """A client's certificate and keys, as they are kept."""
    return client.credential.certificate_pem + client.credential.key_pem + b"".join(client.keys.values())
