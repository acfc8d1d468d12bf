"""What there is on an engine, from what `docker inspect` prints. Pure."""

import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address
from typing import Any

from devkit.addresses import ipv4_networks
from devkit.facts import Attachment, Container, Network, PublishedPort

Inspected = Mapping[str, Any]  # one object, as Docker's API describes it

BRIDGE_NAME_OPTION = "com.docker.network.bridge.name"
MTU_OPTION = "com.docker.network.driver.mtu"
PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
FOLDER_LABEL = "com.docker.compose.project.working_dir"
SERVER_LABEL = "d4m-devkit.server"
PORT = re.compile(r"([1-9][0-9]{0,4})/(tcp|udp|sctp)")
HOST = "host"  # a network, and its driver, that Podman does not list
UNSAID = re.compile(r"^[a-z.]+/library/")  # what Podman puts before the name of an image, where Docker means it
JOINED = "container:"  # the network mode of a container that has joined another's network


def networks(inspected: Iterable[Inspected]) -> tuple[Network, ...]:
    """The networks, in the order that they come in."""
    return tuple(_network(one) for one in inspected)


def containers(inspected: Iterable[Inspected], networks: Iterable[Network]) -> tuple[Container, ...]:
    """The containers, by name; of networks that are not given, no more than the name is known."""
    all_ = {one["Id"]: one for one in inspected}
    # Podman's default network has another name in what it says of a container.
    known = {key: network for network in networks for key in (network.name, network.id)}
    return tuple(sorted((_container(one, all_, known) for one in all_.values()), key=lambda one: one.name))


def started(state: Mapping[str, Any]) -> str:
    """When a container was started last, as text that sorts by time: Docker leaves out a fraction's last zeros."""
    seconds, _, fraction = (state.get("StartedAt") or "").removesuffix("Z").partition(".")
    return f"{seconds}.{fraction:0<9}"


def _image(name: str) -> str:
    """The name as Docker has it."""
    return UNSAID.sub("", name).removesuffix(":latest") if UNSAID.match(name) else name


def _network(found: Inspected) -> Network:
    labels = found.get("Labels") or {}
    options = found.get("Options") or {}
    mtu = options.get(MTU_OPTION) or ""
    ranges = (found.get("IPAM") or {}).get("Config") or []
    return Network(
        name=found["Name"],
        driver=found.get("Driver") or "",
        subnets=ipv4_networks(range_.get("Subnet", "") for range_ in ranges),
        bridge=options.get(BRIDGE_NAME_OPTION),
        project=labels.get(PROJECT_LABEL),
        id=found["Id"],
        labels=labels,
        mtu=int(mtu) if mtu.isdecimal() and int(mtu) else Network.mtu,
    )


def _container(found: Inspected, all_: Mapping[str, Inspected], known: Mapping[str, Network]) -> Container:
    config, state = found["Config"], found.get("State") or {}
    labels = config.get("Labels") or {}
    mode = (found.get("HostConfig") or {}).get("NetworkMode") or ""
    other = all_.get(mode.removeprefix(JOINED)) if mode.startswith(JOINED) else None
    return Container(
        name=_name(found),
        image=_image(config.get("Image") or ""),
        project=labels.get(PROJECT_LABEL),
        service=labels.get(SERVICE_LABEL),
        attachments=tuple(_attachments(other or found, known)),
        ports=tuple(_ports(config.get("ExposedPorts") or {})),
        folder=labels.get(FOLDER_LABEL),
        server=labels.get(SERVER_LABEL),
        id=found["Id"],
        state=state.get("Status") or "",
        health=_health(state),
        labels=labels,
        published=tuple(_published(found)),
        shares=_name(other) if other else None,
        restarts=found.get("RestartCount") or 0,
        started=started(state),
        binds=tuple(one["Source"] for one in found.get("Mounts") or [] if one.get("Type") == "bind"),
    )


def _ports(written: Iterable[str]) -> list[str]:
    """Those that are ports, in order: an image may expose anything, and the engine passes it on."""
    matches = (PORT.fullmatch(port) for port in written)
    return sorted(
        (match[0] for match in matches if match and int(match[1]) < 65536), key=lambda port: (len(port), port)
    )


def _name(found: Inspected) -> str:
    return str(found["Name"]).removeprefix("/")


def _health(state: Inspected) -> str | None:
    status = (state.get("Health") or {}).get("Status")
    return None if status in (None, "", "none") else str(status)


def _attachments(found: Inspected, known: Mapping[str, Network]) -> Iterable[Attachment]:
    places = (found.get("NetworkSettings") or {}).get("Networks") or {}
    for name, place in sorted(places.items()):
        unlisted = Network(name, name if name == HOST else "", (), None, None)
        network = known.get(place.get("NetworkID") or name) or known.get(name) or unlisted
        subnet = network.subnets[0] if network.subnets else None
        address = IPv4Address(place["IPAddress"]) if place.get("IPAddress") else None
        # Engines of before 25 name among the aliases what they take from the container's id.
        aliases = (alias for alias in place.get("Aliases") or [] if not found["Id"].startswith(alias))
        yield Attachment(name, network.driver, subnet, address, tuple(aliases))


def _published(found: Inspected) -> Iterable[PublishedPort]:
    bindings = (found.get("NetworkSettings") or {}).get("Ports") or {}
    for port in _ports(bindings):
        for binding in bindings[port] or []:
            if not binding["HostPort"]:  # as in a network whose containers are routed to
                continue
            yield PublishedPort(port, binding["HostIp"], int(binding["HostPort"]))
