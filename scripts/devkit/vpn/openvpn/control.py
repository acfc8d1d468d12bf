"""OpenVPN's control channel as a client has it: what TLS says arrives whole and in order, over TCP and UDP.

Packets are those of OpenVPN's doc/doxygen/doc_protocol_overview.h and doc/tls-crypt-v2.txt. In the clear: opcode (1
byte), sender's session (8), a number and the time against replay (4 and 4); sealed: how many packets are acknowledged
(1), their numbers (4 each) and, if any, their sender's session (8); the packet's own number (4) and its payload, unless
it only acknowledges.
"""

import socket
import struct
import time
from collections import deque
from secrets import token_bytes

from devkit.vpn.openvpn.tls_crypt import ClientKey

RESEND_SECONDS = 0.3

_DATA, _ACKNOWLEDGEMENT, _SERVER_RESET, _CLIENT_RESET, _DATA_WITH_KEY = 4, 5, 8, 10, 11
_CLEAR_BYTES = 17
_PAYLOAD_BYTES = 1000  # with all around it, it fits into one packet of any network
_MOST_BYTES = 4096  # of a packet; OpenVPN's own buffers have half
_WINDOW = 12  # so many packets may overtake one; OpenVPN's own
_REPEATED_ACKNOWLEDGEMENTS = 4
_EARLY_NEGOTIATION = 0x0F000000  # where numbers against replay begin, if the client can send the wrapped key again
_FLAGS, _SEND_KEY_AGAIN = 1, 1  # a type, and a bit of its value


class ForeignError(ConnectionError):
    """What answers is no server of OpenVPN, or does not know the client's key."""


class Wire:
    """Packets over a connected socket. Its errors are OSError, of them TimeoutError when time is up."""

    def __init__(self, connection: socket.socket, stream: bool) -> None:
        self.stream = stream
        self.heard = False  # anything at all
        self._connection = connection
        self._buffer = b""

    def send(self, packet: bytes, seconds: float = RESEND_SECONDS) -> None:
        """Send one packet."""
        self._connection.settimeout(seconds)
        self._connection.sendall(struct.pack(">H", len(packet)) + packet if self.stream else packet)

    def receive(self, until: float) -> bytes:
        """The next packet, whatever is in it."""
        while (packet := self._cut()) is None:
            self._connection.settimeout(left(until))
            try:
                received = self._connection.recv(0xFFFF)
            except ConnectionResetError:
                if self.stream:
                    raise
                raise ConnectionRefusedError from None  # so Windows says that nobody listens there
            if not self.stream:
                self.heard = True
                return received
            if not received:
                raise ConnectionResetError
            self._buffer += received
        return packet

    def _cut(self) -> bytes | None:
        """Take a whole packet off what has come."""
        if len(self._buffer) < 2:
            return None
        end = 2 + int.from_bytes(self._buffer[:2], "big")
        if not 2 < end <= _MOST_BYTES:
            raise ForeignError
        if len(self._buffer) < end:
            return None
        packet, self._buffer = self._buffer[2:end], self._buffer[end:]
        return packet


class Channel:
    """One conversation. What is not sealed by the server, or not for this conversation, changes nothing."""

    def __init__(self, wire: Wire, key: ClientKey) -> None:
        self._wire = wire
        self._key = key
        self._session = token_bytes(8)
        self._server_session = b""
        self._replay_number = _EARLY_NEGOTIATION
        self._time = int(time.time())
        self._next_to_send = 0
        self._next_to_come = 0
        self._sent: dict[int, tuple[int, bytes]] = {}  # opcode and payload, by number, until acknowledged
        self._resend_at = 0.0
        self._came: dict[int, bytes] = {}  # too early
        self._acknowledged: deque[int] = deque(maxlen=_REPEATED_ACKNOWLEDGEMENTS)
        self._owes_acknowledgement = False

    @property
    def all_acknowledged(self) -> bool:
        """Whether the server has taken all that was sent."""
        return not self._sent

    def begin(self, until: float) -> None:
        """Find the server. Raises ForeignError when something else answers, and TimeoutError when nothing does."""
        self._send(_CLIENT_RESET)
        greeting = b""
        try:
            while not self._server_session:
                greeting = self.receive(until)
        except TimeoutError as error:
            raise ForeignError if self._wire.heard else error from None
        if _wants_key_again(greeting):
            self._send(_DATA_WITH_KEY)

    def send(self, data: bytes) -> None:
        """Send what TLS says."""
        for start in range(0, len(data), _PAYLOAD_BYTES):
            self._send(_DATA, data[start : start + _PAYLOAD_BYTES])

    def receive(self, until: float) -> bytes:
        """What has come with one more packet, which may be nothing."""
        if self._owes_acknowledgement:
            self._transmit(_ACKNOWLEDGEMENT)
        while True:
            try:
                packet = self._wire.receive(until if self._wire.stream else min(until, self._resend_at))
            except TimeoutError:
                if time.monotonic() >= until:
                    raise
                self._resend()
            else:
                return self._take(packet)

    def _send(self, opcode: int, payload: bytes = b"") -> None:
        self._sent[self._next_to_send] = opcode, payload
        self._next_to_send += 1
        self._transmit(opcode, struct.pack(">I", self._next_to_send - 1) + payload)
        self._resend_at = time.monotonic() + RESEND_SECONDS

    def _resend(self) -> None:
        for number, (opcode, payload) in self._sent.items():
            self._transmit(opcode, struct.pack(">I", number) + payload)
        self._resend_at = time.monotonic() + RESEND_SECONDS

    def _transmit(self, opcode: int, content: bytes = b"") -> None:
        # Acknowledgements are repeated, as a server that keeps nothing of a first packet asks for them anew.
        acknowledged = bytes([len(self._acknowledged)])
        if self._acknowledged:
            acknowledged += struct.pack(f">{len(self._acknowledged)}I", *self._acknowledged) + self._server_session
        self._owes_acknowledgement = False
        self._replay_number += 1
        clear = bytes([opcode << 3]) + self._session + struct.pack(">II", self._replay_number, self._time)
        wrapped_key = self._key.wrapped if opcode in (_CLIENT_RESET, _DATA_WITH_KEY) else b""
        self._wire.send(clear + self._key.from_client.close(clear, acknowledged + content) + wrapped_key)

    def _take(self, packet: bytes) -> bytes:
        """Take note of a packet, and return what has come with it."""
        clear, sealed = packet[:_CLEAR_BYTES], packet[_CLEAR_BYTES:]
        content = self._key.from_server.open(clear, sealed)
        if content is None:
            if self._wire.stream:
                raise ForeignError
            return b""  # anybody can send that
        opcode, session = clear[0] >> 3, clear[1:9]
        count = content[0] if content else 0
        numbers, rest = content[1 : 1 + 4 * count], content[1 + 4 * count :]
        if count:
            to_session, rest = rest[:8], rest[8:]
            if to_session != self._session:
                return b""
            if opcode == _SERVER_RESET and not self._server_session:
                self._server_session = session
        if session != self._server_session:
            return b""
        for (number,) in struct.iter_unpack(">I", numbers):
            self._sent.pop(number, None)
        return b"" if opcode == _ACKNOWLEDGEMENT else self._in_order(rest)

    def _in_order(self, numbered: bytes) -> bytes:
        number = int.from_bytes(numbered[:4], "big")
        if len(numbered) < 4 or number >= self._next_to_come + _WINDOW:
            return b""
        self._acknowledged.append(number)
        self._owes_acknowledgement = True
        if number >= self._next_to_come:
            self._came[number] = numbered[4:]
        data = b""
        while self._next_to_come in self._came:
            data += self._came.pop(self._next_to_come)
            self._next_to_come += 1
        return data


def left(until: float) -> float:
    """The seconds that are left. Raises TimeoutError when there are none."""
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def _wants_key_again(greeting: bytes) -> bool:
    """Whether a server that answers has kept nothing of the first packet. It says so by type (2), length (2), value."""
    while len(greeting) >= 4:
        kind, length = struct.unpack_from(">HH", greeting)
        if kind == _FLAGS and int.from_bytes(greeting[4 : 4 + length], "big") & _SEND_KEY_AGAIN:
            return True
        greeting = greeting[4 + length :]
    return False
