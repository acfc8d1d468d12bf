"""The handshake with real servers, as the template configures them, and with what is none."""

import random
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Literal

import pytest
from devkit import layout
from devkit.facts import Session
from devkit.keys import x509
from devkit.keys.model import Client, Generation
from devkit.material import contents, rotation
from devkit.vpn.lane import Handshake
from devkit.vpn.openvpn import handshake as module
from devkit.vpn.openvpn import reading
from devkit.vpn.openvpn.handshake import handshake
from devkit.vpn.openvpn.profile import profile
from devkit.vpn.openvpn.status import sessions_in

from tests.conftest import copy_project
from tests.docker_desktop.cache import client_programs
from tests.kubernetes.processes import free_port, running
from tests.unit.made import answers
from tests.vpn import eventually

NOW = datetime.now(UTC)
Protocol = Literal["tcp", "udp"]
NewServer = Callable[..., "Server"]
PROTOCOLS: Sequence[Protocol] = ("tcp", "udp")
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
# No test wants an address or a route for this machine.
BESIDE = ("--dev", "tun", "--ifconfig-noexec", "--route-noexec", "--user", "root", "--group", "root")
MADE = rotation.first_generation(answers(), NOW)
OTHER = rotation.first_generation(answers(), NOW)
LONG_AGO = NOW - timedelta(days=3)
(LAPTOP,) = MADE.clients
CLOSED, SILENT, FOREIGN = "connection closed", "no answer", "not OpenVPN, or another key"


class Server:
    """A server on loopback, the profiles that lead there, and what it says."""

    def __init__(self, home: Path, protocol: Protocol, series: str, readable: contents.Readable) -> None:
        self.protocol = protocol
        self.series = series
        self.log = home / "server.log"
        self._home = home
        self._readable = readable
        self._answers = answers(vpn_protocol=protocol, vpn_port=free_port())

    def profile(self, generation: Generation = MADE, client: Client = LAPTOP, port: int | None = None) -> str:
        """A client's profile, as a generation makes it."""
        there = replace(self._answers, vpn_port=port or self.port)
        return profile(self._readable.client_conf, there, generation, client).decode()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._answers.vpn_port

    @contextmanager
    def running(self, generation: Generation) -> Iterator["Server"]:
        """Run OpenVPN with the configuration that the template ships, and what a generation gives it."""
        for folder in contents.folders():
            (self._home / folder).mkdir(parents=True)
        for file in contents.files(generation, self._readable, self._answers):
            (self._home / file.path).parent.mkdir(parents=True, exist_ok=True)
            (self._home / file.path).write_bytes(file.content)
        (self._home / "server.conf").write_text(self._readable.server_conf)
        openvpn, home = program(self.series, self._home)
        command = [
            *openvpn, "--cd", str(home / layout.CONFIGS), "--config", str(home / "server.conf"), *BESIDE,
            "--local", "127.0.0.1", "--port", str(self.port),
            "--status", str(home / "status"), "1", "--status-version", "3",
        ]  # fmt: skip
        with running(command, self.log):
            eventually(lambda: "Initialization Sequence Completed" in self.log.read_text())
            assert f"OpenVPN {self.series}." in self.log.read_text()
            yield self

    def sessions(self) -> tuple[Session, ...]:
        """Who is connected now; it writes that every second."""
        status = self._home / "status"
        before = status.stat().st_mtime_ns
        eventually(lambda: status.stat().st_mtime_ns > before)
        return sessions_in(status.read_text().splitlines())

    def refusal(self, alert: str) -> Handshake:
        """How it refuses a client: over UDP it says nothing any more, over TCP it ends the connection; 2.7 says why."""
        if self.protocol == "udp":
            return Handshake("client", SILENT)
        return Handshake("client", CLOSED if self.series == "2.6" else alert)


def program(series: str, home: Path) -> tuple[list[str], Path]:
    """OpenVPN of a series, and where it sees a folder."""
    if series == "2.6":
        return ["openvpn"], home
    root = client_programs()
    mounts = f"mount --rbind /dev {root}/dev && mount -t proc proc {root}/proc && mount --bind {home} {root}/mnt"
    return ["unshare", "--mount", "sh", "-c", f'{mounts} && exec chroot {root} "$@"', "-", "openvpn"], Path("/mnt")


@pytest.fixture(scope="module")
def new_server(tmp_path_factory: pytest.TempPathFactory) -> NewServer:
    readable = {}

    def make(protocol: Protocol, series: str = "2.6") -> Server:
        home = tmp_path_factory.mktemp(protocol)
        if protocol not in readable:
            project = copy_project(home / "devkit", vpn_protocol=protocol)
            texts = [(project / path).read_text() for path in ("client/client.conf", "server/server.conf")]
            readable[protocol] = contents.Readable(*texts)
        return Server(home, protocol, series, readable[protocol])

    return make


@pytest.fixture(scope="module", params=[(protocol, series) for protocol in PROTOCOLS for series in ("2.6", "2.7")])
def server(new_server: NewServer, request: pytest.FixtureRequest) -> Iterator[Server]:
    with new_server(*request.param).running(MADE) as it:
        yield it


@pytest.fixture
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try for a second where it is known that nothing comes."""
    monkeypatch.setattr(module, "LIMIT_SECONDS", 1)


def test_passes_where_the_client_may_connect_and_leaves_no_session(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    started = time.monotonic()
    assert handshake(server.profile()) == Handshake("passed")
    assert time.monotonic() - started < module.LIMIT_SECONDS
    assert server.sessions() == ()
    assert not [*tmp_path.iterdir()]  # it has kept no key


def test_session_of_the_same_client_goes_on(server: Server, tmp_path: Path) -> None:
    (tmp_path / "laptop.ovpn").write_text(server.profile())
    log = tmp_path / "client.log"
    with running(["openvpn", "--config", tmp_path / "laptop.ovpn", *BESIDE], log):
        eventually(lambda: "Initialization Sequence Completed" in log.read_text())
        (before,) = server.sessions()
        assert before.client == "laptop"
        assert handshake(server.profile()) == Handshake("passed")
        assert server.sessions() == (before,)
        assert "restarting" not in log.read_text()


def test_expired_client_is_refused(server: Server) -> None:
    expired = x509.issue(MADE.ca.credential, x509.CLIENT, ["laptop"], "ecdsa-p256", 1, LONG_AGO)
    text = server.profile(client=replace(LAPTOP, credential=expired))
    assert handshake(text) == server.refusal("certificate expired")


def test_client_of_another_ca_is_refused(server: Server) -> None:
    text = server.profile(client=replace(LAPTOP, credential=OTHER.clients[0].credential))
    assert handshake(text) == server.refusal("unknown ca")


def test_profile_of_another_server_key_gets_no_answer(server: Server, in_a_hurry: None) -> None:
    text = server.profile(client=replace(LAPTOP, keys=OTHER.clients[0].keys))
    # The server drops the packet; over TCP it ends the connection, too.
    assert handshake(text) == (Handshake("answer", CLOSED) if server.protocol == "tcp" else Handshake("port", SILENT))


def test_server_of_another_ca_is_not_trusted(server: Server) -> None:
    text = server.profile(replace(MADE, ca=OTHER.ca))
    assert handshake(text) == Handshake("server", "self-signed certificate in certificate chain")


def test_server_of_another_name_is_not_trusted(server: Server) -> None:
    text = server.profile().replace("verify-x509-name server.devkit", "verify-x509-name server.other")
    assert handshake(text) == Handshake("server", "its name is server.devkit, not server.other")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_expired_server_is_not_trusted(new_server: NewServer, protocol: Protocol) -> None:
    expired = x509.issue(MADE.ca.credential, x509.SERVER, ["server.devkit"], "ecdsa-p256", 1, LONG_AGO)
    with new_server(protocol).running(replace(MADE, server=expired)) as server:
        assert handshake(server.profile()) == Handshake("server", "certificate has expired")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_client_is_no_server(new_server: NewServer, protocol: Protocol) -> None:
    client = x509.issue(MADE.ca.credential, x509.CLIENT, ["server.devkit"], "ecdsa-p256", 1, NOW)
    with new_server(protocol).running(replace(MADE, server=client)) as server:
        found = handshake(server.profile())
        assert found.stage == "server"
        assert "purpose" in found.said


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("series", ["2.6", "2.7"])
def test_superseded_profile_is_refused(new_server: NewServer, protocol: Protocol, series: str) -> None:
    rotated = rotation.rotated(MADE, "leaf", False, answers(), NOW)
    twice = rotation.rotated(rotated, "leaf", False, answers(), NOW)
    with new_server(protocol, series).running(twice) as server:
        assert handshake(server.profile()) == server.refusal("certificate revoked")
        assert handshake(server.profile(rotated, rotated.clients[0])) == Handshake("passed")


def test_client_that_is_refused_by_name_passes_as_the_server_says_so_later(new_server: NewServer) -> None:
    with new_server("tcp").running(rotation.without_client(MADE, "laptop", NOW)) as server:
        assert handshake(server.profile()) == Handshake("passed")


@pytest.mark.parametrize("place", range(8))
def test_lost_and_overtaken_packets_do_not_matter(way: Server, place: int) -> None:
    with relay(way.port, lost_up={place}, lost_down={place}, late_down={place + 1}) as port:
        assert handshake(way.profile(port=port)) == Handshake("passed")


@pytest.fixture(scope="module")
def way(new_server: NewServer) -> Iterator[Server]:
    with new_server("udp").running(MADE) as it:
        yield it


@contextmanager
def relay(port: int, lost_up: Collection[int], lost_down: Collection[int], late_down: Collection[int]) -> Iterator[int]:
    """A bad way to a port: it loses some packets up and down by their place, and lets some come after the next."""
    with socket.socket(type=socket.SOCK_DGRAM) as up, socket.socket(type=socket.SOCK_DGRAM) as down:
        down.bind(("127.0.0.1", 0))
        up.connect(("127.0.0.1", port))
        clients: list[tuple[str, int]] = []

        def carry_up() -> None:
            for place in count():
                packet, client = down.recvfrom(0xFFFF)
                if not packet:  # it is over
                    break
                clients.append(client)
                if place not in lost_up:
                    up.send(packet)

        def carry_down() -> None:
            late: list[bytes] = []
            for place in count():
                packets = [up.recv(0xFFFF)]
                if not packets[0]:
                    break
                if place in late_down:
                    late = packets
                elif place not in lost_down:
                    for packet in packets + late:
                        down.sendto(packet, clients[-1])
                    late = []

        with in_threads([carry_up, carry_down], [up, down]):
            yield down.getsockname()[1]


@contextmanager
def in_threads(works: Sequence[Callable[[], None]], sockets: Sequence[socket.socket]) -> Iterator[None]:
    """Run this beside; it ends when its sockets are shut down."""
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for one in sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()


def to(port: int, protocol: Protocol, host: str = "127.0.0.1") -> str:
    """A profile that leads somewhere."""
    there = answers(vpn_port=port, vpn_protocol=protocol, vpn_host=host)
    return profile(f"proto {protocol}4", there, MADE, MADE.clients[0]).decode()


@contextmanager
def impostor(protocol: Protocol, behave: Callable[[socket.socket, bytes], None]) -> Iterator[str]:
    """Who answers on a port, given the first packet, and then says nothing; and the profile that leads there."""
    with socket.socket(type=KINDS[protocol]) as listener:
        listener.bind(("127.0.0.1", 0))
        opened = [listener]

        def serve() -> None:
            with suppress(OSError):
                if protocol == "tcp":
                    opened.append(listener.accept()[0])
                    behave(opened[-1], opened[-1].recv(0xFFFF)[2:])
                    while opened[-1].recv(0xFFFF):
                        pass
                else:
                    packet, client = listener.recvfrom(0xFFFF)
                    listener.connect(client)
                    behave(listener, packet)
                    while listener.recv(0xFFFF):
                        pass

        if protocol == "tcp":
            listener.listen()
        try:
            with in_threads([serve], opened):
                yield to(listener.getsockname()[1], protocol)
        finally:
            for connection in opened:
                connection.close()


def saying(*parts: bytes) -> Callable[[socket.socket, bytes], None]:
    def say(connection: socket.socket, packet: bytes) -> None:
        for part in parts:
            connection.send(part)

    return say


def closing(connection: socket.socket, packet: bytes) -> None:
    connection.shutdown(socket.SHUT_RDWR)


def breaking_off(connection: socket.socket, packet: bytes) -> None:
    connection.send(b"\0\x40truncated")
    connection.shutdown(socket.SHUT_RDWR)


def echoing(connection: socket.socket, packet: bytes) -> None:
    connection.send(framed(connection, packet))


def flooding(connection: socket.socket, packet: bytes) -> None:
    noise = random.Random(1)  # noqa: S311  # the same every time
    while True:
        connection.send(framed(connection, noise.randbytes(noise.randrange(1, 200))))


def framed(connection: socket.socket, packet: bytes) -> bytes:
    return struct.pack(">H", len(packet)) + packet if connection.type == socket.SOCK_STREAM else packet


@pytest.mark.parametrize(
    ("behave", "said"),
    [
        (saying(), SILENT),
        (closing, CLOSED),
        (saying(b"SSH-2.0-OpenSSH_9.9\r\n"), FOREIGN),
        (saying(b"HTTP/1.1 400 Bad Request\r\n\r\n"), FOREIGN),
        (saying(b"\xff\xff", b"x" * 1000), FOREIGN),
        (saying(b"\0\0"), FOREIGN),
        (saying(b"\0"), SILENT),
        (saying(b"\0\x01x"), FOREIGN),
        (saying(b"\0\x40truncated"), SILENT),
        (breaking_off, CLOSED),
        (echoing, FOREIGN),
        (flooding, FOREIGN),
    ],
)  # fmt: skip
def test_what_listens_there_over_tcp_is_no_server(
    behave: Callable[[socket.socket, bytes], None], said: str, in_a_hurry: None
) -> None:
    with impostor("tcp", behave) as text:
        assert handshake(text) == Handshake("answer", said)


@pytest.mark.parametrize("behave", [echoing, flooding, saying(b"x"), saying(b""), saying(b"\x40" * 0xF000)])
def test_what_answers_over_udp_is_no_server(behave: Callable[[socket.socket, bytes], None], in_a_hurry: None) -> None:
    with impostor("udp", behave) as text:
        assert handshake(text) == Handshake("answer", FOREIGN)


def test_silence_over_udp_may_be_a_port_without_a_listener(in_a_hurry: None) -> None:
    with impostor("udp", saying()) as text:
        assert handshake(text) == Handshake("port", SILENT)


def test_it_gives_up_after_six_seconds() -> None:
    with impostor("tcp", saying()) as text:
        started = time.monotonic()
        assert handshake(text) == Handshake("answer", SILENT)
        assert 5.5 < time.monotonic() - started < 8


class Knowing:
    """Who knows the client's key, and may say anything."""

    def __init__(self, connection: socket.socket, packet: bytes) -> None:
        self._connection = connection
        self._key = reading.secrets(to(1, "tcp")).key
        self.client = packet[1:9]

    def seal(self, opcode: int, content: bytes, session: bytes = b"sessions") -> None:
        """Send a packet."""
        clear = bytes([opcode << 3]) + session + bytes(8)
        self._connection.send(framed(self._connection, clear + self._key.from_server.close(clear, content)))

    def greet(self, number: int = 0, payload: bytes = b"") -> None:
        """Answer the first packet, as a server does."""
        self.seal(8, b"\x01" + bytes(4) + self.client + struct.pack(">I", number) + payload)


def raving(seed: int) -> Callable[[socket.socket, bytes], None]:
    """Says what is sealed as it should be and odd in every other way."""

    def rave(connection: socket.socket, packet: bytes) -> None:
        odd, server = random.Random(seed), Knowing(connection, packet)  # noqa: S311  # the same every time
        for turn in range(300):
            acknowledged = odd.choice([0, 0, 1, 3, 255])
            whom = odd.choice([server.client, bytes(8)]) if acknowledged else b""
            number = struct.pack(">I", odd.choice([0, 1, 2, 3, 11, 12, 0xFFFFFFFF]))
            whole = (
                bytes([acknowledged])
                + odd.randbytes(4 * acknowledged)
                + whom
                + number
                + odd.choice([b"", b"\0\1", b"\0\2\xff\xff"])
            )
            server.seal(odd.randrange(32), whole[: odd.randrange(len(whole) + 1)] if odd.random() < 0.5 else whole)
            if turn == 50:
                server.greet()

    return rave


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("seed", range(5))
def test_server_that_raves_changes_nothing(protocol: Protocol, seed: int, in_a_hurry: None) -> None:
    with impostor(protocol, raving(seed)) as text:
        assert handshake(text).stage == "server"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "greeting", [b"", b"\0", b"\0\1\0\2", b"\0\1\xff\xff\0\1", b"\0\1\0\0" * 100, b"\0\7\0\3abc\0\1\0\2\0\1"]
)
def test_server_that_greets_and_repeats_itself_is_silent(protocol: Protocol, greeting: bytes, in_a_hurry: None) -> None:
    def greet(connection: socket.socket, packet: bytes) -> None:
        for _ in range(50):
            Knowing(connection, packet).greet(payload=greeting)

    with impostor(protocol, greet) as text:
        assert handshake(text) == Handshake("server", SILENT)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_server_that_does_not_speak_tls_is_none(protocol: Protocol, in_a_hurry: None) -> None:
    def greet(connection: socket.socket, packet: bytes) -> None:
        server = Knowing(connection, packet)
        server.greet()
        server.seal(4, b"\0" + struct.pack(">I", 1) + b"no TLS at all")

    with impostor(protocol, greet) as text:
        assert handshake(text) == Handshake("server", "wrong version number")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_closed_port_is_named(protocol: Protocol) -> None:
    assert handshake(to(free_port(), protocol)) == Handshake("port", "connection refused")


def test_silent_port_is_named(in_a_hurry: None) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, suppress(BlockingIOError):
        waiting = [socket.socket() for _ in range(3)]
        try:
            for one in waiting:
                one.setblocking(False)
                one.connect_ex(full.getsockname())
            assert handshake(to(full.getsockname()[1], "tcp")) == Handshake("port", SILENT)
        finally:
            for one in waiting:
                one.close()


def test_host_without_an_address_is_named() -> None:
    found = handshake(to(1194, "tcp").replace("remote 127.0.0.1", "remote nowhere.invalid"))
    assert found.stage == "name"
    assert found.said
    found = handshake(to(1194, "tcp").replace("remote 127.0.0.1", f"remote {'x' * 70}.example"))
    assert found == Handshake("name", "no name of a host")


def test_resolver_that_does_not_answer_is_not_waited_for(in_a_hurry: None, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [(ended.wait(10), None, None, None, [None])])
    assert handshake(to(1194, "tcp")) == Handshake("name", SILENT)
    ended.set()
