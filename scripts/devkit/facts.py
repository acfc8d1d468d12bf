"""What an engine or a cluster says of itself and of what runs on it, as plain facts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network


@dataclass(frozen=True)
class Engine:
    """What an engine says of itself.

    `host` is its machine when it is reached over a network; None when it publishes its ports on this computer.
    """

    name: str
    version: str
    operating_system: str
    firewall_backend: str
    host: str | None


@dataclass(frozen=True)
class Network:
    """One of the engine's networks."""

    name: str
    driver: str
    subnets: tuple[IPv4Network, ...]
    bridge: str | None
    project: str | None
    id: str = ""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Session:
    """A connected client, as the server sees it: its real address may be that of the proxy that publishes the port."""

    client: str
    real_address: str
    vpn_address: str
    since: datetime
    number: int


@dataclass(frozen=True)
class Attachment:
    """A container's place in a network; no address where the driver gives none (host, none).

    `aliases` are the names that Docker's own DNS gives it there, besides the container's.
    """

    network: str
    driver: str
    subnet: IPv4Network | None
    address: IPv4Address | None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class PublishedPort:
    """A port of a container, such as 80/tcp, and where on the engine's host it is published."""

    port: str
    host_address: str
    host_port: int


@dataclass(frozen=True)
class Container:
    """A container; `ports` are those that it exposes, as Docker writes them, such as 80/tcp.

    Its folder is the one that Compose started it from; `server` is the serial number of a devkit's server certificate.
    `state` is as Docker says it (running, paused, restarting); `health` is None where nothing checks it, else starting,
    healthy or unhealthy. `shares` is the name of the container whose network it has joined, which has its addresses.
    """

    name: str
    image: str
    project: str | None
    service: str | None
    attachments: tuple[Attachment, ...]
    ports: tuple[str, ...]
    folder: str | None = None
    server: str | None = None
    id: str = ""
    state: str = "running"
    health: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    published: tuple[PublishedPort, ...] = ()
    shares: str | None = None


@dataclass(frozen=True)
class EngineFacts:
    """What there is on an engine; the containers are the user's, not the devkit's own."""

    engine: Engine
    containers: tuple[Container, ...]
    networks: tuple[Network, ...] = ()


@dataclass(frozen=True)
class ClusterNode:
    """A node of a Kubernetes cluster."""

    name: str
    address: str
    architecture: str
    pod_networks: tuple[IPv4Network, ...]


@dataclass(frozen=True)
class Cluster:
    """What a cluster says of itself; no networks or nodes where its user may not see them."""

    context: str
    version: str
    nodes: tuple[ClusterNode, ...]
    pod_networks: tuple[IPv4Network, ...]
    service_networks: tuple[IPv4Network, ...]


@dataclass(frozen=True)
class Service:
    """A Service with an address inside the cluster; ports are written as 80/tcp."""

    namespace: str
    name: str
    address: IPv4Address
    ports: tuple[str, ...]


@dataclass(frozen=True)
class Pod:
    """A running pod with an address of its own; ports are written as 80/tcp."""

    namespace: str
    name: str
    address: IPv4Address
    ports: tuple[str, ...]


@dataclass(frozen=True)
class ClusterEndpoint:
    """Where the server's Service is reached: its type, its hosts, and the command that has to run, if any."""

    kind: str
    hosts: tuple[str, ...]
    port: int
    command: str | None


@dataclass(frozen=True)
class ClusterFacts:
    """What there is in a cluster, apart from the devkit itself.

    `profiles_lead_there` says that the host that the profiles name is one of the endpoint's.
    """

    cluster: Cluster
    endpoint: ClusterEndpoint
    services: tuple[Service, ...]
    pods: tuple[Pod, ...]
    profiles_lead_there: bool
