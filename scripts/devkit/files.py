"""Files and folders that are private from the start, and changes that happen as a whole or not at all."""

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from devkit.errors import UserError

PRIVATE = 0o600
READABLE = 0o644
FOR_OTHERS = 0o077
EVERYTHING = b"*"  # as a line of a .gitignore
BESIDE = ".new-"


class File(NamedTuple):
    """A file that is to exist, below some folder."""

    path: PurePosixPath
    content: bytes
    mode: int = PRIVATE

    def below(self, folder: PurePosixPath) -> "File":
        """The same file, moved below a folder."""
        return self._replace(path=folder / self.path)


def make_folder(path: Path, mode: int = 0o700) -> Path:
    """Make a folder, and see that it has exactly this mode.

    Raises UserError when something else is in its place.
    """
    with suppress(FileExistsError):
        path.mkdir(mode=mode)
    if not path.is_dir():
        raise UserError(f"{path} is not a folder, but should be one: move it away and run this again.")
    if not has_mode(path, mode):
        path.chmod(mode)
    return path


def close_to_others(folder: Path) -> None:
    """Close a folder to everybody but its owner, whoever made it."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & FOR_OTHERS:
        folder.chmod(mode & ~FOR_OTHERS)


def ignore_in_git(folder: Path) -> None:
    """Let a folder ignore itself in git, whatever the files above it say; what its own `.gitignore` says stays."""
    path = folder / ".gitignore"
    lines = path.read_bytes().splitlines() if path.exists() else []
    if lines[-1:] != [EVERYTHING]:  # git goes by the last line that matches
        replace_all([(path, b"".join(line + b"\n" for line in [*lines, EVERYTHING]), PRIVATE)])


def has_mode(path: Path, mode: int) -> bool:
    """Whether a file or folder has exactly this mode; on Windows, which has no such modes, always."""
    return os.name == "nt" or stat.S_IMODE(path.stat().st_mode) == mode


def write(path: Path, data: bytes, mode: int = PRIVATE) -> None:
    """Write a new file; `sync` brings it to disk.

    Raises FileExistsError when there is one already, and OSError that names the file.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        os.chmod(path, mode)
        remaining = memoryview(data)
        while remaining:
            remaining = remaining[os.write(descriptor, remaining) :]
    except OSError as error:
        error.filename = str(path)  # a write knows only the descriptor
        raise
    finally:
        os.close(descriptor)


def replace_all(changes: Sequence[tuple[Path, bytes, int]]) -> None:
    """Give files new content: all of it is on disk, beside the files, before the first file is replaced by a rename."""
    besides = [path.with_name(f"{BESIDE}{path.name}") for path, _, _ in changes]
    for beside, (_, data, mode) in zip(besides, changes, strict=True):
        beside.unlink(missing_ok=True)
        write(beside, data, mode)
    sync()
    for beside, (path, _, _) in zip(besides, changes, strict=True):
        os.replace(beside, path)
    sync()


def points(link: Path, target: str) -> bool:
    """Whether `link` is a symbolic link to `target`."""
    return link.is_symlink() and os.readlink(link) == target


def point(link: Path, target: str) -> None:
    """Make `link` a symbolic link to `target`, in one rename, wherever it led before.

    Raises UserError where the system does not let this user make links, and when something else is in its place.
    """
    if points(link, target):
        return
    if os.path.lexists(link) and not link.is_symlink():
        raise UserError(f"{link} is no longer the link that it was: move it away and run this again.")
    beside = link.with_name(f"{BESIDE}{link.name}")
    beside.unlink(missing_ok=True)
    try:
        beside.symlink_to(target)
    except OSError as error:
        if getattr(error, "winerror", None) == 1314:  # ERROR_PRIVILEGE_NOT_HELD
            raise UserError(
                "Windows does not let you make symbolic links: turn on Developer Mode in its settings, or work in WSL."
            ) from error
        raise
    os.replace(beside, link)
    sync()


def sync() -> None:
    """Bring all that was written and renamed to disk: one call, however many files."""
    if hasattr(os, "sync"):  # Windows has none
        os.sync()
