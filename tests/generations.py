"""What the tests of the material share: a script run in a project, a rotation, and what a generation says of itself."""

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from devkit.answers import read_answers
from devkit.keys.model import Generation
from devkit.material.changes import rotate
from devkit.material.rotation import RotationKind
from devkit.material.state import read_generation

from tests.conftest import REPOSITORY

NOW = datetime.now(UTC).replace(microsecond=0)


def run(project: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of the template's scripts in a project."""
    command = [sys.executable, str(REPOSITORY / f"scripts/{script}.py"), *arguments]
    return subprocess.run(command, cwd=project, check=False, capture_output=True, text=True)


def rotated(project: Path, kind: RotationKind = "leaf", revoke_now: bool = False) -> Generation:
    """Rotate, and read what is in force then."""
    rotate(project, read_answers(project), kind, revoke_now, NOW)
    return read_generation(project)


def serials(generation: Generation) -> set[int]:
    """The serial numbers of all leaves."""
    return {leaf.serial_number for leaf in generation.leaves}


def listed(project: Path, path: str = "configs/crl.pem") -> set[int]:
    """The serial numbers in all revocation lists of a file."""
    text = (project / "local/pki/current" / path).read_text()
    lists = re.findall(r"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----\n", text, re.DOTALL)
    return {entry.serial_number for each in lists for entry in x509.load_pem_x509_crl(each.encode())}
