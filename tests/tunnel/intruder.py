"""Makes trouble at a VPN server's port, until it is ended.

usage: intruder.py idle COUNT PROFILE    keep so many connections open that say nothing, or not all of a first packet
       intruder.py garbage RATE PROFILE  so many times a second: random bytes; or what a client of PROFILE says first,
                                         and random bytes then
"""

import itertools
import os
import selectors
import socket
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from devkit.vpn.openvpn import reading
from devkit.vpn.openvpn.control import Channel, Wire

BEGINNING_OF_A_PACKET = b"\x00\x36\x50" + bytes(5)
SECONDS_FOR_AN_ANSWER = 2


def connect(endpoint: reading.Endpoint) -> socket.socket:
    """A new connection, or over UDP what is as good as one."""
    kind = socket.SOCK_STREAM if endpoint.protocol == "tcp" else socket.SOCK_DGRAM
    connection = socket.socket(socket.AF_INET, kind)
    connection.settimeout(SECONDS_FOR_AN_ANSWER)
    connection.connect((endpoint.host, endpoint.port))
    return connection


def idle(count: int, profile: str) -> None:
    """Open them, and open anew what the server closes."""
    endpoint = reading.endpoint(profile)
    with selectors.DefaultSelector() as held:
        while True:
            while len(held.get_map()) < count:
                with suppress(OSError):
                    connection = connect(endpoint)
                    if len(held.get_map()) % 2:
                        connection.send(BEGINNING_OF_A_PACKET)
                    held.register(connection, selectors.EVENT_READ, connection)
            print("held", flush=True)
            for closed, _ in held.select():
                held.unregister(closed.data)
                closed.data.close()


def garbage(rate: int, profile: str) -> None:
    """Send it in turns: bytes that are no packet, one that is none of OpenVPN's, one that comes after a right one."""
    endpoint, secrets = reading.endpoint(profile), reading.secrets(profile)

    def begin(connection: socket.socket) -> Wire:
        wire = Wire(connection, endpoint.protocol == "tcp")
        Channel(wire, secrets.key).begin(time.monotonic() + SECONDS_FOR_AN_ANSWER)
        return wire

    kinds: tuple[Callable[[socket.socket], None], ...] = (
        lambda connection: connection.sendall(os.urandom(1400)),
        lambda connection: Wire(connection, endpoint.protocol == "tcp").send(os.urandom(100)),
        lambda connection: begin(connection).send(os.urandom(100)),
    )
    for kind in itertools.cycle(kinds):
        with suppress(OSError), closing(connect(endpoint)) as connection:
            kind(connection)
            print("sent", flush=True)
        time.sleep(1 / rate)


if __name__ == "__main__":
    {"idle": idle, "garbage": garbage}[sys.argv[1]](int(sys.argv[2]), Path(sys.argv[3]).read_text())
