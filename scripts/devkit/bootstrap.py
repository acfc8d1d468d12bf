"""Starts a command of the library, through uv where Python is too old or a package is missing.

Only the standard library, and only syntax that Python 3.6 knows: this module must run where nothing is installed.
"""

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig

OLDEST_PYTHON = (3, 11)
GUARD = "D4M_DEVKIT_IN_UV"
MODULES = {"pyyaml": "yaml"}  # of packages whose names are others
UV_INSTALLER = "https://astral.sh/uv/install.sh"
# Without a network uv would try for half a minute; what the user has set stays. For a Python it tries two places.
PATIENCE = {"UV_HTTP_RETRIES": "0", "UV_HTTP_CONNECT_TIMEOUT": "3" if sys.version_info >= OLDEST_PYTHON else "2"}


def run(command: str) -> None:
    """Run `devkit.commands.COMMAND` and exit with its code: 0, 1 for an error, 2 for wrong usage, 130 for Ctrl-C."""
    try:
        sys.exit(_run(command))
    except KeyboardInterrupt:
        sys.exit(130)


def _run(command: str) -> int:
    in_uv = os.environ.pop(GUARD, "") != ""  # what the command starts may want uv itself
    if sys.version_info < OLDEST_PYTHON:
        version = ".".join(map(str, sys.version_info[:3]))
        missing, mend = "Python 3.11 or newer, and {} is {}".format(sys.executable, version), _install_uv()
    else:
        try:
            _require_packages()
            return int(importlib.import_module("devkit.commands." + command).main(sys.argv[1:]))
        except ModuleNotFoundError as error:
            if str(error.name).startswith("devkit"):
                raise
            missing = "the Python package {}, which {} does not have".format(error.name, sys.executable)
            mend = _install_uv() + _install_by_pip()
    uv = _find_uv()
    return _refuse(missing, mend) if in_uv or uv is None else _run_in_uv(uv, missing)


def _require_packages() -> None:
    """Raise ModuleNotFoundError unless all packages are there: some are imported late, when something has been done."""
    for package in _dependencies(os.path.abspath(sys.argv[0])):
        name = MODULES.get(package, package.replace("-", "_"))
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError("No module named " + name, name=name)


def _run_in_uv(uv: str, missing: str) -> int:
    """Run the script once more under uv, which installs what the script's PEP 723 header names."""
    script = os.path.abspath(sys.argv[0])
    reason = _fetch(uv, script)
    if reason:
        mend = "see that this computer reaches the Internet (or the index that uv is set to) and has room on its disk"
        return _refuse("{}, and uv cannot fetch it ({})".format(missing, reason), mend)
    os.environ[GUARD] = "1"
    command = [uv, "run", "--quiet", "--offline", "--script", script, *sys.argv[1:]]
    if os.name == "posix":
        os.execv(uv, command)  # noqa: S606 - Ctrl-C and the exit code are uv's business from here on
    return subprocess.call(command)


def _fetch(uv: str, script: str) -> "str | None":
    """Let uv have all that a script needs, from its cache where it can; return why it cannot, or None."""
    sync = [uv, "sync", "--quiet", "--script", script]
    if _failure([*sync, "--offline"]) is None:
        return None
    sys.stderr.write("Fetching what {} needs, once ...\n".format(os.path.basename(script)))
    return _failure(sync)


def _failure(command: "list[str]") -> "str | None":
    """Run uv; return the last cause that it names where it fails, or None."""
    environment = dict(PATIENCE)
    environment.update(os.environ)
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    said = process.communicate()[1].decode("utf-8", "replace").split("hint:")[0]
    if process.returncode == 0:
        return None
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["it said nothing"]
    return lines[-1].split("cause: ")[-1].split("error: ")[-1].rstrip(".")


def _refuse(missing: str, mend: str) -> int:
    script = os.path.basename(sys.argv[0])
    sys.stderr.write("error: {} needs {}: {}, then run this again.\n".format(script, missing, mend))
    return 1


def _find_uv() -> "str | None":
    """Where uv is: also where its installer has just put it, which this terminal's PATH may not have yet."""
    return shutil.which("uv") or shutil.which("uv", path=os.path.expanduser("~/.local/bin"))


def _install_uv() -> str:
    """How uv, which brings a Python of its own where it must, is installed on this system."""
    if os.name == "nt":
        line = "winget install astral-sh.uv"
    elif shutil.which("brew"):
        line = "brew install uv"
    elif shutil.which("curl"):
        line = "curl -LsSf {} | sh".format(UV_INSTALLER)
    else:
        line = "wget -qO- {} | sh".format(UV_INSTALLER)
    return "install uv, which brings what is missing, with `{}`".format(line)


def _install_by_pip() -> str:
    """The way without uv, for a Python that takes packages: Debian's and Homebrew's do not (PEP 668)."""
    marker = os.path.join(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")
    is_managed = sys.prefix == sys.base_prefix and os.path.exists(marker)
    if is_managed or importlib.util.find_spec("pip") is None:
        return ""
    packages = " ".join(_dependencies(os.path.abspath(sys.argv[0])))
    return ", or the packages with `{} -m pip install --upgrade {}`".format(sys.executable, packages)


def _dependencies(script: str) -> "list[str]":
    """Read the packages' names from the script's PEP 723 header."""
    with open(script, encoding="utf-8") as text:
        return [line.split('"')[1].split(">")[0] for line in text if line.startswith('#     "')]
