"""How fast clients are issued: `client.py add` beside easy-rsa 3 doing the same, in one run.

Both make an ECDSA P-256 key and a certificate for each client under an authority that is there already, and store
them; ours makes a tls-crypt-v2 key, a profile and a Tunnelblick bundle, too. Timings differ from machine to machine
and from run to run: the ratio is what counts.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.conftest import copy_project

EASY_RSA = "/usr/share/easy-rsa/easyrsa"
COUNTS = (1, 100, 1000)


def seconds(work: Callable[[], object]) -> float:
    """How long the work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def ours(folder: Path, names: list[str]) -> float:
    """Issue with this project's own script."""
    project = copy_project(folder / "devkit")
    command = [sys.executable, "scripts/client.py", "add", *names]
    return seconds(lambda: subprocess.run(command, cwd=project, check=True, capture_output=True))


def easy_rsa(folder: Path, names: list[str]) -> float:
    """Issue with easy-rsa, which takes one name at a time."""
    settings = {
        "EASYRSA_BATCH": "1",
        "EASYRSA_ALGO": "ec",
        "EASYRSA_CURVE": "prime256v1",
        "EASYRSA_PKI": str(folder / "pki"),
    }

    def easyrsa(*command: str) -> None:
        subprocess.run([EASY_RSA, *command], cwd=folder, check=True, capture_output=True, env=os.environ | settings)

    easyrsa("init-pki")
    easyrsa("build-ca", "nopass")

    def build_all() -> None:
        for name in names:
            easyrsa("build-client-full", name, "nopass")

    return seconds(build_all)


def main() -> None:
    """Print the rates side by side."""
    table = Table("clients", "ours, per second", "easy-rsa, per second", "ratio", box=None)
    for count in COUNTS:
        names = [f"client-{number}" for number in range(count)]
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
            own, others = count / ours(Path(one), names), count / easy_rsa(Path(other), names)
        table.add_row(str(count), f"{own:.1f}", f"{others:.1f}", f"{own / others:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
