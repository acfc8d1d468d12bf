"""A Docker engine, through its user's own `docker`: what it says of itself. What it refuses raises UserError."""

import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from python_on_whales import DockerClient
from python_on_whales.client_config import ClientNotFoundError
from python_on_whales.exceptions import DockerException

from devkit import inventory
from devkit.answers import THIS_COMPUTER
from devkit.errors import UnreachableError, UserError
from devkit.facts import Container, Engine, Network
from devkit.layout import Layout

GONE = re.compile(r"no such (container|network)|network \S+ not found", re.IGNORECASE)


@contextmanager
def explained() -> Iterator[None]:
    """Turn what Docker refuses into one sentence."""
    try:
        yield
    except DockerException as error:
        lines = (error.stderr or "").strip().splitlines() or [f"docker exited with {error.return_code}"]
        raise UserError(f"Docker refused: {lines[-1].strip()}") from error


def lines(stream: Iterable[tuple[str, bytes]]) -> Iterator[str]:
    """What a command of Docker's prints, line by line."""
    with explained():
        for _, chunk in stream:
            line = chunk.decode(errors="replace").strip()
            if line:
                yield line


class Docker:
    """The engine that Docker's context leads to, and a project's Compose file."""

    def __init__(self, project: Path) -> None:
        self.client = DockerClient(compose_files=[Layout(project).compose], compose_project_directory=project)
        self._engine: Engine | None = None

    @property
    def command(self) -> list[str]:
        """The words that every `docker` command begins with. Raises UserError when there is no Docker here."""
        try:
            return [str(word) for word in self.client.client_config.docker_cmd]
        except ClientNotFoundError:
            raise UnreachableError(
                "Docker is not installed here (there is no `docker` command): install it first."
            ) from None

    def engine(self) -> Engine:
        """The engine's facts, asked for once. Raises UserError when there is no Docker here or no engine answers."""
        self._engine = self._engine or self._asked()
        return self._engine

    @explained()
    def _asked(self) -> Engine:
        command = [*self.command, "info", "--format", "{{json .}}"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        info = cast("dict[str, object]", json.loads(answer.stdout)) if answer.stdout.startswith("{") else {}
        if answer.returncode != 0 or not info.get("ServerVersion"):
            said = (answer.stderr.strip().splitlines() or ["it said nothing"])[-1].removeprefix("ERROR: ")
            raise UnreachableError(
                f"the Docker engine at {_endpoint(self.client)} does not answer ({said.rstrip('.')}): start it and try "
                "again."
            )
        backend = info.get("FirewallBackend")
        return Engine(
            name=str(info.get("Name", "")),
            version=str(info["ServerVersion"]),
            operating_system=str(info.get("OperatingSystem", "")),
            firewall_backend=str(backend.get("Driver", "")) if isinstance(backend, dict) else "",
            host=_machine(_endpoint(self.client)),
        )

    def require_compose(self) -> None:
        """Raise UserError unless Compose v2 is there."""
        if not self.client.compose.is_installed():
            raise UserError(
                "Docker Compose v2 is not installed here (`docker compose version` fails): install the Compose plugin."
            )

    @explained()
    def identity(self) -> str:
        """What tells this engine from all others."""
        return str(self.client.system.info().id)

    def survey(self) -> tuple[Engine, tuple[Network, ...], tuple[Container, ...]]:
        """The engine, its networks and its running containers, asked for side by side. Raises UserError."""
        with ThreadPoolExecutor() as pool:
            engine, networks = pool.submit(self.engine), pool.submit(self.networks)
            running = pool.submit(self._inspected, "container")
            # The engine first: it says best why nothing answers.
            return engine.result(), networks.result(), inventory.containers(running.result(), networks.result())

    def state(self, name: str) -> str | None:
        """How a container is, as Docker says it; None where there is none of that name."""
        words = [*self.command, "container", "inspect", "--format", "{{.State.Status}}", name]
        run = subprocess.run(words, capture_output=True, text=True, check=False)
        return run.stdout.strip() if run.returncode == 0 else None

    def networks(self) -> tuple[Network, ...]:
        """All networks of the engine."""
        return inventory.networks(self._inspected("network"))

    def labelled(self, label: str, running: bool = False) -> tuple[Container, ...]:
        """The containers with a label (NAME or NAME=VALUE), by name; with `running`, only those that run."""
        chosen = ["--filter", f"label={label}", *([] if running else ["--all"])]
        return inventory.containers(self._inspected("container", *chosen), [])

    def _inspected(self, kind: str, *chosen: str) -> list[inventory.Inspected]:
        """All that the engine says of each object of a kind: two commands, however many there are."""
        ids = self._run(kind, "ls", "--quiet", "--no-trunc", *chosen).split()
        return cast("list[inventory.Inspected]", json.loads(self._run(kind, "inspect", *ids))) if ids else []

    def _run(self, *words: str) -> str:
        """What a command prints; what has gone since it was listed is no reason to fail. Raises UserError."""
        run = subprocess.run([*self.command, *words], capture_output=True, text=True, check=False)
        said = run.stderr.strip().splitlines()
        if run.returncode != 0 and not (run.stdout and said and all(GONE.search(line) for line in said)):
            raise UserError(f"Docker refused: {said[-1] if said else f'docker exited with {run.returncode}'}")
        return run.stdout


def host_of_context() -> str | None:
    """The host that Docker's context leads to, as the context names it; no engine is asked.

    None where that is not known: there is no `docker` command, or no such context.
    """
    try:
        return _machine(_endpoint(DockerClient())) or THIS_COMPUTER
    except (ClientNotFoundError, DockerException):
        return None


def _endpoint(client: DockerClient) -> str:
    endpoints = client.context.inspect(None).endpoints or {}
    endpoint = endpoints.get("docker")
    return (endpoint.host if endpoint else None) or "unix:///var/run/docker.sock"


def _machine(endpoint: str) -> str | None:
    """The machine of an endpoint such as ssh://root@engine.example.org:22; none for this computer's own."""
    if endpoint.startswith(("unix:", "npipe:")):
        return None
    return urlsplit(endpoint).hostname
