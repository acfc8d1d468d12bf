"""That the unit tests run anywhere: for a user without any privilege or network, as on a computer of anyone's."""

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY

NOBODY = ["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--no-new-privs"]
TRUSTED_BY_GIT = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}


def test_unit_tests_need_neither_root_nor_network(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents[:2]:
        folder.chmod(0o711)
    command = ["unshare", "--net", "setpriv", *NOBODY, sys.executable, "-m", "pytest", "-qq", "-p", "no:cacheprovider",
               "-m", "not further", f"--basetemp={tmp_path}/made", "tests/unit"]  # fmt: skip
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path), **TRUSTED_BY_GIT}
    said = subprocess.run(command, cwd=REPOSITORY, env=environment, check=False, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr
