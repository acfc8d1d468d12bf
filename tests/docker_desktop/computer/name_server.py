"""A name server for the lab: answers what it is given, and writes down whatever it is asked.

usage: name_server.py ADDRESS LOG NAME=ADDRESS...

A NAME that begins with a dot has all below it. Each address leads back to its first name. Another type of a name that
there is has no data; another name does not exist.
"""

import socket
import struct
import sys
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path

A, PTR = 1, 12
NO_SUCH_NAME = 3
SECONDS = 5


def question(query: bytes) -> tuple[str, int, int]:
    """The name in lower case, its type, and where the question ends."""
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode().lower())
        at += 1 + length
    return ".".join(labels), struct.unpack_from("!H", query, at + 1)[0], at + 5


def address_of(name: str, zone: Mapping[str, str]) -> str | None:
    if name in zone:
        return zone[name]
    return next((zone[suffix] for suffix in zone if suffix.startswith(".") and name.endswith(suffix)), None)


def answer(query: bytes, zone: Mapping[str, str]) -> bytes:
    name, kind, end = question(query)
    names = {
        IPv4Address(address).reverse_pointer: name for name, address in reversed([*zone.items()]) if name[0] != "."
    }
    address, data = address_of(name, zone), b""
    if kind == A and address:
        data = IPv4Address(address).packed
    elif kind == PTR and name in names:
        data = b"".join(bytes([len(label)]) + label.encode() for label in names[name].split(".")) + b"\0"
    known = address or name in names
    flags = 0x8580 | (0 if known else NO_SUCH_NAME)
    head = query[:2] + struct.pack("!5H", flags, 1, 1 if data else 0, 0, 0) + query[12:end]
    return head + (struct.pack("!HHHIH", 0xC00C, kind, 1, SECONDS, len(data)) + data if data else b"")


def main() -> None:
    listen, log, *pairs = sys.argv[1:]
    zone = dict(pair.split("=") for pair in pairs)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, Path(log).open("a", buffering=1) as asked:
        server.bind((listen, 53))
        print("listening", flush=True)
        while True:
            query, sender = server.recvfrom(4096)
            asked.write(f"{question(query)[0]}\n")
            server.sendto(answer(query, zone), sender)


if __name__ == "__main__":
    main()
