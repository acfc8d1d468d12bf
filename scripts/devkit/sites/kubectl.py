"""A Kubernetes cluster, through its user's own `kubectl` and `helm`. What they refuse is raised as UserError."""

import json
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from devkit.errors import UserError

ANSWER_SECONDS = 20
TIMEOUT = f"--request-timeout={ANSWER_SECONDS}s"


class Kubectl:
    """kubectl and helm, for one context and from one folder."""

    def __init__(self, folder: Path, context: str | None) -> None:
        for program in ("kubectl", "helm"):
            if not shutil.which(program):
                raise UserError(f"{program} is not installed here (there is no `{program}` command): install it first.")
        self._folder = folder
        self._context = context
        current = context or self.run(self.command("config", "current-context"), check=False).stdout.strip()
        if not current:
            raise UserError("kubectl has no current context: choose one with `kubectl config use-context NAME`.")
        self.context = current  # its name in the kubeconfig
        known = self.run(["kubectl", "config", "get-contexts", "--output", "name"]).stdout.splitlines()
        if current not in known:
            choice = f"choose one of {', '.join(sorted(known))}" if known else "kubectl knows none"
            raise UserError(f"the context {current} does not exist: {choice}.")

    @property
    def context_option(self) -> str:
        """What a command that the user is told to type must contain to reach this cluster and no other."""
        return f" --context {shlex.quote(self._context)}" if self._context else ""

    def version(self) -> str:
        """The cluster's version. Raises UserError when it does not answer."""
        answer = self.run(self.command("version", "--output", "json", TIMEOUT), check=False)
        version = json.loads(answer.stdout).get("serverVersion", {}) if answer.stdout.startswith("{") else {}
        if not version:
            said = last_line(answer.stderr)
            raise UserError(f"the cluster of the context {self.context} does not answer ({said}): start it, or choose "
                            "another with --context NAME.")  # fmt: skip
        return str(version["gitVersion"]).removeprefix("v")

    def items(self, *what: str) -> list[dict[str, Any]]:
        """All objects of a kind; none where the cluster does not have the kind, or its user may not list it."""
        run = self.run(self.command("get", *what, "--output", "json", TIMEOUT), check=False)
        if run.returncode == 0:
            return cast("list[dict[str, Any]]", json.loads(run.stdout)["items"])
        if "Forbidden" in run.stderr or "doesn't have a resource type" in run.stderr:
            return []
        raise UserError(f"kubectl refused: {last_line(run.stderr)}")

    def get(self, *what: str) -> dict[str, Any] | None:
        """One object, or None where it is not there or its user may not see it."""
        run = self.run(self.command("get", *what, "--output", "json"), check=False)
        return cast("dict[str, Any]", json.loads(run.stdout)) if run.returncode == 0 else None

    def apply(self, document: Mapping[str, object]) -> None:
        """Make an object, or change it."""
        self.run(self.command("apply", "--filename", "-"), given=json.dumps(document))

    def command(self, *arguments: str) -> list[str]:
        """A command of kubectl's."""
        return ["kubectl", *([f"--context={self._context}"] if self._context else []), *arguments]

    def helm_command(self, *arguments: str) -> list[str]:
        """A command of Helm's."""
        return ["helm", *([f"--kube-context={self._context}"] if self._context else []), *arguments]

    def run(
        self, command: Sequence[str], check: bool = True, given: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command; with `check`, one that fails is a UserError."""
        run = subprocess.run(command, cwd=self._folder, input=given, check=False, capture_output=True, text=True)
        if check and run.returncode != 0:
            raise UserError(f"{command[0]} refused: {last_line(run.stderr)}")
        return run


def last_line(text: str) -> str:
    """The last line of what a command said."""
    return (text.strip().splitlines() or ["it said nothing"])[-1].strip().rstrip(".")
