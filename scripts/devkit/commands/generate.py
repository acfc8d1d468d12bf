"""Make the project's certificates, keys and profiles if there are none, or rotate them."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from devkit import commandline
from devkit.answers import Answers, read_answers
from devkit.errors import UserError
from devkit.material.changes import ensure_material, record_host, rotate
from devkit.material.state import first_profiles, former_first_clients, has_generation, https_root, was_ever_made
from devkit.report.certificates import NEW_HTTPS_ROOT, renamed_text, rotation_text
from devkit.sites.choice import host_of_server

NO_OLD_PROFILE = (
    "there are no certificates here, as after a clone or when local/ was deleted. New ones are made now: no profile "
    "that was made before connects any more, and every client needs a new one. Where you have a backup of local/pki, "
    "put it in the place of the new one."
)


def main(arguments: Sequence[str]) -> int:
    """Run `generate.py`, by hand or as Copier's hook."""
    parser = commandline.parser(__doc__ or "")
    parser.add_argument(
        "--rotate",
        choices=("leaf", "all", "none"),
        help="renew the certificates under the same CA (leaf), or under a new one (all)",
    )
    parser.add_argument(
        "--revoke",
        choices=("later", "now"),
        default="later",
        help="let the profiles that are replaced work until the next rotation (later), or revoke them now",
    )

    def generate(options: argparse.Namespace) -> None:
        if options.rotate in (None, "none") and options.revoke == "now":
            parser.error("--revoke=now revokes what a rotation replaces: give --rotate=leaf or --rotate=all with it")
        _generate(options)

    return commandline.run(parser, generate, arguments)


def _generate(options: argparse.Namespace) -> None:
    project = commandline.project_folder()
    answers = _with_host(project, read_answers(project))
    _mend_scripts(project)
    if not was_ever_made(project) and not _is_new(project, options):
        commandline.warn([NO_OLD_PROFILE])
    former = former_first_clients(project, answers)
    is_first, root = not was_ever_made(project), https_root(project)
    now = datetime.now(UTC).replace(microsecond=0)
    console = commandline.messages()
    if record_host(project, answers):
        console.print(f"The profiles lead to {answers.vpn_host}, as Docker's context does.", markup=False)
    profile = first_profiles(project, answers)[0]
    if options.rotate in ("leaf", "all") and has_generation(project):
        renewals = rotate(project, answers, options.rotate, options.revoke == "now", now)
        console.print(rotation_text(renewals, answers, options.rotate, options.revoke == "now"))
    else:
        profiles = ensure_material(project, answers, now)
        found = "Made the certificates" if profiles == "made" else "The certificates are there already"
        console.print(f"{found}; the profile is {profile}", markup=False)
        if profiles == "changed":
            console.print(f"The profiles have changed: run `{answers.up}`, then import them again.")
    if not is_first and https_root(project) != root:
        console.print(NEW_HTTPS_ROOT, markup=False)
    if former and profile.exists():
        console.print(renamed_text(former, answers), markup=False)


def _is_new(project: Path, options: argparse.Namespace) -> bool:
    """Whether Copier is just making the project: it runs the template's script, and its updates say what to rotate."""
    return options.rotate is None and Path(sys.argv[0]).resolve().parent.parent != project.resolve()


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
