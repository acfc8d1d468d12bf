"""Which CA this computer trusts for HTTPS: the VPN's own, which can vouch for servers in its domain alone. Pure."""

import re
import shlex
from collections.abc import Iterator, Sequence
from datetime import datetime

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import Certificate, DuplicateExtension, UnsupportedGeneralNameType, load_pem_x509_certificate

from devkit.computer import bundle, databases, macos, windows
from devkit.computer.model import Computer, Root, Setting, Step, fingerprint, together
from devkit.computer.resolver import DOMAIN
from devkit.errors import UserError
from devkit.keys import https, x509

NAME = re.compile(rf"{https.NAME} [A-Za-z0-9._ -]{{1,64}}")
CERTIFICATE = re.compile(r"^-----BEGIN CERTIFICATE-----\n.*?^-----END CERTIFICATE-----$", re.DOTALL | re.MULTILINE)
REMOVE = "Leave what this computer trusts as it was"
NO_BUNDLE = "the CAs of this Linux as a whole"


def root(pem: str, domains: Sequence[str], now: datetime) -> Root:
    """The root that a profile, which sends names in these domains to the VPN, has in it.

    Raises UserError when it is anything but one certificate that can vouch for TLS servers in one of them alone.
    """
    if len(CERTIFICATE.findall(pem)) != 1:
        raise UserError("the profile's CA for HTTPS is none of ours (not one certificate): ask who made it.")
    try:
        with x509.damage_as_value_error():
            certificate = x509.load_certificate(pem.encode())
            domain, name = https.domain(certificate), common_name(certificate)
    except (ValueError, DuplicateExtension, UnsupportedGeneralNameType) as error:
        raise UserError(f"the profile's CA for HTTPS is none of ours ({error}): ask who made it.") from error
    if not NAME.fullmatch(name):
        raise UserError("the profile's CA for HTTPS is none of ours (another name): ask who made it.")
    if domain not in domains or not DOMAIN.fullmatch(domain):
        raise UserError(
            f"the profile's CA for HTTPS can vouch for {domain!r}, which the profile does not send to the VPN: "
            "ask who made it."
        )
    if certificate.not_valid_after_utc <= now:
        ended = certificate.not_valid_after_utc.date()
        raise UserError(f"the profile's CA for HTTPS has ended on {ended}: get a new profile from who made it.")
    return Root(name, domain, _pem(certificate))


def common_name(certificate: Certificate) -> str:
    """A certificate's name. Raises ValueError when there is anything else in its subject."""
    if len(certificate.subject) != 1:
        raise ValueError("another name")
    return x509.common_name(certificate)


def ours(listing: str) -> Iterator[tuple[str, str]]:
    """Those of the certificates in a text that are a root of ours, by their names: each name and PEM."""
    for pem in CERTIFICATE.findall(listing):
        try:
            with x509.damage_as_value_error():
                certificate = load_pem_x509_certificate(pem.encode())
                name = common_name(certificate)
        except ValueError:
            continue
        if NAME.fullmatch(name):
            yield name, _pem(certificate)


def install(computer: Computer, wanted: Root) -> Step:
    """What makes this computer trust the root, and no other one of ours.

    Raises UserError when something that is not ours is in the way.
    """
    title = f"Trust {wanted.name} for HTTPS servers in {wanted.domain}, and for nothing else"
    match computer.system:
        case "macOS":
            return macos.trust(computer, title, wanted)
        case "Windows":
            return windows.trust(computer, title, wanted)
    kind = bundle.KINDS.get(computer.bundle or "")
    in_bundle = (
        bundle.install(computer, kind, title, wanted) if kind else Step(title, (Setting(NO_BUNDLE, "missing"),), ())
    )
    return together(title, [in_bundle, databases.install(computer, title, wanted.pem)])


def remove(computer: Computer) -> Step:
    """What takes away all that is ours, and nothing else."""
    match computer.system:
        case "macOS":
            return macos.distrust(computer, REMOVE)
        case "Windows":
            return windows.distrust(computer, REMOVE)
    kind = bundle.KINDS.get(computer.bundle or "")
    in_bundle = [bundle.remove(computer, kind, REMOVE)] if kind else []
    return together(REMOVE, [*in_bundle, databases.remove(computer, REMOVE)])


def warnings(computer: Computer) -> Sequence[str]:
    """Which stores `host.py` does not reach on this computer, and what to do."""
    if computer.system != "Linux":
        return ()
    unknown = f"{NO_BUNDLE} are neither where Debian nor where Fedora has them: add the root as this one wants it."
    tool = (
        "browsers have CAs of their own, which `certutil` sets: install it (Debian: `sudo apt install libnss3-tools`, "
        "Fedora: `sudo dnf install nss-tools`), then run this again."
    )
    return (*([] if computer.bundle else [unknown]), *([] if computer.certutil else [tool]))


def hints(computer: Computer, trusted: Root, file: str | None, sudo: str) -> Sequence[str]:
    """What programs with CAs of their own need, as lines to be pasted; in a project, `file` has the root."""
    kind = bundle.KINDS.get(computer.bundle or "")
    java = (
        f"-importcert -noprompt -cacerts -storepass changeit -alias d4m-devkit-{fingerprint(trusted.pem)[:8].lower()}"
    )
    if computer.system == "Windows":
        path = f'"{file}"' if file else '"$HOME\\d4m-devkit.crt"'
        make = [] if file else [windows.export(trusted, path)]
        return (*make, f"$env:NODE_EXTRA_CA_CERTS = {path}", f"keytool {java} -file {path}")
    if kind or file:
        path, make = shlex.quote(kind.file if kind else str(file)), []
    elif computer.system == "macOS":
        path, make = "~/d4m-devkit.crt", [macos.export(trusted, "~/d4m-devkit.crt")]
    else:
        return ()
    keytool = f'{sudo}"$(command -v keytool)"'  # that of the Java which the user runs
    return (*make, f"export NODE_EXTRA_CA_CERTS={path}", f"{keytool} {java} -file {path}")


def _pem(certificate: Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()
