"""Make the project's certificates, keys and profiles if they are not there, or rotate them."""

import argparse
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from devkit import commandline
from devkit.answers import read_answers
from devkit.material import ensure_material, has_generation, local_folder, rotate
from devkit.report import rotation_text


def main(arguments: Sequence[str]) -> int:
    """Run `generate.py`, by hand or as Copier's hook."""
    parser = commandline.parser(__doc__ or "")
    parser.add_argument(
        "--rotate",
        choices=("leaf", "all", "none"),
        default="none",
        help="renew the certificates under the same authority (leaf), or under a new one (all)",
    )
    parser.add_argument(
        "--revoke",
        choices=("later", "now"),
        default="later",
        help="let the profiles that are replaced work until the next rotation (later), or end them now",
    )

    def generate(options: argparse.Namespace) -> None:
        if options.rotate == "none" and options.revoke == "now":
            parser.error("--revoke=now ends what a rotation replaces: give --rotate=leaf or --rotate=all with it")
        _generate(options)

    return commandline.run(parser, generate, arguments)


def _generate(options: argparse.Namespace) -> None:
    project = commandline.project_folder()
    answers = read_answers(project)
    _mend_scripts(project)
    now = datetime.now(UTC).replace(microsecond=0)
    console = commandline.messages()
    if options.rotate != "none" and has_generation(project):
        renewals = rotate(project, answers, options.rotate, options.revoke == "now", now)
        console.print(rotation_text(renewals, answers, options.rotate, options.revoke == "now"))
        return
    profiles = ensure_material(project, answers, now)
    profile = local_folder(project) / f"{answers.client_name}.ovpn"
    if profiles == "made":
        console.print(f"Made the certificates; the profile is {profile}", markup=False)
    else:
        console.print(f"The certificates are there; the profile is {profile}", markup=False)
        if profiles == "changed":
            console.print(f"The profiles have changed: run `{answers.up}`, then import them again.")


def _mend_scripts(project: Path) -> None:
    """Put the scripts in place where git has checked the template's link to them out as a text (Windows)."""
    scripts = project / "scripts"
    if scripts.is_file():
        scripts.unlink()
        shutil.copytree(Path(__file__).parents[2], scripts, ignore=shutil.ignore_patterns("__pycache__"))
