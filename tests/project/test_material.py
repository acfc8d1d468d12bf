"""What the hook makes: certificates, keys, modes, and what happens when it is run again, cut short or doubled."""

import plistlib
import shutil
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import copier
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from devkit.answers import read_answers
from devkit.material.changes import add_clients, ensure_material, rotate

from tests.conftest import REPOSITORY, copy_project, snapshot
from tests.faults import run_and_die_at
from tests.generations import NOW, run
from tests.whole import assert_whole

GENERATE = [sys.executable, str(REPOSITORY / "scripts/generate.py")]


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def extensions(path: Path) -> dict[str, tuple[bool, object]]:
    """Criticality and value of each extension, by its short name."""
    return {type(found.value).__name__: (found.critical, found.value) for found in certificate(path).extensions}


def usages(value: object) -> set[str]:
    assert isinstance(value, x509.KeyUsage)
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "key_cert_sign", "crl_sign")  # fmt: skip
    return {name for name in names if getattr(value, name)}


def test_authority_may_sign_leaves_and_lists_and_nothing_else(project: Path) -> None:
    authority = project / "local/pki/current/authority.crt"
    found = extensions(authority)
    assert found.keys() == {"BasicConstraints", "KeyUsage", "SubjectKeyIdentifier"}
    assert found["BasicConstraints"] == (True, x509.BasicConstraints(ca=True, path_length=0))
    assert found["KeyUsage"][0]
    assert usages(found["KeyUsage"][1]) == {"key_cert_sign", "crl_sign"}
    assert not found["SubjectKeyIdentifier"][0]


@pytest.mark.parametrize(
    ("leaf", "name", "key_usages", "purpose", "more"),
    [
        ("configs/server.crt", "server.d4m-devkit", {"digital_signature", "key_agreement"},
         ExtendedKeyUsageOID.SERVER_AUTH, {"SubjectAlternativeName"}),
        ("clients/docker-for-mac.pem", "docker-for-mac", {"digital_signature"},
         ExtendedKeyUsageOID.CLIENT_AUTH, set()),
    ],
)  # fmt: skip
def test_leaf_carries_exactly_its_own_usage(
    project: Path, leaf: str, name: str, key_usages: set[str], purpose: x509.ObjectIdentifier, more: set[str]
) -> None:
    current = project / "local/pki/current"
    found = extensions(current / leaf)
    assert found.keys() == {
        "BasicConstraints", "KeyUsage", "ExtendedKeyUsage", "SubjectKeyIdentifier", "AuthorityKeyIdentifier", *more
    }  # fmt: skip
    assert found["BasicConstraints"] == (True, x509.BasicConstraints(ca=False, path_length=None))
    assert found["KeyUsage"][0]
    assert usages(found["KeyUsage"][1]) == key_usages
    assert found["ExtendedKeyUsage"] == (False, x509.ExtendedKeyUsage([purpose]))
    made = certificate(current / leaf)
    assert made.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == name
    assert made.issuer == certificate(current / "authority.crt").subject
    public_key = made.public_key()
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    assert public_key.curve.name == "secp256r1"
    assert made.serial_number.bit_length() >= 128
    lifetime = made.not_valid_after_utc - made.not_valid_before_utc
    assert lifetime == timedelta(days=825, minutes=5)


def test_openssl_accepts_the_leaves_strictly_and_for_their_purpose_only(project: Path) -> None:
    current = project / "local/pki/current"
    leaves = {"sslserver": "configs/server.crt", "sslclient": "clients/docker-for-mac.pem"}
    for purpose in leaves:
        for own_purpose, leaf in leaves.items():
            command = ["openssl", "verify", "-x509_strict", "-crl_check", "-purpose", purpose, "-CAfile",
                       "configs/ca.crt", "-CRLfile", "configs/crl.pem", leaf]  # fmt: skip
            verdict = subprocess.run(command, cwd=current, capture_output=True, text=True, check=False)
            assert (verdict.returncode == 0) == (purpose == own_purpose), verdict.stderr


def test_revocation_list_ends_with_its_authority(project: Path) -> None:
    current = project / "local/pki/current"
    revoked = x509.load_pem_x509_crl((current / "configs/crl.pem").read_bytes())
    authority = certificate(current / "authority.crt")
    assert revoked.next_update_utc == authority.not_valid_after_utc
    assert revoked.last_update_utc < datetime.now(UTC)
    assert len(revoked) == 0


def test_leaf_never_outlives_its_authority(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "devkit", certificate_days=10, authority_days=10)
    later = NOW + timedelta(days=5)
    rotate(project, read_answers(project), "leaf", False, later)
    add_clients(project, read_answers(project), ["alice"], later)
    current = project / "local/pki/current"
    end = certificate(current / "authority.crt").not_valid_after_utc
    for leaf in ("configs/server.crt", "clients/docker-for-mac.pem", "clients/alice.pem"):
        assert certificate(current / leaf).not_valid_before_utc == later - timedelta(minutes=5)
        assert certificate(current / leaf).not_valid_after_utc == end


def test_private_keys_are_under_local_and_for_their_owner_only(project: Path) -> None:
    with_key = [path for path in project.rglob("*") if path.is_file() and b"PRIVATE KEY--" in path.read_bytes()]
    assert with_key
    for path in with_key:
        assert path.is_relative_to(project / "local")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for folder in ("local", "local/pki", "local/pki/archive"):
        assert stat.S_IMODE((project / folder).stat().st_mode) == 0o700


def test_keys_are_private_whatever_the_umask(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "devkit")
    shutil.rmtree(project / "local")
    subprocess.run(["sh", "-c", f"umask 0; exec {' '.join(GENERATE)}"], cwd=project, check=True, capture_output=True)
    assert stat.S_IMODE((project / "local").stat().st_mode) == 0o700
    test_private_keys_are_under_local_and_for_their_owner_only(project)


def test_server_mounts_exactly_what_it_needs(project: Path) -> None:
    assert set(snapshot(project / "local/pki/current/configs")) == {
        "ca.crt", "ccd", "ccd/docker-for-mac", "crl.pem", "server.crt", "server.key", "tls-crypt-v2.key",
    }  # fmt: skip
    authority_key = (project / "local/pki/current/authority.key").read_bytes()
    mounted = [path.read_bytes() for path in (project / "local/configs/").iterdir() if path.is_file()]
    assert mounted
    assert authority_key not in mounted


def test_tunnelblick_bundle_holds_the_profile_and_known_properties_only(project: Path) -> None:
    bundle = project / "local/docker-for-mac.tblk"
    profile = (project / "local/docker-for-mac.ovpn").read_bytes()
    # The same but for the DNS, which Tunnelblick would send every name to.
    bundled = (bundle / "Contents/Resources/config.ovpn").read_bytes()
    assert b"\ndns server 0 address 10.213.94.1\n" in profile
    assert bundled == b"".join(
        line for line in profile.splitlines(True) if not line.startswith((b"dns ", b"setenv opt "))
    )
    assert plistlib.loads((bundle / "Contents/Info.plist").read_bytes()) == {
        "CFBundleIdentifier": "d4m-devkit.d4m-devkit.docker-for-mac",
        "CFBundleVersion": "1",
        "TBPackageVersion": "1",
        "TBReplaceIdentical": "yes",
    }


def test_running_again_changes_nothing(project: Path) -> None:
    before = snapshot(project / "local")
    assert run(project, "generate").returncode == 0
    assert snapshot(project / "local") == before


def test_recopy_keeps_the_authority_and_takes_new_routes_into_the_profile(project: Path) -> None:
    before = snapshot(project / "local")
    copier.run_recopy(
        project, {"routes": ["10.77.0.0/16"]}, defaults=True, overwrite=True, unsafe=True, quiet=True, vcs_ref="HEAD"
    )
    after = snapshot(project / "local")
    changed = {name for name in before if before[name] != after[name]}
    assert after.keys() == before.keys()
    assert {Path(name).suffix for name in changed} == {".ovpn", ".yaml"}
    profile = (project / "local/docker-for-mac.ovpn").read_text()
    assert "route 10.77.0.0 255.255.0.0" in profile
    assert "route 172.16" not in profile


def test_kill_at_any_step_of_the_first_run_leaves_nothing_half_made(project: Path) -> None:
    answers = read_answers(project)

    def first_run() -> None:
        ensure_material(project, answers, NOW)

    step = 0
    while True:
        step += 1
        shutil.rmtree(project / "local")
        finished = run_and_die_at(step, first_run)
        assert (project / "local/.gitignore").exists() or not list((project / "local").rglob("*.key"))
        if (project / "local/pki/current").exists():
            assert_whole(project, linked=False)
        assert run_and_die_at(None, first_run)
        assert_whole(project)
        if finished:
            break
    assert step > 80


def test_two_runs_at_once_make_one_authority(project: Path) -> None:
    shutil.rmtree(project / "local")
    runs = [subprocess.Popen(GENERATE, cwd=project, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    said = [run.communicate()[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0, 0], said
    assert sum("Made the certificates" in words for words in said) == 1
    assert [path.name for path in (project / "local/pki/archive").iterdir()] == ["0001"]


def put_in_place(path: Path) -> None:
    """Let a folder with something in it have the place of a file or link."""
    path.unlink()
    path.mkdir()
    (path / "ours").touch()


def add_a_line(path: Path) -> None:
    path.write_text(path.read_text() + "x\n")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda project: (project / "client/client.conf").unlink(), "client/client.conf"),
        (lambda project: (project / ".copier-answers.yml").unlink(), ".copier-answers.yml"),
        (lambda project: (project / ".copier-answers.yml").write_text("a: ["), ".copier-answers.yml"),
        (lambda project: (project / ".copier-answers.yml").write_text("- 1"), ".copier-answers.yml"),
        (lambda project: (project / "local/pki/current/clients/docker-for-mac.pem").unlink(), "docker-for-mac.pem"),
        (lambda project: (project / "local/pki/current/clients/docker-for-mac.pem").write_text("x"), "mac.pem"),
        (lambda project: (project / "local/pki/current/authority.key").unlink(), "authority.key"),
        (lambda project: (project / "client/client.conf").write_bytes(b"\xff"), "client/client.conf is not UTF-8"),
        (lambda project: put_in_place(project / "local/configs"), "local/configs is no longer the link that it was"),
        (lambda project: put_in_place(project / "local/.lock"), "local/.lock is a folder"),
        (lambda project: put_in_place(project / "local/pki/current"), "local/pki/current is no longer a link"),
        (lambda project: (project / "local/pki/current/crl.pem").write_text(""), "crl.pem is damaged"),
        (lambda project: add_a_line(project / "local/pki/current/crl.pem"), "crl.pem is damaged"),
    ],
)
def test_damage_is_one_sentence_with_a_mend(project: Path, damage: object, named: str) -> None:
    assert callable(damage)
    damage(project)
    refusal = run(project, "generate")
    assert refusal.returncode == 1
    assert refusal.stderr.startswith("error: ")
    assert named in refusal.stderr
    assert len(refusal.stderr.strip().splitlines()) == 1
    if (project / ".copier-answers.yml").exists():
        assert (project / "local/docker-for-mac.ovpn").is_symlink()


def test_folders_of_a_restored_backup_are_closed_again(project: Path) -> None:
    folders = [project / "local/pki", project / "local/pki/archive"]
    for folder in folders:
        folder.chmod(0o755)
    assert run(project, "generate").returncode == 0
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in folders] == [0o700, 0o700]


def test_full_disk_is_one_sentence_and_the_next_run_completes(project: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    script = f"""
        mount -t tmpfs -o size=16k tmpfs {small}
        cp -r {project}/.copier-answers.yml {project}/client {project}/server {small}
        cd {small} && {" ".join(GENERATE)}; echo "code $?"
        mount -o remount,size=4m {small}
        {" ".join(GENERATE)}; echo "code $?"
    """
    run = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False)
    assert run.stdout.split("\n")[:2] == ["code 1", "code 0"], run.stderr
    assert "No space left on device" in run.stderr
    assert "Traceback" not in run.stderr
