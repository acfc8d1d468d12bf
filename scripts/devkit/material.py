"""The project's secrets on disk: each generation made whole, and switched in by one rename.

    local/pki/archive/0001/     one generation; it is never moved, so a container that mounts it keeps what it has
    local/pki/archive/unused-*  one that was cut short before it came into force
    local/pki/current           a link to the generation in force: switching it is one rename
    local/configs, local/clients, local/values.yaml, local/docker-for-mac.ovpn, ...: links through `current`

`clients/` and `crl.pem` say who may connect; `configs/ccd`, the server's list and the profiles follow from them. A run
that is cut short leaves what follows behind, and the next run brings it up to date.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

import yaml
from filelock import FileLock, Timeout

from devkit import generation as generations
from devkit import pki
from devkit.answers import NEW_AUTHORITY, Answers, client_name_fault
from devkit.errors import UserError
from devkit.files import BESIDE, close_to_others, ignore_in_git, make_folder, point, replace_all, sync, write
from devkit.generation import Authority, Client, Generation, ReadableParts, RotationKind
from devkit.pki import Credential

LOCK_SECONDS = 30
STAGING = ".staging"
OPEN_TO_THE_SERVER = ("configs", "configs/ccd")
FOLDERS = (*OPEN_TO_THE_SERVER, "clients", "profiles")
GENERATION_IN_FORCE = re.compile(r"archive/[0-9]{4,}")
TRACE_OF_A_GENERATION = re.compile(r"(unused-)?[0-9]{4,}")
RESTORE_ALL = (
    "restore local/pki from your backup, or move it away if there is none: then `python scripts/generate.py` starts "
    "anew, and every client needs a new profile."
)


@dataclass(frozen=True)
class Renewal:
    """What a rotation did to one certificate."""

    name: str
    old: Credential
    new: Credential


def local_folder(project: Path) -> Path:
    """The git-ignored folder of everything that is secret or particular to this machine."""
    return project / "local"


def profile_path(project: Path, name: str) -> Path:
    """Where a client's profile is."""
    return local_folder(project) / "clients" / f"{name}.ovpn"


def ensure_material(project: Path, answers: Answers, now: datetime) -> Literal["made", "changed", "unchanged"]:
    """Make the first generation if there is none, and bring the profiles up to date with the answers.

    Returns what became of the profiles. Raises UserError when another run holds the project or something is
    damaged; OSError as it comes.
    """
    with _locked(project) as local:
        archive = make_folder(make_folder(local / "pki") / "archive")
        made = not _was_ever_made(local)
        if made:
            _store(archive, generations.first_generation(answers, now), project, answers)
        if made or _first_run_was_cut_short(local):
            point(local / "pki/current", "archive/0001")
        generation = _settled(project, now)
        if answers.client_name not in {client.name for client in generation.clients}:  # the answer has changed
            _require_authority(generation, now)
            generation = generations.with_clients(generation, [answers.client_name], answers, now)
        changed = _apply(project, generation, answers)
    return "made" if made else "changed" if changed else "unchanged"


def rotate(project: Path, answers: Answers, kind: RotationKind, revoke_now: bool, now: datetime) -> tuple[Renewal, ...]:
    """Make the next generation and switch to it; see `generation.rotated` for what it holds.

    Returns what became of each certificate. Raises as `ensure_material`.
    """
    with _locked(project) as local:
        current = _settled(project, now)
        if kind == "leaf":
            _require_authority(current, now)
        archive = local / "pki/archive"
        if current.replaced is None and not (kind == "all" and revoke_now):  # which ends all that was ever issued
            before = archive / f"{current.number - 1:04}"
            raise UserError(
                f"{before} is missing or damaged, so what it issued cannot be revoked: restore it from your backup, or "
                f"end all that was ever issued with `{NEW_AUTHORITY} --data revoke=now`."
            )
        following = generations.rotated(current, kind, revoke_now, answers, now)
        if answers.client_name not in {client.name for client in following.clients}:  # the answer has changed
            following = generations.with_clients(following, [answers.client_name], answers, now)
        _store(archive, following, project, answers)
        point(local / "pki/current", f"archive/{following.number:04}")
        _link_views(local, answers.client_name)
    old = {client.name: client.credential for client in current.live_clients}
    renewals = [Renewal("server", current.server, following.server)]
    renewals += [
        Renewal(client.name, old[client.name], client.credential)
        for client in following.live_clients
        if client.name in old
    ]
    if kind == "all":
        renewals.insert(0, Renewal("authority", current.authority.credential, following.authority.credential))
    return tuple(renewals)


def add_clients(project: Path, answers: Answers, names: Sequence[str], now: datetime) -> None:
    """Issue to new clients.

    Raises UserError when a name is bad or taken, and as `ensure_material`.
    """
    for name in names:
        fault = client_name_fault(name)
        if fault:
            raise UserError(fault)
    if len({name.casefold() for name in names}) < len(names):
        raise UserError("a name stands there twice: give each client one of its own.")
    with _locked(project):
        current = _settled(project, now)
        # On a Mac or on Windows, names that differ in case alone would share one file.
        taken = {client.name.casefold(): client.name for client in current.live_clients}
        for name in names:
            if name.casefold() in taken:
                raise UserError(
                    f"there is a client {taken[name.casefold()]!r} already: `python scripts/client.py show "
                    f"{taken[name.casefold()]}` prints its profile."
                )
        _require_authority(current, now)
        superseded = [client for client in current.clients if client.name in names]
        for client in superseded:
            copy = (
                make_folder(_in_force(project) / "superseded")
                / f"{client.name}-{client.credential.serial_number:x}.pem"
            )
            copy.unlink(missing_ok=True)
            write(copy, client.pem)
        _apply(project, generations.with_clients(current, names, answers, now), answers)


def revoke_client(project: Path, answers: Answers, name: str, now: datetime) -> None:
    """Revoke a client; one that is revoked already stays so.

    Raises UserError when there is no such client, and as `ensure_material`.
    """
    with _locked(project):
        current = _settled(project, now)
        if name not in {client.name for client in current.clients}:
            raise UserError(f"there is no client {name!r}: `python scripts/client.py list` shows all.")
        if name in {client.name for client in current.live_clients}:
            current = generations.without_client(current, name, now)
        _apply(project, current, answers)


def has_generation(project: Path) -> bool:
    """Whether there is a generation in force, whole or not."""
    return os.path.lexists(local_folder(project) / "pki/current")


def read_generation(project: Path) -> Generation:
    """Read the generation in force.

    Raises UserError when there is none or it is damaged.
    """
    return _load(_in_force(project))


def fingerprint(project: Path) -> str:
    """A short digest of all that is read when the services start: another one means that they must start anew."""
    configs = local_folder(project) / "configs"
    read_at_start = [
        project / "compose.yaml",
        project / "server/server.conf",
        *(configs / name for name in SERVER_FILES),
    ]
    return hashlib.sha256(b"".join(hashlib.sha256(_read(path)).digest() for path in read_at_start)).hexdigest()[:16]


def fingerprint_for_cluster(project: Path, answers: Answers) -> str:
    """The fingerprint in the Helm chart's values, as they follow from the project's files now."""
    values = generations.helm_values(read_generation(project), _readable_parts(project), answers)
    return str(yaml.safe_load(values)["fingerprint"])


SERVER_FILES = ("ca.crt", "server.crt", "server.key", "tls-crypt-v2.key")


@contextmanager
def _locked(project: Path) -> Iterator[Path]:
    """Hold the project's lock; gives its local folder."""
    local = make_folder(local_folder(project))
    close_to_others(local)  # it may have been there before
    try:
        with FileLock(local / ".lock", timeout=LOCK_SECONDS, mode=0o600):
            shutil.rmtree(local / "pki/archive" / STAGING, ignore_errors=True)  # of a run that was cut short
            for folder in (local, local / "pki"):
                for unfinished in folder.glob(f"{BESIDE}*"):
                    unfinished.unlink()
            ignore_in_git(local)
            yield local
    except Timeout:
        raise UserError(f"{local} is in use by another run of these scripts: try again when that has ended.") from None


def _store(archive: Path, generation: Generation, project: Path, answers: Answers) -> None:
    """Write a whole generation to the archive, or nothing."""
    staging, place = archive / STAGING, archive / f"{generation.number:04}"
    if place.exists():  # a run was cut short before it was switched in
        unused = place.with_name(f"unused-{place.name}")
        shutil.rmtree(unused, ignore_errors=True)
        os.rename(place, unused)
    make_folder(staging)
    for folder in FOLDERS:  # also where no client is left
        _make_parents(staging, staging / folder / "file")
    for path, content, mode in generations.files(generation, _readable_parts(project), answers):
        _make_parents(staging, staging / path)
        write(staging / path, content, mode)
    sync()
    os.rename(staging, place)
    sync()


def _apply(project: Path, generation: Generation, answers: Answers) -> bool:
    """Bring the folder of the generation in force up to date with it; return whether a file has changed."""
    folder = _in_force(project)
    for unfinished in folder.rglob(f"{BESIDE}*"):
        unfinished.unlink()
    wanted = {folder / path: (content, mode) for path, content, mode in
              generations.files(generation, _readable_parts(project), answers)}  # fmt: skip
    changes = []
    for path, (content, mode) in wanted.items():
        if not path.exists() or path.read_bytes() != content:
            _make_parents(folder, path)
            changes.append((path, content, mode))
    if changes:
        replace_all(changes)
    for path in (folder / "configs/ccd").iterdir():
        if path not in wanted:
            path.unlink()
    for path in (folder / "profiles").iterdir():
        if path.suffix == ".ovpn" and path not in wanted:
            path.unlink()
        elif path.suffix == ".tblk" and path.with_suffix(".ovpn") not in wanted:
            shutil.rmtree(path)
    _link_views(local_folder(project), answers.client_name)
    return bool(changes)


def _make_parents(top: Path, path: Path) -> None:
    for parent in reversed(path.relative_to(top).parents[:-1]):
        make_folder(top / parent, 0o755 if parent.as_posix() in OPEN_TO_THE_SERVER else 0o700)


def _link_views(local: Path, client_name: str) -> None:
    point(local / "configs", "pki/current/configs")
    point(local / "clients", "pki/current/profiles")
    point(local / "values.yaml", "pki/current/values.yaml")
    for suffix in (".ovpn", ".tblk"):
        if (local / f"clients/{client_name}{suffix}").exists():
            point(local / f"{client_name}{suffix}", f"clients/{client_name}{suffix}")
        else:  # that client is revoked
            (local / f"{client_name}{suffix}").unlink(missing_ok=True)


def _readable_parts(project: Path) -> ReadableParts:
    return ReadableParts(
        client_conf=_read(project / "client/client.conf").decode(),
        server_conf=_read(project / "server/server.conf").decode(),
    )


def _require_authority(generation: Generation, now: datetime) -> None:
    """The authority must still be able to sign. Raises UserError when it has ended."""
    if generation.authority.credential.end <= now:
        raise UserError(
            f"the authority itself has ended, so it can sign nothing: make a new one with `{NEW_AUTHORITY}`."
        )


def _settled(project: Path, now: datetime) -> Generation:
    """The generation in force, with what a run that was cut short or older code left out, as far as it is known."""
    folder = _in_force(project)
    generation = _load(folder)
    if generation.replaced is None:  # made before generations kept it
        with suppress(UserError):
            before = _load(folder.with_name(f"{generation.number - 1:04}"))
            generation = replace(generation, replaced=generations.in_use(before))
    return generations.settled(generation, now)


def _in_force(project: Path) -> Path:
    """The folder of the generation in force. Raises UserError when there is none, or when it is lost.

    An older one never takes its place: that would let in whoever was revoked since.
    """
    local = local_folder(project)
    link = local / "pki/current"
    if not os.path.lexists(link):
        if not _was_ever_made(local) or _first_run_was_cut_short(local):
            raise UserError(f"{project} has no certificates yet: run `python scripts/generate.py` first.")
        raise UserError(f"{link} is missing, the link to the generation in force: {RESTORE_ALL}")
    target = os.readlink(link) if link.is_symlink() else ""
    if not GENERATION_IN_FORCE.fullmatch(target.replace("\\", "/")):
        raise UserError(f"{link} is not the link to a generation that it was: {RESTORE_ALL}")
    if not link.is_dir():
        raise UserError(f"{link.parent / target} is missing, and it is in force: {RESTORE_ALL}")
    return link.resolve()


def _was_ever_made(local: Path) -> bool:
    """Whether there ever was a generation, even if nothing but its traces is left."""
    return os.path.lexists(local / "pki/current") or any(
        TRACE_OF_A_GENERATION.fullmatch(path.name) for path in (local / "pki/archive").glob("*")
    )


def _first_run_was_cut_short(local: Path) -> bool:
    """Whether the very first generation was stored and never switched in: nothing pointed anywhere yet."""
    traces = [path.name for path in (local / "pki/archive").glob("*") if TRACE_OF_A_GENERATION.fullmatch(path.name)]
    return traces == ["0001"] and not any(os.path.lexists(local / name) for name in ("pki/current", "configs"))


def _load(folder: Path) -> Generation:
    """Read a generation. Raises UserError when it is damaged."""
    try:
        for entry in (folder / "configs/ccd").glob("*"):
            if not entry.name.startswith(BESIDE) and not (folder / "clients" / f"{entry.name}.pem").exists():
                raise UserError(f"{folder}/clients/{entry.name}.pem is missing: restore it from your backup.")
        crl, server_crl = _read(folder / "crl.pem"), _read(folder / "configs/crl.pem")
        revoked = dict(generations.parse_lists(crl))
        authorities = [
            Authority(credential, revoked[credential.certificate.subject])
            for credential in (
                pki.load_credential(_read(folder / f"{name}.crt"), _read(folder / f"{name}.key"))
                for name in ("authority", "previous-authority")
                if name == "authority" or (folder / f"{name}.crt").exists()
            )
        ]
        return Generation(
            number=int(folder.name),
            authority=authorities[0],
            previous_authority=authorities[1] if authorities[1:] else None,
            server=pki.load_credential(_read(folder / "configs/server.crt"), _read(folder / "configs/server.key")),
            tls_crypt_v2=_read(folder / "configs/tls-crypt-v2.key"),
            clients=tuple(
                _load_client(path) for path in sorted((folder / "clients").glob("*.pem"))
                if not path.name.startswith(BESIDE)
            ),
            crl=crl,
            server_crl=server_crl,
            replaced=_load_replaced(folder),
        )  # fmt: skip
    except (ValueError, KeyError) as error:
        raise UserError(f"{folder} is damaged ({error}): restore it from your backup.") from error


def _load_replaced(folder: Path) -> Mapping[str, int] | None:
    path = folder / "replaced.txt"
    if not path.exists():
        return None if int(folder.name) > 1 else {}  # nothing was before the first
    try:
        return generations.parse_replaced(_read(path))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): restore it from your backup.") from error


def _load_client(path: Path) -> Client:
    try:
        return generations.parse_client(path.stem, _read(path))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): restore it from your backup.") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        source = "your backup" if "local" in path.parts else "git"
        raise UserError(f"{path} is missing: restore it from {source}.") from None
