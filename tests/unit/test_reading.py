"""A generation read back from its files, whole or damaged."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from devkit.errors import UserError
from devkit.keys.model import Generation
from devkit.layout import Layout
from devkit.material.contents import Readable, client_pem, files, folders
from devkit.material.reading import load, readable
from devkit.material.rotation import rotated, with_clients, without_client
from devkit.vpn.openvpn.tls_crypt import new_client_key, new_server_key

from tests.unit.made import NOW, answers, generation


def grown() -> Generation:
    """The third generation, under two authorities; bob is revoked."""
    made = with_clients(generation(), ["alice", "bob"], answers(), NOW)
    made = rotated(made, "leaf", False, answers(), NOW)
    return rotated(without_client(made, "bob", NOW), "all", False, answers(), NOW)


GROWN = grown()
FIRST = generation()
OTHER = grown()


def written(folder: Path, made: Generation) -> Path:
    place = folder / f"{made.number:04}"
    for path in folders():
        (place / path).mkdir(parents=True, exist_ok=True)
    for file in files(made, Readable("client\n", "port 1194\n"), answers()):
        (place / file.path).parent.mkdir(parents=True, exist_ok=True)
        (place / file.path).write_bytes(file.content)
    return place


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return written(tmp_path, GROWN)


def comparable(made: Generation) -> Generation:
    """The same but for what compares by identity: revoked entries, and the keys' objects."""
    return replace(made, ca=None, previous_ca=None, server=None, clients=())  # type: ignore[arg-type]  # compared apart


@pytest.mark.parametrize("made", [FIRST, GROWN])
def test_generation_is_read_back_as_it_was_written(tmp_path: Path, made: Generation) -> None:
    found = load(written(tmp_path, made))
    assert comparable(found) == comparable(made)
    assert [ca.credential.key_pem for ca in found.cas] == [ca.credential.key_pem for ca in made.cas]
    assert [ca.credential.certificate for ca in found.cas] == [ca.credential.certificate for ca in made.cas]
    assert found.revoked == made.revoked
    assert (found.server.certificate_pem, found.server.key_pem) == (made.server.certificate_pem, made.server.key_pem)
    assert list(map(client_pem, found.clients)) == list(map(client_pem, made.clients))
    assert [client.name for client in found.clients] == [client.name for client in made.clients]


@pytest.mark.parametrize(
    "name",
    [
        "authority.crt", "authority.key", "previous-authority.crt", "previous-authority.key", "crl.pem",
        "configs/server.crt", "configs/server.key", "configs/tls-crypt-v2.key", "clients/alice.pem",
    ],
)  # fmt: skip
def test_file_that_only_a_backup_brings_back_is_named(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(b"x")
    with pytest.raises(UserError, match=f"^{path} is damaged: restore it from your backup"):
        load(folder)
    path.unlink()
    with pytest.raises(UserError, match=f"^{path} is missing: restore it from your backup"):
        load(folder)
    path.mkdir()
    with pytest.raises(
        UserError, match=rf"^{path} cannot be read \(Is a directory\): fix that, or restore it from your b"
    ):
        load(folder)


def test_old_authority_that_left_no_trace_but_its_list_is_missed(folder: Path) -> None:
    for suffix in ("crt", "key"):
        (folder / f"previous-authority.{suffix}").unlink()
    with pytest.raises(UserError, match=r"previous-authority.crt is missing"):
        load(folder)


@pytest.mark.parametrize("suffix", ["crt", "key"])
def test_list_that_the_old_authority_should_have_is_missed(tmp_path: Path, suffix: str) -> None:
    folder = written(tmp_path, FIRST)
    (folder / f"previous-authority.{suffix}").symlink_to("gone")
    with pytest.raises(UserError, match=r"previous-authority.crt is missing"):
        load(folder)


def test_list_of_too_many_authorities_is_damaged(tmp_path: Path) -> None:
    folder = written(tmp_path, GROWN)
    (folder / "crl.pem").write_bytes(GROWN.crl + FIRST.crl)
    with pytest.raises(UserError, match=r"crl.pem is damaged"):
        load(folder)


@pytest.mark.parametrize("name", ["crl.pem", "configs/server.crt", "configs/server.key", "clients/alice.pem"])
def test_file_of_another_project_is_damaged(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).write_bytes((written(tmp_path / "other", OTHER) / name).read_bytes())
    with pytest.raises(UserError, match=f"^{folder / name} is damaged"):
        load(folder)


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"x")])
def test_servers_list_follows_from_the_other_and_may_be_gone(folder: Path, damage: Callable[[Path], object]) -> None:
    damage(folder / "configs/crl.pem")
    found = load(folder)
    assert found.server_crl == b""
    assert found.crl == GROWN.crl


def test_client_that_is_let_in_must_have_its_keys(folder: Path) -> None:
    (folder / "configs/ccd/carol").touch()
    with pytest.raises(UserError, match=r"clients/carol.pem is missing: restore it from your backup"):
        load(folder)
    (folder / "configs/ccd/carol").write_text("not one of ours")
    (folder / "configs/ccd/Thumbs.db").write_text("the system's")
    assert load(folder).live_names == {"alice", "laptop"}


def test_what_is_no_clients_name_is_no_client(folder: Path) -> None:
    (folder / "clients/._alice.pem").write_text("x")
    (folder / "clients/alice.txt").write_text("x")
    assert [client.name for client in load(folder).clients] == ["alice", "bob", "laptop"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda pem: pem + b"x\n",
        lambda pem: pem + pem,
        lambda pem: pem[: pem.index(b"-----BEGIN OpenVPN")],
        lambda pem: pem[: pem.index(b"-----BEGIN OpenVPN")] + new_server_key().replace(b"OpenVPN", b"Other"),
    ],
)
def test_client_has_a_certificate_its_key_and_one_key_for_each_protocol(
    folder: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = folder / "clients/alice.pem"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"clients/alice.pem is damaged"):
        load(folder)


def test_client_under_anothers_name_is_damaged_unless_it_is_revoked(folder: Path) -> None:
    (folder / "clients/eve.pem").write_bytes((folder / "clients/bob.pem").read_bytes())
    assert [client.name for client in load(folder).live_clients] == ["alice", "laptop"]
    (folder / "clients/eve.pem").write_bytes((folder / "clients/alice.pem").read_bytes())
    with pytest.raises(UserError, match=r"clients/eve.pem is damaged"):
        load(folder)


def test_what_the_next_rotation_revokes_may_be_unknown_but_not_damaged(folder: Path, tmp_path: Path) -> None:
    path = folder / "replaced.txt"
    path.write_bytes(b"x")
    with pytest.raises(UserError, match=r"replaced.txt is damaged"):
        load(folder)
    path.unlink()
    assert load(folder).replaced is None
    first = written(tmp_path, FIRST)
    (first / "replaced.txt").unlink()
    assert load(first).replaced == {}  # nothing was before it
    (first / "replaced.txt").symlink_to("gone")
    with pytest.raises(UserError, match=r"replaced.txt is missing"):
        load(first)


def with_foreign_keys(folder: Path, *names: str) -> None:
    """Let these clients have keys that another server wrapped."""
    for name in names:
        path = folder / f"clients/{name}.pem"
        pem = path.read_bytes()
        path.write_bytes(pem[: pem.index(b"-----BEGIN OpenVPN")] + new_client_key(new_server_key(), NOW))


@pytest.mark.parametrize(
    ("foreign", "named"),
    [
        (["alice"], ["clients/alice.pem"]),
        (["alice", "laptop"], ["configs/tls-crypt-v2.key"]),
        (["alice", "carol"], ["clients/alice.pem"]),
        (["bob"], []),
    ],
)
def test_file_whose_key_does_not_fit_the_others_is_named(tmp_path: Path, foreign: list[str], named: list[str]) -> None:
    made = with_clients(GROWN, ["carol"], answers(), NOW) if "carol" in foreign else GROWN
    folder = written(tmp_path, made)
    with_foreign_keys(folder, *foreign)
    if not named:  # nobody is let in with it
        assert load(folder).live_names == {"alice", "laptop"}
        return
    names = " or ".join(str(folder / name) for name in named)
    with pytest.raises(UserError, match=f"^{re.escape(names)} is damaged: restore it from your backup"):
        load(folder)


def test_one_client_alone_cannot_tell_whose_key_is_damaged(tmp_path: Path) -> None:
    folder = written(tmp_path, FIRST)
    with_foreign_keys(folder, "laptop")
    names = f"{folder / 'configs/tls-crypt-v2.key'} or {folder / 'clients/laptop.pem'}"
    with pytest.raises(UserError, match=f"^{names} is damaged"):
        load(folder)


def test_texts_that_git_tracks_come_back_from_git(tmp_path: Path) -> None:
    project = Layout(tmp_path)
    for path, text in ((project.client_conf, "client # für"), (project.server_conf, "port")):
        path.parent.mkdir()
        path.write_text(text, encoding="utf-8")
    assert readable(project) == Readable("client # für", "port")
    project.server_conf.write_bytes(b"\xff")
    with pytest.raises(UserError, match=f"^{project.server_conf} is not UTF-8: restore it from git"):
        readable(project)
    project.client_conf.unlink()
    with pytest.raises(UserError, match=f"^{project.client_conf} is missing: restore it from git"):
        readable(project)
