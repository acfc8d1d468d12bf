"""Files and folders that are private at birth, and changes that are whole or not there at all."""

import os
from contextlib import suppress
from pathlib import Path

from devkit.errors import UserError

PRIVATE = 0o600
READABLE = 0o644


def make_folder(path: Path, mode: int = 0o700) -> Path:
    """Make a folder with exactly this mode, if it is not there."""
    with suppress(FileExistsError):
        path.mkdir(mode=mode)
        path.chmod(mode)
    return path


def write(path: Path, data: bytes, mode: int = PRIVATE) -> None:
    """Write a new file to the disk.

    Raises FileExistsError when there is one already.
    """
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        os.chmod(path, mode)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace(path: Path, data: bytes, mode: int = PRIVATE) -> None:
    """Write a file beside its place and rename it over what is there."""
    beside = path.with_name(f".new-{path.name}")
    beside.unlink(missing_ok=True)
    write(beside, data, mode)
    os.replace(beside, path)
    sync_folder(path.parent)


def point(link: Path, target: str) -> None:
    """Make `link` a symbolic link to `target`, in one rename, whatever link it was before.

    Raises UserError where the system lets this user make no links.
    """
    if link.is_symlink() and os.readlink(link) == target:
        return
    beside = link.with_name(f".new-{link.name}")
    beside.unlink(missing_ok=True)
    try:
        beside.symlink_to(target)
    except OSError as error:
        if getattr(error, "winerror", None) == 1314:  # ERROR_PRIVILEGE_NOT_HELD
            raise UserError(
                "Windows lets you make no symbolic links: turn on Developer Mode in its settings, or work in WSL."
            ) from error
        raise
    os.replace(beside, link)
    sync_folder(link.parent)


def sync_tree(folder: Path) -> None:
    """Bring every folder of a tree to the disk; `write` has done so for the files."""
    for parent, _, _ in os.walk(folder, topdown=False):
        sync_folder(Path(parent))


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries to the disk."""
    if os.name == "nt":  # there, a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
