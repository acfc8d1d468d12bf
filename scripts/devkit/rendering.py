"""Pure functions from facts to the texts that the VPN apps open, and to the Helm chart's values."""

import hashlib
import json
import plistlib
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import yaml

from devkit.answers import Answers

VALUES_HEADER = """\
# The values of chart/, written by scripts/generate.py. Secret: they hold the server's keys (not the authority's).
#   helm upgrade --install devkit ./chart -n docker-for-mac --create-namespace -f local/values.yaml
"""


# Projects whose client.conf was made before the server's name came from its certificate have the line themselves.
SERVER_NAME_LINE = re.compile(r"^[ \t]*(--)?verify-x509-name[ \t].*\n?", re.MULTILINE)
# There where `vpn_host` is answered, or the user wrote one.
REMOTE_LINE = re.compile(r"^[ \t]*(--)?remote[ \t]", re.MULTILINE)


def profile(
    skeleton: str,
    answers: Answers,
    server_name: str,
    authority: bytes,
    certificate: bytes,
    key: bytes,
    tls_crypt_v2: bytes,
) -> bytes:
    """Put the server's place and name and a client's material, all PEM, behind the readable part of its profile."""
    readable = SERVER_NAME_LINE.sub("", skeleton).strip()
    remote = "" if REMOTE_LINE.search(readable) else f"remote {answers.vpn_host} {answers.vpn_port}\n"
    blocks = {"ca": authority, "cert": certificate, "key": key, "tls-crypt-v2": tls_crypt_v2}
    inline = "".join(f"\n<{name}>\n{pem.decode().strip()}\n</{name}>\n" for name, pem in blocks.items())
    return f"{readable}\n\n{remote}verify-x509-name {server_name} name\n{inline}".encode()


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


def helm_values(
    answers: Answers, server_conf: str, material: Mapping[str, bytes], clients: Sequence[str], revocations: str
) -> bytes:
    """The chart's values: `material` is what the server mounts, by its files' names; `revocations` a digest.

    `fingerprint` in it is a digest of all the others: another one means that the cluster does not have them yet.
    """
    values = {
        "image": {"repository": answers.image},
        # Docker Desktop's one node is the engine's machine.
        "dockerNetworks": answers.kubernetes == "docker-desktop",
        "vpn": {
            "protocol": answers.vpn_protocol,
            "port": answers.vpn_port,
            "subnet": str(answers.vpn_subnet),
            "routes": [str(route) for route in answers.routes],
        },
        "service": {"type": answers.service_type},
        "clients": list(clients),
        "revocations": revocations,
        "serverConf": server_conf,
        "material": {name: content.decode() for name, content in material.items()},
    }
    fingerprint = hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]
    document = yaml.dump(
        values | {"fingerprint": fingerprint}, Dumper=_ReadableDumper, sort_keys=False, allow_unicode=True
    )
    return (VALUES_HEADER + document).encode()


class _ReadableDumper(yaml.SafeDumper):
    """Writes texts of many lines as such."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Helm reads 1e5 as a number and y as a truth value, and PyYAML does not.
    style = "|" if "\n" in text else '"' if text[:1].isdigit() or text in ("y", "Y", "n", "N") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_ReadableDumper.add_representer(str, _text)
