"""What Docker Desktop's port forwarder does: published ports of the VM are opened on the Mac.

Runs in the Mac's network namespace. It asks the engine which ports are published, listens on the same
addresses and ports here, and connects each peer to the port inside the VM's network namespace.

usage: port_forwarder.py ENGINE_SOCKET NETWORK_NAMESPACE_OF_THE_VM
"""

import asyncio
import contextlib
import ctypes
import http.client
import json
import os
import socket
import sys
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

POLL_SECONDS = 0.2
CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)
MAC_NAMESPACE = os.open("/proc/self/ns/net", os.O_RDONLY)


@dataclass(frozen=True)
class Port:
    """A published port: the address and number on the host, and tcp or udp."""

    address: str
    number: int
    protocol: str


class EngineConnection(http.client.HTTPConnection):
    """HTTP over the engine's Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("engine", timeout=5)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(5)
        self.sock.connect(self._path)


def published_ports(engine_socket: str) -> set[Port]:
    """IPv4 ports of all running containers; none while the engine does not answer."""
    try:
        with contextlib.closing(EngineConnection(engine_socket)) as connection:
            connection.request("GET", "/containers/json")
            containers = json.load(connection.getresponse())
    except (OSError, http.client.HTTPException):
        return set()
    return {
        Port(port["IP"], port["PublicPort"], port["Type"])
        for container in containers
        for port in container["Ports"]
        if "." in port.get("IP", "")
    }


def socket_in_vm(vm_network: Path, kind: socket.SocketKind) -> socket.socket:
    """Make a socket in the VM: a socket belongs for ever to the namespace that it was made in."""
    with vm_network.open() as namespace:
        enter(namespace.fileno())
    try:
        return socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)
    finally:
        enter(MAC_NAMESPACE)


def enter(namespace: int) -> None:
    """Move this thread to the network namespace of a file descriptor."""
    if LIBC.setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Forwarder:
    """Forwards one published port for as long as it is published."""

    def __init__(self, port: Port, vm_network: Path) -> None:
        self._port = port
        self._vm_network = vm_network
        address = "127.0.0.1" if ip_address(port.address).is_unspecified else port.address
        self._target = (address, port.number)

    async def run(self) -> None:
        """Serve until cancelled."""
        await (self._serve_tcp() if self._port.protocol == "tcp" else self._serve_udp())

    async def _serve_tcp(self) -> None:
        server = await asyncio.start_server(self._on_connection, self._port.address, self._port.number)
        async with server:
            await server.serve_forever()

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream = socket_in_vm(self._vm_network, socket.SOCK_STREAM)
            await asyncio.get_running_loop().sock_connect(upstream, self._target)
            vm_reader, vm_writer = await asyncio.open_connection(sock=upstream)
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(pump(reader, vm_writer), pump(vm_reader, writer))

    async def _serve_udp(self) -> None:
        loop = asyncio.get_running_loop()
        peers: dict[tuple[str, int], socket.socket] = {}
        with contextlib.ExitStack() as sockets:
            listener = sockets.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
            listener.bind((self._port.address, self._port.number))
            async with asyncio.TaskGroup() as tasks:
                while True:
                    datagram, peer = await loop.sock_recvfrom(listener, 65535)
                    if peer not in peers:
                        peers[peer] = sockets.enter_context(socket_in_vm(self._vm_network, socket.SOCK_DGRAM))
                        peers[peer].connect(self._target)
                        tasks.create_task(answer(listener, peers[peer], peer))
                    with contextlib.suppress(OSError):
                        await loop.sock_sendall(peers[peer], datagram)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction of a stream to its end."""
    with contextlib.suppress(OSError):
        while data := await reader.read(131072):
            writer.write(data)
            await writer.drain()
    writer.close()


async def answer(listener: socket.socket, upstream: socket.socket, peer: tuple[str, int]) -> None:
    """Copy the VM's datagrams back to one peer."""
    loop = asyncio.get_running_loop()
    while True:
        with contextlib.suppress(OSError):
            await loop.sock_sendto(listener, await loop.sock_recv(upstream, 65535), peer)


async def main(engine_socket: str, vm_network: Path) -> None:
    """Follow the published ports for ever."""
    running: dict[Port, asyncio.Task[None]] = {}
    while True:
        wanted = await asyncio.to_thread(published_ports, engine_socket)
        for port in running.keys() - wanted:
            running.pop(port).cancel()
        for port in wanted - running.keys():
            running[port] = asyncio.create_task(Forwarder(port, vm_network).run())
        await asyncio.sleep(POLL_SECONDS)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
