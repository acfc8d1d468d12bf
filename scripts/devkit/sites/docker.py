"""A Docker engine, through its user's own `docker`: what it says of itself. What it refuses raises UserError."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from devkit import inventory
from devkit.addresses import address_or_none
from devkit.answers import THIS_COMPUTER
from devkit.errors import UnreachableError, UserError, most_telling
from devkit.facts import Container, Engine, Network
from devkit.layout import Layout

if TYPE_CHECKING:
    from python_on_whales import DockerClient

DOCKER = "docker"
GONE = re.compile(r"no such (container|network|volume)|network \S+ not found", re.IGNORECASE)


@dataclass(frozen=True)
class Found:
    """What is on an engine: its networks, and its containers, running or not, by name."""

    networks: tuple[Network, ...]
    containers: tuple[Container, ...]


@contextmanager
def explained() -> Iterator[None]:
    """Turn what the client refuses, or Docker by way of it, into one sentence."""
    try:
        yield
    except Exception as error:
        from python_on_whales.exceptions import DockerException  # noqa: PLC0415 -- see `Docker.client`

        if not isinstance(error, DockerException):
            raise
        lines = (error.stderr or "").strip().splitlines() or [f"docker exited with {error.return_code}"]
        raise UserError(f"Docker refused: {lines[-1].strip()}") from error


class Docker:
    """The engine that Docker's context leads to, and a project's Compose file."""

    def __init__(self, project: Path) -> None:
        self._project = project

    @cached_property
    def client(self) -> "DockerClient":
        """Docker and Compose, typed."""
        from python_on_whales import DockerClient  # noqa: PLC0415 -- to import it takes longer than to ask an engine

        return DockerClient(compose_files=[Layout(self._project).compose], compose_project_directory=self._project)

    @property
    def command(self) -> list[str]:
        """The words that every `docker` command begins with. Raises UserError when there is no Docker here."""
        if not shutil.which(DOCKER):
            raise UnreachableError("Docker is not installed here (there is no `docker` command): install it first.")
        return [DOCKER]

    @cached_property
    def _info(self) -> Mapping[str, Any]:
        command = [*self.command, "info", "--format", "{{json .}}"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        info = cast("dict[str, Any]", json.loads(answer.stdout)) if answer.stdout.startswith("{") else {}
        if answer.returncode != 0 or not info.get("ServerVersion"):
            said = (answer.stderr.strip().splitlines() or ["it said nothing"])[-1].removeprefix("ERROR: ")
            raise UnreachableError(
                f"the Docker engine at {endpoint()} does not answer ({said.rstrip('.')}): start it and try again."
            )
        return info

    def engine(self) -> Engine:
        """The engine's facts, asked for once. Raises UserError when there is no Docker here or no engine answers."""
        info = self._info
        backend, security = info.get("FirewallBackend"), info.get("SecurityOptions") or []
        return Engine(
            name=str(info.get("Name", "")),
            version=str(info["ServerVersion"]),
            operating_system=str(info.get("OperatingSystem", "")),
            firewall_backend=str(backend.get("Driver", "")) if isinstance(backend, dict) else "",
            host=_machine(endpoint()),
            is_podman=self._is_podman,
            is_rootless="name=rootless" in security,
        )

    @cached_property
    def _is_podman(self) -> bool:
        if self._info.get("IndexServerAddress"):  # Docker always has one, and need not be asked
            return False
        return "Podman Engine" in self._run("version", "--format", "{{range .Server.Components}}{{.Name}},{{end}}")

    def compose(self, *words: str) -> Iterator[str]:
        """What a command of Compose's prints, line by line. Raises UserError.

        By hand: `up.py` asks for so little on a running stack that importing the library would be a tenth of its time.
        """
        paths = ("--file", Layout(self._project).compose, "--project-directory", self._project)
        with subprocess.Popen(
            [*self.command, "compose", *paths, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace",
        ) as process:  # fmt: skip
            line = ""
            for line in filter(None, map(str.strip, cast("IO[str]", process.stdout))):
                yield line
        if process.returncode != 0:
            raise UserError(f"Docker refused: {line or f'docker exited with {process.returncode}'}")

    def require_compose(self) -> None:
        """Raise UserError unless Compose v2 is there."""
        plugins = (self._info.get("ClientInfo") or {}).get("Plugins") or []
        if not any(plugin.get("Name") == "compose" and not plugin.get("Err") for plugin in plugins):
            raise UserError(
                "Docker Compose v2 is not installed here (`docker compose version` fails): install the Compose plugin."
            )

    def identity(self) -> str:
        """What tells this engine from all others."""
        engine = self.engine()
        return engine.name if engine.is_podman else str(self._info.get("ID", ""))  # Podman makes up an ID each time

    def found(self) -> Found:
        """What is on the engine now, asked for side by side. Raises UserError."""
        with ThreadPoolExecutor() as pool:
            leads_to, info = pool.submit(endpoint), pool.submit(lambda: self._info)
            networks, containers = pool.submit(self.networks), pool.submit(self._inspected, "container", "--all")
            info.result()  # the engine first: it says best why nothing answers
            leads_to.result()
            return Found(networks.result(), inventory.containers(containers.result(), networks.result()))

    def state(self, name: str) -> str | None:
        """How a container is, as Docker says it; None where there is none of that name."""
        words = [*self.command, "container", "inspect", "--format", "{{.State.Status}}", name]
        run = subprocess.run(words, capture_output=True, text=True, check=False)
        return run.stdout.strip() if run.returncode == 0 else None

    def networks(self) -> tuple[Network, ...]:
        """All networks of the engine."""
        return inventory.networks(self._inspected("network"))

    def containers(self) -> tuple[Container, ...]:
        """All containers of the engine, running or not, by name; of their networks no more than the names is known.

        Raises UserError, and of this kind UnreachableError when no engine answers.
        """
        with ThreadPoolExecutor() as pool:
            info, containers = pool.submit(lambda: self._info), pool.submit(self._inspected, "container", "--all")
            info.result()  # which says best why nothing answers
            return inventory.containers(containers.result(), [])

    def volumes(self, *names: str) -> Mapping[str, Mapping[str, str]]:
        """The labels of those of these volumes that there are."""
        listed = json.loads(self._run("volume", "inspect", *names) or "[]")
        return {one["Name"]: one.get("Labels") or {} for one in listed}

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
        return _machine(endpoint()) or THIS_COMPUTER
    except (OSError, UserError):
        return None


@cache
def endpoint() -> str:
    """The endpoint of Docker's current context, such as unix:///var/run/docker.sock; it is asked for once.

    Raises OSError, UserError.
    """
    asked = subprocess.run([DOCKER, "context", "inspect"], capture_output=True, text=True, check=False)
    if asked.returncode != 0:
        raise UserError(f"Docker refused: {most_telling(asked.stderr)}")
    (context,) = json.loads(asked.stdout)
    return str(((context.get("Endpoints") or {}).get(DOCKER) or {}).get("Host") or "unix:///var/run/docker.sock")


def _machine(endpoint_: str) -> str | None:
    """The machine of an endpoint such as ssh://root@engine.example.org:22; none for this computer's own.

    A virtual machine of this computer's is reached at a loopback address, too, and publishes its ports here.
    """
    if endpoint_.startswith(("unix:", "npipe:")):
        return None
    name = urlsplit(endpoint_).hostname
    address = address_or_none(name or "")
    return None if name == "localhost" or (address and address.is_loopback) else name
