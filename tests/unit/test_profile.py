"""What the VPN apps open."""

import plistlib
import re
from pathlib import PurePosixPath

import pytest
from devkit.host import OperatingSystem
from devkit.vpn.openvpn.profile import client_files, opening_steps, profile

from tests.unit.made import answers, generation

MADE = generation(project_name="shop")
(LAPTOP,) = MADE.clients


def text(readable: str, **changes: object) -> str:
    return profile(readable, answers(**changes), MADE, LAPTOP).decode()


def test_profile_holds_all_that_its_client_needs() -> None:
    made = text("client\n")
    head, *blocks = made.split("\n\n<")
    assert head == "client\n\nremote 127.0.0.1 1194\nverify-x509-name server.shop name"
    found = dict(re.findall(r"<(.*?)>\n(.*?)</\1>\n", made, re.DOTALL))
    assert len(blocks) == len(found)
    assert found == {
        "ca": MADE.trusted_pem.decode(),
        "cert": LAPTOP.credential.certificate_pem.decode(),
        "key": LAPTOP.credential.key_pem.decode(),
        "tls-crypt-v2": LAPTOP.keys["openvpn"].decode(),
    }


@pytest.mark.parametrize("line", ["remote vpn.example.org 443", "  --remote vpn.example.org", "\tremote\tx"])
def test_profile_leads_where_the_user_wrote_that_it_leads(line: str) -> None:
    assert text(f"client\n{line}\n").startswith(f"client\n{line}\n\nverify-x509-name server.shop name\n")
    assert "remote 192.0.2.7 443\n" in text(
        "client\n# remote x\nremote-cert-tls server\n", vpn_host="192.0.2.7", vpn_port=443
    )


@pytest.mark.parametrize("line", ["verify-x509-name old name", " \t--verify-x509-name old", "verify-x509-name\told"])
def test_servers_name_comes_from_its_certificate_alone(line: str) -> None:
    for readable in (f"client\n{line}\nverb 3\n", f"client\nverb 3\n{line}"):
        made = text(readable)
        assert re.findall("verify-x509-name.*", made) == ["verify-x509-name server.shop name"]
        assert made.startswith("client\nverb 3\n\nremote ")


def test_bundle_holds_the_profile_and_what_tunnelblick_replaces_it_by() -> None:
    files = {file.path: file for file in client_files(MADE, LAPTOP, answers(), "client\n")}
    folder = PurePosixPath("laptop.tblk/Contents")
    assert list(files) == [PurePosixPath("laptop.ovpn"), folder / "Info.plist", folder / "Resources/config.ovpn"]
    assert files[PurePosixPath("laptop.ovpn")].content == text("client\n").encode()
    assert files[folder / "Resources/config.ovpn"].content == text("client\n").encode()
    assert {file.mode for file in files.values()} == {0o600}
    assert plistlib.loads(files[folder / "Info.plist"].content) == {
        "CFBundleIdentifier": "d4m-devkit.shop.laptop",
        "CFBundleVersion": "1",
        "TBPackageVersion": "1",
        "TBReplaceIdentical": "yes",
    }


@pytest.mark.parametrize(
    ("system", "commands"),
    [
        ("macOS", ["open local/a.tblk", "import the profile, then switch it on"]),
        ("Windows", ["import the profile, then connect"]),
        ("Linux", [
            "sudo openvpn --config local/a.ovpn",
            "nmcli connection import type openvpn file local/a.ovpn",
            "nmcli connection modify a ipv4.never-default yes ipv4.ignore-auto-routes yes ipv4.ignore-auto-dns yes "
            "ipv6.method disabled",
        ]),
    ],
)  # fmt: skip
def test_each_system_has_its_own_way_to_open_a_profile(system: OperatingSystem, commands: list[str]) -> None:
    steps = opening_steps("local/a.ovpn", system)
    assert len(steps) == len(commands)
    assert all(step.endswith(command) for step, command in zip(steps, commands, strict=True))
