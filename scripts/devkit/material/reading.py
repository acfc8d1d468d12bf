"""A generation read back from its files. A file that is missing or damaged raises UserError, which names it."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import Certificate, CertificateRevocationList

from devkit import layout, vpn
from devkit.answers import CLIENT_NAME
from devkit.errors import UserError
from devkit.keys import https, x509
from devkit.keys.https import HttpsCA
from devkit.keys.model import CA, Client, Generation
from devkit.keys.x509 import Credential
from devkit.material.contents import Readable, parse_replaced
from devkit.material.rotation import END_OF_CRL, split_crls

Parsed = TypeVar("Parsed")

BACKUP = "your backup"
BEGIN_OF_BLOCK, END_OF_BLOCK = b"-----BEGIN ", b"-----END "


def load(folder: Path) -> Generation:
    """Read a generation.

    Files that follow from others may be missing: the server's CRL comes back empty then, and the rest are not read.
    """
    for lane in vpn.LANES:
        for name in lane.admitted(folder / layout.CONFIGS):
            if not (folder / layout.client(name)).exists():
                raise UserError(f"{folder / layout.client(name)} is missing: restore it from {BACKUP}.")
    credentials = [_credential(folder / layout.CA, ())]
    overlap = read(folder / layout.CRL, BACKUP).count(END_OF_CRL) > 1
    if overlap or any(os.path.lexists(folder / f"{layout.PREVIOUS_CA}.{suffix}") for suffix in ("crt", "key")):
        credentials.append(_credential(folder / layout.PREVIOUS_CA, ()))
    certificates = [credential.certificate for credential in credentials]
    crls = _parse(folder / layout.CRL, partial(_parse_crls, cas=certificates))
    cas = [CA(each, tuple(revoked)) for each, revoked in zip(credentials, crls, strict=True)]
    server_crls: Sequence[CertificateRevocationList] = ()
    with suppress(UserError):
        server_crls = _parse(folder / layout.SERVER_CRL, partial(_parse_crls, cas=certificates))
    revoked = {entry.serial_number for ca in cas for entry in ca.revoked}
    generation = Generation(
        number=int(folder.name),
        ca=cas[0],
        previous_ca=cas[1] if cas[1:] else None,
        server=_credential(folder / layout.SERVER, certificates),
        keys={one.name: _parse(folder / layout.CONFIGS / one.server_key, one.parse_server_key) for one in vpn.LANES},
        clients=tuple(
            _parse(path, partial(_parse_client, path.stem, issuers=certificates, revoked=revoked))
            for path in sorted((folder / layout.CLIENTS).glob("*.pem"))
            if CLIENT_NAME.fullmatch(path.stem)
        ),
        crl=_pem(crls),
        server_crl=_pem(server_crls),
        replaced=_replaced(folder),
        https=_https(folder),
    )
    _check_lane_keys(folder, generation)
    return generation


def readable(project: layout.Layout) -> Readable:
    """Read the texts that git tracks."""
    return Readable(_text(project.client_conf), _text(project.server_conf))


def read(path: Path, source: str) -> bytes:
    """Read a file that could be restored from this source."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing: restore it from {source}.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): fix that, or restore it from {source}.") from error


def _text(path: Path) -> str:
    try:
        return read(path, "git").decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8: restore it from git.") from error


def _parse(path: Path, parse: Callable[[bytes], Parsed]) -> Parsed:
    """Read a file that follows from nothing else, so that only a backup can bring it back."""
    data = read(path, BACKUP)
    try:
        return parse(data)
    except ValueError as error:
        raise UserError(f"{path} is damaged: restore it from {BACKUP}.") from error


def _credential(path: Path, issuers: Sequence[Certificate]) -> Credential:
    certificate = _parse(path.with_name(f"{path.name}.crt"), lambda pem: x509.load_certificate(pem, issuers))
    return _parse(path.with_name(f"{path.name}.key"), lambda pem: x509.load_credential(certificate, pem))


def _parse_crls(pem: bytes, cas: Sequence[Certificate]) -> Sequence[CertificateRevocationList]:
    blocks = split_crls(pem)
    if len(blocks) != len(cas):
        raise ValueError("it does not hold one list for each CA")
    return [x509.load_crl(block, by) for block, by in zip(blocks, cas, strict=True)]


def _pem(crls: Sequence[CertificateRevocationList]) -> bytes:
    return b"".join(each.public_bytes(Encoding.PEM) for each in crls)


def _parse_client(name: str, pem: bytes, issuers: Sequence[Certificate], revoked: Collection[int]) -> Client:
    """A client with a certificate that a CA has revoked, or issued to this name. Raises ValueError when damaged."""
    lines = [line + b"\n" for line in pem.splitlines()]
    ends = [number + 1 for number, line in enumerate(lines) if line.startswith(END_OF_BLOCK)]
    if len(ends) != 2 + len(vpn.LANES) or ends[-1] != len(lines):
        raise ValueError("it does not hold a certificate and its keys")
    certificate, key, *rest = (b"".join(lines[start:end]) for start, end in zip([0, *ends], ends, strict=False))
    # The CA that issued a revoked certificate may be gone, and no server accepts the certificate anyway.
    owner = x509.load_certificate(certificate, issuers, revoked)
    if owner.serial_number not in revoked and x509.common_name(owner) != name:
        raise ValueError("it is somebody else's")
    labels = {lane.name: BEGIN_OF_BLOCK + lane.key_label.encode() for lane in vpn.LANES}
    keys = {lane: block for lane, label in labels.items() for block in rest if block.startswith(label)}
    if len(keys) != len(rest):
        raise ValueError("it holds a key of no lane")
    return Client(name, x509.load_credential(owner, key), keys)


def _https(folder: Path) -> HttpsCA | None:
    """The CA for HTTPS; its intermediate may be lost, and follows from the root."""
    if not any(os.path.lexists(folder / f"{layout.HTTPS_ROOT}.{suffix}") for suffix in ("crt", "key")):
        return None
    root = _credential(folder / layout.HTTPS_ROOT, ())
    _parse(folder / f"{layout.HTTPS_ROOT}.crt", lambda _: https.domain(root.certificate).encode())
    with suppress(UserError):
        return HttpsCA(root, _credential(folder / layout.HTTPS_INTERMEDIATE, [root.certificate]))
    return HttpsCA(root, None)


def _replaced(folder: Path) -> Mapping[str, int] | None:
    path = folder / layout.REPLACED
    if not os.path.lexists(path):
        return None if int(folder.name) > 1 else {}  # nothing was before the first
    return _parse(path, parse_replaced)


def _check_lane_keys(folder: Path, generation: Generation) -> None:
    """The server must know each live client's key. Raises UserError that names the file that is damaged."""
    live = generation.live_clients
    for lane in vpn.LANES:
        server_key = generation.keys[lane.name]
        unknown = [each for each in live if not lane.accepts(server_key, each.keys[lane.name])]
        if unknown:
            damaged: list[PurePosixPath] = [] if len(unknown) < len(live) else [layout.CONFIGS / lane.server_key]
            damaged += [] if len(unknown) > 1 and damaged else [layout.client(unknown[0].name)]
            names = " or ".join(str(folder / path) for path in damaged)
            raise UserError(f"{names} is damaged: restore it from {BACKUP}.")
