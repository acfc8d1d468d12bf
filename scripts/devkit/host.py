"""What this computer already uses: its networks and ports."""

import errno
import os
import platform
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Literal

import ifaddr

ANSWER_SECONDS = 3

OperatingSystem = Literal["macOS", "Windows", "Linux"]


@dataclass(frozen=True)
class Interface:
    """A network card, real or virtual, and one of its addresses."""

    name: str
    address: IPv4Interface

    @property
    def network(self) -> IPv4Network:
        """The network that the card stands in."""
        return self.address.network


def operating_system() -> OperatingSystem:
    """The system that the VPN app runs on."""
    match platform.system():
        case "Darwin":
            return "macOS"
        case "Windows":
            return "Windows"
    return "Linux"


def interfaces() -> tuple[Interface, ...]:
    """All IPv4 addresses of this computer but the loopback ones."""
    found = (
        Interface(adapter.nice_name, IPv4Interface(f"{ip.ip}/{ip.network_prefix}"))
        for adapter in ifaddr.get_adapters()
        for ip in adapter.ips
        if ip.is_IPv4
    )
    return tuple(interface for interface in found if not interface.address.is_loopback)


def collision(
    routes: Iterable[IPv4Network], own: Iterable[Interface], known: Iterable[IPv4Network]
) -> tuple[IPv4Network, Interface] | None:
    """The first route that overlaps a network which this computer stands in.

    `known` are networks that may, and what is inside of them: the engine's, which this computer has when it is the
    engine's own host, and a cluster's, when it is a node.
    """
    harmless = tuple(known)
    for interface in own:
        for route in routes:
            is_known = any(interface.network.subnet_of(network) for network in harmless)
            if route.overlaps(interface.network) and not is_known:
                return route, interface
    return None


def resolve(name: str) -> frozenset[str]:
    """The IPv4 addresses of a host, as this computer sees them; none when the name is unknown."""
    try:
        return frozenset(str(entry[4][0]) for entry in socket.getaddrinfo(name, None, socket.AF_INET))
    except socket.gaierror:
        return frozenset()


def same(one: str, other: str) -> bool:
    """Whether two host names or addresses lead to the same place."""
    return one == other or bool(resolve(one) & resolve(other))


def is_loopback(name: str) -> bool:
    """Whether a host name or address is this computer's own."""
    return any(IPv4Address(address).is_loopback for address in resolve(name))


def answers(name: str, port: int) -> bool:
    """Whether something takes TCP connections there."""
    try:
        socket.create_connection((name, port), timeout=ANSWER_SECONDS).close()
    except OSError:
        return False
    return True


def port_fault(address: IPv4Address, port: int, protocol: Literal["tcp", "udp"]) -> str | None:
    """Why this computer cannot listen there, or None if it can."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as probe:
        if os.name == "posix" and protocol == "tcp":
            # Connections that have just ended do not count; on Windows the option means something else.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((str(address), port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return "it is taken by another program"
            if error.errno == errno.EADDRNOTAVAIL:
                return "this computer does not have that address"
            if error.errno == errno.EACCES:
                return None  # a low port, or one that Windows reserves: the engine says better whether it may
            raise
    return None
