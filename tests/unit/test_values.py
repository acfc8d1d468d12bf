"""The Helm values that are the project's own, as Helm reads them."""

from typing import Any

import pytest
import yaml
from devkit.material.values import admission_part, chart_values, fingerprint_of, settings_part

from tests.unit.made import answers

CONF = "port 1194\nserver 10.213.94.0\n"


def made(conf: str = CONF, clients: tuple[str, ...] = ("laptop",), revocations: str = "1e5", **changes: Any) -> bytes:
    return chart_values(answers(**changes), conf, {"ca.crt": b"one\ntwo\n"}, clients, revocations)


def test_values_are_the_answers_and_the_servers_files() -> None:
    given: Any = {
        "vpn_protocol": "udp",
        "vpn_port": 31194,
        "service_type": "NodePort",
        "image_registry": "a.example.org",
    }
    found = yaml.safe_load(made(**given))
    assert len(found.pop("fingerprint")) == 16
    assert found == {
        "image": {"repository": "a.example.org/devkit-gateway"},
        "dockerNetworks": False,
        "vpn": {
            "protocol": "udp",
            "port": 31194,
            "subnet": "10.213.94.0/24",
            "routes": ["172.16.0.0/12", "192.168.64.0/24"],
        },
        "service": {"type": "NodePort"},
        "clients": ["laptop"],
        "revocations": "1e5",
        "serverConf": CONF,
        "material": {"ca.crt": "one\ntwo\n"},
    }


@pytest.mark.parametrize(("kubernetes", "there"), [("docker-desktop", True), ("kind", False), ("none", False)])
def test_dockers_networks_are_where_docker_desktops_node_is(kubernetes: str, there: bool) -> None:
    assert yaml.safe_load(made(kubernetes=kubernetes))["dockerNetworks"] is there


def test_values_say_what_they_are_and_are_readable() -> None:
    text = made(conf="# für alle\nport 1194\n").decode()
    assert text.startswith("# The values of chart/, written by scripts/generate.py. Secret: ")
    assert "\nserverConf: |\n  # für alle\n  port 1194\n" in text
    assert text.index("\nimage:") < text.index("\nclients:") < text.index("\nmaterial:") < text.index("\nfingerprint:")


@pytest.mark.parametrize("name", ["1e5", "0x1F", "y", "Y", "n", "N", "007"])
def test_name_that_helm_would_take_for_something_else_is_quoted(name: str) -> None:
    assert f'- "{name}"\n' in made(clients=(name,)).decode()


def test_other_names_are_plain() -> None:
    assert "- laptop\n" in made().decode()
    assert "- yes-1\n" in made(clients=("yes-1",)).decode()


def test_fingerprint_tells_any_change() -> None:
    fingerprints = {fingerprint_of(each) for each in (made(), made("x"), made(clients=()), made(vpn_port=1195))}
    assert len(fingerprints) == 4
    assert fingerprint_of(made()) == fingerprint_of(made()) == yaml.safe_load(made())["fingerprint"]


def test_who_may_connect_is_one_part_and_the_settings_are_the_other() -> None:
    whole = yaml.safe_load(made())
    who, rest = yaml.safe_load(admission_part(made())), yaml.safe_load(settings_part(made()))
    assert who.keys() == {"clients", "revocations", "material", "fingerprint"}
    assert not who.keys() & rest.keys()
    assert who | rest == whole
