"""The project's secrets on disk: each generation made whole, and switched in by one rename.

    local/pki/archive/0001/     one generation; it is never moved, so a container that mounts it keeps what it has
    local/pki/archive/unused-*  one that was cut short before it came into force
    local/pki/current           a link to the generation in force: switching it is one rename
    local/configs, local/clients, local/values.yaml, local/docker-for-mac.ovpn, ...: links through `current`

`clients/` and `crl.pem` say who may connect; what lets them in, the server's CRL and the profiles follow from them. A
run that is cut short leaves what follows behind, and the next run brings it up to date.
"""

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from devkit import layout
from devkit.errors import UserError
from devkit.files import (
    BESIDE,
    PRIVATE,
    File,
    close_to_others,
    has_mode,
    ignore_in_git,
    make_folder,
    point,
    replace_all,
    sync,
    write,
)
from devkit.layout import Layout

LOCK_SECONDS = 30
GENERATION_IN_FORCE = re.compile(r"archive/[0-9]{4,}")
TRACE_OF_A_GENERATION = re.compile(r"(unused-)?[0-9]{4,}")
RESTORE_ALL = (
    "restore local/pki from your backup, or move it away if there is none: then `./scripts/generate.py` starts "
    "anew, and every client needs a new profile."
)
RESTORE_OR_NEW = (
    "restore local/pki from your backup, or let `./scripts/generate.py` make new ones: then no profile that was made "
    "before connects any more, and every client needs a new one."
)

Folders = Mapping[PurePosixPath, int]


@contextmanager
def locked(project: Layout) -> Iterator[None]:
    """Hold the project's lock."""
    make_folder(project.local)
    close_to_others(project.local)  # it may have been there before
    if project.lock.is_dir():
        raise UserError(f"{project.lock} is a folder, but should be a file: move it away and run this again.")
    try:
        with FileLock(project.lock, timeout=LOCK_SECONDS, mode=0o600):
            shutil.rmtree(project.staging, ignore_errors=True)  # of a run that was cut short
            for folder in (project.local, project.current.parent):
                for unfinished in folder.glob(f"{BESIDE}*"):
                    unfinished.unlink()
            ignore_in_git(project.local)
            yield
    except Timeout:
        raise UserError(
            f"{project.local} is in use by another run of these scripts: try again when that has ended."
        ) from None


def make_archive(project: Layout) -> None:
    """See that the folders of the generations are there, and closed to others."""
    make_folder(project.archive.parent)
    make_folder(project.archive)


def save(project: Layout, number: int, files: Iterable[File], folders: Folders) -> None:
    """Write a whole generation to the archive, or nothing."""
    staging, place = project.staging, project.generation(number)
    if place.exists():  # a run was cut short before it was switched in
        unused = place.with_name(f"unused-{place.name}")
        shutil.rmtree(unused, ignore_errors=True)
        os.rename(place, unused)
    make_folder(staging)
    _make_folders(staging, folders)
    for path, content, mode in files:
        _make_parents(staging, path, folders)
        write(staging / path, content, mode)
    sync()
    os.rename(staging, place)
    sync()


def switch_to(project: Layout, number: int) -> None:
    """Bring a generation of the archive into force."""
    place = project.generation(number)
    point(project.current, place.relative_to(project.current.parent).as_posix())


def update(
    project: Layout,
    files: Sequence[File],
    folders: Folders,
    unwanted_files: Iterable[PurePosixPath],
    unwanted_folders: Iterable[PurePosixPath],
) -> bool:
    """Bring the folder of the generation in force up to date; return whether a profile has changed."""
    folder = in_force(project)
    for unfinished in folder.rglob(f"{BESIDE}*"):
        unfinished.unlink()
    _make_folders(folder, folders)
    changes = [file for file in files if content(folder / file.path) != file.content]
    left = [folder / path for path in unwanted_files if content(folder / path) is not None]
    for change in changes:
        _make_parents(folder, change.path, folders)
    if changes:
        replace_all([(folder / path, data, mode) for path, data, mode in changes])
    for path, _, mode in files:
        if not has_mode(folder / path, mode):
            (folder / path).chmod(mode)
    for unwanted in left:
        unwanted.unlink()
    for bundle in (folder / path for path in unwanted_folders):
        if bundle.is_dir():
            shutil.rmtree(bundle)
    return any(change.path.is_relative_to(layout.PROFILES) for change in changes)


def keep_superseded(project: Layout, name: str, pem: bytes) -> None:
    """Keep a copy of what a client had, before it gets a new certificate."""
    copy = make_folder(in_force(project) / layout.SUPERSEDED) / name
    copy.unlink(missing_ok=True)
    write(copy, pem)


def record_host(project: Layout, host: str) -> None:
    """Keep where the server is."""
    make_folder(project.host_record.parent)
    replace_all([(project.host_record, f"{host}\n".encode(), PRIVATE)])


def link_views(project: Layout, first_client: str, suffixes: Iterable[str]) -> None:
    """Make the links through `current`, including those to what the first client's apps open."""
    for link, target in project.views.items():
        point(link, target)
    for suffix in suffixes:
        view, profile = project.local / f"{first_client}{suffix}", project.clients / f"{first_client}{suffix}"
        if profile.exists():
            point(view, profile.relative_to(project.local).as_posix())
        elif view.is_symlink():  # that client is revoked
            view.unlink()


def in_force(project: Layout) -> Path:
    """The folder of the generation in force. Raises UserError when there is none, or when it is lost.

    An older one never takes its place: that would let in whoever was revoked since.
    """
    link = project.current
    if not os.path.lexists(link):
        if first_run_was_cut_short(project):
            raise UserError(f"{project.project} has no certificates yet: run `./scripts/generate.py` first.")
        if not was_ever_made(project):
            raise UserError(
                f"{project.project} has no certificates, as after a clone or when local/ was deleted: {RESTORE_OR_NEW}"
            )
        raise UserError(f"{link} is missing (the link to the generation in force): {RESTORE_ALL}")
    target = os.readlink(link) if link.is_symlink() else ""
    if not GENERATION_IN_FORCE.fullmatch(target.replace("\\", "/")):
        raise UserError(f"{link} is no longer a link to a generation: {RESTORE_ALL}")
    if not link.is_dir():
        raise UserError(f"{link.parent / target} is missing (the generation in force): {RESTORE_ALL}")
    return link.resolve()


def was_ever_made(project: Layout) -> bool:
    """Whether there ever was a generation, even if nothing but its traces is left."""
    return os.path.lexists(project.current) or bool(_traces(project))


def first_run_was_cut_short(project: Layout) -> bool:
    """Whether the very first generation was stored and never switched in: nothing pointed anywhere yet."""
    linked = any(os.path.lexists(link) for link in (project.current, project.configs))
    return _traces(project) == [project.generation(1).name] and not linked


def content(path: Path) -> bytes | None:
    """What is in a file that can be written anew, None if it is missing. Raises UserError when it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): move it away, then run `./scripts/generate.py`."
        ) from error


def _traces(project: Layout) -> list[str]:
    return [path.name for path in project.archive.glob("*") if TRACE_OF_A_GENERATION.fullmatch(path.name)]


def _make_folders(top: Path, folders: Folders) -> None:
    for folder in folders:  # also where no client is left
        _make_parents(top, folder / "file", folders)


def _make_parents(top: Path, path: PurePosixPath, folders: Folders) -> None:
    for parent in reversed(path.parents[:-1]):
        make_folder(top / parent, folders.get(parent, 0o700))
