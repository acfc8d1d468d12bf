"""What one set of keys and certificates says of itself."""

from dataclasses import replace

import pytest
from devkit.keys.model import Client, Generation
from devkit.material.rotation import rotated, with_clients, without_client

from tests.unit.made import NOW, answers, generation


def with_names(*names: str) -> Generation:
    return with_clients(generation(), names, answers(), NOW)


def serial(made: Generation, name: str) -> int:
    (number,) = [client.credential.serial_number for client in made.clients if client.name == name]
    return number


def test_authority_lists_each_serial_number_once_and_the_newest_last() -> None:
    ca = generation().ca.revoking([5, 7], NOW).revoking([7, 6], NOW)
    assert [entry.serial_number for entry in ca.revoked] == [5, 7, 6]


def test_old_authority_is_trusted_beside_the_new_one_which_comes_first() -> None:
    first = generation()
    assert first.cas == (first.ca,)
    assert first.trusted_pem == first.ca.credential.certificate_pem
    second = rotated(first, "all", False, answers(), NOW)
    assert second.previous_ca is not None
    assert second.ca.credential.serial_number != first.ca.credential.serial_number
    assert second.previous_ca.credential.serial_number == first.ca.credential.serial_number
    assert second.cas == (second.ca, second.previous_ca)
    assert second.trusted_pem == second.ca.credential.certificate_pem + first.ca.credential.certificate_pem


def test_server_and_project_have_the_names_that_they_had_first() -> None:
    first = generation(project_name="shop")
    renamed = rotated(first, "all", True, answers(project_name="other"), NOW)
    assert (renamed.server_name, renamed.identity) == ("server.shop", "shop")


def test_what_either_authority_has_revoked_is_revoked() -> None:
    made = rotated(with_names("bob"), "all", False, answers(), NOW)
    assert made.previous_ca is not None
    made = replace(made, ca=made.ca.revoking([5], NOW), previous_ca=made.previous_ca.revoking([6], NOW))
    assert made.revoked == {5, 6}


def test_revoked_client_is_not_live_but_still_has_its_certificate() -> None:
    made = without_client(with_names("Bob", "carol"), "Bob", NOW)
    assert [client.name for client in made.clients] == ["Bob", "carol", "laptop"]
    assert [client.name for client in made.live_clients] == ["carol", "laptop"]
    assert made.live_names == {"carol", "laptop"}
    assert with_names("Bob").live_names == {"bob", "laptop"}
    assert [leaf.serial_number for leaf in made.leaves] == [
        made.server.serial_number, *(serial(made, name) for name in ("Bob", "carol", "laptop"))
    ]  # fmt: skip


def test_what_the_next_set_replaces_is_what_is_in_use() -> None:
    made = without_client(with_names("bob"), "bob", NOW)
    assert made.in_use() == {"laptop": serial(made, "laptop"), "server": made.server.serial_number}


def named(made: Generation, name: str) -> Client:
    found = made.client(name)
    assert found is not None
    return found


def test_client_is_found_by_its_name_whatever_its_case() -> None:
    made = with_names("Bob")
    assert named(made, "bob").name == "Bob"
    assert named(made, "LAPTOP").name == "laptop"
    assert made.client("bo") is None


@pytest.mark.parametrize("revoked", ["BOB", "Bob", "bob"])
def test_of_clients_that_differ_in_case_the_one_that_is_named_comes_first_and_then_the_live_one(revoked: str) -> None:
    made = without_client(with_names("BOB", "Bob", "bob"), revoked, NOW)
    assert [named(made, name).name for name in ("BOB", "Bob", "bob")] == ["BOB", "Bob", "bob"]
    only_two = replace(made, clients=tuple(client for client in made.clients if client.name != "Bob"))
    assert named(only_two, "Bob").name == ("bob" if revoked == "BOB" else "BOB")
