"""A generation as files: which there are, for whom, and in which order."""

from dataclasses import replace

import pytest
import yaml
from devkit.keys.model import Generation
from devkit.material import contents
from devkit.material.contents import Readable, parse_replaced, replaced_text
from devkit.material.rotation import rotated, with_clients, without_client

from tests.unit.made import NOW, answers, generation

READABLE = Readable("client\n", "port 1194\n")
REPLACED = {"server": 0xABC, "bob": 255}


def two_clients() -> Generation:
    """Two clients, of which bob is revoked."""
    return without_client(with_clients(generation(), ["bob"], answers(), NOW), "bob", NOW)


def files(made: Generation) -> dict[str, tuple[bytes, int]]:
    found = list(contents.files(made, READABLE, answers()))
    assert len({file.path for file in found}) == len(found)
    return {str(file.path): (file.content, file.mode) for file in found}


def test_all_that_there_is_and_what_lets_clients_in_last() -> None:
    modes = {name: mode for name, (_, mode) in files(two_clients()).items()}
    assert modes == {
        "authority.crt": 0o644,
        "authority.key": 0o600,
        "crl.pem": 0o644,
        "replaced.txt": 0o644,
        "configs/crl.pem": 0o644,
        "configs/server.crt": 0o644,
        "configs/server.key": 0o600,
        "configs/ca.crt": 0o644,
        "configs/tls-crypt-v2.key": 0o600,
        "https/proxy/expiries.json": 0o644,
        "clients/bob.pem": 0o600,
        "clients/laptop.pem": 0o600,
        "profiles/laptop.ovpn": 0o600,
        "profiles/laptop.tblk/Contents/Info.plist": 0o600,
        "profiles/laptop.tblk/Contents/Resources/config.ovpn": 0o600,
        "values.yaml": 0o600,
        "configs/ccd/laptop": 0o644,
    }
    assert list(modes)[-1] == "configs/ccd/laptop"


def test_files_hold_what_their_names_say() -> None:
    made = replace(two_clients(), replaced=REPLACED)
    found = {name: content for name, (content, _) in files(made).items()}
    (bob, laptop) = made.clients
    assert found["authority.crt"] == made.ca.credential.certificate_pem
    assert found["authority.key"] == made.ca.credential.key_pem
    assert (found["crl.pem"], found["configs/crl.pem"]) == (made.crl, made.server_crl)
    assert found["configs/server.crt"] == made.server.certificate_pem
    assert found["configs/server.key"] == made.server.key_pem
    assert found["configs/ca.crt"] == made.trusted_pem
    assert found["configs/tls-crypt-v2.key"] == made.keys["openvpn"]
    for client in (bob, laptop):
        credential = client.credential
        expected = credential.certificate_pem + credential.key_pem + client.keys["openvpn"]
        assert found[f"clients/{client.name}.pem"] == expected
    assert parse_replaced(found["replaced.txt"]) == REPLACED
    assert found["configs/ccd/laptop"] == b""
    assert found["profiles/laptop.ovpn"].startswith(b"client\n")
    values = yaml.safe_load(found["values.yaml"])
    assert values["serverConf"] == "port 1194\n"
    assert values["clients"] == ["laptop"]
    assert values["material"] == {
        name.removeprefix("configs/"): content.decode()
        for name, content in found.items()
        if name.startswith("configs/") and "/ccd/" not in name
    }


def test_old_authority_is_kept_while_it_is_trusted() -> None:
    made = rotated(generation(), "all", False, answers(), NOW)
    found = files(made)
    assert made.previous_ca is not None
    assert found["previous-authority.crt"] == (made.previous_ca.credential.certificate_pem, 0o644)
    assert found["previous-authority.key"] == (made.previous_ca.credential.key_pem, 0o600)


def test_what_is_not_known_to_be_replaced_is_not_written() -> None:
    assert "replaced.txt" not in files(replace(generation(), replaced=None))


def test_cluster_is_told_of_each_revocation() -> None:
    first = two_clients()
    digests = {
        yaml.safe_load(contents.chart_values(made, READABLE, answers()))["revocations"]
        for made in (first, without_client(first, "laptop", NOW), generation())
    }
    assert len(digests) == 3
    assert {len(digest) for digest in digests} == {16}


def test_server_reads_as_nobody_what_changes_while_it_runs_and_only_that() -> None:
    assert {str(path): mode for path, mode in contents.folders().items()} == {
        "configs": 0o755, "configs/ccd": 0o755, "https/proxy": 0o755, "clients": 0o700, "profiles": 0o700,
    }  # fmt: skip
    assert [str(path) for path in contents.read_at_start()] == [
        "configs/ca.crt", "configs/server.crt", "configs/server.key", "configs/tls-crypt-v2.key",
    ]  # fmt: skip


def test_nothing_of_a_revoked_client_may_be_left_that_lets_it_in() -> None:
    assert [str(path) for path in contents.files_of_the_refused("bob")] == ["configs/ccd/bob", "profiles/bob.ovpn"]
    assert [str(path) for path in contents.folders_of_the_refused("bob")] == ["profiles/bob.tblk"]
    assert contents.profile_suffixes() == [".ovpn", ".tblk"]


def test_replaced_numbers_are_kept_readably_and_in_order() -> None:
    text = replaced_text(REPLACED).decode()
    assert text.endswith("\nbob ff\nserver abc\n")
    assert parse_replaced(text.encode()) == REPLACED
    assert parse_replaced(replaced_text({})) == {}


@pytest.mark.parametrize(
    "damaged",
    [
        replaced_text(REPLACED).replace(b"bob ff\n", b""),
        replaced_text(REPLACED).replace(b"ff", b"fe"),
        replaced_text(REPLACED) + b"\n",
        replaced_text(REPLACED) + b"eve 1\n",
        replaced_text(REPLACED)[:-1],
        b"",
        b"\xff",
    ],
)
def test_replaced_numbers_that_are_damaged_are_a_value_error(damaged: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_replaced(damaged)
