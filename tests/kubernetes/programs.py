"""The real Helm and kubectl, talking to the stand-in for the API server."""

import os
import subprocess
from pathlib import Path
from typing import Literal

from tests.docker_desktop.cache import helm_and_kubectl
from tests.kubernetes.store import Api

# The oldest Kubernetes with the older programs, and the newest with the newest.
AGES: dict[str, Literal[3, 4]] = {"1.31": 3, "1.37": 4}


class Programs:
    """Helm and kubectl of one age, as the admin of one server, with a folder to work and keep things in."""

    def __init__(self, api: Api, folder: Path) -> None:
        self.api = api
        self._programs = dict(zip(("helm", "kubectl"), helm_and_kubectl(AGES[api.version]), strict=True))
        self.folder = folder
        places = {f"HELM_{name}_HOME": str(folder / name) for name in ("CACHE", "CONFIG", "DATA")}
        self._environment = os.environ | places | {"HOME": str(folder), "KUBECONFIG": str(api.kubeconfig)}

    def run(self, program: str, *arguments: str, manifests: str = "") -> subprocess.CompletedProcess[str]:
        """Run one, whatever comes of it."""
        return subprocess.run(
            [self._programs[program], *arguments],
            input=manifests, capture_output=True, text=True, check=False, timeout=120,
            cwd=self.folder, env=self._environment,
        )  # fmt: skip

    def output(self, program: str, *arguments: str, manifests: str = "") -> str:
        """Run one that has to succeed, and without a warning."""
        done = self.run(program, *arguments, manifests=manifests)
        if done.returncode or done.stderr:
            raise AssertionError(f"{program} {' '.join(arguments)}: exit code {done.returncode}: {done.stderr}")
        return done.stdout
