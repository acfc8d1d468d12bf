"""What a stock client takes from a server that has turned against it: an address of the VPN's own, and nothing else."""

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import copy_project
from tests.docker_desktop import Mac
from tests.vpn import connected, eventually, in_client_programs, start_client

HOST = "192.0.2.1"
TAKEOVER = [
    "redirect-gateway def1 ipv6",
    "redirect-private def1",
    "route 203.0.113.0 255.255.255.0",
    '"route" 233.252.0.0 255.255.255.0',
    "route 0.0.0.0 0.0.0.0",
    "route-ipv6 2000::/3",
    "route-ipv6-gateway fd00::1",
    "ifconfig-ipv6 fd00::2/3 fd00::1",
    '"ifconfig-ipv6" fd00::2/3 fd00::1',
    '"ifconfig" 64.0.0.2 240.0.0.0',
    "'ifconfig' 64.0.0.2 240.0.0.0",
    "dhcp-option DNS 203.0.113.53",
    "dhcp-option DOMAIN hostile.example",
    "dns server 0 address 203.0.113.53",
    "dns search-domains hostile.example",
    "block-outside-dns",
    "block-ipv6",
    "register-dns",
    "setenv-safe HOSTILE yes",
    "tun-mtu 1400",
]
# What `server` in server.conf stands for, but for the pool of addresses, whose own would come last.
OWN_ADDRESS_ALONE = """
mode server
tls-server
ifconfig 10.213.94.1 255.255.255.0
push "topology subnet"
push "route-gateway 10.213.94.1"
"""


@pytest.fixture(scope="module")
def project(mac: Mac) -> Iterator[Path]:
    placed = copy_project(mac.home / "devkit", vpn_host=HOST)
    yield placed
    shutil.rmtree(placed)


@pytest.fixture(params=["2.6", "2.7"])
def openvpn(mac: Mac, request: pytest.FixtureRequest) -> tuple[Sequence[str], Path]:
    """A client of each series, which prints what it would tell a script about DNS, and the Mac's home as it sees it."""
    program, home = (
        (["openvpn"], mac.home) if request.param == "2.6" else ([*in_client_programs(mac), "openvpn"], "/mnt")
    )
    assert mac.run(*program, "--version", check=False).stdout.startswith(f"OpenVPN {request.param}")
    return [*program, "--script-security", "2", "--up", "/bin/sh -c env"], Path(home)


@contextmanager
def server(mac: Mac, project: Path, *options: str, pool: bool = True) -> Iterator[None]:
    """The project's own server, with more options, on a wire of its own to the Mac; without `pool` it must push all."""
    configuration = project / "server/server.conf"
    if not pool:
        text = configuration.read_text().replace("server 10.213.94.0 255.255.255.0", OWN_ADDRESS_ALONE)
        configuration = project / "server/without-pool.conf"
        configuration.write_text(text)
    setup = f"""
        echo alone
        until ip link show wire > /dev/null 2>&1; do sleep 0.05; done
        ip address add {HOST}/24 dev wire && ip link set wire up && exec openvpn "$@" """
    # Keys that are the user's alone are nobody's to read here, as they are not in a container.
    command = ["openvpn", "--cd", str(project / "local/configs"), "--config", str(configuration),
               "--user", "root", "--group", "root", "--port", "1194"]  # fmt: skip
    log = mac.home / f"server-{time.monotonic_ns()}.log"
    with log.open("w") as output:
        process = mac.start("unshare", "--net", "sh", "-c", setup, *command, *options, output=output)
    try:
        eventually(lambda: "alone" in log.read_text())
        mac.run("ip", "link", "add", "en7", "type", "veth", "peer", "name", "wire", "netns", str(process.pid))
        mac.run("ip", "address", "add", "192.0.2.2/24", "dev", "en7")
        mac.run("ip", "link", "set", "en7", "up")
        eventually(lambda: "Initialization Sequence Completed" in log.read_text())
        yield
    finally:
        process.terminate()
        process.wait(timeout=10)
        eventually(lambda: mac.run("ip", "link", "show", "en7", check=False).returncode != 0)


def pushing(options: Sequence[str]) -> list[str]:
    return [word for option in options for word in ("--push", option)]


def network(mac: Mac) -> set[str]:
    """The Mac's addresses and routes, but for what every device of IPv6 has."""
    lines = set()
    for family in ("-4", "-6"):
        for device in json.loads(mac.run("ip", "-json", family, "address").stdout):
            lines |= {f"{device['ifname']} {own['local']}/{own['prefixlen']}" for own in device.get("addr_info", [])}
        lines |= {line.strip() for line in mac.run("ip", family, "route").stdout.splitlines()}
    return {line for line in lines if "fe80::" not in line}


def test_server_that_pushes_everything_gets_nothing_but_an_address_in(
    mac: Mac, project: Path, openvpn: tuple[Sequence[str], Path]
) -> None:
    program, home = openvpn
    with server(mac, project, *pushing(TAKEOVER)):
        before = network(mac)
        with connected(mac, home / "devkit/local/docker-for-mac.ovpn", program) as client:
            assert network(mac) - before == {
                "tun0 10.213.94.2/24",
                "10.213.94.0/24 dev tun0 proto kernel scope link src 10.213.94.2",
                "172.16.0.0/12 via 10.213.94.1 dev tun0",
            }
            assert before <= network(mac)
            assert "mtu 9000" in mac.run("ip", "link", "show", "tun0").stdout
            assert "script_type=up" in client.said()
            environment = [line for line in client.said().splitlines() if "=" in line.split(" ")[0]]
            assert not [line for line in environment if "hostile" in line.lower() or "203.0.113" in line]


@pytest.mark.parametrize(
    ("pushed", "done"),
    [
        ("ifconfig 10.213.94.2 240.0.0.0", "rejected"),
        ("ifconfig 10.213.94.2 255.255.0.0", "rejected"),
        ("ifconfig 10.213.95.2 255.255.255.0", "rejected"),
        ("ifconfig 64.0.0.2 255.255.255.0", "rejected"),
        ("ifconfig 64.0.0.2 240.0.0.0", "rejected"),
        ('"ifconfig" 64.0.0.2 240.0.0.0', "removed"),
        ("'ifconfig' 64.0.0.2 240.0.0.0", "removed"),
    ],
)
def test_address_that_takes_in_more_than_the_vpns_own_subnet_is_refused(
    mac: Mac, project: Path, openvpn: tuple[Sequence[str], Path], pushed: str, done: str
) -> None:
    program, home = openvpn
    with server(mac, project, *pushing([pushed]), pool=False):
        before = network(mac)
        with start_client(mac, home / "devkit/local/docker-for-mac.ovpn", program) as client:
            client.wait_for(f"Pushed option {done} by filter: '{pushed}'")
            client.wait_for("process restarting" if done == "rejected" else "Initialization Sequence Completed")
            assert network(mac) == before


def test_part_of_the_subnet_that_a_replica_hands_out_is_taken(
    mac: Mac, project: Path, openvpn: tuple[Sequence[str], Path]
) -> None:
    program, home = openvpn
    with server(mac, project, "--server", "10.213.94.240", "255.255.255.240"):
        before = network(mac)
        with connected(mac, home / "devkit/local/docker-for-mac.ovpn", program) as client:
            assert "by filter" not in client.said()  # the server that the profile was made for pushes nothing else
            assert network(mac) - before == {
                "tun0 10.213.94.242/28",
                "10.213.94.240/28 dev tun0 proto kernel scope link src 10.213.94.242",
                "172.16.0.0/12 via 10.213.94.241 dev tun0",
            }
