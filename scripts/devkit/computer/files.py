"""Settings that are files. Nothing is recorded but in them: their first line says that they are ours. Pure.

It also says whether their folder is, which then goes with them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from devkit.computer.model import Command, Computer, Setting, State, Step
from devkit.errors import UserError

OURS = "# d4m-devkit: `host.py install` made this file"
OURS_WITH_FOLDER = f"{OURS} and its folder"
HEADER_ENDS = "; `host.py remove` takes it away.\n"


@dataclass(frozen=True)
class Places:
    """What is particular to a system that reads files."""

    folders: Sequence[str]
    is_ours: Callable[[str], bool]  # whether a file of this path may be ours
    load: Callable[[Computer], tuple[Command, ...]]  # lets the system see what has come or gone
    unload: tuple[Command, ...] = ()  # comes before they go


def install_files(computer: Computer, title: str, places: Places, wanted: Mapping[str, str]) -> Step:
    """Write what is not right, remove what is ours and no longer wanted, and touch nothing else.

    `wanted` says what is to be in which file, below its first line. Raises UserError when there is a file of that name
    that is not ours.
    """
    for path in wanted:
        if path in computer.files and not computer.files[path].startswith(OURS):
            raise UserError(f"{path} is there already, and is not ours: move it away, then run this again.")
    left_over = [path for path in _ours(computer, places) if path not in wanted]
    settings = [
        *(Setting(path, _state(computer, path, body)) for path, body in wanted.items()),
        *(Setting(path, "stale") for path in left_over),
    ]
    changed = [setting.what for setting in settings if setting.state != "right" and setting.what in wanted]
    new_folders = tuple(folder for folder in _folders(changed) if folder not in computer.folders)
    texts = {path: _first_line(computer, places, path, new_folders) + wanted[path] for path in changed}
    load = places.load(computer)
    commands = (
        *(places.unload if left_over else ()),
        *([Command(("rm", *left_over))] if left_over else []),
        *([Command(("mkdir", "-p", *new_folders))] if new_folders else []),
        *(Command(("tee", *(path for path in texts if texts[path] == text)), text)
          for text in dict.fromkeys(texts.values())),
    )  # fmt: skip
    kept = {path: text for path, text in computer.files.items() if path not in left_over}
    after = replace(computer, files=kept | texts, folders=computer.folders | {*new_folders})
    undo = remove_files(after, title, places).commands
    return Step(title, tuple(settings), commands + load if commands else (), load, undo)


def remove_files(computer: Computer, title: str, places: Places) -> Step:
    """Remove what is ours, and its folders where they were, too, and are empty then."""
    ours = _ours(computer, places)
    if not ours:
        return Step(title, (), ())
    others = _folders([path for path in computer.files if path not in ours])
    folders = _folders([path for path in ours if computer.files[path].startswith(OURS_WITH_FOLDER)])
    commands = (
        *places.unload,
        Command(("rm", *ours)),
        *(Command(("rmdir", folder)) for folder in folders if folder not in others),
        *places.load(replace(computer, tunnel=None)),
    )
    return Step(title, tuple(Setting(path, "stale") for path in ours), commands)


def _ours(computer: Computer, places: Places) -> list[str]:
    return [path for path, text in computer.files.items() if places.is_ours(path) and text.startswith(OURS)]


def _state(computer: Computer, path: str, body: str) -> State:
    if path not in computer.files:
        return "missing"
    _, _, found = computer.files[path].partition("\n")
    return "right" if found == body else "stale"


def _first_line(computer: Computer, places: Places, path: str, new_folders: Sequence[str]) -> str:
    """Whether the folder is ours is what the files in it, which may be replaced, say so far."""
    folder = _folder(path)
    beside = [computer.files[other] for other in _ours(computer, places) if _folder(other) == folder]
    with_folder = folder in new_folders or any(text.startswith(OURS_WITH_FOLDER) for text in beside)
    return (OURS_WITH_FOLDER if with_folder else OURS) + HEADER_ENDS


def _folders(paths: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(_folder(path) for path in paths))


def _folder(path: str) -> str:
    return str(PurePosixPath(path).parent)
