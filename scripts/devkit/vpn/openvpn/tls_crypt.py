"""OpenVPN's tls-crypt-v2: keys that hide and protect the handshake, one per client, and what they do to a packet.

The formats are those of OpenVPN's doc/tls-crypt-v2.txt.
"""

import base64
import hashlib
import hmac
import secrets
import struct
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

_SERVER_LABEL = "OpenVPN tls-crypt-v2 server key"
_CLIENT_LABEL = "OpenVPN tls-crypt-v2 client key"
_METADATA_TIMESTAMP = 1
_TAG_BYTES = 32
_LENGTH_BYTES = 2
_KEY_BYTES = 256
_SERVER_KEY_BYTES = 128


@dataclass(frozen=True)
class Seal:
    """One direction's pair of keys. A sealed text is a tag over itself and what stands in the clear, and a cipher."""

    encryption_key: bytes
    authentication_key: bytes

    @classmethod
    def from_half(cls, half: bytes) -> "Seal":
        """Out of 128 bytes, which have room for larger ciphers."""
        return cls(half[:32], half[64:96])

    def close(self, clear: bytes, plain: bytes) -> bytes:
        """Encrypt `plain`, and protect both."""
        tag = hmac.digest(self.authentication_key, clear + plain, hashlib.sha256)
        encryptor = Cipher(AES(self.encryption_key), CTR(tag[:16])).encryptor()
        return tag + encryptor.update(plain) + encryptor.finalize()

    def open(self, clear: bytes, sealed: bytes) -> bytes | None:
        """What `close` was given, or None when these keys have not made it."""
        tag, encrypted = sealed[:_TAG_BYTES], sealed[_TAG_BYTES:]
        if len(tag) < _TAG_BYTES:
            return None
        decryptor = Cipher(AES(self.encryption_key), CTR(tag[:16])).decryptor()
        plain = decryptor.update(encrypted) + decryptor.finalize()
        expected = hmac.digest(self.authentication_key, clear + plain, hashlib.sha256)
        return plain if hmac.compare_digest(expected, tag) else None


@dataclass(frozen=True)
class ClientKey:
    """What a client has: how it and the server seal packets, and both keys as the server wrapped them."""

    from_client: Seal
    from_server: Seal
    wrapped: bytes


def new_server_key() -> bytes:
    """Make a server key, as PEM. Replacing it invalidates every client key that it wrapped."""
    return _pem(_SERVER_LABEL, secrets.token_bytes(_SERVER_KEY_BYTES))


def parse_server_key(pem: bytes) -> bytes:
    """The key as `new_server_key` gave it. Raises ValueError when it is damaged."""
    key = _unpem(_SERVER_LABEL, pem)
    if len(key) != _SERVER_KEY_BYTES:
        raise ValueError(f"this is no {_SERVER_LABEL}")
    return _pem(_SERVER_LABEL, key)


def accepts(server_key: bytes, client_key: bytes) -> bool:
    """Whether a server with this key accepts a client's, both as PEM.

    Raises ValueError when the server's is damaged.
    """
    seal = Seal.from_half(_unpem(_SERVER_LABEL, server_key))
    try:
        data = _unpem(_CLIENT_LABEL, client_key)
    except ValueError:
        return False
    key, sealed, length = data[:_KEY_BYTES], data[_KEY_BYTES:-_LENGTH_BYTES], data[-_LENGTH_BYTES:]
    wrapped = seal.open(length, sealed)
    return wrapped is not None and len(key) == _KEY_BYTES and wrapped.startswith(key)


def new_client_key(server_key: bytes, now: datetime) -> bytes:
    """Make a client key wrapped by the server's key, as PEM.

    Raises ValueError when the server's key is damaged.
    """
    seal = Seal.from_half(_unpem(_SERVER_LABEL, server_key))
    key = secrets.token_bytes(_KEY_BYTES)
    metadata = struct.pack(">Bq", _METADATA_TIMESTAMP, int(now.timestamp()))
    length = struct.pack(">H", _TAG_BYTES + len(key) + len(metadata) + _LENGTH_BYTES)
    return _pem(_CLIENT_LABEL, key + seal.close(length, key + metadata) + length)


def parse_client_key(pem: bytes) -> ClientKey:
    """The key as `new_client_key` gave it. Raises ValueError when it is damaged."""
    data = _unpem(_CLIENT_LABEL, pem)
    key, wrapped = data[:_KEY_BYTES], data[_KEY_BYTES:]
    if len(wrapped) < _TAG_BYTES + _KEY_BYTES + _LENGTH_BYTES or int.from_bytes(wrapped[-2:], "big") != len(wrapped):
        raise ValueError(f"this is no {_CLIENT_LABEL}")
    half = _KEY_BYTES // 2
    return ClientKey(from_client=Seal.from_half(key[half:]), from_server=Seal.from_half(key[:half]), wrapped=wrapped)


def _pem(label: str, data: bytes) -> bytes:
    text = base64.b64encode(data).decode()
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode()


def _unpem(label: str, text: bytes) -> bytes:
    lines = text.decode().strip().splitlines()
    if len(lines) < 3 or lines[0] != f"-----BEGIN {label}-----" or lines[-1] != f"-----END {label}-----":
        raise ValueError(f"this is no {label}")
    return base64.b64decode("".join(lines[1:-1]), validate=True)
