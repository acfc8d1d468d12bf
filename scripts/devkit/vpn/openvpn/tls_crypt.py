"""OpenVPN's tls-crypt-v2 keys: they hide and protect the handshake, one key per client.

The formats are those of OpenVPN's doc/tls-crypt-v2.txt.
"""

import base64
import hashlib
import hmac
import secrets
import struct
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
    encryption_key, authentication_key = _halves(server_key)
    try:
        data = _unpem(_CLIENT_LABEL, client_key)
    except ValueError:
        return False
    key, tag, encrypted, length = (
        data[:_KEY_BYTES],
        data[_KEY_BYTES : _KEY_BYTES + _TAG_BYTES],
        data[_KEY_BYTES + _TAG_BYTES : -_LENGTH_BYTES],
        data[-_LENGTH_BYTES:],
    )
    if len(encrypted) < _KEY_BYTES:
        return False
    decryptor = Cipher(AES(encryption_key), CTR(tag[:16])).decryptor()
    wrapped = decryptor.update(encrypted) + decryptor.finalize()
    expected = hmac.digest(authentication_key, length + wrapped, hashlib.sha256)
    return hmac.compare_digest(expected, tag) and wrapped.startswith(key)


def new_client_key(server_key: bytes, now: datetime) -> bytes:
    """Make a client key wrapped by the server's key, as PEM.

    Raises ValueError when the server's key is damaged.
    """
    encryption_key, authentication_key = _halves(server_key)
    key = secrets.token_bytes(_KEY_BYTES)
    metadata = struct.pack(">Bq", _METADATA_TIMESTAMP, int(now.timestamp()))
    length = struct.pack(">H", _TAG_BYTES + len(key) + len(metadata) + _LENGTH_BYTES)
    tag = hmac.digest(authentication_key, length + key + metadata, hashlib.sha256)
    encryptor = Cipher(AES(encryption_key), CTR(tag[:16])).encryptor()
    wrapped = tag + encryptor.update(key + metadata) + encryptor.finalize() + length
    return _pem(_CLIENT_LABEL, key + wrapped)


def _halves(server_key: bytes) -> tuple[bytes, bytes]:
    """The part of a server's key that encrypts, and the part that authenticates."""
    server = _unpem(_SERVER_LABEL, server_key)
    return server[:32], server[64:96]


def _pem(label: str, data: bytes) -> bytes:
    text = base64.b64encode(data).decode()
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode()


def _unpem(label: str, text: bytes) -> bytes:
    lines = text.decode().strip().splitlines()
    if len(lines) < 3 or lines[0] != f"-----BEGIN {label}-----" or lines[-1] != f"-----END {label}-----":
        raise ValueError(f"this is no {label}")
    return base64.b64decode("".join(lines[1:-1]), validate=True)
