"""What a whole, mutually consistent generation is, told by openssl and by the files themselves."""

import re
import subprocess
from pathlib import Path

BLOCK = re.compile(r"<(ca|cert|key|tls-crypt-v2)>\n(.*?)</\1>", re.DOTALL)


def verify(folder: Path, leaf: Path, authorities: Path, crl: Path | None = None) -> bool:
    """Whether openssl accepts a leaf, strictly, and not revoked by a list."""
    lists = ["-crl_check", "-CRLfile", str(crl)] if crl else []
    command = ["openssl", "verify", "-x509_strict", *lists, "-CAfile", str(authorities), str(leaf)]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 0


def public_key(path: Path, option: str) -> str:
    """The public key of a certificate (x509) or of a private key (pkey), as PEM."""
    extra = ["-noout", "-pubkey"] if option == "x509" else ["-pubout"]
    return subprocess.run(
        ["openssl", option, "-in", str(path), *extra], capture_output=True, text=True, check=True
    ).stdout


def assert_whole(project: Path, linked: bool = True) -> None:
    """The generation in force is complete, and all its parts belong together."""
    local = project / "local"
    current = (local / "pki/current").resolve()
    configs = current / "configs"
    expected = {"ca.crt", "ccd", "crl.pem", "server.crt", "server.key", "tls-crypt-v2.key"}
    assert {path.name for path in configs.iterdir() if not path.name.startswith(".new-")} == expected
    assert public_key(configs / "server.crt", "x509") == public_key(configs / "server.key", "pkey")
    assert public_key(current / "authority.crt", "x509") == public_key(current / "authority.key", "pkey")
    assert verify(current, configs / "server.crt", configs / "ca.crt", current / "crl.pem")
    for name in (path.name for path in (configs / "ccd").iterdir()):
        client = current / f"clients/{name}.pem"
        assert verify(current, client, configs / "ca.crt", current / "crl.pem"), name
        assert public_key(client, "x509") == public_key(client, "pkey")
        blocks = dict(BLOCK.findall((current / f"profiles/{name}.ovpn").read_text()))
        assert blocks["ca"] == (configs / "ca.crt").read_text()
        assert blocks["cert"] + blocks["key"] + blocks["tls-crypt-v2"] == client.read_text()
        bundle = current / f"profiles/{name}.tblk/Contents/Resources/config.ovpn"
        assert bundle.read_text() == (current / f"profiles/{name}.ovpn").read_text()
    if linked:
        assert (local / "configs").resolve() == configs
        assert (local / "docker-for-mac.ovpn").resolve() == current / "profiles/docker-for-mac.ovpn"
        assert not [path for path in local.rglob("*") if path.name.startswith((".new-", ".staging"))]
