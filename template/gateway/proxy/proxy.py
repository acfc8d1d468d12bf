#!/usr/bin/python3
"""The proxy: Caddy, and beside it what tells Caddy where to go, for what the container `names` has written.

Caddy's configuration never changes, so no connection ends because some container comes or goes: it asks here, by HTTP
for which names it may sign, and by DNS which addresses and ports serve one.

environment: DNS_DOMAIN; VPN_SUBNET, a CIDR; ROUTES, CIDRs with spaces between them
file descriptor 3: the intermediate's key
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from html import escape
from ipaddress import IPv4Network
from pathlib import Path
from typing import cast

from aiohttp import web
from devkit import proxy
from devkit.facts import Session
from devkit.vpn.openvpn.status import sessions_in
from dnslib import QTYPE, RR, SRV, A, DNSError, DNSRecord

TOLD = Path("/run/names/containers.json")
STATUS = Path("/run/vpn/status")
REDIRECTIONS = Path("/run/redirections/wanted")
HTTPS = Path("/etc/https")
LIBRARY = Path("/usr/local/lib/d4m")
KEY = Path("/run/intermediate.key")
CONFIGURATION = Path("/run/caddy.json")
# caddy.json says the same. Clients come to the first through Caddy, and to the others not at all.
SHOWN, ASKED, RESOLVER = ("127.0.0.1", 8081), ("127.0.0.1", 8082), ("127.0.0.1", 8053)

LOOK_SECONDS = 0.2
PROBE_SECONDS = 1.0  # how long an attempt may take
SOON, LATER = 2.0, 15.0  # between two attempts; soon in the first minute of a container, while nothing answers
YOUNG_SECONDS = 60.0
ADDRESS_SECONDS = 10.0
STATUS_SECONDS = 25.0  # older, it says nothing; a server without clients writes it every ten
MOST_AT_ONCE = 50
MOST_BELOW_ONE, MOST_BELOW = 100, 4000  # names that certificates are made for, below one name and in all
CERTIFICATE_SECONDS = 12 * 3600
MOST_UPSTREAMS = 16  # what Go's resolver takes is 1232 bytes

PAGE = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Proxy:
    """What is known by now, and what follows from it."""

    def __init__(self, routes: list[IPv4Network]) -> None:
        self._routes = routes
        self._version: tuple[int, int] | None = None
        self._known = proxy.Told()
        self._listening: dict[tuple[str, int], bool] = {}
        self._since: dict[str, float] = {}  # when a container, by its ID and address, was first told of
        self._next: dict[tuple[str, int], float] = {}  # when to try an address and port again
        self._written: str | None = None
        self._below: dict[str, tuple[str, float]] = {}  # the name that each is below, and when it was asked for

    # ------------------------------------------------------------------------------- from outside

    def read(self) -> None:
        """Read what `names` has told, if that has changed."""
        with contextlib.suppress(FileNotFoundError):
            status = TOLD.stat()
            if (version := (status.st_ino, status.st_mtime_ns)) != self._version:
                self._known, self._version = proxy.parse(TOLD.read_text()), version
                self._forget_the_gone()

    def _forget_the_gone(self) -> None:
        now = time.monotonic()
        there = {f"{one.id} {address} {one.state}": address for address, one in self._known.by_address.items()}
        fresh = {address for key, address in there.items() if key not in self._since}
        self._since = {key: self._since.get(key, now) for key in there}
        # The ports of an address stand together: a kernel knows few addresses at a time (arp(7), gc_thresh3).
        wanted = dict.fromkeys((at, port) for at, one in self._known.by_address.items() for port in proxy.to_probe(one))
        self._listening = {key: is_ for key, is_ in self._listening.items() if key in wanted and key[0] not in fresh}
        self._next = {key: 0.0 if key[0] in fresh else self._next.get(key, 0.0) for key in wanted}

    async def probe(self) -> None:
        """Try the ports whose time has come."""
        now = time.monotonic()
        due = sorted((key for key, at in self._next.items() if at <= now), key=self._next.__getitem__)[:MOST_AT_ONCE]
        young = {key.split()[1] for key, since in self._since.items() if now - since < YOUNG_SECONDS}
        for (address, port), accepts in zip(due, await asyncio.gather(*(_accepts(*key) for key in due)), strict=True):
            if (address, port) not in self._next:  # it has gone meanwhile
                continue
            self._listening[address, port] = accepts
            self._next[address, port] = now + (SOON if address in young and not accepts else LATER)

    def write(self) -> None:
        """Replace what is to be redirected, if that has changed."""
        wanted = proxy.redirections(self._known, self._listening, self._routes)
        if wanted != self._written:
            unfinished = REDIRECTIONS.with_suffix(".new")
            unfinished.write_text(wanted)
            unfinished.replace(REDIRECTIONS)
            self._written = wanted

    # ------------------------------------------------------------------------------- for Caddy

    def resolve(self, request: bytes) -> bytes:
        """Answer Caddy: which addresses and ports serve `host.NAME.` (SRV), and where 172-18-0-2 is (A)."""
        record = DNSRecord.parse(request)
        answer, asked = record.reply(), str(record.q.qname).rstrip(".").lower()
        address = asked.replace("-", ".")
        if record.q.qtype == QTYPE.SRV:
            found = list(proxy.upstreams(self._known, asked.removeprefix("host."), self._listening))
            if len(found) > MOST_UPSTREAMS:
                found = random.sample(found, MOST_UPSTREAMS)
            for there, port in found or [SHOWN]:  # what nobody serves is answered here
                target = SRV(priority=0, weight=1, port=port, target=there.replace(".", "-"))
                answer.add_answer(RR(record.q.qname, QTYPE.SRV, ttl=0, rdata=target))
        elif record.q.qtype == QTYPE.A and (address in self._known.by_address or address == SHOWN[0]):
            answer.add_answer(RR(record.q.qname, QTYPE.A, ttl=0, rdata=A(address)))
        return bytes(answer.pack())

    async def vouched_for(self, request: web.Request) -> web.Response:
        """Whether Caddy may sign for a name."""
        host = request.query.get("domain", "")
        name = proxy.vouched_for(self._known, host)
        if name is None:
            return web.Response(status=404)
        host = host.lower()
        if host not in (name, *self._below):
            now = time.monotonic()
            self._below = {key: it for key, it in self._below.items() if now - it[1] < CERTIFICATE_SECONDS}
            if len(self._below) >= MOST_BELOW or [it[0] for it in self._below.values()].count(name) >= MOST_BELOW_ONE:
                return web.Response(status=429)
            self._below[host] = name, now
        return web.Response()

    # ------------------------------------------------------------------------------- for people

    async def page(self, request: web.Request) -> web.Response:
        """A part of the page at https://DOMAIN/."""
        name, kind = PAGE[request.path]
        content = (LIBRARY / "page" / name).read_bytes()
        return web.Response(body=content, content_type=kind, charset="utf-8", headers=HEADERS)

    async def state(self, _: web.Request) -> web.Response:
        """What the page shows."""
        expiries = json.loads((HTTPS / "expiries.json").read_text())
        shown = proxy.state(self._known, self._listening, _sessions(), expiries, datetime.now(UTC))
        return web.json_response(shown, headers=HEADERS)

    async def no_icon(self, _: web.Request) -> web.Response:
        """Browsers ask for one, and would complain."""
        return web.Response(status=204)

    async def by_host(self, request: web.Request, serve_: Handler) -> web.StreamResponse:
        """Leave all but what is asked of the domain to a page that says why there is nothing to see."""
        return await serve_(request) if _host(request) == self._known.domain else await self.nothing_there(request)

    async def nothing_there(self, request: web.Request) -> web.Response:
        """A page that says why there is nothing to see."""
        host = _host(request)
        addresses = proxy.addresses_of(self._known, host)
        found = [self._known.by_address[address] for address in addresses if address in self._known.by_address]
        ports = [port for one in found if (port := proxy.http_port(one, self._listening))]
        if any(proxy.serves_itself(one, 443, self._listening) for one in found) and not ports:
            return web.Response(status=308, headers={"Location": f"https://{host}{request.path_qs}"})
        self._next |= {key: 0.0 for key in self._next if key[0] in addresses}  # it may have come up just now
        if ports:
            said = f"Nothing answers at port {ports[0]} of {found[0].name}."
        elif found:
            said = f"{found[0].name} has no web server that is known. If it has one, the label d4m.port says its port."
        else:
            said = "No container has this name."
        text = f"<!doctype html><title>{escape(host)}</title><h1>{escape(host)}</h1><p>{escape(said)}</p>"
        if self._known.domain:
            text += f'<p><a href="https://{self._known.domain}/">What there is</a></p>'
        return web.Response(status=502 if found else 404, text=text, content_type="text/html", headers=HEADERS)


def _host(request: web.Request) -> str:
    return str(request.host).partition(":")[0].lower().rstrip(".")


async def _accepts(address: str, port: int) -> bool:
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            _, writer = await asyncio.open_connection(address, port)
    except OSError:  # TimeoutError, too
        return False
    writer.close()
    return True


def _sessions() -> tuple[Session, ...] | None:
    try:
        if time.time() - STATUS.stat().st_mtime > STATUS_SECONDS:
            return None
        return sessions_in(STATUS.read_text().splitlines())
    except (OSError, ValueError):  # it is being written just now
        return None


class _Resolver(asyncio.DatagramProtocol):
    def __init__(self, served: Proxy) -> None:
        self._served = served

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        with contextlib.suppress(DNSError):  # it is no question
            self._transport.sendto(self._served.resolve(data), addr)


async def serve() -> int:
    """Serve until Caddy ends; return its exit code."""
    served = Proxy([IPv4Network(route) for route in os.environ["ROUTES"].split()])

    async def by_host(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await served.by_host(request, handler)

    application = web.Application(middlewares=[web.middleware(by_host)])
    application.router.add_get("/nothing-there", served.nothing_there)
    application.router.add_get("/state.json", served.state)
    application.router.add_get("/favicon.ico", served.no_icon)
    for path in PAGE:
        application.router.add_get(path, served.page)
    for_caddy = web.Application()
    for_caddy.router.add_get("/vouched-for", served.vouched_for)
    for one, place in ((application, SHOWN), (for_caddy, ASKED)):
        runner = web.AppRunner(one, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, *place).start()
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: _Resolver(served), local_addr=RESOLVER)
    served.read()
    caddy = await asyncio.create_subprocess_exec("caddy", "run", "--config", CONFIGURATION)
    loop.add_signal_handler(signal.SIGTERM, caddy.kill)  # it has nothing to save
    probing = loop.create_task(_probe(served))
    while caddy.returncode is None and not probing.done():
        served.read()
        served.write()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(caddy.wait(), LOOK_SECONDS)
    return caddy.returncode or 1


async def _probe(served: Proxy) -> None:
    while True:
        await served.probe()
        await asyncio.sleep(LOOK_SECONDS)


def configure() -> None:
    """Write what Caddy reads."""
    KEY.touch(mode=0o600)
    with os.fdopen(3, "rb") as key:
        KEY.write_bytes(key.read())
    address = IPv4Network(os.environ["VPN_SUBNET"])[1]
    _wait_for(str(address))
    template = (LIBRARY / "caddy.json").read_text()
    CONFIGURATION.write_text(template.replace("DOMAIN", os.environ["DNS_DOMAIN"]).replace("ADDRESS", str(address)))


def _wait_for(address: str) -> None:
    """The server may just be starting, and makes the address."""
    deadline = time.monotonic() + ADDRESS_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.socket() as attempt:
            attempt.bind((address, 0))
            return
        time.sleep(0.1)


if __name__ == "__main__":
    configure()
    sys.exit(asyncio.run(serve()))
