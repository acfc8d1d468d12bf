"""Whether the VPN reaches a place and, if not, why. Pure."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from devkit.addresses import contained
from devkit.facts import Attachment, ClusterFacts, Container, EngineFacts, Target

HTTP_PORTS = {"80/tcp": "http", "443/tcp": "https", "3000/tcp": "http", "5000/tcp": "http", "8000/tcp": "http",
              "8080/tcp": "http", "8443/tcp": "https", "8888/tcp": "http", "9090/tcp": "http"}  # fmt: skip

DISCARD = 9  # RFC 863; hardly anybody listens there
MOST_PORTS = 3  # of one's own


@dataclass(frozen=True)
class Reachability:
    """What keeps packets from reaching a place; None when the routes lead there and nothing is known to be in the way.

    `answered` says that a packet went there and back.
    """

    obstacle: str | None = None
    answered: bool = False

    @property
    def reached(self) -> bool:
        """Whether nothing is known to be in the way."""
        return self.obstacle is None


REACHED = Reachability()
ANSWERED = Reachability(answered=True)
SILENT = Reachability("it does not answer the VPN's server")
OUTSIDE = Reachability("outside the routes")
NO_ADDRESS = Reachability("it has no IPv4 address")
UNKNOWN_FILTER = Reachability("the engine's packet filter is not known")
HOST_NETWORK = Reachability("it uses the engine's own addresses: reach it at any bridge's gateway, such as 172.17.0.1")


def as_seen(
    expected: Reachability, address: IPv4Address | None, answers: Mapping[IPv4Address, bool] | None
) -> Reachability:
    """The same after the server has tried some addresses; None where it could try none."""
    answer = answers.get(address) if answers and address else None
    if answer is None or not expected.reached:
        return expected
    return ANSWERED if answer else SILENT


def targets(facts: EngineFacts | ClusterFacts, routes: Collection[IPv4Network]) -> tuple[Target, ...]:
    """What the server is to try: each address that should be reached.

    First at a port where nobody listens: a refusal is an answer, and disturbs nobody; but some let in what comes to
    their own ports alone, and a Service has no others.
    """
    if isinstance(facts, EngineFacts):
        return tuple(
            Target(attachment.address, (DISCARD, *_tcp(container.ports)))
            for container in facts.containers
            for attachment in container.attachments
            if attachment.address and of_attachment(attachment, routes).reached
        )
    pods = (Target(pod.address, (DISCARD, *_tcp(pod.ports))) for pod in facts.pods)
    services = (Target(service.address, _tcp(service.ports)) for service in facts.services)
    return tuple(one for one in (*services, *pods) if one.ports and of_address(one.address, routes).reached)


def _tcp(ports: Iterable[str]) -> tuple[int, ...]:
    return tuple(int(port.removesuffix("/tcp")) for port in ports if port.endswith("/tcp"))[:MOST_PORTS]


def of_address(address: IPv4Address, routes: Iterable[IPv4Network]) -> Reachability:
    """How an address is reached that needs no more than a route."""
    return REACHED if contained(address, routes) else OUTSIDE


def of_attachment(attachment: Attachment, routes: Iterable[IPv4Network]) -> Reachability:
    """How a container is reached in one of an engine's networks."""
    if attachment.driver == "host":
        return HOST_NETWORK
    if attachment.address is None:
        return NO_ADDRESS
    if attachment.driver != "bridge":
        return Reachability(f"the engine's host cannot reach its own {attachment.driver} networks")
    return of_address(attachment.address, routes)


def missed(containers: Iterable[Container], routes: Collection[IPv4Network]) -> tuple[IPv4Network, ...]:
    """The networks with containers that no route reaches, each once, in order."""
    attachments = (attachment for container in containers for attachment in container.attachments)
    subnets = {each.subnet for each in attachments if each.subnet and of_attachment(each, routes) == OUTSIDE}
    return tuple(sorted(subnets))


def urls(address: str, ports: Collection[str]) -> tuple[str, ...]:
    """What a browser can open at an address; ports are written as 80/tcp."""
    return tuple(
        f"{scheme}://{address}" + ("" if port in ("80/tcp", "443/tcp") else f":{port.split('/')[0]}")
        for port, scheme in HTTP_PORTS.items()
        if port in ports
    )
