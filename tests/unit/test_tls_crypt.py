"""The keys of tls-crypt-v2, held against OpenVPN's own description of them (doc/tls-crypt-v2.txt)."""

import base64
import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from devkit.vpn.openvpn.tls_crypt import accepts, new_client_key, new_server_key, parse_server_key

from tests.unit.made import NOW

SERVER, CLIENT = "OpenVPN tls-crypt-v2 server key", "OpenVPN tls-crypt-v2 client key"


def content(pem: bytes, label: str) -> bytes:
    first, *lines, last = pem.decode().splitlines()
    assert (first, last) == (f"-----BEGIN {label}-----", f"-----END {label}-----")
    assert {len(line) for line in lines[:-1]} <= {64}
    assert pem.endswith(b"-----\n")
    return base64.b64decode("".join(lines), validate=True)


def pem(label: str, data: bytes) -> bytes:
    return f"-----BEGIN {label}-----\n{base64.b64encode(data).decode()}\n-----END {label}-----\n".encode()


def test_client_key_is_what_the_description_says() -> None:
    server_key = new_server_key()
    server = content(server_key, SERVER)
    assert len(server) == 128
    data = content(new_client_key(server_key, NOW), CLIENT)
    key, tag, encrypted, length = data[:256], data[256:288], data[288:-2], data[-2:]
    assert int.from_bytes(length, "big") == len(data) - 256
    decryptor = Cipher(AES(server[:32]), CTR(tag[:16])).decryptor()
    plain = decryptor.update(encrypted)
    assert plain[:256] == key
    assert plain[256:] == b"\x01" + int(NOW.timestamp()).to_bytes(8, "big")
    assert hmac.digest(server[64:96], length + plain, hashlib.sha256) == tag


def test_every_key_is_another() -> None:
    server_key = new_server_key()
    assert new_server_key() != server_key
    assert (
        content(new_client_key(server_key, NOW), CLIENT)[:256] != content(new_client_key(server_key, NOW), CLIENT)[:256]
    )


def test_server_accepts_the_keys_that_it_wrapped_and_no_other() -> None:
    server_key = new_server_key()
    client_key = new_client_key(server_key, NOW)
    assert accepts(server_key, client_key)
    assert not accepts(new_server_key(), client_key)
    assert not accepts(server_key, server_key)


@pytest.mark.parametrize("place", [0, 255, 256, 287, 288, 543, 544, -3, -2, -1])
def test_key_with_one_wrong_byte_is_not_accepted(place: int) -> None:
    server_key = new_server_key()
    data = bytearray(content(new_client_key(server_key, NOW), CLIENT))
    data[place] ^= 1
    assert not accepts(server_key, pem(CLIENT, bytes(data)))


@pytest.mark.parametrize("size", [0, 2, 255, 288, 290, 545])
def test_key_that_was_cut_short_is_not_accepted(size: int) -> None:
    server_key = new_server_key()
    assert not accepts(server_key, pem(CLIENT, content(new_client_key(server_key, NOW), CLIENT)[:size]))


def test_keys_need_no_metadata() -> None:
    server_key = new_server_key()
    server, key = content(server_key, SERVER), bytes(256)
    length = (290).to_bytes(2, "big")
    tag = hmac.digest(server[64:96], length + key, hashlib.sha256)
    wrapped = Cipher(AES(server[:32]), CTR(tag[:16])).encryptor().update(key)
    assert accepts(server_key, pem(CLIENT, key + tag + wrapped + length))


def test_server_key_is_read_back_whatever_a_disk_did_to_its_lines() -> None:
    server_key = new_server_key()
    assert parse_server_key(server_key) == server_key
    assert parse_server_key(b"\n" + server_key.replace(b"\n", b"\r\n") + b"\n") == server_key


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        pem(CLIENT, bytes(128)),
        pem(SERVER, bytes(127)),
        pem(SERVER, bytes(129)),
        pem(SERVER, bytes(128)).replace(b"A", b"!", 1),
        pem(SERVER, bytes(128)).replace(b"-----END", b"-----FIN"),
        pem(SERVER, bytes(128)).replace(b"-----BEGIN", b"x-----BEGIN"),
        f"-----BEGIN {SERVER}-----\n-----END {SERVER}-----\n".encode(),
        b"\xff",
    ],
)
def test_damaged_server_key_is_a_value_error(damaged: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_server_key(damaged)
