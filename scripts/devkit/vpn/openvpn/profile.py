"""What the VPN apps open, and how."""

import plistlib
import re
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address
from pathlib import PurePath, PurePosixPath

from devkit.answers import Answers
from devkit.files import File
from devkit.host import OperatingSystem
from devkit.keys.model import Client, Generation
from devkit.vpn.lane import Names

NAME = "openvpn"
# A client.conf that was made before the server's name came from its certificate has the line itself.
SERVER_NAME_LINE = re.compile(r"^[ \t]*(--)?verify-x509-name[ \t].*\n?", re.MULTILINE)
# In client.conf where `vpn_host` is answered, or the user wrote one.
REMOTE_LINE = re.compile(r"^[ \t]*(--)?remote[ \t]", re.MULTILINE)
# What some apps do by themselves: `dns server 0 address 10.213.94.1`, and `... resolve-domains d4m.internal`.
DNS_LINE = re.compile(r"^[ \t]*dns[ \t]+server[ \t]+0[ \t]+(address|resolve-domains)[ \t]+(.*)$", re.MULTILINE)
# For host.py; no app reads comments.
HTTPS_ROOT_HEADER = "# The root of the CA for HTTPS, which `host.py install` makes a computer trust:\n#\n"
# All that follows, up to the last end of a certificate: who trusts it has to see it if there are several.
HTTPS_ROOT = re.compile(rf"^{re.escape(HTTPS_ROOT_HEADER)}((?:# .*\n)*# -----END CERTIFICATE-----)$", re.MULTILINE)
OWN_DNS_LINE = re.compile(r"^[ \t]*(--)?(dns|dhcp-option[ \t]+DNS)\b", re.MULTILINE)
NETWORKMANAGER_SETTINGS = (
    "ipv4.never-default yes ipv4.ignore-auto-routes yes ipv4.ignore-auto-dns yes ipv6.method disabled"
)


def client_files(generation: Generation, client: Client, answers: Answers, readable: str) -> Iterator[File]:
    """A client's profile, and the same as a Tunnelblick VPN Configuration."""
    yield File(PurePosixPath(f"{client.name}.ovpn"), profile(readable, answers, generation, client))
    # Tunnelblick would send every name to the DNS; host.py sets its Mac up instead.
    text = profile(readable, answers, generation, client, names_dns=False)
    identifier = f"d4m-devkit.{generation.identity}.{client.name}"
    for path, content in tunnelblick_bundle(identifier, generation.number, text).items():
        yield File(PurePosixPath(f"{client.name}.tblk") / path, content)


def profile(readable: str, answers: Answers, generation: Generation, client: Client, names_dns: bool = True) -> bytes:
    """Append where the server is, its name, and a client's certificate and keys to the readable part of a profile."""
    blocks = {
        "ca": generation.trusted_pem,
        "cert": client.credential.certificate_pem,
        "key": client.credential.key_pem,
        "tls-crypt-v2": client.keys[NAME],
    }
    inline = "".join(f"\n<{name}>\n{pem.decode().strip()}\n</{name}>\n" for name, pem in blocks.items())
    readable = SERVER_NAME_LINE.sub("", readable).strip()
    remote = "" if REMOTE_LINE.search(readable) else f"remote {answers.vpn_host} {answers.vpn_port}\n"
    dns = dns_lines(answers) if names_dns and not OWN_DNS_LINE.search(readable) else ""
    name = f"verify-x509-name {generation.server_name} name\n"
    return f"{readable}\n\n{remote}{name}{dns_route(answers)}{dns}{https_root(answers, generation)}{inline}".encode()


def dns_lines(answers: Answers) -> str:
    """What makes a client ask the server's DNS for its own domains, and for nothing else (openvpn(8), --dns).

    A line has at most 256 bytes, and one server can have several.
    """
    lines = [f"dns server 0 resolve-domains {domain}\n" for domain in answers.dns_domains]
    # OpenVPN 2.5 does not know `dns`; to the v3 core `setenv opt` says that what follows is a matter of the client's.
    head = ["setenv opt ignore-unknown-option dns\n", f"dns server 0 address {answers.dns_address}\n"]
    return "".join([*head, *lines] if lines else [])


def https_root(answers: Answers, generation: Generation) -> str:
    """The root of the CA for HTTPS, as a comment."""
    if not answers.dns_domain or generation.https is None:
        return ""
    pem = generation.https.root.certificate_pem.decode()
    return "\n" + HTTPS_ROOT_HEADER + "".join(f"# {line}\n" for line in pem.splitlines())


def dns_route(answers: Answers) -> str:
    """The way to the DNS from a replica of the server in a cluster, which has a part of the subnet: maybe another."""
    if not answers.dns_domain or answers.kubernetes == "none":
        return ""
    return f"route {answers.vpn_subnet.network_address} {answers.vpn_subnet.netmask}\n"


def tunnelblick_bundle(identifier: str, version: int, profile_: bytes) -> Mapping[PurePosixPath, bytes]:
    """Name and content of each file of a Tunnelblick VPN Configuration (NAME.tblk).

    A bundle of the same identifier and a higher version replaces the one that is installed.
    """
    properties = {
        "CFBundleIdentifier": identifier,
        "CFBundleVersion": str(version),
        "TBPackageVersion": "1",
        "TBReplaceIdentical": "yes",
    }
    return {
        PurePosixPath("Contents/Info.plist"): plistlib.dumps(properties),
        PurePosixPath("Contents/Resources/config.ovpn"): profile_,
    }


def opening_steps(profile_: str, system: OperatingSystem) -> Sequence[str]:
    """How the profile of this path is opened on a system."""
    match system:
        case "macOS":
            bundle = PurePath(profile_).with_suffix(".tblk").as_posix()
            return (f"Tunnelblick:      open {bundle}", "OpenVPN Connect:  import the profile, then switch it on")
        case "Windows":
            return ("OpenVPN GUI or OpenVPN Connect: import the profile, then connect",)
        case "Linux":
            return (
                f"by hand:         sudo openvpn --config {profile_}",
                f"NetworkManager:  nmcli connection import type openvpn file {profile_}",
                # Without it NetworkManager sends everything through the VPN. It does not read the profile's filters.
                f"                 nmcli connection modify {PurePath(profile_).stem} {NETWORKMANAGER_SETTINGS}",
            )


def names(profile_: str) -> Names | None:
    """Who answers names through the VPN, in which domains, and the root for HTTPS; None where a profile has no names.

    Raises ValueError when what it names as the server is no IPv4 address.
    """
    said: dict[str, list[str]] = {"address": [], "resolve-domains": []}
    for what, words in DNS_LINE.findall(profile_):
        said[what] += words.split()
    domains = tuple(dict.fromkeys(domain.lower().rstrip(".") for domain in said["resolve-domains"]))
    if not said["address"] or not domains:
        return None
    roots = (re.sub("^# ", "", root, flags=re.MULTILINE) + "\n" for root in HTTPS_ROOT.findall(profile_))
    return Names(IPv4Address(said["address"][0].removesuffix(":53")), domains, "".join(roots) or None)
