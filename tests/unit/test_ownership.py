"""What on an engine is this project's own, and what of others' is in its way."""

from dataclasses import replace
from pathlib import Path

import pytest
from devkit.facts import Container, Network
from devkit.sites.ownership import Identity, identity_of, in_the_way, is_a_devkits

from tests.unit.made import generation


def container(service: str, project: str = "devkit", folder: str | None = None, server: str | None = None) -> Container:
    return Container("one", "image", project, service, (), (), folder, server)


def network(bridge: str | None, project: str) -> Network:
    return Network(f"{project}_vpn", "bridge", (), bridge, project)


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    return Identity(tmp_path / "devkit", "devkit", ("aa", "bb"))


@pytest.mark.parametrize("service", ["vpn", "firewall", "openvpn", "relay"])
def test_services_of_today_and_of_earlier_versions_are_a_devkits(service: str) -> None:
    assert is_a_devkits(container(service))
    assert not is_a_devkits(container("web"))


def test_own_service_is_known_by_its_certificate_under_whatever_name_and_in_whatever_folder(identity: Identity) -> None:
    elsewhere = str(identity.project.parent / "elsewhere")
    assert identity.owns(container("vpn", "renamed", elsewhere, server="bb"))
    assert not identity.owns(container("vpn", "devkit", str(identity.project), server="cc"))
    assert not identity.owns(container("web", "devkit", str(identity.project), server="bb"))


def test_project_knows_its_own_by_the_certificates_that_its_server_has_had(identity: Identity) -> None:
    server = generation().server
    configs = identity.project / "local/pki/archive/0001/configs"
    configs.mkdir(parents=True)
    (configs / "server.crt").write_bytes(server.certificate_pem)
    found = identity_of(identity.project, "devkit")
    assert found == Identity(identity.project, "devkit", (f"{server.serial_number:x}",))


def test_own_service_that_names_no_certificate_is_known_by_its_folder(identity: Identity) -> None:
    assert identity.owns(container("vpn", folder=str(identity.project / "../devkit")))
    assert not identity.owns(container("vpn", folder=str(identity.project.parent)))
    assert not identity.owns(container("vpn", folder=None))


def test_former_service_has_another_project_name_or_layout(identity: Identity) -> None:
    assert not identity.is_former(container("vpn"))
    assert identity.is_former(container("vpn", "renamed"))
    assert identity.is_former(container("openvpn"))
    assert identity.is_former(container("relay"))


@pytest.mark.parametrize(
    ("others", "networks", "volume", "sentence"),
    [
        ([container("vpn", "other", "/other")], [network("d4m", "other")], "v",
         "another devkit, other in /other, is on this engine: take it down first (`./scripts/down.py` in its folder)."),
        ([container("web", "devkit", "/shop")], [], None, "the Compose project in /shop is called devkit, too: "),
        ([], [network("d4m", "other")], None,
         "the network other_vpn of another devkit is on this engine: remove it first (`docker network rm other_vpn`)."),
        ([], [network("eth7", "web"), network("d4m-relay", "other")], None, "the network other_vpn of another devkit"),
        ([], [], "devkit_configs", "the volume devkit_configs on this engine is not this project's: remove it, or give "
                                   "this one another name with `"),
    ],
)  # fmt: skip
def test_what_is_anothers_is_named_with_the_way_out(
    identity: Identity, others: list[Container], networks: list[Network], volume: str | None, sentence: str
) -> None:
    found = in_the_way(identity, others, networks, [], volume)
    assert (found.name, found.verdict) == ("other projects", "failed")
    assert found.sentence.startswith(sentence)


def test_nothing_of_its_own_is_in_the_way(identity: Identity) -> None:
    networks = [network("d4m", "devkit"), network("d4m-relay", "renamed"), network("eth7", "web"), network(None, "web")]
    found = in_the_way(identity, [], networks, [container("vpn", "renamed")], None)
    assert found.verdict == "passed"
    assert found.evidence == "no other devkit and no project of this name is on this engine"
    assert in_the_way(replace(identity, project_name="new"), [], networks, [], None).verdict == "failed"


@pytest.mark.parametrize("service", ["names", "dns"])
def test_service_of_a_name_that_many_have_is_none_of_ours_by_its_folder_alone(identity: Identity, service: str) -> None:
    assert not identity.owns(container(service, "pi-hole", str(identity.project)))
    assert identity.owns(container(service, "devkit", str(identity.project), server="bb"))
    by_hand = replace(container(service, folder=str(identity.project)), labels={"d4m-devkit.server": ""})
    assert identity.owns(by_hand)
