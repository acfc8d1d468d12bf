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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import yaml
from cryptography import x509
from cryptography.x509 import Certificate, CertificateRevocationList
from filelock import FileLock, Timeout

from devkit import generation as generations
from devkit import pki, tls_crypt
from devkit.answers import (
    CHANGE_ANSWER,
    CLIENT_NAME,
    NEW_AUTHORITY,
    THIS_COMPUTER,
    Answers,
    client_name_fault,
    host_record,
)
from devkit.errors import UserError
from devkit.files import (
    BESIDE,
    PRIVATE,
    close_to_others,
    has_mode,
    ignore_in_git,
    make_folder,
    point,
    points,
    replace_all,
    sync,
    write,
)
from devkit.generation import Authority, Client, Generation, ReadableParts, RotationKind
from devkit.pki import Credential

Parsed = TypeVar("Parsed")

LOCK_SECONDS = 30
STAGING = ".staging"
OPEN_TO_THE_SERVER = ("configs", "configs/ccd")
VIEWS = {"configs": "pki/current/configs", "clients": "pki/current/profiles", "values.yaml": "pki/current/values.yaml"}
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
    with locked(project) as local:
        archive = make_folder(make_folder(local / "pki") / "archive")
        made = not _was_ever_made(local)
        if made:
            _store(archive, generations.first_generation(answers, now), project, answers)
        if made or _first_run_was_cut_short(local):
            point(local / "pki/current", "archive/0001")
        generation = _settled(project, now)
        if _is_new(generation, answers):
            _require_authority(generation, now)
            generation = generations.with_clients(generation, [answers.client_name], answers, now)
        changed = _apply(project, generation, answers)
    return "made" if made else "changed" if changed else "unchanged"


def record_host(project: Path, answers: Answers) -> bool:
    """Keep the host that Docker's context named, or forget it when another is answered.

    Returns whether it is new and not this computer, so that profiles change. Raises as `ensure_material`.
    """
    record = host_record(project)
    if answers.vpn_host_from == "context":
        with locked(project) as local:
            make_folder(local / "pki")
            replace_all([(record, f"{answers.vpn_host}\n".encode(), PRIVATE)])
        return answers.vpn_host != THIS_COMPUTER
    if answers.vpn_host_from == "answer" and record.exists():
        record.unlink()
    return False


def rotate(project: Path, answers: Answers, kind: RotationKind, revoke_now: bool, now: datetime) -> tuple[Renewal, ...]:
    """Make the next generation and switch to it; see `generation.rotated` for what it holds.

    Returns what became of each certificate. Raises as `ensure_material`.
    """
    with locked(project) as local:
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
        if _is_new(following, answers):
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
    with locked(project):
        current = _settled(project, now)
        live = {client.name.casefold(): client.name for client in current.live_clients}
        for name in names:
            if name.casefold() in live:
                holder = live[name.casefold()]
                raise UserError(
                    f"there is a client {holder!r} already: "
                    f"`python scripts/client.py show {holder}` prints its profile."
                )
            revoked = current.client(name)
            if revoked and revoked.name != name:
                raise UserError(
                    f"{name!r} is the name of the revoked client {revoked.name!r} but for its case: issue that anew "
                    f"with `python scripts/client.py add {revoked.name}`, or choose another name."
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


def revoke_client(project: Path, answers: Answers, name: str, now: datetime) -> str:
    """Revoke a client; one that is revoked already stays so. Returns its name as it is spelled in its certificate.

    Raises UserError when there is no such client, and as `ensure_material`.
    """
    with locked(project):
        current = _settled(project, now)
        client = find_client(current, name)
        if client in current.live_clients:
            current = generations.without_client(current, client.name, now)
        _apply(project, current, answers)
    return client.name


def find_client(generation: Generation, name: str) -> Client:
    """The client of a name. Raises UserError when there is none."""
    client = generation.client(name)
    if client is None:
        raise UserError(f"there is no client {name!r}: `python scripts/client.py list` shows all.")
    return client


def has_generation(project: Path) -> bool:
    """Whether there is a generation in force, whole or not."""
    return os.path.lexists(local_folder(project) / "pki/current")


def read_generation(project: Path) -> Generation:
    """Read the generation in force.

    Raises UserError when there is none or it is damaged.
    """
    return _load(_in_force(project))


def read_profile(project: Path, answers: Answers, name: str) -> str:
    """A live client's profile, as it is on the disk.

    Raises UserError when it is not what it should be, and as `read_generation`.
    """
    profile = _in_force(project) / "profiles" / f"{name}.ovpn"
    for path, fault in _faults(project, answers):
        if path == profile:
            raise UserError(fault)
    return profile.read_text(encoding="utf-8")


def faults(project: Path, answers: Answers) -> Iterator[str]:
    """A sentence for each file that follows from others and is not what it should be.

    Raises UserError as `read_generation`.
    """
    return (fault for _, fault in _faults(project, answers))


def _faults(project: Path, answers: Answers) -> Iterator[tuple[Path, str]]:
    local, folder = local_folder(project), _in_force(project)
    modes = has_mode(local, 0o700)  # or else the file system has none
    generation = _load(folder)
    if not generation.server_crl:
        path = folder / "configs/crl.pem"
        yield path, f"{path} is missing or damaged: `python scripts/generate.py` writes it anew."
        return
    for name, content, mode in generations.files(generation, _readable_parts(project), answers):
        path = folder / name
        if _content(path) != content:
            yield path, f"{path} is not what it should be: `python scripts/generate.py` writes it anew."
        elif modes and not has_mode(path, mode):
            yield path, f"{path} should have the mode {mode:04o}: `python scripts/generate.py` gives it that."
    for view, target in VIEWS.items():
        if not points(local / view, target):
            yield local / view, f"{local / view} is not the link that it was: `python scripts/generate.py` mends it."


def fingerprint(project: Path) -> str:
    """A short digest of all that is read when the services start: another one means that they must start anew."""
    configs = _in_force(project) / "configs"
    read_at_start = [
        *(_read(project / name, "git") for name in ("compose.yaml", "server/server.conf")),
        *(_read(configs / name, "your backup") for name in SERVER_FILES),
    ]
    return hashlib.sha256(b"".join(hashlib.sha256(data).digest() for data in read_at_start)).hexdigest()[:16]


def delivered_mark(project: Path) -> Path:
    """A file that is there while the engine has its own copy of what the services read."""
    return local_folder(project) / ".delivered"


def server_serial_numbers(project: Path) -> Sequence[str]:
    """Those of the certificates that this project's server has had, in hexadecimal; the one in force is the last."""
    local = local_folder(project)
    found = []
    for folder in (*sorted((local / "pki/archive").glob("[0-9]*")), local):
        with suppress(OSError, ValueError):  # one that is gone or damaged names nobody's server
            certificate = x509.load_pem_x509_certificate((folder / "configs/server.crt").read_bytes())
            found.append(f"{certificate.serial_number:x}")
    return found


def fingerprint_for_cluster(project: Path, answers: Answers) -> str:
    """The fingerprint in the Helm chart's values, as they follow from the project's files now."""
    values = generations.helm_values(read_generation(project), _readable_parts(project), answers)
    return str(yaml.safe_load(values)["fingerprint"])


SERVER_FILES = ("ca.crt", "server.crt", "server.key", "tls-crypt-v2.key")


@contextmanager
def locked(project: Path) -> Iterator[Path]:
    """Hold the project's lock; gives its local folder."""
    local = make_folder(local_folder(project))
    close_to_others(local)  # it may have been there before
    if (local / ".lock").is_dir():
        raise UserError(f"{local}/.lock is a folder, where a file was: move it away and run this again.")
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
    """Bring the folder of the generation in force up to date with it; return whether a profile has changed."""
    folder = _in_force(project)
    for unfinished in folder.rglob(f"{BESIDE}*"):
        unfinished.unlink()
    for name in FOLDERS:
        _make_parents(folder, folder / name / "file")
    wanted = [(folder / path, content, mode) for path, content, mode in
              generations.files(generation, _readable_parts(project), answers)]  # fmt: skip
    changes = [(path, content, mode) for path, content, mode in wanted if _content(path) != content]
    live = {client.name.casefold() for client in generation.live_clients}  # whose files may be the same on a Mac
    refused = [client.name for client in generation.clients if client.name.casefold() not in live]
    in_vain = [path for name in refused for path in (folder / "configs/ccd" / name, folder / f"profiles/{name}.ovpn")
               if _content(path) is not None]  # fmt: skip
    for path, _, _ in changes:
        _make_parents(folder, path)
    if changes:
        replace_all(changes)
    for path, _, mode in wanted:
        if not has_mode(path, mode):
            path.chmod(mode)
    for path in in_vain:
        path.unlink()
    for name in refused:
        bundle = folder / f"profiles/{name}.tblk"
        if bundle.is_dir():
            shutil.rmtree(bundle)
    _link_views(local_folder(project), answers.client_name)
    return any(path.is_relative_to(folder / "profiles") for path, _, _ in changes)


def _content(path: Path) -> bytes | None:
    """What is in a file that can be written anew, if it is there. Raises UserError when something has its place."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): move it away, then run `python scripts/generate.py`."
        ) from error


def _make_parents(top: Path, path: Path) -> None:
    for parent in reversed(path.relative_to(top).parents[:-1]):
        make_folder(top / parent, 0o755 if parent.as_posix() in OPEN_TO_THE_SERVER else 0o700)


def _link_views(local: Path, client_name: str) -> None:
    for link, target in VIEWS.items():
        point(local / link, target)
    for suffix in (".ovpn", ".tblk"):
        view = local / f"{client_name}{suffix}"
        if (local / f"clients/{client_name}{suffix}").exists():
            point(view, f"clients/{client_name}{suffix}")
        elif view.is_symlink():  # that client is revoked
            view.unlink()


def _readable_parts(project: Path) -> ReadableParts:
    texts = []
    for path in (project / "client/client.conf", project / "server/server.conf"):
        try:
            texts.append(_read(path, "git").decode())
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not UTF-8: restore it from git.") from error
    return ReadableParts(client_conf=texts[0], server_conf=texts[1])


def _is_new(generation: Generation, answers: Answers) -> bool:
    """Whether the answer `client_name` has become a client's that there is not yet.

    Raises UserError when it is another's but for its case.
    """
    client = generation.client(answers.client_name)
    if client and client.name != answers.client_name:
        raise UserError(
            f"the answer client_name {answers.client_name!r} is the name of the client {client.name!r} but for its "
            f"case: take another with `{CHANGE_ANSWER} client_name={client.name}`."
        )
    return client is None


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
    """Read a generation. Raises UserError that names the file when one is missing or damaged.

    What follows from the others may be: the server's list comes back empty then, and the rest is not looked at.
    """
    configs = folder / "configs"
    for entry in (configs / "ccd").glob("*"):
        # Ours are empty; what the system leaves anywhere, such as Thumbs.db, is not.
        ours = CLIENT_NAME.fullmatch(entry.name) and entry.is_file() and not entry.stat().st_size
        if ours and not (folder / "clients" / f"{entry.name}.pem").exists():
            raise UserError(f"{folder}/clients/{entry.name}.pem is missing: restore it from your backup.")
    credentials = [_load_credential(folder / "authority", ())]
    overlap = _read(folder / "crl.pem", "your backup").count(generations.END_OF_LIST) > 1
    if overlap or any(os.path.lexists(folder / f"previous-authority.{suffix}") for suffix in ("crt", "key")):
        credentials.append(_load_credential(folder / "previous-authority", ()))
    certificates = [credential.certificate for credential in credentials]
    parse_lists = partial(generations.parse_lists, authorities=certificates)
    lists = _parse(folder / "crl.pem", parse_lists)
    authorities = [Authority(each, tuple(revoked)) for each, revoked in zip(credentials, lists, strict=True)]
    server_lists: Sequence[CertificateRevocationList] = ()
    with suppress(UserError):
        server_lists = _parse(configs / "crl.pem", parse_lists)
    generation = Generation(
        number=int(folder.name),
        authority=authorities[0],
        previous_authority=authorities[1] if authorities[1:] else None,
        server=_load_credential(configs / "server", certificates),
        tls_crypt_v2=_parse(configs / "tls-crypt-v2.key", tls_crypt.parse_server_key),
        clients=tuple(
            _parse(path, partial(generations.parse_client, path.stem, authorities=authorities))
            for path in sorted((folder / "clients").glob("*.pem"))
            if CLIENT_NAME.fullmatch(path.stem)
        ),
        crl=generations.lists_pem(lists),
        server_crl=generations.lists_pem(server_lists),
        replaced=_load_replaced(folder),
    )
    _check_tls_crypt_keys(folder, generation)
    return generation


def _load_credential(path: Path, issuers: Sequence[Certificate]) -> Credential:
    certificate = _parse(path.with_name(f"{path.name}.crt"), lambda pem: pki.load_certificate(pem, issuers))
    return _parse(path.with_name(f"{path.name}.key"), lambda pem: pki.load_credential(certificate, pem))


def _load_replaced(folder: Path) -> Mapping[str, int] | None:
    path = folder / "replaced.txt"
    if not os.path.lexists(path):
        return None if int(folder.name) > 1 else {}  # nothing was before the first
    return _parse(path, generations.parse_replaced)


def _check_tls_crypt_keys(folder: Path, generation: Generation) -> None:
    """The server must know each live client's key. Raises UserError that names the file that is damaged."""
    live = generation.live_clients
    unknown = [each for each in live if not tls_crypt.is_wrapped_by(each.tls_crypt_v2, generation.tls_crypt_v2)]
    if unknown:
        damaged = [] if len(unknown) < len(live) else [folder / "configs/tls-crypt-v2.key"]
        damaged += [] if len(unknown) > 1 and damaged else [folder / "clients" / f"{unknown[0].name}.pem"]
        raise UserError(f"{' or '.join(map(str, damaged))} is damaged: restore it from your backup.")


def _parse(path: Path, parse: Callable[[bytes], Parsed]) -> Parsed:
    """Read a file that nothing else could stand in for. Raises UserError that names it when that fails."""
    data = _read(path, "your backup")
    try:
        return parse(data)
    except ValueError as error:
        raise UserError(f"{path} is damaged: restore it from your backup.") from error


def _read(path: Path, source: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing: restore it from {source}.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): mend that, or restore it from {source}.") from error
