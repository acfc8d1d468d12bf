"""The chart in a cluster: installed, watched, removed by Helm."""

import hashlib
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE
from typing import Any

from devkit import checks
from devkit.answers import Answers
from devkit.checks import POD_SECURITY_LABEL
from devkit.errors import UserError
from devkit.facts import ClusterEndpoint
from devkit.material import values
from devkit.material.state import chart_values, serial_number, server_serial_numbers
from devkit.sites import kubernetes, obstacles
from devkit.sites.kubectl import Kubectl
from devkit.sites.pods import has_no_image, identity, restarts, states

NAMESPACE = "docker-for-mac"
RELEASE = "devkit"
OWN = f"app.kubernetes.io/instance={RELEASE}"
SERVERS = f"{OWN},app.kubernetes.io/name=d4m-devkit"
# The label by which `uninstall` recognizes a namespace of ours; in any other it removes the release alone.
OURS = {"app.kubernetes.io/managed-by": "d4m-devkit"}
FINGERPRINT = "d4m-devkit/fingerprint"  # an annotation of the StatefulSet
SETTINGS = "settings"  # a value by which `load` knows what was installed
READY_SECONDS = 180
MOST_RESTARTS = 3  # of a container that does not become ready; then waiting longer helps nobody
# All that Helm says when the time is up; in a longer sentence the same words are about something else: a webhook, say.
TIME_IS_UP = re.compile(
    r"^(Error: )?((INSTALLATION|UPGRADE) FAILED: )?(client rate limiter Wait returned an error: )?"
    r"(context deadline exceeded|timed out waiting for the condition)$",
    re.MULTILINE,
)

Warnings = Mapping[tuple[str, str], dict[str, Any]]


class Release:
    """The chart of one project. What fails raises UserError."""

    def __init__(self, kubectl: Kubectl, project: Path, answers: Answers) -> None:
        self._kubectl = kubectl
        self._project = project
        self._answers = answers

    def endpoint(self) -> ClusterEndpoint | None:
        """Where the server's Service is reached, or None when it is not installed."""
        return kubernetes.endpoint(self._kubectl, NAMESPACE, RELEASE)

    def fingerprint(self) -> str | None:
        """The fingerprint of the values that are installed, or None when it is not known."""
        found = self._kubectl.get("statefulset", RELEASE, "--namespace", NAMESPACE)
        return found["metadata"].get("annotations", {}).get(FINGERPRINT) if found else None

    def pods(self, selector: str = OWN) -> list[dict[str, Any]]:
        """Its pods, as the cluster has them."""
        return self._kubectl.items("pods", "--namespace", NAMESPACE, "--selector", selector)

    def enforced_pod_security(self) -> str:
        """The Pod Security level that our namespace enforces."""
        namespace = self._kubectl.get("namespace", NAMESPACE)
        return str(
            namespace["metadata"].get("labels", {}).get(POD_SECURITY_LABEL, "privileged") if namespace else "privileged"
        )

    def install(self, settings: Mapping[str, str], files: Sequence[Path]) -> Iterator[str]:
        """Install the chart or upgrade it, and wait until it is ready; give what the pods are doing meanwhile.

        `settings` are values by their dotted names; `files` are values of the user's own. Raises UserError with what
        Helm says or, when the pods do not become ready, with what keeps them from it.
        """
        self._make_namespace()
        options = [option for path in ("local/values.yaml", *files) for option in ("--values", str(path))]
        settings = {**settings, SETTINGS: _settings(self._project, self._answers)}
        options += [option for name, value in settings.items() for option in ("--set-string", f"{name}={value}")]
        image = f"{self._answers.image}:{settings.get('image.tag', '')}"
        yield from self._upgrade(["--install", *options], image)

    def installed_values(self) -> Mapping[str, Any] | None:
        """What the release that is installed was given, or None when there is none.

        Raises UserError also when the user may not know, or when it is another project's.
        """
        found = self._kubectl.run(
            self._kubectl.command("get", "statefulset", RELEASE, "--namespace", NAMESPACE, "--ignore-not-found")
        )
        if not found.stdout.strip():
            return None
        words = ("get", "values", RELEASE, "--namespace", NAMESPACE, "--output", "json")
        given: dict[str, Any] = json.loads(self._kubectl.run(self._kubectl.helm_command(*words)).stdout) or {}
        certificate = (given.get("material") or {}).get("server.crt")
        if certificate and serial_number(certificate.encode()) not in server_serial_numbers(self._project):
            raise UserError(
                f"the devkit in {self._kubectl.context} is another project's: choose the right cluster with --context "
                "NAME, or take that one down first."
            )
        return given

    def load(self, given: Mapping[str, Any], part: bytes) -> Iterator[str]:
        """Give the chart that is installed these values, which are YAML, and leave all others. As `install`.

        Raises UserError, too, when more than these has changed since; `given` are the values that it has.
        """
        if given.get(SETTINGS) != _settings(self._project, self._answers):
            raise UserError(f"what runs in {self._kubectl.context} is older in more than its clients: load all of it.")
        yield from self._upgrade(["--reset-then-reuse-values", "--values", "-"], self._answers.image, part)

    def uninstall(self) -> bool:
        """Remove the release, and the namespace if it is ours; return whether there was one."""
        status = self._kubectl.helm_command("status", RELEASE, "--namespace", NAMESPACE)
        there = self._kubectl.run(status, check=False).returncode == 0
        if there:
            self._kubectl.run(self._kubectl.helm_command("uninstall", RELEASE, "--namespace", NAMESPACE, "--wait"))
        namespace = self._kubectl.get("namespace", NAMESPACE)
        if namespace and OURS.items() <= namespace["metadata"].get("labels", {}).items():
            self._kubectl.run(self._kubectl.command("delete", "namespace", NAMESPACE))
        return there

    def _upgrade(self, options: Sequence[str], image: str, given: bytes = b"") -> Iterator[str]:
        command = self._kubectl.helm_command(
            "upgrade", RELEASE, "./chart", "--namespace", NAMESPACE, *options, "--wait", "--timeout",
            f"{READY_SECONDS}s", "--history-max", "1",
        )  # fmt: skip
        before, warned_before = self.pods(), self._warnings()
        known, restarts_before = {identity(pod) for pod in before}, restarts(before)
        hopeless = False
        with tempfile.TemporaryFile("w+") as output:
            source = PIPE if given else None  # keys touch no disk; and without them whoever asks finds the terminal
            helm = subprocess.Popen(command, cwd=self._project, stdin=source, stdout=output, stderr=output)
            if helm.stdin:
                with suppress(BrokenPipeError), helm.stdin:  # it has ended already, and says why
                    helm.stdin.write(given)
            try:
                while helm.poll() is None and not hopeless:
                    time.sleep(1)
                    pods = self.pods()
                    yield "; ".join(states(pods)) or "waiting for the pods"
                    restarted = (more - restarts_before[one] for one, more in restarts(pods).items())
                    new = (pod for pod in pods if identity(pod) not in known)
                    hopeless = max(restarted, default=0) >= MOST_RESTARTS or any(map(has_no_image, new))
            finally:
                helm.terminate()  # it then marks the release as failed
                helm.wait()
            output.seek(0)
            said = output.read()
        if helm.returncode == 0:
            self._forget_earlier_revisions()
        elif hopeless or TIME_IS_UP.search(said):
            pods = sorted(self.pods(), key=lambda pod: identity(pod) in known)  # those of this run first
            warnings = [event for one, event in self._warnings().items() if one not in warned_before]
            reason = obstacles.what_is_missing(self._answers, self._kubectl.context, image, pods, warnings)
            reason = reason or self._waits_for_address() or "; ".join(states(pods)) or self._said(said)
            within = "" if hopeless else f" within {READY_SECONDS} seconds"
            raise UserError(f"Helm could not install the chart{within}: {reason}")
        else:
            raise UserError(f"Helm could not install the chart: {self._said(said)}")

    def _make_namespace(self) -> None:
        found = self._kubectl.run(self._kubectl.command("get", "namespace", NAMESPACE), check=False)
        if "(NotFound)" in found.stderr:  # a user who may not even look may still be allowed in: Helm will say
            metadata = {"name": NAMESPACE, "labels": OURS | {POD_SECURITY_LABEL: "privileged"}}
            self._kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})

    def _forget_earlier_revisions(self) -> None:
        """Delete what Helm keeps of earlier revisions, which holds the server's keys: it keeps one more than told."""
        others = f"owner=helm,name={RELEASE},status!=deployed"
        self._kubectl.run(self._kubectl.command("delete", "secrets", "--namespace", NAMESPACE, "--selector", others))

    def _waits_for_address(self) -> str | None:
        endpoint = self.endpoint()
        return checks.service_address(self._answers, endpoint).sentence if endpoint and not endpoint.hosts else None

    def _said(self, output: str) -> str:
        return obstacles.helm_error(output, self._kubectl.context_option)

    def _warnings(self) -> Warnings:
        """The warnings in our namespace; one that is repeated has another identity."""
        events = self._kubectl.items("events", "--namespace", NAMESPACE, "--field-selector", "type=Warning")
        return {(event["metadata"]["uid"], event["metadata"]["resourceVersion"]): event for event in events}


def _settings(project: Path, answers: Answers) -> str:
    """A digest of the chart and of its values, without those that say who may connect."""
    chart = project / "chart"
    files = [path for path in sorted(chart.rglob("*")) if path.is_file()]
    parts = [part for path in files for part in (str(path.relative_to(chart)).encode(), path.read_bytes())]
    parts.append(values.settings_part(chart_values(project, answers)))
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]
