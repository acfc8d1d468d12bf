"""A Docker engine, through its user's own `docker`: what it says of itself. What it refuses raises UserError."""

import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from python_on_whales import Container as WhaleContainer
from python_on_whales import DockerClient
from python_on_whales import Network as WhaleNetwork
from python_on_whales.client_config import ClientNotFoundError
from python_on_whales.exceptions import DockerException

from devkit.addresses import ipv4_networks
from devkit.answers import THIS_COMPUTER
from devkit.errors import UnreachableError, UserError
from devkit.facts import Attachment, Container, Engine, Network
from devkit.layout import Layout

BRIDGE_NAME_OPTION = "com.docker.network.bridge.name"
PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
FOLDER_LABEL = "com.docker.compose.project.working_dir"
SERVER_LABEL = "d4m-devkit.server"


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

    @property
    def command(self) -> list[str]:
        """The words that every `docker` command begins with. Raises UserError when there is no Docker here."""
        try:
            return [str(word) for word in self.client.client_config.docker_cmd]
        except ClientNotFoundError:
            raise UnreachableError(
                "Docker is not installed here (there is no `docker` command): install it first."
            ) from None

    @explained()
    def engine(self) -> Engine:
        """Ask the engine for its facts. Raises UserError when there is no Docker here or no engine answers."""
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

    @explained()
    def networks(self) -> tuple[Network, ...]:
        """All networks of the engine."""
        return tuple(_network(network) for network in self.client.network.list())

    @explained()
    def containers(self) -> tuple[Container, ...]:
        """All running containers of the engine, ours included, by name."""
        networks = {network.name: network for network in self.networks()}
        containers = (_container(container, networks) for container in self.client.container.list())
        return tuple(sorted(containers, key=lambda container: container.name))

    @explained()
    def labelled(self, label: str, running: bool = False) -> list[Container]:
        """The containers with a label (NAME or NAME=VALUE); with `running`, only those that run."""
        found = self.client.container.list(all=not running, filters=[("label", label)])
        return [_container(container, {}) for container in found]


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


def _network(network: WhaleNetwork) -> Network:
    return Network(
        name=network.name,
        driver=network.driver or "",
        subnets=ipv4_networks(range_.get("Subnet", "") for range_ in network.ipam.config or []),
        bridge=(network.options or {}).get(BRIDGE_NAME_OPTION),
        project=(network.labels or {}).get(PROJECT_LABEL),
    )


def _container(container: WhaleContainer, networks: Mapping[str, Network]) -> Container:
    labels = container.config.labels or {}
    places = container.network_settings.networks or {}
    return Container(
        name=container.name,
        image=container.config.image or "",
        project=labels.get(PROJECT_LABEL),
        service=labels.get(SERVICE_LABEL),
        attachments=tuple(
            _attachment(networks.get(name, Network(name, "", (), None, None)), place.ip_address)
            for name, place in sorted(places.items())
        ),
        ports=tuple(sorted(container.config.exposed_ports or {}, key=lambda port: (len(port), port))),
        folder=labels.get(FOLDER_LABEL),
        server=labels.get(SERVER_LABEL),
    )


def _attachment(network: Network, address: str | None) -> Attachment:
    subnet = network.subnets[0] if network.subnets else None
    return Attachment(network.name, network.driver, subnet, IPv4Address(address) if address else None)
