"""Make the project's certificates, keys and profiles if there are none, or rotate them."""

import argparse
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from devkit import commandline
from devkit.answers import Answers, read_answers
from devkit.errors import UserError
from devkit.material.changes import ensure_material, record_host, rotate
from devkit.material.state import first_profiles, has_generation
from devkit.report.certificates import rotation_text
from devkit.sites.choice import host_of_server


def main(arguments: Sequence[str]) -> int:
    """Run `generate.py`, by hand or as Copier's hook."""
    parser = commandline.parser(__doc__ or "")
    parser.add_argument(
        "--rotate",
        choices=("leaf", "all", "none"),
        default="none",
        help="renew the certificates under the same CA (leaf), or under a new one (all)",
    )
    parser.add_argument(
        "--revoke",
        choices=("later", "now"),
        default="later",
        help="let the profiles that are replaced work until the next rotation (later), or revoke them now",
    )

    def generate(options: argparse.Namespace) -> None:
        if options.rotate == "none" and options.revoke == "now":
            parser.error("--revoke=now revokes what a rotation replaces: give --rotate=leaf or --rotate=all with it")
        _generate(options)

    return commandline.run(parser, generate, arguments)


def _generate(options: argparse.Namespace) -> None:
    project = commandline.project_folder()
    answers = _with_host(project, read_answers(project))
    _mend_scripts(project)
    now = datetime.now(UTC).replace(microsecond=0)
    console = commandline.messages()
    if record_host(project, answers):
        console.print(f"The profiles lead to {answers.vpn_host}, as Docker's context does.", markup=False)
    if options.rotate != "none" and has_generation(project):
        renewals = rotate(project, answers, options.rotate, options.revoke == "now", now)
        console.print(rotation_text(renewals, answers, options.rotate, options.revoke == "now"))
        return
    profiles = ensure_material(project, answers, now)
    profile = first_profiles(project, answers)[0]
    if profiles == "made":
        console.print(f"Made the certificates; the profile is {profile}", markup=False)
    else:
        console.print(f"The certificates are there already; the profile is {profile}", markup=False)
        if profiles == "changed":
            console.print(f"The profiles have changed: run `{answers.up}`, then import them again.")


def _with_host(project: Path, answers: Answers) -> Answers:
    """The answers with the host that Docker's context names, if nothing else says where the server is.

    A host that cannot be used is warned of, and left to `up.py`.
    """
    if answers.vpn_host_from != "nothing":
        return answers
    try:
        return read_answers(project, host_of_server(answers.kubernetes != "none"))
    except UserError as error:
        commandline.warn([str(error)])
        return answers


def _mend_scripts(project: Path) -> None:
    """Put the scripts in place where git has checked out the template's link to them as a text file (Windows)."""
    scripts = project / "scripts"
    if scripts.is_file():
        scripts.unlink()
        shutil.copytree(Path(__file__).parents[2], scripts, ignore=shutil.ignore_patterns("__pycache__"))
