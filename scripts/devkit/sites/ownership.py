"""Which of an engine's containers, networks and volumes are this project's, and which of others' are in its way."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from devkit.answers import CHANGE_ANSWER
from devkit.checks import Check, check
from devkit.facts import Container, Network
from devkit.inventory import SERVER_LABEL
from devkit.material.state import server_serial_numbers

SERVER, FIREWALL = "vpn", "firewall"
NAMES, DNS, PROXY, REDIRECT = "names", "dns", "proxy", "redirect"
OF_NAMES = (NAMES, DNS, PROXY, REDIRECT)  # what there is for the answer `dns_domain`
SERVICES = (FIREWALL, SERVER, *OF_NAMES)
BRIDGE = "d4m"
# What earlier versions had, the server first: it must be gone before the firewall takes its rules away.
FORMER_SERVICES = ("openvpn", "relay")
FORMER_BRIDGE = "d4m-relay"


@dataclass(frozen=True)
class Identity:
    """By what a project recognizes its own, under whatever name and of whatever version.

    The serial numbers of its server's certificates outlive every change of answers and of folders.
    """

    project: Path
    project_name: str
    serial_numbers: tuple[str, ...]

    def owns(self, container: Container) -> bool:
        """Whether a container is one of the project's own services."""
        if not is_a_devkits(container):
            return False
        if container.server:
            return container.server in self.serial_numbers
        return self.started_here(container)

    def started_here(self, container: Container) -> bool:
        """Whether Compose started a container from a folder of this path, on whichever computer."""
        # Started by hand, ours have that label without a value; somebody else's `proxy` or `dns` has none at all.
        if container.service in OF_NAMES and SERVER_LABEL not in container.labels:
            return False
        return container.folder is not None and Path(container.folder).resolve() == self.project.resolve()

    def is_former(self, container: Container) -> bool:
        """Whether a container of its own has a project name or a layout that it would not have today."""
        return container.project != self.project_name or container.service in FORMER_SERVICES


def identity_of(project: Path, project_name: str) -> Identity:
    """Read what a project recognizes its own by."""
    return Identity(project, project_name, tuple(server_serial_numbers(project)))


def is_a_devkits(container: Container) -> bool:
    """Whether a container is a service with one of our names; it may be another project's."""
    return container.service in (*SERVICES, *FORMER_SERVICES)


def server_of_other_keys(container: Container) -> tuple[str, str]:
    """What is wrong and what to do where this folder's server runs and its keys are gone: no script knows it."""
    return (
        f"the server on this engine was started from {container.folder} with other keys than local/ has now",
        "restore local/pki from your backup or, if the server is yours, take it down with `docker compose "
        f"--project-name {container.project} down`",
    )


def in_the_way(
    identity: Identity, others: Iterable[Container], networks: Iterable[Network], own: Iterable[Container],
    volume: str | None,
) -> Check:  # fmt: skip
    """Nothing that is another's may be in the way.

    An engine holds one devkit, because the bridge's name is fixed; and Compose would take over a project of our name.
    """
    problem, mend = None, f"give this one another name with `{CHANGE_ANSWER} project_name=NAME`"
    ours = {identity.project_name, *(container.project for container in own)}
    foreign = [one for one in networks if one.bridge in (BRIDGE, FORMER_BRIDGE) and one.project not in ours]
    other = next(iter(others), None)
    if other and is_a_devkits(other) and identity.started_here(other):
        problem, mend = server_of_other_keys(other)
    elif other and is_a_devkits(other):
        problem = f"another devkit, {other.project} in {other.folder}, is on this engine"
        mend = "take it down first (`./scripts/down.py` in its folder)"
    elif other:
        problem = f"the Compose project in {other.folder} is called {other.project}, too"
    elif foreign:
        problem = f"the network {foreign[0].name} of another devkit is on this engine"
        mend = f"remove it first (`docker network rm {foreign[0].name}`)"
    elif volume:
        problem, mend = f"the volume {volume} on this engine is not this project's", f"remove it, or {mend}"
    return check("other projects", problem, mend, "no other devkit and no project of this name is on this engine")
