"""What this computer already uses: its networks and ports."""

import errno
import os
import platform
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Literal

import ifaddr

ANSWER_SECONDS = 3

OperatingSystem = Literal["macOS", "Windows", "Linux"]


@dataclass(frozen=True)
class Interface:
    """A network interface, real or virtual, and one of its addresses."""

    name: str
    address: IPv4Interface

    @property
    def network(self) -> IPv4Network:
        """The network that it is in."""
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


def interface_to(address: IPv4Address, network: IPv4Network) -> str | None:
    """The interface by which this computer reaches an address, if it has an address of its own in this network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(address), 53))  # sends nothing
        except OSError:
            return None
        source = IPv4Address(probe.getsockname()[0])
    names = (interface.name for interface in interfaces() if interface.address.ip == source and source in network)
    return next(names, None)


def resolve(name: str) -> frozenset[str]:
    """The IPv4 addresses of a host, as this computer sees them; none when the name is unknown."""
    try:
        return frozenset(str(entry[4][0]) for entry in socket.getaddrinfo(name, None, socket.AF_INET))
    except (socket.gaierror, UnicodeError):  # the latter for what can be no name
        return frozenset()


def same(one: str, other: str) -> bool:
    """Whether two host names or addresses lead to the same place."""
    return one == other or bool(resolve(one) & resolve(other))


def is_loopback(name: str) -> bool:
    """Whether a host name or address is this computer's own."""
    return any(IPv4Address(address).is_loopback for address in resolve(name))


def accepts_tcp(name: str, port: int) -> bool:
    """Whether something accepts TCP connections there."""
    try:
        socket.create_connection((name, port), timeout=ANSWER_SECONDS).close()
    except OSError:
        return False
    return True


def port_problem(address: IPv4Address, port: int, protocol: Literal["tcp", "udp"]) -> str | None:
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
                return None  # a low port, or one that Windows reserves: only the engine can tell whether it may have it
            raise
    return None
