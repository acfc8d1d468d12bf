"""Rotation, clients and revocation on disk: what each does to the set in force."""

import io
import itertools
import re
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from devkit.answers import read_answers
from devkit.errors import UserError
from devkit.keys import x509 as pki
from devkit.layout import Layout
from devkit.material import changes, contents, rotation
from devkit.material.changes import add_clients, ensure_material, revoke_client, rotate
from devkit.material.expiry import expiries
from devkit.material.rotation import RotationKind
from devkit.material.state import read_generation
from devkit.report.certificates import rotation_text
from rich.console import Console

from tests.conftest import copy_project, snapshot
from tests.generations import NOW, listed, rotated, run, serials
from tests.whole import assert_whole, verify

KEY_TYPES = ["ecdsa-p256", "ed25519", "rsa-3072"]


def test_leaf_rotation_renews_all_leaves_under_the_same_authority(project: Path) -> None:
    old = read_generation(project)
    new = rotated(project)
    assert new.ca.credential.certificate_pem == old.ca.credential.certificate_pem
    assert new.keys == old.keys
    assert not serials(new) & serials(old)
    assert new.clients[0].keys == old.clients[0].keys
    assert new.clients[0].credential.key_pem != old.clients[0].credential.key_pem
    assert listed(project) == set()
    assert_whole(project)


def test_profile_outlives_one_rotation_and_no_more(project: Path) -> None:
    sets = [read_generation(project), rotated(project), rotated(project), rotated(project)]
    assert listed(project) == serials(sets[0]) | serials(sets[1])
    assert not listed(project) & (serials(sets[2]) | serials(sets[3]))


def test_revoke_now_ends_the_replaced_profiles_too(project: Path) -> None:
    old = read_generation(project)
    rotated(project, revoke_now=True)
    assert listed(project) == serials(old)


def test_what_the_next_rotation_revokes_is_known_without_the_archive(project: Path) -> None:
    first = read_generation(project)
    rotated(project)
    shutil.rmtree(project / "local/pki/archive/0001")
    rotated(project)
    assert listed(project) == serials(first)
    assert_whole(project)


def test_generation_made_before_it_kept_what_it_replaces_takes_that_from_the_archive(project: Path) -> None:
    sets = [read_generation(project), rotated(project), rotated(project)]
    kept = project / "local/pki/current/replaced.txt"
    text = kept.read_bytes()
    kept.unlink()
    ensure_material(project, read_answers(project), NOW)
    assert kept.read_bytes() == text
    kept.unlink()
    rotated(project)
    assert listed(project) == serials(sets[0]) | serials(sets[1])
    assert_whole(project)


def test_rotation_that_cannot_know_what_it_revokes_is_refused_unless_it_ends_everything(project: Path) -> None:
    rotated(project)
    (project / "local/pki/current/replaced.txt").unlink()
    shutil.rmtree(project / "local/pki/archive/0001")
    for kind in ("leaf", "all"):
        refusal = run(project, "generate", f"--rotate={kind}")
        assert refusal.returncode == 1
        assert "local/pki/archive/0001 is missing or damaged" in refusal.stderr
        assert "--data rotate=all --data revoke=now" in refusal.stderr
    answers = read_answers(project)
    add_clients(project, answers, ["bob"], NOW)
    revoke_client(project, answers, "bob", NOW)
    rotated(project, "all", revoke_now=True)
    rotated(project)
    assert_whole(project)


def test_client_that_is_revoked_and_issued_anew_leaves_no_older_profile_alive(project: Path) -> None:
    answers = read_answers(project)
    add_clients(project, answers, ["bob"], NOW)
    old = read_generation(project)
    rotated(project)
    revoke_client(project, answers, "bob", NOW)
    own = {client.credential.serial_number for client in old.clients if client.name == "bob"}
    assert listed(project, "crl.pem") > own
    assert not listed(project) & own  # as long as it is refused by its name
    add_clients(project, answers, ["bob"], NOW)
    assert listed(project) > own


def test_revoke_now_without_a_rotation_is_wrong_usage(project: Path) -> None:
    before = snapshot(project)
    refusal = run(project, "generate", "--revoke=now")
    assert refusal.returncode == 2
    assert "give --rotate=leaf or --rotate=all with it" in refusal.stderr
    assert snapshot(project) == before


def test_new_authority_overlaps_with_the_old_one_for_one_rotation(project: Path) -> None:
    old = read_generation(project)
    current = project / "local/pki/current"
    overlap = rotated(project, "all")
    assert overlap.previous_ca is not None
    assert overlap.previous_ca.credential.certificate == old.ca.credential.certificate
    assert overlap.ca.credential.certificate.subject != old.ca.credential.certificate.subject
    old_set = project / "local/pki/archive/0001"
    assert verify(old_set / "configs/ca.crt", current / "configs/server.crt")  # what old profiles know
    assert verify(current / "configs/ca.crt", old_set / "clients/docker-for-mac.pem")  # old clients come in
    assert not verify(old_set / "configs/ca.crt", current / "clients/docker-for-mac.pem")
    assert (current / "configs/crl.pem").read_text().count("BEGIN X509 CRL") == 2
    assert_whole(project)
    after = rotated(project)
    assert after.previous_ca is None
    assert after.ca.credential.certificate == overlap.ca.credential.certificate
    assert not verify(current / "configs/ca.crt", old_set / "clients/docker-for-mac.pem")
    assert verify(project / "local/pki/archive/0002/configs/ca.crt", current / "configs/server.crt")
    assert_whole(project)


def list_numbers(project: Path) -> dict[x509.Name, int]:
    """The numbers of both lists of each authority: they are made together."""
    current = project / "local/pki/current"
    numbers: list[dict[x509.Name, int]] = []
    for path in ("crl.pem", "configs/crl.pem"):
        blocks = (current / path).read_text().split("-----BEGIN")[1:]
        lists = [x509.load_pem_x509_crl(f"-----BEGIN{block}".encode()) for block in blocks]
        numbers.append(
            {each.issuer: each.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for each in lists}
        )
    assert numbers[0] == numbers[1]
    return numbers[0]


def test_numbers_of_revocation_lists_grow_even_when_the_clock_does_not(project: Path) -> None:
    answers = read_answers(project)
    seen = [list_numbers(project)]
    for step, moment in enumerate((NOW, NOW, NOW - timedelta(days=300), NOW - timedelta(days=400), NOW)):
        add_clients(project, answers, [f"client-{step}"], moment)
        seen.append(list_numbers(project))
        revoke_client(project, answers, f"client-{step}", moment)
        seen.append(list_numbers(project))
        rotate(project, answers, "all" if step == 2 else "leaf", False, moment)
        seen.append(list_numbers(project))
    for older, newer in itertools.pairwise(seen):
        assert older.keys() & newer.keys()
        assert all(newer[issuer] > older[issuer] for issuer in older.keys() & newer.keys())


def test_new_authority_with_revoke_now_leaves_a_thief_of_everything_outside(project: Path, tmp_path: Path) -> None:
    answers = read_answers(project)
    add_clients(project, answers, ["alice", "bob"], NOW)
    revoke_client(project, answers, "bob", NOW)
    rotated(project, "all")  # a second authority, which may have been stolen, too
    old = read_generation(project)
    stolen = [pki.issue(ca.credential, pki.CLIENT, ["alice"], "ecdsa-p256", 825, NOW).certificate_pem for ca in old.cas]
    new = rotated(project, "all", revoke_now=True)
    current = project / "local/pki/current"
    assert new.cas == (new.ca,)
    assert (current / "configs/ca.crt").read_bytes() == new.ca.credential.certificate_pem
    thieves = [*stolen, *(leaf.certificate_pem for leaf in old.leaves)]
    for number, certificate in enumerate(thieves):
        (tmp_path / f"{number}.crt").write_bytes(certificate)
        assert not verify(current / "configs/ca.crt", tmp_path / f"{number}.crt")
    assert verify(current / "configs/ca.crt", current / "configs/server.crt", current / "clients/alice.pem")
    assert new.keys != old.keys
    old_keys = {client.name: client.keys for client in old.clients}
    assert not [client.name for client in new.live_clients if client.keys == old_keys[client.name]]
    assert [client.name for client in new.live_clients] == ["alice", "docker-for-mac"]
    assert listed(project, "crl.pem") == {client.credential.serial_number for client in new.clients
                                          if client.name == "bob"}  # fmt: skip
    assert_whole(project)


def test_nothing_is_deleted_and_the_archive_is_never_written_again(project: Path) -> None:
    archive = project / "local/pki/archive"
    first = snapshot(archive / "0001")
    for kind in ("leaf", "all", "leaf"):
        rotated(project, kind)
    assert snapshot(archive / "0001") == first
    assert sorted(path.name for path in archive.iterdir()) == ["0001", "0002", "0003", "0004"]


@pytest.mark.parametrize("kind", ["leaf", "all"])
def test_servers_name_is_set_once_whatever_the_project_is_called_later(project: Path, kind: RotationKind) -> None:
    imported = (project / "local/docker-for-mac.ovpn").read_text()
    bundle = (project / "local/docker-for-mac.tblk/Contents/Info.plist").read_text()
    renamed = replace(read_answers(project), project_name="another")
    for revoke_now in (False, True):
        rotate(project, renamed, kind, revoke_now, NOW)
        generation = read_generation(project)
        assert generation.server_name == "server.d4m-devkit"
        names = generation.server.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["server.d4m-devkit"]
        for profile in (imported, (project / "local/docker-for-mac.ovpn").read_text()):
            assert re.findall("^verify-x509-name.*$", profile, re.MULTILINE) == [
                "verify-x509-name server.d4m-devkit name"
            ]
        now = (project / "local/docker-for-mac.tblk/Contents/Info.plist").read_text()
        assert "<string>d4m-devkit.d4m-devkit.docker-for-mac</string>" in bundle
        assert "<string>d4m-devkit.d4m-devkit.docker-for-mac</string>" in now  # or Tunnelblick would keep both


@pytest.mark.parametrize("line", ["verify-x509-name server.another name", "  --verify-x509-name 'CN=x' subject\r"])
def test_servers_name_in_an_older_client_conf_gives_way_to_the_certificates(project: Path, line: str) -> None:
    with (project / "client/client.conf").open("a", newline="") as configuration:
        configuration.write(f"{line}\nverb 4\n")
    ensure_material(project, read_answers(project), NOW)
    profile = (project / "local/docker-for-mac.ovpn").read_text()
    assert re.findall("^.*verify-x509-name.*$", profile, re.MULTILINE) == ["verify-x509-name server.d4m-devkit name"]
    assert "\nverb 4\n" in profile


def test_ended_authority_is_explained_and_replaced(project: Path) -> None:
    answers = read_answers(project)
    later = NOW + timedelta(days=4000)
    with pytest.raises(UserError, match="the CA itself has expired"):
        rotate(project, answers, "leaf", False, later)
    rotate(project, answers, "all", False, later)
    generation = read_generation(project)
    assert generation.previous_ca is None
    assert generation.server.expiry > later


def test_revoked_client_is_listed_refused_by_name_and_never_renewed(project: Path) -> None:
    answers = read_answers(project)
    add_clients(project, answers, ["alice", "bob"], NOW)
    bob = next(client for client in read_generation(project).clients if client.name == "bob").credential.serial_number
    revoke_client(project, answers, "bob", NOW)
    ccd = project / "local/configs/ccd"
    for kind in (None, "leaf", "all", "leaf", "leaf"):
        if kind:
            rotated(project, kind)
        assert listed(project, "crl.pem") >= {bob}
        assert bob not in listed(project)  # or the client would see a reset instead of AUTH_FAILED
        assert sorted(path.name for path in ccd.iterdir()) == ["alice", "docker-for-mac"]
        assert not (project / "local/clients/bob.ovpn").exists()
        assert_whole(project)
    with pytest.raises(UserError, match="there is no client 'eve'"):
        revoke_client(project, answers, "eve", NOW)


def test_revoking_again_changes_nothing_and_can_end_a_session_that_was_out_of_reach(project: Path) -> None:
    add_clients(project, read_answers(project), ["bob"], NOW)
    for _ in range(2):
        refusal = run(project, "client", "revoke", "bob")
        assert refusal.returncode == 1  # there is no engine here to end a session on
        assert "bob is revoked." in refusal.stderr
        assert "bob may still be connected, because the Docker engine" in refusal.stderr
        assert "revoke again to end the session" in refusal.stderr
    assert_whole(project)


def test_name_of_a_revoked_client_can_be_given_again_but_its_old_profile_stays_dead(project: Path) -> None:
    answers = read_answers(project)
    add_clients(project, answers, ["bob"], NOW)
    old = next(client for client in read_generation(project).clients if client.name == "bob")
    revoke_client(project, answers, "bob", NOW)
    add_clients(project, answers, ["bob"], NOW)
    assert old.credential.serial_number in listed(project)  # the server itself must refuse it now
    assert (project / "local/clients/bob.ovpn").exists()
    (copy,) = (project / "local/pki/current/superseded").iterdir()
    assert copy.read_bytes() == contents.client_pem(old)
    assert_whole(project)


def test_first_clients_profile_is_where_it_always_was_for_as_long_as_it_is_live(project: Path) -> None:
    answers = read_answers(project)
    view = project / "local/docker-for-mac.ovpn"
    revoke_client(project, answers, "docker-for-mac", NOW)
    assert not view.is_symlink()
    assert not view.with_suffix(".tblk").is_symlink()
    rotated(project)
    assert not view.is_symlink()
    add_clients(project, answers, ["docker-for-mac"], NOW)
    assert view.read_text().count("PRIVATE KEY") == 2


def test_another_first_client_is_issued_when_the_answer_changes(project: Path) -> None:
    answers = replace(read_answers(project), client_name="laptop")
    ensure_material(project, answers, NOW)
    assert (project / "local/laptop.ovpn").read_text().count("PRIVATE KEY") == 2
    assert (project / "local/clients/docker-for-mac.ovpn").exists()


def test_renamed_first_client_is_said_to_be_a_client_of_its_own_and_what_became_of_the_other(project: Path) -> None:
    answers = (project / ".copier-answers.yml").read_text()
    for name, former, options in (("laptop", "docker-for-mac", []), ("desk", "laptop", ["--rotate=leaf"])):
        (project / ".copier-answers.yml").write_text(answers.replace("docker-for-mac", name))
        said = run(project, "generate", *options).stderr
        assert f"{name} is a client of its own, with the profile local/{name}.ovpn" in said
        assert f"goes on working until `./scripts/client.py revoke {former}`" in said
        assert "of its own" not in run(project, "generate").stderr
        run(project, "client", "revoke", former)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a\\b",
        "-v",
        ".hidden",
        "a b",
        "a\nb",
        "ä",
        "a" * 49,
        "x\0",
        "CN=x",
        "server",
        "Authority",
    ],
)
def test_bad_client_name_is_refused(project: Path, name: str) -> None:
    before = snapshot(project / "local")
    with pytest.raises(UserError, match="is not a client name"):
        add_clients(project, read_answers(project), ["fine", name], NOW)
    assert snapshot(project / "local") == before


def test_taken_name_is_refused(project: Path) -> None:
    before = snapshot(project / "local")
    for name in ("docker-for-mac", "Docker-For-Mac"):
        refusal = run(project, "client", "add", name)
        assert refusal.returncode == 1
        assert "there is a client 'docker-for-mac' already" in refusal.stderr
    assert "you gave the same name twice" in run(project, "client", "add", "twin", "Twin").stderr
    assert snapshot(project / "local") == before


def test_name_that_differs_from_a_revoked_ones_in_case_alone_is_the_same_name(project: Path) -> None:
    answers = read_answers(project)
    add_clients(project, answers, ["bob"], NOW)
    assert "bob is revoked." in run(project, "client", "revoke", "BOB").stderr
    before = snapshot(project / "local/pki")
    refusal = run(project, "client", "add", "Bob")
    assert refusal.returncode == 1
    assert "'Bob' differs only in case from the revoked client 'bob'" in refusal.stderr
    assert "bob is revoked" in run(project, "client", "show", "Bob").stderr
    for name, holder in (("Bob", "bob"), ("DOCKER-for-mac", "docker-for-mac")):
        renamed = replace(answers, client_name=name)
        with pytest.raises(UserError, match=f"{name}.*{holder}.*--data client_name={holder}"):
            ensure_material(project, renamed, NOW)
        with pytest.raises(UserError, match=f"{name}.*{holder}.*--data client_name={holder}"):
            rotate(project, renamed, "leaf", False, NOW)
    assert snapshot(project / "local/pki") == before
    ensure_material(project, replace(answers, client_name="bob"), NOW)
    assert not (project / "local/clients/bob.ovpn").exists()
    add_clients(project, answers, ["bob"], NOW)
    assert run(project, "client", "show", "BOB").stdout == (project / "local/clients/bob.ovpn").read_text()


def test_revoked_client_beside_a_live_one_that_differs_in_case_alone_is_on_the_servers_list(project: Path) -> None:
    """Older code let it be so; on a Mac's disk the live one's file in `ccd` lets in both."""
    answers = read_answers(project)
    add_clients(project, answers, ["bob"], NOW)
    bob = next(client for client in read_generation(project).clients if client.name == "bob")
    revoke_client(project, answers, "bob", NOW)
    generation = rotation.with_clients(read_generation(project), ["Bob"], answers, NOW)
    changes._update(Layout(project), generation, answers)  # noqa: SLF001 -- what is public refuses such a name, which old projects have
    ensure_material(project, answers, NOW)
    assert bob.credential.serial_number in listed(project)
    assert {client.name for client in read_generation(project).live_clients} == {"Bob", "docker-for-mac"}
    assert "Bob is revoked." in run(project, "client", "revoke", "Bob").stderr


def day(since: datetime, **later: int) -> str:
    """A pattern of the day so much after something that was done since then, which midnight may have come between."""
    return "|".join({f"{moment + timedelta(**later):%Y-%m-%d}" for moment in (since, datetime.now(UTC))})


def test_client_commands_say_what_they_did(project: Path) -> None:
    since = datetime.now(UTC)
    added = run(project, "client", "add", "alice", "bob")
    assert added.stdout.splitlines() == [str(project / f"local/clients/{name}.ovpn") for name in ("alice", "bob")]
    assert run(project, "client", "show", "alice").stdout == (project / "local/clients/alice.ovpn").read_text()
    assert "bob is revoked." in run(project, "client", "revoke", "bob").stderr
    lines = run(project, "client", "list").stdout.splitlines()
    assert re.match(rf"alice +[0-9a-f]{{12}} +({day(since, minutes=-5)}) +({day(since, days=825)}) *$", lines[1])
    assert re.match(r"bob .* revoked", lines[2])
    refusal = run(project, "client", "show", "bob")
    assert refusal.returncode == 1
    assert "bob is revoked: `./scripts/client.py add bob` issues it anew." in refusal.stderr
    assert run(project, "client").returncode == 2


def test_ends_are_warned_of_from_30_days_before(tmp_path: Path) -> None:
    since = datetime.now(UTC)
    soon = copy_project(tmp_path / "soon", certificate_days=29, authority_days=29)
    said = run(soon, "client", "list").stderr
    for name in ("CA", "server", "docker-for-mac"):
        assert re.search(rf"{name}: the certificate expires on ({day(since, days=29)}): renew it with", said)
    assert "--data rotate=all" in said
    later = copy_project(tmp_path / "later", certificate_days=32, authority_days=32)
    assert "expires on" not in run(later, "client", "list").stderr


def test_ended_server_certificate_is_explained_before_anything_else(project: Path) -> None:
    answers = read_answers(project)
    rotate(project, answers, "leaf", False, NOW - timedelta(days=900))
    refusal = run(project, "up")
    assert refusal.returncode == 1
    assert "the server's certificate expired on" in refusal.stderr
    assert "copier update --trust --defaults --vcs-ref=:current:" in refusal.stderr


def test_answers_of_an_older_template_are_refused_with_a_mend(project: Path) -> None:
    answers: dict[str, Any] = yaml.safe_load((project / ".copier-answers.yml").read_text())
    del answers["key_type"]
    (project / ".copier-answers.yml").write_text(yaml.safe_dump(answers))
    refusal = run(project, "generate")
    assert refusal.returncode == 1
    assert "key_type: None is not one of" in refusal.stderr
    assert "copier update" in refusal.stderr


def test_ended_authority_refuses_new_clients_with_the_way_out_and_still_revokes(project: Path) -> None:
    answers = read_answers(project)
    later = NOW + timedelta(days=4000)
    before = snapshot(project / "local")
    with pytest.raises(UserError, match=r"the CA itself has expired.*--data rotate=all"):
        add_clients(project, answers, ["alice"], later)
    with pytest.raises(UserError, match=r"the CA itself has expired.*--data rotate=all"):
        ensure_material(project, replace(answers, client_name="laptop"), later)
    assert snapshot(project / "local") == before
    revoke_client(project, answers, "docker-for-mac", later)
    assert read_generation(project).live_clients == ()
    assert listed(project, "crl.pem") == {read_generation(project).clients[0].credential.serial_number}
    rotate(project, replace(answers, client_name="laptop"), "all", False, later)
    assert [client.name for client in read_generation(project).live_clients] == ["laptop"]


def test_previous_authority_that_has_ended_hinders_nothing_and_goes_with_any_rotation(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "devkit", certificate_days=40, authority_days=40)
    answers = replace(read_answers(project), certificate_days=825, authority_days=3650)
    rotate(project, answers, "all", False, NOW)
    later = NOW + timedelta(days=50)
    advice = {end.name: end.renewal for end in expiries(read_generation(project)) if end.at <= later}
    assert advice.keys() == {"previous CA", "server"}
    assert not [renewal for renewal in advice.values() if "rotate=all" in renewal]
    add_clients(project, answers, ["alice", "bob"], later)
    revoke_client(project, answers, "bob", later)
    assert [client.name for client in read_generation(project).live_clients] == ["alice", "docker-for-mac"]
    rotate(project, answers, "leaf", False, later)
    assert read_generation(project).previous_ca is None
    assert read_generation(project).server.expiry > later


def test_leaf_that_ends_with_its_authority_is_renewed_by_a_new_authority_only(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "devkit", certificate_days=29, authority_days=29)
    assert all("rotate=all" in end.renewal for end in expiries(read_generation(project)))
    renewals = rotate(project, read_answers(project), "all", False, NOW + timedelta(days=30))
    said = io.StringIO()
    Console(file=said, width=200).print(rotation_text(renewals, read_answers(project), "all", False))
    assert "Old profiles are refused" in said.getvalue()


def test_profile_for_this_computer_alone_is_said_to_be_so(project: Path, tmp_path: Path) -> None:
    said = run(project, "client", "add", "alice").stderr
    assert "a profile that leads to 127.0.0.1 works on this computer alone" in said
    assert "--data vpn_host=HOST` first" in said
    elsewhere = copy_project(tmp_path / "elsewhere", vpn_host="192.0.2.7")
    assert run(elsewhere, "client", "add", "alice").stderr == ""


def test_more_clients_than_the_tunnel_has_addresses_are_said_to_be_too_many_at_once(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "devkit", vpn_host="192.0.2.7")
    assert run(project, "client", "add", *(f"client-{number}" for number in range(252))).stderr == ""
    said = " ".join(run(project, "client", "add", "alice").stderr.split())
    assert "254 clients may connect, but 10.213.94.0/24 has addresses for 253 at once: revoke those" in said
