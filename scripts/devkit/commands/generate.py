"""Make the project's certificates, keys and profiles if they are not there, or rotate them."""

import argparse
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from devkit import commandline
from devkit.answers import Answers, read_answers
from devkit.errors import UserError
from devkit.material import ensure_material, has_generation, local_folder, record_host, rotate
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
    answers = _with_host(project, read_answers(project))
    _mend_scripts(project)
    now = datetime.now(UTC).replace(microsecond=0)
    console = commandline.messages()
    if record_host(project, answers):
        console.print(f"The profiles lead to {answers.vpn_host}, as Docker's context does.")
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


def _with_host(project: Path, answers: Answers) -> Answers:
    """The same with the host that Docker's context names, if nothing else says where the server is.

    In a cluster it is not where Docker's context leads. What cannot be used is told, and left to `up.py`.
    """
    if answers.vpn_host_from != "nothing" or answers.kubernetes != "none":
        return answers
    from devkit.stack import host_of_context  # noqa: PLC0415 -- Docker's library takes half of the start

    try:
        return read_answers(project, host_of_context())
    except UserError as error:
        commandline.warn([str(error)])
        return answers


def _mend_scripts(project: Path) -> None:
    """Put the scripts in place where git has checked the template's link to them out as a text (Windows)."""
    scripts = project / "scripts"
    if scripts.is_file():
        scripts.unlink()
        shutil.copytree(Path(__file__).parents[2], scripts, ignore=shutil.ignore_patterns("__pycache__"))
