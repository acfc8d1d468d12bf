"""What the project's secrets are now: read and compared, never changed."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from cryptography.x509 import load_pem_x509_certificate

from devkit import layout, vpn
from devkit.answers import Answers
from devkit.errors import UserError
from devkit.files import has_mode, points
from devkit.keys.model import Client, Generation
from devkit.keys.x509 import damage_as_value_error
from devkit.layout import Layout
from devkit.material import contents, reading, store


def was_ever_made(project: Path) -> bool:
    """Whether there are keys and certificates, or traces of some."""
    return store.was_ever_made(Layout(project))


def has_generation(project: Path) -> bool:
    """Whether there is a generation in force, whole or not."""
    return os.path.lexists(Layout(project).current)


def read_generation(project: Path) -> Generation:
    """Read the generation in force. Raises UserError when there is none or it is damaged."""
    return reading.load(store.in_force(Layout(project)))


def find_client(generation: Generation, name: str) -> Client:
    """The client of a name. Raises UserError when there is none."""
    client = generation.client(name)
    if client is None:
        raise UserError(f"there is no client {name!r}: `./scripts/client.py list` shows all.")
    return client


def profiles(project: Path, name: str) -> tuple[Path, ...]:
    """Where a client's profile of each lane is."""
    return tuple(Layout(project).clients / f"{name}{lane.profile_suffix}" for lane in vpn.LANES)


def first_profiles(project: Path, answers: Answers) -> tuple[Path, ...]:
    """Where the first client's profile of each lane is."""
    return tuple(Layout(project).local / f"{answers.client_name}{lane.profile_suffix}" for lane in vpn.LANES)


def former_first_clients(project: Path, answers: Answers) -> tuple[str, ...]:
    """The clients that the answer `client_name` named before it was changed, if that has not been followed yet.

    Links in local/ still lead to their profiles, and none leads to that of the client that is named now.
    """
    suffix = vpn.LANES[0].profile_suffix
    linked = {path.name.removesuffix(suffix) for path in Layout(project).local.glob(f"*{suffix}") if path.exists()}
    return () if answers.client_name in linked else tuple(sorted(linked))


def read_profile(project: Path, answers: Answers, name: str) -> str:
    """A live client's profile, as it is on disk.

    Raises UserError when it is not what it should be, and as `read_generation`.
    """
    profile = store.in_force(Layout(project)) / layout.PROFILES / profiles(project, name)[0].name
    for path, problem in _problems(Layout(project), answers):
        if path == profile:
            raise UserError(problem)
    return profile.read_text(encoding="utf-8")


def problems(project: Path, answers: Answers) -> Iterator[str]:
    """A sentence for each file that follows from others and is not what it should be.

    Raises UserError as `read_generation`.
    """
    return (problem for _, problem in _problems(Layout(project), answers))


def _problems(project: Layout, answers: Answers) -> Iterator[tuple[Path, str]]:
    folder = store.in_force(project)
    modes = has_mode(project.local, 0o700)  # otherwise the file system has none
    generation = reading.load(folder)
    if not generation.server_crl:
        path = folder / layout.SERVER_CRL
        yield path, f"{path} is missing or damaged: `./scripts/generate.py` writes it anew."
        return
    if generation.https is not None and generation.https.intermediate is None:
        for suffix in ("crt", "key"):
            path = folder / f"{layout.HTTPS_INTERMEDIATE}.{suffix}"
            yield path, f"{path} is missing or damaged: `./scripts/generate.py` writes it anew."
    for name, content, mode in contents.files(generation, reading.readable(project), answers):
        path = folder / name
        if store.content(path) != content:
            yield path, f"{path} is not what it should be: `./scripts/generate.py` writes it anew."
        elif modes and not has_mode(path, mode):
            yield path, f"{path} should have the mode {mode:04o}: `./scripts/generate.py` sets it."
    for view, target in project.views.items():
        if not points(view, target):
            yield view, f"{view} is no longer the link that it was: `./scripts/generate.py` makes it anew."


def fingerprint(project: Path) -> str:
    """A short digest of all that is read when the services start: when it changes, they must be restarted."""
    paths = Layout(project)
    folder = store.in_force(paths)
    read_at_start = [
        *(reading.read(path, "git") for path in (paths.compose, paths.server_conf)),
        *(reading.read(folder / path, reading.BACKUP) for path in contents.read_at_start()),
    ]
    return hashlib.sha256(b"".join(hashlib.sha256(data).digest() for data in read_at_start)).hexdigest()[:16]


def https_root(project: Path) -> bytes | None:
    """The certificate of the root for HTTPS that computers are to trust, if there is one."""
    path = Layout(project).current / f"{layout.HTTPS_ROOT}.crt"
    return path.read_bytes() if path.is_file() else None


def https_fingerprint(project: Path) -> str:
    """A short digest of what the proxy signs with, empty when there is none: when it changes, it must be restarted."""
    certificate = store.content(store.in_force(Layout(project)) / f"{layout.HTTPS_INTERMEDIATE}.crt")
    return hashlib.sha256(certificate).hexdigest()[:16] if certificate else ""


def chart_values(project: Path, answers: Answers) -> bytes:
    """The Helm chart's values, as they follow from the project's files now."""
    return contents.chart_values(read_generation(project), reading.readable(Layout(project)), answers)


def server_serial_numbers(project: Path) -> Sequence[str]:
    """The serial numbers of all certificates that this project's server has had, in hexadecimal; the newest last."""
    paths = Layout(project)
    found = []
    for folder in (*sorted(paths.archive.glob("[0-9]*")), paths.current):
        with suppress(OSError, ValueError):  # one that is gone or damaged names nobody's server
            found.append(serial_number((folder / f"{layout.SERVER}.crt").read_bytes()))
    return found


def serial_number(certificate: bytes) -> str:
    """That of a certificate (PEM), in hexadecimal. Raises ValueError when it is damaged."""
    with damage_as_value_error():
        return f"{load_pem_x509_certificate(certificate).serial_number:x}"
