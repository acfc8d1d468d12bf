"""What a bug report needs, as one file, without a secret in it."""

import json
import os
import platform
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from devkit.checks import Check
from devkit.layout import Layout
from devkit.report import document

PEM = re.compile(r"-----BEGIN [^-]+-----.*?(-----END [^-]+-----|\Z)", re.DOTALL)
READABLE = ("compose.yaml", "server/server.conf", "client/client.conf")  # what git tracks, and users edit


def write(path: Path, project: Path | None, found: Sequence[Check], logs: Mapping[str, str]) -> None:
    """Write it, for its owner alone."""
    files = {
        "doctor.json": json.dumps(document.of_diagnosis(None, found), indent=2),
        "system.txt": f"{platform.platform()}\nPython {platform.python_version()}\n",
        **{f"logs/{name}.txt": text for name, text in logs.items()},
        **(_of_project(project) if project else {}),
    }
    secrets = set(_secrets(project)) if project else set()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as output, zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, without_secrets(text, secrets))


def without_secrets(text: str, secrets: Iterable[str]) -> str:
    """A text without keys and certificates, and without any of these lines."""
    text = PEM.sub("[left out]", text)
    for secret in secrets:
        text = text.replace(secret, "[left out]")
    return text


def _of_project(project: Path) -> Mapping[str, str]:
    answers = Layout(project).answers
    paths = [project / name for name in READABLE] + [answers]
    return {
        f"project/{path.relative_to(project)}": path.read_text(encoding="utf-8", errors="replace")
        for path in paths
        if path.is_file()
    }


def _secrets(project: Path) -> Iterable[str]:
    """Each line of whatever is private in the project."""
    local = Layout(project).local
    for path in local.rglob("*"):
        if path.is_file() and path.suffix in (".key", ".pem", ".ovpn", ".yaml"):
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            yield from (line.strip() for line in lines if len(line.strip()) >= 32 and " " not in line.strip())
