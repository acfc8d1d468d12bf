"""The life cycle in memory: how one set of keys and certificates follows from another."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.x509 import load_pem_x509_crl
from devkit.keys.model import Generation
from devkit.keys.x509 import common_name, crl_number
from devkit.material.rotation import (
    RotationKind,
    parse_crls,
    rotated,
    settled,
    split_crls,
    with_clients,
    with_crls,
    without_client,
)
from devkit.vpn.openvpn.tls_crypt import accepts

from tests.unit.made import NOW, answers, generation

LATER = NOW + timedelta(days=10)


def with_names(*names: str) -> Generation:
    return with_clients(generation(), names, answers(), NOW)


def serial(made: Generation, name: str) -> int:
    (number,) = [client.credential.serial_number for client in made.clients if client.name == name]
    return number


def serials(made: Generation) -> set[int]:
    return {leaf.serial_number for leaf in made.leaves}


def listed(pem: bytes) -> list[set[int]]:
    """The serial numbers on each list."""
    return [{entry.serial_number for entry in each} for each in parse_crls(pem)]


def rotate(made: Generation, kind: RotationKind = "leaf", revoke_now: bool = False) -> Generation:
    return rotated(made, kind, revoke_now, answers(), LATER)


def assert_accepted(made: Generation, names: Iterable[str]) -> None:
    """The server knows these clients' keys, and each certificate has the client's name and a trusted issuer."""
    subjects = [ca.credential.certificate.subject for ca in made.cas]
    assert [client.name for client in made.live_clients] == sorted(names)
    for client in made.live_clients:
        assert accepts(made.keys["openvpn"], client.keys["openvpn"])
        assert common_name(client.credential.certificate) == client.name
        assert client.credential.certificate.issuer in subjects


def test_first_set_is_whole_and_has_nothing_to_revoke() -> None:
    made = generation(project_name="shop")
    assert (made.number, made.previous_ca, made.replaced, made.server_name) == (1, None, {}, "server.shop")
    assert common_name(made.ca.credential.certificate).startswith("shop CA ")
    assert made.ca.credential.expiry == NOW + timedelta(days=1000)
    assert {leaf.expiry for leaf in made.leaves} == {NOW + timedelta(days=100)}
    assert listed(made.crl) == listed(made.server_crl) == [set()]
    assert_accepted(made, ["laptop"])


def test_more_clients_are_issued_beside_those_that_there_are() -> None:
    first = generation()
    made = with_clients(first, ["zoe", "bob"], answers(certificate_days=7), NOW)
    assert_accepted(made, ["bob", "laptop", "zoe"])
    assert serial(made, "laptop") == serial(first, "laptop")
    assert {client.name: (client.credential.expiry - NOW).days for client in made.clients} == {
        "bob": 7, "laptop": 100, "zoe": 7,
    }  # fmt: skip
    assert made.revoked == set()


def test_revoked_client_is_listed_and_refused_by_name() -> None:
    first = with_names("bob")
    made = without_client(first, "bob", LATER)
    assert made.revoked == {serial(first, "bob")}
    assert [entry.revocation_date_utc for entry in made.ca.revoked] == [LATER]
    assert listed(made.crl) == [{serial(first, "bob")}]
    assert listed(made.server_crl) == [set()]  # so that he is told so
    assert_accepted(made, ["laptop"])


def test_revoked_clients_older_certificate_goes_with_the_newer_one() -> None:
    first = with_names("bob")
    second = rotate(first)
    made = without_client(second, "bob", LATER)
    assert made.revoked == {serial(first, "bob"), serial(second, "bob")}
    assert listed(made.server_crl) == [set()]


def test_name_that_is_given_again_keeps_the_older_certificates_dead() -> None:
    first = with_names("bob")
    second = rotate(first)
    revoked = without_client(second, "bob", LATER)
    made = with_clients(revoked, ["bob"], answers(), LATER)
    dead = {serial(first, "bob"), serial(second, "bob")}
    assert made.revoked == dead
    assert listed(made.server_crl) == [dead]  # his name is let in again
    assert_accepted(made, ["bob", "laptop"])


def test_name_that_is_given_again_without_a_revocation_ends_what_it_replaced() -> None:
    first = with_names("bob")
    made = with_clients(rotate(first), ["bob"], answers(), LATER)
    assert made.revoked == {serial(first, "bob")}


def test_rotation_renews_all_live_leaves_and_revokes_what_was_replaced_before() -> None:
    first = with_names("bob")
    second = rotate(first)
    assert (second.number, second.previous_ca, second.keys) == (2, None, first.keys)
    assert second.ca == first.ca
    assert not serials(second) & serials(first)
    assert {client.name: client.keys for client in second.clients} == {
        client.name: client.keys for client in first.clients
    }
    assert {leaf.expiry for leaf in second.leaves} == {LATER + timedelta(days=100)}
    assert second.replaced == {
        **{name: serial(first, name) for name in ("bob", "laptop")},
        "server": first.server.serial_number,
    }
    assert second.revoked == set()
    assert_accepted(second, ["bob", "laptop"])
    third = rotate(second)
    assert third.revoked == serials(first)
    assert listed(third.crl) == listed(third.server_crl) == [serials(first)]


def test_rotation_leaves_revoked_clients_alone() -> None:
    first = without_client(with_names("zoe", "bob"), "bob", NOW)
    made = rotate(first)
    assert [client.name for client in made.clients] == ["bob", "laptop", "zoe"]
    assert serial(made, "bob") == serial(first, "bob")
    assert made.revoked == {serial(first, "bob")}
    assert "bob" not in (made.replaced or {})


def test_revoke_now_ends_what_was_in_use_and_what_was_before() -> None:
    first = generation()
    second = rotate(first)
    made = rotate(second, revoke_now=True)
    assert made.revoked == serials(first) | serials(second)
    assert made.replaced == {}
    assert made.keys == second.keys


def test_new_authority_signs_clients_while_the_old_one_still_vouches_for_the_server() -> None:
    first = with_names("bob")
    made = rotated(first, "all", False, answers(project_name="other", authority_days=500), LATER)
    assert made.previous_ca == first.ca
    assert common_name(made.ca.credential.certificate).startswith("other CA ")
    assert made.ca.credential.expiry == LATER + timedelta(days=500)
    assert made.keys == first.keys
    assert {client.credential.certificate.issuer for client in made.clients} == {made.ca.credential.certificate.subject}
    assert made.server.certificate.issuer == first.ca.credential.certificate.subject
    assert made.server_name == first.server_name
    assert len(listed(made.crl)) == len(listed(made.server_crl)) == 2
    following = rotate(made)
    assert following.previous_ca is None
    assert following.server.certificate.issuer == made.ca.credential.certificate.subject


def test_client_that_is_revoked_while_both_authorities_are_trusted_is_on_both_lists() -> None:
    first = with_names("bob")
    made = without_client(rotate(first, "all"), "bob", LATER)
    dead = {serial(first, "bob"), serial(made, "bob")}
    assert listed(made.crl) == [dead, dead]
    assert len(made.cas) == 2


def test_new_authority_takes_over_whom_the_old_one_refused() -> None:
    first = without_client(with_names("bob"), "bob", NOW)
    made = rotate(first, "all")
    assert [entry.serial_number for entry in made.ca.revoked] == [serial(first, "bob")]
    assert [entry.revocation_date_utc for entry in made.ca.revoked] == [LATER]
    assert listed(made.crl) == [{serial(first, "bob")}, {serial(first, "bob")}]
    assert_accepted(made, ["laptop"])


def test_new_authority_with_revoke_now_leaves_nothing_that_a_thief_could_use() -> None:
    first = generation()
    made = rotate(first, "all", revoke_now=True)
    assert made.cas == (made.ca,)
    assert made.ca.credential.certificate.subject != first.ca.credential.certificate.subject
    assert made.server.certificate.issuer == made.ca.credential.certificate.subject
    assert made.keys != first.keys
    assert not accepts(made.keys["openvpn"], first.clients[0].keys["openvpn"])
    assert_accepted(made, ["laptop"])


@pytest.mark.parametrize(("seconds", "kept"), [(-1, True), (0, False)])
def test_old_authority_that_has_expired_is_dropped(seconds: int, kept: bool) -> None:
    first = generation()
    now = first.ca.credential.expiry + timedelta(seconds=seconds)
    assert (rotated(first, "all", False, answers(), now).previous_ca is not None) is kept


def test_rotation_needs_no_knowledge_of_what_was_before() -> None:
    made = rotate(replace(generation(), replaced=None))
    assert made.revoked == set()


def test_client_that_is_called_as_another_in_another_case_is_refused_by_the_list() -> None:
    first = with_names("Bob", "bob")
    made = without_client(first, "Bob", NOW)
    # Where the two are one file, it lets both in.
    assert listed(made.server_crl) == [{serial(first, "Bob")}]


def test_numbers_of_both_lists_grow_even_when_the_clock_does_not() -> None:
    first = generation()
    (before,) = (crl_number(each) for each in parse_crls(first.crl))
    made = with_crls(first, NOW)
    assert [crl_number(each) for each in parse_crls(made.crl)] == [before + 1]
    assert [crl_number(each) for each in parse_crls(made.server_crl)] == [before + 1]
    only_the_servers = with_crls(replace(made, crl=b""), NOW)
    assert [crl_number(each) for each in parse_crls(only_the_servers.crl)] == [before + 2]


def test_new_authoritys_numbers_do_not_follow_from_the_old_ones() -> None:
    future = with_crls(generation(), LATER + timedelta(days=1))
    made = rotate(future, "all")
    new, old = (crl_number(each) for each in parse_crls(made.crl))
    assert new == int(LATER.timestamp() * 1_000_000)
    assert old > new


def test_servers_list_is_made_anew_only_where_a_run_was_cut_short() -> None:
    first = with_names("bob")
    made = rotate(rotate(first))
    assert settled(made, LATER) is made
    refused = without_client(made, "bob", LATER)
    assert settled(refused, LATER) is refused
    for interrupted in (replace(made, server_crl=b""), replace(made, server_crl=first.server_crl)):
        assert listed(settled(interrupted, LATER).server_crl) == listed(made.server_crl)
    empty = replace(generation(), server_crl=b"")
    assert listed(settled(empty, LATER).server_crl) == [set()]


def test_bundle_is_split_into_its_lists_and_what_does_not_belong_there() -> None:
    crl = generation().crl
    assert split_crls(crl + crl) == [crl, crl]
    assert generation().server_crl.startswith(b"-----BEGIN X509 CRL-----\n")
    assert crl.startswith(b"-----BEGIN X509 CRL-----\n")
    assert split_crls(crl + b"x") == [crl, b"x"]
    assert split_crls(b"") == []
    assert next(iter(parse_crls(crl))) == load_pem_x509_crl(crl)
