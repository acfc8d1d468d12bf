"""A project's services on its engine, through Compose. What Docker refuses raises UserError."""

import os
import re
import subprocess
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, cast

from devkit.answers import Answers
from devkit.errors import UserError, most_telling
from devkit.facts import PAUSED, PODMAN_SOCKET, RUNNING, SILENT, Container, Part
from devkit.inventory import BRIDGE_NAME_OPTION, PROJECT_LABEL, SERVER_LABEL
from devkit.material.state import https_fingerprint
from devkit.sites.delivery import VOLUME_LABEL, Delivery
from devkit.sites.docker import Docker, Found, explained
from devkit.sites.image import Image, are_built, build
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

if TYPE_CHECKING:
    from python_on_whales import Container as WhaleContainer

HEALTH_CHECKS: Mapping[str, list[str]] = {
    SERVER: ["vpn.sh", "check"],
    FIREWALL: ["firewall.sh", "check"],
    NAMES: ["test", "-e", "/run/written"],
    DNS: ["dns.sh", "check"],
    PROXY: ["proxy.sh", "check"],
    REDIRECT: ["network.sh", "redirect", "check"],
}
WRITTEN = {SERVER: ("/etc/hosts", "/run/vpn"), NAMES: ("/run/names",), PROXY: ("/run/redirections",)}
TROUBLES: Mapping[int | None, str | None] = {0: None, 3: SILENT}  # by the exit codes of the checks, as in vpn.sh
STOPPED = {"exited": "stopped", "created": "not started", "dead": "stopped", PAUSED: PAUSED}  # by Docker's states
VOLUMES_OF_NAMES = ("names", "status", "redirections")  # in compose.yaml
JOINED = (DNS, PROXY, REDIRECT)  # what is in the server's network, in compose.yaml
UNTOUCHED = re.compile(r"^Container \S+ +Running$")  # what Compose says of a container that it leaves as it is
STAYS = re.compile(rf"-{SERVER}-\d+ +Running$", re.MULTILINE)  # in what Compose would do
FINGERPRINT_LABEL = "d4m-devkit.material"
HEALTHY_SECONDS = 120
LOOK_SECONDS = 2  # until the engine is asked again what has become of the services
MOST_RESTARTS = 3  # of a service that does not become healthy; then waiting longer helps nobody


class Services:
    """What compose.yaml describes, and what earlier versions of it left on the engine."""

    def __init__(self, project: Path, answers: Answers) -> None:
        self._project = project
        self._project_name = answers.project_name
        self._listen = str(answers.vpn_listen)
        self._has_names = bool(answers.dns_domain)
        self._services = (FIREWALL, SERVER, *(OF_NAMES if answers.dns_domain else ()))
        self._passed: set[tuple[str, str]] = set()  # the containers that were waited for, and when they were started
        self._undisturbed: set[tuple[str, str]] = set()  # those that were healthy before, and when they were started
        self._seen: Found | None = None  # what was on the engine when all was healthy
        self.docker = Docker(project)
        self.image = Image(self.docker, answers.image, project)
        others = {name: Image(self.docker, f"{answers.project_name}-{name}", project) for name in (NAMES, PROXY)}
        self._images = {SERVER: self.image} | others  # by the service that says how to build it
        self.delivery = Delivery(project, answers.project_name, self.docker, self.image, https=self._has_names)

    def identity(self) -> Identity:
        """What the project recognizes its own by now."""
        return identity_of(self._project, self._project_name)

    def own(self, containers: Iterable[Container]) -> tuple[Container, ...]:
        """The project's own services, running or not, among an engine's containers."""
        return tuple(filter(self.identity().owns, containers))

    def others(self, containers: Iterable[Container]) -> tuple[Container, ...]:
        """Others' containers that are in the way, running or not: another devkit's server, a project of our name."""
        identity = self.identity()
        return tuple(
            container
            for container in containers
            if (FINGERPRINT_LABEL in container.labels or container.project == self._project_name)
            and not identity.owns(container)
        )

    def parts(self, containers: Iterable[Container]) -> tuple[tuple[Part, ...], list[str] | None]:
        """Each service, and what keeps it from its work; and what `server` gives, for which nothing more is asked."""
        found = {str(one.service): one for one in self.own(containers) if SERVER_LABEL in one.labels}
        with ThreadPoolExecutor() as pool:
            troubles = pool.map(lambda name: self._trouble(name, found.get(name)), self._services)
            parts = tuple(map(Part, self._services, troubles))
        works = any(part.name == SERVER and not part.trouble for part in parts)
        return parts, self._inside(found[SERVER].name) if works else None

    def loaded(self, containers: Iterable[Container]) -> str | None:
        """The fingerprint of what the running server has read; None when nothing runs, empty when only others do."""
        for container in self._servers(containers):
            return container.labels[FINGERPRINT_LABEL] if container.service == SERVER else ""
        return None

    def server(self, containers: Iterable[Container]) -> list[str] | None:
        """The words that run a program in the server's container, if it runs."""
        names = [container.name for container in self._servers(containers) if container.service == SERVER]
        return self._inside(names[0]) if names else None

    def _servers(self, containers: Iterable[Container]) -> list[Container]:
        """Those of its own servers that run, of earlier versions, too."""
        return [one for one in self.own(containers) if FINGERPRINT_LABEL in one.labels and one.state in RUNNING]

    def runs(self, containers: Iterable[Container]) -> bool:
        """Whether a server of its own runs, so that the port is its own."""
        return bool(self._servers(containers))

    def inside(self) -> Mapping[str, list[str]]:
        """The words that run a program in each service's container that there is, with its standard input."""
        return {str(one.service): self._inside(one.name) for one in self.own(self.docker.containers())}

    def _inside(self, container: str) -> list[str]:
        return [*self.docker.command, "exec", "--interactive", container]

    def full_disks(self) -> tuple[str, ...]:
        """Where the services that run cannot write any more."""
        inside = self.inside()
        asked = [service for service in WRITTEN if service in inside]
        with ThreadPoolExecutor() as pool:
            full = pool.map(lambda service: _full(inside[service], WRITTEN[service]), asked)
            return tuple(f"{service}: {path}" for service, paths in zip(asked, full, strict=True) for path in paths)

    def logs(self) -> Mapping[str, str]:
        """The last lines of each service."""
        return {service: self._log(service, 200) for service in self._services}

    def are_built(self) -> bool:
        """Whether the engine has the images of the services as they would be built now."""
        return are_built(self.docker, self._project, self._to_build().values())

    def build(self, anew: bool) -> Iterator[str]:
        """Build them, and give what the build prints."""
        return build(self.docker, self._project, self._to_build(), anew)

    def _to_build(self) -> Mapping[str, Image]:
        return {name: image for name, image in self._images.items() if name in self._services}

    def start(self, fingerprint: str, before: Found) -> Iterator[str]:
        """Start the services and wait until all are healthy; give what happens meanwhile.

        `before` is what is on the engine, as seen just now. `fingerprint` is that of what the server must have read; a
        server that read something else is replaced, and so is what this folder had started under another name or in
        another layout. Raises UserError that quotes the service that does not become healthy.
        """
        serial_number = self.identity().serial_numbers[-1]
        os.environ |= {"D4M_MATERIAL": fingerprint, "D4M_SERVER": serial_number, "D4M_LISTEN": self._listen}
        os.environ["D4M_HTTPS"] = https_fingerprint(self._project)
        if self.docker.engine().is_podman:
            os.environ.setdefault("D4M_SOCKET", PODMAN_SOCKET)
        own = self.own(before.containers)
        with explained():
            yield from self._remove_former(own)
        # What goes on undisturbed is as healthy as it was; who has been started anew, the engine looks at later.
        self._undisturbed = {(one.id, one.started) for one in own if one.health == "healthy"}
        if self.delivery.begin(next((one for one in own if one.labels.get(FINGERPRINT_LABEL) == fingerprint), None)):
            yield "bringing the keys to the engine"
            self.delivery.deliver()
        if self.docker.engine().is_podman:
            yield from self._make_way(own)
        said = []
        try:
            for line in self._up():
                said.append(line)
                yield line
        except UserError:
            if not self.runs(self.docker.containers()):
                raise
            # The DNS cannot join the network of a server that is starting again. One that goes on so is quoted here.
            yield from self._waiting((FIREWALL, SERVER))
            yield from self._up()
        self._remove_volumes_of_names()
        yield from self._waiting(self._services, before if said and all(map(UNTOUCHED.match, said)) else None)

    def take_look(self) -> Found | None:
        """What was on the engine when `start` found all healthy; once, for it does not stay so."""
        seen, self._seen = self._seen, None
        return seen

    @explained()
    def stop(self, images: bool) -> None:
        """Remove the services, their network, the firewall's rules and, if asked, the image.

        Raises UserError, also when rules are left.
        """
        containers, identity = self.docker.containers(), self.identity()
        others = self.others(containers)
        for container in others:
            if is_a_devkits(container) and identity.started_here(container):
                raise UserError("{}: {}.".format(*server_of_other_keys(container)))
            if container.project == self._project_name:
                raise UserError(
                    f"the Compose project {container.project} on this engine is another one, in {container.folder}: "
                    "nothing was taken down."
                )
        deque(self._remove_former(self.own(containers), images), maxlen=0)
        self.docker.client.compose.stop(stream_logs=False)
        # The rules of a devkit that is up stay: an engine has one at a time.
        left = self._remove_rules() if self.image.exists() and not others else None
        self.docker.client.compose.down(remove_orphans=True, volumes=True, quiet=True)
        self._remove_volumes_of_names()
        self.delivery.remove()
        self.delivery.forget()
        if images:
            for image in self._images.values():
                image.remove()
        if left:
            raise UserError(f"all is down, but these rules could not be removed from the engine's machine: {left}")

    def _make_way(self, own: Iterable[Container]) -> Iterator[str]:
        """Remove what has joined the server's network, if the server will be replaced: Podman wants that gone first."""
        joined = [one for one in own if one.service in JOINED]
        plan = [*self.docker.client.compose.docker_compose_cmd, "--dry-run", "up", "--detach", "--remove-orphans"]
        if joined and not STAYS.search(subprocess.run(plan, capture_output=True, text=True, check=False).stderr):
            yield f"removing {', '.join(one.name for one in joined)}"
            with explained():
                self.docker.client.container.remove([one.name for one in joined], force=True)

    def _up(self) -> Iterator[str]:
        return self.docker.compose("up", "--detach", "--remove-orphans")

    def _waiting(self, services: Iterable[str], seen: Found | None = None) -> Iterator[str]:
        """Wait until services pass their own checks: sooner than the engine, which looks every 30 seconds.

        What was `seen` where nothing has changed since is not asked again.
        """
        pending, deadline = list(services), time.monotonic() + HEALTHY_SECONDS
        while pending:
            yield f"waiting for {', '.join(pending)}"
            self._seen, seen = seen or self.docker.found(), None
            found = self._in_place(self.own(self._seen.containers))
            look_again = time.monotonic() + LOOK_SECONDS
            while pending and time.monotonic() < look_again:
                with ThreadPoolExecutor() as pool:
                    healthy = pool.map(self._is_healthy, pending, map(found.get, pending))
                    pending = [name for name, is_healthy in zip(pending, healthy, strict=True) if not is_healthy]
                time.sleep(0.2 if pending else 0)
            hopeless = [name for name in pending if name in found and found[name].restarts >= MOST_RESTARTS]
            if hopeless or (pending and time.monotonic() > deadline):
                name = (hopeless or pending)[0]
                raise UserError(
                    f"the service {name} did not become healthy ({most_telling(self._log(name))}): see "
                    f"`docker compose logs {name}`."
                )

    @staticmethod
    def _in_place(own: Iterable[Container]) -> Mapping[str, Container]:
        """The services, without what `names` will start anew, as it joined the network of a server that is gone."""
        found = {str(one.service): one for one in own}
        server = found.get(SERVER)
        return {
            name: one for name, one in found.items() if not (server and name in JOINED and one.started < server.started)
        }

    def _trouble(self, service: str, container: Container | None) -> str | None:
        if container is None:
            return "missing"
        if container.state in STOPPED:
            return STOPPED[container.state]
        # The engine looks every 30 seconds: what it says is not of now.
        well = container.health == "healthy" or (container.id, container.started) in self._passed
        code = None if container.state != "running" else 0 if well else self._check(service, container)
        if code in TROUBLES:
            return TROUBLES[code]
        return f"not working ({most_telling(self._log(service))})"

    @explained()
    def _log(self, service: str, lines_: int = 20) -> str:
        """Its last lines."""
        return str(self.docker.client.compose.logs(service, tail=str(lines_), no_log_prefix=True))

    def _is_healthy(self, service: str, container: Container | None) -> bool:
        if container is None:
            return False
        if container.health == "healthy" and (container.id, container.started) in self._undisturbed:
            return True
        return self._check(service, container) == 0

    def _check(self, service: str, container: Container) -> int:
        """The exit code of a service's own check, which fails, too, where it is starting again just now."""
        words = [*self.docker.command, "exec", container.name, *HEALTH_CHECKS[service]]
        code = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode
        self._passed |= {(container.id, container.started)} if code == 0 else set()
        return code

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

    def _remove_former(self, own: Iterable[Container], images: bool = True) -> Iterator[str]:
        """Remove what this folder had started under another project name or in another layout, and its network."""
        former = list(filter(self.identity().is_former, own))
        if not former:
            return
        client = self.docker.client
        # What has joined a server's network first, and a firewall last: it keeps its rules as long as a server is up.
        for container in sorted(former, key=lambda one: (one.service == FIREWALL, one.service not in JOINED)):
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


def _full(inside: Sequence[str], paths: Sequence[str]) -> Sequence[str]:
    """Those of the paths whose disks are full, as far as it can be asked there."""
    words = [*inside, "df", "--output=pcent,target", *paths]
    run = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return [line.split()[1] for line in run.stdout.splitlines() if line.split()[0] == "100%"]
