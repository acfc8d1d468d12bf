"""That the unit tests run anywhere: with no privilege of root's and no network, as on a computer of anyone's."""

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY

UNPRIVILEGED = ["unshare", "--net", "setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]


def test_unit_tests_need_no_privilege_and_no_network(tmp_path: Path) -> None:
    chosen = ["-m", "not further and not long", f"--basetemp={tmp_path}/made", "tests/unit"]
    command = [*UNPRIVILEGED, sys.executable, "-m", "pytest", "-qq", "-p", "no:cacheprovider", *chosen]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    said = subprocess.run(command, cwd=REPOSITORY, env=environment, check=False, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr
