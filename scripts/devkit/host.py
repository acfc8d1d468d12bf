"""What this computer already uses: its networks and ports."""

import errno
import os
import platform
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Literal

import ifaddr

from devkit.facts import Target

ANSWER_SECONDS = 3
MOST_AT_ONCE = 32

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


def ways(addresses: Iterable[IPv4Address]) -> Mapping[IPv4Address, Interface | None]:
    """The interface by which this computer sends to each address, with its own address there; None where it cannot."""
    own = {interface.address.ip: interface for interface in interfaces()}
    return {address: own.get(source) if (source := _source(address)) else None for address in addresses}


def interface_to(address: IPv4Address, network: IPv4Network) -> str | None:
    """The interface by which this computer reaches an address, if it has an address of its own in this network."""
    way = ways([address])[address]
    return way.name if way and way.address.ip in network else None


def _source(address: IPv4Address) -> IPv4Address | None:
    """The address of its own that this computer would send from; this sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(address), 53))
        except OSError:
            return None
        return IPv4Address(probe.getsockname()[0])


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


def answering(targets: Sequence[Target]) -> Mapping[IPv4Address, bool]:
    """Whether each target answers this computer."""
    with ThreadPoolExecutor(MOST_AT_ONCE) as pool:
        answers = pool.map(lambda one: any(answers_tcp(one.address, port, 1) for port in one.ports), targets)
        return dict(zip((target.address for target in targets), answers, strict=True))


def answers_tcp(address: IPv4Address, port: int, seconds: float = ANSWER_SECONDS) -> bool:
    """Whether there is an answer from there, be it a refusal."""
    try:
        socket.create_connection((str(address), port), timeout=seconds).close()
    except OSError as error:
        return isinstance(error, ConnectionRefusedError)
    return True


def https_problem(name: str, address: IPv4Address, root: str) -> str | None:
    """Why a page is not served there by HTTPS with a certificate for that name of that CA (PEM); None when it is."""
    context = ssl.create_default_context(cadata=root)
    request = f"HEAD / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
    try:
        with (
            socket.create_connection((str(address), 443), timeout=ANSWER_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=name) as secure,
        ):
            secure.sendall(request.encode())
            status = secure.recv(20).split()[1:2]
    except OSError as error:
        return str(error)
    return None if status and status[0] < b"500" else f"status {b''.join(status).decode(errors='replace')}"


def shadow(address: IPv4Address) -> str | None:
    """The route that what is for an address takes, as Linux' `ip` prints it, unless it is a network of this computer's.

    None on other systems.
    """
    if operating_system() != "Linux" or not shutil.which("ip"):
        return None
    run = subprocess.run(
        ["ip", "-4", "route", "show", "match", f"{address}/32"], capture_output=True, text=True, check=False
    )
    routes = [line.strip() for line in run.stdout.splitlines() if not line.startswith("default")]
    longest = max(routes, key=lambda line: int((line.split()[0] + "/32").split("/")[1]), default=None)
    return longest.removesuffix(" linkdown") if longest and "proto kernel" not in longest else None


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
