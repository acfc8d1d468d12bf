"""What an engine or a cluster says of itself and of what runs on it, as plain facts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network

PODMAN_SOCKET = "/run/podman/podman.sock"  # on its own machine, when it runs as root
PAUSED = "paused"  # what Docker calls a container whose processes are frozen
SILENT = "silent"  # of a server: it runs, and does not answer
RUNNING = ("running", PAUSED, "restarting")  # the states of a container that `docker ps` lists


@dataclass(frozen=True)
class Engine:
    """What an engine says of itself.

    `host` is its machine when it is reached over a network; None when it publishes its ports on this computer. One that
    is rootless runs without root's rights on its machine.
    """

    name: str
    version: str
    operating_system: str
    firewall_backend: str
    host: str | None
    is_podman: bool = False
    is_rootless: bool = False

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return f"{'Podman ' if self.is_podman else ''}{self.version} on {self.operating_system}"


@dataclass(frozen=True)
class Network:
    """One of the engine's networks; its MTU in bytes is Docker's default where nothing else was asked for."""

    name: str
    driver: str
    subnets: tuple[IPv4Network, ...]
    bridge: str | None
    project: str | None
    id: str = ""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    mtu: int = 1500


@dataclass(frozen=True)
class Session:
    """A connected client, as the server sees it: its real address may be that of the proxy that publishes the port."""

    client: str
    real_address: str
    vpn_address: str
    since: datetime
    number: int


@dataclass(frozen=True)
class Contest:
    """Two machines that are one client at once: each connection ends the other's, so often within so many seconds."""

    client: str
    times: int
    seconds: int


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
    healthy or unhealthy. `started` says when it was started last, as text that sorts by time, and `restarts` counts
    those by itself. `shares` is the name of the container whose network it has joined, which has its addresses. `binds`
    are paths of the engine's machine that it sees, as they were given to the engine.
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
    restarts: int = 0
    started: str = ""
    binds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """A part of the devkit that has to run: a service of compose.yaml, or a pod of the chart.

    `trouble` says what keeps it from its work, in a few words; None where nothing does.
    """

    name: str
    trouble: str | None = None


@dataclass(frozen=True)
class Target:
    """An address that the server is to reach, and the TCP ports to try, one after the other, until one answers."""

    address: IPv4Address
    ports: tuple[int, ...]


@dataclass(frozen=True)
class Condition:
    """How the VPN is doing, as seen just now.

    `answers` says of each target whether it answered the server, be it by a refusal. What could not be asked is None,
    and `reason` says why.
    """

    parts: tuple[Part, ...]
    answers: Mapping[IPv4Address, bool] | None = field(default=None, hash=False)
    sessions: tuple[Session, ...] | None = None
    contests: tuple[Contest, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Passage:
    """What is known on the server's side of the way to a target, tried a moment ago.

    `inside` is what the server's own namespace lacks, `rules` what the engine's packet filter lacks of ours; None where
    that cannot be looked at. `answers` has each port that answered, and how: accepted or refused. `dropped` are rules
    that dropped what was sent there. `echoes` has sizes of packets, in bytes, and whether one that may not be broken up
    came back whole; the path may be known to take no more than `path_mtu`. `lost` are the rules that dropped those.
    """

    inside: tuple[str, ...] | None = None
    rules: tuple[str, ...] | None = None
    answers: Mapping[int, str] = field(default_factory=dict, hash=False)
    dropped: tuple[str, ...] = ()
    echoes: Mapping[int, bool] = field(default_factory=dict, hash=False)
    path_mtu: int | None = None
    lost: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listener:
    """Where a program in a container listens for TCP connections; on loopback nobody else reaches it."""

    port: int
    loopback: bool


@dataclass(frozen=True)
class EngineFacts:
    """What there is on an engine: the user's containers that run, and the devkit's own, running or not."""

    engine: Engine
    containers: tuple[Container, ...]
    networks: tuple[Network, ...] = ()
    own: tuple[Container, ...] = ()


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


Facts = EngineFacts | ClusterFacts
