"""The project's stack on its Docker engine: the one module that touches an engine.

What Docker refuses is raised as UserError.
"""

import hashlib
import json
import os
import re
import secrets
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from python_on_whales import Container as WhaleContainer
from python_on_whales import DockerClient
from python_on_whales import Network as WhaleNetwork
from python_on_whales.client_config import ClientNotFoundError
from python_on_whales.exceptions import DockerException

from devkit import management
from devkit.answers import ANY_ADDRESS, CHANGE_ANSWER, THIS_COMPUTER, Answers
from devkit.delivery import archive
from devkit.errors import UserError, most_telling
from devkit.facts import Attachment, Container, Engine, Network, Session
from devkit.files import BESIDE, PRIVATE, replace_all, write
from devkit.material import delivered_mark, local_folder, locked, server_serial_numbers

SERVER, FIREWALL = "vpn", "firewall"
SERVICES = (FIREWALL, SERVER)
CHECKS = {SERVER: ["vpn.sh", "check"], FIREWALL: ["firewall.sh", "check"]}
BRIDGE = "d4m"
# What projects of before had, the server first: it must be gone before the firewall takes its rules away.
FORMER_SERVICES = ("openvpn", "relay")
FORMER_BRIDGE = "d4m-relay"
BRIDGE_NAME_OPTION = "com.docker.network.bridge.name"
PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
FOLDER_LABEL = "com.docker.compose.project.working_dir"
MATERIAL_LABEL = "d4m-devkit.material"
MATERIAL_VARIABLE = "D4M_MATERIAL"
LISTEN_VARIABLE = "D4M_LISTEN"
SERVER_LABEL = "d4m-devkit.server"
SERVER_VARIABLE = "D4M_SERVER"
VOLUME_LABEL = "com.docker.compose.volume"
DELIVERED_LABEL = "d4m-devkit.delivered"
HEALTHY_SECONDS = 120
ENDING_SECONDS = 20  # how long the containers of a pod that was deleted may still have its image
MOST_RESTARTS = 3  # of a service that does not become healthy; then waiting longer helps nobody


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what Docker refuses into one sentence."""
    try:
        yield
    except DockerException as error:
        lines = (error.stderr or "").strip().splitlines() or [f"docker exited with {error.return_code}"]
        raise UserError(f"Docker refused: {lines[-1].strip()}") from error


class Stack:
    """One project's services, and the engine that they run on."""

    def __init__(self, project: Path, answers: Answers) -> None:
        self.project_name = answers.project_name
        self._project = project
        self._image = answers.image
        self._listen = str(answers.vpn_listen)
        self._docker = DockerClient(compose_files=[project / "compose.yaml"], compose_project_directory=project)

    @_explained()
    def engine(self) -> Engine:
        """Ask the engine who it is.

        Raises UserError when there is no Docker here or no engine answers.
        """
        try:
            command = [str(word) for word in self._docker.client_config.docker_cmd]
        except ClientNotFoundError:
            raise UserError("Docker is not installed here (there is no `docker` command): install it first.") from None
        answer = subprocess.run(
            [*command, "info", "--format", "{{json .}}"], capture_output=True, text=True, check=False
        )
        info = cast("dict[str, object]", json.loads(answer.stdout)) if answer.stdout.startswith("{") else {}
        if answer.returncode != 0 or not info.get("ServerVersion"):
            said = (answer.stderr.strip().splitlines() or ["it said nothing"])[-1].removeprefix("ERROR: ")
            raise UserError(
                f"the Docker engine at {self._host()} does not answer ({said.rstrip('.')}): start it and try again."
            )
        backend = info.get("FirewallBackend")
        return Engine(
            name=str(info.get("Name", "")),
            version=str(info["ServerVersion"]),
            operating_system=str(info.get("OperatingSystem", "")),
            firewall_backend=str(backend.get("Driver", "")) if isinstance(backend, dict) else "",
            host=_machine(self._host()),
        )

    def require_compose(self) -> None:
        """Raise UserError unless Compose v2 is there."""
        if not self._docker.compose.is_installed():
            raise UserError(
                "Docker Compose v2 is not installed here (`docker compose version` fails): install the Compose plugin."
            )

    @_explained()
    def networks(self) -> tuple[Network, ...]:
        """All networks of the engine."""
        return tuple(_network(network) for network in self._docker.network.list())

    @_explained()
    def containers(self) -> tuple[Container, ...]:
        """All running containers of the engine, ours included, by name."""
        networks = {network.name: network for network in self.networks()}
        containers = (_container(container, networks) for container in self._docker.container.list())
        return tuple(sorted(containers, key=lambda container: container.name))

    def is_ours(self, container: Container) -> bool:
        """Whether a container is one of this project's own services, under whatever name and of whatever version.

        It is known by a certificate that this project's server has had, which outlives every change of answers and of
        folders; without one, by its folder.
        """
        if container.service not in (*SERVICES, *FORMER_SERVICES):
            return False
        if container.server:
            return container.server in server_serial_numbers(self._project)
        return container.folder is not None and Path(container.folder).resolve() == self._project.resolve()

    @_explained()
    def own(self) -> tuple[Container, ...]:
        """Find this project's own services, running or not. Raises UserError."""
        return tuple(container for container in self._labelled(FOLDER_LABEL) if self.is_ours(container))

    @_explained()
    def others(self) -> tuple[Container, ...]:
        """What of other folders is in the way, running or not: another devkit's server, a project of our name.

        Raises UserError.
        """
        found = [*self._labelled(MATERIAL_LABEL), *self._labelled(f"{PROJECT_LABEL}={self.project_name}")]
        return tuple(container for container in found if not self.is_ours(container))

    @_explained()
    def check_others(self) -> None:
        """Raise UserError when something of others is in the way.

        An engine holds one devkit, because a bridge has one name; and Compose would take a project of our name over.
        """
        rename = f"give this one another name with `{CHANGE_ANSWER} project_name=NAME`."
        for container in self.others():
            if container.service in (*SERVICES, *FORMER_SERVICES):
                raise UserError(
                    f"another devkit, {container.project} in {container.folder}, is on this engine: take it down first "
                    "(`python scripts/down.py` in its folder)."
                )
            raise UserError(f"the Compose project in {container.folder} is called {container.project}, too: {rename}")
        ours = {self.project_name, *(container.project for container in self.own())}
        for network in self.networks():
            if network.bridge in (BRIDGE, FORMER_BRIDGE) and network.project not in ours:
                raise UserError(
                    f"the network {network.name} of another devkit is on this engine: remove it first "
                    f"(`docker network rm {network.name}`)."
                )
        for volume in (f"{self.project_name}_server", f"{self.project_name}_configs"):
            if self._docker.volume.exists(volume):
                labels = self._docker.volume.inspect(volume).labels or {}
                if labels.get(DELIVERED_LABEL) not in server_serial_numbers(self._project):
                    raise UserError(f"the volume {volume} on this engine is not this project's: remove it, or {rename}")

    def build(self) -> Iterator[str]:
        """Build the image, and give what the build prints line by line. Raises UserError."""
        # An attestation holds the time, and with it what is the same would be another image: it would replace the
        # services and drop every session.
        os.environ["BUILDX_NO_DEFAULT_ATTESTATIONS"] = "1"
        return _lines(self._docker.compose.build(stream_logs=True, progress="plain"))

    @_explained()
    def tag_by_content(self) -> str:
        """Give the image a tag of its own, so that no node takes an older one for it; return the tag.

        It comes from the layers, which the build's cache keeps, not from the image's identity, which may hold the time.
        Raises UserError.
        """
        image = self._docker.image.inspect(self._image)
        tag = hashlib.sha256(repr(image.root_fs.layers).encode()).hexdigest()[:12]
        self._docker.image.tag(image, f"{self._image}:{tag}")
        return tag

    def push(self, platforms: Sequence[str]) -> Iterator[str]:
        """Build the image for these platforms (linux/arm64), push it, and give what the build prints.

        Raises UserError.
        """
        stream = self._docker.buildx.build(
            self._project / "gateway", tags=self._image, platforms=list(platforms), push=True, stream_logs=True
        )
        with _explained():
            yield from (line.strip() for line in cast("Iterator[str]", stream) if line.strip())

    def pushed_digest(self) -> str:
        """The digest of what the registry has under the image's name: sha256 and 64 hexadecimal digits.

        Raises UserError.
        """
        docker = [str(word) for word in self._docker.client_config.docker_cmd]
        inspect = [*docker, "buildx", "imagetools", "inspect", self._image]
        answer = subprocess.run(inspect, capture_output=True, text=True, check=False)
        found = re.search(r"^Digest: +(sha256:[0-9a-f]{64})$", answer.stdout, re.MULTILINE)
        if not found:
            raise UserError(f"the registry does not show {self._image}: {most_telling(answer.stderr)}.")
        return found[1]

    def start(self, material: str) -> Iterator[str]:
        """Start the services and wait until all are healthy; give what happens meanwhile.

        `material` is the fingerprint of what the server must have read; a server that read something else is replaced,
        and so is what this folder had started under another name or in another layout.
        Raises UserError that quotes the service which does not become healthy.
        """
        self.check_others()
        os.environ |= {
            MATERIAL_VARIABLE: material,
            SERVER_VARIABLE: server_serial_numbers(self._project)[-1],
            LISTEN_VARIABLE: self._listen,
        }
        with _explained():
            yield from self._remove_former()
        mark = delivered_mark(self._project)
        if self._sees_folder():
            mark.unlink(missing_ok=True)
        else:
            yield "bringing the keys to the engine"
            replace_all([(mark, self._identity().encode(), PRIVATE)])
            self.deliver()
            os.environ |= {"D4M_SOURCE": "volume", "D4M_SERVER_SOURCE": "server", "D4M_CONFIGS_SOURCE": "configs"}
        yield from _lines(self._docker.compose.up(detach=True, remove_orphans=True, stream_logs=True))
        for service in SERVICES:
            yield f"waiting for {service}"
            self._wait_for(service)

    @_explained()
    def _wait_for(self, service: str) -> None:
        """Wait until a service passes its own check: sooner than the engine, which looks every 10 seconds."""
        deadline = time.monotonic() + HEALTHY_SECONDS
        while time.monotonic() < deadline:
            for container in self._docker.compose.ps([service]):
                if self._passes(container, CHECKS[service]):
                    return
                if container.restart_count >= MOST_RESTARTS:
                    deadline = 0
            time.sleep(0.2)
        words = self._docker.compose.logs(service, tail="20", no_log_prefix=True)
        raise UserError(
            f"the service {service} did not become healthy ({most_telling(words)}): see "
            f"`docker compose logs {service}`."
        )

    @_explained()
    def check_port_there(self, answers: Answers) -> None:
        """Raise UserError when something else on the engine's own machine has the port; the image must be there."""
        kind = "-t" if answers.vpn_protocol == "tcp" else "-u"
        listing = self._in_image("--network=host", "ss", "-H", "-l", "-n", kind, f"sport = :{answers.vpn_port}")
        addresses = {line.split()[3].rsplit(":", 1)[0] for line in listing.stdout.decode().splitlines()}
        # Who listens everywhere is in the way of each address, and each address in the way of who wants them all.
        everywhere = {str(ANY_ADDRESS), "*", "[::]"}
        if addresses and (answers.vpn_listen == ANY_ADDRESS or addresses & {str(answers.vpn_listen), *everywhere}):
            raise UserError(
                f"{answers.vpn_listen}:{answers.vpn_port}/{answers.vpn_protocol} is taken by another program on the "
                f"engine's machine: free it, or choose another with `{CHANGE_ANSWER} vpn_port=NUMBER`."
            )

    def _sees_folder(self) -> bool:
        """Whether the engine sees this project's folder: found out by trying."""
        configs = local_folder(self._project) / "configs"
        token = configs / f"{BESIDE}probe"
        token.unlink(missing_ok=True)
        write(token, secrets.token_bytes(16), 0o644)
        try:
            mount = f"--mount=type=bind,source={configs.resolve()},target=/probe,readonly"
            return self._in_image(mount, "cat", f"/probe/{token.name}").stdout == token.read_bytes()
        finally:
            token.unlink()

    @_explained()
    def deliver(self) -> None:
        """Bring what the services read to volumes of the engine, which does not see this folder. Raises UserError."""
        if delivered_mark(self._project).read_text() != self._identity():
            raise UserError(
                "the server is on another engine than the one that Docker's context leads to now: choose that."
            )
        folders = {"server": self._project / "server", "configs": local_folder(self._project) / "configs"}
        with locked(self._project):  # or an older state might come after a newer one
            for name, folder in folders.items():
                volume = f"{self.project_name}_{name}"
                if not self._docker.volume.exists(volume):
                    serial = server_serial_numbers(self._project)[-1]
                    labels = {PROJECT_LABEL: self.project_name, VOLUME_LABEL: name, DELIVERED_LABEL: serial}
                    self._docker.volume.create(volume, labels=labels)
                mount = f"--mount=type=volume,source={volume},target=/delivered"
                received = self._in_image(mount, "receive.sh", "/delivered", given=archive(folder.resolve()))
                if received.returncode != 0:
                    raise UserError(f"the engine did not take {folder}: {most_telling(received.stderr.decode())}.")

    def _identity(self) -> str:
        """What tells this engine from all others."""
        return str(self._docker.system.info().id)

    def _in_image(self, option: str, *command: str, given: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        """Run a command in the image, as root without any right but a root's own files; nothing of it is logged."""
        docker = [str(word) for word in self._docker.client_config.docker_cmd]
        network = [] if option.startswith("--network") else ["--network=none"]
        options = [
            "--rm",
            "--interactive",
            "--pull=never",
            "--log-driver=none",
            "--user=root",
            "--cap-drop=ALL",
            "--read-only",
        ]
        words = [*docker, "run", *options, *network, option, self._image, *command]
        return subprocess.run(words, input=given, capture_output=True, check=False)

    def _passes(self, container: WhaleContainer, check: Sequence[str]) -> bool:
        try:
            self._docker.container.execute(container, check)
        except DockerException:  # not yet, or it is starting again just now
            return False
        return True

    @_explained()
    def running_material(self) -> str | None:
        """The fingerprint of what the running server has read, or None when it is not running.

        Raises UserError when the engine does not answer.
        """
        self.engine()
        for container in self._labelled(MATERIAL_LABEL, running=True):
            if self.is_ours(container):
                labels = self._docker.container.inspect(container.name).config.labels or {}
                return labels[MATERIAL_LABEL] if container.service == SERVER else ""
        return None

    @_explained()
    def sessions(self) -> tuple[Session, ...]:
        """The connected clients, none when the server is not running. Raises UserError as `running_material`."""
        if not self.running_material():
            return ()
        return management.sessions(self._in_server())

    def end_sessions(self, client: str) -> int:
        """End a client's sessions, and tell it not to come back. Returns how many there were."""
        return management.end_sessions(self._in_server(), client) if self.running_material() else 0

    def _in_server(self) -> list[str]:
        """What runs a program in the server's container."""
        (name,) = (one.name for one in self._labelled(MATERIAL_LABEL, running=True) if self.is_ours(one))
        return [*map(str, self._docker.client_config.docker_cmd), "exec", "--interactive", name]

    @_explained()
    def stop(self, images: bool) -> None:
        """Remove the services, their network, the firewall's rules and, if asked, the image.

        Raises UserError, also when rules are left.
        """
        others = self.others()
        for container in others:
            if container.project == self.project_name:
                raise UserError(
                    f"what is called {self.project_name} on this engine is another project's, in {container.folder}: "
                    "nothing was taken down."
                )
        for _ in self._remove_former(images):
            pass
        self._docker.compose.stop(stream_logs=False)
        # The rules of a devkit that is up stay: an engine has one at a time.
        left = self._remove_rules() if self._docker.image.exists(self._image) and not others else None
        self._docker.compose.down(remove_orphans=True, quiet=True)
        self._remove_volumes()
        delivered_mark(self._project).unlink(missing_ok=True)
        if images:
            self.remove_images()
        if left:
            raise UserError(f"all is down, but these rules could not be taken from the engine's machine: {left}")

    def _remove_rules(self) -> str | None:
        """Take the rules away that a firewall left which was killed; what could not be removed, or None."""
        # Detached, or it would read what is meant for the user's shell.
        removal = cast(
            "WhaleContainer",
            self._docker.compose.run(FIREWALL, ["firewall.sh", "remove"], detach=True, tty=False, dependencies=False),
        )
        failed = self._docker.container.wait(removal) != 0
        return str(self._docker.container.logs(removal)).strip() if failed else None

    def _remove_former(self, images: bool = True) -> Iterator[str]:
        """Remove what this folder had started under another project name or in another layout, and its network."""
        former = [one for one in self.own() if one.project != self.project_name or one.service in FORMER_SERVICES]
        # First the servers: a firewall keeps its rules as long as one is there.
        for container in sorted(former, key=lambda container: container.service == FIREWALL):
            yield f"removing {container.name}"
            self._docker.container.stop(container.name)
            self._docker.container.remove(container.name)
        for project in {str(container.project) for container in former}:
            for network in self._docker.network.list(filters=[("label", f"{PROJECT_LABEL}={project}")]):
                bridge = (network.options or {}).get(BRIDGE_NAME_OPTION)
                if bridge == FORMER_BRIDGE or (project != self.project_name and bridge == BRIDGE):
                    self._docker.network.remove(network)
            if project != self.project_name:
                self._remove_volumes()
        for image in {container.image for container in former} - {self._image}:
            if images and self._docker.image.exists(image):
                self._docker.image.remove(image)

    def _remove_volumes(self) -> None:
        """Remove what was delivered, under whatever project name."""
        own = server_serial_numbers(self._project)
        for volume in self._docker.volume.list(filters=[("label", DELIVERED_LABEL)]):
            if (volume.labels or {}).get(DELIVERED_LABEL) in own:
                self._docker.volume.remove(volume)

    @_explained()
    def remove_images(self) -> None:
        """Remove the image from the engine, under all its tags. Raises UserError."""
        for image in self._docker.image.list(self._image):
            for name in image.repo_tags or []:
                if name.startswith(f"{self._image}:"):  # the user may have given it other names
                    self._remove_image(name)

    def _remove_image(self, name: str) -> None:
        deadline = time.monotonic() + ENDING_SECONDS
        while True:
            try:
                self._docker.image.remove(name)
                break
            except DockerException:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def _labelled(self, label: str, running: bool = False) -> list[Container]:
        """The containers with a label, or with a label of a value (NAME=VALUE)."""
        found = self._docker.container.list(all=not running, filters=[("label", label)])
        return [_container(container, {}) for container in found]

    def _host(self) -> str:
        return _endpoint(self._docker)


def host_of_context() -> str | None:
    """The host that Docker's context leads to, as its name stands there; no engine is asked.

    None where that is not known: there is no `docker` command, or no such context.
    """
    try:
        return _machine(_endpoint(DockerClient())) or THIS_COMPUTER
    except (ClientNotFoundError, DockerException):
        return None


def _endpoint(docker: DockerClient) -> str:
    endpoints = docker.context.inspect(None).endpoints or {}
    endpoint = endpoints.get("docker")
    return (endpoint.host if endpoint else None) or "unix:///var/run/docker.sock"


def _machine(endpoint: str) -> str | None:
    """The machine of an endpoint such as ssh://root@engine.example.org:22; none for this computer's own."""
    if endpoint.startswith(("unix:", "npipe:")):
        return None
    return urlsplit(endpoint).hostname


def _network(network: WhaleNetwork) -> Network:
    ranges = network.ipam.config or []
    return Network(
        name=network.name,
        driver=network.driver or "",
        subnets=tuple(IPv4Network(range_["Subnet"]) for range_ in ranges if ":" not in range_.get("Subnet", ":")),
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


def _lines(stream: Iterable[tuple[str, bytes]]) -> Iterator[str]:
    with _explained():
        for _, chunk in stream:
            line = chunk.decode(errors="replace").strip()
            if line:
                yield line
