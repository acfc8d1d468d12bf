"""A project's services on its engine, through Compose. What Docker refuses raises UserError."""

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import cast

from python_on_whales import Container as WhaleContainer
from python_on_whales.exceptions import DockerException

from devkit.answers import Answers
from devkit.errors import UserError, most_telling
from devkit.facts import Container
from devkit.inventory import BRIDGE_NAME_OPTION, FOLDER_LABEL, PROJECT_LABEL
from devkit.material.state import https_fingerprint
from devkit.sites.delivery import VOLUME_LABEL, Delivery
from devkit.sites.docker import Docker, explained, lines
from devkit.sites.image import Image
from devkit.sites.ownership import (
    BRIDGE,
    DNS,
    FIREWALL,
    FORMER_BRIDGE,
    NAMES,
    OF_NAMES,
    PROXY,
    REDIRECT,
    SERVER,
    Identity,
    identity_of,
    is_a_devkits,
    server_of_other_keys,
)

HEALTH_CHECKS: Mapping[str, list[str]] = {
    SERVER: ["vpn.sh", "check"],
    FIREWALL: ["firewall.sh", "check"],
    NAMES: ["test", "-e", "/run/written"],
    DNS: ["dns.sh", "check"],
    PROXY: ["proxy.sh", "check"],
    REDIRECT: ["network.sh", "redirect", "check"],
}
VOLUMES_OF_NAMES = ("names", "status", "redirections")  # in compose.yaml
FINGERPRINT_LABEL = "d4m-devkit.material"
HEALTHY_SECONDS = 120
MOST_RESTARTS = 3  # of a service that does not become healthy; then waiting longer helps nobody


class Services:
    """What compose.yaml describes, and what earlier versions of it left on the engine."""

    def __init__(self, project: Path, answers: Answers) -> None:
        self._project = project
        self._project_name = answers.project_name
        self._listen = str(answers.vpn_listen)
        self._has_names = bool(answers.dns_domain)
        self._services = (FIREWALL, SERVER, *(OF_NAMES if answers.dns_domain else ()))
        self.docker = Docker(project)
        self.image = Image(self.docker, answers.image, project / "gateway")
        others = (f"{answers.project_name}-{name}" for name in (NAMES, PROXY))
        self._images = (self.image, *(Image(self.docker, name, project / "gateway") for name in others))
        self.delivery = Delivery(project, answers.project_name, self.docker, self.image, https=self._has_names)

    def identity(self) -> Identity:
        """What the project recognizes its own by now."""
        return identity_of(self._project, self._project_name)

    def own(self) -> tuple[Container, ...]:
        """The project's own services, running or not."""
        return tuple(filter(self.identity().owns, self.docker.labelled(FOLDER_LABEL)))

    def running(self) -> tuple[Container, ...]:
        """The project's own services that run."""
        return tuple(filter(self.identity().owns, self.docker.labelled(FINGERPRINT_LABEL, running=True)))

    def others(self) -> tuple[Container, ...]:
        """Others' containers that are in the way, running or not: another devkit's server, a project of our name."""
        found = [
            *self.docker.labelled(FINGERPRINT_LABEL),
            *self.docker.labelled(f"{PROJECT_LABEL}={self._project_name}"),
        ]
        identity = self.identity()
        return tuple(container for container in found if not identity.owns(container))

    def loaded(self) -> str | None:
        """The fingerprint of what the running server has read; None when nothing runs, empty when only others do."""
        self.docker.engine()
        for container in self.running():
            if container.service != SERVER:
                return ""
            return container.labels[FINGERPRINT_LABEL]
        return None

    def in_server(self) -> list[str]:
        """The words that run a program in the server's container with its standard input."""
        (name,) = (container.name for container in self.running() if container.service == SERVER)
        return [*self.docker.command, "exec", "--interactive", name]

    def start(self, fingerprint: str) -> Iterator[str]:
        """Start the services and wait until all are healthy; give what happens meanwhile.

        `fingerprint` is that of what the server must have read; a server that read something else is replaced, and so
        is what this folder had started under another name or in another layout. Raises UserError that quotes the
        service that does not become healthy.
        """
        serial_number = self.identity().serial_numbers[-1]
        os.environ |= {"D4M_MATERIAL": fingerprint, "D4M_SERVER": serial_number, "D4M_LISTEN": self._listen}
        os.environ["D4M_HTTPS"] = https_fingerprint(self._project)
        with explained():
            yield from self._remove_former()
        if self.delivery.begin():
            yield "bringing the keys to the engine"
            self.delivery.deliver()
        try:
            yield from self._up()
        except UserError:
            if not self.running():
                raise
            # The DNS cannot join the network of a server that is starting again. One that goes on so is quoted here.
            yield from self._waiting((FIREWALL, SERVER))
            yield from self._up()
        self._remove_volumes_of_names()
        yield from self._waiting(self._services)

    @explained()
    def stop(self, images: bool) -> None:
        """Remove the services, their network, the firewall's rules and, if asked, the image.

        Raises UserError, also when rules are left.
        """
        others, identity = self.others(), self.identity()
        for container in others:
            if is_a_devkits(container) and identity.started_here(container):
                raise UserError("{}: {}.".format(*server_of_other_keys(container)))
            if container.project == self._project_name:
                raise UserError(
                    f"the Compose project {container.project} on this engine is another one, in {container.folder}: "
                    "nothing was taken down."
                )
        deque(self._remove_former(images), maxlen=0)
        self.docker.client.compose.stop(stream_logs=False)
        # The rules of a devkit that is up stay: an engine has one at a time.
        left = self._remove_rules() if self.image.exists() and not others else None
        self.docker.client.compose.down(remove_orphans=True, volumes=True, quiet=True)
        self._remove_volumes_of_names()
        self.delivery.remove()
        self.delivery.forget()
        if images:
            for image in self._images:
                image.remove()
        if left:
            raise UserError(f"all is down, but these rules could not be removed from the engine's machine: {left}")

    def _up(self) -> Iterator[str]:
        return lines(self.docker.client.compose.up(detach=True, remove_orphans=True, stream_logs=True))

    def _waiting(self, services: Iterable[str]) -> Iterator[str]:
        for service in services:
            yield f"waiting for {service}"
            self._wait_for(service)

    @explained()
    def _wait_for(self, service: str) -> None:
        """Wait until a service passes its own check: sooner than the engine, which looks every 10 seconds."""
        compose = self.docker.client.compose
        deadline = time.monotonic() + HEALTHY_SECONDS
        while time.monotonic() < deadline:
            for container in compose.ps([service]):
                if self._is_healthy(container, service):
                    return
                if container.restart_count >= MOST_RESTARTS:
                    deadline = 0
            time.sleep(0.2)
        words = compose.logs(service, tail="20", no_log_prefix=True)
        raise UserError(
            f"the service {service} did not become healthy ({most_telling(words)}): see "
            f"`docker compose logs {service}`."
        )

    def _is_healthy(self, container: WhaleContainer, service: str) -> bool:
        try:
            self.docker.client.container.execute(container, HEALTH_CHECKS[service])
        except DockerException:  # not yet, or it is starting again just now
            return False
        return True

    @explained()
    def _remove_volumes_of_names(self) -> None:
        """Remove what the answer `dns_domain` was there for, if it is empty now: Compose no longer knows of it."""
        if self._has_names:
            return
        for volume in self.docker.client.volume.list(filters=[("label", f"{PROJECT_LABEL}={self._project_name}")]):
            if (volume.labels or {}).get(VOLUME_LABEL) in VOLUMES_OF_NAMES:
                self.docker.client.volume.remove(volume)

    def _remove_rules(self) -> str | None:
        """Remove the rules that a killed firewall left; return those that could not be removed, or None."""
        # Detached, or it would read input that is meant for the user's shell.
        removal = cast(
            "WhaleContainer",
            self.docker.client.compose.run(
                FIREWALL, ["firewall.sh", "remove"], detach=True, tty=False, dependencies=False
            ),
        )
        failed = self.docker.client.container.wait(removal) != 0
        return str(self.docker.client.container.logs(removal)).strip() if failed else None

    def _remove_former(self, images: bool = True) -> Iterator[str]:
        """Remove what this folder had started under another project name or in another layout, and its network."""
        client = self.docker.client
        former = list(filter(self.identity().is_former, self.own()))
        # First the servers: a firewall keeps its rules as long as one is there.
        for container in sorted(former, key=lambda container: container.service == FIREWALL):
            yield f"removing {container.name}"
            client.container.stop(container.name)
            client.container.remove(container.name)
        for project in {str(container.project) for container in former}:
            for network in client.network.list(filters=[("label", f"{PROJECT_LABEL}={project}")]):
                bridge = (network.options or {}).get(BRIDGE_NAME_OPTION)
                if bridge == FORMER_BRIDGE or (project != self._project_name and bridge == BRIDGE):
                    client.network.remove(network)
            if project != self._project_name:
                self.delivery.remove()
        for image in {container.image for container in former} - {self.image.name}:
            if images and client.image.exists(image):
                client.image.remove(image)
