"""Pings, and fetches a page, again and again, in four ways at once, and prints how each attempt has ended.

usage: fetching.py ADDRESS DNS NAME ROOT
  ping      ADDRESS, whoever has it
  address   http://ADDRESS, whoever has it
  name      http://NAME, as the DNS says where that is; its page /name begins with NAME's first label
  https     https://NAME, the same, with a certificate that ROOT vouches for
"""

import json
import os
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

SECONDS = 0.25  # between two attempts in one way
PATIENCE = 1.0  # for each answer


def look_up(dns: str, name: str, patience: float = PATIENCE) -> str:
    """The one address of a name."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    with socket.socket(type=socket.SOCK_DGRAM) as asking:
        asking.settimeout(patience)
        asking.connect((dns, 53))
        asking.send(struct.pack(">6H", 1, 0x0100, 1, 0, 0, 0) + labels + struct.pack(">BHH", 0, 1, 1))
        answer = asking.recv(512)
    status, answers = answer[3] & 15, struct.unpack(">H", answer[6:8])[0]
    if (status, answers) != (0, 1):
        raise LookupError(f"status {status}, {answers} answers")
    return socket.inet_ntoa(answer[-4:])  # nothing comes behind it


def ping(address: str) -> str:
    """Have an echo come back (RFC 792)."""
    token = os.urandom(8)
    message = struct.pack(">BBH", 8, 0, 0) + token
    total = sum(struct.unpack(">6H", message))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    with socket.socket(type=socket.SOCK_RAW, proto=socket.IPPROTO_ICMP) as asking:
        asking.settimeout(PATIENCE)
        asking.connect((address, 0))
        asking.send(message[:2] + struct.pack(">H", checksum) + token)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            reply = asking.recv(128)[20:]  # behind the IP header
            if reply[0] == 0 and reply.endswith(token):
                return ""
    raise TimeoutError("no echo")


def fetch(address: str, host: str, trust: ssl.SSLContext | None = None, patience: float = PATIENCE) -> str:
    """The page /name."""
    with ExitStack() as opened:
        port = 443 if trust else 80
        connection = opened.enter_context(socket.create_connection((address, port), timeout=patience))
        if trust:
            connection = opened.enter_context(trust.wrap_socket(connection, server_hostname=host))
        connection.sendall(f"GET /name HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        head, _, body = connection.makefile("rb").read().partition(b"\r\n\r\n")
    if b" 200 " not in head.partition(b"\r\n")[0]:
        raise LookupError(head.decode().partition("\r\n")[0])
    return body.decode().strip()


def repeat(way: str, attempt: Callable[[], str], expected: str, seconds: float = SECONDS) -> None:
    """Attempt it for ever; a line has the way, when the attempt began and ended, and what was wrong, if anything."""
    while True:
        begun = time.monotonic()
        try:
            answer = attempt()
            wrong = "" if expected in ("", answer) else f"{answer} answered"
        except (OSError, LookupError) as error:
            wrong = str(error) or type(error).__name__
        ended = time.monotonic()
        os.write(1, json.dumps([way, begun, ended, wrong]).encode() + b"\n")  # whole, whatever other threads do
        time.sleep(max(0.0, begun + seconds - ended))


def main(address: str, dns: str, name: str, root: str) -> None:
    """Start all four."""
    trust, label = ssl.create_default_context(cafile=root), name.partition(".")[0]
    ways: dict[str, tuple[Callable[[], str], str]] = {
        "ping": (lambda: ping(address), ""),
        "address": (lambda: fetch(address, address), ""),
        "name": (lambda: fetch(look_up(dns, name), name), label),
        "https": (lambda: fetch(look_up(dns, name), name, trust), label),
    }
    for way, (attempt, expected) in ways.items():
        threading.Thread(target=repeat, args=(way, attempt, expected)).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
