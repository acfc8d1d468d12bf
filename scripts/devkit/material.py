"""The project's secrets on disk: made once, switched in whole.

local/pki/archive/0001/     one generation, complete in itself, never moved once it is there
authority.crt, .key     the CA; its key is nowhere else
configs/                exactly what the server's container mounts
clients/NAME/           each client's certificate and keys
profiles/               each client's profile, and the same as a Tunnelblick bundle
local/pki/current           a link to the generation in force: switching it is one rename
local/configs, local/clients, local/docker-for-mac.ovpn, ...: links through `current`
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from filelock import FileLock, Timeout

from devkit import pki, rendering, tls_crypt
from devkit.answers import Answers
from devkit.errors import UserError
from devkit.files import READABLE, make_folder, point, replace, sync_folder, sync_tree, write

LOCK_SECONDS = 30
STAGING = ".staging"


@dataclass(frozen=True)
class End:
    """When a certificate stops being valid (UTC)."""

    name: str
    at: datetime


@dataclass(frozen=True)
class Material:
    """What the generation in force holds, for the report."""

    profile: Path
    bundle: Path
    ends: tuple[End, ...]


def local_folder(project: Path) -> Path:
    """The git-ignored folder of everything that is secret or particular to this machine."""
    return project / "local"


def ensure_material(project: Path, answers: Answers, now: datetime) -> bool:
    """Make the first generation if there is none, and bring the profiles up to date with the answers.

    Returns whether a generation was made. What exists is never replaced but for a profile's text.
    Raises UserError when another run holds the project or what is there is damaged; OSError as it comes.
    """
    skeleton = _read(project / "client/client.conf").decode()
    local = make_folder(local_folder(project))
    with _locked(local):
        archive = make_folder(make_folder(local / "pki") / "archive")
        shutil.rmtree(archive / STAGING, ignore_errors=True)
        current = local / "pki/current"
        made = not any(archive.glob("[0-9]*"))
        if made:
            _stage(archive / STAGING, answers, now)
            sync_tree(archive / STAGING)
            os.rename(archive / STAGING, archive / "0001")
            sync_folder(archive)
        if not current.exists():  # new, or a run was cut short before this step
            point(current, f"archive/{max(path.name for path in archive.glob('[0-9]*'))}")
        _write_profiles(current.resolve(), answers, skeleton)
        _link_views(local, answers.client_name)
    return made


def read_material(project: Path, answers: Answers) -> Material:
    """Read the facts of the generation in force.

    Raises UserError when there is none or it is damaged.
    """
    local = local_folder(project)
    current = local / "pki/current"
    if not current.exists():
        raise UserError(f"{project} has no certificates yet: run `python scripts/generate.py` first.")
    certificates = {
        "authority": current / "authority.crt",
        "server": current / "configs/server.crt",
        answers.client_name: current / "clients" / answers.client_name / "client.crt",
    }
    return Material(
        profile=local / f"{answers.client_name}.ovpn",
        bundle=local / f"{answers.client_name}.tblk",
        ends=tuple(End(name, _certificate(path).not_valid_after_utc) for name, path in certificates.items()),
    )


@contextmanager
def _locked(local: Path) -> Iterator[None]:
    try:
        with FileLock(local / ".lock", timeout=LOCK_SECONDS, mode=0o600):
            yield
    except Timeout:
        raise UserError(f"{local} is in use by another run of these scripts: try again when that has ended.") from None


def _stage(generation: Path, answers: Answers, now: datetime) -> None:
    """Write a whole generation, with everything but the profiles."""
    authority = pki.new_authority(answers.project_name, answers.authority_days, now)
    server = pki.issue_server(authority, server_name(answers), answers.certificate_days, now)
    client = pki.issue_client(authority, answers.client_name, answers.certificate_days, now)
    server_key = tls_crypt.new_server_key()

    make_folder(generation)
    write(generation / "authority.crt", authority.certificate_pem, READABLE)
    write(generation / "authority.key", authority.key_pem)

    # The server reads its keys as root, then drops to nobody, who goes on reading the CRL and ccd/.
    # Nobody else gets this far: the folders above are closed.
    configs = make_folder(generation / "configs", 0o755)
    write(configs / "ca.crt", authority.certificate_pem, READABLE)
    write(configs / "server.crt", server.certificate_pem, READABLE)
    write(configs / "server.key", server.key_pem)
    write(configs / "tls-crypt-v2.key", server_key)
    write(configs / "crl.pem", pki.revocation_list(authority, [], 1, now), READABLE)
    write(make_folder(configs / "ccd", 0o755) / answers.client_name, b"", READABLE)

    folder = make_folder(make_folder(generation / "clients") / answers.client_name)
    write(folder / "client.crt", client.certificate_pem, READABLE)
    write(folder / "client.key", client.key_pem)
    write(folder / "tls-crypt-v2.key", tls_crypt.new_client_key(server_key, now))


def server_name(answers: Answers) -> str:
    """The name in the server's certificate, which every client checks."""
    return f"server.{answers.project_name}"


def _write_profiles(generation: Path, answers: Answers, skeleton: str) -> None:
    """Write each client's profile and bundle, where they are missing or their text has changed."""
    profiles = make_folder(generation / "profiles")
    for folder in sorted((generation / "clients").iterdir()):
        text = rendering.profile(
            skeleton,
            authority=_read(generation / "configs/ca.crt"),
            certificate=_read(folder / "client.crt"),
            key=_read(folder / "client.key"),
            tls_crypt_v2=_read(folder / "tls-crypt-v2.key"),
        )
        identifier = f"d4m-devkit.{answers.project_name}.{folder.name}"
        _replace_if_changed(profiles / f"{folder.name}.ovpn", text)
        for name, content in rendering.tunnelblick_bundle(identifier, int(generation.name), text).items():
            path = profiles / f"{folder.name}.tblk" / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _replace_if_changed(path, content)


def _link_views(local: Path, client_name: str) -> None:
    point(local / "configs", "pki/current/configs")
    point(local / "clients", "pki/current/profiles")
    for suffix in (".ovpn", ".tblk"):
        point(local / f"{client_name}{suffix}", f"clients/{client_name}{suffix}")


def _replace_if_changed(path: Path, data: bytes) -> None:
    with suppress(FileNotFoundError):
        if path.read_bytes() == data:
            return
    replace(path, data)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing: restore it from git or from your backup.") from None


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_read(path))
    except ValueError as error:
        raise UserError(f"{path} is damaged: restore it from your backup.") from error
