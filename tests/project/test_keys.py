"""What certificates say, beside those that a project has."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from devkit.keys.x509 import SERVER, issue, new_ca

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.mark.parametrize(("name", "accepted"), [("web.d4m.internal", True), ("example.org", False)])
def test_further_ca_may_be_held_to_a_domain(tmp_path: Path, name: str, accepted: bool) -> None:
    """As HTTPS would need one, which can vouch for nothing else."""
    permitted = x509.NameConstraints([x509.DNSName("d4m.internal")], None)
    ca = new_ca("https", "ecdsa-p256", 30, NOW, constraints=[permitted])
    leaf = issue(ca, SERVER, [name], "ecdsa-p256", 3, NOW)
    (tmp_path / "ca.pem").write_bytes(ca.certificate_pem)
    (tmp_path / "leaf.pem").write_bytes(leaf.certificate_pem)
    verify = ["openssl", "verify", "-x509_strict", "-CAfile", str(tmp_path / "ca.pem"), str(tmp_path / "leaf.pem")]
    said = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert (said.returncode == 0) is accepted
    assert accepted or "permitted subtree violation" in said.stderr
