"""What a profile says to the client that opens it (openvpn(8)). Pure. ValueError says what is wrong with it."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Network
from typing import Literal, TypeVar

from devkit.keys.x509 import Credential, common_name, load_certificates, load_credential
from devkit.vpn.lane import ProfileFacts
from devkit.vpn.openvpn.tls_crypt import ClientKey, parse_client_key

_DEFAULTS = {"proto": "udp", "port": "1194", "tun-mtu": "1500"}
_BLOCK = re.compile(r"^<(ca|cert|key|tls-crypt-v2)>\r?\n(.*?)^</\1>\r?$", re.MULTILINE | re.DOTALL)

_T = TypeVar("_T")


@dataclass(frozen=True)
class Endpoint:
    """Where the server is."""

    host: str
    port: int
    protocol: Literal["tcp", "udp"]
    over_ipv6: bool


@dataclass(frozen=True)
class Secrets:
    """How the client and its server know each other."""

    authorities_pem: str
    credential: Credential
    key: ClientKey
    server_name: str


def endpoint(profile: str) -> Endpoint:
    """Where a profile leads."""
    host, *rest = _words(profile, "remote")
    port = rest[0] if rest else _words(profile, "port")[0]
    protocol = rest[1] if len(rest) > 1 else _words(profile, "proto")[0]
    return Endpoint(host, _number("port", port), "tcp" if "tcp" in protocol else "udp", "6" in protocol)


def secrets(profile: str) -> Secrets:
    """The certificates and keys in a profile, and the server's name."""
    _parsed(profile, "ca", load_certificates)
    certificate = _parsed(profile, "cert", load_certificates)[0]
    return Secrets(
        authorities_pem=_block(profile, "ca"),
        credential=_parsed(profile, "key", lambda pem: load_credential(certificate, pem)),
        key=_parsed(profile, "tls-crypt-v2", parse_client_key),
        server_name=_words(profile, "verify-x509-name")[0],
    )


def facts(profile: str) -> ProfileFacts:
    """What a profile says of its client and of the way to the server."""
    where, credential = endpoint(profile), secrets(profile).credential
    return ProfileFacts(
        client=_parsed(profile, "cert", lambda pem: common_name(load_certificates(pem)[0])),
        serial_number=credential.serial_number,
        expiry=credential.expiry,
        authority_expiry=_parsed(profile, "ca", _last_expiry),
        host=where.host,
        port=where.port,
        protocol=where.protocol,
        routes=tuple(_network(words) for words in _lines(profile, "route")),
        mtu=_number("tun-mtu", _words(profile, "tun-mtu")[0]),
    )


def _last_expiry(authorities: bytes) -> datetime:
    return max(certificate.not_valid_after_utc for certificate in load_certificates(authorities))


def _network(words: Sequence[str]) -> IPv4Network:
    text = "/".join(words[:2])
    try:
        return IPv4Network(text, strict=False)
    except ValueError:
        raise ValueError(f"its route {text} is no network") from None


def _number(option: str, text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or not 0 < int(text) < 1 << 16:
        raise ValueError(f"its {option} {text} is no number from 1 to 65535")
    return int(text)


def _words(profile: str, option: str) -> Sequence[str]:
    """What follows an option where it stands first."""
    lines = _lines(profile, option)
    if not lines and option not in _DEFAULTS:
        raise ValueError(f"it has no line `{option} ...`")
    return lines[0] if lines else [_DEFAULTS[option]]


def _lines(profile: str, option: str) -> Sequence[Sequence[str]]:
    lines = (line.split() for line in _BLOCK.sub("", profile).splitlines())
    return [words[1:] for words in lines if len(words) > 1 and words[0].removeprefix("--") == option]


def _parsed(profile: str, name: str, parse: Callable[[bytes], _T]) -> _T:
    block = _block(profile, name)
    try:
        return parse(block.encode())
    except ValueError as error:
        raise ValueError(f"its <{name}> is damaged") from error


def _block(profile: str, name: str) -> str:
    found = dict(_BLOCK.findall(profile))
    if name not in found:
        raise ValueError(f"it has no block <{name}>")
    return str(found[name])
