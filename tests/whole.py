"""What a whole, mutually consistent generation is, told by openssl and by the files themselves."""

import re
import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

BLOCK = re.compile(r"<(ca|cert|key|tls-crypt-v2)>\n(.*?)</\1>", re.DOTALL)
PRIVATE_KEY = re.compile(rb"-----BEGIN PRIVATE KEY-----.*?-----END PRIVATE KEY-----", re.DOTALL)


def verify(authorities: Path, *leaves: Path, crl: Path | None = None) -> bool:
    """Whether openssl accepts all leaves, strictly, and as not revoked by a list."""
    lists = ["-crl_check", "-CRLfile", str(crl)] if crl else []
    command = ["openssl", "verify", "-x509_strict", *lists, "-CAfile", str(authorities), *map(str, leaves)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def belong_together(certificate: Path, key: Path) -> bool:
    """Whether a private key is the certificate's."""
    (pem,) = PRIVATE_KEY.findall(key.read_bytes())
    public_key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    return load_pem_private_key(pem, None).public_key() == public_key


def assert_whole(project: Path, linked: bool = True) -> None:
    """The generation in force is complete, and all its parts belong together."""
    local = project / "local"
    current = (local / "pki/current").resolve()
    configs = current / "configs"
    expected = {"ca.crt", "ccd", "crl.pem", "server.crt", "server.key", "tls-crypt-v2.key"}
    assert {path.name for path in configs.iterdir() if not path.name.startswith(".new-")} == expected
    names = sorted(path.name for path in (configs / "ccd").iterdir())
    clients = [current / f"clients/{name}.pem" for name in names]
    assert verify(configs / "ca.crt", configs / "server.crt", *clients, crl=current / "crl.pem")
    assert belong_together(configs / "server.crt", configs / "server.key")
    assert belong_together(current / "authority.crt", current / "authority.key")
    for name, client in zip(names, clients, strict=True):
        assert belong_together(client, client)
        blocks = dict(BLOCK.findall((current / f"profiles/{name}.ovpn").read_text()))
        assert blocks["ca"] == (configs / "ca.crt").read_text()
        assert blocks["cert"] + blocks["key"] + blocks["tls-crypt-v2"] == client.read_text()
        bundle = current / f"profiles/{name}.tblk/Contents/Resources/config.ovpn"
        profile = (current / f"profiles/{name}.ovpn").read_text()
        # Tunnelblick would send every name to that DNS.
        assert (
            bundle.read_text()
            == re.sub(r"(?m)^(dns server 0|setenv opt ignore-unknown-option dns).*\n", "", profile)
            != profile
        )
    if linked:
        assert (local / "configs").resolve() == configs
        assert (local / "docker-for-mac.ovpn").resolve() == current / "profiles/docker-for-mac.ovpn"
        assert not [path for path in local.rglob("*") if path.name.startswith((".new-", ".staging"))]
