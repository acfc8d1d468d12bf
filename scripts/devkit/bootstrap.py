"""Starts a command of the library, through uv where Python is too old or a package is missing.

Only the standard library, and only syntax that old Pythons know: this module must run where nothing is installed.
"""

import importlib
import os
import shutil
import subprocess
import sys

OLDEST_PYTHON = (3, 11)
GUARD = "D4M_DEVKIT_IN_UV"


def run(command: str) -> None:
    """Run `devkit.commands.COMMAND` and exit with its code: 0, 1 for an error, 2 for wrong usage, 130 for Ctrl-C."""
    if sys.version_info < OLDEST_PYTHON:
        sys.exit(_run_in_uv("Python 3.11 or newer"))
    try:
        sys.exit(importlib.import_module("devkit.commands." + command).main(sys.argv[1:]))
    except ModuleNotFoundError as missing:
        if str(missing.name).startswith("devkit"):
            raise
        sys.exit(_run_in_uv("the Python package " + str(missing.name)))  # nothing has been done yet


def _run_in_uv(missing: str) -> int:
    """Run the script once more under uv, which installs what the script's PEP 723 header names."""
    script = os.path.abspath(sys.argv[0])
    uv = shutil.which("uv")
    if uv and GUARD not in os.environ:
        os.environ[GUARD] = "1"
        return subprocess.call([uv, "run", "--quiet", "--script", script, *sys.argv[1:]])
    print(
        "error: {0} needs {1}, which {2} does not have. Install uv (https://docs.astral.sh/uv) and try again, or run\n"
        "    {2} -m pip install {3}".format(
            os.path.basename(script), missing, sys.executable, " ".join(_dependencies(script))
        ),
        file=sys.stderr,
    )
    return 1


def _dependencies(script: str) -> "list[str]":
    """Read the packages' names from the script's PEP 723 header."""
    with open(script, encoding="utf-8") as text:
        return [line.split('"')[1].split(">")[0] for line in text if line.startswith('#     "')]
