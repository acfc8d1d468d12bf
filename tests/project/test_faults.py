"""What a kill, a full disk, a second run at once and a thousand clients leave of the set in force."""

import functools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from devkit.answers import read_answers
from devkit.errors import UserError
from devkit.material import store
from devkit.material.changes import add_clients, ensure_material, revoke_client, rotate
from devkit.material.state import read_generation
from filelock import FileLock

from tests.conftest import REPOSITORY, copy_project, snapshot
from tests.faults import run_and_die_at
from tests.generations import NOW, rotated, run, serials
from tests.whole import assert_whole

KEY_TYPES = ["ecdsa-p256", "ed25519", "rsa-3072"]


def test_a_thousand_clients_are_no_trouble(project: Path) -> None:
    names = [f"client-{number:04}" for number in range(1000)]
    assert run(project, "client", "add", *names).returncode == 0
    assert "client-0500 is revoked." in run(project, "client", "revoke", "client-0500").stderr
    rotation = run(project, "generate", "--rotate=leaf")
    assert rotation.returncode == 0, rotation.stderr
    assert "and 981 more" in rotation.stderr
    generation = read_generation(project)
    assert len(generation.live_clients) == 1000
    assert len(serials(generation)) == 1002
    assert len(list((project / "local/configs/ccd").iterdir())) == 1000


def grown(pristine: Path, folder: Path) -> Path:
    """A project with a past: three clients, one of them revoked, in its second generation."""
    project = shutil.copytree(pristine, folder, symlinks=True)
    answers = read_answers(project)
    add_clients(project, answers, ["alice", "bob"], NOW)
    rotate(project, answers, "leaf", False, NOW)
    revoke_client(project, answers, "bob", NOW)
    return project


def work_on(project: Path, work: str) -> None:
    answers = read_answers(project)
    match work:
        case "leaf":
            rotate(project, answers, "leaf", False, NOW)
        case "all":
            rotate(project, answers, "all", True, NOW)
        case "add":
            add_clients(project, answers, ["carol", "bob"], NOW)
        case "revoke":
            revoke_client(project, answers, "alice", NOW)


@pytest.mark.parametrize(
    "work",
    ["leaf", "add", "revoke", *(pytest.param(one, marks=pytest.mark.further) for one in ("all", "leaf of older code"))],
)
def test_kill_at_any_step_leaves_one_whole_set_and_the_next_run_completes(
    pristine: Path, tmp_path: Path, work: str
) -> None:
    start = grown(pristine, tmp_path / "start")
    if work == "leaf of older code":
        (start / "local/pki/current/replaced.txt").unlink()
        work = "leaf"
    answers = read_answers(start)
    before = read_generation(start)
    step, finished = 0, False
    while not finished:
        step += 1
        project = shutil.copytree(start, tmp_path / f"{work}-{step}", symlinks=True)
        finished = run_and_die_at(step, functools.partial(work_on, project, work))
        generation = read_generation(project)  # it can be read at once, with no mend before
        assert serials(before) in (serials(generation), serials(before))
        if work in ("leaf", "all"):
            assert_whole(project, linked=False)
            assert generation.number in (2, 3)
            assert (generation.number == 2) == (serials(generation) == serials(before))
        # The next run of anything brings what follows up to date, and the work itself can be done.
        assert run_and_die_at(None, functools.partial(ensure_material, project, answers, NOW))
        assert_whole(project)
        rotated(project)
        assert_whole(project)
        shutil.rmtree(project)
    assert step > {"leaf": 80, "all": 80, "add": 40, "revoke": 15}[work]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            "mount -t tmpfs tmpfs place && cp -a copy/. place && used=$(df --output=used place | tail -n 1) &&"
            " mount -o remount,size=$((used + 40))k place",
            "No space left on device",
        ),
        ("cp -a copy/. place && mount --bind place place && mount -o remount,ro,bind place", "Read-only file system"),
    ],
)
def test_disk_that_is_full_or_read_only_leaves_the_old_set(
    pristine: Path, tmp_path: Path, fault: str, words: str
) -> None:
    project = grown(pristine, tmp_path / "copy")
    before = {name: entry for name, entry in snapshot(project / "local").items() if name != ".lock"}
    (tmp_path / "place").mkdir()
    script = f"""
        cd {tmp_path} && {fault} && cd place || exit 9
        {sys.executable} {REPOSITORY}/scripts/generate.py --rotate=leaf; echo "code $?"
        cp -a local {tmp_path}/after
    """
    said = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False)
    assert said.stdout == "code 1\n", said.stderr
    assert words in said.stderr
    assert len(said.stderr.strip().splitlines()) == 1
    after = snapshot(tmp_path / "after")
    assert {name: entry for name, entry in after.items() if ".staging" not in name and name != ".lock"} == before


def test_two_rotations_at_once_finish_one_after_the_other(project: Path) -> None:
    command = [sys.executable, str(REPOSITORY / "scripts/generate.py"), "--rotate=leaf"]
    runs = [subprocess.Popen(command, cwd=project, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [each.communicate()[1] for each in runs]
    assert [each.returncode for each in runs] == [0, 0], said
    assert read_generation(project).number == 3
    assert_whole(project)


def test_run_that_cannot_have_the_lock_says_so(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LOCK_SECONDS", 0.2)
    with FileLock(project / "local/.lock"), pytest.raises(UserError, match="is in use by another run"):
        rotated(project)


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_every_leaf_of_every_generation_satisfies_openssl_and_gnutls(tmp_path: Path, key_type: str) -> None:
    project = copy_project(tmp_path / "devkit", key_type=key_type)
    assert_leaves_verify(project, key_type)
    for kind in ("leaf", "all", "leaf"):
        rotated(project, kind)
        assert_whole(project)
        assert_leaves_verify(project, key_type)


def assert_leaves_verify(project: Path, key_type: str) -> None:
    generation = read_generation(project)
    current = project / "local/pki/current"
    algorithm = {"ecdsa-p256": "256 bit", "ed25519": "ED25519", "rsa-3072": "3072 bit"}[key_type]
    for leaf, purpose in (("configs/server.crt", "TLS WWW Server"), ("clients/docker-for-mac.pem", "TLS WWW Client")):
        shown = subprocess.run(
            ["openssl", "x509", "-in", str(current / leaf), "-noout", "-text"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert algorithm in shown
        issuer = x509.load_pem_x509_certificate((current / leaf).read_bytes()).issuer
        (authority,) = [
            authority.credential.certificate_pem.decode() for authority in generation.cas
            if authority.credential.certificate.subject == issuer
        ]  # fmt: skip
        certificate = (current / leaf).read_text().split("-----BEGIN PRIVATE")[0]
        verdict = subprocess.run(
            ["certtool", "--verify-chain"], input=certificate + authority, capture_output=True, text=True, check=False
        )
        assert "Chain verification output: Verified." in verdict.stdout, verdict.stdout
        info = subprocess.run(
            ["certtool", "--certificate-info"], input=certificate, capture_output=True, text=True, check=True
        ).stdout
        assert purpose in info
