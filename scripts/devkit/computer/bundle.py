"""The CAs that a Linux trusts as a whole: a file in a folder, and what makes the system's bundle of it."""

import re
from dataclasses import dataclass, replace

from devkit.computer.files import Places, install_files, remove_files
from devkit.computer.model import Command, Computer, Root, Setting, Step

NAME = "d4m-devkit.crt"
# In a bundle that is made of our file: its first line, or what Fedora puts above each CA.
MENTION = re.compile(r"^# d4m-devkit\b", re.MULTILINE)


@dataclass(frozen=True)
class Kind:
    """How a family of distributions does it."""

    folder: str  # what is to be added
    update: str  # the command that does
    bundle: str  # what it makes, and programs read
    forget: Command  # takes out of it what is no longer there

    @property
    def file(self) -> str:
        """Our file."""
        return f"{self.folder}/{NAME}"


# Of what is merely gone, Debian's leaves links behind, and all of it in Java's CAs; not of what is deselected.
DESELECT = (
    f'conf=$(mktemp) && {{ cat /etc/ca-certificates.conf; echo "!{NAME}"; }} > "$conf" && '
    'update-ca-certificates --certsconf "$conf"; code=$?; rm -f "$conf"; exit $code'
)
DEBIAN = Kind(
    "/usr/local/share/ca-certificates", "update-ca-certificates", "/etc/ssl/certs/ca-certificates.crt",
    Command(("sh", "-c", DESELECT)),
)  # fmt: skip
FEDORA = Kind(
    "/etc/pki/ca-trust/source/anchors", "update-ca-trust", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    Command(("update-ca-trust",)),
)  # fmt: skip
KINDS = {kind.folder: kind for kind in (DEBIAN, FEDORA)}


def install(computer: Computer, kind: Kind, title: str, root: Root) -> Step:
    """Add the root, and before that take another one of ours out. Raises UserError when a file there is not ours."""
    update = (Command((kind.update,)),)
    places = Places((kind.folder,), lambda path: path == kind.file, load=lambda _: update)
    step = install_files(computer, title, places, {kind.file: root.pem})
    in_bundle = _body(root.pem) in computer.files.get(kind.bundle, "")
    made = Setting(kind.bundle, "right" if in_bundle and not step.commands else "missing")
    replaced = remove(computer, kind, title).commands if step.settings[0].state == "stale" else ()
    commands = step.commands or (() if in_bundle else update)
    undo = (*step.undo[:-1], kind.forget)
    return replace(step, settings=(*step.settings, made), commands=(*replaced, *commands), undo=undo)


def remove(computer: Computer, kind: Kind, title: str) -> Step:
    """Take our file away, and what was made of it."""
    places = Places((kind.folder,), lambda path: path == kind.file, load=lambda _: (kind.forget,))
    step = remove_files(computer, title, places)
    if step.commands or kind.file in computer.files or not MENTION.search(computer.files.get(kind.bundle, "")):
        return step
    return Step(title, (Setting(kind.bundle, "stale"),), (kind.forget,))


def _body(pem: str) -> str:
    """A certificate without the lines around it, which stay the same in every bundle."""
    return "\n".join(pem.strip().splitlines()[1:-1])
