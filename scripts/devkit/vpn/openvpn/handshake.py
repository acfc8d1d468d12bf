"""A client of OpenVPN that goes to the end of the TLS handshake and no further, so that no session begins or ends."""

import re
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from devkit import files
from devkit.keys.x509 import common_name
from devkit.vpn.lane import Handshake, Stage
from devkit.vpn.openvpn import reading
from devkit.vpn.openvpn.control import Channel, ForeignError, Wire, left
from devkit.vpn.openvpn.reading import Endpoint, Secrets

LIMIT_SECONDS = 6
REFUSAL_SECONDS = 1.5  # with TLS 1.3 the server looks at the client's certificate when the client is through
AFTERTHOUGHT_SECONDS = 0.5  # a server may acknowledge what it is about to refuse


class _WrongServerError(OSError):
    """The certificate is good, but another's."""


def handshake(profile: str) -> Handshake:
    """Try the server of a profile, for some seconds.

    Raises ValueError when the profile is damaged, and OSError when this computer cannot use the client's key.
    """
    endpoint, secrets = reading.endpoint(profile), reading.secrets(profile)
    context = _context(secrets)
    stage: Stage = "name"
    try:
        for stage in _stages(endpoint, secrets, context):  # noqa: B007  # where it ends counts
            pass
    except (OSError, UnicodeError) as error:
        return Handshake(stage, _said(error))
    return Handshake(stage)


def _stages(endpoint: Endpoint, secrets: Secrets, context: ssl.SSLContext) -> Iterator[Stage]:
    """Each stage, before it is tried. Raises OSError, or UnicodeError for a host's name that can be none."""
    deadline = time.monotonic() + LIMIT_SECONDS
    address = _address(endpoint, deadline)
    yield "port"
    family = socket.AF_INET6 if endpoint.over_ipv6 else socket.AF_INET
    stream = endpoint.protocol == "tcp"
    with socket.socket(family, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM) as connection:
        connection.settimeout(left(deadline))
        connection.connect((address, endpoint.port))
        channel = Channel(Wire(connection, stream), secrets.key)
        if stream:
            yield "answer"
        try:
            channel.begin(deadline)
        except ForeignError:
            yield "answer"
            raise
        yield "server"
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing)
        try:
            while not _is_through(tls):
                channel.send(outgoing.read())
                incoming.write(channel.receive(deadline))
        except ssl.SSLError:
            with suppress(OSError):
                channel.send(outgoing.read())  # an alert: the server shall not wait
            raise
        _check(tls, secrets.server_name)
        yield "client"
        channel.send(outgoing.read())
        _wait_for_refusal(channel, tls, incoming)
    yield "passed"


def _address(endpoint: Endpoint, deadline: float) -> str:
    """Look the host's name up; the system may take longer than there is time."""
    found: Future[str] = Future()

    def look_up() -> None:
        try:
            family = socket.AF_INET6 if endpoint.over_ipv6 else socket.AF_INET
            found.set_result(str(socket.getaddrinfo(endpoint.host, None, family)[0][4][0]))
        except (OSError, UnicodeError) as error:
            found.set_exception(error)

    Thread(target=look_up, daemon=True).start()
    return found.result(left(deadline))


def _context(secrets: Secrets) -> ssl.SSLContext:
    """TLS as the profile's client has it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # the name is none of a host; see `_check`
    context.load_verify_locations(cadata=secrets.authorities_pem)
    with TemporaryDirectory() as folder:  # for its owner alone; `ssl` reads keys from files alone
        path = Path(folder, "client.pem")
        files.write(path, secrets.credential.certificate_pem + secrets.credential.key_pem)
        context.load_cert_chain(path)
    return context


def _is_through(tls: ssl.SSLObject) -> bool:
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def _check(tls: ssl.SSLObject, server_name: str) -> None:
    """See that the server is a server, and this one, as `remote-cert-tls` and `verify-x509-name` do."""
    certificate = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")
    try:
        name = common_name(certificate)
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (ValueError, x509.ExtensionNotFound):
        raise _WrongServerError("its certificate is no server's") from None
    if ExtendedKeyUsageOID.SERVER_AUTH not in usage:
        raise _WrongServerError("its certificate is no server's")
    if name != server_name:
        raise _WrongServerError(f"its name is {name}, not {server_name}")


def _wait_for_refusal(channel: Channel, tls: ssl.SSLObject, incoming: ssl.MemoryBIO) -> None:
    """Wait until the server will not refuse the client any more. Raises OSError when it does.

    Some servers send an alert or end the connection; others, over UDP, just acknowledge nothing any more.
    """
    until = time.monotonic() + REFUSAL_SECONDS
    with suppress(TimeoutError):
        while True:
            incoming.write(channel.receive(until))
            with suppress(ssl.SSLWantReadError):
                tls.read()  # raises what an alert says
            if channel.all_acknowledged:
                until = min(until, time.monotonic() + AFTERTHOUGHT_SECONDS)
    if not channel.all_acknowledged:
        raise TimeoutError


def _said(error: Exception) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return str(error.verify_message)
        case ssl.SSLError(reason=str(reason)):
            return re.sub(".*_ALERT_", "", reason).replace("_", " ").lower()
        case _WrongServerError():
            return str(error)
        case ForeignError():
            return "not OpenVPN, or another key"
        case TimeoutError():
            return "no answer"
        case ConnectionRefusedError():
            return "connection refused"
        case ConnectionError():
            return "connection closed"
        case OSError(strerror=str(words)):
            return words[:1].lower() + words[1:]
    return "no name of a host"
