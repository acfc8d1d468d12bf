"""Make the project's certificates, keys and profiles, if they are not there."""

import argparse
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from devkit import commandline
from devkit.answers import read_answers
from devkit.material import ensure_material, local_folder


def main(arguments: Sequence[str]) -> int:
    """Run `generate.py`, by hand or as Copier's hook."""
    return commandline.run(commandline.parser(__doc__ or ""), _generate, arguments)


def _generate(_: argparse.Namespace) -> None:
    project = commandline.project_folder()
    answers = read_answers(project)
    _mend_scripts(project)
    made = ensure_material(project, answers, datetime.now(UTC).replace(microsecond=0))
    profile = local_folder(project) / f"{answers.client_name}.ovpn"
    Console(stderr=True, soft_wrap=True, highlight=False).print(
        f"{'Made the certificates' if made else 'The certificates are there'}; the profile is {profile}", markup=False
    )


def _mend_scripts(project: Path) -> None:
    """Put the scripts in place where git has checked the template's link to them out as a text (Windows)."""
    scripts = project / "scripts"
    if scripts.is_file():
        scripts.unlink()
        shutil.copytree(Path(__file__).parents[2], scripts, ignore=shutil.ignore_patterns("__pycache__"))
