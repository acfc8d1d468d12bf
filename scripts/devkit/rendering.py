"""Pure functions from facts to the texts that the VPN apps open."""

import plistlib
from collections.abc import Mapping
from pathlib import PurePosixPath


def profile(skeleton: str, authority: bytes, certificate: bytes, key: bytes, tls_crypt_v2: bytes) -> bytes:
    """Put a client's material, all PEM, behind the readable part of its profile."""
    blocks = {"ca": authority, "cert": certificate, "key": key, "tls-crypt-v2": tls_crypt_v2}
    inline = "".join(f"\n<{name}>\n{pem.decode().strip()}\n</{name}>\n" for name, pem in blocks.items())
    return (skeleton.strip() + "\n" + inline).encode()


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
